//! Objects to snapshot: merging, scoping, defaults, cross-object checks.
//!
//! [`Compiler::compile`] turns an `ObjectSet` into a `Snapshot`, diagnostics
//! and the set of what changed; [`endpoint::EndpointCompiler`] keeps the
//! endpoint table on a road of its own; [`analyze()`] finds what objects get
//! wrong about each other. All of it is pure: no IO, no clock, no idea of who
//! is connected. A bad object costs itself, never the rest.

pub mod analyze;
mod delegate;
mod diff;
pub mod endpoint;
mod gateway;
mod ingress;
mod mesh;
mod name;
mod policy;
mod route;
mod service;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload;

pub use analyze::{analyze, analyze_with};
pub use endpoint::{EndpointCompiler, EndpointOptions, ObjectChange};
pub use mesh::{mesh_config_from_yaml, overlay_mesh_config};

use lateen_model::snapshot::Parts;
use lateen_model::{Changed, MeshConfig, Service, Snapshot};
use lateen_resources::{Body, Diagnostic, Kind, Object, ObjectSet, Severity, check};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a compilation gave.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Findings about single objects and about merging; see [`analyze()`] for the rest.
    pub diagnostics: Vec<Diagnostic>,
    /// What differs from the previous compilation.
    pub changed: Changed,
}

/// What one object became; kept while the object stays the same.
#[derive(Debug, Clone)]
enum Item {
    Services(Vec<Arc<Service>>),
    VirtualService(Arc<virtual_service::Converted>),
    DestinationRule(Arc<lateen_model::DestinationRule>),
    Gateway(Arc<lateen_model::Gateway>),
    Sidecar(Arc<lateen_model::Sidecar>),
    Nothing,
}

#[derive(Debug)]
struct Cached {
    object: Arc<Object>,
    item: Item,
    diagnostics: Vec<Diagnostic>,
}

/// Compiles again and again, converting only objects that changed.
#[derive(Debug)]
pub struct Compiler {
    base: MeshConfig,
    mesh: MeshConfig,
    cache: HashMap<(Kind, String, String), Cached>,
    merged: delegate::Cache,
    rules: policy::Cache,
    previous: Option<Arc<Snapshot>>,
    version: u64,
}

impl Compiler {
    /// A compiler whose mesh settings are `mesh`, overlaid by ConfigMap `istio`
    /// of the root namespace where the objects hold one.
    pub fn new(mesh: MeshConfig) -> Self {
        Self {
            base: mesh.clone(),
            mesh,
            cache: HashMap::new(),
            merged: delegate::Cache::default(),
            rules: policy::Cache::default(),
            previous: None,
            version: 0,
        }
    }

    /// Replaces the base mesh settings (a `--mesh-config` file that changed).
    pub fn set_mesh(&mut self, mesh: MeshConfig) {
        self.base = mesh;
    }

    /// Compiles all objects.
    pub fn compile(&mut self, objects: &ObjectSet) -> Compiled {
        let mut diagnostics = Vec::new();
        self.read_mesh(objects, &mut diagnostics);
        let parts = self.parts(objects, &mut diagnostics);
        self.version += 1;
        let snapshot = Arc::new(Snapshot::new(self.version, parts));
        let changed = match &self.previous {
            Some(old) => diff::changed(old, &snapshot),
            None => Changed::everything(),
        };
        self.previous = Some(snapshot.clone());
        Compiled {
            snapshot,
            diagnostics,
            changed,
        }
    }

    fn read_mesh(&mut self, objects: &ObjectSet, diagnostics: &mut Vec<Diagnostic>) {
        let mut mesh = self.base.clone();
        let map = objects.get(Kind::ConfigMap, &self.base.root_namespace, "istio");
        if let Some(object) = map
            && let Body::ConfigMap(c) = &object.body
            && let Some(text) = c.data.get("mesh")
        {
            let (overlaid, found) = overlay_mesh_config(&self.base, text, "configmap istio");
            mesh = overlaid;
            diagnostics.extend(found);
        }
        if mesh != self.mesh {
            self.mesh = mesh;
            self.cache.clear();
            self.merged = delegate::Cache::default();
            self.rules = policy::Cache::default();
        }
    }

