//! Runs all cases: one Envoy, one proxy of ours, several cases at a time.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::case::Suite;
use super::pki::Pki;
use super::{bootstrap, client, server};
use crate::differential::bootstrap::{Networks, address, client as client_address};
use crate::differential::envoy::Envoy;
use crate::support::whole::{Proxy, static_cluster, wait_for};

/// Cases at a time; they mostly wait.
const LANES: usize = 16;

/// Envoy's record and ours.
type Pair = (Vec<String>, Vec<String>);

/// The records of every case, in their order.
pub fn run(program: &Path, suite: &Suite) -> Vec<Pair> {
    let folder = tempfile::tempdir().unwrap();
    let networks = Networks::choose();
    let mut pki = Pki::new(&suite.certificates);
    let logs = [folder.path().join("envoys"), folder.path().join("ours")];
    let mut listeners = [networks.envoy, networks.ours].map(|network| {
        let all = suite.listeners.iter().enumerate();
        let log = &logs[usize::from(network == networks.ours)];
        all.map(|(at, (name, config))| bootstrap::listener(name, config, address(network, at), log))
            .collect::<Value>()
    });
    let mut clusters = json!([]);
    for side in &mut listeners {
        pki.fill(side);
        bootstrap::full_types(side);
    }
    let pki = {
        // Servers need the certificates, clusters the servers' addresses.
        let mut raw: Vec<Value> = Vec::new();
        let places: BTreeMap<&String, usize> = suite
            .servers
            .keys()
            .enumerate()
            .map(|(i, n)| (n, i))
            .collect();
        let place = |name: &str| -> SocketAddr {
            let at = match name {
                "plain" => 0,
                "greeter" => 1,
                _ => places[&name.to_owned()] + 2,
            };
            address(networks.upstream, at)
        };
        for (name, config) in &suite.listeners {
            raw.extend(bootstrap::clusters(name, config, &place));
        }
        raw.push(static_cluster("echo", place("plain")));
        raw.push(static_cluster("greeter", place("greeter")));
        clusters.as_array_mut().unwrap().extend(raw);
        pki.fill(&mut clusters);
        bootstrap::full_types(&mut clusters);
        let pki = Arc::new(pki);
        server::start(place("plain"), None, &pki);
        server::greet(place("greeter"));
        for (name, config) in &suite.servers {
            server::start(place(name), Some(config), &pki);
        }
        pki
    };
    let [theirs, ours] = listeners;
    let whole = json!({ "static_resources": { "listeners": theirs, "clusters": clusters } });
    let mut envoy = Envoy::start(program, folder.path(), &whole);
    let _proxy = Proxy::start(ours, clusters, None);
    // Every listener opens at the same moment as the last one.
    envoy.wait_for(address(networks.envoy, 0));
    wait_for(address(networks.ours, 0));
    let mut records = play_all(suite, &pki, networks);
    add_logs(suite, &logs, &mut records, networks);
    records
}

fn play_all(suite: &Suite, pki: &Pki, networks: Networks) -> Vec<Pair> {
    let places: HashMap<&String, usize> = suite
        .listeners
        .keys()
        .enumerate()
        .map(|(i, n)| (n, i))
        .collect();
    let next = AtomicUsize::new(0);
    let records: Mutex<Vec<Pair>> = Mutex::new(vec![Pair::default(); suite.cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = suite.cases.get(at) else {
                        return;
                    };
                    let place = places
                        .get(&case.listener)
                        .unwrap_or_else(|| panic!("{}: no listener {}", case.name, case.listener));
                    let from = client_address(networks.client, at);
                    let side = |network| client::play(case, pki, from, address(network, *place));
                    let pair = (side(networks.envoy), side(networks.ours));
                    records.lock().unwrap()[at] = pair;
                }
            });
        }
    });
    records.into_inner().unwrap()
}

/// Waits until both logs have the same lines in number, then deals them out.
fn add_logs(
    suite: &Suite,
    logs: &[std::path::PathBuf; 2],
    records: &mut [Pair],
    networks: Networks,
) {
    let clients: Vec<String> = (0..records.len())
        .map(|at| client_address(networks.client, at).ip().to_string())
        .collect();
    let until = Instant::now() + Duration::from_secs(4);
    let mut both;
    loop {
        both = [read_log(&logs[0]), read_log(&logs[1])];
        let count = |side: &HashMap<String, Vec<String>>| -> Vec<usize> {
            clients
                .iter()
                .map(|c| side.get(c).map_or(0, Vec::len))
                .collect()
        };
        let (theirs, ours) = (count(&both[0]), count(&both[1]));
        if (theirs == ours && ours.iter().all(|n| *n > 0)) || Instant::now() > until {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let [mut theirs, mut ours] = both;
    for (at, (case, record)) in suite.cases.iter().zip(records).enumerate() {
        let normal = |line: &String| {
            let mut line = line.clone();
            for network in [networks.envoy, networks.ours] {
                line = line.replace(&format!("127.{network}."), "127.L.");
            }
            line = line.replace(&format!("127.{}.", networks.upstream), "127.U.");
            line = line.replace(&clients[at], "127.client");
            plain_text_is_no_failure(alert_is_alert(line))
        };
        let lines = |side: &mut HashMap<String, Vec<String>>| {
            let mut lines = side.remove(&clients[at]).unwrap_or_default();
            // A request's line and its connection's come in either order.
            lines.sort();
            lines
        };
        record.0.extend(lines(&mut theirs));
        record.1.extend(lines(&mut ours));
        for side in [&mut record.0, &mut record.1] {
            *side = side.iter().map(&normal).collect();
            side.retain(|line| !case.skip.iter().any(|s| line.starts_with(s)));
        }
    }
}

/// Which alert is sent is a difference of the TLS libraries (docs/differences.md).
fn alert_is_alert(line: String) -> String {
    match line.split_once("alert ") {
        Some((before, _)) if !before.starts_with("log") => format!("{before}alert"),
        _ => line,
    }
}

/// Envoy's inspector writes a failure into the log of every connection in plain
/// text (docs/differences.md).
fn plain_text_is_no_failure(line: String) -> String {
    let Some((before, rest)) = line.split_once("why=TLS_error|error:") else {
        return line;
    };
    let after = rest
        .split_once(":TLS_error_end")
        .map_or("", |(_, after)| after);
    format!("{before}why=-{after}")
}

fn read_log(path: &Path) -> HashMap<String, Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut all: HashMap<String, Vec<String>> = HashMap::new();
    for line in text.lines() {
        let (client, rest) = line.split_once(' ').unwrap();
        let lines = all.entry(client.to_owned()).or_default();
        lines.push(format!("log {rest}"));
    }
    all
}
