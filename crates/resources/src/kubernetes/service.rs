//! Service, Endpoints and EndpointSlice.

use super::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A Service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Trimmed spec.
    pub spec: ServiceSpec,
    /// Trimmed status.
    pub status: ServiceStatus,
}

/// Trimmed spec of a Service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Pods that back it.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Primary virtual IP; `None` for headless services.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// All virtual IPs.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Addresses of nodes that also serve it.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Target of an ExternalName service.
    pub external_name: String,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: String,
    /// Unready endpoints are published.
    pub publish_not_ready_addresses: bool,
    /// `PreferSameZone`, `PreferSameNode`, `PreferClose`.
    pub traffic_distribution: String,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; empty is TCP.
    pub protocol: String,
    /// Application protocol.
    pub app_protocol: Option<String>,
    /// Port number.
    pub port: i32,
    /// Port on the pods; unset is the same number.
    pub target_port: Option<IntOrString>,
    /// Port on the nodes.
    pub node_port: Option<i32>,
}

/// Trimmed status of a Service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Load balancer.
    pub load_balancer: LoadBalancerStatus,
}

/// Status of a load balancer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    /// Addresses.
    pub ingress: Vec<LoadBalancerIngress>,
}

/// An address of a load balancer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// IP.
    pub ip: String,
    /// Name.
    pub hostname: String,
}

/// An Endpoints object (older form of slices).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// Groups of addresses and ports.
    pub subsets: Vec<EndpointSubset>,
}

/// Addresses that share ports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSubset {
    /// Ready ones.
    pub addresses: Vec<EndpointAddress>,
    /// Unready ones.
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Ports.
    pub ports: Vec<EndpointPort>,
}

/// An address of an Endpoints object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointAddress {
    /// IP.
    pub ip: String,
    /// Host name.
    pub hostname: String,
    /// Node.
    pub node_name: String,
    /// The pod.
    pub target_ref: Option<TargetRef>,
}

/// The object behind an endpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// Kind, usually Pod.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// A port of a slice or an Endpoints object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name, equal to the service port's name.
    pub name: String,
    /// Port on the pods.
    pub port: Option<i32>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Application protocol.
    pub app_protocol: Option<String>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports.
    pub ports: Vec<EndpointPort>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Addresses, of which the first counts.
    pub addresses: Vec<String>,
    /// Readiness.
    pub conditions: EndpointConditions,
    /// Host name.
    pub hostname: String,
    /// Node.
    pub node_name: String,
    /// Zone.
    pub zone: String,
    /// The pod.
    pub target_ref: Option<TargetRef>,
}

/// Readiness of a slice's endpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Ready; unset counts as true.
    pub ready: Option<bool>,
    /// Serving, also while terminating; unset counts as `ready`.
    pub serving: Option<bool>,
    /// Terminating.
    pub terminating: Option<bool>,
}
