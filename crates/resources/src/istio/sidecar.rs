//! Sidecar.

use super::{ConnectionPoolSettings, Destination, Port, ServerTlsSettings, WorkloadSelector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a sidecar imports and exposes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// Workloads it applies to; unset is the namespace.
    pub workload_selector: Option<WorkloadSelector>,
    /// What it exposes.
    pub ingress: Vec<IstioIngressListener>,
    /// What it imports.
    pub egress: Vec<IstioEgressListener>,
    /// Traffic to unknown destinations.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// Limits of inbound connections.
    pub inbound_connection_pool: Option<ConnectionPoolSettings>,
}

/// A port it exposes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioIngressListener {
    /// Port.
    pub port: Option<Port>,
    /// Address to bind.
    pub bind: String,
    /// Capture mode.
    pub capture_mode: CaptureMode,
    /// Where the application listens.
    pub default_endpoint: String,
    /// TLS of the port.
    pub tls: Option<ServerTlsSettings>,
    /// Limits.
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// What it imports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IstioEgressListener {
    /// Port it is limited to.
    pub port: Option<Port>,
    /// Address to bind.
    pub bind: String,
    /// Capture mode.
    pub capture_mode: CaptureMode,
    /// Hosts, `namespace/host`.
    pub hosts: Vec<String>,
}

/// Capture mode of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    /// The environment's.
    #[default]
    Default,
    /// By redirection rules.
    Iptables,
    /// Not captured.
    None,
}

/// Traffic to unknown destinations.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// Mode.
    pub mode: OutboundTrafficPolicyMode,
    /// Proxy that takes it.
    pub egress_proxy: Option<Destination>,
}

/// Modes for unknown destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficPolicyMode {
    /// Refused.
    #[default]
    RegistryOnly,
    /// Passes through.
    AllowAny,
}
