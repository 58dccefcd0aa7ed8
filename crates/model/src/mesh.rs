//! Mesh-wide settings with Istio's defaults.

use crate::{ExportTo, Str};
use std::time::Duration;

/// Traffic to destinations nobody declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OutboundPolicy {
    /// Passes through.
    #[default]
    AllowAny,
    /// Is refused.
    RegistryOnly,
}

/// Form of access logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AccessLogEncoding {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Detection of the protocol of undeclared ports, by direction
/// (`PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND` and `_INBOUND`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sniffing {
    /// Client side.
    pub outbound: bool,
    /// Server side.
    pub inbound: bool,
}

impl Default for Sniffing {
    fn default() -> Self {
        Self {
            outbound: true,
            inbound: true,
        }
    }
}

/// `defaultConfig`: settings of proxies that the control plane or the injector reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyDefaults {
    /// Where proxies find the control plane (`istiod.istio-system.svc:15012`).
    pub discovery_address: Str,
    /// Worker threads; `None` from the CPU limit.
    pub concurrency: Option<u32>,
    /// Drain time of old listeners.
    pub drain_duration: Duration,
    /// Time between SIGTERM and exit.
    pub termination_drain_duration: Duration,
    /// Agent port.
    pub status_port: u16,
    /// The application starts after the proxy is ready.
    pub hold_application_until_proxy_starts: bool,
    /// Extra environment of proxies, sorted.
    pub proxy_metadata: Vec<(Str, Str)>,
    /// Trace sampling in percent; `None` is Istio's 1.
    pub sampling: Option<f64>,
}

impl Default for ProxyDefaults {
    fn default() -> Self {
        Self {
            discovery_address: "istiod.istio-system.svc:15012".into(),
            concurrency: None,
            drain_duration: Duration::from_secs(45),
            termination_drain_duration: Duration::from_secs(5),
            status_port: 15020,
            hold_application_until_proxy_starts: false,
            proxy_metadata: Vec::new(),
            sampling: None,
        }
    }
}

/// Mesh-wide settings.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshConfig {
    /// File of the access log; empty turns it off.
    pub access_log_file: Str,
    /// Custom format; empty is Istio's default.
    pub access_log_format: Str,
    /// Text or JSON.
    pub access_log_encoding: AccessLogEncoding,
    /// Unknown destinations.
    pub outbound_policy: OutboundPolicy,
    /// Mesh TLS is used where both ends have it.
    pub enable_auto_mtls: bool,
    /// Trace settings present in listeners.
    pub enable_tracing: bool,
    /// Namespace of mesh-wide configuration.
    pub root_namespace: Str,
    /// Trust domain of identities.
    pub trust_domain: Str,
    /// Other trust domains accepted.
    pub trust_domain_aliases: Vec<Str>,
    /// Cluster domain of Kubernetes names.
    pub cluster_domain: Str,
    /// How long to wait for the first bytes; zero waits without limit.
    pub protocol_detection_timeout: Duration,
    /// Default connect timeout.
    pub connect_timeout: Duration,
    /// Refresh of DNS clusters.
    pub dns_refresh_rate: Duration,
    /// Default visibility of services.
    pub default_service_export_to: ExportTo,
    /// Default visibility of virtual services.
    pub default_virtual_service_export_to: ExportTo,
    /// Default visibility of destination rules.
    pub default_destination_rule_export_to: ExportTo,
    /// Metrics of application and proxy are merged.
    pub enable_prometheus_merge: bool,
    /// Ingress class served.
    pub ingress_class: Str,
    /// `istio: ingressgateway` by default: gateway workloads that serve Ingress objects.
    pub ingress_selector: Str,
    /// Service of the ingress gateway (`istio-ingressgateway`).
    pub ingress_service: Str,
    /// Locality load balancing on.
    pub locality_lb_enabled: bool,
    /// Upgrade HTTP/1 to HTTP/2 between sidecars by default.
    pub h2_upgrade: bool,
    /// Default retry rule of routes, when set.
    pub default_http_retry: Option<crate::route::RetryPolicy>,
    /// Inbound clusters connect to the pod's loopback (`inboundTrafficPolicy: LOCALHOST`).
    pub inbound_localhost: bool,
    /// Sniffing switches.
    pub sniffing: Sniffing,
    /// Proxy settings.
    pub default_config: ProxyDefaults,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            access_log_file: "".into(),
            access_log_format: "".into(),
            access_log_encoding: AccessLogEncoding::Text,
            outbound_policy: OutboundPolicy::AllowAny,
            enable_auto_mtls: true,
            enable_tracing: true,
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            cluster_domain: "cluster.local".into(),
            protocol_detection_timeout: Duration::ZERO,
            connect_timeout: Duration::from_secs(10),
            dns_refresh_rate: Duration::from_secs(60),
            default_service_export_to: ExportTo::All,
            default_virtual_service_export_to: ExportTo::All,
            default_destination_rule_export_to: ExportTo::All,
            enable_prometheus_merge: true,
            ingress_class: "istio".into(),
            ingress_selector: "ingressgateway".into(),
            ingress_service: "istio-ingressgateway".into(),
            locality_lb_enabled: true,
            h2_upgrade: false,
            default_http_retry: None,
            inbound_localhost: false,
            sniffing: Sniffing::default(),
            default_config: ProxyDefaults::default(),
        }
    }
}
