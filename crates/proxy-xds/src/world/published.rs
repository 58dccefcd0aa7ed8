//! Snapshots of what is in service: made where something changed, sharing what did not.

use std::sync::Arc;

use lateen_proxy_core::config::{
    Cluster, ClusterDiscovery, ClusterLoadAssignment, ResourceMap, Secret, Snapshot,
};

use super::held::values;
use super::{Held, World};
use crate::kind::Kind;

impl World {
    /// Says that all initial resources are there.
    pub fn set_initialized(&mut self) {
        if !self.initialized {
            self.initialized = true;
            self.dirty.insert(Kind::Listener);
        }
    }

    /// Whether all initial resources are there.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// A new snapshot, if anything changed since the last one.
    pub fn publish(&mut self) -> Option<Arc<Snapshot>> {
        if self.dirty.is_empty() {
            return None;
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.generation += 1;
        let old = &self.last;
        let keep = |kind| !dirty.contains(&kind);
        let snapshot = Snapshot {
            generation: self.generation,
            initialized: self.initialized,
            listeners: if keep(Kind::Listener) {
                old.listeners.clone()
            } else {
                values(&self.listeners.active)
            },
            clusters: if keep(Kind::Cluster) {
                old.clusters.clone()
            } else {
                values(&self.clusters.active)
            },
            endpoints: if keep(Kind::Endpoints) {
                old.endpoints.clone()
            } else {
                self.endpoints_by_cluster()
            },
            routes: if keep(Kind::Routes) {
                old.routes.clone()
            } else {
                values(&self.routes)
            },
            secrets: if keep(Kind::Secret) {
                old.secrets.clone()
            } else {
                self.all_secrets()
            },
        };
        self.last = Arc::new(snapshot);
        Some(self.last.clone())
    }

    /// The last snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.last.clone()
    }

    fn endpoints_by_cluster(&self) -> ResourceMap<ClusterLoadAssignment> {
        let of = |held: &Held<Cluster>| match &held.value.discovery {
            ClusterDiscovery::Eds { service_name } => {
                let found = self.endpoints.get(service_name)?;
                Some((held.value.name.clone(), found.value.clone()))
            }
            _ => None,
        };
        Arc::new(self.clusters.active.values().filter_map(of).collect())
    }

    fn all_secrets(&self) -> ResourceMap<Secret> {
        let all = self.secrets.fixed.iter().chain(&self.secrets.active);
        Arc::new(all.map(|(n, h)| (n.clone(), h.value.clone())).collect())
    }
}
