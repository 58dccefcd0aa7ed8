//! The clusters of a worker by name, made at first use and kept while the
//! snapshot has them unchanged.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashMap;
use lateen_proxy_core::config::{Cluster, ClusterDiscovery, ClusterLoadAssignment, Name, Snapshot};

use super::breaker::InFlight;
use super::cluster::ClusterState;
use super::dns::{self, Resolution};
use super::health::ClusterHealth;
use super::idle::IdleWatch;
use crate::stats::Stats;
use crate::tls::TlsContexts;

/// The worker that counts a cluster's members, and the breaker counts of its two priorities.
type Counted = (usize, [Arc<InFlight>; 2]);

/// What the workers of one process share: breaker counts by cluster name, and
/// the worker that counts the cluster's members, which is the first to use it.
#[derive(Debug, Default)]
pub struct SharedClusters {
    in_flight: Mutex<HashMap<Name, Counted>>,
    health: Mutex<PerConfig<ClusterHealth>>,
    resolutions: Mutex<PerConfig<Resolution>>,
}

/// What is known of clusters under one configuration: a changed one begins anew.
type PerConfig<T> = HashMap<Name, Vec<(Weak<Cluster>, Arc<T>)>>;

fn of_config<T: Default>(all: &Mutex<PerConfig<T>>, config: &Arc<Cluster>) -> Arc<T> {
    let mut map = all.lock().unwrap_or_else(PoisonError::into_inner);
    let list = map.entry(config.name.clone()).or_default();
    list.retain(|(of, _)| of.strong_count() > 0);
    let same = |(of, _): &&(Weak<Cluster>, Arc<T>)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(config));
    if let Some((_, known)) = list.iter().find(same) {
        return known.clone();
    }
    let new = Arc::<T>::default();
    list.push((Arc::downgrade(config), new.clone()));
    new
}

fn forget<T>(all: &Mutex<PerConfig<T>>, snapshot: &Snapshot) {
    let mut map = all.lock().unwrap_or_else(PoisonError::into_inner);
    map.retain(|name, list| {
        list.retain(|(of, _)| of.strong_count() > 0);
        snapshot.clusters.contains_key(name)
    });
}

impl SharedClusters {
    /// The breaker counts, and whether this worker counts the members and checks
    /// them: the first worker, where it has the cluster from the start (`early`).
    fn get(&self, name: &Name, worker: usize, early: bool) -> ([Arc<InFlight>; 2], bool) {
        let map = self.in_flight.lock();
        let mut map = map.unwrap_or_else(PoisonError::into_inner);
        let made = map.entry(name.clone());
        let (first, counts) = made.or_insert_with(|| (worker, Default::default()));
        let first = if early { 0 } else { *first };
        (counts.clone(), first == worker)
    }

    /// The breaker counts of all clusters in use, by name.
    pub fn in_flight(&self) -> Vec<(Name, [Arc<InFlight>; 2])> {
        let map = self.in_flight.lock();
        let map = map.unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .map(|(name, (_, counts))| (name.clone(), counts.clone()))
            .collect()
    }

    /// The health of a cluster's hosts; none where nothing checks them.
    fn health(&self, config: &Arc<Cluster>) -> Option<Arc<ClusterHealth>> {
        if config.outlier_detection.is_none() && config.health_checks.is_empty() {
            return None;
        }
        Some(of_config(&self.health, config))
    }

    /// Forgets clusters that the snapshot no longer names.
    pub fn retain(&self, snapshot: &Snapshot) {
        let map = self.in_flight.lock();
        let mut map = map.unwrap_or_else(PoisonError::into_inner);
        map.retain(|name, _| snapshot.clusters.contains_key(name));
        forget(&self.health, snapshot);
        forget(&self.resolutions, snapshot);
    }
}

/// The clusters of a worker.
#[derive(Debug)]
pub struct ClusterTable {
    shared: Arc<SharedClusters>,
    stats: Rc<Stats>,
    worker: usize,
    snapshot: RefCell<Arc<Snapshot>>,
    states: RefCell<HashMap<Name, Rc<ClusterState>, foldhash::fast::RandomState>>,
    /// TLS configurations.
    pub tls: Rc<TlsContexts>,
    /// Hosts with idle connections.
    pub idle: Rc<IdleWatch>,
}

