//! MeshConfig: the mesh-wide settings, read from ConfigMap `istio` or a file.
//! Fields not used yet are admitted and kept out.

use super::{HttpRetry, OutboundTrafficPolicy};
use crate::proto::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Mesh-wide settings; unset fields keep Istio's defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// File of the access log; empty is off.
    pub access_log_file: Option<String>,
    /// Custom format.
    pub access_log_format: Option<String>,
    /// `TEXT` or `JSON`.
    pub access_log_encoding: Option<AccessLogEncoding>,
    /// Tracing.
    pub enable_tracing: Option<bool>,
    /// Wait for first bytes.
    pub protocol_detection_timeout: Option<Duration>,
    /// Unknown destinations; ALLOW_ANY when unset.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// Inbound traffic to the application.
    pub inbound_traffic_policy: Option<InboundTrafficPolicy>,
    /// Mesh TLS where both ends have it.
    pub enable_auto_mtls: Option<bool>,
    /// Root namespace.
    pub root_namespace: Option<String>,
    /// Trust domain.
    pub trust_domain: Option<String>,
    /// Other trust domains.
    pub trust_domain_aliases: Vec<String>,
    /// Connect timeout.
    pub connect_timeout: Option<Duration>,
    /// Refresh of DNS clusters.
    pub dns_refresh_rate: Option<Duration>,
    /// Merge of metrics.
    pub enable_prometheus_merge: Option<bool>,
    /// Default visibility of services.
    pub default_service_export_to: Vec<String>,
    /// Default visibility of virtual services.
    pub default_virtual_service_export_to: Vec<String>,
    /// Default visibility of destination rules.
    pub default_destination_rule_export_to: Vec<String>,
    /// Ingress class.
    pub ingress_class: Option<String>,
    /// Ingress gateway's label value.
    pub ingress_selector: Option<String>,
    /// Ingress gateway's Service.
    pub ingress_service: Option<String>,
    /// Locality rules.
    pub locality_lb_setting: Option<super::LocalityLbSetting>,
    /// HTTP/2 upgrade between sidecars.
    pub h2_upgrade_policy: Option<super::H2UpgradePolicy>,
    /// Default retries.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Settings of proxies.
    pub default_config: Option<ProxyConfig>,
}

/// Form of access logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Inbound traffic to the application.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InboundTrafficPolicy {
    /// Mode.
    pub mode: InboundTrafficPolicyMode,
}

/// Address used towards the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundTrafficPolicyMode {
    /// The pod's.
    #[default]
    Passthrough,
    /// Loopback.
    Localhost,
}

/// Settings of proxies (`defaultConfig` and annotation `proxy.istio.io/config`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Control plane.
    pub discovery_address: Option<String>,
    /// Worker threads.
    pub concurrency: Option<i32>,
    /// Drain time.
    pub drain_duration: Option<Duration>,
    /// Time between SIGTERM and exit.
    pub termination_drain_duration: Option<Duration>,
    /// Agent port.
    pub status_port: Option<i32>,
    /// Application waits for the proxy.
    pub hold_application_until_proxy_starts: Option<bool>,
    /// Extra environment.
    pub proxy_metadata: BTreeMap<String, String>,
    /// Tracing.
    pub tracing: Option<Tracing>,
}

/// Tracing of proxies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Percent.
    pub sampling: Option<f64>,
}
