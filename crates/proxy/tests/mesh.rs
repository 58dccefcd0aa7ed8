//! Istio's metrics, and what proxies tell each other, through a whole proxy.

mod support;

use serde_json::{Value, json};
use support::whole::*;
use support::*;

/// The value of the series of `name` that has all these labels.
fn series(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    page.lines().find_map(|line| {
        let (head, value) = line.rsplit_once(' ')?;
        let rest = head.strip_prefix(name)?.strip_prefix('{')?;
        let has = |(k, v): &(&str, &str)| rest.contains(&format!("{k}=\"{v}\""));
        labels.iter().all(has).then(|| value.parse().ok())?
    })
}

#[test]
fn istios_metrics_name_both_ends() {
    let upstream = Upstream::new(&[OK]);
    let (outbound, inbound, raw) = (free_address(), free_address(), free_address());
    let (options, [_, _, metrics]) = agent(upstream.address.port());
    let stats = |fallback: bool| {
        filter(
            "istio.stats",
            "stats.PluginConfig",
            json!({ "disable_host_header_fallback": !fallback }),
        )
    };
    let exchange = |value: Value| {
        json!({ "name": "istio.metadata_exchange", "typed_config": {
        "@type": url("udpa.type.v1.TypedStruct"), "type_url": url("io.istio.http.peer_metadata.Config"), "value": value } })
    };
    let headers = json!([{ "istio_headers": {} }]);
    let send = exchange(json!({ "upstream_discovery": headers, "upstream_propagation": headers }));
    let receive =
        exchange(json!({ "downstream_discovery": headers, "downstream_propagation": headers }));
    let routes = json!([
        { "match": { "prefix": "/far" }, "route": { "cluster": "far" } },
        { "match": { "prefix": "/" }, "route": { "cluster": "near" } } ]);
    let mut from = http(outbound, vec![send, stats(true)], routes, Value::Null);
    from["traffic_direction"] = json!("OUTBOUND");
    let mut to = http(
        inbound,
        vec![receive, stats(false)],
        everything(),
        Value::Null,
    );
    to["traffic_direction"] = json!("INBOUND");
    let tcp = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let raw_listener = json!({ "name": "raw", "address": socket(raw), "traffic_direction": "OUTBOUND",
        "filter_chains": [{ "filters": [stats(true), filter("tcp", tcp, json!({ "stat_prefix": "x", "cluster": "far" }))] }] });
    let named = |mut cluster: Value, host: &str| {
        let (name, namespace) = (
            host.split('.').next().unwrap(),
            host.split('.').nth(1).unwrap(),
        );
        cluster["metadata"] = json!({ "filter_metadata": { "istio": { "services": [{ "host": host, "name": name, "namespace": namespace }] } } });
        cluster
    };
    let mut far = named(
        static_cluster("far", upstream.address),
        "far.else.svc.cluster.local",
    );
    far["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] =
        json!({ "filter_metadata": { "istio": { "workload": "far-v7;else;far;v7;Other" } } });
    let clusters = json!([
        named(static_cluster("near", inbound), "a.shop.svc.cluster.local"),
        far,
        named(
            static_cluster("c", upstream.address),
            "a.shop.svc.cluster.local"
        ),
    ]);
    let _proxy = Proxy::start(json!([from, to, raw_listener]), clusters, Some(options));
    wait_for(raw);
    for _ in 0..3 {
        assert_eq!(status(&ask(outbound, &get("/"))), "200");
    }
    let far = ask(outbound, "GET /far HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(status(&far), "200");
    assert_eq!(header(&far, "x-envoy-peer-metadata"), None);
    let seen = upstream.requests();
    assert_eq!(
        header(&seen[0], "x-envoy-peer-metadata"),
        None,
        "not for the application"
    );
    assert!(
        header(&seen[3], "x-envoy-peer-metadata").is_some(),
        "for a peer's proxy"
    );
    let through = ask(raw, &get("/raw"));
    assert_eq!(status(&through), "200");

    let page = || {
        ask_all(
            metrics,
            b"GET /stats/prometheus HTTP/1.1\r\nhost: h\r\n\r\n",
        )
    };
    eventually("both connections are counted", || {
        series(&page(), "istio_tcp_connections_closed_total", &[]) == Some(2)
    });
    let page = page();
    let own_source = [
        ("source_workload", "a-v1"),
        ("source_workload_namespace", "shop"),
        ("source_app", "a"),
        ("source_version", "v1"),
        ("source_canonical_service", "a"),
        ("source_canonical_revision", "v1"),
        ("source_cluster", "Kubernetes"),
        ("source_principal", "unknown"),
    ];
    let http = [
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("response_flags", "-"),
    ];
    let told = [
        &own_source[..],
        &http,
        &[
            ("reporter", "source"),
            ("destination_workload", "a-v1"),
            ("destination_app", "a"),
            ("destination_service", "a.shop.svc.cluster.local"),
            ("destination_service_name", "a"),
            ("destination_service_namespace", "shop"),
            ("connection_security_policy", "unknown"),
        ],
    ]
    .concat();
    assert_eq!(
        series(&page, "istio_requests_total", &told),
        Some(3),
        "{page}"
    );
    let received = [
        &own_source[..],
        &http,
        &[
            ("reporter", "destination"),
            ("destination_workload", "a-v1"),
            ("connection_security_policy", "none"),
            ("destination_service_name", "a"),
        ],
    ]
    .concat();
    assert_eq!(
        series(&page, "istio_requests_total", &received),
        Some(3),
        "{page}"
    );
    assert_eq!(
        series(&page, "istio_response_bytes_sum", &received),
        Some(6)
    );
    assert_eq!(
        series(
            &page,
            "istio_request_duration_milliseconds_count",
            &received
        ),
        Some(3)
    );
    let other = [
        ("destination_workload", "far-v7"),
        ("destination_workload_namespace", "else"),
        ("destination_canonical_service", "far"),
        ("destination_canonical_revision", "v7"),
        ("destination_cluster", "Other"),
        ("destination_app", "unknown"),
        ("destination_service", "far.else.svc.cluster.local"),
    ];
    assert_eq!(
        series(&page, "istio_requests_total", &[&http[..], &other].concat()),
        Some(1)
    );
    // The look whether the port is open was a connection, too.
    let tcp = [
        &own_source[..],
        &other,
        &[("request_protocol", "tcp"), ("reporter", "source")],
    ]
    .concat();
    assert_eq!(
        series(&page, "istio_tcp_connections_opened_total", &tcp),
        Some(2)
    );
    assert_eq!(
        series(&page, "istio_tcp_connections_closed_total", &tcp),
        Some(2)
    );
    assert_eq!(
        series(&page, "istio_tcp_sent_bytes_total", &tcp),
        Some(through.len() as u64)
    );
    assert_eq!(
        series(&page, "istio_tcp_received_bytes_total", &tcp),
        Some(get("/raw").len() as u64)
    );
    assert!(!page.contains("envoy_istio_"), "under its own name");
}