impl ClusterTable {
    /// A table without clusters.
    pub fn new(shared: Arc<SharedClusters>, stats: Rc<Stats>, worker: usize) -> Self {
        Self {
            shared,
            stats,
            worker,
            snapshot: RefCell::default(),
            states: RefCell::default(),
            tls: Rc::default(),
            idle: Rc::default(),
        }
    }

    /// Takes a new snapshot: changed clusters begin anew, unchanged ones take
    /// their new endpoints, DNS clusters begin to resolve.
    pub fn set_snapshot(&self, snapshot: &Arc<Snapshot>) {
        self.tls.set_secrets(snapshot.secrets.clone());
        *self.snapshot.borrow_mut() = snapshot.clone();
        self.states.borrow_mut().retain(|name, state| {
            let same = snapshot
                .clusters
                .get(name)
                .is_some_and(|c| Arc::ptr_eq(c, &state.config));
            if !same {
                state.retire();
            } else if let Some(assignment) = endpoints(snapshot, &state.config) {
                state.set_assignment(assignment);
            }
            same
        });
        for (name, cluster) in snapshot.clusters.iter() {
            // The other workers take what the first finds.
            let needed = is_dns(cluster) || !cluster.health_checks.is_empty();
            if self.worker == 0 && needed {
                self.get(name);
            }
        }
    }

    /// Whether every cluster is ready for traffic.
    pub fn is_warm(&self) -> bool {
        self.states.borrow().values().all(|state| state.is_warm())
    }

    /// The cluster of that name.
    pub fn get(&self, name: &str) -> Option<Rc<ClusterState>> {
        if let Some(state) = self.states.borrow().get(name) {
            return Some(state.clone());
        }
        let snapshot = self.snapshot.borrow().clone();
        let (name, config) = snapshot.clusters.get_key_value(name)?;
        let early = is_dns(config) || !config.health_checks.is_empty();
        let (in_flight, first_worker) = self.shared.get(name, self.worker, early);
        let state = ClusterState::new(
            config.clone(),
            self.stats.cluster(&config.stat_name),
            in_flight,
            self.tls.clone(),
            self.idle.clone(),
            self.shared.health(config),
            first_worker,
        );
        if let Some(assignment) = endpoints(&snapshot, config) {
            state.set_assignment(assignment);
        }
        if is_dns(config) {
            let resolution = of_config(&self.shared.resolutions, config);
            dns::follow(&state, &resolution);
            if first_worker {
                dns::start(&state, &resolution);
            }
        }
        self.states.borrow_mut().insert(name.clone(), state.clone());
        Some(state)
    }

    /// The cluster of that name if it is in use.
    pub fn existing(&self, name: &str) -> Option<Rc<ClusterState>> {
        self.states.borrow().get(name).cloned()
    }

    /// Runs `look` on every cluster in use.
    pub fn each(&self, mut look: impl FnMut(&Rc<ClusterState>)) {
        for state in self.states.borrow().values() {
            look(state);
        }
    }

    /// Closes what idles too long and forgets passing hosts.
    pub fn sweep(&self) {
        self.idle.sweep();
        self.each(|cluster| {
            cluster.sweep_outliers();
            cluster.sweep_slow_start();
            if matches!(cluster.config.discovery, ClusterDiscovery::OriginalDst(_)) {
                cluster.clean_passing();
            }
        });
    }
}

fn is_dns(cluster: &Cluster) -> bool {
    dns::settings(cluster).is_some()
}

/// The endpoints that are used as they stand; DNS ones are not.
fn endpoints<'a>(
    snapshot: &'a Snapshot,
    cluster: &'a Cluster,
) -> Option<&'a Arc<ClusterLoadAssignment>> {
    if is_dns(cluster) {
        return None;
    }
    snapshot.assignment(cluster)
}
