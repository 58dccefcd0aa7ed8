//! Route tables: virtual hosts, routes, what they match and what they do.
use std::sync::Arc;
use std::time::Duration;

use super::http_connection_manager::Upgrade;
use super::http_filter::PerFilter;
use super::rate_limit::RateLimitRule;
use super::tracing::RouteTracing;
use super::{FractionalPercent, HeaderMutations, Metadata, Name, Rare};
use crate::matcher::{CookieMatcher, HeaderMatcher, MetadataMatcher, QueryMatcher, Regex};
use crate::router::{RouteIndex, VirtualHostIndex};
use crate::uri_template::{TemplateRewrite, UriTemplate};

/// A route table.
#[derive(Clone, Debug)]
pub struct RouteConfiguration {
    /// RDS name.
    pub name: Name,
    /// Virtual hosts in configuration order.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Compiled choice between them.
    pub index: VirtualHostIndex,
    /// Header edits, outermost level.
    pub headers: Rare<HeaderMutations>,
    /// Request headers dropped from external requests.
    pub internal_only_headers: Vec<Name>,
    /// Edits run from the outermost to the innermost, so that the innermost wins.
    pub most_specific_header_mutations_wins: bool,
    /// Unknown clusters are refused at load.
    pub validate_clusters: bool,
    /// The port of the host plays no part in the choice of the virtual host.
    pub ignore_port_in_host_matching: bool,
    /// `;params` play no part in path matching.
    pub ignore_path_parameters_in_path_matching: bool,
    /// Longest body of a direct response, bytes. Default 4096.
    pub max_direct_response_body_size: u32,
    /// Mirrors when the route and virtual host have none.
    pub mirrors: Rare<Vec<Mirror>>,
    /// Filter settings.
    pub per_filter: Rare<PerFilter>,
    /// Metadata.
    pub metadata: Metadata,
}

/// TLS a virtual host insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RequireTls {
    /// None.
    #[default]
    None,
    /// External requests.
    ExternalOnly,
    /// All.
    All,
}

/// A virtual host.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Name.
    pub name: Name,
    /// Domains, lower-case: exact, `*.suffix`, `prefix.*` or `*`.
    pub domains: Vec<Name>,
    /// Routes; first match wins.
    pub routes: Vec<Arc<Route>>,
    /// Compiled choice between them.
    pub index: RouteIndex,
    /// TLS it insists on.
    pub require_tls: RequireTls,
    /// Header edits.
    pub headers: Rare<HeaderMutations>,
    /// `x-envoy-attempt-count` on requests.
    pub include_request_attempt_count: bool,
    /// `x-envoy-attempt-count` on responses.
    pub include_attempt_count_in_response: bool,
    /// Retry policy of routes without one.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// Mirrors of routes without any.
    pub mirrors: Rare<Vec<Mirror>>,
    /// Filter settings.
    pub per_filter: Rare<PerFilter>,
    /// Longest request body buffered for retries, bytes.
    pub per_request_buffer_limit: Option<u32>,
    /// What the descriptors of rate limits are made of.
    pub rate_limits: Rare<Vec<RateLimitRule>>,
    /// Metadata.
    pub metadata: Metadata,
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name, may be empty.
    pub name: Name,
    /// What it matches.
    pub matching: RouteMatch,
    /// What it does.
    pub action: RouteAction,
    /// Header edits.
    pub headers: Rare<HeaderMutations>,
    /// Filter settings.
    pub per_filter: Rare<PerFilter>,
    /// Metadata.
    pub metadata: Metadata,
    /// Operation name of spans and of `x-envoy-decorator-operation`.
    pub decorator: Option<Arc<Decorator>>,
    /// What it says of traces.
    pub tracing: Option<Arc<RouteTracing>>,
    /// Longest request body buffered for retries, bytes.
    pub per_request_buffer_limit: Option<u32>,
    /// Prefix of per-route statistics; empty = none.
    pub stat_prefix: Name,
}

/// Span operation of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decorator {
    /// Operation.
    pub operation: Name,
    /// Sent to the other side. Default true.
    pub propagate: bool,
}

