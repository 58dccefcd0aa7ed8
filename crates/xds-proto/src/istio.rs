//! Istio's own messages: filter configurations, the name table, the certificate service.
//! Field names and numbers are those of Istio's public API documentation.

pub mod certificate_service;

/// `stats.PluginConfig`, the configuration of `istio.stats`.
pub mod stats {
    use std::collections::BTreeMap;

    use crate::Duration;
    use crate::typed_struct::named;

    /// Changes to one metric or, without a name, to all.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricConfig {
        /// Labels to set: name to expression.
        #[prost(btree_map = "string, string", tag = "1")]
        pub dimensions: BTreeMap<String, String>,
        /// The metric meant, without the `istio_` prefix; empty means all.
        #[prost(string, tag = "2")]
        pub name: String,
        /// Labels to drop.
        #[prost(string, repeated, tag = "3")]
        pub tags_to_remove: Vec<String>,
        /// Condition; no proxy implements it.
        #[prost(string, tag = "4")]
        pub r#match: String,
        /// Do not report the metric at all.
        #[prost(bool, tag = "5")]
        pub drop: bool,
    }
    named!(MetricConfig, "stats", "MetricConfig");

    /// A metric that the standard set lacks.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricDefinition {
        /// Metric name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Value expression.
        #[prost(string, tag = "2")]
        pub value: String,
        /// Kind of metric.
        #[prost(enumeration = "MetricType", tag = "3")]
        pub r#type: i32,
    }
    named!(MetricDefinition, "stats", "MetricDefinition");

    /// Kind of metric.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum MetricType {
        /// Only grows.
        Counter = 0,
        /// Goes up and down.
        Gauge = 1,
        /// Distribution.
        Histogram = 2,
    }

    /// From which side a proxy reports.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum Reporter {
        /// By the listener's direction.
        Unspecified = 0,
        /// A gateway shared by servers.
        ServerGateway = 1,
    }

    /// Configuration of the filter.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PluginConfig {
        /// Do not take the destination service from the Host header.
        #[prost(bool, tag = "6")]
        pub disable_host_header_fallback: bool,
        /// Time between reports of a TCP connection; 15 s unless given.
        #[prost(message, optional, tag = "7")]
        pub tcp_reporting_duration: Option<Duration>,
        /// Changes to standard metrics.
        #[prost(message, repeated, tag = "8")]
        pub metrics: Vec<MetricConfig>,
        /// Further metrics.
        #[prost(message, repeated, tag = "9")]
        pub definitions: Vec<MetricDefinition>,
        /// From which side the proxy reports.
        #[prost(enumeration = "Reporter", tag = "10")]
        pub reporter: i32,
        /// Time between rotations of scopes; 24 h unless given.
        #[prost(message, optional, tag = "11")]
        pub rescoping_duration: Option<Duration>,
        /// How long a rotated scope stays; 15 s unless given.
        #[prost(message, optional, tag = "12")]
        pub scope_grace_period_duration: Option<Duration>,
    }
    named!(PluginConfig, "stats", "PluginConfig");
}

/// `io.istio.http.peer_metadata`, the HTTP form of `istio.metadata_exchange`.
pub mod peer_metadata {
    use crate::typed_struct::named;

