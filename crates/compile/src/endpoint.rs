//! The endpoint road: Pods, slices, Nodes and entries to the endpoint table.
//!
//! A change of a pod or slice touches only the services it backs; the rest of
//! the table is shared with the previous one. State machine without IO: the
//! caller applies events to its `ObjectSet` and names what changed.

mod entry;
mod slice;

pub(crate) use slice::target_port;

use crate::workload;
use lateen_model::{
    Endpoint, EndpointAddress, EndpointTable, Health, Instance, Labels, Locality, Registry,
    Service, ServiceEndpoints, ServiceKey, Snapshot, Str, Workload, WorkloadIndex,
};
use lateen_resources::{Body, Kind, Object, ObjectSet, names};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

pub use lateen_resources::ObjectKey as ObjectChange;

/// How endpoints are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Services with a selector and without slices are served by the pods they
    /// select. For sources without an endpoint controller (folders of YAML).
    pub from_pods: bool,
}

/// Keeps the endpoint table.
#[derive(Debug)]
pub struct EndpointCompiler {
    options: EndpointOptions,
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<(String, String), BTreeSet<String>>,
    slice_owner: HashMap<(String, String), String>,
    nodes: HashMap<String, Locality>,
    table: Arc<EndpointTable>,
    last_snapshot: Option<Arc<Snapshot>>,
}

impl EndpointCompiler {
    /// An empty table.
    pub fn new(options: EndpointOptions) -> Self {
        Self {
            options,
            services: HashMap::new(),
            slices: HashMap::new(),
            slice_owner: HashMap::new(),
            nodes: HashMap::new(),
            table: Arc::default(),
            last_snapshot: None,
        }
    }

    /// The table as of the last update.
    pub fn table(&self) -> Arc<EndpointTable> {
        self.table.clone()
    }

    /// Reads everything anew; the services whose endpoints changed.
    pub fn rebuild(
        &mut self,
        objects: &ObjectSet,
        snapshot: &Arc<Snapshot>,
    ) -> BTreeSet<ServiceKey> {
        self.slices.clear();
        self.slice_owner.clear();
        self.nodes = objects
            .of(Kind::Node)
            .map(|n| (n.meta.name.clone(), workload::node_locality(&n.meta)))
            .collect();
        for slice in objects.of(Kind::EndpointSlice) {
            self.note_slice(&slice.meta.namespace, &slice.meta.name, Some(slice));
        }
        let index = WorkloadIndex::new(
            objects
                .of(Kind::WorkloadEntry)
                .chain(objects.of(Kind::Pod))
                .filter_map(|o| self.workload(o).map(Arc::new)),
        );
        Arc::make_mut(&mut self.table).workloads = Arc::new(index);
        self.services.clear();
        self.last_snapshot = None;
        self.update(objects, snapshot, &[])
    }

    /// Follows changes of objects and of the snapshot; the services whose
    /// endpoints changed. `changes` name what differs in `objects` since the
    /// last call.
    pub fn update(
        &mut self,
        objects: &ObjectSet,
        snapshot: &Arc<Snapshot>,
        changes: &[ObjectChange],
    ) -> BTreeSet<ServiceKey> {
        if changes
            .iter()
            .any(|c| c.kind == Kind::Node && self.node_moved(objects, c))
        {
            return self.rebuild(objects, snapshot);
        }
        let mut dirty = BTreeSet::new();
        self.sync_services(snapshot, &mut dirty);
        for change in changes {
            match change.kind {
                Kind::Pod | Kind::WorkloadEntry => {
                    self.workload_changed(objects, snapshot, change, &mut dirty);
                }
                Kind::EndpointSlice => {
                    let (ns, name) = (&change.namespace, &change.name);
                    let before = self.slice_owner.get(&(ns.clone(), name.clone())).cloned();
                    let object = objects.get(Kind::EndpointSlice, ns, name);
                    self.note_slice(ns, name, object);
                    let after = self.slice_owner.get(&(ns.clone(), name.clone())).cloned();
                    for service in before.iter().chain(&after) {
                        dirty.extend(self.kubernetes_key(snapshot, ns, service));
                    }
                }
                Kind::Endpoints => {
                    dirty.extend(self.kubernetes_key(snapshot, &change.namespace, &change.name));
                }
                // Listed endpoints may change while the service they make stays the same.
                Kind::ServiceEntry => {
                    let of_entry = self.services.values().filter(|s| {
                        s.registry == Registry::External
                            && *s.namespace == *change.namespace
                            && *s.name == *change.name
                    });
                    dirty.extend(of_entry.map(|s| s.key()));
                }
                _ => {}
            }
        }
        dirty.retain(|key| self.recompute(objects, key));
        dirty
    }

