//! The newest configuration and what was generated from it. One generation serves every
//! proxy with the same key, the debug pages included, and survives a new configuration
//! as far as nothing it was made from has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lateen_model::{
    EndpointTable, Locality, ProxyKey, ProxyType, Resolution, ServiceEndpoints, ServiceKey,
    Snapshot, Str,
};
use lateen_resources::{Body, Diagnostic, Kind, ObjectSet};
use lateen_xds::{Context, Features, Resource, ResourceSet, ResourceType, Serves, names, secret};
use tokio::sync::watch;

use crate::ads::{Names, NodeInfo, NodeKind, Source, View};

/// One consistent configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Counts configurations, from 1.
    pub number: u64,
    /// `version_info` of responses: start time of this control plane and the number.
    pub version: String,
    /// What users declared.
    pub snapshot: Arc<Snapshot>,
    /// Where it runs.
    pub endpoints: Arc<EndpointTable>,
    /// The objects themselves, for secrets and debug pages.
    pub objects: Arc<ObjectSet>,
    /// What is wrong with them.
    pub diagnostics: Arc<Vec<Diagnostic>>,
    /// When the first change in it was noticed.
    pub noticed: Instant,
}

impl Configuration {
    /// Nothing at all, before the first compilation.
    pub fn empty() -> Self {
        Self {
            number: 0,
            version: "0".to_owned(),
            snapshot: Arc::default(),
            endpoints: Arc::default(),
            objects: Arc::default(),
            diagnostics: Arc::default(),
            noticed: Instant::now(),
        }
    }
}

/// Holds the newest configuration and hands out views of it.
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Configuration>,
    ticks: watch::Sender<u64>,
    features: Features,
    generated: Mutex<HashMap<ProxyKey, Weak<Generated>>>,
}

impl Store {
    /// A store without configuration.
    pub fn new(features: Features) -> Self {
        Self {
            current: ArcSwap::from_pointee(Configuration::empty()),
            ticks: watch::Sender::new(0),
            features,
            generated: Mutex::default(),
        }
    }

    /// The newest configuration.
    pub fn current(&self) -> Arc<Configuration> {
        self.current.load_full()
    }

    /// Generator switches of this control plane.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Puts a new configuration in place and tells every stream.
    pub fn publish(&self, configuration: Configuration) {
        let number = configuration.number;
        self.current.store(Arc::new(configuration));
        self.ticks.send_replace(number);
    }

    /// The newest configuration as a proxy with this key sees it.
    pub fn view_of(&self, key: ProxyKey) -> ProxyView {
        let configuration = self.current();
        let inputs = Inputs::of(&configuration, &key, self.features);
        let mut all = self
            .generated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&key).and_then(Weak::upgrade);
        let generated = match known {
            Some(g) if g.inputs == inputs => g,
            older => {
                let fresh = Arc::new(Generated::new(inputs, older.as_deref()));
                all.retain(|_, g| g.strong_count() > 0);
                all.insert(key.clone(), Arc::downgrade(&fresh));
                fresh
            }
        };
        ProxyView {
            configuration,
            key,
            features: self.features,
            generated,
        }
    }
}

impl Source for Store {
    type View = ProxyView;

    fn changes(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    fn view(&self, node: &NodeInfo) -> Arc<ProxyView> {
        let key = proxy_key(node, &self.current().endpoints);
        Arc::new(self.view_of(key))
    }
}

/// What clusters, listeners and routes of one proxy are made from, other than its key.
#[derive(Debug, Clone)]
struct Inputs {
    snapshot: Arc<Snapshot>,
    serves: Vec<Serves>,
    /// Endpoints that stand in clusters or listeners themselves: DNS and headless services.
    inline: Vec<Option<Arc<ServiceEndpoints>>>,
}

impl Inputs {
    fn of(c: &Configuration, key: &ProxyKey, features: Features) -> Self {
        let cx = Context::new(&c.snapshot, &c.endpoints, key, features);
        let is_inline =
            |s: &&Arc<lateen_model::Service>| s.resolution != Resolution::Static || s.headless;
        let inline = c.snapshot.services().iter().filter(is_inline);
        Self {
            snapshot: c.snapshot.clone(),
            serves: cx.serves(),
            inline: inline
                .map(|s| c.endpoints.services.get(&s.key()).cloned())
                .collect(),
        }
    }
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot)
            && self.serves == other.serves
            && self.inline == other.inline
    }
}

