//! VirtualService.

use super::{Findings, http_route, text};
use crate::istio::{Destination, RouteDestination, VirtualService};

/// Checks a virtual service.
pub fn check(vs: &VirtualService, f: &mut Findings<'_>) {
    let is_delegate = vs.hosts.is_empty();
    if is_delegate {
        delegate(vs, f);
    } else {
        hosts(vs, f);
    }
    gateways("spec.gateways", &vs.gateways, f);
    f.export_to(&vs.export_to);
    if vs.http.is_empty() && vs.tls.is_empty() && vs.tcp.is_empty() {
        f.error(
            "spec",
            "http, tls or tcp is required",
            "add at least one rule",
        );
    }
    for (i, rule) in vs.http.iter().enumerate() {
        http_route::check(rule, &format!("spec.http[{i}]"), f);
    }
    for (i, rule) in vs.tls.iter().enumerate() {
        let path = format!("spec.tls[{i}]");
        if rule.matches.is_empty() {
            f.error(
                &format!("{path}.match"),
                "a TLS rule needs a match",
                "add match with sniHosts",
            );
        }
        for (j, m) in rule.matches.iter().enumerate() {
            let path = format!("{path}.match[{j}]");
            sni_hosts(&m.sni_hosts, &vs.hosts, &path, f);
            l4(&m.destination_subnets, m.port, &path, f);
            f.labels(&format!("{path}.sourceLabels"), &m.source_labels);
            gateways(&format!("{path}.gateways"), &m.gateways, f);
        }
        route(&rule.route, &path, f);
    }
    for (i, rule) in vs.tcp.iter().enumerate() {
        let path = format!("spec.tcp[{i}]");
        for (j, m) in rule.matches.iter().enumerate() {
            let path = format!("{path}.match[{j}]");
            l4(&m.destination_subnets, m.port, &path, f);
            f.labels(&format!("{path}.sourceLabels"), &m.source_labels);
            gateways(&format!("{path}.gateways"), &m.gateways, f);
        }
        route(&rule.route, &path, f);
    }
}

fn delegate(vs: &VirtualService, f: &mut Findings<'_>) {
    let remedy =
        "a virtual service without hosts is a delegate; add hosts if it is not meant as one";
    if !vs.gateways.is_empty() {
        f.error("spec.gateways", "a delegate has no gateways", remedy);
    }
    if !vs.tls.is_empty() || !vs.tcp.is_empty() {
        f.error("spec.hosts", "a delegate has http rules only", remedy);
    }
    if vs.http.iter().any(|r| r.delegate.is_some()) {
        f.error("spec.http", "a delegate cannot delegate again", remedy);
    }
}

fn hosts(vs: &VirtualService, f: &mut Findings<'_>) {
    let on_mesh = vs.gateways.is_empty() || vs.gateways.iter().any(|g| g == "mesh");
    for (i, host) in vs.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{i}]");
        if let Some(problem) = text::host_problem(host) {
            f.error(
                &field,
                &format!("host {host:?} is not valid: {problem}"),
                "",
            );
        }
        if host == "*" && on_mesh {
            f.error(
                &field,
                "wildcard host * is not allowed for virtual services bound to the mesh gateway",
                "name the hosts, or bind it to a gateway with spec.gateways",
            );
        }
        if vs.hosts[..i].contains(host) {
            f.error(
                &field,
                &format!("host {host:?} is there twice"),
                "remove one of the two",
            );
        }
    }
}

/// Gateway references: `mesh`, `name`, `namespace/name`.
pub fn gateways(field: &str, list: &[String], f: &mut Findings<'_>) {
    for (i, gateway) in list.iter().enumerate() {
        let valid = match gateway.split_once('/') {
            Some((ns, name)) => (ns == "." || text::is_dns_label(ns)) && text::is_fqdn(name),
            None => text::is_fqdn(gateway),
        };
        if !valid {
            f.error(
                &format!("{field}[{i}]"),
                &format!("{gateway:?} is no gateway"),
                "use \"mesh\", \"name\" or \"namespace/name\"",
            );
        }
    }
}

fn sni_hosts(sni: &[String], hosts: &[String], path: &str, f: &mut Findings<'_>) {
    if sni.is_empty() {
        f.error(
            &format!("{path}.sniHosts"),
            "a TLS match needs sniHosts",
            "use some of spec.hosts",
        );
    }
    for (i, name) in sni.iter().enumerate() {
        let field = format!("{path}.sniHosts[{i}]");
        if let Some(problem) = text::host_problem(name) {
            f.error(&field, &format!("{name:?} is not valid: {problem}"), "");
        } else if !hosts.iter().any(|h| covers(h, name)) {
            f.error(
                &field,
                &format!("{name:?} is not a compatible subset of the virtual service hosts"),
                "add it to spec.hosts",
            );
        }
    }
}

fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern == host,
    }
}

fn l4(subnets: &[String], port: u32, path: &str, f: &mut Findings<'_>) {
    for (i, subnet) in subnets.iter().enumerate() {
        if !text::is_subnet(subnet) {
            f.error(
                &format!("{path}.destinationSubnets[{i}]"),
                &format!("{subnet:?} is no address or CIDR block"),
                "use an address, or a block such as 10.0.0.0/8",
            );
        }
    }
    if port != 0 {
        f.port(&format!("{path}.port"), port);
    }
}

fn route(route: &[RouteDestination], path: &str, f: &mut Findings<'_>) {
    if route.is_empty() {
        f.error(
            &format!("{path}.route"),
            "a route is required",
            "use route with at least one destination",
        );
    }
    for (i, d) in route.iter().enumerate() {
        destination(
            d.destination.as_ref(),
            &format!("{path}.route[{i}].destination"),
            f,
        );
    }
    let all: Vec<i32> = route.iter().map(|d| d.weight).collect();
    weights(&all, path, f);
}

/// Weights of one rule: none negative, and something left to send to.
pub fn weights(weights: &[i32], path: &str, f: &mut Findings<'_>) {
    for (i, w) in weights.iter().enumerate() {
        if *w < 0 {
            f.error(
                &format!("{path}.route[{i}].weight"),
                &format!("weight {w} is below 0"),
                "use 0 or more",
            );
        }
    }
    if weights.len() > 1 && weights.iter().all(|w| *w == 0) {
        f.error(
            &format!("{path}.route"),
            "total destination weight = 0",
            "give the destinations weights",
        );
    }
}

/// A destination: host, subset and port.
pub fn destination(d: Option<&Destination>, path: &str, f: &mut Findings<'_>) {
    let Some(d) = d else {
        f.error(
            path,
            "destination is required",
            "use destination with the host of a service",
        );
        return;
    };
    if d.host.is_empty() {
        f.error(
            &format!("{path}.host"),
            "destination must have a host",
            "use the name of a service, such as reviews or reviews.default.svc.cluster.local",
        );
    } else if d.host == "*" {
        f.error(
            &format!("{path}.host"),
            "destination host * is not valid",
            "name one host",
        );
    } else if let Some(problem) = text::host_problem(&d.host) {
        f.error(
            &format!("{path}.host"),
            &format!("host {:?} is not valid: {problem}", d.host),
            "",
        );
    }
    if !d.subset.is_empty() && !text::is_dns_label(&d.subset) {
        f.error(
            &format!("{path}.subset"),
            &format!("{:?} is no subset name", d.subset),
            "use letters, digits and dashes",
        );
    }
    if let Some(port) = &d.port {
        f.port(&format!("{path}.port.number"), port.number);
    }
}
