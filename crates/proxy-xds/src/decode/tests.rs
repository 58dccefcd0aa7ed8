//! Messages written as JSON, decoded; and what is said of the bad ones.
use std::time::Duration;

use lateen_proxy_core::config::cluster::{LbPolicy, TransportSocket, UpstreamProtocol};
use lateen_proxy_core::config::http_filter::{AbortCode, FaultValue};
use lateen_proxy_core::config::listener::ListenerFilterKind;
use lateen_proxy_core::config::network_filter::TcpClusters;
use lateen_proxy_core::config::route::{ClusterSpecifier, PathMatch, RetryOn};
use lateen_proxy_core::config::{
    ClusterDiscovery, HttpFilterConfig, ListenerFilter, NetworkFilter, PerFilterConfig,
    RouteAction, RouteSource,
};
use lateen_xds_proto::json;
use serde_json::{Value, json};

use super::*;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

fn wire(message: &str, value: &Value) -> Vec<u8> {
    json::to_wire(message, value).unwrap_or_else(|e| panic!("{e}"))
}

fn typed_url(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

fn hcm(extra: Value, filters: Value) -> Value {
    let mut value = json!({
        "@type": typed_url("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "outbound_0.0.0.0_9080",
        "rds": { "route_config_name": "9080", "config_source": { "ads": {}, "initial_fetch_timeout": "0s" } },
        "http_filters": filters,
    });
    for (k, v) in extra.as_object().unwrap() {
        value[k] = v.clone();
    }
    value
}

fn router() -> Value {
    json!({ "name": "envoy.filters.http.router", "typed_config": { "@type": typed_url("envoy.extensions.filters.http.router.v3.Router") } })
}

fn typed_struct(url: &str, value: Value) -> Value {
    json!({ "@type": typed_url("udpa.type.v1.TypedStruct"), "type_url": typed_url(url), "value": value })
}

fn listener_with(filter: Value) -> Value {
    json!({
        "name": "0.0.0.0_9080",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 9080 } },
        "bind_to_port": false,
        "traffic_direction": "OUTBOUND",
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": true,
        "listener_filters": [
            { "name": "tls", "typed_config": { "@type": typed_url("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector") },
              "filter_disabled": { "destination_port_range": { "start": 3306, "end": 3307 } } },
            { "name": "http", "typed_config": { "@type": typed_url("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector") } },
        ],
        "filter_chains": [{
            "filter_chain_match": { "transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"] },
            "filters": [{ "name": "hcm", "typed_config": filter }],
        }],
        "default_filter_chain": { "name": "PassthroughFilterChain", "filters": [
            { "name": "istio.stats", "typed_config": { "@type": typed_url("stats.PluginConfig") } },
            { "name": "tcp", "typed_config": {
                "@type": typed_url("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "PassthroughCluster", "cluster": "PassthroughCluster" } },
        ]},
    })
}

fn istio_filters() -> Value {
    json!([
        { "name": "istio.metadata_exchange", "typed_config": typed_struct("io.istio.http.peer_metadata.Config", json!({
            "upstream_discovery": [{ "istio_headers": {} }, { "workload_discovery": {} }],
            "upstream_propagation": [{ "istio_headers": { "skip_external_clusters": true } }] })) },
        { "name": "envoy.filters.http.grpc_stats", "typed_config": {
            "@type": typed_url("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"), "emit_filter_state": true, "stats_for_all_methods": false } },
        { "name": "istio.alpn", "typed_config": {
            "@type": typed_url("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"),
            "alpn_override": [{ "upstream_protocol": "HTTP11", "alpn_override": ["istio-http/1.1", "istio", "http/1.1"] }] } },
        { "name": "envoy.filters.http.fault", "typed_config": { "@type": typed_url("envoy.extensions.filters.http.fault.v3.HTTPFault") } },
        { "name": "envoy.filters.http.cors", "typed_config": { "@type": typed_url("envoy.extensions.filters.http.cors.v3.Cors") } },
        { "name": "istio.stats", "typed_config": typed_struct("stats.PluginConfig", json!({ "disable_host_header_fallback": true })) },
        router(),
    ])
}

#[test]
fn istio_outbound_listener() {
    let options = json!({
        "use_remote_address": false, "stream_idle_timeout": "0s", "normalize_path": true,
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "tracing": { "random_sampling": { "value": 1.0 } },
        "request_id_extension": { "typed_config": { "@type": typed_url("envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"), "use_request_id_for_trace_sampling": true } },
        "access_log": [{ "name": "file", "typed_config": {
            "@type": typed_url("envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": "/dev/stdout",
            "log_format": { "text_format_source": { "inline_string": "%PROTOCOL%\n" } } } }],
    });
    let bytes = wire(LISTENER, &listener_with(hcm(options, istio_filters())));
    let d = listener(&bytes, &Context::empty()).unwrap();
    assert_eq!(
        d.routes,
        [Needs {
            name: "9080".into(),
            fetch_timeout_ms: 0,
            source: Default::default(),
        }]
    );
    let l = d.listener;
    assert!(!l.bind_to_port);
    assert_eq!(l.listener_filters_timeout, Duration::ZERO);
    assert_eq!(
        l.active_filters(3306).collect::<Vec<_>>(),
        [&ListenerFilterKind::HttpInspector]
    );
    assert_eq!(l.active_filters(80).count(), 2);
    assert!(matches!(
        &l.listener_filters[0],
        ListenerFilter {
            disabled: Some(_),
            ..
        }
    ));
    let NetworkFilter::HttpConnectionManager(h) = &l.filter_chains[0].filters[0] else {
        panic!("an HCM")
    };
    assert!(matches!(&h.routes, RouteSource::Rds(name) if &**name == "9080"));
    assert_eq!(h.stream_idle_timeout, None);
    assert!(h.path.normalize && h.tracing.is_some());
    assert_eq!(&*h.server_name, "envoy");
    let kinds: Vec<&str> = h
        .http_filters
        .iter()
        .map(|f| match &f.config {
            HttpFilterConfig::PeerMetadata(p) => {
                assert!(p.skip_external_clusters && p.upstream_headers);
                "peer"
            }
            HttpFilterConfig::GrpcStats(g) => {
                assert!(g.emit_filter_state);
                "grpc"
            }
            HttpFilterConfig::IstioAlpn(a) => {
                assert_eq!(&*a.http11[0], "istio-http/1.1");
                "alpn"
            }
            HttpFilterConfig::Fault(_) => "fault",
            HttpFilterConfig::Cors => "cors",
            HttpFilterConfig::IstioStats(s) => {
                assert!(s.disable_host_header_fallback);
                "stats"
            }
            HttpFilterConfig::Router(_) => "router",
            _ => "other",
        })
        .collect();
    assert_eq!(
        kinds,
        ["peer", "grpc", "alpn", "fault", "cors", "stats", "router"]
    );
    let chain = l.default_filter_chain.unwrap();
    assert!(
        matches!(&chain.filters[1], NetworkFilter::TcpProxy(t) if matches!(&t.clusters, TcpClusters::Single(n) if &**n == "PassthroughCluster"))
    );
}

#[test]
fn istio_clusters() {
    let eds = json!({
        "name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS", "connect_timeout": "10s",
        "alt_stat_name": "outbound|9080|v1|reviews.default.svc.cluster.local;",
        "eds_cluster_config": { "eds_config": { "ads": {}, "initial_fetch_timeout": "0s" }, "service_name": "outbound|9080|v1|reviews" },
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": { "thresholds": [{ "max_connections": 4294967295_u32, "max_retries": 4294967295_u32, "track_remaining": true }] },
        "common_lb_config": { "locality_weighted_lb_config": {} },
        "metadata": { "filter_metadata": { "istio": { "services": [{ "host": "reviews", "name": "reviews", "namespace": "default" }] } } },
        "filters": [{ "name": "istio.metadata_exchange", "typed_config": typed_struct("envoy.tcp.metadataexchange.config.MetadataExchange", json!({ "protocol": "istio-peer-exchange" })) }],
        "transport_socket_matches": [
            { "name": "tlsMode-istio", "match": { "tlsMode": "istio" }, "transport_socket": { "name": "tls", "typed_config": {
                "@type": typed_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"), "sni": "x" } } },
            { "name": "tlsMode-disabled", "match": {}, "transport_socket": { "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": { "@type": typed_url("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") } } },
        ],
    });
    let d = cluster(&wire(CLUSTER, &eds), &Context::empty(), true).unwrap();
    assert_eq!(
        d.endpoints.unwrap().name.as_ref(),
        "outbound|9080|v1|reviews"
    );
    let c = d.cluster;
    assert!(c.stat_name.ends_with("cluster.local"));
    assert!(matches!(
        c.lb_policy,
        LbPolicy::LeastRequest {
            choice_count: 2,
            ..
        }
    ));
    assert_eq!(c.circuit_breakers[0].max_connections, u32::MAX);
    assert_eq!(c.circuit_breakers[0].max_requests, 1024);
    assert!(c.metadata_exchange.is_some());
    let istio = metadata_of(&json!({ "tlsMode": "istio" }));
    assert!(matches!(c.transport_for(&istio), TransportSocket::Tls(_)));
    assert!(matches!(
        c.transport_for(&Default::default()),
        TransportSocket::RawBuffer
    ));

    let inbound = json!({
        "name": "inbound|9080||", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "10s",
        "upstream_bind_config": { "source_address": { "address": "127.0.0.6", "port_value": 0 },
            "extra_source_addresses": [{ "address": { "address": "::6", "port_value": 0 } }] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": typed_url("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
            "use_downstream_protocol_config": { "http_protocol_options": {}, "http2_protocol_options": {} } } },
    });
    let c = cluster(&wire(CLUSTER, &inbound), &Context::empty(), true)
        .unwrap()
        .cluster;
    assert!(matches!(c.discovery, ClusterDiscovery::OriginalDst(_)));
    assert_eq!(c.http.protocol, UpstreamProtocol::UseDownstream);
    assert_eq!(c.bind.unwrap().source_addresses.len(), 2);
}

fn metadata_of(value: &Value) -> lateen_proxy_core::config::Metadata {
    let inner = struct_to_value(&json_to_struct(value));
    lateen_proxy_core::config::Metadata {
        filter: std::sync::Arc::new([("envoy.transport_socket_match".into(), inner)].into()),
    }
}

#[test]
fn istio_routes() {
    let table = json!({
        "name": "9080", "ignore_port_in_host_matching": true, "max_direct_response_body_size_bytes": 1048576,
        "virtual_hosts": [{
            "name": "reviews.default.svc.cluster.local:9080", "domains": ["Reviews", "reviews.default"], "include_request_attempt_count": true,
            "routes": [
                { "name": "canary", "match": { "prefix": "/", "headers": [{ "name": "End-User", "string_match": { "exact": "jason" } }] },
                  "typed_per_filter_config": { "envoy.filters.http.fault": { "@type": typed_url("envoy.extensions.filters.http.fault.v3.HTTPFault"),
                      "delay": { "fixed_delay": "7s", "percentage": { "numerator": 1000000, "denominator": "MILLION" } },
                      "abort": { "http_status": 500, "percentage": { "numerator": 100 } } } },
                  "route": { "weighted_clusters": { "clusters": [{ "name": "v1", "weight": 50 }, { "name": "v3", "weight": 50 }] }, "timeout": "0.5s",
                    "retry_policy": { "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "num_retries": 2,
                        "retry_host_predicate": [{ "name": "envoy.retry_host_predicates.previous_hosts", "typed_config": { "@type": typed_url("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate") } }],
                        "host_selection_retry_max_attempts": "5", "retriable_status_codes": [503] } } },
                { "match": { "path": "/old" }, "redirect": { "path_redirect": "/new", "response_code": "FOUND" } },
                { "match": { "safe_regex": { "regex": "/[a-z]+" } }, "direct_response": { "status": 418, "body": { "inline_string": "tea" } } },
                { "match": { "prefix": "/" }, "route": { "cluster": "v1", "timeout": "0s", "max_grpc_timeout": "0s" }, "decorator": { "operation": "reviews:9080/*" } },
            ],
        }],
    });
    let r = routes(&wire(ROUTES, &table), &Context::empty()).unwrap();
    let host = r.virtual_host(b"REVIEWS:9080").unwrap();
    assert!(host.include_request_attempt_count);
    let RouteAction::Forward(f) = &host.routes[0].action else {
        panic!("forward")
    };
    assert!(matches!(&f.cluster, ClusterSpecifier::Weighted(w) if w.total == 100));
    assert_eq!(f.timeout, Some(Duration::from_millis(500)));
    let retry = f.retry_policy.as_ref().unwrap();
    assert!(
        retry.on.has(RetryOn::CONNECT_FAILURE)
            && retry.previous_hosts
            && retry.host_selection_max_attempts == 5
    );
    let PerFilterConfig::Fault(fault) = &host.routes[0].per_filter[0].1 else {
        panic!("fault")
    };
    assert_eq!(
        fault.abort.as_ref().unwrap().abort,
        FaultValue::Fixed(AbortCode::Http(500))
    );
    assert_eq!(
        fault.delay.as_ref().unwrap().delay,
        FaultValue::Fixed(Duration::from_secs(7))
    );
    assert!(matches!(&host.routes[1].action, RouteAction::Redirect(r) if r.code == 302));
    assert!(
        matches!(&host.routes[2].action, RouteAction::DirectResponse(d) if d.status == 418 && &*d.body == b"tea")
    );
    assert!(matches!(&host.routes[2].matching.path, PathMatch::Regex(_)));
    let RouteAction::Forward(f) = &host.routes[3].action else {
        panic!("forward")
    };
    assert_eq!(f.timeout, None);
}

/// (message, JSON, start of the error).
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    let route = |r: Value| json!({ "name": "t", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [r] }] });
    let go = |r: Value| route(json!({ "match": { "prefix": "/" }, "route": r }));
    vec![
        (LISTENER, json!({ "name": "l" }), "address: is required"),
        (
            LISTENER,
            json!({ "name": "l", "address": { "socket_address": { "address": "0.0.0.0", "port_value": 70000 } } }),
            "address.socket_address.port_value: 70000 is no port",
        ),
        (
            LISTENER,
            json!({ "name": "l", "address": { "socket_address": { "address": "0.0.0.0", "port_value": 1 } } }),
            "filter_chains: no filter chains",
        ),
        (
            LISTENER,
            listener_with(hcm(json!({}), json!([]))),
            "filter_chains[0].filters[0].typed_config.http_filters: is required",
        ),
        (
            LISTENER,
            listener_with(hcm(
                json!({}),
                json!([{ "name": "lua", "typed_config": { "@type": typed_url("envoy.extensions.filters.http.lua.v3.Lua") } }, router()]),
            )),
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: HTTP filter envoy.extensions.filters.http.lua.v3.Lua (lua) is not implemented",
        ),
        (
            LISTENER,
            listener_with(hcm(json!({}), json!([router(), router()]))),
            "filter_chains[0].filters[0].typed_config.http_filters: the last filter must be the router",
        ),
        (
            LISTENER,
            listener_with(hcm(
                json!({ "access_log": [{ "name": "f", "typed_config": {
            "@type": typed_url("envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": "/x", "log_format": { "text_format_source": { "inline_string": "%NOPE%" } } } }] }),
                json!([router()]),
            )),
            "filter_chains[0].filters[0].typed_config.access_log[0].typed_config.log_format.text_format_source: format at byte 0: `%NOPE%`",
        ),
        (
            LISTENER,
            {
                let mut l = listener_with(hcm(json!({}), json!([router()])));
                let chain = l["filter_chains"][0].clone();
                l["filter_chains"].as_array_mut().unwrap().push(chain);
                l
            },
            "filter_chains[1]: filter chain '' has the same matching rules",
        ),
        (CLUSTER, json!({}), "name: is required"),
        (
            CLUSTER,
            json!({ "name": "c", "type": "EDS" }),
            "eds_cluster_config: is required",
        ),
        (
            CLUSTER,
            json!({ "name": "c", "type": "EDS", "eds_cluster_config": { "eds_config": { "path": "/x" } } }),
            "eds_cluster_config.eds_config.path: /x: ",
        ),
        (
            CLUSTER,
            json!({ "name": "c", "type": "ORIGINAL_DST" }),
            "lb_policy: ORIGINAL_DST clusters need CLUSTER_PROVIDED",
        ),
        (
            CLUSTER,
            json!({ "name": "c", "lb_policy": "MAGLEV", "maglev_lb_config": { "table_size": 10 } }),
            "maglev_lb_config.table_size: must be a prime",
        ),
        (
            CLUSTER,
            json!({ "name": "c", "connect_timeout": "-1s" }),
            "connect_timeout: a duration must not be negative",
        ),
        (
            CLUSTER,
            json!({ "name": "c", "health_checks": [{}] }),
            "health_checks[0].interval: is required",
        ),
        (
            CLUSTER,
            json!({ "name": "c", "transport_socket": { "name": "tls", "typed_config": { "@type": typed_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": { "validation_context": { "trusted_ca": { "filename": "/no/such" } } } } } }),
            "transport_socket.typed_config.common_tls_context.validation_context.trusted_ca.filename: /no/such",
        ),
        (
            ROUTES,
            json!({ "name": "t", "virtual_hosts": [{ "name": "v", "domains": [] }] }),
            "virtual_hosts[0].domains: at least one",
        ),
        (
            ROUTES,
            json!({ "name": "t", "virtual_hosts": [{ "name": "v", "domains": ["a", "A"] }] }),
            "virtual_hosts: only unique values for domains are permitted",
        ),
        (
            ROUTES,
            json!({ "name": "t", "virtual_hosts": [{ "name": "v", "domains": ["a*b*"] }] }),
            "virtual_hosts[0].domains[0]: `a*b*`",
        ),
        (
            ROUTES,
            route(json!({ "match": { "prefix": "/" } })),
            "virtual_hosts[0].routes[0]: an action is required",
        ),
        (
            ROUTES,
            route(json!({ "match": {}, "redirect": {} })),
            "virtual_hosts[0].routes[0].match: a path specifier",
        ),
        (
            ROUTES,
            route(json!({ "match": { "safe_regex": { "regex": "(" } }, "redirect": {} })),
            "virtual_hosts[0].routes[0].match.safe_regex.regex: regex `(`",
        ),
        (
            ROUTES,
            go(json!({ "weighted_clusters": { "clusters": [{ "name": "a", "weight": 0 }] } })),
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters: the sum of weights",
        ),
        (
            ROUTES,
            go(
                json!({ "cluster": "a", "regex_rewrite": { "pattern": { "regex": "a" }, "substitution": "\\2" } }),
            ),
            "virtual_hosts[0].routes[0].route.regex_rewrite.substitution: \\2 is more",
        ),
        (
            ROUTES,
            route(json!({ "match": { "prefix": "/" }, "direct_response": { "status": 99 } })),
            "virtual_hosts[0].routes[0].direct_response.status: must be 200 to 599",
        ),
        (
            ROUTES,
            route(
                json!({ "match": { "prefix": "/" }, "redirect": {}, "request_headers_to_add": [{ "header": { "key": "a b", "value": "x" } }] }),
            ),
            "virtual_hosts[0].routes[0].request_headers_to_add[0].header.key: `a b` is no header name",
        ),
        (
            ROUTES,
            route(
                json!({ "match": { "prefix": "/" }, "redirect": {}, "request_headers_to_remove": [":path"] }),
            ),
            "virtual_hosts[0].routes[0].request_headers_to_remove[0]: :-prefixed or host headers may not be removed",
        ),
        (
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            json!({ "cluster_name": "c", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
                "socket_address": { "address": "bad.host", "port_value": 80 } } } }] }] }),
            "endpoints[0].lb_endpoints[0].endpoint.address: malformed IP address: bad.host",
        ),
        (
            "envoy.config.cluster.v3.Cluster",
            json!({ "name": "c", "type": "STATIC", "load_assignment": { "cluster_name": "c", "endpoints": [
                { "lb_endpoints": [{ "endpoint": { "address": {
                "socket_address": { "address": "bad.host", "port_value": 80 } } } }] }] } }),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address: malformed IP address: bad.host",
        ),
        (
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            json!({ "cluster_name": "c", "endpoints": [{ "lb_endpoints": [{ "endpoint": {} }] }] }),
            "endpoints[0].lb_endpoints[0].endpoint.address: is required",
        ),
        (
            "envoy.extensions.transport_sockets.tls.v3.Secret",
            json!({ "name": "s" }),
            "a secret needs one of",
        ),
    ]
}

/// Fields that are well-formed and of which the engine does nothing.
fn not_done() -> Vec<(&'static str, Value, &'static str)> {
    let with = |extra: Value| {
        let mut value = json!({ "name": "c", "connect_timeout": "1s" });
        for (k, v) in extra.as_object().unwrap() {
            value[k] = v.clone();
        }
        value
    };
    let route = |action: Value| {
        json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": action }] }] })
    };
    let options = |extra: Value| {
        with(
            json!({ "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
        { "@type": typed_url("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
          "explicit_http_config": { "http_protocol_options": {} }, "common_http_protocol_options": extra } } }),
        )
    };
    let manager = |extra: Value| listener_with(hcm(extra, json!([router()])));
    const MANAGER: &str = "filter_chains[0].filters[0].typed_config";
    let in_manager = |field: &str| -> &'static str { format!("{MANAGER}.{field}: is not").leak() };
    let mut original_src = manager(json!({}));
    original_src["listener_filters"] = json!([{ "name": "s", "typed_config":
        { "@type": typed_url("envoy.extensions.filters.listener.original_src.v3.OriginalSrc"), "bind_port": true } }]);
    vec![
        (
            CLUSTER,
            with(json!({ "connection_pool_per_downstream_connection": true })),
            "connection_pool_per_downstream_connection: is not",
        ),
        (
            CLUSTER,
            with(json!({ "close_connections_on_host_health_failure": true })),
            "close_connections_on_host_health_failure: is not",
        ),
        (
            CLUSTER,
            with(json!({ "common_lb_config": { "close_connections_on_host_set_change": true } })),
            "common_lb_config.close_connections_on_host_set_change: is not",
        ),
        (
            CLUSTER,
            with(json!({ "circuit_breakers": { "thresholds": [{ "max_connection_pools": 3 }] } })),
            "circuit_breakers.thresholds[0].max_connection_pools: is not",
        ),
        (
            CLUSTER,
            options(json!({ "max_headers_count": 50 })),
            "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"].common_http_protocol_options.max_headers_count: is not",
        ),
        (
            CLUSTER,
            with(json!({ "lb_subset_config": { "scale_locality_weight": true } })),
            "lb_subset_config.scale_locality_weight: is not",
        ),
        (
            CLUSTER,
            with(json!({ "lb_subset_config": { "subset_selectors": [
                { "keys": ["a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"] }] } })),
            "lb_subset_config.subset_selectors[0].fallback_keys_subset: must be some of keys",
        ),
        (
            ROUTES,
            route(
                json!({ "cluster": "c", "internal_redirect_policy": { "predicates": [{ "typed_config": { "@type": typed_url("envoy.extensions.internal_redirect.filter_state.v3.FilterStateConfig") } }] } }),
            ),
            "virtual_hosts[0].routes[0].route.internal_redirect_policy.predicates[0].typed_config: `envoy",
        ),
        (
            ROUTES,
            route(
                json!({ "cluster": "c", "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": { "allow_post": true } }] }),
            ),
            "virtual_hosts[0].routes[0].route.upgrade_configs[0].connect_config.allow_post: is not",
        ),
        (
            LISTENER,
            manager(json!({ "access_log_options": { "access_log_flush_interval": "5s" } })),
            in_manager("access_log_options.access_log_flush_interval"),
        ),
        (
            LISTENER,
            manager(json!({ "proxy_status_config": {} })),
            in_manager("proxy_status_config"),
        ),
        (
            LISTENER,
            manager(
                json!({ "http_protocol_options": { "header_key_format": { "stateful_formatter": { "name": "x",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } } } } }),
            ),
            in_manager("http_protocol_options.header_key_format.stateful_formatter.typed_config"),
        ),
        (
            LISTENER,
            manager(json!({ "http2_protocol_options": { "allow_metadata": true } })),
            in_manager("http2_protocol_options.allow_metadata"),
        ),
        (
            LISTENER,
            original_src,
            "listener_filters[0].typed_config.bind_port: is not",
        ),
        (
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            json!({ "cluster_name": "c", "policy": { "drop_overloads": [{ "category": "x", "drop_percentage": { "numerator": 1 } }, { "category": "y" }] } }),
            "policy.drop_overloads: has 2",
        ),
    ]
}