/// What a route matches.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// Letter case of exact and prefix paths plays a part. Default true.
    pub case_sensitive: bool,
    /// All must match.
    pub headers: Rare<Vec<HeaderMatcher>>,
    /// All must match.
    pub query: Rare<Vec<QueryMatcher>>,
    /// Only gRPC requests.
    pub grpc: bool,
    /// Share of requests.
    pub fraction: Option<FractionalPercent>,
    /// Client certificate was presented.
    pub tls_presented: Option<bool>,
    /// Client certificate was validated.
    pub tls_validated: Option<bool>,
    /// All must match.
    pub dynamic_metadata: Rare<Vec<MetadataMatcher>>,
    /// All must match.
    pub cookies: Rare<Vec<CookieMatcher>>,
}

/// How a path is matched; the query never plays a part.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Starts with.
    Prefix(Name),
    /// Equal.
    Exact(Name),
    /// Equal, or followed by `/`. Never ends in `/`.
    SeparatedPrefix(Name),
    /// The whole path matches.
    Regex(Arc<Regex>),
    /// Path template.
    Template(Arc<UriTemplate>),
    /// CONNECT requests.
    Connect,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum RouteAction {
    /// Sends upstream.
    Forward(Arc<Forward>),
    /// Answers with a redirect.
    Redirect(Arc<Redirect>),
    /// Answers itself.
    DirectResponse(Arc<DirectResponse>),
    /// Matches, but goes nowhere (gRPC clients): 503 NC here.
    NonForwarding,
}

/// Where and how a request is sent.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where.
    pub cluster: ClusterSpecifier,
    /// Answer when the cluster is unknown. Default 503.
    pub cluster_not_found_code: u16,
    /// Endpoint metadata to match (subset balancing).
    pub metadata_match: Metadata,
    /// Path rewrite.
    pub path_rewrite: Option<Arc<PathRewrite>>,
    /// Host rewrite.
    pub host_rewrite: Option<Arc<HostRewrite>>,
    /// The old host is appended to `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Whole-request timeout; none = off. Default 15 s.
    pub timeout: Option<Duration>,
    /// Overrides the listener's stream idle timeout; zero = off.
    pub idle_timeout: Option<Duration>,
    /// Overrides the listener's stream duration.
    pub max_stream_duration: Option<Arc<MaxStreamDuration>>,
    /// Retries.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// Mirrors.
    pub mirrors: Rare<Vec<Mirror>>,
    /// What a consistent-hash cluster hashes.
    pub hash_policy: Rare<Vec<HashPolicy>>,
    /// Breaker priority: high.
    pub high_priority: bool,
    /// Upgrades switched on or off here.
    pub upgrades: Rare<Vec<Upgrade>>,
    /// Redirects followed inside.
    pub internal_redirect: Option<Arc<InternalRedirect>>,
    /// What the descriptors of rate limits are made of.
    pub rate_limits: Rare<Vec<RateLimitRule>>,
    /// The virtual host's hold beside them, whatever the filter says.
    pub include_vh_rate_limits: bool,
}

/// Stream duration limits of a route; zero = off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// The bounds are of `max_grpc_timeout`: of whole gRPC requests, in the place of the route's
    /// timeout. No stream lives shorter by them.
    pub of_request: bool,
    /// For every request.
    pub max: Option<Duration>,
    /// Upper bound of `grpc-timeout`; zero = as given.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Taken off `grpc-timeout`.
    pub grpc_timeout_header_offset: Option<Duration>,
}

/// Which cluster.
#[derive(Clone, Debug)]
pub enum ClusterSpecifier {
    /// By name.
    Named(Name),
    /// Named by a request header, lower-case.
    Header(Name),
    /// By weight.
    Weighted(Arc<WeightedClusters>),
}

/// Several clusters by weight.
#[derive(Clone, Debug)]
pub struct WeightedClusters {
    /// The hash policies of the route give the number, as far as they do.
    pub by_hash: bool,
    /// Shares.
    pub clusters: Vec<Arc<WeightedCluster>>,
    /// Sum of weights, at least 1.
    pub total: u64,
    /// Request header with the random number, lower-case; empty = drawn.
    pub random_value_header: Name,
}

