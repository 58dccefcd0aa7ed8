//! The HTTP/1.1 upgrade: which transport and protocol a request offers, and the 101 answer.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Body;
use crate::api::ApiError;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// A usable offer.
#[derive(Debug)]
pub struct Offer {
    /// The client's key, for WebSocket.
    key: Option<String>,
    /// The chosen protocol; empty when a WebSocket client named none.
    protocol: String,
}

/// A connection being upgraded.
#[derive(Debug)]
pub struct Pending(OnUpgrade);

impl Pending {
    /// The byte stream, once the 101 answer is out; `None` when the client left before.
    pub async fn ready(self) -> Option<TokioIo<Upgraded>> {
        match self.0.await {
            Ok(upgraded) => Some(TokioIo::new(upgraded)),
            Err(error) => {
                tracing::debug!("upgrade failed: {error}");
                None
            }
        }
    }
}

/// An accepted offer.
#[derive(Debug)]
pub enum Upgrade {
    /// WebSocket, version 13.
    WebSocket {
        /// The connection.
        connection: Pending,
        /// The chosen subprotocol.
        protocol: String,
    },
    /// SPDY/3.1.
    Spdy {
        /// The connection.
        connection: Pending,
    },
}

/// Comma-separated values of all headers of a name.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect()
}

impl Offer {
    /// Reads a request's offer and chooses the first of our protocols that it names.
    ///
    /// # Errors
    /// 400 when it is no upgrade or names no protocol of ours. kubectl then tries SPDY after
    /// WebSocket, and shows the text after SPDY.
    pub fn of<B>(request: &Request<B>, sockets: &[&str], spdy: &[&str]) -> Result<Self, ApiError> {
        let headers = request.headers();
        let upgrade = values(headers, &header::UPGRADE);
        if upgrade.iter().any(|u| u.eq_ignore_ascii_case("websocket")) {
            let key = headers
                .get(header::SEC_WEBSOCKET_KEY)
                .and_then(|key| key.to_str().ok());
            let version = headers
                .get(header::SEC_WEBSOCKET_VERSION)
                .map(HeaderValue::as_bytes);
            let (Some(key), Some(b"13")) = (key, version) else {
                return Err(ApiError::bad_request("malformed WebSocket handshake"));
            };
            let offered = values(headers, &header::SEC_WEBSOCKET_PROTOCOL);
            let protocol = if offered.is_empty() {
                String::new()
            } else {
                negotiate(&offered, sockets)?
            };
            return Ok(Self {
                key: Some(key.to_owned()),
                protocol,
            });
        }
        if upgrade.iter().any(|u| u.eq_ignore_ascii_case("spdy/3.1")) {
            let offered = values(headers, &STREAM_PROTOCOL);
            return Ok(Self {
                key: None,
                protocol: negotiate(&offered, spdy)?,
            });
        }
        Err(ApiError::bad_request("Upgrade request required"))
    }

    /// The chosen protocol.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Whether the transport is WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.key.is_some()
    }

    /// Takes over the request's connection; the answer must be sent for it to become ready.
    pub fn accept<B>(self, request: &mut Request<B>) -> (Upgrade, Response<Body>) {
        let connection = Pending(hyper::upgrade::on(request));
        let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        // The protocol is one of our own constants, the key is base64: both are header values.
        let value = HeaderValue::from_str(&self.protocol)
            .ok()
            .filter(|v| !v.is_empty());
        let protocol = self.protocol;
        let upgrade = if let Some(key) = self.key {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            }
            if let Some(value) = value {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
            }
            Upgrade::WebSocket {
                connection,
                protocol,
            }
        } else {
            headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            if let Some(value) = value {
                headers.insert(STREAM_PROTOCOL, value);
            }
            Upgrade::Spdy { connection }
        };
        (upgrade, answer)
    }
}

fn negotiate(offered: &[&str], ours: &[&str]) -> Result<String, ApiError> {
    ours.iter().find(|own| offered.contains(own)).map(|own| (*own).to_owned()).ok_or_else(|| {
        ApiError::bad_request(format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server \
             accepts {ours:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKETS: [&str; 2] = ["v5", "v4"];
    const SPDY: [&str; 2] = ["v4", "v3"];

    fn offer(headers: &[(&str, &str)]) -> Result<Offer, ApiError> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Offer::of(&request.body(()).expect("a request"), &SOCKETS, &SPDY)
    }

    #[test]
    fn our_best_offered_protocol_is_chosen() {
        let websocket = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        let with = |protocols: &str| {
            let mut headers = websocket.to_vec();
            headers.push(("sec-websocket-protocol", protocols));
            let owned: Vec<(&str, &str)> = headers;
            offer(&owned)
        };
        assert_eq!(with("v4, v5").expect("an offer").protocol(), "v5");
        assert!(with("other").is_err());
        assert_eq!(offer(&websocket).expect("an offer").protocol(), "");
        let spdy = [
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9"),
            ("x-stream-protocol-version", "v3"),
        ];
        let spdy = offer(&spdy).expect("an offer");
        assert!(spdy.protocol() == "v3" && !spdy.is_websocket());
    }

    #[test]
    fn other_requests_are_refused() {
        for headers in [
            vec![],
            vec![("upgrade", "h2c")],
            vec![("upgrade", "websocket")],
            vec![("upgrade", "SPDY/3.1")],
        ] {
            assert_eq!(offer(&headers).expect_err("refused").code, 400);
        }
    }
}