#[test]
fn refusals_name_the_field() {
    for (message, value, want) in refusals().into_iter().chain(not_done()) {
        let bytes = wire(message, &value);
        let c = Context::empty();
        let error = match message {
            LISTENER => listener(&bytes, &c).map(|_| ()),
            CLUSTER => cluster(&bytes, &c, true).map(|_| ()),
            ROUTES => routes(&bytes, &c).map(|_| ()),
            m if m.ends_with("Secret") => secret(&bytes, &c).map(|_| ()),
            _ => endpoints(&bytes).map(|_| ()),
        };
        let text = error.expect_err(want).to_string();
        assert!(text.starts_with(want), "\n got {text}\nwant {want}");
    }
}

#[test]
fn access_control_and_header_filters() {
    let filters = json!([
        { "name": "envoy.filters.http.rbac", "typed_config": { "@type": typed_url("envoy.extensions.filters.http.rbac.v3.RBAC"),
            "rules": { "action": "DENY", "policies": {
                "ns[default]-policy[b]-rule[0]": { "permissions": [{ "and_rules": { "rules": [{ "or_rules": { "rules": [{ "url_path": { "path": { "prefix": "/admin" } } }] } }] } }],
                    "principals": [{ "and_ids": { "ids": [{ "any": true }] } }] },
                "ns[default]-policy[a]-rule[0]": { "permissions": [{ "any": true }], "principals": [{ "authenticated": { "principal_name": { "suffix": "/x" } } }] } } } } },
        { "name": "hm", "typed_config": { "@type": typed_url("envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"),
            "mutations": { "request_mutations": [{ "remove": "x-a" }, { "append": { "header": { "key": "x-b", "value": "1" } } }] } } },
        router(),
    ]);
    let d = listener(
        &wire(LISTENER, &listener_with(hcm(json!({}), filters))),
        &Context::empty(),
    )
    .unwrap();
    let NetworkFilter::HttpConnectionManager(h) = &d.listener.filter_chains[0].filters[0] else {
        panic!("an HCM")
    };
    let HttpFilterConfig::Rbac(rbac) = &h.http_filters[0].config else {
        panic!("RBAC")
    };
    let headers: &[(&str, &str)] = &[(":path", "/admin/x")];
    let facts = lateen_proxy_core::rbac::Facts {
        headers: Some(headers),
        path: Some(b"/admin/x"),
        destination: None,
        server_name: "",
        direct_remote: None,
        remote: None,
        peer: None,
        metadata: &|_| None,
        filter_state: &|_| None,
    };
    let verdict = lateen_proxy_core::rbac::judge(rbac, &facts);
    assert_eq!(
        verdict.details(),
        "rbac_access_denied_matched_policy[ns[default]-policy[b]-rule[0]]"
    );
    assert!(!verdict.allowed);
    let HttpFilterConfig::HeaderMutation(m) = &h.http_filters[1].config else {
        panic!("mutation")
    };
    assert_eq!(m.request.len(), 2);
}

