//! HTTP filters and their per-route forms.
use std::sync::Arc;
use std::time::Duration;

use super::ext_authz::{ExtAuthz, ExtAuthzPerRoute};
use super::istio::{IstioAlpn, IstioStats, PeerMetadata};
use super::jwt::JwtAuthentication;
use super::rate_limit::LocalRateLimit;
use super::rbac::Rbac;
use super::{AccessLog, FractionalPercent, HeaderMutation, Name};
use crate::matcher::{HeaderMatcher, StringMatcher};

/// An HTTP filter of a connection manager.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// Configured name; per-route settings name it.
    pub name: Name,
    /// Off unless a route switches it on.
    pub disabled: bool,
    /// What it does.
    pub config: HttpFilterConfig,
}

/// What an HTTP filter does. Every variant is implemented by the engine; `proxy-xds` refuses others.
#[derive(Clone, Debug)]
pub enum HttpFilterConfig {
    /// Forwards; last.
    Router(Router),
    /// Delays and aborts.
    Fault(Arc<Fault>),
    /// Cross-origin rules (set per route).
    Cors,
    /// gRPC statistics.
    GrpcStats(GrpcStats),
    /// Istio's metrics.
    IstioStats(Arc<IstioStats>),
    /// Istio's upstream ALPN.
    IstioAlpn(Arc<IstioAlpn>),
    /// Istio's peer metadata.
    PeerMetadata(Arc<PeerMetadata>),
    /// Access control.
    Rbac(Arc<Rbac>),
    /// Header edits.
    HeaderMutation(Arc<HeaderMutationFilter>),
    /// Checks of tokens.
    Jwt(Arc<JwtAuthentication>),
    /// A service that is asked.
    ExtAuthz(Arc<ExtAuthz>),
    /// A limit of requests in time.
    RateLimit(Arc<LocalRateLimit>),
}

/// Settings of a filter on a route, virtual host or weighted cluster; keyed by filter name.
#[derive(Clone, Debug)]
pub enum PerFilterConfig {
    /// Switched off here.
    Disabled,
    /// Switched on here with the filter's own settings.
    Enabled,
    /// Fault of this route.
    Fault(Arc<Fault>),
    /// Cross-origin rules of this route.
    Cors(Arc<Cors>),
    /// Access control of this route; `None` = no control.
    Rbac(Option<Arc<Rbac>>),
    /// Header edits of this route.
    HeaderMutation(Arc<HeaderMutationFilter>),
    /// The token requirement of this route, by its name; `None` = no token is needed.
    Jwt(Option<Name>),
    /// What the asked service is told here.
    ExtAuthz(Arc<ExtAuthzPerRoute>),
    /// The limit of this route.
    RateLimit(Arc<LocalRateLimit>),
}

/// Per-route settings, few entries: (filter name, settings).
pub type PerFilter = Vec<(Name, PerFilterConfig)>;

/// Finds the most specific setting of a filter: weighted cluster, route, virtual host, table.
#[must_use]
pub fn per_filter<'a>(
    levels: impl IntoIterator<Item = &'a PerFilter>,
    filter: &str,
) -> Option<&'a PerFilterConfig> {
    levels
        .into_iter()
        .find_map(|level| level.iter().find(|(n, _)| &**n == filter).map(|(_, c)| c))
}

/// Options of the router.
#[derive(Clone, Debug, Default)]
pub struct Router {
    /// Neither `x-envoy-expected-rq-timeout-ms`, `-attempt-count` nor `-upstream-service-time`.
    pub suppress_envoy_headers: bool,
    /// A child span per upstream try.
    pub start_child_span: bool,
    /// gRPC-aware statistics by status are off.
    pub suppress_grpc_request_failure_code_stats: bool,
    /// Per-cluster dynamic statistics. Default true (stored inverted).
    pub no_dynamic_stats: bool,
    /// Upstream loggers, one line per try.
    pub upstream_logs: Vec<AccessLog>,
    /// Headers checked strictly.
    pub strict_check_headers: Vec<Name>,
    /// `x-envoy-expected-rq-timeout-ms` of a hop in front is respected.
    pub respect_expected_rq_timeout: bool,
}

/// Fault injection.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// Delay.
    pub delay: Option<FaultDelay>,
    /// Abort.
    pub abort: Option<FaultAbort>,
    /// Only for this upstream cluster; empty = any.
    pub upstream_cluster: Name,
    /// Only for these downstream nodes; empty = any.
    pub downstream_nodes: Vec<Name>,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// Faults at once; none = no limit.
    pub max_active_faults: Option<u32>,
    /// Response rate limit in KiB/s with its share.
    pub response_rate_limit: Option<(u64, FractionalPercent)>,
}

/// A delay.
#[derive(Clone, Debug)]
pub struct FaultDelay {
    /// Fixed length, or from `x-envoy-fault-delay-request` (milliseconds).
    pub delay: FaultValue<Duration>,
    /// Share of requests.
    pub percentage: FractionalPercent,
}

/// An abort.
#[derive(Clone, Debug)]
pub struct FaultAbort {
    /// Fixed answer, or from `x-envoy-fault-abort-request`.
    pub abort: FaultValue<AbortCode>,
    /// Share of requests.
    pub percentage: FractionalPercent,
}

/// Fixed, or given by a request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultValue<T> {
    /// This value.
    Fixed(T),
    /// By header.
    Header,
}

/// The code of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCode {
    /// HTTP status.
    Http(u16),
    /// gRPC status.
    Grpc(u32),
}

/// Cross-origin rules.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Origins; any match is enough.
    pub allow_origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`.
    pub allow_methods: Name,
    /// `access-control-allow-headers`.
    pub allow_headers: Name,
    /// `access-control-expose-headers`.
    pub expose_headers: Name,
    /// `access-control-max-age`.
    pub max_age: Name,
    /// `access-control-allow-credentials: true`.
    pub allow_credentials: bool,
    /// Private network access.
    pub allow_private_network_access: bool,
    /// Share of requests the rules apply to.
    pub enabled: FractionalPercent,
    /// Share of requests that are judged but not acted on.
    pub shadow_enabled: FractionalPercent,
    /// A preflight whose origin does not match goes upstream. Default true.
    pub forward_not_matching_preflights: bool,
}

/// gRPC statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcStats {
    /// Filter state with message counts.
    pub emit_filter_state: bool,
    /// Statistics for every method.
    pub stats_for_all_methods: bool,
    /// Statistics for these methods: services with their methods.
    pub methods: Vec<(Name, Vec<Name>)>,
    /// Upstream latency histogram.
    pub enable_upstream_stats: bool,
}

/// Header edits as a filter.
#[derive(Clone, Debug, Default)]
pub struct HeaderMutationFilter {
    /// Edits of the most specific level of a route come last; else those of the least.
    pub most_specific_wins: bool,
    /// Request edits in order.
    pub request: Vec<HeaderEdit>,
    /// Response edits in order.
    pub response: Vec<HeaderEdit>,
}

/// One edit.
#[derive(Clone, Debug)]
pub enum HeaderEdit {
    /// Removes by name.
    Remove(Name),
    /// Removes those whose name is of this kind.
    RemoveMatching(StringMatcher),
    /// Writes.
    Write(HeaderMutation),
}
