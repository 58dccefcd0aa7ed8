//! A bound on memory holds: clients that have the proxy hold more than it may have others turned
//! away, and when they let go all are served again. Alone in its file: the memory is the process's.

mod support;

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;
use support::whole::{Proxy, eventually, http, socket, status, url, wait_for};
use support::*;

/// What each client has the proxy hold: a head that never ends.
const HELD: usize = 7 << 20;
const CLIENTS: usize = 24;
/// What the proxy may take beyond what the process has at the start.
const MORE: u64 = 64 << 20;

/// Resident memory that is no file's.
fn anonymous() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: Vec<u64> = text
        .split(' ')
        .take(3)
        .map(|n| n.parse().unwrap())
        .collect();
    (pages[1] - pages[2]) * 4096
}

fn served(kept: &mut TcpStream) -> String {
    kept.write_all(get("/").as_bytes()).unwrap();
    let answer = read_message(kept).unwrap();
    if status(&answer) != "200" {
        assert_eq!(
            (status(&answer), body(&answer)),
            ("503", "envoy overloaded")
        );
    }
    status(&answer).to_owned()
}

#[test]
fn who_holds_too_much_has_others_wait() {
    let (address, admin) = (free_address(), free_address());
    let name = "envoy.resource_monitors.fixed_heap";
    let heap = "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig";
    let of = |action: &str, value: f64| {
        json!({ "name": format!("envoy.overload_actions.{action}"),
            "triggers": [{ "name": name, "threshold": { "value": value } }] })
    };
    let routes = json!([{ "match": { "prefix": "/" },
        "direct_response": { "status": 200, "body": { "inline_string": "hi" } } }]);
    let listener = http(
        address,
        vec![],
        routes,
        json!({ "max_request_headers_kb": 8192 }),
    );
    let overload = json!({ "refresh_interval": "0.02s",
        "resource_monitors": [{ "name": name, "typed_config": {
            "@type": url(heap), "max_heap_size_bytes": anonymous() + MORE } }],
        "actions": [of("shrink_heap", 0.9), of("stop_accepting_requests", 1.0)] });
    let extra = json!({ "overload_manager": overload, "admin": { "address": socket(admin) } });
    let _proxy = Proxy::with(json!([listener]), json!([]), extra);
    wait_for(address);
    let mut kept = connect(address);
    assert_eq!(served(&mut kept), "200");
    let chunk = vec![b'a'; 64 << 10];
    let mut clients = Vec::new();
    let mut refused_at = None;
    while clients.len() < CLIENTS {
        let mut client = connect(address);
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ")
            .unwrap();
        for _ in 0..HELD / chunk.len() {
            client.write_all(&chunk).unwrap();
        }
        clients.push(client);
        if refused_at.is_none() && served(&mut kept) == "503" {
            refused_at = Some(clients.len());
        }
    }
    eventually("turned away", || served(&mut kept) == "503");
    // Buffers are as large as what they hold, or twice as large.
    let few = MORE as usize / HELD / 3;
    assert!(refused_at.is_none_or(|n| n > few), "{refused_at:?}");
    drop(clients);
    eventually("served again", || served(&mut kept) == "200");
    let page = |what: &str| ask(admin, &get(&format!("/stats?filter={what}")));
    let active = "overload.envoy.overload_actions.stop_accepting_requests.active: 0";
    assert!(page("stop_accepting_requests").contains(active));
    let shrunk = page("shrink_count");
    assert!(!shrunk.contains("shrink_count: 0"), "{shrunk}");
}