    fn node_moved(&self, objects: &ObjectSet, change: &ObjectChange) -> bool {
        let now = objects
            .get(Kind::Node, "", &change.name)
            .map(|n| workload::node_locality(&n.meta));
        self.nodes.get(&change.name) != now.as_ref()
    }

    fn locality(&self, node: &str) -> Locality {
        self.nodes.get(node).cloned().unwrap_or_default()
    }

    fn workload(&self, object: &Object) -> Option<Workload> {
        match &object.body {
            Body::Pod(pod) => Some(workload::from_pod(object, pod, |n| self.locality(n))),
            Body::WorkloadEntry(entry) => Some(workload::from_entry(&object.meta, entry)),
            _ => None,
        }
    }

    /// Services that came, changed or went with a new snapshot.
    fn sync_services(&mut self, snapshot: &Arc<Snapshot>, dirty: &mut BTreeSet<ServiceKey>) {
        if self
            .last_snapshot
            .as_ref()
            .is_some_and(|s| Arc::ptr_eq(s, snapshot))
        {
            return;
        }
        self.last_snapshot = Some(snapshot.clone());
        let mut now = HashMap::with_capacity(snapshot.services().len());
        for service in snapshot.services() {
            let key = service.key();
            if self
                .services
                .get(&key)
                .is_none_or(|old| !Arc::ptr_eq(old, service))
            {
                dirty.insert(key.clone());
            }
            // Of several declarations in one namespace the oldest counts.
            now.entry(key).or_insert_with(|| service.clone());
        }
        let gone = self.services.keys().chain(self.table.services.keys());
        dirty.extend(gone.filter(|k| !now.contains_key(*k)).cloned());
        self.services = now;
    }

    fn note_slice(&mut self, namespace: &str, name: &str, slice: Option<&Arc<Object>>) {
        let id = (namespace.to_owned(), name.to_owned());
        let owner = slice.and_then(|s| {
            let label = s.meta.labels.get(names::SLICE_SERVICE_LABEL).cloned();
            label.or_else(|| {
                let owner = s.meta.owner_references.iter().find(|o| o.kind == "Service");
                owner.map(|o| o.name.clone())
            })
        });
        if let Some(before) = self.slice_owner.remove(&id) {
            let service = (namespace.to_owned(), before);
            if let Some(set) = self.slices.get_mut(&service) {
                set.remove(name);
                if set.is_empty() {
                    self.slices.remove(&service);
                }
            }
        }
        if let Some(owner) = owner {
            self.slices
                .entry((namespace.to_owned(), owner.clone()))
                .or_default()
                .insert(name.to_owned());
            self.slice_owner.insert(id, owner);
        }
    }

    fn kubernetes_key(
        &self,
        snapshot: &Snapshot,
        namespace: &str,
        name: &str,
    ) -> Option<ServiceKey> {
        Some(ServiceKey {
            hostname: crate::service::hostname(name, namespace, &snapshot.mesh),
            namespace: namespace.into(),
        })
    }

    fn workload_changed(
        &mut self,
        objects: &ObjectSet,
        snapshot: &Snapshot,
        change: &ObjectChange,
        dirty: &mut BTreeSet<ServiceKey>,
    ) {
        let (ns, name) = (&change.namespace, &change.name);
        let now = objects
            .get(change.kind, ns, name)
            .and_then(|o| self.workload(o))
            .map(Arc::new);
        let before = self.table.workloads.named(ns, name).cloned();
        if before == now {
            return;
        }
        for w in before.iter().chain(&now) {
            dirty.extend(
                snapshot
                    .services_selecting(ns, &w.labels)
                    .iter()
                    .map(|s| s.key()),
            );
            for ip in &w.ips {
                dirty.extend(
                    self.table
                        .instances_at(*ip)
                        .iter()
                        .map(|i| i.service.clone()),
                );
            }
        }
        let index = Arc::make_mut(&mut Arc::make_mut(&mut self.table).workloads);
        match now {
            Some(w) => index.insert(w),
            None => {
                index.remove(ns, name);
            }
        }
    }

