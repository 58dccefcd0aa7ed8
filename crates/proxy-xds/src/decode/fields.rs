//! Every field of the messages about clusters and endpoints is read, refused, or
//! stands in a list with the reason why it has no effect: nothing is passed over.
//! The lists of fields are the messages' own: a new one does not compile.

use lateen_xds_proto::envoy::config::cluster::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::endpoint::v3 as ep;
use lateen_xds_proto::envoy::extensions::load_balancing_policies as policy;
use lateen_xds_proto::envoy::extensions::transport_sockets::proxy_protocol::v3 as told;
use lateen_xds_proto::envoy::extensions::upstreams::http::v3 as upstream;
use lateen_xds_proto::json;
use serde_json::{Value, json};

use super::{Context, cluster};

/// A field, and JSON that sets it to what it is not by itself.
type Samples = Vec<(&'static str, Value)>;

/// The fields of a message with a sample each; a field that is not listed here
/// is an error of compilation. A sample of `{...}` in a `oneof` names its member.
macro_rules! samples {
    ($message:path { $($field:ident: $sample:tt),* $(,)? } $(one of { $($choice:ident: [$($member:tt),*]),* })?) => {{
        let $message { $($field: _,)* $($($choice: _,)*)? } = <$message>::default();
        let all: Samples = vec![$((stringify!($field), json!({ stringify!($field): $sample }))),*];
        $($(let all: Samples = all
            .into_iter()
            .chain([$((stringify!($choice), json!($member))),*])
            .collect();)*)?
        all
    }};
}

fn url(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

/// Puts the fields of one object into another.
fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

fn decoded(value: &Value) -> Result<String, String> {
    let bytes = json::to_wire("envoy.config.cluster.v3.Cluster", value)
        .map_err(|e| format!("sample: {e}"))?;
    let decoded = cluster(&bytes, &Context::empty(), false).map_err(|e| e.to_string())?;
    Ok(format!("{decoded:?}"))
}

/// What is accepted without effect, and why.
#[rustfmt::skip]
const IGNORED: &[(&str, &str)] = &[
    ("Cluster.cleanup_interval", "a host of the original destination goes when nobody uses it"),
    ("ZoneAwareLbConfig.routing_enabled", "there is no local cluster (bootstrap)"),
    ("ZoneAwareLbConfig.min_cluster_size", "there is no local cluster (bootstrap)"),
    ("typed.ZoneAwareLbConfig.routing_enabled", "there is no local cluster (bootstrap)"),
    ("typed.ZoneAwareLbConfig.min_cluster_size", "there is no local cluster (bootstrap)"),
    (
        "Cluster.ignore_health_on_host_removal",
        "a host that discovery no longer names is never used (docs/differences.md)",
    ),
    (
        "CommonLbConfig.update_merge_window",
        "every change of endpoints takes effect at once",
    ),
    (
        "Http1ProtocolOptions.use_balsa_parser",
        "there is one parser",
    ),
    (
        "Http1ProtocolOptions.allow_absolute_url",
        "about requests that come",
    ),
    (
        "Http2ProtocolOptions.use_oghttp2_codec",
        "there is one codec",
    ),
    (
        "Http2ProtocolOptions.stream_error_on_invalid_http_messaging",
        "a malformed message resets its stream only, always",
    ),
    (
        "KeepaliveSettings.interval_jitter",
        "spreads the PINGs of many connections; ours begin when each opens",
    ),
    (
        "CaresDnsResolverConfig.udp_max_queries",
        "every question has a socket of its own",
    ),
    (
        "CaresDnsResolverConfig.max_udp_channel_duration",
        "every question has a socket of its own",
    ),
    (
        "CaresDnsResolverConfig.reinit_channel_on_timeout",
        "every question has a socket of its own",
    ),
    (
        "CaresDnsResolverConfig.edns0_max_payload_size",
        "no EDNS record is sent; what does not fit comes over TCP",
    ),
    (
        "EdsClusterConfig.eds_config",
        "the base has ADS; files have tests of their own, others are refused",
    ),
];

fn check(message: &str, base: &Value, samples: Samples, place: impl Fn(Value) -> Value) {
    let mut before = base.clone();
    merge(&mut before, &place(json!({})));
    let before = decoded(&before).unwrap_or_else(|e| panic!("{message}: {e}"));
    for (field, sample) in samples {
        let mut value = base.clone();
        merge(&mut value, &place(sample.clone()));
        let key = format!("{message}.{field}");
        let ignored = IGNORED.iter().any(|(name, _)| *name == key);
        match decoded(&value) {
            Err(error) => {
                let leaf = sample.as_object().and_then(|o| o.keys().next()).unwrap();
                let named = error.contains(leaf.as_str()) && !error.starts_with("sample");
                assert!(named && !ignored, "{key}: {error}");
            }
            Ok(after) => assert_eq!(
                after == before,
                ignored,
                "{key} = {sample} has no effect, or is said to have none"
            ),
        }
    }
}

fn address(text: &str) -> Value {
    json!({ "socket_address": { "address": text, "port_value": 80 } })
}

fn assignment(fields: Value) -> Value {
    let mut all = json!({ "cluster_name": "c", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address("10.0.0.1") } }] }] });
    merge(&mut all, &fields);
    json!({ "load_assignment": all })
}

