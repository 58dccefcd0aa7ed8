//! The snapshot: one consistent configuration, with the indexes the generator asks.

use crate::{
    DestinationRule, ExportTo, Gateway, Labels, MeshConfig, Service, ServiceKey, Sidecar, Str,
    VirtualService, host,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Namespace, label key and label value.
type Pair = (Str, Str, Str);

/// Services with a selector, each under the pair of its selector that the
/// fewest others have: finding the services of a workload then looks at few.
fn by_rarest_pair(services: &[Arc<Service>]) -> HashMap<Pair, Vec<Arc<Service>>> {
    let pairs = |s: &Service| {
        let ns = s.namespace.clone();
        let of = s
            .selector
            .0
            .iter()
            .map(move |(k, v)| (ns.clone(), k.clone(), v.clone()));
        of.collect::<Vec<Pair>>()
    };
    let mut count: HashMap<Pair, usize> = HashMap::new();
    for pair in services.iter().flat_map(|s| pairs(s)) {
        *count.entry(pair).or_default() += 1;
    }
    let mut out: HashMap<Pair, Vec<Arc<Service>>> = HashMap::new();
    for s in services {
        let rarest = pairs(s)
            .into_iter()
            .min_by_key(|p| count.get(p).copied().unwrap_or(0));
        if let Some(pair) = rarest {
            out.entry(pair).or_default().push(s.clone());
        }
    }
    out
}

/// Items sorted by whom they are exported to.
#[derive(Debug, Clone)]
struct Visible<T> {
    public: Vec<Arc<T>>,
    by_namespace: HashMap<Str, Vec<Arc<T>>>,
}

impl<T> Default for Visible<T> {
    fn default() -> Self {
        Self {
            public: Vec::new(),
            by_namespace: HashMap::new(),
        }
    }
}

impl<T> Visible<T> {
    fn add(&mut self, item: &Arc<T>, export_to: &ExportTo) {
        match export_to {
            ExportTo::All => self.public.push(item.clone()),
            ExportTo::Namespaces(set) => {
                for ns in set {
                    self.by_namespace
                        .entry(ns.clone())
                        .or_default()
                        .push(item.clone());
                }
            }
        }
    }

    fn visible_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<T>> {
        self.public
            .iter()
            .chain(self.by_namespace.get(namespace).into_iter().flatten())
    }
}

/// One consistent configuration. Build it with [`Snapshot::new`]; it is never altered.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts compilations: a later snapshot has a larger version.
    pub version: u64,
    /// Mesh-wide settings.
    pub mesh: MeshConfig,
    services: Vec<Arc<Service>>,
    service_by_host: HashMap<Str, Vec<Arc<Service>>>,
    visible_services: Visible<Service>,
    services_by_pair: HashMap<Pair, Vec<Arc<Service>>>,
    virtual_services: Vec<Arc<VirtualService>>,
    mesh_virtual_services: Visible<VirtualService>,
    virtual_services_by_gateway: HashMap<Str, Vec<Arc<VirtualService>>>,
    destination_rules: Vec<Arc<DestinationRule>>,
    rules_by_namespace: HashMap<Str, HostRules>,
    gateways: Vec<Arc<Gateway>>,
    sidecars: HashMap<Str, Vec<Arc<Sidecar>>>,
    namespaces: BTreeMap<Str, Labels>,
    asks: Asks,
}

/// What the configuration asks about the workload of a sidecar, beyond its namespace. Two
/// sidecars that agree in this are treated alike as clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asks {
    /// Keys of labels that a rule, a route's match, a Sidecar's selector or a failover order
    /// names.
    pub labels: BTreeSet<Str>,
    /// The node: some service is for clients of the same node only.
    pub node: bool,
    /// The locality: some rule shares out or fails over by it.
    pub locality: bool,
}

