//! ServiceEntry and WorkloadEntry.

use super::{Findings, text};
use crate::istio::{Resolution, ServiceEntry, WorkloadEntry};
use std::net::IpAddr;

/// Checks a service entry.
pub fn check(entry: &ServiceEntry, f: &mut Findings<'_>) {
    hosts(entry, f);
    ports(entry, f);
    f.export_to(&entry.export_to);
    let has_cidr = addresses(entry, f);
    if let Some(s) = &entry.workload_selector {
        f.labels("spec.workloadSelector.labels", &s.labels);
        if s.labels.is_empty() {
            f.error(
                "spec.workloadSelector.labels",
                "the selector is empty",
                "use labels of the workloads, or leave the selector out",
            );
        }
        if !entry.endpoints.is_empty() {
            f.error(
                "spec.endpoints",
                "workloadSelector and endpoints exclude each other",
                "keep one of them",
            );
        }
    }
    for (i, e) in entry.endpoints.iter().enumerate() {
        check_workload(e, &format!("spec.endpoints[{i}]"), f);
        for name in e.ports.keys() {
            if !entry.ports.iter().any(|p| p.name == *name) {
                f.error(
                    &crate::yaml::child(&format!("spec.endpoints[{i}].ports"), name),
                    &format!("endpoint port {name:?} is not a port of the service entry"),
                    "use the name of one of spec.ports",
                );
            }
        }
    }
    resolution(entry, has_cidr, f);
}

fn hosts(entry: &ServiceEntry, f: &mut Findings<'_>) {
    if entry.hosts.is_empty() {
        f.error(
            "spec.hosts",
            "service entry must have at least one host",
            "use the names that clients ask for",
        );
    }
    for (i, host) in entry.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{i}]");
        if host == "*" {
            f.error(
                &field,
                "invalid host *",
                "name a domain, such as *.example.com",
            );
        } else if let Some(problem) = text::host_problem(host) {
            f.error(
                &field,
                &format!("host {host:?} is not valid: {problem}"),
                "",
            );
        }
        if entry.hosts[..i].contains(host) {
            f.error(
                &field,
                &format!("host {host:?} is there twice"),
                "remove one of the two",
            );
        }
    }
}

fn ports(entry: &ServiceEntry, f: &mut Findings<'_>) {
    if entry.ports.is_empty() {
        f.warn("spec.ports", "no ports: nothing is reachable", "add ports");
    }
    for (i, p) in entry.ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        f.port(&format!("{path}.number"), p.number);
        if let Some(t) = p.target_port.filter(|t| *t != 0) {
            f.port(&format!("{path}.targetPort"), t);
        }
        if p.name.is_empty() {
            f.error(
                &format!("{path}.name"),
                "port name must be set",
                "use a name such as http or tcp-db",
            );
        }
        if !p.protocol.is_empty() && !text::is_protocol(&p.protocol) {
            f.error(
                &format!("{path}.protocol"),
                &format!("{:?} is no protocol", p.protocol),
                "use HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS",
            );
        }
        let before = &entry.ports[..i];
        if before.iter().any(|q| q.name == p.name) {
            f.error(
                &format!("{path}.name"),
                &format!("port name {:?} is there twice", p.name),
                "remove one of the two",
            );
        }
        if before.iter().any(|q| q.number == p.number) {
            f.error(
                &format!("{path}.number"),
                &format!("port {} is there twice", p.number),
                "remove one of the two",
            );
        }
    }
}

/// Checks addresses; true when one is a block.
fn addresses(entry: &ServiceEntry, f: &mut Findings<'_>) -> bool {
    let mut has_cidr = false;
    for (i, a) in entry.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{i}]");
        if a.parse::<IpAddr>().is_ok() {
            continue;
        }
        match a.parse::<ipnet::IpNet>() {
            Ok(net) => has_cidr |= net.prefix_len() < net.max_prefix_len(),
            Err(_) => f.error(
                &field,
                &format!("{a:?} is no address or CIDR block"),
                "use an address, or a block such as 10.0.0.0/8",
            ),
        }
    }
    has_cidr
}

fn resolution(entry: &ServiceEntry, has_cidr: bool, f: &mut Findings<'_>) {
    let by_name = matches!(
        entry.resolution,
        Resolution::Dns | Resolution::DnsRoundRobin
    );
    if has_cidr && !matches!(entry.resolution, Resolution::None | Resolution::Static) {
        f.error(
            "spec.addresses",
            "CIDR addresses are allowed only for NONE/STATIC resolution types",
            "use resolution NONE or STATIC, or single addresses",
        );
    }
    match entry.resolution {
        Resolution::None | Resolution::DynamicDns => {
            if !entry.endpoints.is_empty() {
                f.error(
                    "spec.endpoints",
                    "no endpoints should be provided for resolution type NONE",
                    "set resolution: STATIC or DNS",
                );
            }
        }
        Resolution::Static => {
            for (i, e) in entry.endpoints.iter().enumerate() {
                let is_ip = e.address.parse::<IpAddr>().is_ok() || e.address.starts_with("unix://");
                // Without an address the network's gateway is meant.
                let by_network = e.address.is_empty() && !e.network.is_empty();
                if !is_ip && !by_network {
                    f.error(
                        &format!("spec.endpoints[{i}].address"),
                        &format!("{:?} is no address", e.address),
                        "resolution STATIC needs IPs; use DNS for names",
                    );
                }
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {}
    }
    if by_name && entry.endpoints.is_empty() && entry.workload_selector.is_none() {
        for (i, host) in entry
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, h)| !text::is_fqdn(h))
        {
            f.error(
                &format!("spec.hosts[{i}]"),
                &format!("hosts must be FQDN if no endpoints are provided for resolution mode DNS: {host:?}"),
                "add endpoints, or use resolution NONE",
            );
        }
    }
    if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        f.error(
            "spec.endpoints",
            "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN",
            "use resolution: DNS",
        );
    }
}

/// Checks a workload entry at `path`.
pub fn check_workload(w: &WorkloadEntry, path: &str, f: &mut Findings<'_>) {
    let field = format!("{path}.address");
    if let Some(socket) = w.address.strip_prefix("unix://") {
        if !socket.starts_with('/') && !socket.starts_with('@') {
            f.error(&field, "a Unix socket path is absolute", "use unix:///path");
        }
        if !w.ports.is_empty() {
            f.error(
                &format!("{path}.ports"),
                "a Unix socket has no ports",
                "leave ports out",
            );
        }
    } else if w.address.is_empty() {
        if w.network.is_empty() {
            f.error(
                &field,
                "address must be set",
                "use an address, a host name or unix:///path",
            );
        }
    } else if w.address.parse::<IpAddr>().is_err() && !text::is_fqdn(&w.address) {
        f.error(
            &field,
            &format!("{:?} is no address or host name", w.address),
            "use an address, a host name or unix:///path",
        );
    }
    for (name, port) in &w.ports {
        f.port(&crate::yaml::child(&format!("{path}.ports"), name), *port);
    }
    f.labels(&format!("{path}.labels"), &w.labels);
}
