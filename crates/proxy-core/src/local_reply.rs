//! Answers that the proxy makes itself: text, gRPC form, and `local_reply_config`.
use std::sync::Arc;

use crate::access_log::Format;
use crate::config::{AccessLogFilter, HeaderMutation, Name};

/// Changes of local replies.
#[derive(Clone, Debug, Default)]
pub struct LocalReplyConfig {
    /// First mapper whose filter holds is used.
    pub mappers: Vec<ResponseMapper>,
    /// Body format when no mapper sets one.
    pub body_format: Option<BodyFormat>,
}

/// One change.
#[derive(Clone, Debug)]
pub struct ResponseMapper {
    /// Which replies.
    pub filter: AccessLogFilter,
    /// New status.
    pub status: Option<u16>,
    /// New body, the value of `%LOCAL_REPLY_BODY%`.
    pub body: Option<Arc<[u8]>>,
    /// Body format.
    pub body_format: Option<BodyFormat>,
    /// Response headers.
    pub headers: Vec<HeaderMutation>,
}

/// How a body is written.
#[derive(Clone, Debug)]
pub struct BodyFormat {
    /// Format with `%LOCAL_REPLY_BODY%`.
    pub format: Arc<Format>,
    /// `content-type`; `text/plain` or `application/json` by default.
    pub content_type: Name,
}

/// gRPC status of an HTTP status, for local replies to gRPC requests.
#[must_use]
pub fn grpc_status(http: u16) -> u32 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// HTTP status of a gRPC status, by which a host is judged.
#[must_use]
pub fn http_status(grpc: u32) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        // Unknown, internal, data loss, and what is no status.
        _ => 500,
    }
}

/// Writes `grpc-message`: percent-encodes what is not printable ASCII, and `%`.
pub fn write_grpc_message(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in text {
        if (0x20..=0x7e).contains(b) && *b != b'%' {
            out.push(*b);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
    }
}

/// Why the proxy answered itself: code, body, flag and details of the usual situations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: &'static str,
    /// Response flags to set.
    pub flags: crate::flags::ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
}

/// How an upstream try ended without an answer, as the local reply words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// Connect refused, TLS failure.
    RemoteConnectionFailure,
    /// Local connect failure (bind).
    LocalConnectionFailure,
    /// Connect timeout.
    ConnectionTimeout,
    /// Closed by the peer.
    ConnectionTermination,
    /// RST_STREAM by the upstream.
    RemoteReset,
    /// CONNECT_ERROR by the upstream.
    RemoteConnectError,
    /// REFUSED_STREAM by the upstream.
    RemoteRefusedStreamReset,
    /// Reset here.
    LocalReset,
    /// Breaker.
    Overflow,
    /// Malformed answer.
    ProtocolError,
}

impl ResetReason {
    /// Words of the reply body.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::RemoteConnectionFailure => "remote connection failure",
            Self::LocalConnectionFailure => "local connection failure",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RemoteConnectError => "remote error with CONNECT request",
            Self::RemoteRefusedStreamReset => "remote refused stream reset",
            Self::LocalReset => "local reset",
            Self::Overflow => "overflow",
            Self::ProtocolError => "protocol error",
        }
    }

    /// Response flag.
    #[must_use]
    pub fn flag(self) -> crate::flags::ResponseFlags {
        use crate::flags::ResponseFlags as F;
        match self {
            Self::RemoteConnectionFailure
            | Self::LocalConnectionFailure
            | Self::ConnectionTimeout => F::UPSTREAM_CONNECTION_FAILURE,
            Self::ConnectionTermination => F::UPSTREAM_CONNECTION_TERMINATION,
            Self::RemoteReset | Self::RemoteConnectError | Self::RemoteRefusedStreamReset => {
                F::UPSTREAM_REMOTE_RESET
            }
            Self::LocalReset => F::LOCAL_RESET,
            Self::Overflow => F::UPSTREAM_OVERFLOW,
            Self::ProtocolError => F::UPSTREAM_PROTOCOL_ERROR,
        }
    }

    /// Status of the reply.
    #[must_use]
    pub fn status(self) -> u16 {
        if self == Self::ProtocolError {
            502
        } else {
            503
        }
    }

    /// Writes the reply body. `transport` is shown for no reason but connect failures' details.
    #[must_use]
    pub fn body(self, retried: bool) -> String {
        if retried {
            format!(
                "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: {}",
                self.text()
            )
        } else {
            format!(
                "upstream connect error or disconnect/reset before headers. reset reason: {}",
                self.text()
            )
        }
    }

    /// `%RESPONSE_CODE_DETAILS%`: spaces become `_`; a transport failure follows after `|`.
    #[must_use]
    pub fn details(self, transport_failure: &str) -> String {
        let mut inner = self.text().to_owned();
        if !transport_failure.is_empty() {
            inner.push('|');
            inner.push_str(transport_failure);
        }
        format!(
            "upstream_reset_before_response_started{{{}}}",
            inner.replace(' ', "_")
        )
    }

    /// `%RESPONSE_CODE_DETAILS%` where the answer had begun.
    #[must_use]
    pub fn details_after(self) -> String {
        let text = self.text().replace(' ', "_");
        format!("upstream_reset_after_response_started{{{text}}}")
    }
}

