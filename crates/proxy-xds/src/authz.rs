//! The messages of the external authorisation service (`envoy.service.auth.v3`): a check from what
//! is known of a request, and a verdict from the service's answer. Lengths and forms are checked
//! here; what a verdict does to the request is the engine's.
#![expect(
    deprecated,
    reason = "services still send fields that Envoy's API marks as deprecated"
)]

use std::collections::HashMap;
use std::net::SocketAddr;

use lateen_proxy_core::config::{Fields, Metadata, Name, Value};
use lateen_proxy_core::query::QueryEdits;
use lateen_xds_proto::Message as _;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::service::auth::v3 as pb;
use lateen_xds_proto::envoy::r#type::v3::HttpStatus;
use lateen_xds_proto::google::protobuf;

use crate::decode::{struct_to_value, value_to_struct};

/// The method that is called.
pub const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What a check says of a request. Texts that are not UTF-8 are told with `!` for what is none.
#[derive(Clone, Debug, Default)]
pub struct Check<'a> {
    /// The client and its names.
    pub source: Option<SocketAddr>,
    /// Its URI or DNS name, or subject; empty = none.
    pub source_principal: &'a str,
    /// Where it connected to.
    pub destination: Option<SocketAddr>,
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Number of the stream.
    pub id: u64,
    /// `:method`.
    pub method: &'a [u8],
    /// `:path` with query.
    pub path: &'a [u8],
    /// `:authority`.
    pub host: &'a [u8],
    /// `:scheme`.
    pub scheme: &'a [u8],
    /// `HTTP/1.1`, ...
    pub protocol: &'a str,
    /// Length of the body; none = not known.
    pub size: Option<u64>,
    /// Headers, pseudo headers too.
    pub headers: Vec<(&'a [u8], &'a [u8])>,
    /// The body or its beginning.
    pub body: &'a [u8],
    /// The body goes as bytes.
    pub body_as_bytes: bool,
    /// What the route adds.
    pub context_extensions: &'a [(Name, Name)],
    /// Dynamic metadata by namespace.
    pub metadata: Vec<(Name, Value)>,
    /// SNI, where it is to be told.
    pub server_name: Option<&'a str>,
}

/// Bytes that are no UTF-8 become `!`, one for one.
fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(std::iter::repeat_n('!', chunk.invalid().len()));
    }
    out
}

fn address(of: SocketAddr) -> core::Address {
    let socket = core::SocketAddress {
        address: of.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
            of.port().into(),
        )),
        ..Default::default()
    };
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}

/// Field numbers of `envoy.service.auth.v3`: of a check, of its attributes, of their request, of
/// its HTTP request.
const ATTRIBUTES: u8 = 1;
const REQUEST: u8 = 4;
const HTTP: u8 = 2;
const BODY: u8 = 11;
const RAW_BODY: u8 = 12;

/// Messages one in the other, each the last field of the one before, and at the end a field of so
/// many bytes that are still to follow: lengths are those of the whole.
fn before(messages: &[(u8, Vec<u8>)], last: (u8, usize)) -> Vec<u8> {
    // From the inside out.
    let mut heads: Vec<Vec<u8>> = Vec::new();
    let mut inside = 0;
    if last.1 > 0 {
        let head = field(last.0, last.1);
        inside = head.len() + last.1;
        heads.push(head);
    }
    for (number, own) in messages.iter().rev() {
        let length = own.len() + inside;
        let mut head = field(*number, length);
        inside = head.len() + length;
        head.extend_from_slice(own);
        heads.push(head);
    }
    heads.reverse();
    heads.concat()
}