impl Asks {
    fn of(snapshot: &Snapshot) -> Self {
        let mut labels: BTreeSet<Str> = BTreeSet::new();
        let selectors = snapshot
            .sidecars()
            .filter_map(|s| s.selector.as_ref())
            .chain(
                snapshot
                    .destination_rules
                    .iter()
                    .filter_map(|r| r.workload_selector.as_ref()),
            );
        labels.extend(selectors.flat_map(|s| s.0.keys().cloned()));
        for vs in &snapshot.virtual_services {
            let http = vs.http.iter().flat_map(|r| &r.matches);
            let tls = vs.tls.iter().flat_map(|r| &r.matches);
            let tcp = vs.tcp.iter().flat_map(|r| &r.matches);
            let sources = http
                .map(|m| &m.source_labels)
                .chain(tls.chain(tcp).map(|m| &m.source_labels));
            labels.extend(sources.flat_map(|l| l.keys().cloned()));
        }
        let mut locality = false;
        for rule in &snapshot.destination_rules {
            let subsets = rule.subsets.iter().map(|s| &s.policy);
            for policy in std::iter::once(&rule.policy).chain(subsets) {
                policy.ask_labels(&mut labels);
                locality |= policy.asks_locality();
            }
        }
        Self {
            labels,
            node: snapshot.services.iter().any(|s| s.node_local),
            locality,
        }
    }
}

/// Destination rules of one namespace by host; wildcards most specific first.
#[derive(Debug, Clone, Default)]
struct HostRules {
    exact: HashMap<Str, Vec<Arc<DestinationRule>>>,
    wildcard: Vec<Arc<DestinationRule>>,
}

/// The parts a snapshot is built from.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Mesh-wide settings.
    pub mesh: MeshConfig,
    /// Services, Kubernetes and external.
    pub services: Vec<Arc<Service>>,
    /// Virtual services with delegates merged.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// Destination rules, those of the same host and namespace merged.
    pub destination_rules: Vec<Arc<DestinationRule>>,
    /// Gateways.
    pub gateways: Vec<Arc<Gateway>>,
    /// Sidecar objects.
    pub sidecars: Vec<Arc<Sidecar>>,
    /// Namespaces with their labels.
    pub namespaces: BTreeMap<Str, Labels>,
}

