//! Format text to operators.
use std::fmt;

use super::command::{
    AddressPart, Command, DurationUnit, Field, GrpcStatusForm, MetadataSource, Op, PathSource,
    TimePoint,
};
use super::time::TimeFormat;
use super::{JsonNode, Template, arguments};
use crate::config::{Name, Value};

/// A format that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// Byte offset of the operator in the format text.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "format at byte {}: {}", self.at, self.reason)
    }
}

impl std::error::Error for FormatError {}

impl Template {
    /// Reads a template: text with `%OPERATOR(arguments):length%`, `%%` for a percent sign.
    ///
    /// # Errors
    /// When an operator is unknown, badly formed or not closed.
    pub fn parse(format: &str) -> Result<Self, FormatError> {
        let mut ops = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(found) = format[at..].find('%') {
            literal.push_str(&format[at..at + found]);
            let start = at + found;
            if format[start + 1..].starts_with('%') {
                literal.push('%');
                at = start + 2;
                continue;
            }
            let error = |reason: String| FormatError { at: start, reason };
            let (name, args, length, end) = operator(&format[start..]).map_err(error)?;
            let command = command(name, args).map_err(error)?;
            if length.is_some() && !may_be_cut(&command) {
                return Err(error(format!("`%{name}%` takes no length")));
            }
            if !literal.is_empty() {
                ops.push(Op::Literal(std::mem::take(&mut literal).into()));
            }
            ops.push(Op::Command(command, length));
            at = start + end;
        }
        literal.push_str(&format[at..]);
        if !literal.is_empty() {
            ops.push(Op::Literal(literal.into()));
        }
        Ok(Self { ops })
    }

    /// Puts the values of environment variables in the place of their operators: they do not change
    /// while the process runs. A variable that is not set reads `-`, as in Envoy.
    pub fn resolve(&mut self, environment: &dyn Fn(&str) -> Option<String>) {
        for op in &mut self.ops {
            resolve(op, environment);
        }
    }

    /// A template without operators.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Self {
            ops: if text.is_empty() {
                vec![]
            } else {
                vec![Op::Literal(text.into())]
            },
        }
    }

    /// The text, where there is no operator.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match &self.ops[..] {
            [] => Some(""),
            [Op::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The operators, for those that must know what a template reads.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
}

fn resolve(op: &mut Op, environment: &dyn Fn(&str) -> Option<String>) {
    match op {
        Op::Command(Command::Environment(name), length) => {
            let mut value = environment(name).unwrap_or_else(|| "-".to_owned());
            if let Some(length) = *length {
                let end = (0..=length.min(value.len())).rev();
                value.truncate(
                    end.into_iter()
                        .find(|i| value.is_char_boundary(*i))
                        .unwrap_or(0),
                );
            }
            *op = Op::Literal(value.into());
        }
        Op::Command(Command::Coalesce(ops), _) => {
            for op in ops {
                resolve(op, environment);
            }
        }
        Op::Command(..) | Op::Literal(_) => {}
    }
}

impl JsonNode {
    /// Reads a `json_format`: strings are templates, other values stay.
    ///
    /// # Errors
    /// When a template is not understood.
    pub fn parse(value: &Value) -> Result<Self, FormatError> {
        Ok(match value {
            Value::Null => Self::Literal("null".into()),
            Value::Bool(b) => Self::Literal(if *b { "true" } else { "false" }.into()),
            Value::Number(n) => Self::Literal(format!("{n}").into()),
            Value::String(s) => Self::Template(Template::parse(s)?),
            Value::List(list) => {
                Self::List(list.iter().map(Self::parse).collect::<Result<_, _>>()?)
            }
            Value::Struct(map) => Self::Object(
                map.iter()
                    .map(|(k, v)| Ok((k.clone(), Self::parse(v)?)))
                    .collect::<Result<_, FormatError>>()?,
            ),
        })
    }
}