fn locality(fields: Value) -> Value {
    let mut all = json!({ "lb_endpoints": [{ "endpoint": { "address": address("10.0.0.1") } }] });
    merge(&mut all, &fields);
    assignment(json!({ "endpoints": [all] }))
}

fn lb_endpoint(fields: Value) -> Value {
    let mut all = json!({ "endpoint": { "address": address("10.0.0.1") } });
    merge(&mut all, &fields);
    locality(json!({ "lb_endpoints": [all] }))
}

fn endpoint(fields: Value) -> Value {
    let mut all = json!({ "address": address("10.0.0.1") });
    merge(&mut all, &fields);
    lb_endpoint(json!({ "endpoint": all }))
}

fn extension(name: &str, fields: Value) -> Value {
    let mut all = json!({ "@type": url(name) });
    merge(&mut all, &fields);
    json!({ "name": "x", "typed_config": all })
}

fn statically() -> Value {
    json!({ "name": "c" })
}

fn dns() -> Value {
    json!({ "name": "c", "type": "STRICT_DNS" })
}

#[test]
fn cluster_fields() {
    let samples = samples!(pb::Cluster {
        transport_socket_matches: [{ "name": "m", "transport_socket": { "name": "raw_buffer" } }],
        transport_socket_matcher: { "on_no_match": {} },
        name: "other",
        alt_stat_name: "other",
        stats_matcher: { "reject_all": true },
        eds_cluster_config: { "service_name": "s" },
        connect_timeout: "1s",
        per_connection_buffer_limit_bytes: 1,
        per_connection_buffer_high_watermark_timeout: "1s",
        lb_policy: "RANDOM",
        load_assignment: { "cluster_name": "c" },
        health_checks: [{ "timeout": "1s", "interval": "1s", "healthy_threshold": 1, "unhealthy_threshold": 1, "tcp_health_check": {} }],
        max_requests_per_connection: 1,
        circuit_breakers: { "thresholds": [{ "max_requests": 1 }] },
        upstream_http_protocol_options: { "auto_sni": true },
        common_http_protocol_options: { "idle_timeout": "1s" },
        http_protocol_options: { "enable_trailers": true },
        http2_protocol_options: {},
        typed_extension_protocol_options: { "x": { "@type": "type.googleapis.com/google.protobuf.Empty" } },
        dns_refresh_rate: "1s",
        dns_jitter: "1s",
        dns_failure_refresh_rate: { "base_interval": "1s" },
        respect_dns_ttl: true,
        dns_lookup_family: "V4_ONLY",
        dns_resolvers: [{ "socket_address": { "address": "10.0.0.1", "port_value": 80 } }],
        use_tcp_for_dns_lookups: true,
        dns_resolution_config: { "dns_resolver_options": { "use_tcp_for_dns_lookups": true } },
        typed_dns_resolver_config: { "name": "x", "typed_config":
            { "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" } },
        wait_for_warm_on_init: false,
        outlier_detection: {},
        cleanup_interval: "1s",
        upstream_bind_config: {},
        lb_subset_config: {},
        common_lb_config: { "healthy_panic_threshold": { "value": 1.0 } },
        transport_socket: { "name": "unknown" },
        metadata: { "filter_metadata": { "a": { "b": "c" } } },
        protocol_selection: "USE_DOWNSTREAM_PROTOCOL",
        upstream_connection_options: { "tcp_keepalive": {} },
        close_connections_on_host_health_failure: true,
        ignore_health_on_host_removal: true,
        filters: [{ "name": "f" }],
        load_balancing_policy: {},
        lrs_server: { "self": {} },
        lrs_report_endpoint_metrics: ["a"],
        track_timeout_budgets: true,
        upstream_config: { "name": "u" },
        track_cluster_stats: { "timeout_budgets": true },
        preconnect_policy: {},
        connection_pool_per_downstream_connection: true,
        queuing_policies: {},
    } one of {
        cluster_discovery_type: [{ "type": "STRICT_DNS" }, { "cluster_type": { "name": "t" } }],
        lb_config: [{ "round_robin_lb_config": { "slow_start_config": { "slow_start_window": "1s" } } }]
    });
    let (original, rest): (Vec<_>, Vec<_>) = samples
        .into_iter()
        .partition(|(f, _)| *f == "cleanup_interval");
    let kind = |(field, _): &(&'static str, Value)| *field == "cluster_discovery_type";
    let (kinds, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(kind);
    check("Cluster", &statically(), kinds, |fields| fields);
    check("Cluster", &dns(), rest, |fields| fields);
    let base = json!({ "name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED" });
    check("Cluster", &base, original, |fields| fields);
}

#[test]
fn parts_of_clusters() {
    let samples = samples!(pb::cluster::CommonLbConfig {
        healthy_panic_threshold: { "value": 1.0 },
        update_merge_window: "1s",
        ignore_new_hosts_until_first_hc: true,
        close_connections_on_host_set_change: true,
        consistent_hashing_lb_config: { "hash_balance_factor": 150 },
        override_host_status: { "statuses": ["HEALTHY"] },
    } one of { locality_config_specifier: [{ "zone_aware_lb_config": {} }, { "locality_weighted_lb_config": {} }] });
    check(
        "CommonLbConfig",
        &statically(),
        samples,
        |f| json!({ "common_lb_config": f }),
    );
    let samples = samples!(pb::circuit_breakers::Thresholds {
        priority: "HIGH",
        max_connections: 1,
        max_pending_requests: 1,
        max_requests: 1,
        max_retries: 1,
        retry_budget: {},
        track_remaining: true,
        max_connection_pools: 1,
    });
    check("Thresholds", &statically(), samples, |mut f| {
        f["max_requests"] = f.get("max_requests").cloned().unwrap_or(json!(7));
        json!({ "circuit_breakers": { "thresholds": [f] } })
    });
    let samples = samples!(pb::circuit_breakers::thresholds::RetryBudget {
        budget_percent: { "value": 1.0 },
        budget_interval: "1s",
        min_retry_concurrency: 1,
    });
    check(
        "RetryBudget",
        &statically(),
        samples,
        |f| json!({ "circuit_breakers": { "thresholds": [{ "retry_budget": f }] } }),
    );
    let samples = samples!(pb::CircuitBreakers {
        thresholds: [{ "max_retries": 1 }],
        per_host_thresholds: [{ "max_connections": 1 }],
    });
    check(
        "CircuitBreakers",
        &statically(),
        samples,
        |f| json!({ "circuit_breakers": f }),
    );
    let samples = samples!(pb::TrackClusterStats {
        timeout_budgets: true,
        request_response_sizes: true,
        per_endpoint_stats: true,
    });
    for (_, sample) in samples {
        let error = decoded(&json!({ "name": "c", "track_cluster_stats": sample })).unwrap_err();
        assert!(error.contains("track_cluster_stats"), "{error}");
    }
    let samples = samples!(pb::UpstreamConnectionOptions {
        tcp_keepalive: { "keepalive_probes": 1 },
        set_local_interface_name_on_upstream_connections: true,
        happy_eyeballs_config: {},
    });
    check(
        "UpstreamConnectionOptions",
        &statically(),
        samples,
        |f| json!({ "upstream_connection_options": f }),
    );
    let samples = samples!(core::TcpKeepalive {
        keepalive_probes: 1,
        keepalive_time: 1,
        keepalive_interval: 1,
    });
    check(
        "TcpKeepalive",
        &statically(),
        samples,
        |f| json!({ "upstream_connection_options": { "tcp_keepalive": f } }),
    );
    let samples = samples!(core::BindConfig {
        source_address: { "address": "127.0.0.1", "port_value": 0 },
        freebind: true,
        socket_options: [{ "level": 1, "name": 2, "int_value": 3 }],
        extra_source_addresses: [{ "address": { "address": "::1", "port_value": 0 } }],
        additional_source_addresses: [{ "address": "::1", "port_value": 0 }],
        local_address_selector: { "name": "x" },
        validate_network_namespaces: true,
    });
    check(
        "BindConfig",
        &statically(),
        samples,
        |f| json!({ "upstream_bind_config": f }),
    );
    let samples = samples!(core::ExtraSourceAddress {
        address: { "address": "::2", "port_value": 0 },
        socket_options: {},
    });
    check("ExtraSourceAddress", &statically(), samples, |mut f| {
        f["address"] = f
            .get("address")
            .cloned()
            .unwrap_or(json!({ "address": "::1", "port_value": 0 }));
        json!({ "upstream_bind_config": { "extra_source_addresses": [f] } })
    });
    let samples = samples!(pb::cluster::TransportSocketMatch {
        name: "n",
        r#match: { "a": "b" },
        transport_socket: { "name": "x" },
    });
    let named = |(field, mut sample): (&'static str, Value)| {
        let member = sample.as_object_mut().unwrap().remove("r#match");
        merge(
            &mut sample,
            &member.map_or(json!({}), |m| json!({ "match": m })),
        );
        (field, sample)
    };
    let (name, samples): (Vec<_>, Vec<_>) = samples
        .into_iter()
        .map(named)
        .partition(|(f, _)| *f == "name");
    assert_eq!(name.len(), 1);
    check(
        "TransportSocketMatch",
        &statically(),
        samples,
        |f| json!({ "transport_socket_matches": [f] }),
    );
}

#[test]
fn outlier_fields() {
    let samples = samples!(pb::OutlierDetection {
        consecutive_5xx: 1,
        interval: "1s",
        base_ejection_time: "1s",
        max_ejection_percent: 1,
        enforcing_consecutive_5xx: 1,
        enforcing_success_rate: 1,
        success_rate_minimum_hosts: 1,
        success_rate_request_volume: 1,
        success_rate_stdev_factor: 1,
        consecutive_gateway_failure: 1,
        enforcing_consecutive_gateway_failure: 1,
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: 1,
        enforcing_consecutive_local_origin_failure: 1,
        enforcing_local_origin_success_rate: 1,
        failure_percentage_threshold: 1,
        enforcing_failure_percentage: 1,
        enforcing_failure_percentage_local_origin: 1,
        failure_percentage_minimum_hosts: 1,
        failure_percentage_request_volume: 1,
        max_ejection_time: "400s",
        max_ejection_time_jitter: "1s",
        successful_active_health_check_uneject_host: false,
        monitors: [{ "name": "m" }],
        always_eject_one_host: true,
        detect_degraded_hosts: true,
    });
    check(
        "OutlierDetection",
        &statically(),
        samples,
        |f| json!({ "outlier_detection": f }),
    );
}

#[test]
fn proxy_protocol_fields() {
    let socket = |mut f: Value| {
        f["@type"] = url(
            "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        )
        .into();
        if f.get("transport_socket").is_none() {
            f["transport_socket"] = json!({ "name": "raw_buffer" });
        }
        json!({ "transport_socket": { "name": "p", "typed_config": f } })
    };
    let samples = samples!(told::ProxyProtocolUpstreamTransport {
        config: { "version": "V2" },
        transport_socket: { "name": "x" },
        allow_unspecified_address: true,
        tlv_as_pool_key: true,
    });
    check(
        "ProxyProtocolUpstreamTransport",
        &statically(),
        samples,
        socket,
    );
    let samples = samples!(core::ProxyProtocolConfig {
        version: "V2",
        pass_through_tlvs: {},
        added_tlvs: [{ "type": 1, "value": "AA==" }],
    });
    check("ProxyProtocolConfig", &statically(), samples, |f| {
        socket(json!({ "config": f }))
    });
}

#[test]
fn endpoint_fields() {
    let samples = samples!(ep::ClusterLoadAssignment {
        cluster_name: "d",
        endpoints: [],
        named_endpoints: { "e": {} },
        policy: { "overprovisioning_factor": 200 },
    });
    check("ClusterLoadAssignment", &statically(), samples, assignment);
    let samples = samples!(ep::cluster_load_assignment::Policy {
        drop_overloads: [{ "category": "c", "drop_percentage": { "numerator": 1 } }],
        overprovisioning_factor: 200,
        endpoint_stale_after: "1s",
        weighted_priority_health: true,
    });
    check("Policy", &statically(), samples, |f| {
        assignment(json!({ "policy": f }))
    });
    let samples = samples!(ep::LocalityLbEndpoints {
        locality: { "zone": "z" },
        metadata: { "filter_metadata": { "a": { "b": "c" } } },
        lb_endpoints: [],
        load_balancing_weight: 2,
        priority: 1,
        proximity: 1,
    } one of { lb_config: [{ "leds_cluster_locality_config": {} }, { "load_balancer_endpoints": {} }] });
    let (lists, rest): (Vec<_>, Vec<_>) = samples.into_iter().partition(|(f, _)| *f == "lb_config");
    check("LocalityLbEndpoints", &statically(), rest, locality);
    for (_, sample) in lists {
        assert!(decoded(&merged(statically(), locality(sample))).is_err());
    }
    let samples = samples!(ep::LbEndpoint {
        health_status: "DRAINING",
        metadata: { "filter_metadata": { "a": { "b": "c" } } },
        load_balancing_weight: 2,
    } one of { host_identifier: [{ "endpoint": { "hostname": "h", "address": { "pipe": { "path": "/p" } } } }] });
    check("LbEndpoint", &statically(), samples, lb_endpoint);
    assert!(
        decoded(&merged(
            statically(),
            locality(json!({ "lb_endpoints": [{ "endpoint_name": "e" }] }))
        ))
        .is_err()
    );
    let samples = samples!(ep::Endpoint {
        address: { "pipe": { "path": "/p" } },
        health_check_config: { "port_value": 1 },
        hostname: "h",
        additional_addresses: [{ "address": { "pipe": { "path": "/p" } } }],
        observability_name: "o",
    });
    check("Endpoint", &statically(), samples, endpoint);
    let samples = samples!(ep::endpoint::HealthCheckConfig {
        port_value: 1,
        hostname: "h",
        address: { "pipe": { "path": "/p" } },
        disable_active_health_check: true,
    });
    check("HealthCheckConfig", &statically(), samples, |f| {
        endpoint(json!({ "health_check_config": f }))
    });
    let samples = samples!(core::SocketAddress {
        protocol: "UDP",
        address: "10.0.0.2",
        resolver_name: "r",
        ipv4_compat: true,
        network_namespace_filepath: "/n",
    } one of { port_specifier: [{ "port_value": 81 }, { "named_port": "p" }] });
    let samples: Samples = samples
        .into_iter()
        .filter(|(f, _)| *f != "ipv4_compat")
        .collect();
    check("SocketAddress", &statically(), samples, |f| {
        let mut socket = json!({ "address": "10.0.0.1" });
        if f.get("named_port").is_none() {
            socket["port_value"] = json!(80);
        }
        merge(&mut socket, &f);
        endpoint(json!({ "address": { "socket_address": socket } }))
    });
}

fn merged(mut into: Value, from: Value) -> Value {
    merge(&mut into, &from);
    into
}

fn http_options(fields: Value) -> Value {
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut all = json!({ "@type": url(name) });
    merge(&mut all, &fields);
    if all.get("use_downstream_protocol_config").is_none()
        && all.get("auto_config").is_none()
        && all.get("explicit_http_config").is_none()
    {
        all["explicit_http_config"] = json!({ "http_protocol_options": {} });
    }
    json!({ "typed_extension_protocol_options": { name: all } })
}

#[test]
fn http_fields() {
    let samples = samples!(upstream::HttpProtocolOptions {
        common_http_protocol_options: { "idle_timeout": "1s" },
        upstream_http_protocol_options: { "auto_sni": true },
        http_filters: [{ "name": "f" }],
        header_validation_config: { "name": "v" },
        outlier_detection: {},
        request_mirror_policies: [{ "cluster": "c" }],
        hash_policy: [{ "header": { "header_name": "h" } }],
        retry_policy: {},
    } one of { upstream_protocol_options: [
        { "explicit_http_config": { "http2_protocol_options": {} } },
        { "use_downstream_protocol_config": {} },
        { "auto_config": {} }] });
    check("HttpProtocolOptions", &statically(), samples, http_options);
    let samples = samples!(core::UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: true,
        override_auto_sni_header: "h",
    });
    check("UpstreamHttpProtocolOptions", &statically(), samples, |f| {
        http_options(json!({ "upstream_http_protocol_options": f }))
    });
    let samples = samples!(core::HttpProtocolOptions {
        idle_timeout: "1s",
        max_connection_duration: "1s",
        max_connection_duration_jitter: { "value": 1.0 },
        max_headers_count: 99,
        max_response_headers_kb: 1,
        max_stream_duration: "1s",
        headers_with_underscores_action: "REJECT_REQUEST",
        max_requests_per_connection: 1,
    });
    check("core.HttpProtocolOptions", &statically(), samples, |f| {
        http_options(json!({ "common_http_protocol_options": f }))
    });
    let samples = samples!(core::Http1ProtocolOptions {
        allow_absolute_url: false,
        accept_http_10: true,
        default_host_for_http_10: "h",
        header_key_format: { "proper_case_words": {} },
        enable_trailers: true,
        allow_chunked_length: true,
        override_stream_error_on_invalid_http_message: true,
        send_fully_qualified_url: true,
        use_balsa_parser: true,
        allow_custom_methods: true,
        ignore_http_11_upgrade: [{ "exact": "x" }],
    });
    check("Http1ProtocolOptions", &statically(), samples, |f| {
        http_options(json!({ "explicit_http_config": { "http_protocol_options": f } }))
    });
    let samples = samples!(core::Http2ProtocolOptions {
        hpack_table_size: 1,
        max_concurrent_streams: 1,
        initial_stream_window_size: 65535,
        initial_connection_window_size: 65535,
        allow_connect: true,
        allow_metadata: true,
        max_outbound_frames: 1,
        max_outbound_control_frames: 1,
        max_consecutive_inbound_frames_with_empty_payload: 7,
        max_inbound_priority_frames_per_stream: 7,
        max_inbound_window_update_frames_per_data_frame_sent: 7,
        stream_error_on_invalid_http_messaging: true,
        override_stream_error_on_invalid_http_message: true,
        custom_settings_parameters: [{ "identifier": 9, "value": 1 }],
        connection_keepalive: { "interval": "1s", "timeout": "1s" },
        use_oghttp2_codec: true,
        max_metadata_size: 1,
        enable_huffman_encoding: false,
        max_header_field_size_kb: 1,
        disallow_obs_text: true,
        stream_reset_burst: 1,
        stream_reset_rate: 1,
    });
    check("Http2ProtocolOptions", &statically(), samples, |f| {
        http_options(json!({ "explicit_http_config": { "http2_protocol_options": f } }))
    });
    let samples = samples!(core::KeepaliveSettings {
        interval: "2s",
        timeout: "2s",
        interval_jitter: { "value": 1.0 },
        connection_idle_interval: "1s",
    });
    check("KeepaliveSettings", &statically(), samples, |f| {
        let keepalive = merged(json!({ "interval": "1s", "timeout": "1s" }), f);
        http_options(
            json!({ "explicit_http_config": { "http2_protocol_options": { "connection_keepalive": keepalive } } }),
        )
    });
    let samples = samples!(upstream::http_protocol_options::AutoHttpConfig {
        http_protocol_options: { "enable_trailers": true },
        http2_protocol_options: { "hpack_table_size": 1 },
        http3_protocol_options: {},
        alternate_protocols_cache_options: { "name": "a" },
    });
    check("AutoHttpConfig", &statically(), samples, |f| {
        http_options(json!({ "auto_config": f }))
    });
    let samples = samples!(upstream::http_protocol_options::UseDownstreamHttpConfig {
        http_protocol_options: { "enable_trailers": true },
        http2_protocol_options: { "hpack_table_size": 1 },
        http3_protocol_options: {},
    });
    check("UseDownstreamHttpConfig", &statically(), samples, |f| {
        http_options(json!({ "use_downstream_protocol_config": f }))
    });
}

fn health_check(fields: Value) -> Value {
    let mut all = json!({ "timeout": "1s", "interval": "1s", "healthy_threshold": 1, "unhealthy_threshold": 1 });
    merge(&mut all, &fields);
    let kinds = [
        "http_health_check",
        "grpc_health_check",
        "custom_health_check",
    ];
    if !kinds.iter().any(|kind| all.get(kind).is_some()) {
        all["tcp_health_check"] = fields.get("tcp_health_check").cloned().unwrap_or(json!({}));
    }
    json!({ "health_checks": [all] })
}

#[test]
fn health_check_fields() {
    let base = json!({ "name": "c", "http2_protocol_options": {} });
    #[expect(deprecated, reason = "every field is listed")]
    let samples = samples!(core::HealthCheck {
        timeout: "2s",
        interval: "2s",
        initial_jitter: "1s",
        interval_jitter: "1s",
        interval_jitter_percent: 1,
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        alt_port: 1,
        reuse_connection: false,
        no_traffic_interval: "1s",
        no_traffic_healthy_interval: "1s",
        unhealthy_interval: "2s",
        unhealthy_edge_interval: "2s",
        healthy_edge_interval: "2s",
        event_log_path: "/p",
        event_logger: [{ "name": "l" }],
        event_service: {},
        always_log_health_check_failures: true,
        always_log_health_check_success: true,
        tls_options: { "alpn_protocols": ["a"] },
        transport_socket_match_criteria: { "a": "b" },
    } one of { health_checker: [
        { "http_health_check": { "path": "/" } },
        { "tcp_health_check": { "send": { "text": "00" } } },
        { "grpc_health_check": {} },
        { "custom_health_check": { "name": "c" } }] });
    check("HealthCheck", &base, samples, health_check);
    let samples = samples!(core::health_check::HttpHealthCheck {
        host: "h",
        path: "/p",
        send: { "text": "00" },
        receive: [{ "text": "00" }],
        response_buffer_size: 1,
        request_headers_to_add: [{ "header": { "key": "k", "value": "v" } }],
        request_headers_to_remove: ["k"],
        expected_statuses: [{ "start": 201, "end": 202 }],
        retriable_statuses: [{ "start": 201, "end": 202 }],
        codec_client_type: "HTTP2",
        service_name_matcher: { "exact": "s" },
        method: "HEAD",
    });
    check("health_check.HttpHealthCheck", &base, samples, |f| {
        health_check(json!({ "http_health_check": merged(json!({ "path": "/" }), f) }))
    });
    let samples = samples!(core::health_check::TcpHealthCheck {
        send: { "text": "00" },
        receive: [{ "text": "00" }],
        proxy_protocol_config: {},
    });
    check("TcpHealthCheck", &base, samples, |f| {
        health_check(json!({ "tcp_health_check": f }))
    });
    let samples = samples!(core::health_check::GrpcHealthCheck {
        service_name: "s",
        authority: "a",
        initial_metadata: [{ "header": { "key": "k", "value": "v" } }],
    });
    check("GrpcHealthCheck", &base, samples, |f| {
        health_check(json!({ "grpc_health_check": f }))
    });
}

mod balancing;
mod names;