impl WeightedClusters {
    /// The cluster to which a number leads: each has its weight's share of all numbers.
    #[must_use]
    pub fn at(&self, number: u64) -> Option<Arc<WeightedCluster>> {
        let mut at = number % self.total.max(1);
        for cluster in &self.clusters {
            let weight = u64::from(cluster.weight);
            if at < weight {
                return Some(cluster.clone());
            }
            at -= weight;
        }
        None
    }
}

/// One share.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// Cluster name; empty = by header.
    pub name: Name,
    /// Named by this request header, lower-case.
    pub cluster_header: Name,
    /// Share.
    pub weight: u32,
    /// Header edits, innermost level.
    pub headers: Rare<HeaderMutations>,
    /// Filter settings.
    pub per_filter: Rare<PerFilter>,
    /// Endpoint metadata to match.
    pub metadata_match: Metadata,
    /// Host rewrite of this share.
    pub host_rewrite: Option<Name>,
}

/// Path rewrite.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// Replaces what the route's path matched (exact, prefix, separated prefix).
    Prefix(Name),
    /// Replaces every match; `\1` groups in the substitution.
    Regex(Regex, Substitution),
    /// Made of the named parts of the route's path template.
    Template(Arc<TemplateRewrite>),
}

/// A regex substitution, cut at its groups.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Substitution {
    /// Literal text and group numbers in order.
    pub parts: Vec<SubstitutionPart>,
}

/// A piece of a substitution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubstitutionPart {
    /// Text.
    Literal(Name),
    /// `\N`.
    Group(usize),
}

/// Host rewrite.
#[derive(Clone, Debug)]
pub enum HostRewrite {
    /// This text.
    Literal(Name),
    /// The endpoint's host name.
    Auto,
    /// A request header's value, lower-case name.
    Header(Name),
    /// Made from the path.
    PathRegex(Regex, Substitution),
}

/// A redirect.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// `https` or another scheme; none = as it came.
    pub scheme: Option<Name>,
    /// New host; empty = as it came.
    pub host: Name,
    /// New port; none = as it came.
    pub port: Option<u16>,
    /// New path.
    pub path: RedirectPath,
    /// The query is dropped.
    pub strip_query: bool,
}

/// Path of a redirect.
#[derive(Clone, Debug, Default)]
pub enum RedirectPath {
    /// As it came.
    #[default]
    Keep,
    /// Whole new path; may carry its own query.
    Path(Name),
    /// Replaces the matched prefix.
    Prefix(Name),
    /// Replaces every match.
    Regex(Regex, Substitution),
}

/// An answer from the configuration.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// Body; empty = none.
    pub body: Arc<[u8]>,
    /// How the body is written, which is then what its `%LOCAL_REPLY_BODY%` says.
    pub format: Option<crate::local_reply::BodyFormat>,
}

/// A copy of the traffic.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Cluster.
    pub cluster: Name,
    /// Or named by this header, lower-case.
    pub cluster_header: Name,
    /// Share of requests.
    pub fraction: FractionalPercent,
    /// The host keeps its name (no `-shadow`).
    pub disable_shadow_host_suffix: bool,
    /// Trace sampling of the copy; none = as the request.
    pub trace_sampled: Option<bool>,
    /// Host of the copy; empty = as the request.
    pub host_rewrite: Name,
}

/// What is hashed.
#[derive(Clone, Debug)]
pub struct HashPolicy {
    /// Source of the hash.
    pub source: HashSource,
    /// No further policy is used when this one gave a hash.
    pub terminal: bool,
}

/// Source of a hash.
#[derive(Clone, Debug)]
pub enum HashSource {
    /// A request header, lower-case, with an optional rewrite.
    Header(Name, Option<(Regex, Substitution)>),
    /// A cookie, made when absent and a life is given.
    Cookie {
        /// Name.
        name: Name,
        /// Life; none = not made; zero = session.
        ttl: Option<Duration>,
        /// Path attribute.
        path: Name,
        /// Further attributes: (name, value).
        attributes: Vec<(Name, Name)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(Name),
    /// Filter state.
    FilterState(Name),
}

/// Redirects followed inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalRedirect {
    /// Hops at most. Default 1.
    pub max_internal_redirects: u32,
    /// Codes followed. Default 302.
    pub codes: Vec<u16>,
    /// `http` to `https` and back.
    pub allow_cross_scheme: bool,
    /// Response headers copied to the new request.
    pub response_headers_to_copy: Vec<Name>,
    /// All must agree to where it leads.
    pub predicates: Vec<RedirectPredicate>,
}

