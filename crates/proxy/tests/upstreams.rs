//! Health of upstream hosts beside the real Envoy: active checks over HTTP,
//! TCP and gRPC, ejection of outliers and their return, discovery by name and
//! by header. Both proxies watch servers of the same behaviour, which changes
//! step by step; after each step both must show the same health. Without an
//! Envoy ours is looked at alone.

#[path = "differential/envoy.rs"]
mod envoy;
#[path = "upstreams/server.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_proxy_core::config::RouteAction;
use serde_json::{Value, json};
use server::{Does, Server};
use support::whole::{Proxy, http, socket, wait_for};

const PORT: u16 = 18500;
/// The longest that a change may take to be seen: many intervals.
const PATIENCE: Duration = Duration::from_secs(20);

/// One proxy with its servers: cluster `name` has the hosts that its scenario
/// says, at addresses of this side.
struct Side {
    name: &'static str,
    listener: SocketAddr,
    admin: SocketAddr,
    servers: BTreeMap<(usize, usize), Server>,
}

/// What a cluster is configured with, and its hosts.
struct Scenario {
    name: &'static str,
    cluster: Value,
    hosts: Vec<Does>,
    /// Fields of each endpoint.
    endpoint: Value,
}

fn scenario(name: &'static str, hosts: &[Does], cluster: Value) -> Scenario {
    Scenario {
        name,
        cluster,
        hosts: hosts.to_vec(),
        endpoint: json!({}),
    }
}

/// A check with short intervals.
fn check(kind: &str, fields: Value) -> Value {
    json!({ "timeout": "0.5s", "interval": "0.1s", "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 2, "healthy_threshold": 2, kind: fields })
}

fn checked(kind: &str, fields: Value) -> Value {
    json!({ "health_checks": [check(kind, fields)] })
}

fn http2() -> Value {
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} } } })
}