/// Tag and length of a field with bytes; the number is below 16.
fn field(number: u8, mut length: usize) -> Vec<u8> {
    let mut head = vec![number << 3 | 2];
    while length >= 0x80 {
        head.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    head.push(length as u8);
    head
}

impl Check<'_> {
    /// The message on the wire without the body, which is its last field: its bytes follow as they
    /// are, or, where they are to be text and are none, those of the second value.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut headers: HashMap<String, String> = HashMap::new();
        for (name, value) in &self.headers {
            let value = text(value);
            headers
                .entry(text(name))
                .and_modify(|old| {
                    old.push_str(if *name == b"cookie" { "; " } else { "," });
                    old.push_str(&value);
                })
                .or_insert(value);
        }
        let plain = self.body_as_bytes || std::str::from_utf8(self.body).is_ok();
        let mended = (!plain).then(|| text(self.body).into_bytes());
        let body = mended.as_deref().unwrap_or(self.body);
        let http = pb::attribute_context::HttpRequest {
            id: self.id.to_string(),
            method: text(self.method),
            headers,
            path: text(self.path),
            host: text(self.host),
            scheme: text(self.scheme),
            size: self
                .size
                .map_or(-1, |s| i64::try_from(s).unwrap_or(i64::MAX)),
            protocol: self.protocol.to_owned(),
            ..Default::default()
        };
        let time = protobuf::Timestamp {
            seconds: (self.time_ns / 1_000_000_000) as i64,
            nanos: (self.time_ns % 1_000_000_000) as i32,
        };
        let metadata = self.metadata.iter().map(|(name, value)| {
            let fields = value_to_struct(value);
            (name.to_string(), fields)
        });
        let attributes = pb::AttributeContext {
            source: Some(pb::attribute_context::Peer {
                address: self.source.map(address),
                principal: self.source_principal.to_owned(),
                ..Default::default()
            }),
            destination: Some(pb::attribute_context::Peer {
                address: self.destination.map(address),
                ..Default::default()
            }),
            context_extensions: self
                .context_extensions
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            metadata_context: Some(core::Metadata {
                filter_metadata: metadata.collect(),
                ..Default::default()
            }),
            route_metadata_context: Some(core::Metadata::default()),
            tls_session: self
                .server_name
                .map(|sni| pb::attribute_context::TlsSession {
                    sni: sni.to_owned(),
                }),
            ..Default::default()
        };
        let request = pb::attribute_context::Request {
            time: Some(time),
            http: None,
        };
        let place = if self.body_as_bytes { RAW_BODY } else { BODY };
        let around = [
            (ATTRIBUTES, attributes.encode_to_vec()),
            (REQUEST, request.encode_to_vec()),
            (HTTP, http.encode_to_vec()),
        ];
        (before(&around, (place, body.len())), mended)
    }
}

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// In place of all lines.
    Set,
    /// As a further line.
    Add,
    /// Behind what there is, after a comma; nothing where there is none.
    Join,
    /// Where there is none.
    IfAbsent,
    /// In place of all lines, where there are some.
    IfPresent,
}

/// A header that the service wants written, as it says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderWrite {
    /// Name in lower case.
    pub name: Name,
    /// Value.
    pub value: Vec<u8>,
    /// How.
    pub write: Write,
}

/// What of an answer cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// No name of a header.
    #[error("invalid header name: {}", .0.as_bytes().escape_ascii())]
    Name(Name),
    /// Its value holds what would end a line, or is none of its kind.
    #[error("invalid header value for: {0}")]
    Value(Name),
    /// A method that needs more than a method.
    #[error("missing required header: :protocol")]
    Method,
}

/// Bytes that a name and a method may hold (RFC 9110 section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(fits)
}

/// No control characters but the tab.
fn is_value(text: &[u8]) -> bool {
    text.iter()
        .all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f))
}

/// No space either: it stands in a request line, or between slashes of a URL.
fn is_target(text: &[u8]) -> bool {
    text.iter().all(|b| *b > 0x20 && *b != 0x7f && *b != b'#')
}

impl HeaderWrite {
    /// What keeps it from being written into a request.
    ///
    /// # Errors
    /// The flaw.
    pub fn fits_request(&self) -> Result<(), Flaw> {
        let value = &self.value[..];
        let joined = matches!(self.write, Write::Add | Write::Join);
        let right = match &*self.name {
            ":path" => is_target(value) && (joined || value.first() == Some(&b'/')),
            ":authority" | "host" => is_target(value) && !value.is_empty(),
            ":method" if value == b"CONNECT" => return Err(Flaw::Method),
            ":method" => is_token(value),
            _ => return self.fits_response(),
        };
        match right {
            true => Ok(()),
            false => Err(Flaw::Value(self.name.clone())),
        }
    }

