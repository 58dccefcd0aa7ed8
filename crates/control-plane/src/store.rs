//! The newest configuration and what was generated from it. One generation serves all
//! proxies as far as they are alike, the debug pages included, and survives a new
//! configuration as far as nothing it was made from has changed.

mod generated;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lateen_model::proxy::InterceptionMode;
use lateen_model::{EndpointTable, Locality, ProxyKey, ProxyType, Snapshot, Str};
use lateen_resources::{Body, Diagnostic, Kind, ObjectSet};
use lateen_xds::{Context, Features, Resource, ResourceSet, ResourceType, secret};
use tokio::sync::watch;

use self::generated::{Generated, Inline, Inputs, Shared};
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
    current: ArcSwap<Current>,
    ticks: watch::Sender<u64>,
    features: Features,
    kept: Mutex<Kept>,
}

/// The newest configuration with what is asked of it for every proxy.
#[derive(Debug)]
struct Current {
    configuration: Arc<Configuration>,
    inline: Inline,
}

/// What was generated, as long as some view uses it.
#[derive(Debug, Default)]
struct Kept {
    of_proxies: HashMap<ProxyKey, Weak<Generated>>,
    of_classes: HashMap<ProxyKey, Weak<Shared>>,
    /// Size of the larger map at which those that nobody uses are swept out.
    sweep_at: usize,
}

impl Kept {
    fn sweep(&mut self) {
        if self.of_proxies.len().max(self.of_classes.len()) < self.sweep_at {
            return;
        }
        self.of_proxies.retain(|_, g| g.strong_count() > 0);
        self.of_classes.retain(|_, s| s.strong_count() > 0);
        // Looking at all of them is paid by as many new ones.
        self.sweep_at = 64 + 2 * self.of_proxies.len().max(self.of_classes.len());
    }

    fn shared(&mut self, class: ProxyKey, inputs: Inputs) -> Arc<Shared> {
        match self.of_classes.get(&class).and_then(Weak::upgrade) {
            Some(known) if known.is_of(&inputs) => known,
            older => {
                let fresh = Arc::new(Shared::new(class.clone(), inputs, older.as_deref()));
                self.of_classes.insert(class, Arc::downgrade(&fresh));
                fresh
            }
        }
    }
}

impl Store {
    /// A store without configuration.
    pub fn new(features: Features) -> Self {
        Self {
            current: ArcSwap::from_pointee(Current {
                configuration: Arc::new(Configuration::empty()),
                inline: Inline::default(),
            }),
            ticks: watch::Sender::new(0),
            features,
            kept: Mutex::default(),
        }
    }

    /// The newest configuration.
    pub fn current(&self) -> Arc<Configuration> {
        self.current.load().configuration.clone()
    }

    /// Generator switches of this control plane.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Puts a new configuration in place and tells every stream.
    pub fn publish(&self, configuration: Configuration) {
        let number = configuration.number;
        let inline = Inline::of(&configuration, &self.current.load().inline);
        self.current.store(Arc::new(Current {
            configuration: Arc::new(configuration),
            inline,
        }));
        self.ticks.send_replace(number);
    }

    fn kept_now(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest configuration as a proxy with this key sees it.
    pub fn view_of(&self, key: ProxyKey) -> ProxyView {
        // Under the lock, so that nobody puts what is older in the place of what is newer.
        let mut kept = self.kept_now();
        let current = self.current.load_full();
        let configuration = current.configuration.clone();
        let (snapshot, endpoints) = (&configuration.snapshot, &configuration.endpoints);
        let serves = Context::new(snapshot, endpoints, &key, self.features).serves();
        let class = lateen_xds::class(snapshot, endpoints, &key);
        let inputs = Inputs {
            snapshot: snapshot.clone(),
            inline: current.inline.clone(),
            // What a gateway listens on depends on its own Services.
            serves: match key.kind {
                ProxyType::Router => serves.clone(),
                ProxyType::Sidecar => Vec::new(),
            },
        };
        kept.sweep();
        let shared = kept.shared(class, inputs);
        let known = kept.of_proxies.get(&key).and_then(Weak::upgrade);
        let generated = match known {
            Some(g) if g.is_of(&shared, snapshot, &serves) => g,
            older => {
                let fresh = Generated::new(shared, snapshot.clone(), serves, older.as_deref());
                let fresh = Arc::new(fresh);
                kept.of_proxies.insert(key.clone(), Arc::downgrade(&fresh));
                fresh
            }
        };
        drop(kept);
        ProxyView {
            configuration,
            key,
            features: self.features,
            generated,
        }
    }

    fn live(&self) -> (Vec<Arc<Shared>>, Vec<Arc<Generated>>) {
        let kept = self.kept_now();
        let shared = kept.of_classes.values().filter_map(Weak::upgrade);
        let own = kept.of_proxies.values().filter_map(Weak::upgrade);
        (shared.collect(), own.collect())
    }

    /// Generated resources that are kept, each once however many proxies share it. A proxy
    /// whose resources are being generated is waited for.
    pub fn kept(&self) -> BTreeMap<ResourceType, Vec<Arc<Resource>>> {
        let mut all = Vec::new();
        let (shared, own) = self.live();
        shared.iter().for_each(|s| s.list(&mut all));
        own.iter().for_each(|g| g.list(&mut all));
        let mut seen = HashSet::new();
        let mut out: BTreeMap<ResourceType, Vec<Arc<Resource>>> = BTreeMap::new();
        for (t, resource) in all {
            if seen.insert(Arc::as_ptr(&resource)) {
                out.entry(t).or_default().push(resource);
            }
        }
        out
    }

    /// Forgets all generated resources: each is made anew when it is next asked for.
    pub fn forget(&self) {
        let (shared, own) = self.live();
        shared.iter().for_each(|s| s.forget());
        own.iter().for_each(|g| g.forget());
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

    /// The inputs of what is shared with the proxies of the same class.
    fn shared_context(&self) -> Context<'_> {
        let c = &self.configuration;
        let class = &self.generated.shared.class;
        Context::new(&c.snapshot, &c.endpoints, class, self.features)
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
            ResourceType::Cluster | ResourceType::Listener | ResourceType::NameTable => self
                .generated
                .whole(t, &self.shared_context(), &self.context()),
            ResourceType::Route => {
                let shared = &self.generated.shared;
                Arc::new(shared.routes(&self.shared_context(), names))
            }
            ResourceType::Endpoint => {
                let shared = &self.generated.shared;
                Arc::new(shared.assignments(&self.shared_context(), names))
            }
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
        interception: match node.meta("INTERCEPTION_MODE") {
            "TPROXY" => InterceptionMode::Tproxy,
            "NONE" => InterceptionMode::None,
            _ => InterceptionMode::Redirect,
        },
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
