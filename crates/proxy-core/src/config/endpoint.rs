//! Endpoints of a cluster: localities, priorities, weights, health.
use std::sync::Arc;

use super::{Address, Metadata, Name};

/// Where a node or endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: Name,
    /// Zone.
    pub zone: Name,
    /// Sub-zone.
    pub sub_zone: Name,
}

/// Health as the control plane says (EDS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// Not said: healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
    /// Being drained: takes no new requests.
    Draining,
    /// Check timed out: unhealthy.
    Timeout,
    /// Takes traffic after the healthy ones.
    Degraded,
}

impl HealthStatus {
    /// Takes traffic as a healthy host.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy)
    }
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Further addresses of the same endpoint (happy eyeballs).
    pub additional_addresses: Vec<Address>,
    /// Host name for host rewrite and SNI; may be empty.
    pub hostname: Name,
    /// Health as the control plane says.
    pub health: HealthStatus,
    /// Load balancing weight, at least 1.
    pub weight: u32,
    /// Metadata: `envoy.transport_socket_match`, `envoy.lb`, `istio`.
    pub metadata: Metadata,
    /// What active health checks do differently here; none = nothing.
    pub health_check: Option<Arc<EndpointCheck>>,
}

/// Active health checks of one endpoint (`health_check_config`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointCheck {
    /// Port to ask; 0 = that of the address.
    pub port: u16,
    /// Host header of HTTP checks; empty = the check's.
    pub hostname: Name,
    /// Address to ask; none = the endpoint's.
    pub address: Option<Address>,
    /// The endpoint is not checked.
    pub disabled: bool,
}

impl Endpoint {
    /// An endpoint of which only the address is known.
    #[must_use]
    pub fn at(address: std::net::SocketAddr) -> Self {
        Self {
            address: Address::Socket(address),
            additional_addresses: Vec::new(),
            hostname: Name::default(),
            health: HealthStatus::Unknown,
            weight: 1,
            metadata: Metadata::default(),
            health_check: None,
        }
    }

    /// Where active health checks connect to.
    #[must_use]
    pub fn check_address(&self) -> Address {
        let Some(own) = &self.health_check else {
            return self.address.clone();
        };
        match (own.address.as_ref().unwrap_or(&self.address), own.port) {
            (Address::Socket(socket), port @ 1..) => {
                Address::Socket(std::net::SocketAddr::new(socket.ip(), port))
            }
            (address, _) => address.clone(),
        }
    }

    /// Whether active health checks leave it out.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.health_check.as_ref().is_some_and(|c| c.disabled)
    }
}

/// The endpoints of one locality and priority.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// Priority, 0 is best.
    pub priority: u32,
    /// Weight between localities; none = 0 under locality-weighted balancing.
    pub weight: Option<u32>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Metadata of the locality.
    pub metadata: Metadata,
}

/// All endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ClusterLoadAssignment {
    /// EDS service name (or cluster name).
    pub cluster_name: Name,
    /// Localities in configuration order.
    pub localities: Vec<LocalityEndpoints>,
    /// Over-provisioning factor in percent, default 140.
    pub overprovisioning_factor: u32,
    /// Under panic or shortage, send only to healthy hosts.
    pub weighted_priority_health: bool,
    /// Shares of requests dropped at once: (category, share).
    pub drop_overload: Option<super::FractionalPercent>,
    /// Endpoints go stale after this many milliseconds without an update; none = never.
    pub stale_after_ms: Option<u64>,
}

impl ClusterLoadAssignment {
    /// All endpoints in order.
    pub fn endpoints(&self) -> impl Iterator<Item = (&LocalityEndpoints, &Endpoint)> {
        self.localities
            .iter()
            .flat_map(|l| l.endpoints.iter().map(move |e| (l, e)))
    }
}
