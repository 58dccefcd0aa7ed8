//! VirtualService.

use crate::proto::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Routes of some hosts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// Hosts whose traffic is routed: names, short names, `*.`-prefixes, IPs.
    pub hosts: Vec<String>,
    /// Gateways that apply the rules; empty is `mesh`.
    pub gateways: Vec<String>,
    /// HTTP rules; the first that matches is used.
    pub http: Vec<HttpRoute>,
    /// SNI rules for TLS that is not ended.
    pub tls: Vec<TlsRoute>,
    /// TCP rules.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see it: `.`, `*` or names.
    pub export_to: Vec<String>,
}

/// A reference to a virtual service that holds the routes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    /// Name.
    pub name: String,
    /// Namespace; empty is the root's.
    pub namespace: String,
}

/// One HTTP rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// Name for logs and debugging.
    pub name: String,
    /// Conditions, any of which may hold.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatchRequest>,
    /// Destinations.
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Answer at once.
    pub direct_response: Option<HttpDirectResponse>,
    /// Continue in another virtual service.
    pub delegate: Option<Delegate>,
    /// Rewrite of path and authority.
    pub rewrite: Option<HttpRewrite>,
    /// Timeout of the whole request.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retries: Option<HttpRetry>,
    /// Injected faults.
    pub fault: Option<HttpFaultInjection>,
    /// A copy is sent here.
    pub mirror: Option<Destination>,
    /// Copies are sent here.
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Older share of mirrored requests, percent.
    pub mirror_percent: Option<u32>,
    /// Share of mirrored requests.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin policy.
    pub cors_policy: Option<CorsPolicy>,
    /// Header edits.
    pub headers: Option<Headers>,
}

/// A share in percent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Percent {
    /// 0 to 100.
    pub value: f64,
}

/// A mirror.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMirrorPolicy {
    /// Where copies go.
    pub destination: Option<Destination>,
    /// Share; unset is all.
    pub percentage: Option<Percent>,
}

/// A text condition; one of the three.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StringMatch {
    /// The whole text.
    pub exact: Option<String>,
    /// The beginning.
    pub prefix: Option<String>,
    /// RE2 regular expression over the whole text.
    pub regex: Option<String>,
}

/// A condition on requests; all parts must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    /// Name, joined to the rule's.
    pub name: String,
    /// Path.
    pub uri: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Host header.
    pub authority: Option<StringMatch>,
    /// Headers that must match.
    pub headers: BTreeMap<String, StringMatch>,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Port of the listener.
    pub port: u32,
    /// Labels of the client.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the client.
    pub source_namespace: String,
    /// Gateways this condition is limited to.
    pub gateways: Vec<String>,
    /// Query parameters.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Compare the path without case.
    pub ignore_uri_case: bool,
    /// Prefix of statistics.
    pub stat_prefix: String,
}

/// A service, a subset of it and a port.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// Host: full or short name.
    pub host: String,
    /// Subset of a destination rule.
    pub subset: String,
    /// Port; may be left out for services of one port.
    pub port: Option<PortSelector>,
}

/// A port by number.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// Number.
    pub number: u32,
}

/// A destination with its share.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// Share of the sum of weights.
    pub weight: i32,
    /// Header edits.
    pub headers: Option<Headers>,
}

/// A destination of a TCP or TLS rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// Share of the sum of weights.
    pub weight: i32,
}

/// Header edits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// On requests.
    pub request: Option<HeaderOperations>,
    /// On responses.
    pub response: Option<HeaderOperations>,
}

/// Header edits of one direction.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Overwrite.
    pub set: BTreeMap<String, String>,
    /// Append.
    pub add: BTreeMap<String, String>,
    /// Remove.
    pub remove: Vec<String>,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    /// New path.
    pub uri: String,
    /// New host.
    pub authority: String,
    /// New port.
    pub port: Option<u32>,
    /// How the port is derived.
    pub derive_port: Option<RedirectPortSelection>,
    /// New scheme.
    pub scheme: String,
    /// Status; 301 when unset.
    pub redirect_code: Option<u32>,
}

