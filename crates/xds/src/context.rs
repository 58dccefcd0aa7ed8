//! What the generators of one proxy share: the configuration seen from its namespace, the
//! service ports it serves itself and the destination rules in force.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_model::service::TargetPort;
use lateen_model::{
    DestinationRule, EndpointTable, Labels, OutboundPolicy, Port, Protocol, ProxyKey, ProxyType,
    Service, Sidecar, Snapshot, VirtualService, Workload,
};

/// Switches of the generator that are the same for all proxies of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features {
    /// Workloads have mesh certificates: emit mesh TLS on both sides. Off until an
    /// identity can be fetched by proxies; without it everything is plain text.
    pub mesh_tls: bool,
    /// Shapes of Istio 1.0 where they differ in behaviour: an unknown host under
    /// REGISTRY_ONLY is a 404 and no 502, domains are listed with and without ports.
    pub compat_1_0: bool,
}

/// One service port that this proxy's workload serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serves {
    /// The service.
    pub service: Arc<Service>,
    /// The service port.
    pub port: Port,
    /// The port on the workload.
    pub target_port: u16,
}

/// The inputs of one generation.
#[derive(Debug)]
pub struct Context<'a> {
    /// The configuration.
    pub snapshot: &'a Snapshot,
    /// The endpoints.
    pub endpoints: &'a EndpointTable,
    /// The proxy.
    pub key: &'a ProxyKey,
    /// Generator switches.
    pub features: Features,
    /// The Sidecar object in force.
    pub sidecar: Option<Arc<Sidecar>>,
    services: OnceCell<Vec<Arc<Service>>>,
    rules: OnceCell<Vec<Arc<VirtualService>>>,
}

impl<'a> Context<'a> {
    /// Looks the configuration over from where the proxy stands.
    pub fn new(
        snapshot: &'a Snapshot,
        endpoints: &'a EndpointTable,
        key: &'a ProxyKey,
        features: Features,
    ) -> Self {
        let sidecar = match key.kind {
            ProxyType::Sidecar => snapshot.sidecar_for(&key.namespace, &key.labels).cloned(),
            ProxyType::Router => None,
        };
        Self {
            snapshot,
            endpoints,
            key,
            features,
            sidecar,
            services: OnceCell::new(),
            rules: OnceCell::new(),
        }
    }

    /// Services the proxy may call, oldest first.
    pub fn services(&self) -> &[Arc<Service>] {
        self.services.get_or_init(|| {
            let mut services = self.snapshot.visible_services(&self.key.namespace);
            if let Some(sidecar) = &self.sidecar {
                services.retain(|s| sidecar.imports(&s.namespace, &s.hostname));
            }
            services
        })
    }

    /// Virtual services for sidecars of the proxy's namespace, oldest first.
    pub fn mesh_rules(&self) -> &[Arc<VirtualService>] {
        let all = || self.snapshot.mesh_virtual_services(&self.key.namespace);
        self.rules.get_or_init(all)
    }

    /// True for a gateway.
    pub fn is_gateway(&self) -> bool {
        self.key.kind == ProxyType::Router
    }

    /// The service of a host as this proxy sees it.
    pub fn service(&self, host: &str) -> Option<&Arc<Service>> {
        let s = self.snapshot.service_for(host, &self.key.namespace)?;
        match &self.sidecar {
            Some(sidecar) if !sidecar.imports(&s.namespace, &s.hostname) => None,
            _ => Some(s),
        }
    }

    /// The destination rule in force for a service.
    pub fn rule(&self, service: &Service) -> Option<&Arc<DestinationRule>> {
        self.snapshot.destination_rule(
            &service.hostname,
            &self.key.namespace,
            &self.key.labels,
            &service.namespace,
        )
    }

    /// What happens to destinations nobody declared.
    pub fn outbound_policy(&self) -> OutboundPolicy {
        let own = self.sidecar.as_ref().and_then(|s| s.outbound_policy);
        own.unwrap_or(self.snapshot.mesh.outbound_policy)
    }

    /// A port's protocol on the client side, under the sniffing switch.
    pub fn outbound_protocol(&self, port: &Port) -> Protocol {
        port.protocol
            .with_sniffing(self.snapshot.mesh.sniffing.outbound)
    }

    /// A port's protocol on the server side, under the sniffing switch.
    pub fn inbound_protocol(&self, port: &Port) -> Protocol {
        port.protocol
            .with_sniffing(self.snapshot.mesh.sniffing.inbound)
    }

    /// The service ports this proxy's workload serves, by target port and then oldest
    /// service first. A Pod counts as soon as a selector matches it, ready or not; without
    /// a Pod object the addresses of the proxy decide.
    pub fn serves(&self) -> Vec<Serves> {
        let mut found: BTreeMap<(u16, i64, String, u16), Serves> = BTreeMap::new();
        let mut add = |s: Serves| {
            let key = (
                s.target_port,
                s.service.created,
                s.service.hostname.to_string(),
                s.port.number,
            );
            found.entry(key).or_insert(s);
        };
        if let Some(w) = workload(self.endpoints, self.key) {
            for service in self.snapshot.services_selecting(&w.namespace, &w.labels) {
                for port in &service.ports {
                    if let Some(target_port) = target_on(w, &port.target) {
                        add(Serves {
                            service: service.clone(),
                            port: port.clone(),
                            target_port,
                        });
                    }
                }
            }
        }
        for ip in &self.key.ips {
            for i in self.endpoints.instances_at(*ip) {
                let Some(service) = self.snapshot.service(&i.service) else {
                    continue;
                };
                let Some(port) = service.port(i.port) else {
                    continue;
                };
                add(Serves {
                    service: service.clone(),
                    port: port.clone(),
                    target_port: i.target_port,
                });
            }
        }
        found.into_values().collect()
    }

    /// Ports a gateway really binds for a server port as written: the target ports that the
    /// gateway's own Services map it to, or the port itself where no Service has it.
    pub fn bound_ports(&self, serves: &[Serves], port: u16) -> BTreeSet<u16> {
        let mapped: BTreeSet<u16> = serves
            .iter()
            .filter(|s| s.port.number == port)
            .map(|s| s.target_port)
            .collect();
        if mapped.is_empty() {
            BTreeSet::from([port])
        } else {
            mapped
        }
    }
}

/// The workload a key stands for: by name, then by address. An address is the proxy's own
/// word: it never makes it a workload of another namespace.
pub fn workload<'e>(endpoints: &'e EndpointTable, key: &ProxyKey) -> Option<&'e Arc<Workload>> {
    let by_name = endpoints.workloads.named(&key.namespace, &key.name);
    let own = |w: &&Arc<Workload>| w.namespace == key.namespace;
    let mut at = key.ips.iter().filter_map(|ip| endpoints.workloads.at(*ip));
    by_name.or_else(|| at.find(own))
}

/// Labels of the workload at the proxy, else those the proxy claims.
pub fn labels(endpoints: &EndpointTable, key: &ProxyKey, claimed: &Labels) -> Labels {
    workload(endpoints, key).map_or_else(|| claimed.clone(), |w| w.labels.clone())
}

fn target_on(workload: &Workload, target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Number(n) => Some(*n),
        TargetPort::Name(name) => workload
            .named_ports
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, p)| *p),
    }
}
