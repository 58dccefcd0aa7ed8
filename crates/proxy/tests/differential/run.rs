//! Runs all cases: one Envoy, one proxy of ours, several cases at a time; those under pressure
//! between two more.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bootstrap::{self, Networks};
use super::envoy::Envoy;
use super::expand::Instance;
use super::pressure::Pressure;
use super::upstream::Upstream;
use super::{client, normal, script};
use crate::support::whole::{Proxy, wait_for};

/// Cases at a time; they mostly wait.
const LANES: usize = 24;

/// What one side did in a case.
#[derive(Default, Clone)]
pub struct Record {
    /// What the client got.
    pub client: Vec<String>,
    /// What the upstreams saw.
    pub upstream: Vec<String>,
    /// Access-log lines.
    pub log: Vec<String>,
}

/// Envoy's record and ours for every case, in their order.
pub fn run(program: &Path, cases: &[Instance]) -> Vec<(Record, Record)> {
    allow_many_files();
    let (pressed, free): (Vec<_>, Vec<_>) = cases.iter().partition(|c| c.case.under.is_some());
    let mut records = HashMap::new();
    if !free.is_empty() {
        records.extend(run_some(program, &free, None));
    }
    if !pressed.is_empty() {
        let pressure = Pressure::of(&pressed);
        records.extend(run_some(program, &pressed, Some(&pressure)));
    }
    let in_order = cases.iter().map(|case| records.remove(&case.index));
    in_order.map(Option::unwrap).collect()
}

/// Records by the numbers of their cases.
type Records = HashMap<usize, (Record, Record)>;

/// Runs some of the cases between one Envoy and one proxy of ours, under pressure where that is
/// given.
fn run_some(program: &Path, cases: &[&Instance], pressure: Option<&Pressure>) -> Records {
    let folder = tempfile::tempdir().unwrap();
    let networks = Networks::choose();
    let (_hole, blackhole) = blackhole();
    let mut slots: BTreeMap<usize, Vec<&Instance>> = BTreeMap::new();
    for case in cases {
        slots.entry(case.slot).or_default().push(case);
    }
    let slots: Vec<Vec<&Instance>> = slots.into_values().collect();
    let logs = [folder.path().join("envoys"), folder.path().join("ours")];
    let listeners = |network, log: &PathBuf| -> Value {
        let all = slots
            .iter()
            .map(|s| bootstrap::listener(s[0], network, log));
        all.collect()
    };
    let clusters: Value = slots
        .iter()
        .flat_map(|s| bootstrap::clusters(s[0], networks.upstream, blackhole))
        .collect();
    let admins = [networks.envoy, networks.ours].map(bootstrap::admin);
    let extra = |admin: SocketAddr| match pressure {
        Some(pressure) => json!({ "overload_manager": pressure.manager(),
            "admin": { "address": bootstrap::socket(admin) } }),
        None => json!({}),
    };
    // Ours has the same.
    let node =
        json!({ "id": "sidecar~10.0.0.1~a-v1-x.shop~shop.svc.cluster.local", "cluster": "a.shop" });
    let mut theirs = extra(admins[0]);
    theirs["node"] = node;
    theirs["static_resources"] =
        json!({ "listeners": listeners(networks.envoy, &logs[0]), "clusters": clusters });
    let mut envoy = Envoy::start(program, folder.path(), &theirs);
    let ours = listeners(networks.ours, &logs[1]);
    let _proxy = Proxy::with(ours, clusters, extra(admins[1]));
    for slot in [slots.first(), slots.last()].into_iter().flatten() {
        envoy.wait_for(bootstrap::address(networks.envoy, slot[0].slot));
        wait_for(bootstrap::address(networks.ours, slot[0].slot));
    }
    let mut records = Records::new();
    match pressure {
        None => records.extend(play_all(&slots, networks)),
        Some(pressure) => {
            for action in &pressure.actions {
                let under = |c: &&&Instance| c.case.under.as_ref() == Some(action);
                let now: Vec<Vec<&Instance>> = slots
                    .iter()
                    .map(|slot| slot.iter().filter(under).copied().collect())
                    .collect();
                pressure.set(action, true, admins);
                records.extend(play_all(&now, networks));
                pressure.set(action, false, admins);
            }
        }
    }
    add_logs(cases, &logs, &mut records, networks);
    records
}

fn play_all(slots: &[Vec<&Instance>], networks: Networks) -> Records {
    let next = AtomicUsize::new(0);
    let records = Mutex::new(Records::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(slot) = slots.get(at) else { return };
                    for case in slot {
                        let pair = play(case, networks);
                        records.lock().unwrap().insert(case.index, pair);
                    }
                }
            });
        }
    });
    records.into_inner().unwrap()
}

