//! IST0103, IST0116 and IST0144: pods, and the controllers that make them.

use super::{Facts, Workload, finding, go_list, is_system};
use crate::endpoint;
use lateen_model::{Protocol, Service};
use lateen_resources::{Body, Code, Diagnostic, names};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Everything about workloads. Pods of one controller are told once, and not
/// at all where the controller itself is looked at. The mesh's own workloads
/// run as the proxy's user on purpose and are left out.
pub fn workloads(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    type Group = (String, String);
    let controllers = facts.workloads.iter().filter(|w| !w.is_pod());
    let mut told: HashSet<Group> = controllers
        .map(|w| (w.object.meta.namespace.clone(), w.object.meta.name.clone()))
        .collect();
    for (i, w) in facts.workloads.iter().enumerate() {
        let meta = &w.object.meta;
        let of_mesh = *meta.namespace == *facts.snapshot.mesh.root_namespace;
        if of_mesh || is_system(&meta.namespace) {
            continue;
        }
        missing_proxy(facts, w, out);
        let name = if w.is_pod() {
            crate::workload::owner(meta).0
        } else {
            meta.name.clone()
        };
        if !w.is_pod() || told.insert((meta.namespace.clone(), name.clone())) {
            proxy_uid(w, out);
            port_protocols(facts, i, &name, out);
        }
    }
}

fn has_proxy(w: &Workload<'_>) -> bool {
    let all = w.spec.containers.iter().chain(&w.spec.init_containers);
    all.into_iter().any(|c| c.name == names::PROXY_CONTAINER)
}

fn missing_proxy(facts: &Facts<'_>, w: &Workload<'_>, out: &mut Vec<Diagnostic>) {
    let Body::Pod(pod) = &w.object.body else {
        return;
    };
    let refused = [
        w.labels.get(names::SIDECAR_INJECT),
        w.annotations.get(names::SIDECAR_INJECT),
    ]
    .into_iter()
    .flatten()
    .any(|v| v == "false");
    let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    if has_proxy(w)
        || refused
        || ended
        || w.spec.host_network
        || !facts.is_injected(&w.object.meta.namespace)
    {
        return;
    }
    let message = format!(
        "The pod {} is missing the Istio proxy. This can often be resolved by restarting or \
         redeploying the workload.",
        w.object.meta.name
    );
    out.push(finding(Code::POD_MISSING_PROXY, w.object, "", message));
}

fn proxy_uid(w: &Workload<'_>, out: &mut Vec<Diagnostic>) {
    let is_proxy_uid = |s: &Option<lateen_resources::kubernetes::SecurityContext>| {
        s.as_ref()
            .and_then(|s| s.run_as_user)
            .map(|u| u == names::PROXY_UID)
    };
    let whole = is_proxy_uid(&w.spec.security_context).unwrap_or(false);
    for (i, c) in w.spec.containers.iter().enumerate() {
        let ours = c.name == names::PROXY_CONTAINER || c.name == "istio-init";
        // A container's own setting wins over the pod's.
        let own = is_proxy_uid(&c.security_context);
        if ours || !own.unwrap_or(whole) {
            continue;
        }
        let field = match own {
            Some(_) => format!(
                "{}.containers[{i}].securityContext.runAsUser",
                w.spec_path()
            ),
            None => format!("{}.securityContext.runAsUser", w.spec_path()),
        };
        let message = "User ID (UID) 1337 is reserved for the sidecar proxy.".to_owned();
        let remedy = "its traffic would bypass the sidecar: run the application as another user";
        out.push(finding(Code::PROXY_UID, w.object, &field, message).remedy(remedy));
    }
}

/// Services of different protocols on one port of a workload.
fn port_protocols(facts: &Facts<'_>, index: usize, name: &str, out: &mut Vec<Diagnostic>) {
    let w = &facts.workloads[index];
    let namespace = &w.object.meta.namespace;
    let services = facts
        .snapshot
        .services_selecting(namespace, &facts.labels[index]);
    if services.len() < 2 {
        return;
    }
    let model = Body::Pod(Box::new(lateen_resources::kubernetes::Pod {
        spec: w.spec.clone(),
        status: lateen_resources::kubernetes::PodStatus::default(),
    }));
    let Body::Pod(pod) = &model else { return };
    let workload = crate::workload::from_pod(w.object, pod, |_| lateen_model::Locality::default());
    let mut by_port: BTreeMap<u16, (BTreeSet<Protocol>, Vec<&Arc<Service>>)> = BTreeMap::new();
    for service in services {
        for port in &service.ports {
            let Some(number) = endpoint::target_port(port, &workload) else {
                continue;
            };
            let (protocols, services) = by_port.entry(number).or_default();
            protocols.insert(port.protocol);
            services.push(service);
        }
    }
    for (port, (protocols, services)) in by_port.iter().filter(|(_, (p, _))| p.len() > 1) {
        let names: BTreeSet<&str> = services.iter().map(|s| &*s.name).collect();
        if names.len() < 2 {
            continue;
        }
        let message = format!(
            "This deployment {name} is associated with multiple services using port {port} but \
             different protocols: {}",
            go_list(names),
        );
        let spoken: Vec<&str> = protocols.iter().map(|p| p.as_str()).collect();
        let remedy = format!(
            "let the services agree on one protocol; now: {}",
            spoken.join(", ")
        );
        out.push(finding(Code::MULTIPLE_SERVICES, w.object, "", message).remedy(remedy));
    }
}
