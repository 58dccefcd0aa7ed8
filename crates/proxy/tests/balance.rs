//! Which hosts a cluster's requests go to, beside the real Envoy: the same host
//! for each key under consistent hashing, the same shares of hosts otherwise.
//! The scenarios are data (`balance/scenarios.yaml`). What Envoy chose for keys
//! is kept (`balance/vectors.json`), so that it is checked without one too;
//! LATEEN_WRITE_VECTORS writes it anew. LATEEN_CASES runs the scenarios whose
//! names contain it, LATEEN_SHOW prints both sides' counts.

#[path = "differential/envoy.rs"]
mod envoy;
#[path = "balance/scenario.rs"]
mod scenario;
#[path = "balance/servers.rs"]
mod servers;
mod support;
#[path = "balance/vectors.rs"]
mod vectors;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use scenario::{Compare, Network, Scenario};
use serde_json::{Value, json};
use support::whole::{Proxy, http, wait_for};

/// Requests on their way at a time.
const PIPELINED: usize = 16;
/// Scenarios at a time.
const LANES: usize = 4;

#[test]
fn hosts_are_chosen_as_envoy_does() {
    let wanted = std::env::var("LATEEN_CASES").unwrap_or_default();
    let mut scenarios = scenario::read_all();
    scenarios.retain(|s| s.name.contains(&wanted));
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let network = Network::choose();
    let _servers = servers::Servers::start(network, &scenarios);
    let clusters: Value = scenarios.iter().map(|s| s.cluster(network)).collect();
    let routes: Value = scenarios.iter().map(Scenario::route).collect();
    let [theirs, ours] = [network.listener(1), network.listener(2)];
    let listener = |address| http(address, vec![], routes.clone(), Value::Null);
    let folder = tempfile::tempdir().unwrap();
    let bootstrap =
        json!({ "static_resources": { "listeners": [listener(theirs)], "clusters": clusters } });
    let mut envoy = envoy::Envoy::start(&program, folder.path(), &bootstrap);
    let _proxy = Proxy::start(json!([listener(ours)]), clusters.clone(), None);
    envoy.wait_for(theirs);
    wait_for(ours);
    let sides = ask_all(&scenarios, network, [theirs, ours]);
    let mut wrong = Vec::new();
    let mut kept = Vec::new();
    for (place, (scenario, sides)) in scenarios.iter().zip(&sides).enumerate() {
        if std::env::var_os("LATEEN_SHOW").is_some() {
            let [theirs, ours] = [counts(&sides[0]), counts(&sides[1])];
            println!("{}: {theirs:?} {ours:?}", scenario.name);
        }
        wrong.extend(judge(scenario, sides));
        if scenario.compare == Compare::Same {
            let from = network.client(scenario.place);
            kept.push(vectors::vector(scenario, &clusters[place], from, &sides[0]));
        }
    }
    let requests: usize = scenarios.iter().map(|s| s.requests).sum();
    println!(
        "{} scenarios, {requests} requests to each side",
        scenarios.len()
    );
    if std::env::var_os("LATEEN_WRITE_VECTORS").is_some() {
        vectors::write(&kept);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_go_where_envoy_sent_them() {
    let (vectors, keys) = vectors::check();
    println!("{keys} keys of {vectors} clusters");
    assert!(
        vectors > 20 && keys > 2500,
        "{vectors} vectors, {keys} keys"
    );
}

/// The hosts of Envoy's requests and of ours.
type Sides = [Vec<String>; 2];

/// What both sides did with each scenario.
fn ask_all(scenarios: &[Scenario], network: Network, to: [SocketAddr; 2]) -> Vec<Sides> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Sides>> = Mutex::new(vec![Sides::default(); scenarios.len()]);
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(scenario) = scenarios.get(at) else {
                        return;
                    };
                    let from = network.client(scenario.place);
                    let sides = to.map(|address| ask(scenario, from, address));
                    done.lock().unwrap()[at] = sides;
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// The host of each request: the number that its server answers with, or the
/// status of an answer that is none of a server's.
fn ask(scenario: &Scenario, from: SocketAddr, to: SocketAddr) -> Vec<String> {
    let mut hosts = Vec::new();
    // An answer that is no server's may end its connection.
    let pipelined = match scenario.requests {
        0..10 => 1,
        _ => PIPELINED,
    };
    while hosts.len() < scenario.requests {
        let mut stream = connect(from, to);
        let before = hosts.len();
        while hosts.len() < scenario.requests {
            let until = scenario.requests.min(hosts.len() + pipelined);
            let block: String = (hosts.len()..until).map(|i| scenario.request(i)).collect();
            stream.write_all(block.as_bytes()).unwrap();
            if !answers(&mut stream, &mut hosts, until) {
                break;
            }
        }
        assert!(hosts.len() > before, "{}: no answer", scenario.name);
    }
    hosts
}

fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads answers until there are so many; false = the connection ended.
fn answers(stream: &mut TcpStream, hosts: &mut Vec<String>, until: usize) -> bool {
    let mut bytes = Vec::new();
    while hosts.len() < until {
        if let Some(host) = answer(&mut bytes) {
            hosts.push(host);
            continue;
        }
        let mut chunk = [0; 16384];
        match stream.read(&mut chunk).unwrap() {
            0 => return false,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    true
}

/// Takes one answer off the front.
fn answer(bytes: &mut Vec<u8>) -> Option<String> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |l| l.parse().unwrap());
    if bytes.len() < end + length {
        return None;
    }
    let body = String::from_utf8_lossy(&bytes[end..end + length]).into_owned();
    bytes.drain(..end + length);
    let status = support::whole::status(&head);
    Some(match status {
        "200" => body,
        status => format!("status {status}"),
    })
}

fn counts(hosts: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for host in hosts {
        *counts.entry(host.as_str()).or_default() += 1;
    }
    counts
}

fn judge(scenario: &Scenario, [theirs, ours]: &Sides) -> Vec<String> {
    let name = &scenario.name;
    if scenario.compare == Compare::Same {
        let other = theirs.iter().zip(ours).filter(|(a, b)| a != b).count();
        return match other {
            0 => vec![],
            n => vec![format!(
                "{name}: {n} of {} keys elsewhere: Envoy {:?}, ours {:?}",
                theirs.len(),
                counts(theirs),
                counts(ours)
            )],
        };
    }
    let (theirs, ours) = (counts(theirs), counts(ours));
    let hosts: std::collections::BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let total = scenario.requests as f64;
    let apart = hosts.into_iter().filter(|host| {
        let of = |all: &BTreeMap<&str, usize>| all.get(**host).copied().unwrap_or(0) as f64;
        let (a, b) = (of(&theirs), of(&ours));
        let share = (a + b) / (2.0 * total);
        // So many standard deviations of the difference of two draws, and a few
        // requests more: hardly one false alarm in ten million.
        (a - b).abs() > 5.5 * (2.0 * total * share * (1.0 - share)).sqrt() + 4.0
            || (a == 0.0) != (b == 0.0) && share > 0.01
    });
    let apart: Vec<_> = apart.collect();
    match apart.is_empty() {
        true => vec![],
        false => vec![format!(
            "{name}: {apart:?}: Envoy {theirs:?}, ours {ours:?}"
        )],
    }
}