fn scenarios() -> Vec<Scenario> {
    let path = json!({ "path": "/health" });
    let mut several = scenario(
        "statuses",
        &[Does::Answer(404)],
        checked(
            "http_health_check",
            json!({ "path": "/h?x=1", "host": "hc.example", "method": "HEAD",
                "expected_statuses": [{ "start": 200, "end": 201 }, { "start": 404, "end": 405 }] }),
        ),
    );
    several.endpoint = json!({ "health_check_config": { "hostname": "own.example" } });
    let mut slow_to_trust = checked("http_health_check", path.clone());
    slow_to_trust["health_checks"][0]["healthy_threshold"] = json!(50);
    let mut once = checked("http_health_check", path.clone());
    once["health_checks"][0]["reuse_connection"] = json!(false);
    let mut grpc = checked(
        "grpc_health_check",
        json!({ "service_name": "s", "authority": "a.example" }),
    );
    grpc["typed_extension_protocol_options"] = http2();
    let mut over_h2 = checked(
        "http_health_check",
        json!({ "path": "/health", "codec_client_type": "HTTP2" }),
    );
    over_h2["typed_extension_protocol_options"] = http2();
    let mut unchecked = scenario(
        "unchecked",
        &[Does::Answer(500)],
        checked("http_health_check", path.clone()),
    );
    unchecked.endpoint = json!({ "health_check_config": { "disable_active_health_check": true } });
    // The second host's port stands for all: what it says, all are.
    let mut elsewhere = scenario(
        "elsewhere",
        &[Does::Answer(500), Does::Answer(200)],
        checked("http_health_check", path.clone()),
    );
    elsewhere.endpoint = json!({ "health_check_config": { "port_value": PORT + 2 } });
    let ejecting = json!({ "outlier_detection": { "consecutive_5xx": 3, "interval": "0.2s",
        "base_ejection_time": "0.6s", "max_ejection_percent": 100 } });
    let kept = json!({ "outlier_detection": { "consecutive_5xx": 3, "interval": "0.2s",
        "base_ejection_time": "0.6s", "max_ejection_percent": 10 } });
    vec![
        scenario(
            "http",
            &[Does::Answer(200), Does::Answer(500)],
            checked("http_health_check", path.clone()),
        ),
        several,
        scenario("first", &[Does::Answer(200)], slow_to_trust),
        scenario("closing", &[Does::Answer(200)], once),
        scenario(
            "retriable",
            &[Does::Answer(200)],
            checked(
                "http_health_check",
                json!({ "path": "/", "retriable_statuses": [{ "start": 500, "end": 600 }] }),
            ),
        ),
        scenario(
            "silent",
            &[Does::Nothing],
            checked("http_health_check", path.clone()),
        ),
        scenario(
            "degraded",
            &[
                Does::Degraded,
                Does::Answer(200),
                Does::Answer(200),
                Does::Answer(200),
            ],
            checked("http_health_check", path.clone()),
        ),
        scenario(
            "told",
            &[Does::Answer(200), Does::Answer(200)],
            checked("http_health_check", path),
        ),
        scenario(
            "connect",
            &[Does::Answer(200), Does::Close],
            checked("tcp_health_check", json!({})),
        ),
        scenario(
            "bytes",
            &[Does::Echo, Does::Close],
            checked(
                "tcp_health_check",
                json!({ "send": { "text": "6162" }, "receive": [{ "text": "61" }, { "text": "62" }] }),
            ),
        ),
        scenario(
            "grpc",
            &[Does::Grpc(Some(1)), Does::Grpc(Some(2)), Does::Grpc(None)],
            grpc,
        ),
        scenario("h2", &[Does::Http2(200), Does::Http2(503)], over_h2),
        scenario(
            "named",
            &[Does::Named("shop"), Does::Named("other"), Does::Answer(200)],
            checked(
                "http_health_check",
                json!({ "path": "/", "service_name_matcher": { "prefix": "sh" },
                    "request_headers_to_add": [
                        { "header": { "key": "X-Check", "value": "100%%" } },
                        { "header": { "key": "user-agent", "value": "me Envoy/HC" },
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" },
                        { "header": { "key": "x-gone", "value": "1" }, "append_action": "OVERWRITE_IF_EXISTS" }],
                    "request_headers_to_remove": ["x-none"] }),
            ),
        ),
        unchecked,
        elsewhere,
        scenario("outlier", &[Does::Answer(200), Does::Answer(200)], ejecting),
        scenario(
            "outlier-kept",
            &[Does::Answer(200), Does::Answer(200)],
            kept,
        ),
    ]
}

impl Side {
    fn new(name: &'static str, network: u8, number: u8, scenarios: &[Scenario]) -> Self {
        let at = |place, host| address(network, number, place, host);
        let mut servers = BTreeMap::new();
        for (place, scenario) in scenarios.iter().enumerate() {
            for (host, does) in scenario.hosts.iter().enumerate() {
                servers.insert((place, host), Server::start(at(place, host), *does));
            }
        }
        Self {
            name,
            listener: at(200, 0),
            admin: at(200, 1),
            servers,
        }
    }

    fn clusters(&self, scenarios: &[Scenario]) -> Value {
        let made = scenarios.iter().enumerate().map(|(place, scenario)| {
            let hosts = (0..scenario.hosts.len()).map(|host| {
                let mut endpoint = json!({ "address": socket(self.servers[&(place, host)].address) });
                for (key, value) in scenario.endpoint.as_object().into_iter().flatten() {
                    endpoint[key] = value.clone();
                }
                json!({ "endpoint": endpoint })
            });
            let hosts: Value = hosts.collect();
            let mut cluster = json!({ "name": scenario.name, "connect_timeout": "2s",
                "load_assignment": { "cluster_name": scenario.name, "endpoints": [{ "lb_endpoints": hosts }] } });
            for (key, value) in scenario.cluster.as_object().into_iter().flatten() {
                cluster[key] = value.clone();
            }
            cluster
        });
        let mut all: Vec<Value> = made.collect();
        all.extend(self.discovered());
        Value::Array(all)
    }

    /// Clusters whose hosts are found by name, or named by a header.
    fn discovered(&self) -> Vec<Value> {
        let port = self.servers[&(0, 0)].address.port();
        let named = |name: &str, kind: &str, host: &str| {
            json!({ "name": name, "type": kind, "dns_lookup_family": "V4_ONLY", "connect_timeout": "2s",
                "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [
                    { "endpoint": { "address": { "socket_address": { "address": host, "port_value": port } } } }] }] } })
        };
        let ip = self.servers[&(0, 0)].address.ip().to_string();
        vec![
            named("strict-ip", "STRICT_DNS", &ip),
            named("logical-ip", "LOGICAL_DNS", &ip),
            json!({ "name": "by-header", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "2s",
                "original_dst_lb_config": { "use_http_header": true } }),
            json!({ "name": "by-own-header", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "2s",
                "original_dst_lb_config": { "use_http_header": true, "http_header_name": "X-To",
                    "upstream_port_override": port } }),
        ]
    }

    fn listener(&self, clusters: &Value) -> Value {
        let names = clusters
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap());
        let routes: Value = names
            .map(|n| json!({ "match": { "prefix": format!("/{n}/") }, "route": { "cluster": n } }))
            .collect();
        http(self.listener, vec![], routes, Value::Null)
    }

    fn does(&self, place: usize, host: usize, what: Does) {
        self.servers[&(place, host)].does(what);
    }

    /// The answer to a request to a cluster: its status, and which host gave it.
    fn ask(&self, cluster: &str, lines: &str) -> String {
        let mut stream = TcpStream::connect(self.listener).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request =
            format!("GET /{cluster}/ HTTP/1.1\r\nhost: h\r\n{lines}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let host = text
            .lines()
            .find_map(|l| l.strip_prefix("x-host: "))
            .unwrap_or("-");
        let number = self
            .servers
            .iter()
            .find(|(_, s)| s.address.to_string() == host);
        let number = number.map_or("-".to_owned(), |((_, host), _)| host.to_string());
        format!("{} {number}", support::whole::status(&text))
    }

    /// A page of the admin interface.
    fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Health flags of a cluster's hosts, in their order.
    fn flags(&self, place: usize, scenario: &Scenario) -> Vec<String> {
        let page = self.page("/clusters");
        let hosts = (0..scenario.hosts.len()).map(|host| {
            let address = self.servers[&(place, host)].address;
            let key = format!("{}::{address}::health_flags::", scenario.name);
            let found = page.lines().find_map(|l| l.strip_prefix(&key));
            found.unwrap_or("not listed").trim().to_owned()
        });
        hosts.collect()
    }

    /// A cluster's statistic; none = not there.
    fn stat(&self, cluster: &str, name: &str) -> Option<i64> {
        let key = format!("cluster.{cluster}.{name}: ");
        let page = self.page(&format!("/stats?filter=cluster.{cluster}."));
        page.lines()
            .find_map(|l| l.strip_prefix(&key)?.trim().parse().ok())
    }
}

