//! What clients may take: connections of the proxy and of a listener, time for a handshake, a
//! preface, a head, a body; and what happens when the process has no descriptors left. One test at
//! a time: descriptors belong to the whole process.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lateen_proxy::engine::EngineOptions;
use lateen_proxy::listener::limits::ConnectionLimits;
use lateen_proxy_core::config::{HttpConnectionManager, Listener, NetworkFilter};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use serde_json::{Value, json};
use support::whole::{OK, Proxy, eventually, http, static_cluster, wait_for};
use support::*;

/// One at a time; a test that failed must not fail the others.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn serving(manager: HttpConnectionManager, name: &str, address: SocketAddr) -> Listener {
    let filter = NetworkFilter::HttpConnectionManager(Arc::new(manager));
    listener(name, address, vec![chain(vec![filter])])
}

fn plain() -> HttpConnectionManager {
    manager(vec![route("/", forwarding())])
}

fn forwarding() -> lateen_proxy_core::config::RouteAction {
    lateen_proxy_core::config::RouteAction::Forward(Arc::new(forward("c")))
}

fn limited(limits: ConnectionLimits, listeners: Vec<Listener>, upstream: &Upstream) -> Running {
    let options = EngineOptions {
        concurrency: 2,
        limits: Arc::new(limits),
        ..EngineOptions::default()
    };
    let clusters = vec![cluster("c", &[upstream.address])];
    run_with(options, &snapshot(listeners, clusters))
}

/// A connection that was served, or none where it was closed without a word.
fn served(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect(address);
    let sent = stream.write_all(get("/").as_bytes());
    let answer = sent.ok().and_then(|()| read_message(&mut stream))?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Some(stream)
}

#[test]
fn the_proxy_has_so_many_connections_and_a_listener_may_have_more() {
    let _alone = alone();
    let upstream = Upstream::new(&[OK]);
    let (address, beyond) = (free_address(), free_address());
    let mut free = serving(plain(), "free", beyond);
    free.ignore_global_conn_limit = true;
    let listeners = vec![serving(plain(), "l", address), free];
    let limits = ConnectionLimits::new(Some(3), []);
    let running = limited(limits, listeners, &upstream);
    let mut open: Vec<TcpStream> = (0..3).map(|_| served(address).unwrap()).collect();
    for _ in 0..5 {
        assert!(served(address).is_none(), "a fourth");
    }
    assert!(served(beyond).is_some(), "not counted there");
    open.pop();
    eventually("a place is free again", || match served(address) {
        Some(again) => {
            open.push(again);
            true
        }
        None => false,
    });
    assert_eq!(open.len(), 3);
    drop(running);
}

#[test]
fn silent_connections_count() {
    let _alone = alone();
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let limits = ConnectionLimits::new(None, [("l".into(), 2)]);
    let _running = limited(limits, vec![serving(plain(), "l", address)], &upstream);
    // One may be kept out by a connection that only tried whether the port is open.
    let mut silent = Vec::new();
    eventually("two are accepted", || {
        silent.push(connect(address));
        served(address).is_none()
    });
    drop(silent);
    eventually("places are free again", || served(address).is_some());
}