impl Snapshot {
    /// Sorts the parts (oldest first, then by name) and builds the indexes.
    pub fn new(version: u64, parts: Parts) -> Self {
        let Parts {
            mesh,
            mut services,
            mut virtual_services,
            mut destination_rules,
            mut gateways,
            mut sidecars,
            namespaces,
        } = parts;
        services.sort_by(|a, b| {
            (a.created, &a.hostname, &a.namespace).cmp(&(b.created, &b.hostname, &b.namespace))
        });
        virtual_services.sort_by(|a, b| {
            (a.created, &a.name, &a.namespace).cmp(&(b.created, &b.name, &b.namespace))
        });
        destination_rules.sort_by(|a, b| {
            (a.created, &a.name, &a.namespace).cmp(&(b.created, &b.name, &b.namespace))
        });
        gateways.sort_by(|a, b| {
            (a.created, &a.name, &a.namespace).cmp(&(b.created, &b.name, &b.namespace))
        });
        sidecars.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));

        let mut snap = Self {
            version,
            mesh,
            namespaces,
            ..Self::default()
        };
        for s in &services {
            snap.service_by_host
                .entry(s.hostname.clone())
                .or_default()
                .push(s.clone());
            snap.visible_services.add(s, &s.export_to);
        }
        snap.services_by_pair = by_rarest_pair(&services);
        for vs in &virtual_services {
            for gw in &vs.gateways {
                if &**gw == crate::route::MESH_GATEWAY {
                    snap.mesh_virtual_services.add(vs, &vs.export_to);
                } else {
                    snap.virtual_services_by_gateway
                        .entry(gw.clone())
                        .or_default()
                        .push(vs.clone());
                }
            }
        }
        for rule in &destination_rules {
            let of = snap
                .rules_by_namespace
                .entry(rule.namespace.clone())
                .or_default();
            if host::is_wildcard(&rule.host) {
                of.wildcard.push(rule.clone());
            } else {
                of.exact
                    .entry(rule.host.clone())
                    .or_default()
                    .push(rule.clone());
            }
        }
        for of in snap.rules_by_namespace.values_mut() {
            of.wildcard
                .sort_by(|a, b| host::by_specificity(&a.host, &b.host));
        }
        for s in sidecars {
            snap.sidecars
                .entry(s.namespace.clone())
                .or_default()
                .push(s);
        }
        snap.services = services;
        snap.virtual_services = virtual_services;
        snap.destination_rules = destination_rules;
        snap.gateways = gateways;
        snap.asks = Asks::of(&snap);
        snap
    }

    /// What the configuration asks about the workloads of sidecars.
    pub fn asks(&self) -> &Asks {
        &self.asks
    }

    /// All services, oldest first.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// All declarations of a host, oldest first.
    pub fn services_of_host(&self, hostname: &str) -> &[Arc<Service>] {
        self.service_by_host
            .get(hostname)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The service of this key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services_of_host(&key.hostname)
            .iter()
            .find(|s| s.namespace == key.namespace)
    }

    /// The declaration of a host that a client in `namespace` uses: its own
    /// namespace's, else a Kubernetes one, else the oldest visible.
    pub fn service_for(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        let mut best: Option<&Arc<Service>> = None;
        for s in self.services_of_host(hostname) {
            if !s.export_to.visible_in(namespace) {
                continue;
            }
            if best.is_none_or(|b| preference(s, namespace) < preference(b, namespace)) {
                best = Some(s);
            }
        }
        best
    }

    /// Services visible in a namespace, one per host, oldest first.
    pub fn visible_services(&self, namespace: &str) -> Vec<Arc<Service>> {
        let mut out: Vec<Arc<Service>> = Vec::new();
        let mut taken: HashSet<&str> = HashSet::new();
        for s in self.visible_services.visible_in(namespace) {
            let lone = self.services_of_host(&s.hostname).len() == 1;
            let chosen = lone
                || self
                    .service_for(&s.hostname, namespace)
                    .is_some_and(|chosen| Arc::ptr_eq(chosen, s));
            if chosen && taken.insert(&s.hostname) {
                out.push(s.clone());
            }
        }
        out.sort_by(|a, b| (a.created, &a.hostname).cmp(&(b.created, &b.hostname)));
        out
    }

    /// Services of a namespace whose selector matches these labels, oldest first.
    pub fn services_selecting(&self, namespace: &str, labels: &Labels) -> Vec<&Arc<Service>> {
        let namespace = Str::from(namespace);
        let mut out = Vec::new();
        for (key, value) in labels {
            let pair = (namespace.clone(), key.clone(), value.clone());
            let candidates = self.services_by_pair.get(&pair).into_iter().flatten();
            out.extend(candidates.filter(|s| s.selector.matches(labels)));
        }
        out.sort_by(|a, b| (a.created, &a.hostname).cmp(&(b.created, &b.hostname)));
        out
    }

    /// All virtual services, oldest first.
    pub fn virtual_services(&self) -> &[Arc<VirtualService>] {
        &self.virtual_services
    }

    /// Virtual services for sidecars of a namespace, oldest first.
    pub fn mesh_virtual_services(&self, namespace: &str) -> Vec<Arc<VirtualService>> {
        let mut out: Vec<_> = self
            .mesh_virtual_services
            .visible_in(namespace)
            .cloned()
            .collect();
        out.sort_by(|a, b| {
            (a.created, &a.name, &a.namespace).cmp(&(b.created, &b.name, &b.namespace))
        });
        out
    }

    /// Virtual services bound to a gateway (`namespace/name`), oldest first.
    /// Whether a server's host admits their namespace is the caller's question.
    pub fn gateway_virtual_services(&self, gateway: &str) -> &[Arc<VirtualService>] {
        self.virtual_services_by_gateway
            .get(gateway)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// All destination rules, oldest first.
    pub fn destination_rules(&self) -> &[Arc<DestinationRule>] {
        &self.destination_rules
    }

    /// Every rule that is for a host, by exact name or by wildcard, in no order.
    pub fn rules_of_host(&self, hostname: &str) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.rules_by_namespace.values().flat_map(move |of| {
            let wildcard = of
                .wildcard
                .iter()
                .filter(move |r| host::covers(&r.host, hostname));
            of.exact.get(hostname).into_iter().flatten().chain(wildcard)
        })
    }

    /// The destination rule in force for a client workload and a service host:
    /// the client's namespace, then the service's, then the root namespace's;
    /// in each, an exact host before wildcards, a rule with a matching workload
    /// selector (client namespace only) before one without.
    pub fn destination_rule(
        &self,
        hostname: &str,
        client_namespace: &str,
        client_labels: &Labels,
        service_namespace: &str,
    ) -> Option<&Arc<DestinationRule>> {
        let root = &*self.mesh.root_namespace;
        // A client in the root namespace skips the first step: its rules there
        // are meant for everybody and come last.
        if client_namespace != root {
            let found = self.rule_in(client_namespace, hostname, |r| {
                r.workload_selector
                    .as_ref()
                    .is_none_or(|s| s.matches(client_labels))
            });
            if found.is_some() {
                return found;
            }
        }
        let seen = |r: &DestinationRule| {
            r.export_to.visible_in(client_namespace)
                && r.workload_selector.as_ref().is_none_or(|s| {
                    r.namespace.as_ref() == client_namespace && s.matches(client_labels)
                })
        };
        let mut found = None;
        if service_namespace != client_namespace || client_namespace == root {
            found = self.rule_in(service_namespace, hostname, seen);
        }
        found.or_else(|| self.rule_in(root, hostname, seen))
    }

    fn rule_in(
        &self,
        namespace: &str,
        hostname: &str,
        accept: impl Fn(&DestinationRule) -> bool,
    ) -> Option<&Arc<DestinationRule>> {
        let of = self.rules_by_namespace.get(namespace)?;
        let exact = of
            .exact
            .get(hostname)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let selecting = exact
            .iter()
            .find(|r| r.workload_selector.is_some() && accept(r));
        if let Some(rule) = selecting.or_else(|| exact.iter().find(|r| accept(r))) {
            return Some(rule);
        }
        of.wildcard
            .iter()
            .find(|r| host::covers(&r.host, hostname) && accept(r))
    }

    /// All gateways, oldest first.
    pub fn gateways(&self) -> &[Arc<Gateway>] {
        &self.gateways
    }

    /// Gateways that configure a gateway workload with these labels, oldest first.
    pub fn gateways_for<'a>(
        &'a self,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Gateway>> {
        self.gateways.iter().filter(move |g| g.selects(labels))
    }

    /// The sidecar object in force for a workload: one that selects it, else
    /// its namespace's, else the root namespace's without selector.
    pub fn sidecar_for(&self, namespace: &str, labels: &Labels) -> Option<&Arc<Sidecar>> {
        let own = self
            .sidecars
            .get(namespace)
            .map(Vec::as_slice)
            .unwrap_or_default();
        own.iter()
            .find(|s| s.selector.is_some() && s.selects(labels))
            .or_else(|| own.iter().find(|s| s.selector.is_none()))
            .or_else(|| {
                let root = self.sidecars.get(&self.mesh.root_namespace)?;
                root.iter().find(|s| s.selector.is_none())
            })
    }

    /// All sidecar objects, in no order.
    pub fn sidecars(&self) -> impl Iterator<Item = &Arc<Sidecar>> {
        self.sidecars.values().flatten()
    }

    /// Namespaces with their labels.
    pub fn namespaces(&self) -> &BTreeMap<Str, Labels> {
        &self.namespaces
    }
}