fn address(network: u8, number: u8, place: usize, host: usize) -> SocketAddr {
    let place = u8::try_from(place).unwrap() + 1;
    let host = u16::try_from(host).unwrap();
    SocketAddr::from((Ipv4Addr::new(127, network, number, place), PORT + 1 + host))
}

fn network() -> u8 {
    let start = u8::try_from(std::process::id() % 80).unwrap();
    for number in (0..80).map(|n| 10 + (start + n) % 80) {
        if let Ok(held) = TcpListener::bind((Ipv4Addr::new(127, number, 255, 1), PORT)) {
            std::mem::forget(held);
            return number;
        }
    }
    panic!("no free loopback network");
}

/// Both sides under test.
struct Pair {
    sides: Vec<Side>,
    scenarios: Vec<Scenario>,
}

impl Pair {
    fn place(&self, name: &str) -> usize {
        self.scenarios.iter().position(|s| s.name == name).unwrap()
    }

    /// Waits until every side shows these flags.
    fn shows(&self, name: &str, want: &[&str]) {
        let place = self.place(name);
        for side in &self.sides {
            let until = Instant::now() + PATIENCE;
            loop {
                let flags = side.flags(place, &self.scenarios[place]);
                if flags == want {
                    break;
                }
                let what = format!("{}: {name} shows {flags:?}, not {want:?}", side.name);
                assert!(Instant::now() < until, "{what}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn does(&self, name: &str, host: usize, what: Does) {
        let place = self.place(name);
        self.sides.iter().for_each(|s| s.does(place, host, what));
    }

    /// Every side comes to answer so: what a page shows may not have reached the workers.
    fn answers(&self, name: &str, lines: &str, want: &[&str]) {
        for side in &self.sides {
            let until = Instant::now() + PATIENCE;
            loop {
                let got = side.ask(name, lines);
                if want.contains(&got.as_str()) {
                    break;
                }
                let what = format!("{}: {name} answers {got}, not {want:?}", side.name);
                assert!(Instant::now() < until, "{what}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Whether a statistic is over zero, the same on every side.
    fn counted(&self, name: &str, stat: &str, over_zero: bool) {
        for side in &self.sides {
            let value = side.stat(name, stat);
            assert_eq!(
                value.map(|v| v > 0),
                Some(over_zero),
                "{}: {name} {stat} {value:?}",
                side.name
            );
        }
    }

    fn gauge(&self, name: &str, stat: &str, want: i64) {
        for side in &self.sides {
            assert_eq!(
                side.stat(name, stat),
                Some(want),
                "{}: {name} {stat}",
                side.name
            );
        }
    }
}

#[test]
fn hosts_are_watched_as_envoy_does() {
    let program = envoy::find();
    if program.is_none() {
        println!(
            "SKIPPED: the comparison: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)"
        );
    }
    let scenarios = scenarios();
    let network = network();
    let ours = Side::new("ours", network, 2, &scenarios);
    let clusters = ours.clusters(&scenarios);
    let listener = ours.listener(&clusters);
    let _proxy = Proxy::with_admin(json!([listener]), clusters, ours.admin);
    let mut sides = vec![ours];
    let folder = tempfile::tempdir().unwrap();
    let mut envoy = program.map(|program| {
        let theirs = Side::new("Envoy", network, 1, &scenarios);
        let clusters = theirs.clusters(&scenarios);
        let bootstrap = json!({ "admin": { "address": socket(theirs.admin) },
            "static_resources": { "listeners": [theirs.listener(&clusters)], "clusters": clusters } });
        sides.push(theirs);
        envoy::Envoy::start(&program, folder.path(), &bootstrap)
    });
    wait_for(sides[0].listener);
    if let Some(envoy) = &mut envoy {
        envoy.wait_for(sides[1].listener);
    }
    let pair = Pair { sides, scenarios };
    discovery(&pair);
    first_checks(&pair);
    requests_of_checks(&pair);
    changes(&pair);
    outliers(&pair);
}

/// Ten closes, one after another. Noticed by a look once a second they would
/// take about ten seconds.
#[test]
fn a_server_that_closes_an_idle_connection_is_noticed_at_once() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = support::cluster("c", &[socket.local_addr().unwrap()]);
    let action = RouteAction::Forward(Arc::new(support::forward("c")));
    let manager = support::manager(vec![support::route("/", action)]);
    let (_running, address) = support::http_proxy(manager, vec![upstream]);
    let mut client = support::connect(address);
    let begun = Instant::now();
    for _ in 0..10 {
        client.write_all(support::get("/").as_bytes()).unwrap();
        let (mut server, _) = socket.accept().unwrap();
        support::read_message(&mut server).unwrap();
        server.write_all(support::whole::OK.as_bytes()).unwrap();
        let answer = support::read_message(&mut client).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        server.shutdown(std::net::Shutdown::Write).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0, "the proxy ends its side");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
}

fn discovery(pair: &Pair) {
    for side in &pair.sides {
        let to = side.servers[&(0, 0)].address;
        let ask = |cluster: &str, lines: &str| side.ask(cluster, lines);
        assert_eq!(ask("strict-ip", ""), "200 0", "{}", side.name);
        assert_eq!(ask("logical-ip", ""), "200 0", "{}", side.name);
        let line = format!("x-envoy-original-dst-host: {to}\r\n");
        assert_eq!(ask("by-header", &line), "200 0", "{}", side.name);
        let listed = format!("by-header::{to}::hostname::by-header{to}");
        let page = side.page("/clusters");
        assert!(page.contains(&listed), "{}: {page}", side.name);
        let line = format!("x-to: {}:1\r\n", to.ip());
        assert_eq!(ask("by-own-header", &line), "200 0", "{}", side.name);
        let line = "x-envoy-original-dst-host: nonsense\r\n";
        assert_eq!(ask("by-header", line), "503 -", "{}", side.name);
    }
}

/// What the first outcome says, before any change.
fn first_checks(pair: &Pair) {
    // One good check is enough at the start, whatever the threshold.
    pair.answers("first", "", &["200 0"]);
    pair.shows("first", &["healthy"]);
    pair.shows("http", &["healthy", "/failed_active_hc"]);
    pair.shows("statuses", &["healthy"]);
    pair.shows("closing", &["healthy"]);
    pair.shows("silent", &["/failed_active_hc/active_hc_timeout"]);
    pair.shows(
        "degraded",
        &["/degraded_active_hc", "healthy", "healthy", "healthy"],
    );
    pair.shows("connect", &["healthy", "healthy"]);
    pair.shows("bytes", &["healthy", "/failed_active_hc"]);
    pair.shows(
        "grpc",
        &["healthy", "/failed_active_hc", "/failed_active_hc"],
    );
    pair.shows("h2", &["healthy", "/failed_active_hc"]);
    pair.shows(
        "named",
        &["healthy", "/failed_active_hc", "/failed_active_hc"],
    );
    pair.shows("unchecked", &["healthy"]);
    pair.answers("unchecked", "", &["500 0"]);
    pair.shows("elsewhere", &["healthy", "healthy"]);
    pair.counted("named", "health_check.verify_cluster", true);
    for _ in 0..6 {
        pair.answers("http", "", &["200 0"]);
        // Three healthy hosts of four are enough for everything: 140 % of 75 %.
        pair.answers("degraded", "", &["200 1", "200 2", "200 3"]);
    }
    pair.gauge("http", "health_check.healthy", 1);
    pair.gauge("http", "membership_healthy", 1);
    pair.gauge("http", "membership_total", 2);
    pair.gauge("degraded", "membership_degraded", 1);
    pair.gauge("degraded", "health_check.degraded", 1);
    pair.counted("http", "health_check.success", true);
    pair.counted("http", "health_check.failure", true);
    pair.counted("http", "health_check.network_failure", false);
    pair.counted("http", "health_check.passive_failure", false);
    pair.counted("silent", "health_check.network_failure", true);
    pair.counted("bytes", "health_check.network_failure", true);
    pair.counted("http", "health_check.verify_cluster", false);
}

/// What servers see of checks is the same.
fn requests_of_checks(pair: &Pair) {
    for (name, host) in [
        ("http", 0),
        ("statuses", 0),
        ("h2", 0),
        ("grpc", 0),
        ("bytes", 0),
        ("named", 0),
    ] {
        let place = pair.place(name);
        let seen: Vec<_> = pair
            .sides
            .iter()
            .map(|side| {
                let checks = side.servers[&(place, host)].checks();
                (side.name, checks.first().cloned().unwrap_or_default())
            })
            .collect();
        assert!(!seen[0].1.is_empty(), "{name}: no check came");
        for (side, check) in &seen {
            assert_eq!(check, &seen[0].1, "{name}: {side} and {}", seen[0].0);
        }
    }
}

fn changes(pair: &Pair) {
    pair.does("http", 0, Does::Answer(503));
    pair.does("http", 1, Does::Answer(200));
    pair.does("retriable", 0, Does::Answer(503));
    pair.does("connect", 0, Does::Gone);
    pair.does("bytes", 0, Does::Nothing);
    pair.does("grpc", 0, Does::Grpc(Some(2)));
    pair.does("grpc", 1, Does::Grpc(Some(1)));
    pair.does("silent", 0, Does::Answer(200));
    pair.does("closing", 0, Does::Close);
    pair.does("degraded", 0, Does::Answer(200));
    pair.shows("http", &["/failed_active_hc", "healthy"]);
    pair.shows("retriable", &["/failed_active_hc"]);
    pair.shows("connect", &["/failed_active_hc", "healthy"]);
    pair.shows(
        "bytes",
        &["/failed_active_hc/active_hc_timeout", "/failed_active_hc"],
    );
    pair.shows(
        "grpc",
        &["/failed_active_hc", "healthy", "/failed_active_hc"],
    );
    pair.shows("silent", &["healthy"]);
    pair.shows("closing", &["/failed_active_hc"]);
    pair.shows("degraded", &["healthy"; 4]);
    for _ in 0..4 {
        pair.answers("http", "", &["200 1"]);
    }
    // An answer to traffic that fails its host at once; the next good checks bring it back.
    pair.does("told", 0, Does::FailAtOnce);
    let until = Instant::now() + PATIENCE;
    for side in &pair.sides {
        while side
            .stat("told", "health_check.passive_failure")
            .unwrap_or(0)
            == 0
        {
            assert!(Instant::now() < until, "{}: never told", side.name);
            side.ask("told", "");
        }
    }
    pair.does("told", 0, Does::Answer(200));
    pair.shows("told", &["healthy", "healthy"]);
}

fn outliers(pair: &Pair) {
    pair.does("outlier", 0, Does::Answer(500));
    pair.does("outlier-kept", 0, Does::Answer(500));
    let place = pair.place("outlier");
    for side in &pair.sides {
        let until = Instant::now() + PATIENCE;
        // It comes back every second or so, to be ejected again.
        while side.flags(place, &pair.scenarios[place])[0] != "/failed_outlier_check" {
            assert!(Instant::now() < until, "{}: never ejected", side.name);
            for _ in 0..10 {
                side.ask("outlier", "");
                side.ask("outlier-kept", "");
            }
        }
    }
    pair.counted(
        "outlier",
        "outlier_detection.ejections_enforced_total",
        true,
    );
    pair.counted(
        "outlier",
        "outlier_detection.ejections_enforced_consecutive_5xx",
        true,
    );
    pair.counted(
        "outlier-kept",
        "outlier_detection.ejections_enforced_total",
        false,
    );
    pair.counted("outlier-kept", "outlier_detection.ejections_overflow", true);
    pair.shows("outlier-kept", &["healthy", "healthy"]);
    pair.does("outlier", 0, Does::Answer(200));
    pair.shows("outlier", &["healthy", "healthy"]);
    pair.gauge("outlier", "outlier_detection.ejections_active", 0);
}