    /// Configuration of the filter.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Config {
        /// How to learn who called, first success wins.
        #[prost(message, repeated, tag = "1")]
        pub downstream_discovery: Vec<DiscoveryMethod>,
        /// How to learn who answered, first success wins.
        #[prost(message, repeated, tag = "2")]
        pub upstream_discovery: Vec<DiscoveryMethod>,
        /// How to tell the caller who we are.
        #[prost(message, repeated, tag = "3")]
        pub downstream_propagation: Vec<PropagationMethod>,
        /// How to tell the upstream who we are.
        #[prost(message, repeated, tag = "4")]
        pub upstream_propagation: Vec<PropagationMethod>,
        /// Share what was learned with the upstream side of the same proxy.
        #[prost(bool, tag = "5")]
        pub shared_with_upstream: bool,
        /// Further labels to carry.
        #[prost(string, repeated, tag = "6")]
        pub additional_labels: Vec<String>,
    }
    named!(Config, "io.istio.http.peer_metadata", "Config");

    /// By the `baggage` header (out of use).
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct Baggage {}
    named!(Baggage, "io.istio.http.peer_metadata", "Config.Baggage");

    /// By workload addresses that xDS carries.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct WorkloadDiscovery {}
    named!(
        WorkloadDiscovery,
        "io.istio.http.peer_metadata",
        "Config.WorkloadDiscovery"
    );

    /// By the headers `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id`.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct IstioHeaders {
        /// Strip the headers from requests that leave the mesh.
        #[prost(bool, tag = "1")]
        pub skip_external_clusters: bool,
    }
    named!(
        IstioHeaders,
        "io.istio.http.peer_metadata",
        "Config.IstioHeaders"
    );

    /// One way to learn about the peer.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct DiscoveryMethod {
        /// The way.
        #[prost(oneof = "discovery_method::MethodSpecifier", tags = "1, 2, 3")]
        pub method_specifier: Option<discovery_method::MethodSpecifier>,
    }
    named!(
        DiscoveryMethod,
        "io.istio.http.peer_metadata",
        "Config.DiscoveryMethod"
    );

    /// The choices of [`DiscoveryMethod`].
    pub mod discovery_method {
        /// The way.
        #[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
        pub enum MethodSpecifier {
            /// By the `baggage` header.
            #[prost(message, tag = "1")]
            Baggage(super::Baggage),
            /// By workload addresses.
            #[prost(message, tag = "2")]
            WorkloadDiscovery(super::WorkloadDiscovery),
            /// By Istio's headers.
            #[prost(message, tag = "3")]
            IstioHeaders(super::IstioHeaders),
        }
    }

    /// One way to tell the peer.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct PropagationMethod {
        /// The way.
        #[prost(oneof = "propagation_method::MethodSpecifier", tags = "1")]
        pub method_specifier: Option<propagation_method::MethodSpecifier>,
    }
    named!(
        PropagationMethod,
        "io.istio.http.peer_metadata",
        "Config.PropagationMethod"
    );

    /// The choices of [`PropagationMethod`].
    pub mod propagation_method {
        /// The way.
        #[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
        pub enum MethodSpecifier {
            /// By Istio's headers.
            #[prost(message, tag = "1")]
            IstioHeaders(super::IstioHeaders),
        }
    }
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1`, the filter `istio.alpn`.
pub mod alpn {
    use crate::typed_struct::named;

    /// Configuration of the filter.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct FilterConfig {
        /// Per upstream protocol, the ALPN list to offer.
        #[prost(message, repeated, tag = "1")]
        pub alpn_override: Vec<AlpnOverride>,
    }
    named!(
        FilterConfig,
        "istio.envoy.config.filter.http.alpn.v2alpha1",
        "FilterConfig"
    );

    /// The list for one protocol.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AlpnOverride {
        /// The protocol spoken to the upstream.
        #[prost(enumeration = "Protocol", tag = "1")]
        pub upstream_protocol: i32,
        /// ALPN names to offer, in order.
        #[prost(string, repeated, tag = "2")]
        pub alpn_override: Vec<String>,
    }
    named!(
        AlpnOverride,
        "istio.envoy.config.filter.http.alpn.v2alpha1",
        "FilterConfig.AlpnOverride"
    );

    /// HTTP versions, as the filter counts them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum Protocol {
        /// HTTP/1.0.
        Http10 = 0,
        /// HTTP/1.1.
        Http11 = 1,
        /// HTTP/2.
        Http2 = 2,
    }
}

/// `envoy.tcp.metadataexchange.config`, the network form of `istio.metadata_exchange`.
pub mod metadata_exchange {
    use crate::typed_struct::named;

    /// Configuration of the filter.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetadataExchange {
        /// The ALPN name under which peers exchange, `istio-peer-exchange`.
        #[prost(string, tag = "1")]
        pub protocol: String,
        /// Ask the workload addresses that xDS carries when the peer sent nothing.
        #[prost(bool, tag = "2")]
        pub enable_discovery: bool,
        /// Further labels to carry.
        #[prost(string, repeated, tag = "3")]
        pub additional_labels: Vec<String>,
    }
    named!(
        MetadataExchange,
        "envoy.tcp.metadataexchange.config",
        "MetadataExchange"
    );
}

/// `istio.networking.nds.v1`, names and addresses for the DNS of the agent.
pub mod nds {
    use std::collections::BTreeMap;

    use crate::typed_struct::named;

    /// All names a proxy may resolve.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NameTable {
        /// Host name to addresses.
        #[prost(btree_map = "string, message", tag = "1")]
        pub table: BTreeMap<String, NameInfo>,
        /// In delta form: the addresses of the host that the resource is named after.
        #[prost(message, optional, tag = "2")]
        pub name_info: Option<NameInfo>,
    }
    named!(NameTable, "istio.networking.nds.v1", "NameTable");

    /// What is known of one host.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NameInfo {
        /// Addresses, text form.
        #[prost(string, repeated, tag = "1")]
        pub ips: Vec<String>,
        /// Where the service comes from, `Kubernetes` or `External`.
        #[prost(string, tag = "2")]
        pub registry: String,
        /// Service name, for Kubernetes.
        #[prost(string, tag = "3")]
        pub shortname: String,
        /// Service namespace, for Kubernetes.
        #[prost(string, tag = "4")]
        pub namespace: String,
        /// Other names of the host (out of use).
        #[prost(string, repeated, tag = "5")]
        pub alt_hosts: Vec<String>,
    }
    named!(NameInfo, "istio.networking.nds.v1", "NameTable.NameInfo");
}

/// `istio.v1.HealthInformation`, sent by an agent whose workload has probes of its own.
pub mod health {
    use crate::typed_struct::named;

    /// One report.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HealthInformation {
        /// Whether the workload is healthy.
        #[prost(bool, tag = "1")]
        pub healthy: bool,
        /// Why not.
        #[prost(string, tag = "2")]
        pub message: String,
    }
    named!(HealthInformation, "istio.v1", "HealthInformation");
}
