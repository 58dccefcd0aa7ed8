//! Clusters whose hosts are found by name, beside the real Envoy: each side asks
//! a name server of its own, which says the same to both and changes step by
//! step; after each step both must list the same hosts. Without an Envoy ours is
//! looked at alone.

#[path = "differential/envoy.rs"]
mod envoy;
#[path = "dns/server.rs"]
mod server;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{NameServer, Says};
use support::whole::{Proxy, http, socket, wait_for};

const PORT: u16 = 18700;
/// The longest that a change may take to be seen: many look-ups.
const PATIENCE: Duration = Duration::from_secs(20);
const CARES: &str =
    "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
const DNS_CLUSTER: &str = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster";

struct Side {
    name: &'static str,
    listener: SocketAddr,
    admin: SocketAddr,
    names: NameServer,
    named: SocketAddr,
}

impl Side {
    fn new(name: &'static str, network: u8, number: u8) -> Self {
        let at = |last, port| SocketAddr::from((Ipv4Addr::new(127, network, number, last), port));
        Self {
            name,
            listener: at(1, PORT + 1),
            admin: at(1, PORT + 2),
            names: NameServer::start(at(1, PORT + 3)),
            named: at(1, PORT + 3),
        }
    }

    fn clusters(&self) -> Value {
        let cluster = |name: &str, kind: &str, names: &[&str], extra: Value| {
            let endpoint = |host: &&str| {
                json!({ "load_balancing_weight": 3, "endpoint": {
                    "address": { "socket_address": { "address": host, "port_value": 80 } } } })
            };
            let endpoints: Vec<_> = names.iter().map(endpoint).collect();
            let mut cluster = json!({ "name": name, "type": kind, "dns_lookup_family": "V4_ONLY",
                "dns_refresh_rate": "0.2s", "connect_timeout": "2s",
                "typed_dns_resolver_config": { "name": "envoy.network.dns_resolver.cares", "typed_config": {
                    "@type": CARES, "resolvers": [socket(self.named)], "query_tries": 1 } },
                "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] } });
            for (key, value) in extra.as_object().into_iter().flatten() {
                cluster[key] = value.clone();
            }
            cluster
        };
        let plain = || json!({});
        // The extension counts, and nothing that the cluster says beside it.
        let named = |one: bool| {
            json!({ "type": null, "dns_lookup_family": "V6_ONLY", "dns_refresh_rate": "900s", "cluster_type": {
                "name": "envoy.cluster.dns", "typed_config": { "@type": DNS_CLUSTER,
                    "dns_lookup_family": "V4_ONLY", "dns_refresh_rate": "0.2s",
                    "all_addresses_in_single_endpoint": one,
                    "typed_dns_resolver_config": { "name": "envoy.network.dns_resolver.cares",
                        "typed_config": { "@type": CARES, "resolvers": [socket(self.named)] } } } } })
        };
        json!([
            cluster("named", "STATIC", &["a.test"], named(false)),
            cluster("logical-named", "STATIC", &["a.test"], named(true)),
            cluster("strict", "STRICT_DNS", &["a.test"], plain()),
            cluster("logical", "LOGICAL_DNS", &["a.test"], plain()),
            cluster(
                "two",
                "STRICT_DNS",
                &["a.test", "broken.test", "127.0.0.9"],
                plain()
            ),
            cluster("tcp", "STRICT_DNS", &["tcp.test"], plain()),
            cluster(
                "kept",
                "STRICT_DNS",
                &["kept.test"],
                json!({ "respect_dns_ttl": true })
            ),
            cluster("gone", "STRICT_DNS", &["gone.test"], plain()),
            cluster("logical-gone", "LOGICAL_DNS", &["gone.test"], plain()),
            cluster(
                "broken",
                "STRICT_DNS",
                &["broken.test"],
                json!({ "dns_failure_refresh_rate": { "base_interval": "0.1s", "max_interval": "0.2s" } })
            ),
            cluster(
                "auto",
                "STRICT_DNS",
                &["a.test"],
                json!({ "dns_lookup_family": "AUTO" })
            ),
            cluster(
                "all",
                "STRICT_DNS",
                &["a.test"],
                json!({ "dns_lookup_family": "ALL" })
            ),
            cluster(
                "v6",
                "STRICT_DNS",
                &["a.test"],
                json!({ "dns_lookup_family": "V6_ONLY" })
            ),
        ])
    }

    fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The hosts of a cluster with their names and weights, sorted.
    fn hosts(&self, cluster: &str) -> Vec<String> {
        let page = self.page("/clusters");
        let prefix = format!("{cluster}::");
        let line = |line: &str| -> Option<String> {
            let (address, rest) = line.trim().strip_prefix(&prefix)?.split_once("::")?;
            let (key, value) = rest.split_once("::")?;
            let shown = address.contains(':') && matches!(key, "hostname" | "weight");
            shown.then(|| format!("{address} {value}"))
        };
        let mut hosts: Vec<_> = page.lines().filter_map(line).collect();
        hosts.sort();
        hosts
    }

    fn stat(&self, name: &str) -> u64 {
        let key = format!("{name}: ");
        let page = self.page(&format!("/stats?filter={name}"));
        let found = page
            .lines()
            .find_map(|l| l.strip_prefix(&key)?.trim().parse().ok());
        found.unwrap_or(0)
    }

    fn until(&self, what: &str, mut check: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !check() {
            assert!(Instant::now() < until, "{}: never: {what}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a cluster has these hosts: (last byte of the address, name).
    fn shows(&self, cluster: &str, want: &[(u8, &str)]) {
        let two = |(last, name): &(u8, &str)| {
            let of = |value: &str| match *last {
                9 => format!("127.0.0.9:80 {value}"),
                last => format!("10.0.0.{last}:80 {value}"),
            };
            [of("3"), of(name)]
        };
        let mut want: Vec<_> = want.iter().flat_map(two).collect();
        want.sort();
        let until = Instant::now() + PATIENCE;
        loop {
            let hosts = self.hosts(cluster);
            if hosts == want {
                return;
            }
            let what = format!("{}: {cluster} has {hosts:?}, not {want:?}", self.name);
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
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

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn say(sides: &[Side], name: &str, what: &Says) {
    sides.iter().for_each(|s| s.names.says(name, what.clone()));
}

#[test]
fn names_are_resolved_as_by_envoy() {
    let program = envoy::find();
    if program.is_none() {
        println!(
            "SKIPPED: the comparison: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)"
        );
    }
    let network = network();
    let mut sides = vec![Side::new("ours", network, 2)];
    if program.is_some() {
        sides.push(Side::new("Envoy", network, 1));
    }
    say(&sides, "a.test", &Says::Addresses(vec![at(1), at(2)], 0));
    say(&sides, "tcp.test", &Says::OverTcp(vec![at(7)]));
    say(&sides, "kept.test", &Says::Addresses(vec![at(5)], 600));
    say(&sides, "gone.test", &Says::Addresses(vec![at(6)], 0));
    say(&sides, "broken.test", &Says::Failure);
    let listener = |side: &Side| {
        let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "strict" } }]);
        http(side.listener, vec![], routes, Value::Null)
    };
    let _ours = Proxy::with_admin(
        json!([listener(&sides[0])]),
        sides[0].clusters(),
        sides[0].admin,
    );
    let folder = tempfile::tempdir().unwrap();
    let mut theirs = program.map(|program| {
        let side = &sides[1];
        let bootstrap = json!({ "admin": { "address": socket(side.admin) },
            "static_resources": { "listeners": [listener(side)], "clusters": side.clusters() } });
        envoy::Envoy::start(&program, folder.path(), &bootstrap)
    });
    wait_for(sides[0].listener);
    if let Some(envoy) = &mut theirs {
        envoy.wait_for(sides[1].listener);
    }
    for side in &sides {
        found(side);
    }
    say(&sides, "a.test", &Says::Addresses(vec![at(3), at(2)], 0));
    say(&sides, "gone.test", &Says::NoName);
    for side in &sides {
        changed(side);
    }
    say(&sides, "a.test", &Says::Failure);
    for side in &sides {
        failed(side);
    }
}

fn found(side: &Side) {
    let both = [(1, "a.test"), (2, "a.test")];
    side.shows("strict", &both);
    side.shows("named", &both);
    side.shows("auto", &both);
    side.shows("all", &both);
    side.shows("logical", &both[..1]);
    side.shows("logical-named", &both[..1]);
    // One name that fails holds up no other.
    side.shows("two", &[(1, "a.test"), (2, "a.test"), (9, "127.0.0.9")]);
    side.shows("tcp", &[(7, "tcp.test")]);
    side.shows("kept", &[(5, "kept.test")]);
    side.shows("gone", &[(6, "gone.test")]);
    side.shows("logical-gone", &[(6, "gone.test")]);
    side.shows("broken", &[]);
    side.shows("v6", &[]);
    for stat in [
        "cluster.strict.update_success",
        "cluster.strict.update_no_rebuild",
        "cluster.broken.update_failure",
    ] {
        side.until(stat, || side.stat(stat) > 1);
    }
    side.until("members", || {
        side.stat("cluster.strict.membership_total") == 2
    });
}

fn changed(side: &Side) {
    side.shows("strict", &[(2, "a.test"), (3, "a.test")]);
    side.shows("named", &[(2, "a.test"), (3, "a.test")]);
    side.shows("logical", &[(3, "a.test")]);
    side.shows("logical-named", &[(3, "a.test")]);
    side.shows("two", &[(2, "a.test"), (3, "a.test"), (9, "127.0.0.9")]);
    // A name that is no more leaves no host, but the one of LOGICAL_DNS.
    side.shows("gone", &[]);
    let asked = side.names.asked("gone.test");
    side.until("asked again", || side.names.asked("gone.test") > asked + 4);
    side.shows("logical-gone", &[(6, "gone.test")]);
}

/// Failures keep what was there; an answer that may be kept is not asked for again.
fn failed(side: &Side) {
    let before = side.stat("cluster.strict.update_failure");
    side.until("failures", || {
        side.stat("cluster.strict.update_failure") > before + 2
    });
    side.shows("strict", &[(2, "a.test"), (3, "a.test")]);
    side.shows("logical", &[(3, "a.test")]);
    assert_eq!(
        side.names.asked("kept.test"),
        1,
        "{}: kept for 600 s",
        side.name
    );
}
