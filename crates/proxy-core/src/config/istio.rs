//! Configuration of Istio's own filters: metrics, ALPN, metadata exchange.
use std::time::Duration;

use super::Name;

/// Which side of a call a proxy reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reporter {
    /// By the listener's traffic direction.
    #[default]
    Unspecified,
    /// A gateway in front of services.
    ServerGateway,
}

/// Istio's metrics filter, HTTP and TCP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IstioStats {
    /// Host header may fall in for an unknown destination service.
    pub disable_host_header_fallback: bool,
    /// Interval of TCP reports; none = 15 s.
    pub tcp_reporting_duration: Option<Duration>,
    /// Changes of metrics: added or removed tags, dropped metrics.
    pub metrics: Vec<MetricOverride>,
    /// Which side reports.
    pub reporter: Reporter,
    /// Unused series are dropped after this time.
    pub rotation_interval: Option<Duration>,
}

/// A change of one metric (or of all when the name is empty).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricOverride {
    /// Metric name without the `istio_` prefix; empty = all.
    pub name: Name,
    /// Tags to set, value an expression.
    pub dimensions: Vec<(Name, Name)>,
    /// Tags to remove.
    pub tags_to_remove: Vec<Name>,
    /// Metric is not reported.
    pub drop: bool,
}

/// Istio's ALPN filter: what an upstream TLS connection offers, by downstream protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IstioAlpn {
    /// For an upstream of HTTP/1.0.
    pub http10: Vec<Name>,
    /// For an upstream of HTTP/1.1.
    pub http11: Vec<Name>,
    /// For an upstream of HTTP/2.
    pub http2: Vec<Name>,
}

/// HTTP peer metadata filter (the HTTP half of metadata exchange).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerMetadata {
    /// Reads the peer's headers from requests.
    pub downstream_headers: bool,
    /// Finds the downstream peer by workload discovery.
    pub downstream_workload_discovery: bool,
    /// Reads the peer's headers from responses.
    pub upstream_headers: bool,
    /// Finds the upstream peer by workload discovery.
    pub upstream_workload_discovery: bool,
    /// Sends own headers to the upstream.
    pub propagate_upstream: bool,
    /// Sends own headers to the downstream.
    pub propagate_downstream: bool,
    /// Skips clusters that lie outside the mesh when sending.
    pub skip_external_clusters: bool,
    /// Shared with the upstream through the connection.
    pub shared_with_upstream: bool,
    /// Further labels to send.
    pub additional_labels: Vec<Name>,
}

/// TCP metadata exchange filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpMetadataExchange {
    /// ALPN name that switches the exchange on, `istio-peer-exchange`.
    pub protocol: Name,
    /// Workload discovery is on.
    pub enable_discovery: bool,
    /// Further labels to send.
    pub additional_labels: Vec<Name>,
}
