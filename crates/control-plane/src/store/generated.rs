//! What was generated and is kept: [`Shared`] for all proxies of a class, [`Generated`] for
//! one proxy with what leads to its own workload. Both are what the generator would give
//! again; which inputs that takes is decided in `lateen_xds::sharing`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lateen_model::{ProxyKey, ServiceEndpoints, ServiceKey, Snapshot};
use lateen_xds::sharing::stands_in_clusters;
use lateen_xds::{
    Context, Ingredients, Resource, ResourceSet, ResourceType, Serves, cluster, endpoint, listener,
    name_table, route,
};

use super::Configuration;
use crate::ads::Names;

/// Route configurations kept of one class; a proxy may ask for any name.
const MOST_ROUTES: usize = 4096;

/// Endpoints that stand in clusters, listeners or name tables themselves: those of DNS and
/// headless services, in the order of the services.
#[derive(Debug, Clone, Default)]
pub struct Inline(Arc<Vec<Option<Arc<ServiceEndpoints>>>>);

impl Inline {
    /// Of a configuration; the very value of the one before when nothing differs.
    pub fn of(c: &Configuration, before: &Inline) -> Self {
        let services = c.snapshot.services().iter();
        let inline = services.filter(|s| stands_in_clusters(s));
        let now: Vec<_> = inline
            .map(|s| c.endpoints.services.get(&s.key()).cloned())
            .collect();
        if now == *before.0 {
            before.clone()
        } else {
            Self(Arc::new(now))
        }
    }
}

/// What clusters, listeners and routes of a class are made from, other than the class.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// Endpoints within it.
    pub inline: Inline,
    /// The Services of a gateway; empty for sidecars.
    pub serves: Vec<Serves>,
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot)
            && Arc::ptr_eq(&self.inline.0, &other.inline.0)
            && self.serves == other.serves
    }
}

/// Resources with what they were made from.
type Known<T> = (Ingredients, T);

#[derive(Debug, Default)]
struct Made {
    whole: HashMap<ResourceType, Arc<Vec<Arc<Resource>>>>,
    routes: HashMap<String, Arc<Resource>>,
    clusters: HashMap<ServiceKey, Known<Vec<Arc<Resource>>>>,
    assignments: HashMap<String, Known<Arc<Resource>>>,
}

/// What was generated for a class from one set of inputs.
#[derive(Debug)]
pub struct Shared {
    /// The class.
    pub class: ProxyKey,
    inputs: Inputs,
    made: Mutex<Made>,
}

impl Shared {
    /// Nothing yet but what an older generation of the same class has of clusters and load
    /// assignments: each is looked at again when it is asked for. The older one loses them.
    pub fn new(class: ProxyKey, inputs: Inputs, older: Option<&Shared>) -> Self {
        let mut made = Made::default();
        let alike = |o: &&Shared| same_mesh(&o.inputs.snapshot, &inputs.snapshot);
        if let Some(older) = older.filter(alike) {
            let mut before = older.made();
            made.clusters = std::mem::take(&mut before.clusters);
            made.assignments = std::mem::take(&mut before.assignments);
            drop(before);
            // Clusters go with their service when all are generated; endpoints are asked for
            // one by one, so those of a service that is gone or changed leave here.
            made.assignments.retain(|_, (from, _)| {
                from.service.as_ref().is_some_and(|s| {
                    let now = inputs.snapshot.service(&s.key());
                    now.is_some_and(|now| Arc::ptr_eq(now, s))
                })
            });
        }
        Self {
            class,
            inputs,
            made: Mutex::new(made),
        }
    }

