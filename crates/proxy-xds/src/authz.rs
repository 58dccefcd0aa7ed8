//! The messages of the external authorisation service (`envoy.service.auth.v3`): a check from what
//! is known of a request, and a verdict from the service's answer. Lengths and forms are checked
//! here; what a verdict does to the request is the engine's.
#![expect(
    deprecated,
    reason = "services still send fields that Envoy's API marks as deprecated"
)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;

use lateen_proxy_core::config::{Fields, Metadata, Name, Value};
use lateen_xds_proto::Message as _;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::service::auth::v3 as pb;
use lateen_xds_proto::google::protobuf;

use crate::decode::{struct_to_value, value_to_struct};

/// The method that is called.
pub const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What a check says of a request. Texts that are not UTF-8 are told with replacement characters.
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
        let mended = match String::from_utf8_lossy(self.body) {
            Cow::Owned(text) if !self.body_as_bytes => Some(text.into_bytes()),
            _ => None,
        };
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

/// A header that the service wants written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderWrite {
    /// Lower-case name, no pseudo header.
    pub name: Name,
    /// Value without control characters.
    pub value: Vec<u8>,
    /// How.
    pub write: Write,
}

/// What the service says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The request passes.
    Passes {
        /// Written into the request.
        headers: Vec<HeaderWrite>,
        /// Taken out of it.
        remove: Vec<Name>,
        /// Written into the answer.
        response_headers: Vec<HeaderWrite>,
        /// Kept as metadata.
        metadata: Metadata,
    },
    /// It is refused with this answer.
    Refused {
        /// HTTP status.
        status: u16,
        /// Headers.
        headers: Vec<HeaderWrite>,
        /// Body.
        body: Vec<u8>,
        /// Kept as metadata.
        metadata: Metadata,
    },
}

/// The namespace of what the service wants kept.
pub const NAMESPACE: &str = "envoy.filters.http.ext_authz";

impl Verdict {
    /// Reads an answer.
    ///
    /// # Errors
    /// When it is no message, or asks for what is not done.
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
        match (passes, answer.http_response) {
            (true, Some(R::OkResponse(ok))) => {
                let queries = !ok.query_parameters_to_set.is_empty()
                    || !ok.query_parameters_to_remove.is_empty();
                if queries {
                    return Err("query parameters of the answer are not implemented".into());
                }
                let named = ok.headers_to_remove.iter().filter_map(|n| name(n));
                Ok(Self::Passes {
                    headers: writes(&ok.headers)?,
                    remove: named.collect(),
                    response_headers: writes(&ok.response_headers_to_add)?,
                    metadata,
                })
            }
            (true, _) => Ok(Self::Passes {
                headers: Vec::new(),
                remove: Vec::new(),
                response_headers: Vec::new(),
                metadata,
            }),
            (false, Some(R::DeniedResponse(denied))) => {
                let status = denied.status.map_or(0, |s| s.code);
                let status = match u16::try_from(status) {
                    Ok(0) => 403,
                    Ok(status @ 200..=599) => status,
                    _ => return Err(format!("{status} is no status")),
                };
                Ok(Self::Refused {
                    status,
                    headers: writes(&denied.headers)?,
                    body: denied.body.into_bytes(),
                    metadata,
                })
            }
            (false, Some(R::ErrorResponse(_))) => Err("the service reports an error".into()),
            (false, _) => Ok(Self::Refused {
                status: 403,
                headers: Vec::new(),
                body: Vec::new(),
                metadata,
            }),
        }
    }
}

/// A header name; none for pseudo headers and the host, which are not the service's.
fn name(text: &str) -> Option<Name> {
    let lower = text.to_ascii_lowercase();
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fits = !lower.is_empty() && lower != "host" && lower.bytes().all(valid);
    fits.then(|| lower.into())
}

fn writes(all: &[core::HeaderValueOption]) -> Result<Vec<HeaderWrite>, String> {
    let mut out = Vec::with_capacity(all.len());
    for option in all {
        let Some(header) = &option.header else {
            continue;
        };
        let value = match header.raw_value.is_empty() {
            true => header.value.as_bytes(),
            false => &header.raw_value,
        };
        let plain = |b: &u8| *b == b'\t' || (*b >= 0x20 && *b != 0x7f);
        let Some(name) = name(&header.key).filter(|_| value.iter().all(plain)) else {
            return Err(format!("header {:?} cannot be written", header.key));
        };
        // Without a word the service means to set it: the old default, which Envoy keeps.
        let write = match (
            option.append.as_ref().map(|a| a.value),
            option.append_action,
        ) {
            (Some(true), _) => Write::Join,
            (Some(false), _) | (None, 0 | 2) => Write::Set,
            (None, 1) => Write::IfAbsent,
            (None, 3) => Write::IfPresent,
            (None, other) => return Err(format!("append action {other} is not known")),
        };
        out.push(HeaderWrite {
            name,
            value: value.to_vec(),
            write,
        });
    }
    Ok(out)
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
        assert_eq!(read(&check).body, "a\u{fffd}b");
        let raw = Check {
            body_as_bytes: true,
            ..check
        };
        assert_eq!(read(&raw).raw_body, b"a\xffb");
    }
}