macro_rules! situations {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $body:literal, $flag:ident, $details:literal;)*) => {
        impl Situation {
            $($(#[$doc])* pub const $name: Self = Self {
                status: $status, body: $body, flags: crate::flags::ResponseFlags::$flag, details: $details,
            };)*
        }
    };
}

situations! {
    /// No virtual host or no route.
    NO_ROUTE = 404, "", NO_ROUTE_FOUND, "route_not_found";
    /// Cluster is not known; the status is the route's `cluster_not_found_code`.
    NO_CLUSTER = 503, "", NO_CLUSTER_FOUND, "cluster_not_found";
    /// No host to send to.
    NO_HEALTHY_UPSTREAM = 503, "no healthy upstream", NO_HEALTHY_UPSTREAM, "no_healthy_upstream";
    /// Whole-request timeout.
    REQUEST_TIMEOUT = 504, "upstream request timeout", UPSTREAM_REQUEST_TIMEOUT, "response_timeout";
    /// Timeout of one try.
    PER_TRY_TIMEOUT = 504, "upstream request timeout", UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_timeout";
    /// Stream idle, request complete.
    STREAM_IDLE = 504, "stream timeout", STREAM_IDLE_TIMEOUT, "stream_idle_timeout";
    /// Stream idle, request not complete.
    STREAM_IDLE_REQUEST = 408, "stream timeout", STREAM_IDLE_TIMEOUT, "stream_idle_timeout";
    /// Longest life of a stream.
    MAX_DURATION = 504, "downstream duration timeout", NONE, "max_duration_timeout";
    /// Longest life of a try's stream.
    UPSTREAM_MAX_DURATION = 504, "upstream max stream duration reached", UPSTREAM_MAX_STREAM_DURATION_REACHED, "upstream_max_stream_duration_reached";
    /// The same before the whole request had arrived.
    MAX_DURATION_REQUEST = 408, "downstream duration timeout", NONE, "max_duration_timeout";
    /// Whole request did not arrive in time.
    REQUEST_INCOMPLETE = 408, "request timeout", NONE, "request_overall_timeout";
    /// Request headers did not arrive in time.
    HEADERS_INCOMPLETE = 408, "request header timeout", NONE, "request_header_timeout";
    /// Body over the buffer limit.
    PAYLOAD_TOO_LARGE = 413, "Payload Too Large", NONE, "request_payload_too_large";
    /// Fault filter.
    FAULT_ABORT = 503, "fault filter abort", FAULT_INJECTED, "fault_filter_abort";
    /// The overload manager turns requests away.
    OVERLOAD = 503, "envoy overloaded", NONE, "overload";
    /// The endpoints say that a share of the requests is to be dropped.
    DROP_OVERLOAD = 503, "drop overload", DROP_OVERLOAD, "drop_overload";
    /// They say so of all requests.
    UNCONDITIONAL_DROP_OVERLOAD = 503, "unconditional drop overload", UNCONDITIONAL_DROP_OVERLOAD, "unconditional_drop_overload";
    /// No Host header.
    MISSING_HOST = 400, "", NONE, "missing_host_header";
    /// Path is not acceptable (fragment, bad escapes).
    PATH_NORMALIZATION_FAILED = 400, "", NONE, "path_normalization_failed";
    /// Upgrade is not allowed.
    UPGRADE_FAILED = 403, "", NONE, "upgrade_failed";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_texts() {
        let r = ResetReason::RemoteConnectionFailure;
        assert_eq!(
            r.details("delayed connect error: Connection refused"),
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
        assert_eq!(
            r.body(false),
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        );
        assert_eq!(ResetReason::ProtocolError.status(), 502);
    }

    #[test]
    fn grpc_messages() {
        let mut out = Vec::new();
        write_grpc_message("a%b\n\u{e9}".as_bytes(), &mut out);
        assert_eq!(out, b"a%25b%0A%C3%A9");
        for (http, grpc) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (503, 14),
            (500, 2),
        ] {
            assert_eq!(grpc_status(http), grpc);
        }
    }
}
