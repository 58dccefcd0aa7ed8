//! DestinationRule.

use super::{MatchLabelsSelector, PortSelector};
use crate::proto::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Policies of a host after routing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// Host: full, short or `*.`-prefixed name.
    pub host: String,
    /// Policy of the host.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the host's endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it.
    pub export_to: Vec<String>,
    /// Client workloads it is limited to.
    pub workload_selector: Option<MatchLabelsSelector>,
}

/// A named part of a host's endpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Name.
    pub name: String,
    /// Labels of its endpoints.
    pub labels: BTreeMap<String, String>,
    /// Policy over the host's.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// Load balancing.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTlsSettings>,
    /// Policies of single ports.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnel over another proxy.
    pub tunnel: Option<TunnelSettings>,
    /// PROXY protocol upstream.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Retry budget.
    pub retry_budget: Option<RetryBudget>,
}

/// Policy of one port.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// Port.
    pub port: Option<PortSelector>,
    /// Load balancing.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTlsSettings>,
}

/// Retry budget.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Percent of active requests.
    pub percent: Option<f64>,
    /// Retries always allowed.
    pub min_retry_concurrency: u32,
}

/// PROXY protocol upstream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Version.
    pub version: ProxyProtocolVersion,
}

/// Version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProxyProtocolVersion {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// Tunnel over another proxy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TunnelSettings {
    /// `CONNECT` or `POST`.
    pub protocol: String,
    /// Target host.
    pub target_host: String,
    /// Target port.
    pub target_port: u32,
}

/// Load balancing; `simple` or `consistentHash`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerSettings {
    /// Algorithm.
    pub simple: Option<SimpleLb>,
    /// Hash of the request.
    pub consistent_hash: Option<ConsistentHashLb>,
    /// Locality rules.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Older ramp-up time of new endpoints.
    pub warmup_duration_secs: Option<Duration>,
    /// Ramp-up of new endpoints.
    pub warmup: Option<WarmupConfiguration>,
}

/// Algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// Istio's choice.
    #[default]
    Unspecified,
    /// Older name of LEAST_REQUEST.
    LeastConn,
    /// At random.
    Random,
    /// Keep the original destination.
    Passthrough,
    /// In turn.
    RoundRobin,
    /// Fewest outstanding requests.
    LeastRequest,
}

/// Ramp-up of new endpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WarmupConfiguration {
    /// Length.
    pub duration: Option<Duration>,
    /// Start share, percent.
    pub minimum_percent: Option<f64>,
    /// Curve.
    pub aggression: Option<f64>,
}

/// Hash of the request; one key and at most one table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHashLb {
    /// By a header.
    pub http_header_name: Option<String>,
    /// By a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// By the client's address.
    pub use_source_ip: Option<bool>,
    /// By a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Ring hash.
    pub ring_hash: Option<RingHash>,
    /// Maglev.
    pub maglev: Option<MagLev>,
    /// Older least ring size.
    pub minimum_ring_size: Option<u64>,
}

/// A cookie to hash.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookie {
    /// Name.
    pub name: String,
    /// Path.
    pub path: String,
    /// Lifetime; 0 is a session cookie.
    pub ttl: Option<Duration>,
}

/// Ring hash.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// Least ring size; 1024 when unset.
    pub minimum_ring_size: Option<u64>,
}

/// Maglev.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MagLev {
    /// Table size, a prime below 5000011; 65537 when unset.
    pub table_size: Option<u64>,
}

/// Locality rules; `distribute` or `failover`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLbSetting {
    /// Shares by origin.
    pub distribute: Vec<LocalityDistribute>,
    /// Regions that take over.
    pub failover: Vec<LocalityFailover>,
    /// Labels that rank endpoints.
    pub failover_priority: Vec<String>,
    /// Off switch.
    pub enabled: Option<bool>,
}

/// Shares of localities for clients of one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityDistribute {
    /// Client's locality, `region/zone/*`.
    pub from: String,
    /// Percent by locality, summing to 100.
    pub to: BTreeMap<String, u32>,
}

/// A region that takes over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityFailover {
    /// Failing region.
    pub from: String,
    /// Next region.
    pub to: String,
}

/// Limits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPoolSettings {
    /// Of connections.
    pub tcp: Option<TcpSettings>,
    /// Of requests.
    pub http: Option<HttpSettings>,
}

/// Limits of connections.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSettings {
    /// Most connections.
    pub max_connections: Option<i32>,
    /// Connect timeout.
    pub connect_timeout: Option<Duration>,
    /// Keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life.
    pub max_connection_duration: Option<Duration>,
    /// Idle time.
    pub idle_timeout: Option<Duration>,
}

/// TCP keepalive.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Probes before giving up.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between.
    pub interval: Option<Duration>,
}

/// Limits of requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpSettings {
    /// Queue for a connection.
    pub http1_max_pending_requests: Option<i32>,
    /// Requests at once.
    pub http2_max_requests: Option<i32>,
    /// Requests per connection.
    pub max_requests_per_connection: Option<i32>,
    /// Retries at once.
    pub max_retries: Option<i32>,
    /// Idle time.
    pub idle_timeout: Option<Duration>,
    /// Upgrade to HTTP/2.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Speak what the client speaks.
    pub use_client_protocol: bool,
    /// Streams per connection.
    pub max_concurrent_streams: Option<i32>,
    /// HTTP/2 pings.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// HTTP/2 pings; both fields are needed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    /// Time between pings.
    pub interval: Option<Duration>,
    /// How long to wait for the answer.
    pub timeout: Option<Duration>,
}

/// Upgrade of HTTP/1 to HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// Mesh setting.
    #[default]
    Default,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// Ejection of failing endpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Older name of consecutive errors.
    pub consecutive_errors: Option<i32>,
    /// Count local failures apart.
    pub split_external_local_origin_errors: bool,
    /// Local failures in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Gateway errors in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps.
    pub interval: Option<Duration>,
    /// Base ejection time.
    pub base_ejection_time: Option<Duration>,
    /// Most that may be out, percent.
    pub max_ejection_percent: Option<i32>,
    /// Below this share of healthy endpoints all are used, percent.
    pub min_health_percent: Option<i32>,
}

/// TLS towards the endpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsSettings {
    /// Mode.
    pub mode: ClientTlsMode,
    /// Certificate file.
    pub client_certificate: String,
    /// Key file.
    pub private_key: String,
    /// CA file.
    pub ca_certificates: String,
    /// Secret instead of files.
    pub credential_name: String,
    /// Accepted names.
    pub subject_alt_names: Vec<String>,
    /// SNI.
    pub sni: String,
    /// Accept any certificate.
    pub insecure_skip_verify: Option<bool>,
    /// CRL file.
    pub ca_crl: String,
}

/// Client TLS modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// Plain.
    #[default]
    Disable,
    /// Server authentication.
    Simple,
    /// Both, given certificates.
    Mutual,
    /// Both, mesh certificates.
    IstioMutual,
}