/// What a bootstrap says of connections is done.
#[test]
fn the_overload_manager_limits_connections() {
    let _alone = alone();
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let listener = http(address, vec![], whole::everything(), Value::Null);
    let monitor =
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";
    let extra = json!({ "overload_manager": { "resource_monitors": [{
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": { "@type": whole::url(monitor), "max_active_downstream_connections": 1 } }] } });
    let clusters = json!([static_cluster("c", upstream.address)]);
    let _proxy = Proxy::with(json!([listener]), clusters, extra);
    wait_for(address);
    let mut held = None;
    eventually("the first", || {
        held = served(address);
        held.is_some()
    });
    assert!(served(address).is_none());
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let all = [usage.user_time(), usage.system_time()];
    let all = all.map(|t| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64));
    all[0] + all[1]
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let _alone = alone();
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let limits = ConnectionLimits::default();
    let _running = limited(limits, vec![serving(plain(), "l", address)], &upstream);
    let mut kept = served(address).unwrap();
    let late: Vec<socket2::Socket> = (0..4)
        .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap())
        .collect();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 1, hard).unwrap();
    // Nothing that needs a descriptor until the limit is as it was.
    let connected = late.iter().all(|s| s.connect(&address.into()).is_ok());
    let before = cpu();
    std::thread::sleep(Duration::from_millis(600));
    let spent = cpu() - before;
    let asked = kept.write_all(get("/").as_bytes());
    let answer = asked.ok().and_then(|()| read_message(&mut kept));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(connected, "the kernel takes them");
    assert!(
        answer.unwrap().starts_with("HTTP/1.1 200"),
        "open ones are served"
    );
    assert!(
        spent < Duration::from_millis(400),
        "it turns in vain: {spent:?}"
    );
    for socket in late {
        let mut stream = TcpStream::from(socket);
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(get("/").as_bytes()).unwrap();
        let answer = read_message(&mut stream).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Sends a byte at a time, slowly, until the other side ends; what came, and after how long.
fn dripped(address: SocketAddr, bytes: &[u8]) -> (String, Duration) {
    let mut stream = connect(address);
    let (begun, mut text) = (Instant::now(), Vec::new());
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    for byte in bytes.iter().chain(std::iter::repeat(&b'a')) {
        // That the other side has ended shows in what is read.
        let _ = stream.write_all(&[*byte]);
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it never ends");
    }
    (String::from_utf8_lossy(&text).into_owned(), begun.elapsed())
}

fn slow_scene(options: Value) -> (Proxy, SocketAddr, Upstream) {
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let listener = http(address, vec![], whole::everything(), options);
    let clusters = json!([static_cluster("c", upstream.address)]);
    let proxy = Proxy::start(json!([listener]), clusters, None);
    wait_for(address);
    (proxy, address, upstream)
}

#[test]
fn a_slow_head_ends() {
    let _alone = alone();
    let (_proxy, address, upstream) = slow_scene(json!({ "request_headers_timeout": "0.4s" }));
    let (answer, _) = dripped(address, b"GET / HTTP/1.1\r\nHost: x\r\nx-a: ");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(upstream.seen.lock().unwrap().is_empty());
}

#[test]
fn a_slow_body_ends() {
    let _alone = alone();
    let (_proxy, address, _upstream) = slow_scene(json!({ "request_timeout": "0.4s" }));
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    let mut stream = connect(address);
    stream.write_all(head).unwrap();
    let mut answer = String::new();
    for _ in 0..200 {
        let _ = stream.write_all(b"a");
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.push_str(&String::from_utf8_lossy(&chunk[..count])),
            Err(_) => {}
        }
    }
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn a_slow_preface_ends() {
    let _alone = alone();
    let idle = json!({ "common_http_protocol_options": { "idle_timeout": "0.4s" } });
    for codec in ["AUTO", "HTTP2"] {
        let mut options = idle.clone();
        options["codec_type"] = json!(codec);
        let (_proxy, address, _upstream) = slow_scene(options);
        let (answer, _) = dripped(address, b"PRI * HTTP/2.0\r\n\r\n");
        assert!(!answer.contains("HTTP/1.1 200"), "{codec}: {answer}");
    }
}

#[test]
fn a_slow_handshake_ends() {
    let _alone = alone();
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let own = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let mut listener = http(address, vec![], whole::everything(), Value::Null);
    let certificate = json!({ "certificate_chain": { "inline_string": own.cert.pem() },
        "private_key": { "inline_string": own.signing_key.serialize_pem() } });
    let context = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    listener["filter_chains"][0]["transport_socket"] = json!({ "name": "tls", "typed_config": {
        "@type": whole::url(context), "common_tls_context": { "tls_certificates": [certificate] } } });
    listener["filter_chains"][0]["transport_socket_connect_timeout"] = json!("0.4s");
    let clusters = json!([static_cluster("c", upstream.address)]);
    let _proxy = Proxy::start(json!([listener]), clusters, None);
    wait_for(address);
    // A record of a hello that says it has 16,000 bytes.
    let (answer, _) = dripped(address, b"\x16\x03\x01\x3e\x80\x01\x00\x3e\x7c\x03\x03");
    assert!(!answer.contains("HTTP"), "{answer}");
}