    fn parts(&mut self, objects: &ObjectSet, diagnostics: &mut Vec<Diagnostic>) -> Parts {
        let mut old = std::mem::take(&mut self.cache);
        let mut parts = Parts {
            mesh: self.mesh.clone(),
            ..Parts::default()
        };
        let (mut converted, mut rules) = (Vec::new(), Vec::new());
        const CONVERTED: [Kind; 7] = [
            Kind::Service,
            Kind::ServiceEntry,
            Kind::VirtualService,
            Kind::DestinationRule,
            Kind::Gateway,
            Kind::Sidecar,
            Kind::Ingress,
        ];
        for object in CONVERTED.iter().flat_map(|k| objects.of(*k)) {
            let key = (
                object.kind,
                object.meta.namespace.clone(),
                object.meta.name.clone(),
            );
            let cached = match old.remove(&key) {
                Some(c) if Arc::ptr_eq(&c.object, object) => c,
                _ => self.convert(object),
            };
            match &cached.item {
                Item::Services(s) => parts.services.extend(s.iter().cloned()),
                Item::VirtualService(v) => converted.push(v.clone()),
                Item::DestinationRule(r) => rules.push(r.clone()),
                Item::Gateway(g) => parts.gateways.push(g.clone()),
                Item::Sidecar(s) => parts.sidecars.push(s.clone()),
                Item::Nothing => {}
            }
            diagnostics.extend(cached.diagnostics.iter().cloned());
            self.cache.insert(key, cached);
        }
        for object in objects.of(Kind::Namespace) {
            let labels = name::labels(&object.meta.labels);
            parts
                .namespaces
                .insert(object.meta.name.as_str().into(), labels);
        }
        service_entry::allocate_addresses(&mut parts.services);
        self.remember_addresses(&parts.services);
        parts.virtual_services = self.merged.merge(&converted, diagnostics);
        parts.destination_rules = self.rules.merge(rules);
        ingress::add(objects, &self.mesh, &mut parts);
        place(objects, diagnostics);
        parts
    }

    /// Puts the services with their allocated addresses back into the cache, so
    /// that they stay the same values until their object changes.
    fn remember_addresses(&mut self, services: &[Arc<Service>]) {
        let allocated: HashMap<_, _> = services
            .iter()
            .filter(|s| s.auto_address.is_some())
            .map(|s| (s.key(), s))
            .collect();
        if allocated.is_empty() {
            return;
        }
        for cached in self.cache.values_mut() {
            let Item::Services(list) = &mut cached.item else {
                continue;
            };
            for service in list.iter_mut() {
                if let Some(with_address) = allocated.get(&service.key())
                    && with_address.origin == service.origin
                {
                    *service = (*with_address).clone();
                }
            }
        }
    }

    fn convert(&self, object: &Arc<Object>) -> Cached {
        let diagnostics = check::check(object);
        let refused = diagnostics.iter().any(|d| d.severity == Severity::Error);
        let mesh = &self.mesh;
        let item = match &object.body {
            _ if refused => Item::Nothing,
            Body::Service(s) => Item::Services(vec![service::convert(object, s, mesh).into()]),
            Body::ServiceEntry(s) => Item::Services(service_entry::convert(object, s, mesh)),
            Body::VirtualService(v) => {
                Item::VirtualService(virtual_service::convert(object, v, mesh).into())
            }
            Body::DestinationRule(r) => {
                Item::DestinationRule(policy::convert(object, r, mesh).into())
            }
            Body::Gateway(g) => Item::Gateway(gateway::convert(object, g).into()),
            Body::Sidecar(s) => Item::Sidecar(sidecar::convert(object, s, mesh).into()),
            _ => Item::Nothing,
        };
        Cached {
            object: object.clone(),
            item,
            diagnostics,
        }
    }
}

/// Gives findings about merging the file and line of their object.
fn place(objects: &ObjectSet, diagnostics: &mut [Diagnostic]) {
    for d in diagnostics.iter_mut().filter(|d| d.source.is_none()) {
        let Some(reference) = &d.object else { continue };
        let kind = lateen_resources::kind::KINDS
            .iter()
            .find(|k| k.name == reference.kind);
        let object = kind.and_then(|k| objects.get(k.kind, &reference.namespace, &reference.name));
        d.source = object.and_then(|o| o.source(&d.field));
    }
}

/// Compiles once, for tools: snapshot, endpoints and diagnostics of objects from files.
pub fn compile_once(
    objects: &ObjectSet,
    mesh: MeshConfig,
) -> (Compiled, Arc<lateen_model::EndpointTable>) {
    let compiled = Compiler::new(mesh).compile(objects);
    let options = EndpointOptions { from_pods: true };
    let mut endpoints = EndpointCompiler::new(options);
    endpoints.rebuild(objects, &compiled.snapshot);
    (compiled, endpoints.table())
}

/// Sorted text pairs.
type Pairs = BTreeMap<String, String>;
