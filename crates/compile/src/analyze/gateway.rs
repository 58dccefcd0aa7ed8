//! IST0101 for selectors of gateways, IST0162 for their ports.

use super::{Facts, finding};
use lateen_model::service::TargetPort;
use lateen_resources::{Body, Code, Diagnostic, Kind};
use std::collections::BTreeSet;

/// Gateways without workload, and ports that no Service of the workload has.
pub fn gateways(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    // Without any workload (files of routes only) a selector cannot be judged.
    if facts.workloads.is_empty() {
        return;
    }
    for object in facts.objects.of(Kind::Gateway) {
        let Body::Gateway(gateway) = &object.body else {
            continue;
        };
        let selector = crate::name::selector(&gateway.selector);
        if selector.is_empty() {
            continue;
        }
        let chosen: Vec<usize> = (0..facts.workloads.len())
            .filter(|w| selector.matches(&facts.labels[*w]))
            .collect();
        let pairs: Vec<String> = gateway
            .selector
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        if chosen.is_empty() {
            let message = format!("Referenced selector not found: \"{}\"", pairs.join(","));
            let remedy =
                "no pod carries these labels: start a gateway with them, or correct spec.selector";
            out.push(finding(Code::NOT_FOUND, object, "spec.selector", message).remedy(remedy));
            continue;
        }
        let open = service_ports(facts, &chosen);
        if open.is_empty() {
            continue;
        }
        for (i, server) in gateway.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            if open.contains(&port.number) {
                continue;
            }
            let message = format!(
                "The gateway is listening on a target port (port {}) that is not defined in the \
                 Service associated with its workload instances (Pod selector {}). If you need to \
                 access the gateway port through the gateway Service, it will not be available.",
                port.number,
                pairs.join(","),
            );
            let field = format!("spec.servers[{i}].port.number");
            let remedy = format!("add port {} to the gateway's Service", port.number);
            out.push(finding(Code::GATEWAY_PORT, object, &field, message).remedy(remedy));
        }
    }
}

/// Ports and target ports of the Services in front of some workloads.
fn service_ports(facts: &Facts<'_>, workloads: &[usize]) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    for w in workloads {
        let namespace = &facts.workloads[*w].object.meta.namespace;
        for service in facts
            .snapshot
            .services_selecting(namespace, &facts.labels[*w])
        {
            for port in &service.ports {
                out.insert(u32::from(port.number));
                if let TargetPort::Number(n) = port.target {
                    out.insert(u32::from(n));
                }
            }
        }
    }
    out
}