    /// What keeps it from being written into an answer. Pseudo headers fit and are not written.
    ///
    /// # Errors
    /// The flaw.
    pub fn fits_response(&self) -> Result<(), Flaw> {
        let name = self.name.strip_prefix(':').unwrap_or(&self.name);
        match (is_token(name.as_bytes()), is_value(&self.value)) {
            (false, _) => Err(Flaw::Name(self.name.clone())),
            (true, false) => Err(Flaw::Value(self.name.clone())),
            (true, true) => Ok(()),
        }
    }
}

/// What becomes of a request that passes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// Written into the request, in this order.
    pub headers: Vec<HeaderWrite>,
    /// Then taken out of it.
    pub remove: Vec<Name>,
    /// Then done to its query.
    pub query: QueryEdits,
    /// Written into the answer.
    pub response_headers: Vec<HeaderWrite>,
    /// An edit of the answer says in no known way how it is meant.
    pub unclear: bool,
}

impl Pass {
    /// Whether the request is changed.
    #[must_use]
    pub fn changes(&self) -> bool {
        !self.headers.is_empty() || !self.remove.is_empty() || !self.query.is_empty()
    }

    /// What keeps it from being done. Where a path is made of a query, it is looked at there.
    ///
    /// # Errors
    /// The first flaw.
    pub fn fits(&self) -> Result<(), Flaw> {
        self.headers
            .iter()
            .try_for_each(HeaderWrite::fits_request)?;
        for header in &self.response_headers {
            header.fits_response()?;
            if header.name.starts_with(':') {
                // An answer is not to have another status, or two.
                return Err(Flaw::Name(header.name.clone()));
            }
        }
        let texts = self
            .query
            .set
            .iter()
            .flat_map(|(name, value)| [name, value]);
        match { texts }.all(|text| is_target(text.as_bytes())) {
            true => Ok(()),
            false => Err(Flaw::Value(":path".into())),
        }
    }
}

/// The answer that the service gives for the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// HTTP status, 200 to 599; none = that of the configuration.
    pub status: Option<u16>,
    /// Headers.
    pub headers: Vec<HeaderWrite>,
    /// Body.
    pub body: Vec<u8>,
}

/// What the service says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The request passes.
    Passes(Pass, Metadata),
    /// It is refused with this answer.
    Refused(Refusal, Metadata),
    /// The service could not judge, and says what to answer then.
    Failed(Refusal),
}

/// The namespace of what the service wants kept.
pub const NAMESPACE: &str = "envoy.filters.http.ext_authz";

impl Verdict {
    /// Reads an answer. Whether what it asks for can be done shows where it is done.
    ///
    /// # Errors
    /// When it is no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        use pb::check_response::HttpResponse as R;
        let answer = pb::CheckResponse::decode(bytes).map_err(|e| e.to_string())?;
        let passes = answer.status.as_ref().is_none_or(|s| s.code == 0);
        let metadata = answer.dynamic_metadata.as_ref().map(struct_to_value);
        let mut kept = Fields::new();
        if let Some(value) = metadata {
            kept.insert(NAMESPACE.into(), value);
        }
        let metadata = Metadata::from(kept);
        Ok(match (passes, answer.http_response) {
            (true, Some(R::OkResponse(ok))) => Self::Passes(pass(&ok), metadata),
            (true, _) => Self::Passes(Pass::default(), metadata),
            (false, Some(R::DeniedResponse(denied))) => Self::Refused(
                refusal(denied.status.as_ref(), &denied.headers, denied.body, 403),
                metadata,
            ),
            (false, Some(R::ErrorResponse(error))) => {
                let status = error.status.as_ref();
                let mut refusal = refusal(status, &error.headers, error.body, 0);
                refusal.status = refusal.status.filter(|status| *status != 0);
                Self::Failed(refusal)
            }
            (false, _) => Self::Refused(refusal(None, &[], String::new(), 403), metadata),
        })
    }
}

/// An answer to the client. Every line of it stands for itself.
fn refusal(
    status: Option<&HttpStatus>,
    headers: &[core::HeaderValueOption],
    body: String,
    default: u16,
) -> Refusal {
    // 0 is no status; another one that is none must not let the request pass.
    let status = match status.map_or(0, |s| s.code) {
        0 => default,
        code => u16::try_from(code)
            .ok()
            .filter(|code| (200..600).contains(code))
            .unwrap_or(403),
    };
    let lines = headers.iter().filter_map(|option| line(option, Write::Add));
    Refusal {
        status: Some(status),
        headers: lines.collect(),
        body: body.into_bytes(),
    }
}