    /// Computes one service again; true when its endpoints differ from before.
    fn recompute(&mut self, objects: &ObjectSet, key: &ServiceKey) -> bool {
        let now = self
            .services
            .get(key)
            .map(|s| self.endpoints_of(objects, s));
        let now = now.filter(|e| !e.ports.is_empty());
        let before = self.table.services.get(key).cloned();
        if before.as_deref() == now.as_ref() {
            return false;
        }
        let table = Arc::make_mut(&mut self.table);
        if let Some(before) = &before {
            forget_instances(table, key, before);
        }
        match now {
            Some(now) => {
                note_instances(table, key, &now);
                table.services.insert(key.clone(), Arc::new(now));
            }
            None => {
                table.services.remove(key);
            }
        }
        true
    }

    fn endpoints_of(&self, objects: &ObjectSet, service: &Service) -> ServiceEndpoints {
        let mut out = match service.registry {
            Registry::Kubernetes => self.of_service(objects, service),
            Registry::External => self.of_entry(objects, service),
        };
        for list in out.ports.values_mut() {
            list.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
            list.dedup_by(|a, b| a.address == b.address && a.port == b.port);
        }
        out.ports.retain(|_, list| !list.is_empty());
        out
    }
}

/// An endpoint at an address, with the facts of the workload there, if known.
fn endpoint(address: EndpointAddress, port: u16, workload: Option<&Workload>) -> Endpoint {
    let mut out = Endpoint {
        address,
        port,
        labels: Labels::new(),
        locality: Locality::default(),
        node: Str::default(),
        pod: Str::default(),
        workload: Str::default(),
        namespace: Str::default(),
        service_account: Str::default(),
        network: Str::default(),
        weight: 0,
        health: Health::Healthy,
        tls: lateen_model::TlsMode::Disabled,
        canonical_name: Str::default(),
        canonical_revision: Str::default(),
        hostname: Str::default(),
    };
    if let Some(w) = workload {
        out.labels.clone_from(&w.labels);
        out.locality = w.locality.clone();
        out.node = w.node.clone();
        out.pod = w.name.clone();
        out.workload = w.workload.clone();
        out.namespace = w.namespace.clone();
        out.service_account = w.service_account.clone();
        out.network = w.network.clone();
        out.tls = w.tls;
        out.canonical_name = w.canonical_name.clone();
        out.canonical_revision = w.canonical_revision.clone();
        out.hostname = w.hostname.clone();
    }
    out
}

fn instances<'e>(
    key: &'e ServiceKey,
    endpoints: &'e ServiceEndpoints,
) -> impl Iterator<Item = (IpAddr, Instance)> + 'e {
    endpoints.ports.iter().flat_map(move |(port, list)| {
        list.iter().filter_map(move |e| match e.address {
            EndpointAddress::Ip(ip) => Some((
                ip,
                Instance {
                    service: key.clone(),
                    port: *port,
                    target_port: e.port,
                },
            )),
            _ => None,
        })
    })
}

fn forget_instances(table: &mut EndpointTable, key: &ServiceKey, before: &ServiceEndpoints) {
    for (ip, _) in instances(key, before) {
        if let Some(list) = table.by_ip.get_mut(&ip) {
            Arc::make_mut(list).retain(|i| i.service != *key);
            if list.is_empty() {
                table.by_ip.remove(&ip);
            }
        }
    }
}

fn note_instances(table: &mut EndpointTable, key: &ServiceKey, now: &ServiceEndpoints) {
    for (ip, instance) in instances(key, now) {
        let list = Arc::make_mut(table.by_ip.entry(ip).or_default());
        if let Err(at) = list.binary_search(&instance) {
            list.insert(at, instance);
        }
    }
}
