//! Virtual hosts of a sidecar: `PORT` holds every HTTP service of a port and the hosts that
//! only virtual services know; `HOST:PORT` holds one service on an undeclared port.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_model::route::MESH_GATEWAY;
use lateen_model::{OutboundPolicy, Protocol, Service, VirtualService, host};
use lateen_xds_proto::envoy::config::route::v3::{DirectResponseAction, Route, VirtualHost, route};

use super::rule::{self, Place};
use super::{any_path, domains, forward, plain_route, retry};
use crate::context::Context;
use crate::names;

/// The virtual hosts of a route name.
pub fn virtual_hosts(cx: &Context<'_>, name: &str) -> Vec<VirtualHost> {
    match name.rsplit_once(':') {
        Some((host, port)) => match (cx.service(host), port.parse()) {
            (Some(service), Ok(port)) => one_service(cx, service, port),
            _ => Vec::new(),
        },
        None => name
            .parse()
            .map(|port| of_port(cx, port))
            .unwrap_or_default(),
    }
}

fn one_service(cx: &Context<'_>, service: &Arc<Service>, port: u16) -> Vec<VirtualHost> {
    let mut v = service_host(cx, cx.mesh_rules(), service, port);
    v.domains = vec!["*".to_owned()];
    vec![v]
}

fn of_port(cx: &Context<'_>, port: u16) -> Vec<VirtualHost> {
    let rules = cx.mesh_rules();
    let mut out = Vec::new();
    for service in cx.services().iter().filter(|s| serves_http(cx, s, port)) {
        let mut v = service_host(cx, rules, service, port);
        v.domains = domains::of_service(cx, service, port);
        out.push(v);
    }
    let known: BTreeSet<&str> = cx.services().iter().map(|s| &*s.hostname).collect();
    for vs in rules.iter().filter(|vs| !vs.http.is_empty()) {
        for h in vs.hosts.iter().filter(|h| !known.contains(&***h)) {
            out.push(rule_only_host(cx, vs, h, port));
        }
    }
    // A domain may stand in one virtual host only; the older service or rule has it.
    let mut taken = BTreeSet::new();
    for v in &mut out {
        v.domains.retain(|d| taken.insert(d.to_ascii_lowercase()));
    }
    out.retain(|v| !v.domains.is_empty());
    if !taken.contains("*") {
        out.extend(catch_all(cx));
    }
    out
}

fn serves_http(cx: &Context<'_>, service: &Service, port: u16) -> bool {
    service.port(port).is_some_and(|p| {
        let protocol = cx.outbound_protocol(p);
        protocol.is_http() || protocol == Protocol::Auto
    })
}

fn base(name: &str, port: u16) -> VirtualHost {
    VirtualHost {
        name: format!("{name}:{port}"),
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

fn service_host(
    cx: &Context<'_>,
    rules: &[Arc<VirtualService>],
    service: &Arc<Service>,
    port: u16,
) -> VirtualHost {
    let mut v = base(&service.hostname, port);
    let place = Place {
        gateway: MESH_GATEWAY,
        port,
    };
    if let Some(vs) = in_force(rules, &service.hostname) {
        v.routes = rule::routes(cx, vs, &place);
    } else {
        let mut action = forward(&names::outbound(port, "", &service.hostname));
        super::action::balance(cx, &mut action, service, None, port);
        action.retry_policy = retry::outbound(cx, None, !action.hash_policy.is_empty());
        v.routes = vec![plain_route(
            action,
            &format!("{}:{port}/*", service.hostname),
        )];
    }
    v
}

/// The virtual service of a host: the most specific pattern, the oldest among equals.
fn in_force<'a>(rules: &'a [Arc<VirtualService>], h: &str) -> Option<&'a Arc<VirtualService>> {
    let mut best: Option<(&str, &Arc<VirtualService>)> = None;
    for vs in rules.iter().filter(|vs| !vs.http.is_empty()) {
        for pattern in vs.hosts.iter().filter(|p| host::covers(p, h)) {
            let better = best.is_none_or(|(have, _)| host::by_specificity(pattern, have).is_lt());
            if better {
                best = Some((pattern, vs));
            }
        }
    }
    best.map(|(_, vs)| vs)
}

fn rule_only_host(cx: &Context<'_>, vs: &VirtualService, h: &str, port: u16) -> VirtualHost {
    let mut v = base(h, port);
    v.domains = vec![h.to_owned()];
    v.domains.extend(domains::short_names(cx, h));
    v.routes = rule::routes(
        cx,
        vs,
        &Place {
            gateway: MESH_GATEWAY,
            port,
        },
    );
    v
}

/// Hosts that nobody declared.
fn catch_all(cx: &Context<'_>) -> Option<VirtualHost> {
    let named = |name: &str, routes| VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes,
        include_request_attempt_count: true,
        ..VirtualHost::default()
    };
    match cx.outbound_policy() {
        OutboundPolicy::AllowAny => {
            let mut r = plain_route(forward(names::PASSTHROUGH), "");
            r.name = "allow_any".to_owned();
            r.decorator = None;
            Some(named("allow_any", vec![r]))
        }
        // Istio 1.0 had no such host: the request met no route, a 404.
        OutboundPolicy::RegistryOnly if cx.features.compat_1_0 => None,
        OutboundPolicy::RegistryOnly => Some(named(
            "block_all",
            vec![Route {
                name: "block_all".to_owned(),
                r#match: Some(any_path()),
                action: Some(route::Action::DirectResponse(DirectResponseAction {
                    status: 502,
                    ..DirectResponseAction::default()
                })),
                ..Route::default()
            }],
        )),
    }
}
