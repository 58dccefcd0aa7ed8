//! Network filters and TCP proxying.
use std::sync::Arc;
use std::time::Duration;

use super::istio::{IstioStats, TcpMetadataExchange};
use super::rbac::NetworkRbac;
use super::route::HashPolicy;
use super::{AccessLog, HeaderMutation, HttpConnectionManager, Metadata, Name};
use crate::access_log::Template;

/// A network filter with its configured name.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// HTTP; terminal.
    HttpConnectionManager(Arc<HttpConnectionManager>),
    /// Raw TCP; terminal.
    TcpProxy(Arc<TcpProxy>),
    /// Role-based access control on connections.
    Rbac(Arc<NetworkRbac>),
    /// Istio's TCP metrics.
    IstioStats(Arc<IstioStats>),
    /// Istio's TCP metadata exchange.
    MetadataExchange(Arc<TcpMetadataExchange>),
    /// Replaces the SNI, reads nothing: the connection is dropped at once (direct response).
    DirectResponse(Arc<[u8]>),
    /// Sends back what it gets; terminal.
    Echo,
}

impl NetworkFilter {
    /// Whether the filter ends its chain.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::HttpConnectionManager(_)
                | Self::TcpProxy(_)
                | Self::DirectResponse(_)
                | Self::Echo
        )
    }
}

/// Proxying of raw TCP to a cluster.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    /// Prefix of statistics.
    pub stat_prefix: Name,
    /// Where to.
    pub clusters: TcpClusters,
    /// Closes a connection without a byte in either direction; none = never. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_downstream_connection_duration: Option<Duration>,
    /// Connect attempts, at least 1.
    pub max_connect_attempts: u32,
    /// Loggers, one line per connection.
    pub access_logs: Vec<AccessLog>,
    /// Interval of intermediate lines; none = only at the end.
    pub access_log_flush_interval: Option<Duration>,
    /// What a consistent-hash cluster hashes.
    pub hash_policy: Vec<HashPolicy>,
    /// Endpoint metadata to match (subset load balancing).
    pub metadata_match: Metadata,
    /// The bytes travel inside a request to an HTTP proxy.
    pub tunneling: Option<Arc<Tunneling>>,
}

/// The request that carries a TCP connection.
#[derive(Clone, Debug)]
pub struct Tunneling {
    /// Whom the proxy is to connect to, `host:port`.
    pub host: Template,
    /// A POST to this path in place of a CONNECT.
    pub post_path: Option<Name>,
    /// Further headers.
    pub headers: Vec<HeaderMutation>,
}

/// Where a TCP proxy sends connections.
#[derive(Clone, Debug)]
pub enum TcpClusters {
    /// One cluster.
    Single(Name),
    /// Several by weight.
    Weighted(Vec<TcpWeightedCluster>),
}

/// One share of a weighted TCP proxy.
#[derive(Clone, Debug)]
pub struct TcpWeightedCluster {
    /// Cluster name.
    pub name: Name,
    /// Share over the sum, at least 1.
    pub weight: u32,
    /// Endpoint metadata to match.
    pub metadata_match: Metadata,
}

impl TcpClusters {
    /// The cluster for a random number, with what its share asks of endpoints.
    #[must_use]
    pub fn pick(&self, random: u64) -> (&Name, Option<&Metadata>) {
        match self {
            Self::Single(name) => (name, None),
            Self::Weighted(list) => {
                let total: u64 = list.iter().map(|c| u64::from(c.weight)).sum();
                let mut at = random % total.max(1);
                let hit = list.iter().find(|c| {
                    let weight = u64::from(c.weight);
                    let hit = at < weight;
                    at = at.saturating_sub(weight);
                    hit
                });
                let share = hit.unwrap_or(&list[list.len() - 1]);
                (&share.name, Some(&share.metadata_match))
            }
        }
    }
}
