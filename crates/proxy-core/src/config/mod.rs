//! The proxy's configuration as plain, checked, immutable values.
//! `proxy-xds` builds them from protobuf; the engine only reads them. A resource that did not
//! change keeps its `Arc`, so a worker finds out what changed by comparing pointers.
use std::sync::Arc;

use hashbrown::HashMap;

pub mod access_log;
pub mod address;
pub mod bootstrap;
pub mod cluster;
mod defaults;
pub mod endpoint;
pub mod ext_authz;
pub mod fields;
pub mod filter_chain;
pub mod headers;
pub mod http_connection_manager;
pub mod http_filter;
pub mod istio;
pub mod jwt;
pub mod listener;
pub mod metadata;
pub mod network_filter;
pub mod percent;
pub mod rare;
pub mod rate_limit;
pub mod rbac;
pub mod route;
pub mod tls;
pub mod tracing;

pub use access_log::{AccessLog, AccessLogFilter, AccessLogSink};
pub use address::{Address, BindConfig, CidrRange};
pub use cluster::{Cluster, ClusterDiscovery};
pub use endpoint::{ClusterLoadAssignment, Endpoint, HealthStatus, Locality, LocalityEndpoints};
pub use fields::Fields;
pub use filter_chain::{FilterChain, FilterChainMatch, SourceType};
pub use headers::{AppendAction, HeaderMutation, HeaderMutations};
pub use http_connection_manager::{HttpConnectionManager, RouteSource};
pub use http_filter::{HttpFilter, HttpFilterConfig, PerFilterConfig};
pub use listener::{Listener, ListenerFilter, TrafficDirection};
pub use metadata::{Metadata, Value};
pub use network_filter::{NetworkFilter, TcpProxy};
pub use percent::FractionalPercent;
pub use rare::{Rare, Usual};
pub use route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
pub use tls::{DownstreamTls, Secret, UpstreamTls};

/// An interned resource name: cheap to clone, compared by content.
pub type Name = Arc<str>;

/// Resources of one type by name.
pub type ResourceMap<T> = Arc<HashMap<Name, Arc<T>>>;

/// Everything the data plane serves with, at one moment.
///
/// A snapshot only ever names things that are ready: listeners whose routes and secrets arrived (or
/// whose initial fetch timed out), clusters whose endpoints did.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every published snapshot of this process.
    pub generation: u64,
    /// All initial resources arrived (or their time is over): ports may open, `/ready` may say LIVE.
    /// Once true it stays true.
    pub initialized: bool,
    /// Listeners by name, static and dynamic.
    pub listeners: ResourceMap<Listener>,
    /// Clusters by name, static and dynamic.
    pub clusters: ResourceMap<Cluster>,
    /// Endpoints by **cluster name** (not by EDS service name), EDS clusters only.
    /// Static and DNS clusters carry theirs in [`Cluster::load_assignment`].
    pub endpoints: ResourceMap<ClusterLoadAssignment>,
    /// Route tables by RDS name. Inline tables live in their connection manager.
    pub routes: ResourceMap<RouteConfiguration>,
    /// Secrets by SDS name.
    pub secrets: ResourceMap<Secret>,
}

impl Snapshot {
    /// The endpoints a cluster starts from: EDS ones, or those written in the cluster itself.
    #[must_use]
    pub fn assignment<'a>(
        &'a self,
        cluster: &'a Cluster,
    ) -> Option<&'a Arc<ClusterLoadAssignment>> {
        match cluster.discovery {
            ClusterDiscovery::Eds { .. } => self.endpoints.get(&cluster.name),
            _ => cluster.load_assignment.as_ref(),
        }
    }
}
