//! Sidecar.

use super::{Findings, text};
use crate::istio::{CaptureMode, IstioEgressListener, IstioIngressListener, Sidecar};
use std::collections::HashSet;

/// Checks a sidecar.
pub fn check(sidecar: &Sidecar, f: &mut Findings<'_>) {
    if let Some(s) = &sidecar.workload_selector {
        f.labels("spec.workloadSelector.labels", &s.labels);
    }
    let mut ports = HashSet::new();
    for (i, l) in sidecar.ingress.iter().enumerate() {
        ingress(l, &format!("spec.ingress[{i}]"), &mut ports, f);
    }
    let (mut ports, last) = (HashSet::new(), sidecar.egress.len().saturating_sub(1));
    for (i, l) in sidecar.egress.iter().enumerate() {
        egress(l, i == last, &format!("spec.egress[{i}]"), &mut ports, f);
    }
}

fn ingress(l: &IstioIngressListener, path: &str, ports: &mut HashSet<u32>, f: &mut Findings<'_>) {
    let Some(port) = &l.port else {
        f.error(
            &format!("{path}.port"),
            "port is required for ingress listeners",
            "use port with number, protocol and name",
        );
        return;
    };
    f.port(&format!("{path}.port.number"), port.number);
    if !ports.insert(port.number) {
        f.error(
            &format!("{path}.port.number"),
            &format!("port {} is there twice", port.number),
            "use another port, or one listener for both",
        );
    }
    let endpoint = &l.default_endpoint;
    let allowed = ["127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:"];
    let by_port = allowed.iter().find_map(|p| endpoint.strip_prefix(p));
    let valid = endpoint.is_empty()
        || endpoint
            .strip_prefix("unix://")
            .is_some_and(|p| !p.is_empty())
        || by_port.is_some_and(|n| n.parse::<u16>().is_ok_and(|n| n > 0));
    if !valid {
        f.error(
            &format!("{path}.defaultEndpoint"),
            &format!("{endpoint:?} is not valid"),
            "use 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT or unix:///path",
        );
    }
}

fn egress(
    l: &IstioEgressListener,
    last: bool,
    path: &str,
    ports: &mut HashSet<(u32, String)>,
    f: &mut Findings<'_>,
) {
    match l.port.as_ref().filter(|p| p.number > 0) {
        None if !last => f.error(
            path,
            "an egress listener without port must be the last one",
            "use it as the last of spec.egress, or give it a port",
        ),
        None if l.capture_mode == CaptureMode::None => {
            f.error(
                path,
                "captureMode NONE needs a port",
                "use port with number, protocol and name",
            );
        }
        None => {}
        Some(port) => {
            f.port(&format!("{path}.port.number"), port.number);
            if !ports.insert((port.number, l.bind.clone())) {
                f.error(
                    &format!("{path}.port.number"),
                    &format!("port {} is there twice", port.number),
                    "use another port, or one listener for both",
                );
            }
        }
    }
    if l.hosts.is_empty() {
        f.error(
            &format!("{path}.hosts"),
            "egress listener must contain at least one host",
            "use \"*/*\" for every host",
        );
    }
    for (i, host) in l.hosts.iter().enumerate() {
        let field = format!("{path}.hosts[{i}]");
        let Some((ns, dns)) = host.split_once('/') else {
            f.error(
                &field,
                &format!("{host:?} is not in namespace/dnsName format"),
                "use \"./host\" or \"*/host\"",
            );
            continue;
        };
        if !matches!(ns, "*" | "." | "~") && !text::is_dns_label(ns) {
            f.error(
                &field,
                &format!("namespace {ns:?} is not valid"),
                "use a namespace, \"*\", \".\" or \"~\"",
            );
        }
        if let Some(problem) = text::host_problem(dns) {
            f.error(&field, &format!("host {dns:?} is not valid: {problem}"), "");
        }
    }
}