fn pass(ok: &pb::OkHttpResponse) -> Pass {
    // `append` alone counts for requests; without a word the service means to set it, so that a
    // client's own header does not stay.
    let appends = |option: &&core::HeaderValueOption| option.append.is_some_and(|a| a.value);
    let set = ok.headers.iter().filter(|option| !appends(option));
    let set = set.filter_map(|option| line(option, Write::Set));
    let joined = ok.headers.iter().filter(appends);
    let joined = joined.filter_map(|option| line(option, Write::Join));
    let mut unclear = false;
    let answers = ok.response_headers_to_add.iter().filter_map(|option| {
        let write = match (
            option.append.as_ref().map(|a| a.value),
            option.append_action,
        ) {
            (Some(true), _) | (None, 0) => Write::Add,
            (Some(false), _) | (None, 2) => Write::Set,
            (None, 1) => Write::IfAbsent,
            (None, 3) => Write::IfPresent,
            (None, _) => {
                unclear = true;
                return None;
            }
        };
        line(option, write)
    });
    let mut response_headers: Vec<HeaderWrite> = answers.collect();
    response_headers.sort_by_key(|header| match header.write {
        Write::Add | Write::Join => 0,
        Write::Set => 1,
        Write::IfAbsent => 2,
        Write::IfPresent => 3,
    });
    let parameters = ok.query_parameters_to_set.iter();
    Pass {
        headers: set.chain(joined).collect(),
        remove: ok
            .headers_to_remove
            .iter()
            .filter_map(|n| removable(n))
            .collect(),
        query: QueryEdits {
            set: parameters
                .map(|p| (p.key.as_str().into(), p.value.as_str().into()))
                .collect(),
            remove: ok
                .query_parameters_to_remove
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
        },
        response_headers,
        unclear,
    }
}

/// A header name; none for pseudo headers and the host, without which a request is none.
fn removable(text: &str) -> Option<Name> {
    let lower = text.to_ascii_lowercase();
    let fits = is_token(lower.as_bytes()) && lower != "host";
    fits.then(|| lower.into())
}

fn line(option: &core::HeaderValueOption, write: Write) -> Option<HeaderWrite> {
    let header = option.header.as_ref()?;
    let value = match header.raw_value.is_empty() {
        true => header.value.as_bytes(),
        false => &header.raw_value,
    };
    Some(HeaderWrite {
        name: header.key.to_ascii_lowercase().into(),
        value: value.to_vec(),
        write,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a service reads of the HTTP request.
    fn read(check: &Check<'_>) -> pb::attribute_context::HttpRequest {
        let (mut bytes, mended) = check.encode();
        bytes.extend_from_slice(mended.as_deref().unwrap_or(check.body));
        let read = pb::CheckRequest::decode(&*bytes).unwrap();
        let attributes = read.attributes.unwrap();
        let source = attributes.source.unwrap();
        assert_eq!(source.principal, check.source_principal);
        let request = attributes.request.unwrap();
        assert_eq!(request.time.unwrap().seconds, 7);
        request.http.unwrap()
    }

    #[test]
    fn the_body_follows_its_message() {
        for length in [0, 1, 127, 128, 20_000, 3_000_000] {
            let body = vec![b'a'; length];
            let mut check = Check {
                source_principal: "spiffe://a",
                time_ns: 7_000_000_000,
                path: b"/p",
                headers: vec![(b"x", b"1")],
                body: &body,
                ..Check::default()
            };
            let http = read(&check);
            assert_eq!(
                (http.path.as_str(), http.headers["x"].as_str()),
                ("/p", "1")
            );
            assert_eq!((http.body.as_bytes(), http.raw_body.len()), (&*body, 0));
            check.body_as_bytes = true;
            let http = read(&check);
            assert_eq!((http.raw_body, http.body), (body.clone(), String::new()));
        }
        let check = Check {
            time_ns: 7_000_000_000,
            body: b"a\xffb",
            ..Check::default()
        };
        assert_eq!(read(&check).body, "a!b");
        let raw = Check {
            body_as_bytes: true,
            ..check
        };
        assert_eq!(read(&raw).raw_body, b"a\xffb");
    }
}
