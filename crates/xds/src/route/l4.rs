//! TCP and TLS rules of virtual services: which connections go to which clusters.

use lateen_model::route::{L4Match, MESH_GATEWAY, WeightedDestination};
use lateen_model::{Gateway, GatewayServer, Port, VirtualService, host};

use super::action::cluster_name;
use super::gateway::agreed_hosts;
use crate::context::Context;

/// One rule where it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Server names; empty for any.
    pub sni: Vec<String>,
    /// Destination subnets; empty for any.
    pub subnets: Vec<String>,
    /// Clusters with weights.
    pub to: Vec<(String, u32)>,
}

/// The rules for connections of a sidecar to a service port.
pub fn mesh_rules(cx: &Context<'_>, hostname: &str, port: &Port) -> Vec<Rule> {
    let of_host = |vs: &&std::sync::Arc<VirtualService>| {
        (!vs.tcp.is_empty() || !vs.tls.is_empty())
            && vs.hosts.iter().any(|h| host::covers(h, hostname))
    };
    let Some(vs) = cx.mesh_rules().iter().find(of_host) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    if port.protocol.is_tls() {
        out.extend(tls_rules(cx, vs, MESH_GATEWAY, port.number));
    }
    out.extend(tcp_rules(cx, vs, MESH_GATEWAY, port.number));
    out
}

/// The rules of plain TCP servers of a gateway.
pub fn gateway_tcp(cx: &Context<'_>, gateway: &Gateway, server: &GatewayServer) -> Vec<Rule> {
    at_gateway(cx, gateway, server, tcp_rules)
}

/// The rules of TLS servers that a gateway passes through, by SNI.
pub fn gateway_tls(cx: &Context<'_>, gateway: &Gateway, server: &GatewayServer) -> Vec<Rule> {
    at_gateway(cx, gateway, server, tls_rules)
}

fn at_gateway(
    cx: &Context<'_>,
    gateway: &Gateway,
    server: &GatewayServer,
    rules: fn(&Context<'_>, &VirtualService, &str, u16) -> Vec<Rule>,
) -> Vec<Rule> {
    let reference = gateway.reference();
    cx.snapshot
        .gateway_virtual_services(&reference)
        .iter()
        .filter(|vs| !agreed_hosts(server, vs).is_empty())
        .flat_map(|vs| rules(cx, vs, &reference, server.port))
        .collect()
}

fn tcp_rules(cx: &Context<'_>, vs: &VirtualService, gateway: &str, port: u16) -> Vec<Rule> {
    let mut out = Vec::new();
    for rule in &vs.tcp {
        let to = weighted(cx, &rule.destinations, port);
        if rule.matches.is_empty() {
            out.push(Rule {
                sni: Vec::new(),
                subnets: Vec::new(),
                to,
            });
            break;
        }
        for m in rule
            .matches
            .iter()
            .filter(|m| applies(cx, m, gateway, port))
        {
            let subnets = m
                .destination_subnets
                .iter()
                .map(|s| s.to_string())
                .collect();
            out.push(Rule {
                sni: Vec::new(),
                subnets,
                to: to.clone(),
            });
        }
    }
    out
}

fn tls_rules(cx: &Context<'_>, vs: &VirtualService, gateway: &str, port: u16) -> Vec<Rule> {
    let mut out = Vec::new();
    for rule in &vs.tls {
        for m in rule
            .matches
            .iter()
            .filter(|m| applies(cx, m, gateway, port))
        {
            out.push(Rule {
                sni: m.sni_hosts.iter().map(|s| s.to_string()).collect(),
                subnets: m
                    .destination_subnets
                    .iter()
                    .map(|s| s.to_string())
                    .collect(),
                to: weighted(cx, &rule.destinations, port),
            });
        }
    }
    out
}

fn applies(cx: &Context<'_>, m: &L4Match, gateway: &str, port: u16) -> bool {
    m.applies_to(&cx.key.namespace, &cx.key.labels, gateway) && m.port.is_none_or(|p| p == port)
}

fn weighted(cx: &Context<'_>, to: &[WeightedDestination], listen: u16) -> Vec<(String, u32)> {
    let name = |d: &WeightedDestination| cluster_name(cx, &d.destination, listen);
    match to {
        [only] => vec![(name(only), 1)],
        many => many
            .iter()
            .filter(|d| d.weight > 0)
            .map(|d| (name(d), d.weight))
            .collect(),
    }
}
