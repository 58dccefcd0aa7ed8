//! LDS: what a proxy listens on. `outbound` and `inbound` for sidecars, `gateway` for
//! gateways, `http` for the connection manager all of them use.

use std::sync::Arc;

use lateen_model::proxy::InterceptionMode;
use lateen_xds_proto::BoolValue;
use lateen_xds_proto::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener,
};

use crate::context::Context;
use crate::fingerprint::resource;
use crate::resource::Resource;
use crate::wire;

pub mod gateway;
mod http;
mod inbound;
mod outbound;

/// ALPN values by which plain HTTP is known after inspection.
const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// All listeners of a proxy.
pub fn listeners(cx: &Context<'_>) -> Vec<Arc<Resource>> {
    in_order(&shared(cx), &own(cx))
}

/// The listeners that do not depend on a sidecar's own workload; all of a gateway's.
pub fn shared(cx: &Context<'_>) -> Vec<Arc<Resource>> {
    let all = if cx.is_gateway() {
        gateway::listeners(cx)
    } else {
        let mut all = vec![outbound::virtual_outbound(cx)];
        all.extend(outbound::listeners(cx));
        all
    };
    all.into_iter().map(resource).collect()
}

/// The listener in front of a sidecar's own workload.
pub fn own(cx: &Context<'_>) -> Vec<Arc<Resource>> {
    if cx.is_gateway() {
        return Vec::new();
    }
    vec![resource(inbound::virtual_inbound(cx))]
}

/// Both parts together: what catches connections stands before what they are handed to.
pub fn in_order(shared: &[Arc<Resource>], own: &[Arc<Resource>]) -> Vec<Arc<Resource>> {
    let first = shared.len().min(1);
    let (catching, rest) = shared.split_at(first);
    [catching, own, rest].concat()
}

/// Routes that listeners of a proxy ask for by name, for the debug pages.
pub fn route_names(cx: &Context<'_>) -> Vec<String> {
    if cx.is_gateway() {
        gateway::route_names(cx)
    } else {
        outbound::route_names(cx)
    }
}

fn chain(name: &str, m: Option<FilterChainMatch>, filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: m,
        filters,
        ..FilterChain::default()
    }
}

/// Plain HTTP as the inspectors see it.
fn plain_http_match() -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: PLAIN_HTTP.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    }
}

fn transport_match(transport: &str) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: transport.to_owned(),
        ..FilterChainMatch::default()
    }
}

fn at_port(port: u16, mut m: FilterChainMatch) -> FilterChainMatch {
    m.destination_port = wire::u32_value(u32::from(port));
    m
}

/// Accepts connections to other addresses, where redirection rules bring them unchanged.
fn transparent(cx: &Context<'_>) -> Option<BoolValue> {
    match cx.key.interception {
        InterceptionMode::Tproxy => wire::bool_value(true),
        InterceptionMode::Redirect | InterceptionMode::None => None,
    }
}

/// How long inspectors wait for the first bytes; afterwards the connection goes on unseen.
fn detection(cx: &Context<'_>, listener: &mut Listener) {
    listener.listener_filters_timeout = wire::duration(cx.snapshot.mesh.protocol_detection_timeout);
    listener.continue_on_listener_filters_timeout = true;
}

#[cfg(test)]
mod tests {
    use lateen_model::{EndpointTable, ProxyKey, Snapshot};

    use super::*;
    use crate::context::Features;

    /// The two listeners that redirection rules know, of a proxy with this mode.
    fn captured(interception: InterceptionMode) -> [Listener; 2] {
        let key = ProxyKey {
            interception,
            ..ProxyKey::default()
        };
        let (snapshot, endpoints) = (Snapshot::default(), EndpointTable::default());
        let cx = Context::new(&snapshot, &endpoints, &key, Features::default());
        [
            outbound::virtual_outbound(&cx),
            inbound::virtual_inbound(&cx),
        ]
    }

    fn filters(listener: &Listener) -> Vec<&str> {
        let last = |name: &str| {
            name.rsplit_once('.')
                .map_or(0, |(before, _)| before.len() + 1)
        };
        let names = listener.listener_filters.iter().map(|f| f.name.as_str());
        names.map(|name| &name[last(name)..]).collect()
    }

    #[test]
    fn tproxy_keeps_both_addresses() {
        let [outbound, inbound] = captured(InterceptionMode::Tproxy);
        assert!(outbound.transparent.is_some_and(|t| t.value));
        assert!(inbound.transparent.is_some_and(|t| t.value));
        let want = [
            "original_dst",
            "original_src",
            "tls_inspector",
            "http_inspector",
        ];
        assert_eq!(filters(&inbound), want);
        let [outbound, inbound] = captured(InterceptionMode::Redirect);
        assert!(outbound.transparent.is_none() && inbound.transparent.is_none());
        assert_eq!(
            filters(&inbound),
            ["original_dst", "tls_inspector", "http_inspector"]
        );
    }
}