/// The endpoints of one cluster with what they were made from.
#[derive(Debug, Clone)]
struct MadeEndpoints {
    from: Option<Arc<ServiceEndpoints>>,
    made: Arc<Resource>,
}

#[derive(Debug, Default)]
struct Made {
    whole: HashMap<ResourceType, Arc<ResourceSet>>,
    routes: HashMap<String, Arc<Resource>>,
    endpoints: HashMap<String, MadeEndpoints>,
}

/// What was generated for one key from one set of inputs.
#[derive(Debug)]
struct Generated {
    inputs: Inputs,
    made: Mutex<Made>,
}

impl Generated {
    /// Nothing yet, but for endpoints of an older generation over the same snapshot, which
    /// are checked one by one when asked for.
    fn new(inputs: Inputs, older: Option<&Generated>) -> Self {
        let mut made = Made::default();
        if let Some(older) = older.filter(|o| Arc::ptr_eq(&o.inputs.snapshot, &inputs.snapshot)) {
            made.endpoints = older.made().endpoints.clone();
        }
        Self {
            inputs,
            made: Mutex::new(made),
        }
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration as one proxy sees it.
#[derive(Debug)]
pub struct ProxyView {
    /// The configuration.
    pub configuration: Arc<Configuration>,
    /// The proxy.
    pub key: ProxyKey,
    features: Features,
    generated: Arc<Generated>,
}

impl ProxyView {
    /// The generator's inputs.
    pub fn context(&self) -> Context<'_> {
        let c = &self.configuration;
        Context::new(&c.snapshot, &c.endpoints, &self.key, self.features)
    }

    fn whole(&self, t: ResourceType) -> Arc<ResourceSet> {
        let mut made = self.generated.made();
        let set = made
            .whole
            .entry(t)
            .or_insert_with(|| Arc::new(lateen_xds::generate(&self.context(), t, [])));
        set.clone()
    }

    fn routes(&self, names: &Names) -> ResourceSet {
        let mut made = self.generated.made();
        let mut context = None;
        ResourceSet::new(names.names.iter().map(|name| {
            let routes = made.routes.entry(name.clone());
            let make = || {
                let cx = context.get_or_insert_with(|| self.context());
                lateen_xds::route::by_name(cx, name)
            };
            routes.or_insert_with(make).clone()
        }))
    }

    fn endpoints(&self, names: &Names) -> ResourceSet {
        let mut made = self.generated.made();
        let mut context = None;
        ResourceSet::new(names.names.iter().map(|name| {
            let cx = context.get_or_insert_with(|| self.context());
            let service =
                names::parse_outbound(name).and_then(|n| Some(cx.service(&n.host)?.key()));
            let from = service.and_then(|k: ServiceKey| cx.endpoints.services.get(&k).cloned());
            if let Some(known) = made.endpoints.get(name) {
                let same = match (&known.from, &from) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (None, None) => true,
                    _ => false,
                };
                if same {
                    return known.made.clone();
                }
            }
            let fresh = lateen_xds::endpoint::by_name(cx, name);
            let entry = MadeEndpoints {
                from,
                made: fresh.clone(),
            };
            made.endpoints.insert(name.clone(), entry);
            fresh
        }))
    }

    /// Secrets of gateways: `kubernetes://NAME` is the Secret of that name in the proxy's own
    /// namespace, never another's.
    fn secrets(&self, names: &Names) -> ResourceSet {
        if self.key.kind != ProxyType::Router {
            return ResourceSet::default();
        }
        ResourceSet::new(names.names.iter().filter_map(|name| self.secret(name)))
    }