impl JsonNode {
    /// [`Template::resolve`] for every template.
    pub fn resolve(&mut self, environment: &dyn Fn(&str) -> Option<String>) {
        match self {
            Self::Template(template) => template.resolve(environment),
            Self::List(nodes) => nodes.iter_mut().for_each(|n| n.resolve(environment)),
            Self::Object(fields) => fields.iter_mut().for_each(|(_, n)| n.resolve(environment)),
            Self::Literal(_) => {}
        }
    }
}

/// Envoy takes `:length` where the value is text of any length.
fn may_be_cut(command: &Command) -> bool {
    matches!(
        command,
        Command::RequestHeader(..)
            | Command::ResponseHeader(..)
            | Command::ResponseTrailer(..)
            | Command::Environment(_)
            | Command::Coalesce(_)
            | Command::ServerName(..)
            | Command::QueryParameter(_)
            | Command::Path { .. }
            | Command::FilterState(..)
            | Command::Metadata(..)
    )
}

/// An operator cut off the front of a text: name, arguments, length, bytes used.
type Cut<'a> = (&'a str, Option<&'a str>, Option<usize>, usize);

/// Cuts `%NAME(args):len%` off the front.
fn operator(text: &str) -> Result<Cut<'_>, String> {
    let body = &text[1..];
    let name_len = body
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .ok_or("operator is not closed by `%`")?;
    let name = &body[..name_len];
    if name.is_empty() {
        return Err("`%` must be followed by an operator name or another `%`".into());
    }
    let rest = &body[name_len..];
    if !rest.starts_with('(') {
        let (length, used) = tail(rest).ok_or_else(|| format!("`%{name}` is not closed by `%`"))?;
        return Ok((name, None, length, 1 + name_len + used));
    }
    // Arguments may hold `)` and `%` (time formats): they end at the first `)` that closes the operator.
    let mut at = 1;
    while let Some(close) = rest[at..].find(')') {
        let end = at + close;
        if let Some((length, used)) = tail(&rest[end + 1..]) {
            return Ok((
                name,
                Some(&rest[1..end]),
                length,
                1 + name_len + end + 1 + used,
            ));
        }
        at = end + 1;
    }
    Err(format!("`%{name}(` is not closed by `)%`"))
}

/// Reads `:len%` or `%`.
fn tail(text: &str) -> Option<(Option<usize>, usize)> {
    if text.starts_with('%') {
        return Some((None, 1));
    }
    let digits = text.strip_prefix(':')?;
    let end = digits.find('%')?;
    Some((Some(digits[..end].parse().ok()?), end + 2))
}

/// What the `_LOCAL` times are written as; the zone is always UTC here.
const LOCAL_TIME: &str = "%Y-%m-%dT%H:%M:%E3S%z";

fn command(name: &str, args: Option<&str>) -> Result<Command, String> {
    nested(name, args, 0)
}

