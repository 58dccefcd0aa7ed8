//! Istio's kinds as typed objects, `networking.istio.io` v1alpha3, v1beta1 and
//! v1 as one. Field names are those of the public API; defaults are protobuf's.

mod destination_rule;
mod gateway;
pub mod mesh_config;
mod service_entry;
mod sidecar;
mod virtual_service;

pub use destination_rule::*;
pub use gateway::*;
pub use service_entry::*;
pub use sidecar::*;
pub use virtual_service::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A port of a Gateway, Sidecar or ServiceEntry.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Number.
    pub number: u32,
    /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP`, `TLS`, ...
    pub protocol: String,
    /// Name, unique in the object.
    pub name: String,
    /// Port on the endpoints (ServiceEntry).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u32>,
}

/// Selects workloads by labels.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels, all of which must be present.
    pub labels: BTreeMap<String, String>,
}

/// Selects workloads by labels, in the later form of the API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchLabelsSelector {
    /// Labels, all of which must be present.
    pub match_labels: BTreeMap<String, String>,
}