#[test]
fn broken_bytes_are_an_error() {
    assert!(
        listener(&[0x0a, 0xff], &Context::empty())
            .unwrap_err()
            .to_string()
            .starts_with("malformed message")
    );
}

#[test]
fn envoys_default_cluster() {
    let c = cluster(
        &wire(CLUSTER, &json!({ "name": "c" })),
        &Context::empty(),
        true,
    )
    .unwrap()
    .cluster;
    assert_eq!(c.connect_timeout, Duration::from_secs(5));
    assert_eq!(c.http.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(c.lb_common.healthy_panic_threshold, 50.0);
    assert!(matches!(c.lb_policy, LbPolicy::RoundRobin(_)));
}

/// Damages a message: sets bytes, cuts it, repeats its start.
fn damaged(bytes: &[u8], edits: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for (at, byte) in edits {
        let len = out.len();
        out[at % len] = *byte;
    }
    out.truncate(out.len() - cut % out.len());
    out
}

proptest::proptest! {
    #[test]
    fn damaged_messages_are_errors_not_panics(
        edits in proptest::collection::vec((0..4096_usize, proptest::prelude::any::<u8>()), 0..6),
        cut in 0..64_usize,
    ) {
        let c = Context::empty();
        let bytes = wire(LISTENER, &listener_with(hcm(json!({}), istio_filters())));
        let _ = listener(&damaged(&bytes, &edits, cut), &c);
        for (message, value, _) in refusals().into_iter().filter(|(m, _, _)| *m != LISTENER) {
            let bytes = wire(message, &value);
            if bytes.is_empty() {
                continue;
            }
            let bytes = damaged(&bytes, &edits, cut);
            let _ = cluster(&bytes, &c, true);
            let _ = routes(&bytes, &c);
            let _ = endpoints(&bytes);
            let _ = secret(&bytes, &c);
        }
    }
}

#[test]
fn wrappers_do_not_nest() {
    let url = typed_url("envoy.config.route.v3.FilterConfig");
    let inner = json!({ "@type": url, "disabled": true });
    let table = json!({ "name": "t", "virtual_hosts": [{ "name": "v", "domains": ["*"],
        "typed_per_filter_config": { "x": { "@type": url, "config": inner } } }] });
    let error = routes(&wire(ROUTES, &table), &Context::empty()).unwrap_err();
    assert!(error.to_string().contains("inside another"), "{error}");
}

#[test]
fn priorities_may_have_gaps() {
    let name = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    let value = json!({ "cluster_name": "c", "endpoints": [{ "priority": 2 }, { "priority": 5 }] });
    let decoded = endpoints(&wire(name, &value)).unwrap();
    let priorities = decoded.localities.iter().map(|l| l.priority);
    assert_eq!(priorities.collect::<Vec<_>>(), [2, 5]);
}
