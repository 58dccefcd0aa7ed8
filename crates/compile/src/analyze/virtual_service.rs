//! IST0101, IST0109, IST0112, IST0132: what virtual services refer to.

use super::{Facts, finding, go_list};
use crate::name;
use lateen_model::route::MESH_GATEWAY;
use lateen_model::{ExportTo, Str, VirtualService, host};
use lateen_resources::istio::{self, Destination};
use lateen_resources::{Body, Code, Diagnostic, Kind, Object};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Destinations, subsets, ports and gateways that are not there.
pub fn references(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    for object in facts.objects.of(Kind::VirtualService) {
        let Body::VirtualService(vs) = &object.body else {
            continue;
        };
        for (field, d) in destinations(vs) {
            destination(facts, object, &field, d, out);
        }
        gateways(facts, object, vs, out);
    }
}

/// Every destination with its field path.
fn destinations(vs: &istio::VirtualService) -> Vec<(String, &Destination)> {
    let mut out = Vec::new();
    for (i, rule) in vs.http.iter().enumerate() {
        for (j, d) in rule.route.iter().enumerate() {
            let d = d.destination.as_ref();
            out.extend(d.map(|d| (format!("spec.http[{i}].route[{j}].destination"), d)));
        }
        out.extend(
            rule.mirror
                .as_ref()
                .map(|d| (format!("spec.http[{i}].mirror"), d)),
        );
        for (j, m) in rule.mirrors.iter().enumerate() {
            let d = m.destination.as_ref();
            out.extend(d.map(|d| (format!("spec.http[{i}].mirrors[{j}].destination"), d)));
        }
    }
    let l4 = |kind: &str, i: usize, route: &'_ [istio::RouteDestination]| -> Vec<(String, usize)> {
        let field = |j| format!("spec.{kind}[{i}].route[{j}].destination");
        (0..route.len()).map(|j| (field(j), j)).collect()
    };
    for (i, rule) in vs.tcp.iter().enumerate() {
        for (field, j) in l4("tcp", i, &rule.route) {
            out.extend(rule.route[j].destination.as_ref().map(|d| (field, d)));
        }
    }
    for (i, rule) in vs.tls.iter().enumerate() {
        for (field, j) in l4("tls", i, &rule.route) {
            out.extend(rule.route[j].destination.as_ref().map(|d| (field, d)));
        }
    }
    out
}

fn destination(
    facts: &Facts<'_>,
    object: &Object,
    field: &str,
    d: &Destination,
    out: &mut Vec<Diagnostic>,
) {
    let namespace = &object.meta.namespace;
    let full = facts.full_host(&d.host, namespace);
    let Some(service) = facts.service(&full, namespace) else {
        let field = format!("{field}.host");
        let message = format!("Referenced host not found: \"{}\"", d.host);
        let remedy = format!(
            "no service {full} is visible in namespace {namespace}: add a Service or a ServiceEntry, or correct the name"
        );
        out.push(finding(Code::NOT_FOUND, object, &field, message).remedy(remedy));
        return;
    };
    if !d.subset.is_empty() && !has_subset(facts, &full, namespace, &service.namespace, &d.subset) {
        let field = format!("{field}.subset");
        let message = format!(
            "Referenced host+subset in destinationrule not found: \"{}+{}\"",
            d.host, d.subset
        );
        let remedy = format!(
            "add subset {} to a DestinationRule of host {full}",
            d.subset
        );
        out.push(finding(Code::NOT_FOUND, object, &field, message).remedy(remedy));
    }
    let ports: Vec<u16> = service.ports.iter().map(|p| p.number).collect();
    if d.port.is_none() && ports.len() > 1 {
        let message = format!(
            "This VirtualService routes to a service \"{full}\" that exposes multiple ports {}. \
             Specifying a port in the destination is required to disambiguate.",
            go_list(&ports)
        );
        let remedy = "add port.number to the destination";
        out.push(finding(Code::DESTINATION_PORT_REQUIRED, object, field, message).remedy(remedy));
    }
}

