//! Endpoints: where a service port is really served. A table of its own, since
//! endpoints change far more often than configuration.

use crate::workload::WorkloadIndex;
use crate::{Labels, ServiceKey, Str};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Region, zone and sub-zone; parts may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Locality {
    /// Region (`topology.kubernetes.io/region`).
    pub region: Str,
    /// Zone (`topology.kubernetes.io/zone`).
    pub zone: Str,
    /// Sub-zone (`topology.istio.io/subzone`).
    pub sub_zone: Str,
}

impl Locality {
    /// Reads `region/zone/subzone`; missing parts are empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Str::from);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            region: next(),
            zone: next(),
            sub_zone: next(),
        }
    }

    /// True when no part is set.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }
}

/// Readiness as the control plane reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready.
    Unhealthy,
    /// Terminating but still serving, or labelled `istio.io/draining`.
    Draining,
}

/// Whether an endpoint's sidecar accepts mesh TLS (`security.istio.io/tlsMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum TlsMode {
    /// Plain text only.
    #[default]
    Disabled,
    /// Mesh TLS (`istio`).
    Istio,
}

/// Address of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// An IP.
    Ip(IpAddr),
    /// A DNS name (ServiceEntry DNS).
    Host(Str),
    /// A Unix socket path.
    Unix(Str),
}

/// One endpoint of one service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: EndpointAddress,
    /// Port the workload listens on; 0 for Unix sockets.
    pub port: u16,
    /// Labels of the workload: subsets select by them.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Kubernetes node name; empty when unknown.
    pub node: Str,
    /// Pod or WorkloadEntry name; empty when there is none.
    pub pod: Str,
    /// Workload (Deployment and the like) name; empty when unknown.
    pub workload: Str,
    /// Namespace of the workload.
    pub namespace: Str,
    /// SPIFFE identity's service account; empty when unknown.
    pub service_account: Str,
    /// Network name for multi-network meshes.
    pub network: Str,
    /// Load-balancing weight; 0 means unset (1).
    pub weight: u32,
    /// Readiness.
    pub health: Health,
    /// Mesh TLS or plain.
    pub tls: TlsMode,
    /// `service.istio.io/canonical-name` or its fallbacks.
    pub canonical_name: Str,
    /// `service.istio.io/canonical-revision` or its fallbacks.
    pub canonical_revision: Str,
    /// Pod host name for headless DNS (`<hostname>.<service>...`); empty when unset.
    pub hostname: Str,
}

/// Endpoints of one service, by service port number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceEndpoints {
    /// Service port number to its endpoints, sorted by address and port.
    pub ports: BTreeMap<u16, Vec<Endpoint>>,
}

/// A service port served at an IP: what a proxy at that IP receives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance {
    /// The service.
    pub service: ServiceKey,
    /// Service port number.
    pub port: u16,
    /// Port on the workload.
    pub target_port: u16,
}

/// All endpoints and workloads at one moment.
#[derive(Debug, Clone, Default)]
pub struct EndpointTable {
    /// Endpoints by service.
    pub services: HashMap<ServiceKey, Arc<ServiceEndpoints>>,
    /// Service ports served at each IP, sorted.
    pub by_ip: HashMap<IpAddr, Arc<Vec<Instance>>>,
    /// Pods and WorkloadEntries.
    pub workloads: Arc<WorkloadIndex>,
}

impl EndpointTable {
    /// Endpoints of one port of a service; empty when there are none.
    pub fn endpoints(&self, service: &ServiceKey, port: u16) -> &[Endpoint] {
        self.services
            .get(service)
            .and_then(|s| s.ports.get(&port))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Endpoints of one port whose labels carry every pair of `subset`.
    pub fn subset<'a>(
        &'a self,
        service: &ServiceKey,
        port: u16,
        subset: &'a crate::Selector,
    ) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints(service, port)
            .iter()
            .filter(|e| subset.matches(&e.labels))
    }

    /// Service ports served at `ip`.
    pub fn instances_at(&self, ip: IpAddr) -> &[Instance] {
        self.by_ip
            .get(&ip)
            .map(|v| v.as_slice())
            .unwrap_or_default()
    }
}
