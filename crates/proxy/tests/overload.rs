//! The overload manager in a whole proxy: what it turns away, what goes on meanwhile, and that all is
//! as before when the pressure is gone. The real Envoy is asked the same in `differential`.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use support::whole::{OK, Proxy, eventually, http, socket, static_cluster, status, url, wait_for};
use support::*;

const FILE: &str = "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig";
const HEAP: &str = "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig";

/// A proxy with one listener under a pressure that a file says.
struct Pressed {
    folder: tempfile::TempDir,
    _proxy: Proxy,
    address: SocketAddr,
    admin: SocketAddr,
}

fn triggered(name: &str, trigger: Value) -> Value {
    let mut trigger = trigger;
    trigger["name"] = json!("file");
    json!({ "name": name, "triggers": [trigger] })
}

/// Taken in full from 0.9 on.
fn full(name: &str) -> Value {
    triggered(name, json!({ "threshold": { "value": 0.9 } }))
}

fn write(folder: &tempfile::TempDir, pressure: &str) {
    let new = folder.path().join("new");
    std::fs::write(&new, pressure).unwrap();
    std::fs::rename(new, folder.path().join("pressure")).unwrap();
}

impl Pressed {
    fn new(actions: Value, points: Value, upstream: SocketAddr, manager: Value) -> Self {
        Self::listening(actions, points, upstream, manager, Value::Null)
    }

    fn listening(
        actions: Value,
        points: Value,
        upstream: SocketAddr,
        manager: Value,
        more: Value,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "0");
        let (address, admin) = (free_address(), free_address());
        let monitor = json!({ "name": "file", "typed_config": {
            "@type": url(FILE), "filename": folder.path().join("pressure") } });
        let overload = json!({ "refresh_interval": "0.02s", "resource_monitors": [monitor],
            "actions": actions, "loadshed_points": points });
        let extra = json!({ "overload_manager": overload, "admin": { "address": socket(admin) } });
        let mut listeners = vec![http(address, vec![], whole::everything(), manager)];
        listeners.extend(more.as_array().cloned().unwrap_or_default());
        let clusters = json!([static_cluster("c", upstream)]);
        let proxy = Proxy::with(json!(listeners), clusters, extra);
        wait_for(address);
        Self {
            folder,
            _proxy: proxy,
            address,
            admin,
        }
    }

    fn stat(&self, name: &str) -> Option<i64> {
        stat(self.admin, name)
    }

    /// Sets the pressure and waits until the workers know.
    fn press(&self, percent: i64) {
        write(&self.folder, &format!("{}", percent as f64 / 100.0));
        eventually("read", || {
            self.stat("overload.file.pressure") == Some(percent)
        });
        // Workers do as they are told in order: this page asks each of them.
        ask(self.admin, &get("/clusters"));
    }

    fn get(&self) -> String {
        ask(self.address, &get("/"))
    }
}

fn stat(admin: SocketAddr, name: &str) -> Option<i64> {
    let page = ask(admin, &get(&format!("/stats?filter={name}")));
    let mut lines = page.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line?.parse().ok()
}

/// What a connection brings until it ends; none = it does not.
fn rest(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Some(bytes),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(_) => return Some(bytes),
        }
    }
}