    fn secret(&self, resource: &str) -> Option<Arc<Resource>> {
        let name = resource.strip_prefix("kubernetes://")?;
        let (name, wants_ca) = match name.strip_suffix(secret::CA_SUFFIX) {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let find = |n: &str| {
            let object = self
                .configuration
                .objects
                .get(Kind::Secret, &self.key.namespace, n)?;
            match &object.body {
                Body::Secret(s) => Some(s),
                _ => None,
            }
        };
        let pick = |s: &lateen_resources::kubernetes::Secret, keys: [&str; 2]| {
            keys.into_iter().find_map(|k| {
                let plain = s.string_data.get(k).map(|v| v.clone().into_bytes());
                plain.or_else(|| BASE64.decode(s.data.get(k)?.trim()).ok())
            })
        };
        if wants_ca {
            // The CA may stand beside the certificate or in a Secret of its own.
            let own = find(&format!("{name}{}", secret::CA_SUFFIX));
            let keys = ["ca.crt", "cacert"];
            let ca = own
                .and_then(|s| pick(s, keys))
                .or_else(|| pick(find(name)?, keys))?;
            return Some(secret::roots(resource, &ca));
        }
        let s = find(name)?;
        let (chain, key) = (pick(s, ["tls.crt", "cert"])?, pick(s, ["tls.key", "key"])?);
        Some(secret::certificate(resource, &chain, &key))
    }
}

impl View for ProxyView {
    fn version(&self) -> &str {
        &self.configuration.version
    }

    fn noticed(&self) -> Instant {
        self.configuration.noticed
    }

    fn generate(&self, t: ResourceType, names: &Names) -> Arc<ResourceSet> {
        match t {
            ResourceType::Cluster | ResourceType::Listener | ResourceType::NameTable => {
                self.whole(t)
            }
            ResourceType::Route => Arc::new(self.routes(names)),
            ResourceType::Endpoint => Arc::new(self.endpoints(names)),
            ResourceType::Secret => Arc::new(self.secrets(names)),
            ResourceType::Extension => Arc::default(),
        }
    }
}

/// The key of a proxy: what it says of itself, corrected by what is known of its workload.
pub fn proxy_key(node: &NodeInfo, endpoints: &EndpointTable) -> ProxyKey {
    let text = |s: &str| Str::from(s);
    let mut key = ProxyKey {
        kind: match node.kind {
            NodeKind::Sidecar => ProxyType::Sidecar,
            NodeKind::Router => ProxyType::Router,
        },
        namespace: text(&node.namespace),
        name: text(&node.name),
        labels: node
            .labels
            .iter()
            .map(|(k, v)| (text(k), text(v)))
            .collect(),
        ips: node.addresses.clone(),
        dns_domain: text(&node.domain),
        service_account: text(node.meta("SERVICE_ACCOUNT")),
        workload: text(node.meta("WORKLOAD_NAME")),
        node: text(node.meta("NODE_NAME")),
        locality: Locality::parse(&node.locality),
        cluster_id: text(match node.meta("CLUSTER_ID") {
            "" => "Kubernetes",
            id => id,
        }),
        network: text(node.meta("NETWORK")),
        dns_capture: node.meta("DNS_CAPTURE") == "true",
        http10: matches!(node.meta("HTTP10"), "1" | "true"),
        extensions: node.extensions.clone(),
        ..ProxyKey::default()
    };
    key.ipv6 = key.ips.iter().any(std::net::IpAddr::is_ipv6);
    if let Some(w) = lateen_xds::context::workload(endpoints, &key) {
        let w = w.clone();
        key.labels = w.labels.clone();
        key.service_account = w.service_account.clone();
        key.node = w.node.clone();
        if !w.workload.is_empty() {
            key.workload = w.workload.clone();
        }
        if key.locality.is_empty() {
            key.locality = w.locality.clone();
        }
    }
    key
}
