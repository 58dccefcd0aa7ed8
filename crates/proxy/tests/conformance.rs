//! A strict conformance suite for HTTP/2 servers, our own reading of RFC 9113
//! and RFC 7541: each case of `conformance/*.yaml` sends frames, names the
//! section it is about and the reactions that section allows. It runs against
//! this proxy, and where the real Envoy is found against that too, for its
//! count. LATEEN_CASES runs some cases, LATEEN_SHOW prints what came.

#[path = "differential/envoy.rs"]
#[allow(dead_code, reason = "written for the differential suite")]
mod envoy;
mod frames;
mod support;

#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/judge.rs"]
mod judge;

use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;
use frames::client::Client;
use judge::Verdict;
use serde_json::{Value, json};
use support::whole::{self, Proxy};

/// So many situations does the field's own strict tool know.
const LEAST: usize = 147;
/// Streams a client may have open, in the configuration of both.
const STREAMS: u32 = 100;
/// Cases at a time; they mostly wait.
const LANES: usize = 24;

#[test]
fn http2_is_served_as_its_rfcs_say() {
    let wanted = std::env::var("LATEEN_CASES").unwrap_or_default();
    let mut cases = case::read_all();
    let all = cases.len();
    cases.retain(|case| case.name.contains(&wanted));
    let upstream = upstream();
    let clusters = json!([whole::static_cluster("c", upstream)]);
    let ours = support::free_address();
    let _proxy = Proxy::start(json!([listener(ours)]), clusters.clone(), None);
    whole::wait_for(ours);
    let verdicts = std::thread::scope(|scope| {
        scope.spawn(|| match envoy::find() {
            Some(program) => of_envoy(&program, &cases, &clusters),
            None => println!("SKIPPED: the real Envoy's count (set LATEEN_ENVOY)"),
        });
        run(&cases, ours)
    });
    let mut wrong = Vec::new();
    for (case, verdict) in cases.iter().zip(&verdicts) {
        match (verdict, &case.fails) {
            (Verdict::Wrong(why), None) => {
                wrong.push(format!("{}: {why}\n  {}", case.name, case.section));
            }
            (Verdict::Wrong(why), Some(reason)) => {
                println!("known: {}: {why} ({reason})", case.name)
            }
            (_, Some(_)) => wrong.push(format!("{}: passes; take `fails` away", case.name)),
            (Verdict::OtherCode(why), None) => {
                wrong.push(format!("{}: another code: {why}", case.name));
            }
            (Verdict::Right, None) => {}
        }
    }
    println!("ours {}", count(&verdicts));
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(all >= LEAST, "only {all} cases");
    assert!(!cases.is_empty(), "no case has {wanted:?} in its name");
}

/// The same cases against the real Envoy: its count, and what it fails.
fn of_envoy(program: &std::path::Path, cases: &[Case], clusters: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let address = support::free_address();
    let bootstrap = json!({ "static_resources": {
        "listeners": [listener(address)], "clusters": clusters } });
    let mut running = envoy::Envoy::start(program, folder.path(), &bootstrap);
    running.wait_for(address);
    let verdicts = run(cases, address);
    for (case, verdict) in cases.iter().zip(&verdicts) {
        if let Verdict::Wrong(why) = verdict {
            println!("Envoy fails: {}: {why}", case.name);
        }
    }
    println!("Envoy {}", count(&verdicts));
}

fn count(verdicts: &[Verdict]) -> String {
    let wrong = |v: &&Verdict| matches!(v, Verdict::Wrong(_));
    let other = |v: &&Verdict| matches!(v, Verdict::OtherCode(_));
    let passed = verdicts.len() - verdicts.iter().filter(wrong).count();
    let other = verdicts.iter().filter(other).count();
    format!(
        "passes {passed} of {} cases, {other} of them with another error code",
        verdicts.len()
    )
}

fn listener(address: SocketAddr) -> Value {
    let options = json!({ "max_concurrent_streams": STREAMS });
    let extra = json!({ "http2_protocol_options": options, "delayed_close_timeout": "0.5s" });
    whole::http(address, vec![], whole::everything(), extra)
}

/// Answers every request with a body that is longer than the windows of the cases.
fn upstream() -> SocketAddr {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{}",
        "x".repeat(200)
    );
    support::Upstream::new(&[&answer]).address
}

fn run(cases: &[Case], address: SocketAddr) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts: Mutex<Vec<Option<_>>> = Mutex::new(vec![None; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(at) else { return };
                    let verdict = play(case, address);
                    verdicts.lock().unwrap()[at] = Some(verdict);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap();
    verdicts.into_iter().map(Option::unwrap).collect()
}

fn play(case: &Case, address: SocketAddr) -> Verdict {
    let mut client = Client::over(TcpStream::connect(address).unwrap());
    client.play(&case.steps);
    let verdict = judge::judge(case, &mut client);
    if std::env::var_os("LATEEN_SHOW").is_some() {
        println!("-- {}: {verdict:?}\n   {:?}", case.name, client.events());
    }
    verdict
}