#[test]
fn a_share_of_the_requests_is_turned_away() {
    let upstream = Upstream::new(&[OK]);
    let name = "envoy.overload_actions.stop_accepting_requests";
    let scaled = json!({ "scaled": { "scaling_threshold": 0.4, "saturation_threshold": 0.6 } });
    let actions = json!([triggered(name, scaled)]);
    let proxy = Pressed::new(actions, json!([]), upstream.address, Value::Null);
    let series = |what: &str| proxy.stat(&format!("overload.{name}.{what}"));
    assert_eq!(
        (series("active"), series("scale_percent")),
        (Some(0), Some(0))
    );
    let refused = || {
        let mut kept = connect(proxy.address);
        let ask = |_| {
            kept.write_all(get("/").as_bytes()).unwrap();
            let answer = read_message(&mut kept).unwrap();
            if status(&answer) == "503" {
                assert_eq!(body(&answer), "envoy overloaded");
            }
            usize::from(status(&answer) == "503")
        };
        (0..200).map(ask).sum::<usize>()
    };
    assert_eq!(refused(), 0);
    proxy.press(50);
    assert_eq!(
        (series("active"), series("scale_percent")),
        (Some(0), Some(50))
    );
    let half = refused();
    // Forty off a hundred is five and a half deviations of 200 draws.
    assert!((60..=140).contains(&half), "{half} of 200");
    let closed = proxy.stat("http.t.downstream_rq_overload_close");
    assert_eq!(closed, Some(half as i64));
    proxy.press(60);
    assert_eq!(
        (series("active"), series("scale_percent")),
        (Some(1), Some(100))
    );
    assert_eq!(refused(), 200);
    // What says nothing changes nothing, and is counted.
    write(&proxy.folder, "much");
    let failed = "overload.file.failed_updates";
    eventually("a failed reading", || proxy.stat(failed) > Some(0));
    assert_eq!(status(&proxy.get()), "503");
    proxy.press(0);
    assert_eq!((series("active"), refused()), (Some(0), 0));
}

#[test]
fn who_connects_waits_until_the_pressure_is_gone() {
    let upstream = Upstream::new(&[OK]);
    let actions = json!([full("envoy.overload_actions.stop_accepting_connections")]);
    let exempt = free_address();
    let mut other = http(exempt, vec![], whole::everything(), Value::Null);
    other["bypass_overload_manager"] = json!(true);
    let none = json!([]);
    let proxy = Pressed::listening(actions, none, upstream.address, Value::Null, json!([other]));
    let mut old = connect(proxy.address);
    let served = |stream: &mut TcpStream| {
        stream.write_all(get("/").as_bytes()).unwrap();
        status(&read_message(stream).unwrap_or_default()) == "200"
    };
    assert!(served(&mut old));
    proxy.press(95);
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| connect(proxy.address)).collect();
    for stream in &mut waiting {
        stream.write_all(get("/").as_bytes()).unwrap();
    }
    assert!(served(&mut old), "who was there is served");
    assert_eq!(status(&ask(exempt, &get("/"))), "200");
    let silent = Some(Duration::from_millis(100));
    waiting[0].set_read_timeout(silent).unwrap();
    let nothing = waiting[0].read(&mut [0]);
    let kind = nothing.expect_err("nobody reads").kind();
    assert_eq!(kind, std::io::ErrorKind::WouldBlock);
    let time = Some(Duration::from_secs(10));
    waiting[0].set_read_timeout(time).unwrap();
    proxy.press(0);
    for stream in &mut waiting {
        let answer = read_message(stream).unwrap_or_default();
        assert_eq!(status(&answer), "200", "{answer}");
    }
    assert_eq!(status(&proxy.get()), "200");
}

#[test]
fn who_connects_is_sent_away() {
    let upstream = Upstream::new(&[OK]);
    let actions = json!([full("envoy.overload_actions.reject_incoming_connections")]);
    let point = "envoy.load_shed_points.tcp_listener_accept";
    let points = json!([triggered(point, json!({ "threshold": { "value": 0.5 } }))]);
    let proxy = Pressed::new(actions, points, upstream.address, Value::Null);
    let mut old = connect(proxy.address);
    let rejected = format!(
        "listener.{}.downstream_cx_overload_reject",
        proxy.address.to_string().replace(':', "_")
    );
    let shed = format!("overload.{point}.shed_load_count");
    assert_eq!(
        (proxy.stat(&rejected), proxy.stat(&shed)),
        (Some(0), Some(0))
    );
    let sent_away = || {
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        let time = Some(Duration::from_secs(10));
        stream.set_read_timeout(time).unwrap();
        assert_eq!(rest(&mut stream), Some(vec![]));
    };
    proxy.press(95);
    sent_away();
    assert_eq!(
        (proxy.stat(&rejected), proxy.stat(&shed)),
        (Some(1), Some(0))
    );
    proxy.press(60);
    sent_away();
    assert_eq!(
        (proxy.stat(&rejected), proxy.stat(&shed)),
        (Some(2), Some(1))
    );
    old.write_all(get("/").as_bytes()).unwrap();
    assert_eq!(status(&read_message(&mut old).unwrap()), "200");
    proxy.press(0);
    assert_eq!(status(&proxy.get()), "200");
}

