//! What objects get wrong about each other: Istio's analyzers, each a pure
//! function of the same facts. Used by `lateen analyze` and the control plane.

mod destination_rule;
mod gateway;
mod namespace;
mod service;
mod unreachable;
mod virtual_service;
mod workload;

use crate::{Compiler, name};
use lateen_model::{EndpointTable, Labels, MeshConfig, Service, ServiceKey, Snapshot, host};
use lateen_resources::kubernetes::PodSpec;
use lateen_resources::{Body, Code, Diagnostic, Kind, Object, ObjectSet, names};
use std::collections::HashMap;
use std::sync::Arc;

/// Findings about all objects, with Istio's default mesh settings: about each
/// alone, and about how they fit. Worst first, then by code and object.
pub fn analyze(objects: &ObjectSet) -> Vec<Diagnostic> {
    analyze_with(objects, MeshConfig::default())
}

/// [`analyze`] with mesh settings.
pub fn analyze_with(objects: &ObjectSet, mesh: MeshConfig) -> Vec<Diagnostic> {
    let compiled = Compiler::new(mesh).compile(objects);
    let mut endpoints = crate::EndpointCompiler::new(crate::EndpointOptions { from_pods: true });
    endpoints.rebuild(objects, &compiled.snapshot);
    let facts = Facts::new(objects, compiled.snapshot, endpoints.table());
    let mut found = compiled.diagnostics;
    for run in [
        virtual_service::references,
        virtual_service::conflicts,
        unreachable::rules,
        destination_rule::subsets,
        gateway::gateways,
        workload::workloads,
        namespace::namespaces,
        service::port_names,
    ] {
        run(&facts, &mut found);
    }
    found.retain(|d| !is_suppressed(objects, d));
    found.sort_by(|a, b| {
        let key = |d: &Diagnostic| {
            (
                std::cmp::Reverse(d.severity),
                d.code.id,
                d.object.clone(),
                d.field.clone(),
            )
        };
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    found.dedup();
    found
}

/// Namespaces of the platform: nobody expects them in the mesh.
const SYSTEM_NAMESPACES: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

fn is_system(namespace: &str) -> bool {
    SYSTEM_NAMESPACES.contains(&namespace)
}

/// A pod, or the template of a controller.
#[derive(Debug, Clone, Copy)]
struct Workload<'o> {
    object: &'o Object,
    labels: &'o std::collections::BTreeMap<String, String>,
    annotations: &'o std::collections::BTreeMap<String, String>,
    spec: &'o PodSpec,
}

impl Workload<'_> {
    fn is_pod(&self) -> bool {
        self.object.kind == Kind::Pod
    }

    /// Field path of the pod spec inside the object.
    fn spec_path(&self) -> &'static str {
        if self.is_pod() {
            "spec"
        } else {
            "spec.template.spec"
        }
    }
}

/// What the analyzers look at.
struct Facts<'o> {
    objects: &'o ObjectSet,
    snapshot: Arc<Snapshot>,
    endpoints: Arc<EndpointTable>,
    workloads: Vec<Workload<'o>>,
    labels: Vec<Labels>,
    /// Indexes of workloads by the service that selects them.
    by_service: HashMap<ServiceKey, Vec<usize>>,
    wildcard_services: Vec<Arc<Service>>,
}

impl<'o> Facts<'o> {
    fn new(objects: &'o ObjectSet, snapshot: Arc<Snapshot>, endpoints: Arc<EndpointTable>) -> Self {
        let workloads: Vec<Workload<'o>> = workloads(objects).collect();
        let labels: Vec<Labels> = workloads.iter().map(|w| name::labels(w.labels)).collect();
        let mut by_service: HashMap<ServiceKey, Vec<usize>> = HashMap::new();
        for (i, w) in workloads.iter().enumerate() {
            for s in snapshot.services_selecting(&w.object.meta.namespace, &labels[i]) {
                by_service.entry(s.key()).or_default().push(i);
            }
        }
        let wildcard_services = snapshot
            .services()
            .iter()
            .filter(|s| s.is_wildcard())
            .cloned()
            .collect();
        Self {
            objects,
            snapshot,
            endpoints,
            workloads,
            labels,
            by_service,
            wildcard_services,
        }
    }

    /// The service a host means to objects of a namespace; a wildcard one too.
    fn service(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.snapshot.service_for(hostname, namespace).or_else(|| {
            self.wildcard_services
                .iter()
                .find(|s| s.export_to.visible_in(namespace) && host::covers(&s.hostname, hostname))
        })
    }

    fn full_host(&self, written: &str, namespace: &str) -> lateen_model::Str {
        name::full_host(written, namespace, &self.snapshot.mesh.cluster_domain)
    }

    /// True when injection is on for a namespace by its labels.
    fn is_injected(&self, namespace: &str) -> bool {
        let labels = self
            .objects
            .get(Kind::Namespace, "", namespace)
            .map(|n| &n.meta.labels);
        labels.is_some_and(|l| match l.get(names::INJECTION_LABEL) {
            Some(v) => v == "enabled",
            None => l.contains_key(names::REVISION_LABEL),
        })
    }
}

fn workloads(objects: &ObjectSet) -> impl Iterator<Item = Workload<'_>> {
    const KINDS: [Kind; 5] = [
        Kind::Pod,
        Kind::Deployment,
        Kind::ReplicaSet,
        Kind::StatefulSet,
        Kind::DaemonSet,
    ];
    KINDS
        .iter()
        .flat_map(|k| objects.of(*k))
        .filter_map(|object| match &object.body {
            Body::Pod(p) => Some(Workload {
                object,
                labels: &object.meta.labels,
                annotations: &object.meta.annotations,
                spec: &p.spec,
            }),
            // A Deployment's own ReplicaSets would only repeat it.
            Body::Controller(_) if object.meta.controller().is_some() => None,
            Body::Controller(c) => Some(Workload {
                object,
                labels: &c.spec.template.metadata.labels,
                annotations: &c.spec.template.metadata.annotations,
                spec: &c.spec.template.spec,
            }),
            _ => None,
        })
}

/// A finding about an object at a field.
fn finding(code: Code, object: &Object, field: &str, message: String) -> Diagnostic {
    Diagnostic::new(code, Some(object.reference()), message)
        .at(field)
        .source(object.source(field))
}

/// The object's own wish not to hear a code.
fn is_suppressed(objects: &ObjectSet, d: &Diagnostic) -> bool {
    let Some(reference) = &d.object else {
        return false;
    };
    let kind = lateen_resources::kind::KINDS
        .iter()
        .find(|k| k.name == reference.kind);
    let object = kind.and_then(|k| objects.get(k.kind, &reference.namespace, &reference.name));
    let wish = object.and_then(|o| o.meta.annotations.get(names::SUPPRESS_ANNOTATION));
    wish.is_some_and(|w| {
        w.split(',')
            .any(|c| c.trim() == "*" || c.trim() == d.code.id)
    })
}

/// Go's form of a list, which Istio's messages have: `[a b]`.
fn go_list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    format!("[{}]", words.join(" "))
}
