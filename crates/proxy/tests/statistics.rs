//! What a cluster's statistics say of requests, retries and bytes: the numbers
//! that Envoy 1.40 shows for the same traffic.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_proxy::engine::EngineOptions;
use lateen_proxy_core::config::network_filter::TcpClusters;
use lateen_proxy_core::config::route::*;
use lateen_proxy_core::config::*;
use lateen_proxy_core::stats::{MetricValue, Registry};
use support::*;

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BAD: &str = "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno";
const LIMITED: &str = "HTTP/1.1 503 No\r\nx-reset: 1\r\ncontent-length: 2\r\n\r\nno";

/// The value of a counter or gauge; none = there is no such series.
fn value(registry: &Registry, name: &str) -> Option<i64> {
    let all = registry.collect();
    let found = all.iter().find(|m| &*m.name.flat == name)?;
    match found.value {
        MetricValue::Counter(n) => i64::try_from(n).ok(),
        MetricValue::Gauge(n) => Some(n),
        MetricValue::Histogram(_) => None,
    }
}

fn retried() -> RouteAction {
    let mut forward = forward("c");
    forward.retry_policy = Some(Arc::new(RetryPolicy {
        on: RetryOn::SERVER_ERROR,
        num_retries: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: vec![],
        retriable_headers: vec![],
        retriable_request_headers: vec![],
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
        rate_limited_back_off: Some(RateLimitedBackOff {
            reset_headers: vec![("x-reset".into(), false)],
            max_interval: Duration::from_secs(300),
        }),
        previous_hosts: false,
        host_selection_max_attempts: 1,
        previous_priorities: None,
    }));
    RouteAction::Forward(Arc::new(forward))
}

/// A proxy of one route to one cluster, with its statistics.
fn proxy(cluster: Cluster, action: RouteAction) -> (Running, SocketAddr, Registry) {
    let address = free_address();
    let mut manager = manager(vec![route("/", action)]);
    manager.internal_addresses = vec![CidrRange("10.0.0.0/8".parse().unwrap())];
    let filter = NetworkFilter::HttpConnectionManager(Arc::new(manager));
    let listener = listener("l", address, vec![chain(vec![filter])]);
    start(listener, cluster, address)
}

fn start(
    listener: Listener,
    cluster: Cluster,
    address: SocketAddr,
) -> (Running, SocketAddr, Registry) {
    let options = EngineOptions::default();
    let registry = options.stats.clone();
    let running = run_with(options, &snapshot(vec![listener], vec![cluster]));
    (running, address, registry)
}