/// A subset of this name in some rule of the host that clients could meet.
fn has_subset(facts: &Facts<'_>, full: &str, client: &str, service: &Str, subset: &str) -> bool {
    let root = &facts.snapshot.mesh.root_namespace;
    facts.snapshot.rules_of_host(full).any(|r| {
        let here = *r.namespace == *client || r.namespace == *service || r.namespace == *root;
        here && r.export_to.visible_in(client) && r.subset(subset).is_some()
    })
}

fn gateways(
    facts: &Facts<'_>,
    object: &Object,
    vs: &istio::VirtualService,
    out: &mut Vec<Diagnostic>,
) {
    let namespace = &object.meta.namespace;
    for (i, written) in vs
        .gateways
        .iter()
        .enumerate()
        .filter(|(_, g)| *g != MESH_GATEWAY)
    {
        let field = format!("spec.gateways[{i}]");
        let full = name::full_gateway(written, namespace);
        let (gateway_ns, gateway_name) = full.split_once('/').unwrap_or((namespace, written));
        let gateway = facts.objects.get(Kind::Gateway, gateway_ns, gateway_name);
        let Some(Body::Gateway(gateway)) = gateway.map(|g| &g.body) else {
            let message = format!("Referenced gateway not found: \"{written}\"");
            let remedy = format!("add Gateway {full}, or correct the reference");
            out.push(finding(Code::NOT_FOUND, object, &field, message).remedy(remedy));
            continue;
        };
        let hosts = gateway.servers.iter().flat_map(|s| &s.hosts);
        let admitted = hosts.map(|h| crate::gateway::server_host(h, gateway_ns));
        let mine: Vec<_> = admitted
            .filter(|h| h.namespace.as_deref().is_none_or(|n| n == namespace))
            .collect();
        let domain = &facts.snapshot.mesh.cluster_domain;
        let served = vs.hosts.iter().any(|written| {
            let full = name::full_host(written, namespace, domain);
            mine.iter().any(|h| {
                let gateway_host = name::full_host(&h.host, gateway_ns, domain);
                host::overlaps(&gateway_host, &full)
            })
        });
        if !served && !vs.hosts.is_empty() {
            let message = format!(
                "one or more host {} defined in VirtualService {namespace}/{} not found in Gateway {full}.",
                go_list(&vs.hosts),
                object.meta.name,
            );
            let remedy = "make a host of the Gateway's servers cover a host of the virtual service";
            out.push(
                finding(Code::HOST_NOT_IN_GATEWAY, object, "spec.hosts", message).remedy(remedy),
            );
        }
    }
}

/// Several virtual services of one host on the mesh: only one takes effect.
pub fn conflicts(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    let mut by_host: BTreeMap<&Str, Vec<&Arc<VirtualService>>> = BTreeMap::new();
    for vs in facts.snapshot.virtual_services() {
        if vs.gateways.iter().any(|g| &**g == MESH_GATEWAY) {
            for host in &vs.hosts {
                by_host.entry(host).or_default().push(vs);
            }
        }
    }
    for (host, group) in by_host.iter().filter(|(_, g)| g.len() > 1) {
        let clashing: Vec<_> = group
            .iter()
            .filter(|a| {
                group
                    .iter()
                    .any(|b| !Arc::ptr_eq(a, b) && overlap(&a.export_to, &b.export_to))
            })
            .collect();
        let names: BTreeSet<String> = clashing
            .iter()
            .map(|v| format!("{}/{}", v.namespace, v.name))
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        for vs in clashing {
            let object = facts
                .objects
                .get(Kind::VirtualService, &vs.namespace, &vs.name);
            let Some(object) = object else { continue };
            let message = format!(
                "The VirtualServices {} associated with mesh gateway define the same host {host} \
                 which can lead to undefined behavior. This can be fixed by merging the \
                 conflicting VirtualServices into a single resource.",
                names.join(","),
            );
            out.push(finding(
                Code::MESH_HOST_CONFLICT,
                object,
                "spec.hosts",
                message,
            ));
        }
    }
}

fn overlap(a: &ExportTo, b: &ExportTo) -> bool {
    match (a, b) {
        (ExportTo::All, ExportTo::All) => true,
        (ExportTo::All, ExportTo::Namespaces(s)) | (ExportTo::Namespaces(s), ExportTo::All) => {
            !s.is_empty()
        }
        (ExportTo::Namespaces(a), ExportTo::Namespaces(b)) => !a.is_disjoint(b),
    }
}