    /// True when this was made from these inputs.
    pub fn is_of(&self, inputs: &Inputs) -> bool {
        self.inputs == *inputs
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shared part of a type that is sent as a whole.
    fn whole(&self, t: ResourceType, cx: &Context<'_>) -> Arc<Vec<Arc<Resource>>> {
        let mut made = self.made();
        if let Some(known) = made.whole.get(&t) {
            return known.clone();
        }
        let fresh = match t {
            ResourceType::Cluster => clusters(cx, &mut made.clusters),
            ResourceType::Listener => listener::shared(cx),
            ResourceType::NameTable => vec![name_table::name_table(cx)],
            _ => Vec::new(),
        };
        let fresh = Arc::new(fresh);
        made.whole.insert(t, fresh.clone());
        fresh
    }

    /// Route configurations by name.
    pub fn routes(&self, cx: &Context<'_>, names: &Names) -> ResourceSet {
        let mut made = self.made();
        if made.routes.len() + names.names.len() > MOST_ROUTES {
            made.routes.clear();
        }
        ResourceSet::new(names.names.iter().map(|name| {
            if let Some(known) = made.routes.get(name) {
                return known.clone();
            }
            let fresh = route::by_name(cx, name);
            made.routes.insert(name.clone(), fresh.clone());
            fresh
        }))
    }

    /// Load assignments by cluster name.
    pub fn assignments(&self, cx: &Context<'_>, names: &Names) -> ResourceSet {
        let mut made = self.made();
        ResourceSet::new(names.names.iter().map(|name| {
            // Names that nothing stands behind are made each time: any may be asked for.
            let Some(from) = Ingredients::of_assignment(cx, name) else {
                return endpoint::by_name(cx, name);
            };
            match made.assignments.get(name) {
                Some((known, assignment)) if *known == from => assignment.clone(),
                _ => {
                    let fresh = endpoint::by_name(cx, name);
                    made.assignments.insert(name.clone(), (from, fresh.clone()));
                    fresh
                }
            }
        }))
    }

    /// Adds all that is kept.
    pub fn list(&self, all: &mut Vec<(ResourceType, Arc<Resource>)>) {
        let made = self.made();
        for (t, set) in &made.whole {
            all.extend(set.iter().map(|r| (*t, r.clone())));
        }
        let of_service = made.clusters.values().flat_map(|(_, list)| list);
        all.extend(of_service.map(|r| (ResourceType::Cluster, r.clone())));
        let routes = made.routes.values();
        all.extend(routes.map(|r| (ResourceType::Route, r.clone())));
        let assignments = made.assignments.values();
        all.extend(assignments.map(|(_, r)| (ResourceType::Endpoint, r.clone())));
    }

    /// Forgets all that is kept.
    pub fn forget(&self) {
        *self.made() = Made::default();
    }
}

/// The outbound clusters: those of services whose ingredients are the same stay as they are.
fn clusters(
    cx: &Context<'_>,
    known: &mut HashMap<ServiceKey, Known<Vec<Arc<Resource>>>>,
) -> Vec<Arc<Resource>> {
    let mut before = std::mem::take(known);
    let mut out = Vec::new();
    for service in cx.services() {
        let from = Ingredients::of_clusters(cx, service);
        let entry = match before.remove(&service.key()) {
            Some(same) if same.0 == from => same,
            _ => (from, cluster::of_service(cx, service)),
        };
        out.extend(entry.1.iter().cloned());
        known.insert(service.key(), entry);
    }
    out.extend(cluster::without_service(cx));
    out
}

/// The mesh settings are an input of everything.
fn same_mesh(a: &Arc<Snapshot>, b: &Arc<Snapshot>) -> bool {
    Arc::ptr_eq(a, b) || a.mesh == b.mesh
}

#[derive(Debug, Default)]
struct Own {
    /// What leads to the own workload.
    own: HashMap<ResourceType, Vec<Arc<Resource>>>,
    /// That and the shared part together.
    sets: HashMap<ResourceType, Arc<ResourceSet>>,
}

/// What was generated for one proxy.
#[derive(Debug)]
pub struct Generated {
    /// What it has in common with others.
    pub shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    serves: Vec<Serves>,
    made: Mutex<Own>,
}

impl Generated {
    /// Nothing yet but what an older generation of the same proxy has for a workload that
    /// serves the same.
    pub fn new(
        shared: Arc<Shared>,
        snapshot: Arc<Snapshot>,
        serves: Vec<Serves>,
        older: Option<&Generated>,
    ) -> Self {
        let alike = |o: &&Generated| same_mesh(&o.snapshot, &snapshot) && o.serves == serves;
        let own = older.filter(alike).map(|o| o.made().own.clone());
        let made = Mutex::new(Own {
            own: own.unwrap_or_default(),
            sets: HashMap::new(),
        });
        Self {
            shared,
            snapshot,
            serves,
            made,
        }
    }

    /// True when this was made from these inputs.
    pub fn is_of(&self, shared: &Arc<Shared>, snapshot: &Arc<Snapshot>, serves: &[Serves]) -> bool {
        Arc::ptr_eq(&self.shared, shared)
            && Arc::ptr_eq(&self.snapshot, snapshot)
            && self.serves == serves
    }

    fn made(&self) -> MutexGuard<'_, Own> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A type that is sent as a whole: `class` are the shared inputs, `own` the proxy's.
    pub fn whole(
        &self,
        t: ResourceType,
        class: &Context<'_>,
        own: &Context<'_>,
    ) -> Arc<ResourceSet> {
        let mut made = self.made();
        if let Some(known) = made.sets.get(&t) {
            return known.clone();
        }
        let shared = self.shared.whole(t, class);
        let own = made.own.entry(t).or_insert_with(|| match t {
            ResourceType::Cluster => cluster::own(own),
            ResourceType::Listener => listener::own(own),
            _ => Vec::new(),
        });
        let set = match t {
            ResourceType::Listener => ResourceSet::new(listener::in_order(&shared, own)),
            _ => ResourceSet::new(shared.iter().chain(&*own).cloned()),
        };
        let set = Arc::new(set);
        made.sets.insert(t, set.clone());
        set
    }

    /// Adds what is kept of this proxy alone.
    pub fn list(&self, all: &mut Vec<(ResourceType, Arc<Resource>)>) {
        for (t, own) in &self.made().own {
            all.extend(own.iter().map(|r| (*t, r.clone())));
        }
    }

    /// Forgets all that is kept of this proxy alone.
    pub fn forget(&self) {
        *self.made() = Own::default();
    }
}
