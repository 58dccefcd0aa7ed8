//! The mesh as we mean it: plain immutable values with indexes and origins.
//!
//! A [`Snapshot`] is the whole configuration at one moment; endpoints live in
//! an [`EndpointTable`] of their own because they change most often. Nothing
//! here knows Kubernetes, protobuf, sockets or clocks; `lateen-compile` builds
//! these values, `lateen-xds` reads them.

pub mod changed;
pub mod endpoint;
pub mod gateway;
pub mod host;
pub mod labels;
pub mod mesh;
pub mod origin;
pub mod policy;
pub mod protocol;
pub mod proxy;
pub mod route;
pub mod service;
pub mod sidecar;
pub mod snapshot;
pub mod visibility;
pub mod workload;

pub use changed::{Changed, ConfigKey};
pub use endpoint::{
    Endpoint, EndpointAddress, EndpointTable, Health, Instance, Locality, ServiceEndpoints, TlsMode,
};
pub use gateway::{Gateway, GatewayServer, ServerHost, ServerTls, ServerTlsMode, TlsVersion};
pub use labels::{Labels, Selector};
pub use mesh::{MeshConfig, OutboundPolicy, ProxyDefaults, Sniffing};
pub use origin::Origin;
pub use policy::{DestinationRule, Subset, TrafficPolicy};
pub use protocol::Protocol;
pub use proxy::{ProxyKey, ProxyType};
pub use route::{HttpRoute, TcpRoute, TlsRoute, VirtualService};
pub use service::{Port, Registry, Resolution, Service, ServiceKey};
pub use sidecar::Sidecar;
pub use snapshot::Snapshot;
pub use visibility::ExportTo;
pub use workload::{Workload, WorkloadIndex};

/// Shared text: names, hosts and namespaces are repeated all over a snapshot.
pub type Str = std::sync::Arc<str>;

/// Seconds since the Unix epoch, as in `metadata.creationTimestamp`; 0 when unknown.
pub type Timestamp = i64;