fn play(case: &Instance, networks: Networks) -> (Record, Record) {
    let names = case.clusters();
    let serving = names.iter().enumerate().filter(|(_, name)| {
        let given = case.config.clusters.get(*name);
        !given.is_some_and(Value::is_string)
    });
    let upstreams: Vec<(&String, Upstream)> = serving
        .map(|(place, name)| {
            let address = bootstrap::upstream(networks.upstream, case.slot, place);
            if name == "up" && !case.case.serves.is_empty() {
                let scripts = case.case.serves.iter();
                let scripts = scripts.map(|s| crate::frames::script::steps(&s.list()));
                return (name, Upstream::framed(address, scripts.collect()));
            }
            let answers = case.case.upstream.of(name);
            let answers = answers.iter().map(|a| script::steps(a)).collect();
            (name, Upstream::start(address, answers))
        })
        .collect();
    let side = |network| {
        let address = bootstrap::address(network, case.slot);
        let from = bootstrap::client(networks.client, case.index);
        let client = client::play(case, from, address);
        std::thread::sleep(Duration::from_millis(case.case.settle));
        let mut record = Record {
            client: lines(client, case, networks),
            ..Record::default()
        };
        for (name, upstream) in &upstreams {
            for request in upstream.take() {
                record.upstream.push(format!("request to {name}"));
                let shown = request.into_iter().map(|l| format!("  {l}")).collect();
                record.upstream.extend(lines(shown, case, networks));
            }
        }
        record
    };
    (side(networks.envoy), side(networks.ours))
}

fn lines(all: Vec<String>, case: &Instance, networks: Networks) -> Vec<String> {
    let all = all.iter().map(|l| normal::line(l, case, networks));
    all.collect()
}

/// How long logs must have had nothing new where both need not have as many lines.
const SETTLED: Duration = Duration::from_secs(1);

/// Waits until both logs have the same lines in number, for the cases that differ until nothing
/// comes any more, then deals them out.
fn add_logs(cases: &[&Instance], logs: &[PathBuf; 2], records: &mut Records, networks: Networks) {
    let until = Instant::now() + Duration::from_secs(3);
    let client = |c: &Instance| bootstrap::client(networks.client, c.index).ip().to_string();
    let counts = |all: &Lines, differing: bool| -> Vec<usize> {
        let count = |c: &&Instance| all.get(&client(c)).map_or(0, Vec::len);
        let of = |c: &&&Instance| c.case.differs.is_some() == differing;
        cases.iter().filter(of).map(count).collect()
    };
    let (mut both, mut last, mut since);
    (last, since) = ([Vec::new(), Vec::new()], Instant::now());
    loop {
        both = [read_log(&logs[0]), read_log(&logs[1])];
        let differing = [counts(&both[0], true), counts(&both[1], true)];
        let settled = differing[0] == differing[1] || since.elapsed() > SETTLED;
        let agree = counts(&both[0], false) == counts(&both[1], false);
        if differing != last {
            (last, since) = (differing, Instant::now());
        } else if agree && settled || Instant::now() > until {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let [mut theirs, mut ours] = both;
    for case in cases {
        let record = records.get_mut(&case.index).unwrap();
        let of = |all: &mut Lines| {
            let log = all.remove(&client(case)).unwrap_or_default();
            lines(log, case, networks)
        };
        record.0.log = of(&mut theirs);
        record.1.log = of(&mut ours);
    }
}

/// Lines by the client's address.
type Lines = HashMap<String, Vec<String>>;

fn read_log(path: &Path) -> Lines {
    let bytes = std::fs::read(path).unwrap_or_default();
    let mut all = Lines::new();
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let text = line.escape_ascii().to_string();
        // A line of a JSON format says it in its first key.
        let json = text.strip_prefix("{\\\"0\\\":\\\"");
        let (client, rest) = match json {
            Some(json) => json.split_once("\\\"").unwrap(),
            None => text.split_once(' ').unwrap(),
        };
        all.entry(client.to_owned())
            .or_default()
            .push(format!("log {rest}"));
    }
    all
}

/// An address where connections never open: its queue is full. The second
/// value keeps it so.
fn blackhole() -> ((socket2::Socket, Vec<TcpStream>), SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let short = Duration::from_millis(100);
    let filling = std::iter::from_fn(|| TcpStream::connect_timeout(&address, short).ok());
    let held: Vec<TcpStream> = filling.take(16).collect();
    ((socket, held), address)
}

fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
