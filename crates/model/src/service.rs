//! A service: a host name with ports, from Kubernetes or a ServiceEntry.

use crate::{ExportTo, Labels, Origin, Protocol, Selector, Str, Timestamp};
use std::net::IpAddr;

/// Identity of a service: two namespaces may declare the same host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Fully qualified host.
    pub hostname: Str,
    /// Namespace of the declaring object.
    pub namespace: Str,
}

/// Where a service was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// How a proxy finds the endpoints of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The control plane sends endpoints (EDS): Kubernetes services, ServiceEntry STATIC.
    Static,
    /// The proxy resolves names and uses all addresses (STRICT_DNS): ServiceEntry DNS.
    Dns,
    /// The proxy resolves a name and uses one address (LOGICAL_DNS): DNS_ROUND_ROBIN.
    DnsRoundRobin,
    /// The proxy resolves whatever name the request carries (forward proxy): DYNAMIC_DNS.
    DynamicDns,
    /// The original destination is kept (ORIGINAL_DST): headless services and ServiceEntry NONE.
    Passthrough,
}

/// The target of a service port as declared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port: differs between pods.
    Name(Str),
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Port name; may be empty for a single-port service.
    pub name: Str,
    /// The service port clients use.
    pub number: u16,
    /// Where the workload listens.
    pub target: TargetPort,
    /// Chosen protocol, before sniffing switches (see [`Protocol::with_sniffing`]).
    pub protocol: Protocol,
}

/// An address a service is reached at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServiceAddress {
    /// One IP (a ClusterIP or a ServiceEntry address).
    Ip(IpAddr),
    /// A CIDR block of a ServiceEntry: base address and prefix length.
    Cidr(IpAddr, u8),
}

/// A service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Fully qualified host, such as `reviews.default.svc.cluster.local`, or a wildcard host.
    pub hostname: Str,
    /// Namespace of the declaring object.
    pub namespace: Str,
    /// Name of the declaring object (`reviews`).
    pub name: Str,
    /// Object and field.
    pub origin: Origin,
    /// Kubernetes or ServiceEntry.
    pub registry: Registry,
    /// Creation time of the declaring object: older wins conflicts.
    pub created: Timestamp,
    /// Ports in declared order, UDP ones left out.
    pub ports: Vec<Port>,
    /// Virtual addresses, the primary one first; empty for headless services and
    /// for entries without addresses.
    pub addresses: Vec<ServiceAddress>,
    /// The auto-allocated VIP of a ServiceEntry without addresses, if any
    /// (answered by the agent's DNS only).
    pub auto_address: Option<IpAddr>,
    /// Further hosts that mean this service. An ExternalName service is a service
    /// of its own (resolved by DNS), not an alias.
    pub aliases: Vec<Str>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// A Kubernetes service with `clusterIP: None`.
    pub headless: bool,
    /// ServiceEntry with location MESH_EXTERNAL: never auto mTLS.
    pub mesh_external: bool,
    /// Target host of an ExternalName service.
    pub external_name: Option<Str>,
    /// Pods that back it; empty when endpoints are managed by hand.
    pub selector: Selector,
    /// Labels of the declaring object.
    pub labels: Labels,
    /// Who may see it.
    pub export_to: ExportTo,
    /// Identities the endpoints present (`subjectAltNames` of a ServiceEntry).
    pub subject_alt_names: Vec<Str>,
    /// `internalTrafficPolicy: Local`: only endpoints of the client's node.
    pub node_local: bool,
    /// `trafficDistribution` / `networking.istio.io/traffic-distribution`, verbatim.
    pub traffic_distribution: Option<Str>,
    /// `publishNotReadyAddresses`: unready endpoints are sent as healthy.
    pub publish_not_ready: bool,
}

impl Service {
    /// The identity of this service.
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            hostname: self.hostname.clone(),
            namespace: self.namespace.clone(),
        }
    }

    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|p| p.number == number)
    }

    /// The primary virtual IP, if there is one.
    pub fn primary_ip(&self) -> Option<IpAddr> {
        self.addresses.iter().find_map(|a| match a {
            ServiceAddress::Ip(ip) => Some(*ip),
            ServiceAddress::Cidr(..) => None,
        })
    }

    /// True for `*.`-prefixed hosts.
    pub fn is_wildcard(&self) -> bool {
        crate::host::is_wildcard(&self.hostname)
    }
}