/// A condition on where an internal redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// Not to a route that a redirect of this route led to before.
    PreviousRoutes,
    /// To one of these routes.
    AllowListedRoutes(Vec<Name>),
    /// Not from `http` to `https`.
    SafeCrossScheme,
}

/// Retries.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// Tries beyond the first. Default 1.
    pub num_retries: u32,
    /// Time of each try; none = the request's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Time without activity of each try.
    pub per_try_idle_timeout: Option<Duration>,
    /// Codes for `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// Response headers for `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Only requests with these headers are retried.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// Back-off: base. Default 25 ms.
    pub base_interval: Duration,
    /// Back-off: cap. Default 10 times the base.
    pub max_interval: Duration,
    /// Waits told by the upstream.
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// Hosts tried before are avoided.
    pub previous_hosts: bool,
    /// Endpoint picks before giving up the predicate. Default 1.
    pub host_selection_max_attempts: u32,
    /// Priorities tried before are avoided after this many tries.
    pub previous_priorities: Option<u32>,
}

/// Waits told by the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// (header, lower-case; unix timestamp instead of seconds).
    pub reset_headers: Vec<(Name, bool)>,
    /// Longest wait. Default 300 s.
    pub max_interval: Duration,
}

/// Conditions of a retry, a bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RetryOn(pub u32);

impl RetryOn {
    /// Any 5xx, or no answer.
    pub const SERVER_ERROR: Self = Self(1);
    /// 502, 503, 504.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// No answer.
    pub const RESET: Self = Self(1 << 2);
    /// No connection.
    pub const CONNECT_FAILURE: Self = Self(1 << 3);
    /// REFUSED_STREAM.
    pub const REFUSED_STREAM: Self = Self(1 << 4);
    /// `x-envoy-ratelimited`.
    pub const ENVOY_RATELIMITED: Self = Self(1 << 5);
    /// 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// A listed code.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 7);
    /// A listed header.
    pub const RETRIABLE_HEADERS: Self = Self(1 << 8);
    /// Reset before the request was sent upstream.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 9);
    /// gRPC 1.
    pub const GRPC_CANCELLED: Self = Self(1 << 10);
    /// gRPC 4.
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 11);
    /// gRPC 13.
    pub const GRPC_INTERNAL: Self = Self(1 << 12);
    /// gRPC 8.
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    /// gRPC 14.
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 14);
    /// HTTP/3 only; known, never true here.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reads a comma-separated list as `x-envoy-retry-on` and `retry_on` write it.
    /// Returns the set and the first word that is not known.
    #[must_use]
    pub fn parse(list: &str) -> (Self, Option<&str>) {
        let mut set = Self::default();
        let mut unknown = None;
        for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            match Self::word(word) {
                Some(bit) => set = set.with(bit),
                None => unknown = unknown.or(Some(word)),
            }
        }
        (set, unknown)
    }

    fn word(word: &str) -> Option<Self> {
        Some(match word {
            "5xx" => Self::SERVER_ERROR,
            "gateway-error" => Self::GATEWAY_ERROR,
            "reset" => Self::RESET,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            "connect-failure" => Self::CONNECT_FAILURE,
            "refused-stream" => Self::REFUSED_STREAM,
            "envoy-ratelimited" => Self::ENVOY_RATELIMITED,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "retriable-status-codes" => Self::RETRIABLE_STATUS_CODES,
            "retriable-headers" => Self::RETRIABLE_HEADERS,
            "http3-post-connect-failure" => Self::HTTP3_POST_CONNECT_FAILURE,
            "cancelled" => Self::GRPC_CANCELLED,
            "deadline-exceeded" => Self::GRPC_DEADLINE_EXCEEDED,
            "internal" => Self::GRPC_INTERNAL,
            "resource-exhausted" => Self::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => Self::GRPC_UNAVAILABLE,
            _ => return None,
        })
    }
}
