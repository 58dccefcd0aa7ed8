//! The HTTP connection manager's options.
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{Http1Options, Http2Options};
use super::http_filter::HeaderEdit;
use super::{AccessLog, CidrRange, FractionalPercent, HttpFilter, Name, RouteConfiguration};
use crate::local_reply::LocalReplyConfig;
use crate::original_ip::OriginalIp;

/// Codec of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codec {
    /// `PRI *` or ALPN h2 means HTTP/2, else HTTP/1.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Where the routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// In the connection manager.
    Inline(Arc<RouteConfiguration>),
    /// A route table of the snapshot, by name.
    Rds(Name),
}

/// What happens to the `server` response header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServerHeader {
    /// Replaced.
    #[default]
    Overwrite,
    /// Added when absent.
    AppendIfAbsent,
    /// Left.
    PassThrough,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ForwardClientCert {
    /// Removed.
    #[default]
    Sanitize,
    /// Passed on over mTLS, removed otherwise.
    ForwardOnly,
    /// Own element appended over mTLS.
    AppendForward,
    /// Replaced by the own element over mTLS.
    SanitizeSet,
    /// Passed on always.
    AlwaysForwardOnly,
}

/// Parts of the client certificate put into XFCC (By and Hash are always there).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    /// Subject.
    pub subject: bool,
    /// Certificate in URL-encoded PEM.
    pub cert: bool,
    /// Chain in URL-encoded PEM.
    pub chain: bool,
    /// DNS names.
    pub dns: bool,
    /// URIs.
    pub uri: bool,
}

/// What to do with `_` in header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Underscores {
    /// Let through.
    #[default]
    Allow,
    /// 400, or stream reset.
    Reject,
    /// Header is dropped.
    Drop,
}

/// What to do with `%2F` and `%5C` in paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// Left.
    #[default]
    Keep,
    /// 400.
    Reject,
    /// 307 to the unescaped path.
    UnescapeAndRedirect,
    /// Decoded before anything else.
    UnescapeAndForward,
}

/// Path normalisation options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PathNormalization {
    /// RFC 3986 dot segments, `\`, unreserved escapes.
    pub normalize: bool,
    /// Adjacent slashes become one.
    pub merge_slashes: bool,
    /// Escaped slashes.
    pub escaped_slashes: EscapedSlashes,
}

/// Which port is stripped from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StripPort {
    /// None.
    #[default]
    None,
    /// The listener's own.
    Matching,
    /// Any.
    Any,
}

/// An upgrade the listener or route knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Lower-case protocol, `websocket` or `connect`.
    pub protocol: Name,
    /// Switched on.
    pub enabled: bool,
    /// `connect` only: the tunnel ends here (CONNECT to TCP).
    pub connect_config: bool,
}

/// Options of an HTTP listener.
#[derive(Clone, Debug)]
pub struct HttpConnectionManager {
    /// Prefix of statistics.
    pub stat_prefix: Name,
    /// Codec.
    pub codec: Codec,
    /// Routes.
    pub routes: RouteSource,
    /// Filters in order; the last one is the router.
    pub http_filters: Vec<HttpFilter>,
    /// Loggers.
    pub access_logs: Vec<AccessLog>,
    /// Interval of intermediate log lines; none = at the end only.
    pub access_log_flush_interval: Option<Duration>,
    /// A log line when a request starts.
    pub access_log_on_new_request: bool,
    /// Tracing.
    pub tracing: Option<super::tracing::Tracing>,
    /// HTTP/1 options.
    pub http1: Http1Options,
    /// HTTP/2 options.
    pub http2: Http2Options,
    /// Idle connection life; none = for ever. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Longest life of a stream.
    pub max_stream_duration: Option<Duration>,
    /// Requests per connection; none = no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Most request headers. Default 100.
    pub max_headers_count: u32,
    /// Most request header bytes in KiB. Default 60.
    pub max_request_headers_kb: u32,
    /// `_` in header names.
    pub underscores: Underscores,
    /// Value of `server`. Default `envoy`.
    pub server_name: Name,
    /// What happens to `server`.
    pub server_header: ServerHeader,
    /// Scheme forced upstream; none = as it came.
    pub scheme_overwrite: Option<Name>,
    /// Upstreams are told the scheme of the connection to them.
    pub scheme_of_upstream: bool,
    /// Stream without activity; none = for ever. Default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// Whole request must arrive in this time.
    pub request_timeout: Option<Duration>,
    /// Request headers must arrive in this time.
    pub request_headers_timeout: Option<Duration>,
    /// Between the two GOAWAYs of a drain. Default 5 s.
    pub drain_timeout: Duration,
    /// Half-open time after an answer that closes. Default 1 s.
    pub delayed_close_timeout: Option<Duration>,
    /// The connection's peer is the client (edge).
    pub use_remote_address: bool,
    /// Trusted proxies in front.
    pub xff_num_trusted_hops: u32,
    /// XFF is not appended to.
    pub skip_xff_append: bool,
    /// `via` to append; empty = none.
    pub via: Name,
    /// Internal address ranges; empty = none are internal (1.40's default).
    pub internal_addresses: Vec<CidrRange>,
    /// Who says which client it is, where the peer is not; none = `x-forwarded-for`.
    pub original_ip: Box<[OriginalIp]>,
    /// Edits of a request before anything looks at it.
    pub early_edits: Box<[HeaderEdit]>,
    /// Unix domain socket peers are internal.
    pub internal_unix_sockets: bool,
    /// `x-request-id` is made when absent. Default true.
    pub generate_request_id: bool,
    /// An outside `x-request-id` is kept.
    pub preserve_external_request_id: bool,
    /// `x-request-id` is in every response.
    pub always_set_request_id_in_response: bool,
    /// The trace decision is written into the request id. Default true.
    pub pack_trace_reason: bool,
    /// XFCC handling.
    pub forward_client_cert: ForwardClientCert,
    /// Parts of XFCC.
    pub client_cert_details: ClientCertDetails,
    /// `100 Continue` comes from the upstream.
    pub proxy_100_continue: bool,
    /// Known upgrades.
    pub upgrades: Vec<Upgrade>,
    /// Path normalisation.
    pub path: PathNormalization,
    /// Port stripping.
    pub strip_port: StripPort,
    /// A dot at the end of the host is stripped.
    pub strip_trailing_host_dot: bool,
    /// Changes of local replies.
    pub local_reply: Option<Arc<LocalReplyConfig>>,
    /// A bad message resets its stream only.
    pub stream_error_on_invalid_http_message: bool,
    /// `x-forwarded-port` is set when absent.
    pub append_x_forwarded_port: bool,
    /// `x-envoy-local-overloaded` on locally shed requests.
    pub append_local_overload: bool,
    /// Tells upstreams which node sent the request, and names it as the agent of one that names none.
    pub add_user_agent: bool,
    /// `proxy-status` header settings are on.
    pub proxy_status: bool,
    /// Share of requests for which tracing starts, kept for dumps.
    pub sampled: Option<FractionalPercent>,
}

impl HttpConnectionManager {
    /// The router's options (every connection manager has one).
    #[must_use]
    pub fn router(&self) -> super::http_filter::Router {
        self.http_filters
            .iter()
            .find_map(|f| match &f.config {
                super::HttpFilterConfig::Router(r) => Some(r.clone()),
                _ => None,
            })
            .unwrap_or_default()
    }
}