#[test]
fn idle_connections_get_less_time() {
    let upstream = Upstream::new(&[OK]);
    let mut action = full("envoy.overload_actions.reduce_timeouts");
    let scale = "envoy.config.overload.v3.ScaleTimersOverloadActionConfig";
    action["typed_config"] = json!({ "@type": url(scale), "timer_scale_factors": [
        { "timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "0.05s" },
        { "timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_scale": { "value": 0.01 } }] });
    let manager = json!({ "common_http_protocol_options": { "idle_timeout": "600s" },
        "stream_idle_timeout": "10s" });
    let actions = json!([action]);
    let proxy = Pressed::new(actions, json!([]), upstream.address, manager);
    let mut used = connect(proxy.address);
    used.write_all(get("/").as_bytes()).unwrap();
    assert!(read_message(&mut used).is_some());
    let mut fresh = connect(proxy.address);
    // At rest, it holds next to nothing and looks at its deadline all the same.
    let mut resting = connect(proxy.address);
    resting.write_all(get("/").as_bytes()).unwrap();
    assert!(read_message(&mut resting).is_some());
    std::thread::sleep(Duration::from_millis(2300));
    proxy.press(95);
    let ends = |stream: &mut TcpStream| {
        let time = Some(Duration::from_secs(10));
        stream.set_read_timeout(time).unwrap();
        rest(stream) == Some(vec![])
    };
    assert!(ends(&mut used), "600 s are not over");
    assert!(ends(&mut resting));
    assert!(ends(&mut fresh), "never used, and begun before");
    // A body that does not come: 10 s would be.
    let half = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n";
    assert_eq!(status(&ask(proxy.address, half)), "408");
    let idled = proxy.stat("http.t.downstream_cx_idle_timeout");
    assert!(idled >= Some(2), "{idled:?}");
    proxy.press(0);
    let mut kept = connect(proxy.address);
    for _ in 0..2 {
        kept.write_all(get("/").as_bytes()).unwrap();
        assert!(read_message(&mut kept).is_some());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The process is well above such a heap: its own pressure is read, and memory is given back.
#[test]
fn the_heap_of_the_process_has_a_pressure() {
    let upstream = Upstream::new(&[OK]);
    let (address, admin) = (free_address(), free_address());
    let name = "envoy.resource_monitors.fixed_heap";
    let trigger = json!({ "name": name, "threshold": { "value": 1.0 } });
    let of = |action: &str| json!({ "name": format!("envoy.overload_actions.{action}"), "triggers": [trigger] });
    let overload = json!({ "refresh_interval": "0.05s",
        "resource_monitors": [{ "name": name, "typed_config": {
            "@type": url(HEAP), "max_heap_size_bytes": 100_000 } }],
        "actions": [of("shrink_heap"), of("stop_accepting_requests"), of("disable_http_keepalive")] });
    let extra = json!({ "overload_manager": overload, "admin": { "address": socket(admin) } });
    let listener = http(address, vec![], whole::everything(), Value::Null);
    let clusters = json!([static_cluster("c", upstream.address)]);
    let _proxy = Proxy::with(json!([listener]), clusters, extra);
    wait_for(address);
    let mut answer = String::new();
    eventually("turned away", || {
        answer = ask(address, &get("/"));
        status(&answer) == "503"
    });
    assert_eq!(body(&answer), "envoy overloaded");
    assert_eq!(header(&answer, "connection"), Some("close"));
    let pressure = stat(admin, &format!("overload.{name}.pressure"));
    assert!(pressure > Some(100), "{pressure:?}");
    let shrunk = "overload.envoy.overload_actions.shrink_heap.shrink_count";
    eventually("given back", || stat(admin, shrunk) >= Some(1));
    let closed = stat(admin, "http.t.downstream_cx_overload_disable_keepalive");
    assert!(closed >= Some(1), "{closed:?}");
}
