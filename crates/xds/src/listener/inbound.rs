//! `virtualInbound`: every connection that redirection rules bring to the workload. One
//! group of chains per served port, then what nobody declared passes to where it was going.
//! Text only: the chains that end mesh TLS come with workload identities.

use std::collections::BTreeSet;

use lateen_model::Protocol;
use lateen_xds_proto::envoy::config::core::v3::TrafficDirection;
use lateen_xds_proto::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, Listener, ListenerFilterChainMatchPredicate,
    listener_filter_chain_match_predicate::{MatchSet, Rule},
};
use lateen_xds_proto::envoy::r#type::v3::Int32Range;

use super::http::{Routes, chain_filters};
use super::{at_port, chain, detection, plain_http_match, transport_match};
use crate::access_log;
use crate::context::{Context, Serves};
use crate::filters::{self, Side};
use crate::names;
use crate::route;
use crate::wire;

/// Where redirection rules send inbound connections.
pub const PORT: u16 = 15006;

/// The listener of all inbound connections.
pub fn virtual_inbound(cx: &Context<'_>) -> Listener {
    let mut chains = vec![black_hole(cx)];
    chains.extend(passthrough(cx));
    let mut opaque = Vec::new();
    let mut seen = BTreeSet::new();
    for s in cx.serves() {
        // Of two services on one workload port the oldest decides what it speaks.
        if s.port.protocol == Protocol::Udp || !seen.insert(s.target_port) {
            continue;
        }
        let protocol = cx.inbound_protocol(&s.port);
        if protocol.is_tcp() {
            opaque.push(s.target_port);
        }
        chains.extend(port_chains(cx, &s, protocol));
    }
    let off = disabled_at(&opaque);
    let transparent = super::transparent(cx);
    let mut listener_filters = vec![filters::original_dst()];
    listener_filters.extend(transparent.map(|_| filters::original_src()));
    listener_filters.push(filters::tls_inspector(off.clone()));
    listener_filters.push(filters::http_inspector(off));
    let mut listener = Listener {
        name: names::VIRTUAL_INBOUND.to_owned(),
        address: Some(wire::socket_address(&wire::ANY.to_string(), PORT)),
        filter_chains: chains,
        transparent,
        listener_filters,
        traffic_direction: TrafficDirection::Inbound as i32,
        access_log: access_log::listener_logs(cx),
        ..Listener::default()
    };
    detection(cx, &mut listener);
    listener
}

/// Connections to the capturing port itself would come back for ever.
fn black_hole(cx: &Context<'_>) -> FilterChain {
    let m = at_port(PORT, FilterChainMatch::default());
    let to = [(names::BLACK_HOLE.to_owned(), 1)];
    chain(
        "virtualInbound-blackhole",
        Some(m),
        filters::tcp(cx, Side::Inbound, names::BLACK_HOLE, &to),
    )
}

/// Ports that no service declares.
fn passthrough(cx: &Context<'_>) -> Vec<FilterChain> {
    let to = [(names::INBOUND_PASSTHROUGH.to_owned(), 1)];
    let tcp = |transport| {
        chain(
            names::VIRTUAL_INBOUND,
            Some(transport_match(transport)),
            filters::tcp(cx, Side::Inbound, names::INBOUND_PASSTHROUGH, &to),
        )
    };
    let routes = route::inbound_passthrough();
    vec![
        chain(
            "virtualInbound-catchall-http",
            Some(plain_http_match()),
            chain_filters(
                cx,
                Side::Inbound,
                names::INBOUND_PASSTHROUGH,
                Routes::Inline(Box::new(routes)),
            ),
        ),
        tcp("raw_buffer"),
        tcp("tls"),
    ]
}

fn port_chains(cx: &Context<'_>, s: &Serves, protocol: Protocol) -> Vec<FilterChain> {
    let name = format!("{}_{}", wire::ANY, s.target_port);
    let prefix = format!("inbound_{name}");
    let http = |m| {
        let routes = Routes::Inline(Box::new(route::inbound(s, protocol)));
        chain(
            &name,
            Some(at_port(s.target_port, m)),
            chain_filters(cx, Side::Inbound, &prefix, routes),
        )
    };
    let to = [(names::inbound(s.target_port), 1)];
    let tcp = |transport| {
        let m = at_port(s.target_port, transport_match(transport));
        chain(
            &name,
            Some(m),
            filters::tcp(cx, Side::Inbound, &to[0].0, &to),
        )
    };
    if protocol.is_http() {
        vec![http(transport_match("raw_buffer"))]
    } else if protocol == Protocol::Auto {
        vec![http(plain_http_match()), tcp("raw_buffer"), tcp("tls")]
    } else {
        vec![tcp("tls"), tcp("raw_buffer")]
    }
}

/// Ports whose protocol is declared opaque: the server may speak first, so nothing may wait
/// for the client's bytes.
fn disabled_at(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let at = |port: &u16| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range {
            start: i32::from(*port),
            end: i32::from(*port) + 1,
        })),
    };
    match ports {
        [] => None,
        [one] => Some(at(one)),
        many => Some(ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: many.iter().map(at).collect(),
            })),
        }),
    }
}