/// An operator that stands so deep in others.
pub(super) fn nested(name: &str, args: Option<&str>, depth: usize) -> Result<Command, String> {
    if let Some(field) = plain(name) {
        return match (args, field) {
            (None, field) => Ok(field),
            (Some(bits), Command::AddressPart(field, AddressPart::Host)) => {
                let part = AddressPart::Prefix(arguments::prefix(bits)?);
                Ok(Command::AddressPart(field, part))
            }
            (Some("ALLOW_WHITESPACES"), Command::Field(Field::ResponseCodeDetails)) => {
                Ok(Command::Spaced(Field::ResponseCodeDetails))
            }
            (Some(_), _) => Err(format!("`%{name}%` takes no arguments")),
        };
    }
    let need = || {
        args.filter(|a| !a.is_empty())
            .ok_or_else(|| format!("`%{name}(...)%` needs an argument"))
    };
    Ok(match name {
        "COALESCE" => arguments::coalesce(need()?, depth)?,
        "REQUESTED_SERVER_NAME" => match args {
            None => Command::Field(Field::RequestedServerName),
            Some(args) => arguments::server_name(args)?,
        },
        "QUERY_PARAMS" => match args {
            None | Some("" | "ORIG") => Command::QueryParameter(Name::default()),
            Some(other) => return Err(format!("`{other}`: ORIG expected")),
        },
        "REQ" | "REQUEST_HEADER" => headers(need()?, Command::RequestHeader)?,
        "RESP" | "RESPONSE_HEADER" => headers(need()?, Command::ResponseHeader)?,
        "TRAILER" | "RESPONSE_TRAILER" => headers(need()?, Command::ResponseTrailer)?,
        "START_TIME" => time(TimePoint::Start, args)?,
        "START_TIME_LOCAL" => time(TimePoint::Start, args.or(Some(LOCAL_TIME)))?,
        "EMIT_TIME" => time(TimePoint::Emit, args)?,
        "EMIT_TIME_LOCAL" => time(TimePoint::Emit, args.or(Some(LOCAL_TIME)))?,
        "DOWNSTREAM_PEER_CERT_V_START" => time(TimePoint::PeerCertStart, args)?,
        "DOWNSTREAM_PEER_CERT_V_END" => time(TimePoint::PeerCertEnd, args)?,
        "UPSTREAM_PEER_CERT_V_START" => time(TimePoint::UpstreamPeerCertStart, args)?,
        "UPSTREAM_PEER_CERT_V_END" => time(TimePoint::UpstreamPeerCertEnd, args)?,
        "COMMON_DURATION" => duration(need()?)?,
        "GRPC_STATUS" => Command::GrpcStatus(match args.unwrap_or("") {
            "" | "CAMEL_STRING" => GrpcStatusForm::Camel,
            "SNAKE_STRING" => GrpcStatusForm::Snake,
            "NUMBER" => GrpcStatusForm::Number,
            other => {
                return Err(format!(
                    "`%GRPC_STATUS({other})%`: CAMEL_STRING, SNAKE_STRING or NUMBER"
                ));
            }
        }),
        "GRPC_STATUS_NUMBER" => Command::GrpcStatus(GrpcStatusForm::Number),
        "DYNAMIC_METADATA" => metadata(MetadataSource::Dynamic, need()?),
        "CLUSTER_METADATA" => metadata(MetadataSource::Cluster, need()?),
        "UPSTREAM_METADATA" => metadata(MetadataSource::UpstreamHost, need()?),
        "METADATA" => typed_metadata(need()?)?,
        "FILTER_STATE" => Command::FilterState(false, state_key(need()?)?),
        "UPSTREAM_FILTER_STATE" => Command::FilterState(true, state_key(need()?)?),
        "ENVIRONMENT" => Command::Environment(need()?.into()),
        "QUERY_PARAM" => Command::QueryParameter(need()?.into()),
        "PATH" => path(args.unwrap_or(""))?,
        _ => return Err(format!("`%{name}%` is not a known operator")),
    })
}

