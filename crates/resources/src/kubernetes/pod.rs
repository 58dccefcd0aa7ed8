//! Pod, and the controllers that carry a pod template.

use super::LabelSelector;
use crate::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Trimmed spec.
    pub spec: PodSpec,
    /// Trimmed status.
    pub status: PodStatus,
}

/// Trimmed spec of a Pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node it runs on.
    pub node_name: String,
    /// Service account; empty is `default`.
    pub service_account_name: String,
    /// Uses the node's network.
    pub host_network: bool,
    /// Host name for DNS.
    pub hostname: String,
    /// Headless service for DNS.
    pub subdomain: String,
    /// Security settings of all containers.
    pub security_context: Option<SecurityContext>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Init containers, native sidecars among them.
    pub init_containers: Vec<Container>,
}

/// Trimmed container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Ports.
    pub ports: Vec<ContainerPort>,
    /// Security settings.
    pub security_context: Option<SecurityContext>,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name.
    pub name: String,
    /// Number.
    pub container_port: i32,
    /// `TCP`, `UDP` or `SCTP`; empty is TCP.
    pub protocol: String,
}

/// Trimmed security settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// User id.
    pub run_as_user: Option<i64>,
}

/// Trimmed status of a Pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Primary IP.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// All IPs.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// IP of the node.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// Conditions.
    pub conditions: Vec<PodCondition>,
}

/// An IP of a Pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIp {
    /// The IP.
    pub ip: String,
}

/// A condition of a Pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// `Ready` and the like.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
}

/// A Deployment, ReplicaSet, StatefulSet or DaemonSet: what matters is the template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Controller {
    /// Trimmed spec.
    pub spec: ControllerSpec,
}

/// Trimmed spec of a controller.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ControllerSpec {
    /// Wanted pods; unset is 1.
    pub replicas: Option<i32>,
    /// Pods it owns; older groups leave it out.
    pub selector: Option<LabelSelector>,
    /// Pods it makes.
    pub template: PodTemplate,
}

/// A pod template.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Metadata of the pods.
    pub metadata: ObjectMeta,
    /// Spec of the pods.
    pub spec: PodSpec,
}
