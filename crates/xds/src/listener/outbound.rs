//! Outbound listeners of a sidecar: `virtualOutbound`, which catches everything, and the
//! listeners it hands connections to by original destination: `0.0.0.0_PORT` for all HTTP
//! services of a port, `IP_PORT` for TCP and undeclared ones.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_model::service::ServiceAddress;
use lateen_model::{EndpointAddress, OutboundPolicy, Port, Protocol, Service};
use lateen_xds_proto::envoy::config::core::v3::{CidrRange, TrafficDirection};
use lateen_xds_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};

use super::http::{Routes, chain_filters};
use super::{at_port, chain, detection, plain_http_match};
use crate::access_log;
use crate::context::Context;
use crate::filters::{self, Side};
use crate::names;
use crate::route::l4;
use crate::wire;

/// Where redirection rules send outbound connections.
pub const PORT: u16 = 15001;

/// Ports on which the proxy itself listens at every address: capture both ways, health, metrics.
/// A service with such a port is reached through `virtualOutbound`'s catch-all only; a listener of
/// its own would be refused for its address, and the whole update with it.
const OWN_PORTS: [u16; 4] = [PORT, super::inbound::PORT, 15021, 15090];

/// The listener of all outbound connections.
pub fn virtual_outbound(cx: &Context<'_>) -> Listener {
    let (cluster, name) = (unknown_cluster(cx), "virtualOutbound-catchall-tcp");
    let catch_all = chain(name, None, to_cluster(cx, cluster));
    let own_port = at_port(PORT, FilterChainMatch::default());
    let black_hole = chain(
        "virtualOutbound-blackhole",
        Some(own_port),
        to_cluster(cx, names::BLACK_HOLE),
    );
    Listener {
        name: names::VIRTUAL_OUTBOUND.to_owned(),
        address: Some(wire::socket_address(&wire::ANY.to_string(), PORT)),
        use_original_dst: wire::bool_value(true),
        transparent: super::transparent(cx),
        filter_chains: vec![black_hole, catch_all],
        traffic_direction: TrafficDirection::Outbound as i32,
        access_log: access_log::listener_logs(cx),
        ..Listener::default()
    }
}