/// Waits until a series has a value: some are written after the answer.
#[track_caller]
fn reaches(registry: &Registry, name: &str, want: i64) {
    let end = Instant::now() + Duration::from_secs(10);
    while value(registry, name) != Some(want) {
        let found = value(registry, name);
        assert!(Instant::now() < end, "{name}: {found:?}, not {want}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn retries_and_origins() {
    // Two good ones, one that stays bad through two retries, one that a retry
    // saves, and one from an address of the internal network.
    let upstream = Upstream::new(&[GOOD, GOOD, BAD, BAD, BAD, BAD, GOOD, GOOD]);
    let (_running, address, registry) = proxy(cluster("c", &[upstream.address]), retried());
    for want in ["200", "200", "503", "200"] {
        let answer = ask(address, &get("/"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {want}")), "{answer}");
    }
    let internal = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n";
    assert!(ask(address, internal).starts_with("HTTP/1.1 200"));
    for (name, want) in [
        ("upstream_rq_completed", 5),
        ("upstream_rq_total", 8),
        ("upstream_rq_2xx", 4),
        ("upstream_rq_503", 1),
        ("upstream_rq_retry", 3),
        ("upstream_rq_retry_success", 1),
        ("upstream_rq_retry_backoff_exponential", 3),
        ("upstream_rq_retry_backoff_ratelimited", 0),
        ("upstream_rq_retry_limit_exceeded", 1),
        ("retry.upstream_rq_503", 3),
        ("retry.upstream_rq_5xx", 3),
        ("retry.upstream_rq_completed", 3),
        ("external.upstream_rq_completed", 4),
        ("external.upstream_rq_200", 3),
        ("external.upstream_rq_2xx", 3),
        ("external.upstream_rq_503", 1),
        ("internal.upstream_rq_completed", 1),
        ("internal.upstream_rq_200", 1),
        ("upstream_rq_pending_active", 0),
    ] {
        reaches(&registry, &format!("cluster.c.{name}"), want);
    }
    // What never happened has no series by status.
    assert_eq!(value(&registry, "cluster.c.upstream_rq_4xx"), None);
    let sent: usize = upstream.requests().iter().map(String::len).sum();
    reaches(
        &registry,
        "cluster.c.upstream_cx_tx_bytes_total",
        i64::try_from(sent).unwrap(),
    );
    let received = 4 * GOOD.len() + 4 * BAD.len();
    reaches(
        &registry,
        "cluster.c.upstream_cx_rx_bytes_total",
        i64::try_from(received).unwrap(),
    );
}

#[test]
fn the_upstream_says_how_long_to_wait() {
    let upstream = Upstream::new(&[LIMITED, BAD, GOOD]);
    let (_running, address, registry) = proxy(cluster("c", &[upstream.address]), retried());
    let begun = Instant::now();
    let answer = ask(address, &get("/"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(8),
        "{took:?}: a second, and up to half of one more"
    );
    let name = |kind: &str| format!("cluster.c.upstream_rq_retry_backoff_{kind}");
    reaches(&registry, &name("ratelimited"), 1);
    reaches(&registry, &name("exponential"), 1);
}

#[test]
fn waiting_requests_are_counted_while_they_wait() {
    let upstream = Upstream::new(&["!silent"]);
    let mut narrow = cluster("c", &[upstream.address]);
    narrow.circuit_breakers[0].max_connections = 1;
    let action = RouteAction::Forward(Arc::new(forward("c")));
    let (_running, address, registry) = proxy(narrow, action);
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(address);
            client.write_all(get("/").as_bytes()).unwrap();
            client
        })
        .collect();
    reaches(&registry, "cluster.c.upstream_rq_pending_active", 2);
    drop(clients);
    reaches(&registry, "cluster.c.upstream_rq_pending_active", 0);
    reaches(&registry, "cluster.c.upstream_rq_pending_total", 3);
}

#[test]
fn a_connection_that_fails_takes_its_request_along() {
    let (_running, address, registry) = proxy(cluster("c", &[free_address()]), retried());
    assert!(ask(address, &get("/")).starts_with("HTTP/1.1 503"));
    let failed = "cluster.c.upstream_rq_pending_failure_eject";
    reaches(&registry, failed, 3);
    reaches(&registry, "cluster.c.upstream_cx_connect_fail", 3);
    reaches(&registry, "cluster.c.external.upstream_rq_503", 1);
}

#[test]
fn a_tcp_connection_is_one_request() {
    let upstream = Upstream::new(&["!closehello"]);
    let address = free_address();
    let filter = NetworkFilter::TcpProxy(Arc::new(TcpProxy {
        tunneling: None,
        stat_prefix: "t".into(),
        clusters: TcpClusters::Single("c".into()),
        idle_timeout: None,
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        access_logs: vec![],
        access_log_flush_interval: None,
        hash_policy: vec![],
        metadata_match: Metadata::default(),
    }));
    let listener = listener("l", address, vec![chain(vec![filter])]);
    let (_running, address, registry) = start(listener, cluster("c", &[upstream.address]), address);
    assert_eq!(ask_all(address, b"x\r\n\r\n"), "hello");
    for (name, want) in [
        ("upstream_rq_total", 1),
        ("upstream_rq_active", 0),
        ("upstream_rq_pending_total", 1),
        ("upstream_cx_rx_bytes_total", 5),
        ("upstream_cx_tx_bytes_total", 5),
    ] {
        reaches(&registry, &format!("cluster.c.{name}"), want);
    }
}
