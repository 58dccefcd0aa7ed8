//! Virtual hosts of a gateway: the hosts that a server and a bound virtual service agree on,
//! with the routes of all such virtual services, oldest first, catch-alls last.

use lateen_model::{GatewayServer, Str, VirtualService, host};
use lateen_xds_proto::envoy::config::route::v3::{
    Route, RouteMatch, VirtualHost, route_match, virtual_host::TlsRequirementType,
};

use super::rule::{self, Place};
use crate::context::Context;
use crate::listener::gateway::{
    Bound, ends_tls, http_route_name, https_route_name, servers, speaks_http,
};

/// The virtual hosts of a route name.
pub fn virtual_hosts(cx: &Context<'_>, name: &str) -> Vec<VirtualHost> {
    for ((port, bind), on) in servers(cx) {
        let here: Vec<Bound<'_>> = on
            .into_iter()
            .filter(|b| speaks_http(b.server))
            .filter(|b| {
                if ends_tls(b.server) {
                    https_route_name(*b, &bind) == name
                } else {
                    http_route_name(port, &bind) == name
                }
            })
            .collect();
        if let Some(first) = here.first() {
            return hosts_of(cx, &here, first.server.port);
        }
    }
    Vec::new()
}

#[derive(Debug)]
struct Host {
    name: String,
    routes: Vec<Route>,
    redirect: bool,
}

fn hosts_of(cx: &Context<'_>, on: &[Bound<'_>], port: u16) -> Vec<VirtualHost> {
    let mut hosts: Vec<Host> = Vec::new();
    for b in on {
        let redirect = b.server.tls.as_ref().is_some_and(|t| t.https_redirect);
        let reference = b.gateway.reference();
        let place = Place {
            gateway: &reference,
            port: b.server.port,
        };
        for vs in cx.snapshot.gateway_virtual_services(&reference) {
            if vs.http.is_empty() || !vs.export_to.visible_in(&b.gateway.namespace) {
                continue;
            }
            let agreed = agreed_hosts(b.server, vs);
            if agreed.is_empty() {
                continue;
            }
            let routes = rule::routes(cx, vs, &place);
            for name in agreed {
                let h = entry(&mut hosts, &name);
                h.redirect |= redirect;
                h.routes.extend(routes.iter().cloned());
            }
        }
        if redirect {
            // The redirect holds for the server's hosts with or without routes.
            for h in &b.server.hosts {
                entry(&mut hosts, &h.host).redirect = true;
            }
        }
    }
    if hosts.is_empty() {
        return vec![VirtualHost {
            name: format!("blackhole:{port}"),
            domains: vec!["*".to_owned()],
            ..VirtualHost::default()
        }];
    }
    hosts.into_iter().map(|h| finish(h, port)).collect()
}

fn entry<'h>(hosts: &'h mut Vec<Host>, name: &str) -> &'h mut Host {
    let i = hosts
        .iter()
        .position(|h| h.name == name)
        .unwrap_or_else(|| {
            hosts.push(Host {
                name: name.to_owned(),
                routes: Vec::new(),
                redirect: false,
            });
            hosts.len() - 1
        });
    &mut hosts[i]
}

fn finish(h: Host, port: u16) -> VirtualHost {
    let (last, mut routes): (Vec<Route>, Vec<Route>) = h
        .routes
        .into_iter()
        .partition(|r| r.r#match.as_ref().is_some_and(takes_all));
    routes.extend(last);
    let tls = if h.redirect {
        TlsRequirementType::All
    } else {
        TlsRequirementType::None
    };
    VirtualHost {
        name: format!("{}:{port}", h.name),
        domains: vec![h.name],
        routes,
        require_tls: tls as i32,
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

fn takes_all(m: &RouteMatch) -> bool {
    let every =
        matches!(&m.path_specifier, Some(route_match::PathSpecifier::Prefix(p)) if p == "/");
    every && m.headers.is_empty() && m.query_parameters.is_empty()
}

/// The more specific of each pair of a server host and a virtual service host that overlap,
/// where the server admits the virtual service's namespace.
pub(super) fn agreed_hosts(server: &GatewayServer, vs: &VirtualService) -> Vec<Str> {
    let mut out: Vec<Str> = Vec::new();
    let admits = server
        .hosts
        .iter()
        .filter(|h| h.namespace.as_ref().is_none_or(|n| *n == vs.namespace));
    for s in admits {
        for v in &vs.hosts {
            let agreed = if host::covers(&s.host, v) {
                v
            } else if host::covers(v, &s.host) {
                &s.host
            } else {
                continue;
            };
            if !out.contains(agreed) {
                out.push(agreed.clone());
            }
        }
    }
    out
}