/// Where connections to destinations nobody declared go.
fn unknown_cluster(cx: &Context<'_>) -> &'static str {
    match cx.outbound_policy() {
        OutboundPolicy::AllowAny => names::PASSTHROUGH,
        OutboundPolicy::RegistryOnly => names::BLACK_HOLE,
    }
}

fn to_cluster(
    cx: &Context<'_>,
    cluster: &str,
) -> Vec<lateen_xds_proto::envoy::config::listener::v3::Filter> {
    filters::tcp(cx, Side::Outbound, cluster, &[(cluster.to_owned(), 1)])
}

/// One listener in the making.
#[derive(Debug, Default)]
struct Plan {
    /// Route configuration of the HTTP chain.
    routes: Option<String>,
    /// TCP chains in order; the first that matches everything ends them.
    tcp: Vec<TcpChain>,
}

#[derive(Debug)]
struct TcpChain {
    sni: Vec<String>,
    subnets: Vec<CidrRange>,
    to: Vec<(String, u32)>,
}

impl TcpChain {
    fn takes_all(&self) -> bool {
        self.sni.is_empty() && self.subnets.is_empty()
    }
}

impl Plan {
    fn add_tcp(&mut self, c: TcpChain) {
        // Chains that match alike make a proxy refuse the whole listener.
        let alike = |have: &TcpChain| {
            have.subnets == c.subnets
                && (have.sni == c.sni || have.sni.iter().any(|s| c.sni.contains(s)))
        };
        let shadowed = self.tcp.iter().any(|have| have.takes_all() || alike(have));
        // A second service on the same address and port: the older one keeps it.
        if !shadowed {
            self.tcp.push(c);
        }
    }
}

type Plans = BTreeMap<(u16, IpAddr), Plan>;

/// The listeners behind `virtualOutbound`, by port and address.
pub fn listeners(cx: &Context<'_>) -> Vec<Listener> {
    plans(cx)
        .into_iter()
        .map(|((port, ip), plan)| listener(cx, ip, port, plan))
        .collect()
}

/// Route names those listeners ask for.
pub fn route_names(cx: &Context<'_>) -> Vec<String> {
    plans(cx).into_values().filter_map(|p| p.routes).collect()
}

fn plans(cx: &Context<'_>) -> Plans {
    let mut plans = Plans::new();
    for service in cx.services() {
        for port in &service.ports {
            match cx.outbound_protocol(port) {
                Protocol::Udp => {}
                p if p.is_http() => {
                    plans.entry((port.number, wire::ANY)).or_default().routes =
                        Some(port.number.to_string());
                }
                Protocol::Auto => detected(cx, service, port, &mut plans),
                _ => opaque(cx, service, port, &mut plans),
            }
        }
    }
    plans.retain(|(port, ip), _| !(ip.is_unspecified() && OWN_PORTS.contains(port)));
    plans
}

/// Virtual addresses of a service that may be listened on.
fn addresses(cx: &Context<'_>, service: &Service) -> Vec<ServiceAddress> {
    let mut out = service.addresses.clone();
    if out.is_empty() && cx.key.dns_capture {
        out.extend(service.auto_address.map(ServiceAddress::Ip));
    }
    out
}

/// An undeclared port: HTTP when the first bytes say so, TCP otherwise.
fn detected(cx: &Context<'_>, service: &Arc<Service>, port: &Port, plans: &mut Plans) {
    let mut own_address = false;
    for address in addresses(cx, service) {
        if let ServiceAddress::Ip(ip) = address {
            own_address = true;
            let plan = plans.entry((port.number, ip)).or_default();
            plan.routes
                .get_or_insert_with(|| format!("{}:{}", service.hostname, port.number));
        }
    }
    if !own_address && !service.headless {
        let plan = plans.entry((port.number, wire::ANY)).or_default();
        plan.routes.get_or_insert_with(|| port.number.to_string());
    }
    opaque(cx, service, port, plans);
}

/// A TCP or TLS port.
fn opaque(cx: &Context<'_>, service: &Arc<Service>, port: &Port, plans: &mut Plans) {
    let chains = || tcp_chains(cx, service, port);
    if service.headless {
        headless(cx, service, port, plans);
        return;
    }
    let addresses = addresses(cx, service);
    for address in &addresses {
        match address {
            ServiceAddress::Ip(ip) => {
                let plan = plans.entry((port.number, *ip)).or_default();
                chains().into_iter().for_each(|c| plan.add_tcp(c));
            }
            ServiceAddress::Cidr(base, len) => {
                let plan = plans.entry((port.number, wire::ANY)).or_default();
                for mut c in chains() {
                    // A rule's own subnets are narrower than the service's block.
                    if c.subnets.is_empty() {
                        c.subnets.push(cidr(*base, *len));
                    }
                    plan.add_tcp(c);
                }
            }
        }
    }
    if addresses.is_empty() {
        let plan = plans.entry((port.number, wire::ANY)).or_default();
        for mut c in chains() {
            if c.sni.is_empty() && port.protocol.is_tls() {
                c.sni.push(service.hostname.to_string());
            }
            plan.add_tcp(c);
        }
    }
}

/// A headless service has no address of its own: its pods are called directly.
fn headless(cx: &Context<'_>, service: &Arc<Service>, port: &Port, plans: &mut Plans) {
    for e in cx.endpoints.endpoints(&service.key(), port.number) {
        let EndpointAddress::Ip(ip) = e.address else {
            continue;
        };
        if cx.key.ips.contains(&ip) {
            continue;
        }
        let plan = plans.entry((port.number, ip)).or_default();
        if cx.outbound_protocol(port) == Protocol::Auto {
            plan.routes
                .get_or_insert_with(|| format!("{}:{}", service.hostname, port.number));
        }
        tcp_chains(cx, service, port)
            .into_iter()
            .for_each(|c| plan.add_tcp(c));
    }
}

/// Chains of a port: those of virtual services, then the service itself.
fn tcp_chains(cx: &Context<'_>, service: &Arc<Service>, port: &Port) -> Vec<TcpChain> {
    let mut out: Vec<TcpChain> = l4::mesh_rules(cx, &service.hostname, port)
        .into_iter()
        .map(|r| TcpChain {
            sni: r.sni,
            subnets: r.subnets.iter().filter_map(|s| parse_cidr(s)).collect(),
            to: r.to,
        })
        .collect();
    let ends = out.iter().any(TcpChain::takes_all);
    if !ends {
        let cluster = names::outbound(port.number, "", &service.hostname);
        out.push(TcpChain {
            sni: Vec::new(),
            subnets: Vec::new(),
            to: vec![(cluster, 1)],
        });
    }
    out
}

/// `10.0.0.0/8` or a lone address.
pub(super) fn parse_cidr(text: &str) -> Option<CidrRange> {
    let (base, len) = text
        .split_once('/')
        .map_or((text, None), |(b, l)| (b, Some(l)));
    let base: IpAddr = base.parse().ok()?;
    let full = if base.is_ipv4() { 32 } else { 128 };
    let len = len.map_or(Some(full), |l| l.parse().ok().filter(|l| *l <= full))?;
    Some(cidr(base, len))
}

fn cidr(base: IpAddr, len: u8) -> CidrRange {
    CidrRange {
        address_prefix: base.to_string(),
        prefix_len: wire::u32_value(u32::from(len)),
    }
}

fn listener(cx: &Context<'_>, ip: IpAddr, port: u16, plan: Plan) -> Listener {
    let name = format!("{ip}_{port}");
    let prefix = format!("outbound_{name}");
    let mut l = Listener {
        address: Some(wire::socket_address(&ip.to_string(), port)),
        bind_to_port: wire::bool_value(false),
        traffic_direction: TrafficDirection::Outbound as i32,
        name,
        ..Listener::default()
    };
    let inspect_tls = plan.routes.is_some() || plan.tcp.iter().any(|c| !c.sni.is_empty());
    if inspect_tls {
        l.listener_filters.push(filters::tls_inspector(None));
    }
    if let Some(routes) = plan.routes {
        l.listener_filters.push(filters::http_inspector(None));
        let filters = chain_filters(cx, Side::Outbound, &prefix, Routes::Named(routes));
        l.filter_chains
            .push(chain("", Some(plain_http_match()), filters));
    }
    if inspect_tls {
        detection(cx, &mut l);
    }
    let mut open = true;
    for c in plan.tcp {
        let stat = c.to.first().map(|(n, _)| n.clone()).unwrap_or_default();
        let filters = filters::tcp(cx, Side::Outbound, &stat, &c.to);
        open &= !c.takes_all();
        let m = (!c.takes_all()).then(|| FilterChainMatch {
            server_names: c.sni,
            prefix_ranges: c.subnets,
            ..FilterChainMatch::default()
        });
        l.filter_chains.push(chain("", m, filters));
    }
    if open {
        l.default_filter_chain = Some(passthrough_chain(cx));
    }
    l
}

/// What is not of the port's protocol goes where it was going.
fn passthrough_chain(cx: &Context<'_>) -> FilterChain {
    chain(
        "PassthroughFilterChain",
        None,
        to_cluster(cx, unknown_cluster(cx)),
    )
}
