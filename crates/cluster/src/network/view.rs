//! Services and their endpoints as the network needs them: plain values read from API objects,
//! shared by the kernel rules and the DNS zone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Namespace and name.
pub type Key = (String, String);

/// A port's transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    /// Lower-case name, as in rules and DNS names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// May be empty when the Service has one port.
    pub name: String,
    /// Transport.
    pub protocol: Protocol,
    /// Port at the service's addresses.
    pub port: u16,
    /// Port at every local address.
    pub node_port: Option<u16>,
}

/// Where a Service's traffic may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locality {
    /// To endpoints of all nodes.
    #[default]
    Cluster,
    /// To endpoints of the node it arrived at.
    Local,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceView {
    /// IPv4 cluster addresses; empty for headless and external-name Services.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Alias target of an `ExternalName` Service.
    pub external_name: Option<String>,
    /// Extra addresses that lead here (external IPs and load balancer addresses).
    pub external_ips: Vec<Ipv4Addr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Send a client always to the same endpoint.
    pub client_ip_affinity: bool,
    /// `internalTrafficPolicy`.
    pub internal: Locality,
    /// `externalTrafficPolicy`.
    pub external: Locality,
    /// Endpoints that are not ready are published too (DNS).
    pub publish_not_ready: bool,
}

/// One endpoint address of one port name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// Address.
    pub address: Ipv4Addr,
    /// Port names with their numbers and transports.
    pub ports: Vec<(String, Protocol, u16)>,
    /// May get new connections.
    pub ready: bool,
    /// Serves although it is terminating.
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
    /// Node it runs on.
    pub node: Option<String>,
    /// Host name within the Service, for DNS.
    pub hostname: Option<String>,
}

/// All Services and endpoints at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Services by key.
    pub services: BTreeMap<Key, ServiceView>,
    /// Endpoint slices by key: the Service they belong to and their endpoints.
    pub slices: BTreeMap<Key, (Key, Vec<EndpointView>)>,
}

impl View {
    /// Endpoints of a Service, of all its slices.
    pub fn endpoints<'a>(&'a self, service: &'a Key) -> impl Iterator<Item = &'a EndpointView> {
        self.slices
            .values()
            .filter(move |(owner, _)| owner == service)
            .flat_map(|(_, endpoints)| endpoints)
    }
}

/// Service, namespace and the slices' endpoints, sorted by owner; built once per change so that
/// rule and zone lookups need no scan.
pub type EndpointIndex<'a> = BTreeMap<&'a Key, Vec<&'a EndpointView>>;

/// Groups all endpoints by Service.
pub fn index(view: &View) -> EndpointIndex<'_> {
    let mut index = EndpointIndex::new();
    for (owner, endpoints) in view.slices.values() {
        index.entry(owner).or_default().extend(endpoints);
    }
    index
}

fn ipv4<S: AsRef<str>>(addresses: Option<&[S]>) -> Vec<Ipv4Addr> {
    let addresses = addresses.unwrap_or_default();
    addresses
        .iter()
        .filter_map(|a| a.as_ref().parse().ok())
        .collect()
}

fn number(value: Option<i32>) -> Option<u16> {
    value
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n != 0)
}

fn locality(policy: Option<&str>) -> Locality {
    if policy == Some("Local") {
        Locality::Local
    } else {
        Locality::Cluster
    }
}

/// Reads a Service.
pub fn read_service(service: &Service) -> ServiceView {
    let Some(spec) = &service.spec else {
        return ServiceView::default();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return ServiceView {
            external_name: spec.external_name.clone(),
            ..ServiceView::default()
        };
    }
    let mut cluster_ips = ipv4(spec.cluster_ips.as_deref());
    if cluster_ips.is_empty() {
        cluster_ips.extend(
            spec.cluster_ip
                .as_deref()
                .and_then(|ip| ip.parse::<Ipv4Addr>().ok()),
        );
    }
    let mut external_ips = ipv4(spec.external_ips.as_deref());
    let ingress = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    external_ips.extend(
        ingress
            .into_iter()
            .flatten()
            .filter_map(|i| i.ip.as_ref()?.parse::<Ipv4Addr>().ok()),
    );
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(ServicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref()),
            port: number(Some(port.port))?,
            node_port: number(port.node_port),
        })
    });
    ServiceView {
        headless: spec.cluster_ip.as_deref() == Some("None"),
        cluster_ips,
        external_name: None,
        external_ips,
        ports: ports.collect(),
        client_ip_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        internal: locality(spec.internal_traffic_policy.as_deref()),
        external: locality(spec.external_traffic_policy.as_deref()),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
    }
}

/// Reads an EndpointSlice; `None` when it is not of IPv4 or belongs to no Service.
pub fn read_slice(slice: &EndpointSlice) -> Option<(Key, Vec<EndpointView>)> {
    if slice.address_type != "IPv4" {
        return None;
    }
    let labels = slice.metadata.labels.as_ref()?;
    let service = labels.get("kubernetes.io/service-name")?.clone();
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    let ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let name = port.name.clone().unwrap_or_default();
            let protocol = Protocol::parse(port.protocol.as_deref());
            Some((name, protocol, number(port.port)?))
        })
        .collect();
    let mut endpoints = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        // All addresses of one endpoint are the same thing; the first is the one to use.
        let Some(address) = endpoint.addresses.iter().find_map(|a| a.parse().ok()) else {
            continue;
        };
        endpoints.push(EndpointView {
            address,
            ports: ports.clone(),
            ready,
            serving,
            terminating,
            node: endpoint.node_name.clone(),
            hostname: endpoint.hostname.clone(),
        });
    }
    Some(((namespace, service), endpoints))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_read() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4", "fd00::1"],
                "externalIPs": ["192.0.2.9"], "sessionAffinity": "ClientIP",
                "internalTrafficPolicy": "Local",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "d", "port": 53, "protocol": "UDP"}]
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}
        }))
        .unwrap();
        let view = read_service(&service);
        assert_eq!(view.cluster_ips, [Ipv4Addr::new(10, 96, 3, 4)]);
        assert_eq!(view.external_ips.len(), 2);
        assert_eq!(view.ports[0].node_port, Some(30080));
        assert_eq!(view.ports[1].protocol, Protocol::Udp);
        assert!(view.client_ip_affinity && !view.headless);
        assert_eq!(view.internal, Locality::Local);
    }

    #[test]
    fn a_slice_is_read_with_its_conditions() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.1.2"], "nodeName": "lateen-1"},
                {"addresses": ["10.244.1.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}
            ]
        }))
        .unwrap();
        let (owner, endpoints) = read_slice(&slice).unwrap();
        assert_eq!(owner, ("default".into(), "web".into()));
        assert!(endpoints[0].ready && endpoints[0].serving);
        assert!(!endpoints[1].ready && endpoints[1].serving && endpoints[1].terminating);
        let v6: EndpointSlice =
            serde_json::from_value(json!({"metadata": {}, "addressType": "IPv6", "endpoints": []}))
                .unwrap();
        assert!(read_slice(&v6).is_none());
    }
}
