//! Workloads: what runs, found by IP or by pod name.

use crate::{Labels, Locality, Str, TlsMode};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A pod or a WorkloadEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Pod or WorkloadEntry name.
    pub name: Str,
    /// Its namespace.
    pub namespace: Str,
    /// Addresses; empty until assigned.
    pub ips: Vec<IpAddr>,
    /// Labels.
    pub labels: Labels,
    /// Service account.
    pub service_account: Str,
    /// Node name; empty when unscheduled or outside the cluster.
    pub node: Str,
    /// Region, zone, sub-zone.
    pub locality: Locality,
    /// Network name; empty for the default.
    pub network: Str,
    /// Owning workload's name (`reviews-v1` for its Deployment).
    pub workload: Str,
    /// Owning workload's kind in lower case (`deployment`, `pod`, ...).
    pub workload_kind: Str,
    /// Canonical service name.
    pub canonical_name: Str,
    /// Canonical revision.
    pub canonical_revision: Str,
    /// Whether its sidecar accepts mesh TLS.
    pub tls: TlsMode,
    /// Named container ports.
    pub named_ports: Vec<(Str, u16)>,
    /// Pod host name and subdomain for headless DNS; empty when unset.
    pub hostname: Str,
    /// Uses the node's network: its IP is shared.
    pub host_network: bool,
    /// Ready to serve.
    pub ready: bool,
}

/// Workloads by name and by IP.
#[derive(Debug, Clone, Default)]
pub struct WorkloadIndex {
    by_name: HashMap<(Str, Str), Arc<Workload>>,
    by_ip: HashMap<IpAddr, Arc<Workload>>,
}

impl WorkloadIndex {
    /// Builds the index. Host-network pods are not found by IP, since the IP is the node's.
    pub fn new(workloads: impl IntoIterator<Item = Arc<Workload>>) -> Self {
        let mut index = Self::default();
        for w in workloads {
            index.insert(w);
        }
        index
    }

    /// Adds or replaces a workload.
    pub fn insert(&mut self, workload: Arc<Workload>) {
        self.remove(&workload.namespace, &workload.name);
        if !workload.host_network {
            for ip in &workload.ips {
                self.by_ip.insert(*ip, workload.clone());
            }
        }
        self.by_name.insert(
            (workload.namespace.clone(), workload.name.clone()),
            workload,
        );
    }

    /// Removes a workload.
    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        let old = self
            .by_name
            .remove(&(Str::from(namespace), Str::from(name)))?;
        for ip in &old.ips {
            // The IP may have passed to another workload already.
            if self.by_ip.get(ip).is_some_and(|w| Arc::ptr_eq(w, &old)) {
                self.by_ip.remove(ip);
            }
        }
        Some(old)
    }

    /// The workload at an IP.
    pub fn at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.by_ip.get(&ip)
    }

    /// The workload of this name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.by_name.get(&(Str::from(namespace), Str::from(name)))
    }

    /// All workloads, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_name.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