/// How a redirect's port is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPortSelection {
    /// Default of the scheme.
    #[default]
    FromProtocolDefault,
    /// Port of the request.
    FromRequestPort,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDirectResponse {
    /// Status.
    pub status: u32,
    /// Body.
    pub body: Option<HttpBody>,
}

/// A body; one of the two.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBody {
    /// Text.
    pub string: Option<String>,
    /// Base64.
    pub bytes: Option<String>,
}

/// A rewrite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// New path or prefix.
    pub uri: String,
    /// New Host header.
    pub authority: String,
    /// Rewrite of the path by a regular expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A rewrite by a regular expression.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// RE2 expression.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Replacement; `\1` is the first group.
    pub rewrite: String,
}

/// Retries.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// How many; 0 turns them off.
    pub attempts: i32,
    /// Timeout of each try.
    pub per_try_timeout: Option<Duration>,
    /// Conditions, comma separated.
    pub retry_on: String,
    /// Other localities too.
    pub retry_remote_localities: Option<bool>,
    /// Skip hosts already tried.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Least wait between tries.
    pub backoff: Option<Duration>,
}

/// Faults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultInjection {
    /// Delay.
    pub delay: Option<FaultDelay>,
    /// Abort.
    pub abort: Option<FaultAbort>,
}

/// A delay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    /// Older share in percent.
    pub percent: i32,
    /// Length.
    pub fixed_delay: Option<Duration>,
    /// Not supported by Istio's proxies.
    pub exponential_delay: Option<Duration>,
    /// Share.
    pub percentage: Option<Percent>,
}

/// An abort; one of the statuses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    /// HTTP status.
    pub http_status: Option<i32>,
    /// gRPC status name or number.
    pub grpc_status: Option<String>,
    /// HTTP/2 error; not supported by Istio's proxies.
    pub http2_error: Option<String>,
    /// Share.
    pub percentage: Option<Percent>,
}

/// Cross-origin policy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Older list of exact origins.
    pub allow_origin: Vec<String>,
    /// Origins.
    pub allow_origins: Vec<StringMatch>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request headers.
    pub allow_headers: Vec<String>,
    /// Response headers a browser may read.
    pub expose_headers: Vec<String>,
    /// Lifetime of a preflight answer.
    pub max_age: Option<Duration>,
    /// Cookies.
    pub allow_credentials: Option<bool>,
    /// What happens to preflights of other origins.
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// Treatment of preflights of other origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// Forward.
    #[default]
    Unspecified,
    /// Send upstream.
    Forward,
    /// Answer without.
    Ignore,
}

/// One SNI rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Conditions.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatchAttributes>,
    /// Destinations.
    pub route: Vec<RouteDestination>,
}

/// A condition on TLS connections.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatchAttributes {
    /// Server names.
    pub sni_hosts: Vec<String>,
    /// Destination addresses or CIDR blocks.
    pub destination_subnets: Vec<String>,
    /// Port of the listener.
    pub port: u32,
    /// Labels of the client.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this condition is limited to.
    pub gateways: Vec<String>,
    /// Namespace of the client.
    pub source_namespace: String,
}

/// One TCP rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Conditions.
    #[serde(rename = "match")]
    pub matches: Vec<L4MatchAttributes>,
    /// Destinations.
    pub route: Vec<RouteDestination>,
}

/// A condition on TCP connections.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct L4MatchAttributes {
    /// Destination addresses or CIDR blocks.
    pub destination_subnets: Vec<String>,
    /// Port of the listener.
    pub port: u32,
    /// Client addresses; not used by Istio's proxies.
    pub source_subnet: String,
    /// Labels of the client.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways this condition is limited to.
    pub gateways: Vec<String>,
    /// Namespace of the client.
    pub source_namespace: String,
}
