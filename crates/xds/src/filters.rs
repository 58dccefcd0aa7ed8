//! Network, HTTP, listener and cluster filters in Istio's order. A proxy that lists its
//! extensions gets only those on the list, so a stock Envoy is never sent Istio's own.

use lateen_xds_proto::any::pack;
use lateen_xds_proto::envoy::config::cluster::v3::Filter as ClusterFilter;
use lateen_xds_proto::envoy::config::listener::v3::{
    Filter, ListenerFilter, ListenerFilterChainMatchPredicate, filter, listener_filter,
};
use lateen_xds_proto::envoy::extensions::filters::http::{
    cors::v3::Cors, fault::v3::HttpFault, grpc_stats::v3::FilterConfig as GrpcStats,
    grpc_stats::v3::filter_config::PerMethodStatSpecifier, router::v3::Router,
};
use lateen_xds_proto::envoy::extensions::filters::listener::{
    http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
    original_src::v3::OriginalSrc, tls_inspector::v3::TlsInspector,
};
use lateen_xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use lateen_xds_proto::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use lateen_xds_proto::istio::{alpn, stats};
use lateen_xds_proto::{Any, BoolValue, Message, Name};
use serde_json::json;

use crate::access_log;
use crate::context::Context;
use crate::wire;

/// Where a filter chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Towards the own workload.
    Inbound,
    /// From the own workload.
    Outbound,
    /// At a gateway.
    Gateway,
}

const METADATA_EXCHANGE: &str = "istio.metadata_exchange";
const STATS: &str = "istio.stats";
const ALPN: &str = "istio.alpn";

/// A network filter.
pub fn network<T: Message + Name>(name: &str, config: &T) -> Filter {
    network_any(name, pack(config))
}

fn network_any(name: &str, config: Any) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    }
}

fn exchange_config() -> Any {
    wire::typed_struct(
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        &json!({"enable_discovery": true, "protocol": "istio-peer-exchange"}),
    )
}

fn stats_config(side: Side) -> stats::PluginConfig {
    stats::PluginConfig {
        // A gateway's Host header is the outside world's: no destination service from it.
        disable_host_header_fallback: side != Side::Outbound,
        ..stats::PluginConfig::default()
    }
}

/// Filters before `http_connection_manager`.
pub fn before_http(cx: &Context<'_>, side: Side) -> Vec<Filter> {
    if side == Side::Inbound && cx.key.supports(METADATA_EXCHANGE) {
        vec![network_any(METADATA_EXCHANGE, exchange_config())]
    } else {
        Vec::new()
    }
}

/// A whole TCP chain to one cluster or, weighted, to several.
pub fn tcp(cx: &Context<'_>, side: Side, stat_prefix: &str, to: &[(String, u32)]) -> Vec<Filter> {
    let mut out = before_http(cx, side);
    if cx.key.supports(STATS) {
        out.push(network(STATS, &stats_config(side)));
    }
    let specifier = match to {
        [(cluster, _)] => tcp_proxy::ClusterSpecifier::Cluster(cluster.clone()),
        many => {
            let clusters =
                many.iter().map(
                    |(name, weight)| tcp_proxy::weighted_cluster::ClusterWeight {
                        name: name.clone(),
                        weight: *weight,
                        ..tcp_proxy::weighted_cluster::ClusterWeight::default()
                    },
                );
            tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
                clusters: clusters.collect(),
            })
        }
    };
    let proxy = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        access_log: access_log::access_logs(cx),
        cluster_specifier: Some(specifier),
        ..TcpProxy::default()
    };
    out.push(network("envoy.filters.network.tcp_proxy", &proxy));
    out
}