/// Smaller is preferred when several namespaces declare one host.
fn preference(s: &Service, namespace: &str) -> (bool, crate::Registry, crate::Timestamp) {
    (&*s.namespace != namespace, s.registry, s.created)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, Registry, Resolution, Selector, TrafficPolicy};

    fn service(
        host: &str,
        namespace: &str,
        registry: Registry,
        created: i64,
        export_to: ExportTo,
    ) -> Arc<Service> {
        Arc::new(Service {
            hostname: host.into(),
            namespace: namespace.into(),
            name: "s".into(),
            origin: Origin::default(),
            registry,
            created,
            ports: Vec::new(),
            addresses: Vec::new(),
            auto_address: None,
            aliases: Vec::new(),
            resolution: Resolution::Static,
            headless: false,
            mesh_external: false,
            external_name: None,
            selector: Selector::from_iter([("app", host), ("tier", "all")]),
            labels: Labels::new(),
            export_to,
            subject_alt_names: Vec::new(),
            node_local: false,
            traffic_distribution: None,
            publish_not_ready: false,
        })
    }

    #[test]
    fn one_declaration_per_host_is_visible() {
        let own = |ns: &str| ExportTo::Namespaces([ns.into()].into());
        let services = vec![
            service("a", "x", Registry::External, 1, ExportTo::All),
            service("a", "y", Registry::Kubernetes, 5, ExportTo::All),
            service("a", "z", Registry::External, 9, own("z")),
            service("b", "x", Registry::Kubernetes, 3, own("x")),
        ];
        let snap = Snapshot::new(
            1,
            Parts {
                services,
                ..Parts::default()
            },
        );
        let seen = |ns: &str| {
            let list = snap.visible_services(ns);
            list.iter()
                .map(|s| format!("{}/{}", s.hostname, s.namespace))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen("x"), ["a/x", "b/x"], "the own namespace first");
        assert_eq!(seen("z"), ["a/z"]);
        assert_eq!(
            seen("other"),
            ["a/y"],
            "then Kubernetes before older entries"
        );
        let labels: Labels = [("app".into(), "b".into()), ("tier".into(), "all".into())].into();
        let selecting = snap.services_selecting("x", &labels);
        assert_eq!(selecting.len(), 1);
        assert_eq!(&*selecting[0].hostname, "b");
        assert!(snap.services_selecting("y", &labels).is_empty());
    }

    #[test]
    fn sidecars_by_workload_namespace_and_root() {
        let sidecar = |ns: &str, name: &str, selector: Option<(&str, &str)>| {
            Arc::new(Sidecar {
                namespace: ns.into(),
                name: name.into(),
                origin: Origin::default(),
                created: 0,
                selector: selector.map(|s| Selector::from_iter([s])),
                egress: Vec::new(),
                ingress: Vec::new(),
                outbound_policy: None,
            })
        };
        let sidecars = vec![
            sidecar("n", "one", Some(("app", "a"))),
            sidecar("n", "whole", None),
            sidecar("istio-system", "mesh", None),
        ];
        let snap = Snapshot::new(
            1,
            Parts {
                sidecars,
                ..Parts::default()
            },
        );
        let labels: Labels = [("app".into(), "a".into())].into();
        let of = |ns: &str, l: &Labels| snap.sidecar_for(ns, l).map(|s| s.name.to_string());
        assert_eq!(of("n", &labels).as_deref(), Some("one"));
        assert_eq!(of("n", &Labels::new()).as_deref(), Some("whole"));
        assert_eq!(of("m", &labels).as_deref(), Some("mesh"));
    }

    fn rule(namespace: &str, host: &str, export: ExportTo) -> Arc<DestinationRule> {
        Arc::new(DestinationRule {
            namespace: namespace.into(),
            name: "r".into(),
            origin: Origin::new("DestinationRule", namespace, "r"),
            created: 0,
            host: host.into(),
            export_to: export,
            workload_selector: None,
            policy: TrafficPolicy::default(),
            subsets: Vec::new(),
        })
    }

    #[test]
    fn rule_lookup_client_then_service_then_root() {
        let host = "a.svc.svc.cluster.local";
        let rules = vec![
            rule("client", "*.svc.cluster.local", ExportTo::All),
            rule("svc", host, ExportTo::All),
            rule("istio-system", "*.local", ExportTo::All),
            rule(
                "shy",
                "b.shy.svc.cluster.local",
                ExportTo::Namespaces(["shy".into()].into()),
            ),
        ];
        let snap = Snapshot::new(
            1,
            Parts {
                destination_rules: rules,
                ..Parts::default()
            },
        );
        let labels = Labels::new();
        let of = |h: &str, c: &str, s: &str| {
            snap.destination_rule(h, c, &labels, s)
                .map(|r| r.namespace.to_string())
        };
        assert_eq!(of(host, "client", "svc").as_deref(), Some("client"));
        assert_eq!(of(host, "other", "svc").as_deref(), Some("svc"));
        assert_eq!(
            of("c.x.svc.cluster.local", "other", "x").as_deref(),
            Some("istio-system")
        );
        assert_eq!(
            of("b.shy.svc.cluster.local", "other", "shy").as_deref(),
            Some("istio-system")
        );
        assert_eq!(
            of("b.shy.svc.cluster.local", "shy", "shy").as_deref(),
            Some("shy")
        );
        assert_eq!(of("x.com", "other", "x"), None);
    }
}
