//! Pods and WorkloadEntries to workloads.

use crate::name;
use lateen_model::{Labels, Locality, Str, TlsMode, Workload};
use lateen_resources::kubernetes::Pod;
use lateen_resources::{Object, ObjectMeta, istio, names};

/// Converts a Pod; `node` gives the locality of a node.
pub fn from_pod(object: &Object, pod: &Pod, node: impl Fn(&str) -> Locality) -> Workload {
    let meta = &object.meta;
    let labels = name::labels(&meta.labels);
    let (workload, workload_kind) = owner(meta);
    let status = &pod.status;
    let mut ips = Vec::new();
    let written = std::iter::once(&status.pod_ip).chain(status.pod_ips.iter().map(|p| &p.ip));
    for ip in written.filter_map(|ip| ip.parse().ok()) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
        // Its address may belong to another pod already.
        ips.clear();
    }
    let spec = &pod.spec;
    let account = if spec.service_account_name.is_empty() {
        "default"
    } else {
        &spec.service_account_name
    };
    let ports = spec
        .init_containers
        .iter()
        .chain(&spec.containers)
        .flat_map(|c| &c.ports);
    let ready = status
        .conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
        || (status.conditions.is_empty() && matches!(status.phase.as_str(), "Running" | ""));
    Workload {
        name: meta.name.as_str().into(),
        namespace: meta.namespace.as_str().into(),
        ips,
        service_account: account.into(),
        node: spec.node_name.as_str().into(),
        locality: label_locality(&labels).unwrap_or_else(|| node(&spec.node_name)),
        network: label(&labels, names::NETWORK_LABEL).unwrap_or_default(),
        canonical_name: canonical_name(&labels, &workload),
        canonical_revision: canonical_revision(&labels),
        tls: tls_mode(&labels),
        named_ports: ports
            .filter(|p| !p.name.is_empty())
            .filter_map(|p| {
                Some((
                    p.name.as_str().into(),
                    u16::try_from(p.container_port).ok()?,
                ))
            })
            .collect(),
        hostname: spec.hostname.as_str().into(),
        host_network: spec.host_network,
        ready: ready && !meta.deleting(),
        workload: workload.as_str().into(),
        workload_kind: workload_kind.into(),
        labels,
    }
}

/// Converts a WorkloadEntry; its name is the object's.
pub fn from_entry(meta: &ObjectMeta, entry: &istio::WorkloadEntry) -> Workload {
    // Labels of the entry and of the object both select (the entry's win).
    let mut labels = name::labels(&meta.labels);
    labels.extend(name::labels(&entry.labels));
    Workload {
        name: meta.name.as_str().into(),
        namespace: meta.namespace.as_str().into(),
        ips: entry.address.parse().into_iter().collect(),
        service_account: entry.service_account.as_str().into(),
        node: "".into(),
        locality: Locality::parse(&entry.locality),
        network: entry.network.as_str().into(),
        canonical_name: canonical_name(&labels, &meta.name),
        canonical_revision: canonical_revision(&labels),
        tls: tls_mode(&labels),
        named_ports: entry
            .ports
            .iter()
            .filter_map(|(k, v)| Some((k.as_str().into(), u16::try_from(*v).ok()?)))
            .collect(),
        hostname: "".into(),
        host_network: false,
        ready: true,
        workload: meta.name.as_str().into(),
        workload_kind: "workloadentry".into(),
        labels,
    }
}

fn label(labels: &Labels, key: &str) -> Option<Str> {
    labels.get(key).filter(|v| !v.is_empty()).cloned()
}

/// `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, then the workload's name.
pub fn canonical_name(labels: &Labels, workload: &str) -> Str {
    [names::CANONICAL_NAME_LABEL, "app.kubernetes.io/name", "app"]
        .iter()
        .find_map(|k| label(labels, k))
        .unwrap_or_else(|| workload.into())
}

/// `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`, then `latest`.
pub fn canonical_revision(labels: &Labels) -> Str {
    [
        names::CANONICAL_REVISION_LABEL,
        "app.kubernetes.io/version",
        "version",
    ]
    .iter()
    .find_map(|k| label(labels, k))
    .unwrap_or_else(|| "latest".into())
}

/// Mesh TLS when the label says `istio`.
pub fn tls_mode(labels: &Labels) -> TlsMode {
    match labels.get(names::TLS_MODE_LABEL).map(|v| &**v) {
        Some("istio") => TlsMode::Istio,
        _ => TlsMode::Disabled,
    }
}

/// Locality by label: `region.zone.subzone`, or with slashes.
pub fn label_locality(labels: &Labels) -> Option<Locality> {
    let text = label(labels, names::LOCALITY_LABEL)?;
    Some(if text.contains('/') {
        Locality::parse(&text)
    } else {
        Locality::parse(&text.replace('.', "/"))
    })
}

/// Locality of a node by its labels, newer names first.
pub fn node_locality(meta: &ObjectMeta) -> Locality {
    let get = |keys: &[&str]| {
        keys.iter()
            .find_map(|k| meta.labels.get(*k))
            .map_or("", String::as_str)
            .into()
    };
    Locality {
        region: get(&[names::REGION_LABEL, names::REGION_LABEL_BETA]),
        zone: get(&[names::ZONE_LABEL, names::ZONE_LABEL_BETA]),
        sub_zone: get(&[names::SUBZONE_LABEL]),
    }
}

/// Name and lower-case kind of the workload that made a pod. A ReplicaSet named
/// after the pod's template hash belongs to a Deployment of the rest of its name.
pub fn owner(meta: &ObjectMeta) -> (String, String) {
    let Some(owner) = meta.controller().or_else(|| meta.owner_references.first()) else {
        let name = if meta.name.is_empty() {
            &meta.generate_name
        } else {
            &meta.name
        };
        return (name.trim_end_matches('-').to_owned(), "pod".into());
    };
    if owner.kind == "ReplicaSet"
        && let Some(hash) = meta.labels.get("pod-template-hash")
        && let Some(name) = owner.name.strip_suffix(hash.as_str())
        && let Some(name) = name.strip_suffix('-')
    {
        return (name.to_owned(), "deployment".into());
    }
    (owner.name.clone(), owner.kind.to_lowercase())
}