/// HTTP filters in their order.
pub fn http(cx: &Context<'_>, side: Side) -> Vec<HttpFilter> {
    let mut out = Vec::new();
    let mut add = |name: &str, config: Any| {
        if cx.key.supports(name) {
            out.push(HttpFilter {
                name: name.to_owned(),
                config_type: Some(http_filter::ConfigType::TypedConfig(config)),
                ..HttpFilter::default()
            });
        }
    };
    add(METADATA_EXCHANGE, peer_metadata(side));
    add(
        "envoy.filters.http.grpc_stats",
        pack(&GrpcStats {
            emit_filter_state: true,
            per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(
                BoolValue { value: false },
            )),
            ..GrpcStats::default()
        }),
    );
    if side != Side::Inbound && cx.features.mesh_tls {
        add(ALPN, pack(&alpn_config()));
    }
    add("envoy.filters.http.fault", pack(&HttpFault::default()));
    add("envoy.filters.http.cors", pack(&Cors::default()));
    add(STATS, pack(&stats_config(side)));
    add("envoy.filters.http.router", pack(&Router::default()));
    out
}

/// `istio.metadata_exchange` for HTTP: who the peer is, from headers, then by address.
fn peer_metadata(side: Side) -> Any {
    let headers = || json!({"istio_headers": {}});
    let value = match side {
        Side::Inbound => json!({
            "downstream_discovery": [headers(), {"workload_discovery": {}}],
            "downstream_propagation": [headers()],
        }),
        Side::Outbound | Side::Gateway => json!({
            "upstream_discovery": [headers(), {"workload_discovery": {}}],
            "upstream_propagation": [headers()],
        }),
    };
    wire::typed_struct("io.istio.http.peer_metadata.Config", &value)
}

/// ALPN names by which the peer's sidecar knows mesh traffic; needs mesh TLS to mean anything.
fn alpn_config() -> alpn::FilterConfig {
    let over = |protocol: alpn::Protocol, names: [&str; 3]| alpn::AlpnOverride {
        upstream_protocol: protocol as i32,
        alpn_override: names.map(str::to_owned).to_vec(),
    };
    alpn::FilterConfig {
        alpn_override: vec![
            over(
                alpn::Protocol::Http10,
                ["istio-http/1.0", "istio", "http/1.0"],
            ),
            over(
                alpn::Protocol::Http11,
                ["istio-http/1.1", "istio", "http/1.1"],
            ),
            over(alpn::Protocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    }
}

/// Filters of every outbound cluster.
pub fn cluster_filters(cx: &Context<'_>) -> Vec<ClusterFilter> {
    if !cx.key.supports(METADATA_EXCHANGE) || !cx.features.mesh_tls {
        // Peers exchange metadata under a TLS protocol name; in plain text there is none.
        return Vec::new();
    }
    vec![ClusterFilter {
        name: METADATA_EXCHANGE.to_owned(),
        typed_config: Some(exchange_config()),
        ..ClusterFilter::default()
    }]
}

fn listener_filter<T: Message + Name>(name: &str, config: &T) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(config))),
        filter_disabled: None,
    }
}

/// Recovers the destination that redirection rules replaced.
pub fn original_dst() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.original_dst",
        &OriginalDst::default(),
    )
}

/// Connects to the application from the client's own address, with the mark that the
/// redirection rules know such packets by.
pub fn original_src() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.original_src",
        &OriginalSrc {
            mark: 1337,
            ..OriginalSrc::default()
        },
    )
}

/// Tells TLS from plain text; off where `disabled` holds.
pub fn tls_inspector(disabled: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    let mut f = listener_filter(
        "envoy.filters.listener.tls_inspector",
        &TlsInspector::default(),
    );
    f.filter_disabled = disabled;
    f
}

/// Tells HTTP from other bytes; off where `disabled` holds.
pub fn http_inspector(disabled: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    let mut f = listener_filter(
        "envoy.filters.listener.http_inspector",
        &HttpInspector::default(),
    );
    f.filter_disabled = disabled;
    f
}

/// Every extension whose presence changes what is generated. A proxy's own list is cut down
/// to these, so that proxies of different builds share what they have in common.
pub const ASKED: [&str; 9] = [
    METADATA_EXCHANGE,
    STATS,
    ALPN,
    "envoy.filters.http.grpc_stats",
    "envoy.filters.http.fault",
    "envoy.filters.http.cors",
    "envoy.filters.http.router",
    "envoy.network.dns_resolver.cares",
    "envoy.request_id.uuid",
];