fn headers(args: &str, make: fn(Name, Option<Name>) -> Command) -> Result<Command, String> {
    let lower = |s: &str| Name::from(s.to_ascii_lowercase());
    let mut names = args.split('?');
    let (first, second) = (names.next().unwrap_or(""), names.next());
    if names.next().is_some() {
        return Err(format!("`{args}`: more than one alternative header"));
    }
    if first.is_empty() || second == Some("") {
        return Err(format!("`{args}`: a header name is empty"));
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    for name in [first, second.unwrap_or(first)] {
        let bare = name.strip_prefix(':').unwrap_or(name);
        if !bare.bytes().all(valid) {
            return Err(format!("`{name}` is no header name"));
        }
    }
    Ok(make(lower(first), second.map(lower)))
}

fn time(point: TimePoint, args: Option<&str>) -> Result<Command, String> {
    Ok(Command::Time(point, TimeFormat::parse(args.unwrap_or(""))?))
}

fn duration(args: &str) -> Result<Command, String> {
    let parts: Vec<&str> = args.split(':').collect();
    let [from, to, unit] = parts[..] else {
        return Err(format!("`{args}`: START:END:UNIT expected"));
    };
    let unit = match unit {
        "ms" => DurationUnit::Ms,
        "us" => DurationUnit::Us,
        "ns" => DurationUnit::Ns,
        other => return Err(format!("`{other}`: unit is ms, us or ns")),
    };
    Ok(Command::Duration(point(from)?, point(to)?, unit))
}

fn point(name: &str) -> Result<TimePoint, String> {
    Ok(match name {
        "DS_RX_BEG" => TimePoint::Start,
        "DS_RX_END" => TimePoint::DownstreamRxEnd,
        "US_CX_BEG" => TimePoint::UpstreamConnectStart,
        "US_CX_END" => TimePoint::UpstreamConnectEnd,
        "US_HS_END" => TimePoint::UpstreamTlsConnectEnd,
        "US_TX_BEG" => TimePoint::UpstreamTxStart,
        "US_TX_END" => TimePoint::UpstreamTxEnd,
        "US_RX_BEG" => TimePoint::UpstreamRxStart,
        "US_RX_BODY_BEG" => TimePoint::UpstreamRxBody,
        "US_RX_END" => TimePoint::UpstreamRxEnd,
        "DS_TX_BEG" => TimePoint::DownstreamTxStart,
        "DS_TX_END" => TimePoint::DownstreamTxEnd,
        other => return Err(format!("`{other}` is not a known time point")),
    })
}

fn metadata(source: MetadataSource, args: &str) -> Command {
    let mut parts = args.split(':').map(Name::from);
    let namespace = parts.next().unwrap_or_default();
    Command::Metadata(source, namespace, parts.collect())
}

fn typed_metadata(args: &str) -> Result<Command, String> {
    let (kind, rest) = args.split_once(':').unwrap_or((args, ""));
    let source = match kind {
        "DYNAMIC" => MetadataSource::Dynamic,
        "CLUSTER" => MetadataSource::Cluster,
        "UPSTREAM_HOST" => MetadataSource::UpstreamHost,
        "ROUTE" => MetadataSource::Route,
        "LISTENER" => MetadataSource::Listener,
        "VIRTUAL_HOST" => MetadataSource::VirtualHost,
        other => return Err(format!("`{other}` is not a known kind of metadata")),
    };
    Ok(metadata(source, rest))
}

fn state_key(args: &str) -> Result<Name, String> {
    let (key, form) = args.split_once(':').unwrap_or((args, "PLAIN"));
    match form {
        "PLAIN" | "TYPED" => Ok(key.into()),
        f if f.starts_with("FIELD:") => Ok(key.into()),
        other => Err(format!("`{other}`: PLAIN, TYPED or FIELD expected")),
    }
}

fn path(args: &str) -> Result<Command, String> {
    let (query, which) = args.split_once(':').unwrap_or((args, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("`{other}`: WQ or NQ expected")),
    };
    let source = match which {
        "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
        "ORIG" => PathSource::Original,
        "PATH" => PathSource::Current,
        other => return Err(format!("`{other}`: ORIG, PATH or ORIG_OR_PATH expected")),
    };
    Ok(Command::Path { query, source })
}

/// Operators without arguments.
fn plain(name: &str) -> Option<Command> {
    use Field as F;
    if let Some(address) = address(name) {
        return Some(address);
    }
    let ms = |from, to| Some(Command::Duration(from, to, DurationUnit::Ms));
    let field = match name {
        "DURATION" => return ms(TimePoint::Start, TimePoint::End),
        "REQUEST_DURATION" => return ms(TimePoint::Start, TimePoint::DownstreamRxEnd),
        "REQUEST_TX_DURATION" => return ms(TimePoint::Start, TimePoint::UpstreamTxEnd),
        "RESPONSE_DURATION" => return ms(TimePoint::Start, TimePoint::UpstreamRxStart),
        "RESPONSE_TX_DURATION" => {
            return ms(TimePoint::UpstreamRxStart, TimePoint::DownstreamTxEnd);
        }
        "ROUNDTRIP_DURATION" => return ms(TimePoint::Start, TimePoint::DownstreamLastAck),
        "DOWNSTREAM_HANDSHAKE_DURATION" => {
            return ms(TimePoint::Start, TimePoint::DownstreamHandshakeEnd);
        }
        "PROTOCOL" => F::Protocol,
        "UPSTREAM_PROTOCOL" => F::UpstreamProtocol,
        "RESPONSE_CODE" => F::ResponseCode,
        "RESPONSE_CODE_DETAILS" => F::ResponseCodeDetails,
        "RESPONSE_FLAGS" => F::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => F::ResponseFlagsLong,
        "CONNECTION_TERMINATION_DETAILS" => F::ConnectionTerminationDetails,
        "BYTES_RECEIVED" => F::BytesReceived,
        "BYTES_SENT" => F::BytesSent,
        "BYTES_RETRANSMITTED" => F::BytesRetransmitted,
        "PACKETS_RETRANSMITTED" => F::PacketsRetransmitted,
        "UPSTREAM_WIRE_BYTES_SENT" => F::UpstreamWireBytesSent,
        "UPSTREAM_WIRE_BYTES_RECEIVED" => F::UpstreamWireBytesReceived,
        "DOWNSTREAM_WIRE_BYTES_SENT" => F::DownstreamWireBytesSent,
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => F::DownstreamWireBytesReceived,
        "UPSTREAM_HOST_NAME" => F::UpstreamHostName,
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => F::UpstreamHostNameWithoutPort,
        "UPSTREAM_CLUSTER" => F::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => F::UpstreamClusterRaw,
        "UPSTREAM_CONNECTION_ID" => F::UpstreamConnectionId,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => F::UpstreamRequestAttemptCount,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => F::UpstreamTransportFailureReason,
        "UPSTREAM_HOSTS_ATTEMPTED" => F::UpstreamHostsAttempted,
        "UPSTREAM_HOST_NAMES_ATTEMPTED" => F::UpstreamHostNamesAttempted,
        "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => F::UpstreamHostNamesAttemptedWithoutPort,
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => F::UpstreamHostsAttemptedWithoutPort,
        "UPSTREAM_CONNECTION_IDS_ATTEMPTED" => F::UpstreamConnectionIdsAttempted,
        "UPSTREAM_TLS_VERSION" => F::UpstreamTlsVersion,
        "UPSTREAM_TLS_CIPHER" => F::UpstreamTlsCipher,
        "UPSTREAM_PEER_ISSUER" => F::UpstreamPeerIssuer,
        "UPSTREAM_PEER_SUBJECT" => F::UpstreamPeerSubject,
        "UPSTREAM_PEER_URI_SAN" => F::UpstreamPeerUriSan,
        "UPSTREAM_PEER_DNS_SAN" => F::UpstreamPeerDnsSan,
        "UPSTREAM_PEER_IP_SAN" => F::UpstreamPeerIpSan,
        "UPSTREAM_TLS_GROUP" => F::UpstreamTlsGroup,
        "UPSTREAM_TLS_SESSION_ID" => F::UpstreamTlsSessionId,
        "UPSTREAM_PEER_CERT" => F::UpstreamPeerCert,
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => F::UpstreamConnectionPoolReadyDuration,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => F::DownstreamTransportFailureReason,
        "DOWNSTREAM_PEER_URI_SAN" => F::DownstreamPeerUriSan,
        "DOWNSTREAM_PEER_DNS_SAN" => F::DownstreamPeerDnsSan,
        "DOWNSTREAM_PEER_IP_SAN" => F::DownstreamPeerIpSan,
        "DOWNSTREAM_PEER_EMAIL_SAN" => F::DownstreamPeerEmailSan,
        "DOWNSTREAM_PEER_SUBJECT" => F::DownstreamPeerSubject,
        "DOWNSTREAM_PEER_ISSUER" => F::DownstreamPeerIssuer,
        "DOWNSTREAM_PEER_SERIAL" => F::DownstreamPeerSerial,
        "DOWNSTREAM_PEER_FINGERPRINT_256" => F::DownstreamPeerFingerprint256,
        "DOWNSTREAM_PEER_FINGERPRINT_1" => F::DownstreamPeerFingerprint1,
        "DOWNSTREAM_PEER_CERT" => F::DownstreamPeerCert,
        "DOWNSTREAM_LOCAL_URI_SAN" => F::DownstreamLocalUriSan,
        "DOWNSTREAM_LOCAL_DNS_SAN" => F::DownstreamLocalDnsSan,
        "DOWNSTREAM_LOCAL_IP_SAN" => F::DownstreamLocalIpSan,
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256" => F::DownstreamPeerChainFingerprints256,
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1" => F::DownstreamPeerChainFingerprints1,
        "DOWNSTREAM_PEER_CHAIN_SERIALS" => F::DownstreamPeerChainSerials,
        "DOWNSTREAM_TLS_GROUP" => F::DownstreamTlsGroup,
        "DOWNSTREAM_LOCAL_SUBJECT" => F::DownstreamLocalSubject,
        "DOWNSTREAM_TLS_SESSION_ID" => F::DownstreamTlsSessionId,
        "DOWNSTREAM_TLS_CIPHER" => F::DownstreamTlsCipher,
        "DOWNSTREAM_TLS_VERSION" => F::DownstreamTlsVersion,
        "ROUTE_NAME" => F::RouteName,
        "VIRTUAL_CLUSTER_NAME" => F::VirtualClusterName,
        "LISTENER_NAME" => F::ListenerName,
        "FILTER_CHAIN_NAME" => F::FilterChainName,
        "CONNECTION_ID" => F::ConnectionId,
        "STREAM_ID" => F::StreamId,
        "TRACE_ID" => F::TraceId,
        "SPAN_ID" => F::SpanId,
        "HOSTNAME" => F::Hostname,
        "ACCESS_LOG_TYPE" => F::AccessLogType,
        "LOCAL_REPLY_BODY" => F::LocalReplyBody,
        "CUSTOM_FLAGS" => F::CustomFlags,
        "UNIQUE_ID" => F::UniqueId,
        "REQUEST_HEADERS_BYTES" => F::RequestHeadersBytes,
        "RESPONSE_HEADERS_BYTES" => F::ResponseHeadersBytes,
        "RESPONSE_TRAILERS_BYTES" => F::ResponseTrailersBytes,
        _ => return None,
    };
    Some(Command::Field(field))
}

/// Address operators with their `_WITHOUT_PORT` and `_PORT` forms.
fn address(name: &str) -> Option<Command> {
    use Field as F;
    let (base, part) = if let Some(base) = name.strip_suffix("_WITHOUT_PORT") {
        (base, Some(AddressPart::Host))
    } else if let Some(base) = name.strip_suffix("_PORT") {
        (base, Some(AddressPart::Port))
    } else {
        (name, None)
    };
    let field = match base {
        "UPSTREAM_HOST" if part.is_none() => F::UpstreamHost,
        "UPSTREAM_LOCAL_ADDRESS" | "UPSTREAM_LOCAL" => F::UpstreamLocalAddress,
        "UPSTREAM_REMOTE_ADDRESS" | "UPSTREAM_REMOTE" => F::UpstreamRemoteAddress,
        "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_LOCAL" => F::DownstreamLocalAddress,
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" | "DOWNSTREAM_DIRECT_LOCAL" => {
            F::DownstreamDirectLocalAddress
        }
        "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_REMOTE" => F::DownstreamRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE" => {
            F::DownstreamDirectRemoteAddress
        }
        _ => return None,
    };
    match part {
        // `DOWNSTREAM_LOCAL` alone is no operator; only its `_PORT` form is.
        None if !base.ends_with("_ADDRESS") && base != "UPSTREAM_HOST" => None,
        None => Some(Command::Field(field)),
        Some(part) => Some(Command::AddressPart(field, part)),
    }
}
