//! The steady state allocates nothing per request, or next to it: an allocator
//! that counts, a client and an upstream that allocate nothing themselves.
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; it only counts and passes on"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lateen_proxy_core::config::HttpConnectionManager;
use lateen_proxy_core::config::http_filter::{HttpFilter, HttpFilterConfig};
use lateen_proxy_core::config::rbac::{Action, Permission, Policy, Principal, Rbac, Rules};
use lateen_proxy_core::config::route::*;
use lateen_proxy_core::matcher::{HeaderMatcher, HeaderRule, PathMatcher, StringMatcher};
use support::*;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
/// Bytes that are held, and the most that were.
static HELD: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);

fn hold(size: usize) {
    let held = HELD.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
    MOST.fetch_max(held, Ordering::Relaxed);
}

fn release(size: usize) {
    HELD.fetch_sub(size as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        hold(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        release(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        release(layout.size());
        hold(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests before the count, until everything is as large as it gets, and while it runs.
const WARM: u64 = 1000;
const COUNTED: u64 = 2000;

/// The count is the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// An upstream of one connection that answers with 100 bytes.
fn upstream() -> SocketAddr {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: text/plain\r\n\r\n";
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let mut answer = [b'x'; 200];
        answer[..ANSWER.len()].copy_from_slice(ANSWER);
        let mut request = [0; 4096];
        while stream.read(&mut request).is_ok_and(|n| n > 0) {
            stream.write_all(&answer[..ANSWER.len() + 100]).unwrap();
        }
    });
    address
}

fn filter(name: &str, config: HttpFilterConfig) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        disabled: false,
        config,
    }
}

/// Rules of one policy for everyone.
fn rules(action: Action, name: &str, what: Permission) -> HttpFilterConfig {
    let policy = Policy {
        permissions: vec![what],
        principals: vec![Principal::Any],
    };
    let policies = vec![(name.into(), policy)];
    HttpFilterConfig::Rbac(Arc::new(Rbac {
        rules: Some(Arc::new(Rules {
            action,
            policies,
            tree: None,
        })),
        ..Rbac::default()
    }))
}

/// A sidecar's manager: access control with rules, Istio's metrics, an access log.
fn sidecar(log: &std::path::Path) -> HttpConnectionManager {
    let mut manager = manager(vec![route(
        "/",
        RouteAction::Forward(Arc::new(forward("c"))),
    )]);
    manager.access_logs = vec![text_log(log, lateen_proxy_core::access_log::DEFAULT_TEXT)];
    let admin = PathMatcher(StringMatcher::prefix("/admin"));
    let get = HeaderMatcher {
        name: ":method".into(),
        rule: HeaderRule::String(StringMatcher::exact("GET")),
        invert: false,
        missing_as_empty: false,
    };
    let admin = Permission::UrlPath(Box::new(admin));
    let get = Permission::Header(Box::new(get));
    let before = [
        // Istio's metrics add to slots that are found without a new one.
        filter("istio.stats", HttpFilterConfig::IstioStats(Arc::default())),
        filter("rbac.deny", rules(Action::Deny, "admin", admin)),
        filter("rbac", rules(Action::Allow, "read", get)),
    ];
    manager.http_filters.splice(0..0, before);
    manager
}

/// Serves a sidecar's requests and counts what they allocate.
fn counted(connect: impl FnOnce(SocketAddr) -> Box<dyn FnMut()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let manager = sidecar(&dir.path().join("log"));
    let (_running, address) = http_proxy(manager, vec![cluster("c", &[upstream()])]);
    let mut ask = connect(address);
    (0..WARM).for_each(|_| ask());
    let before = COUNT.load(Ordering::Relaxed);
    (0..COUNTED).for_each(|_| ask());
    let count = COUNT.load(Ordering::Relaxed) - before;
    eprintln!(
        "allocations per request: {:.3}",
        count as f64 / COUNTED as f64
    );
    assert!(count < 200, "{count} allocations in {COUNTED} requests");
}

#[test]
fn the_steady_state_of_http1_allocates_next_to_nothing() {
    counted(|address| {
        let request = b"GET /some/path?with=query HTTP/1.1\r\nHost: service.example\r\n\
            User-Agent: test\r\nAccept: */*\r\nX-Request-Id: 6f1c1c1e-0000-4000-8000-000000000000\r\n\r\n";
        let mut client = connect(address);
        let mut answer = [0; 4096];
        Box::new(move || {
            client.write_all(request).unwrap();
            let mut got = 0;
            while !answer[..got].ends_with(&[b'x'; 100]) {
                got += client.read(&mut answer[got..]).unwrap();
            }
        })
    });
}

#[test]
fn the_steady_state_of_http2_allocates_next_to_nothing() {
    counted(|address| {
        let mut client = Http2::new(connect(address));
        Box::new(move || client.ask())
    });
}

/// A server that reads and never answers; how many connections it got bytes on.
fn silent() -> (SocketAddr, Arc<AtomicU64>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            let asked = counted.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 65_536];
                let first = stream.read(&mut bytes).is_ok_and(|n| n > 0);
                asked.fetch_add(u64::from(first), Ordering::SeqCst);
                while stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
            });
        }
    });
    (address, asked)
}

/// A body that goes with a check is held once, as long as it may be, and let go with its client:
/// the configuration's bound is the memory's.
#[test]
fn bodies_that_wait_for_a_verdict_are_held_once() {
    use serde_json::json;
    use support::whole::{Proxy, eventually, everything, filter, http, static_cluster, wait_for};
    const BODY: usize = 12 << 20;
    const UPLOADS: u64 = 4;
    static PIECE: [u8; 65_536] = [b'x'; 65_536];
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let services = [
        json!({ "http_service": { "server_uri": {
            "uri": "http://authz", "cluster": "authz", "timeout": "60s" } } }),
        json!({ "grpc_service": { "envoy_grpc": { "cluster_name": "authz" }, "timeout": "60s" }, "transport_api_version": "V3" }),
    ];
    for (service, grpc) in services.into_iter().zip([false, true]) {
        let (silent, asked) = silent();
        let mut config = service;
        config["with_request_body"] = json!({ "max_request_bytes": BODY, "pack_as_bytes": true });
        let message = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
        let mut authz = static_cluster("authz", silent);
        if grpc {
            authz["http2_protocol_options"] = json!({});
        }
        let address = free_address();
        let check = filter("check", message, config);
        let listener = http(address, vec![check], everything(), json!({}));
        let clusters = json!([static_cluster("c", silent), authz]);
        let _proxy = Proxy::start(json!([listener]), clusters, None);
        wait_for(address);
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let clients: Vec<TcpStream> = (0..UPLOADS)
            .map(|place| {
                let mut client = connect(address);
                let chunked = place % 2 == 1;
                let framing = match chunked {
                    true => "Transfer-Encoding: chunked".to_owned(),
                    false => format!("Content-Length: {BODY}"),
                };
                let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
                client.write_all(head.as_bytes()).unwrap();
                for _ in 0..BODY / PIECE.len() {
                    if chunked {
                        client.write_all(b"10000\r\n").unwrap();
                    }
                    client.write_all(&PIECE).unwrap();
                    if chunked {
                        client.write_all(b"\r\n").unwrap();
                    }
                }
                if chunked {
                    client.write_all(b"0\r\n\r\n").unwrap();
                }
                client
            })
            .collect();
        // Over gRPC the checks share a connection, whose window holds them back.
        let bodies = UPLOADS * BODY as u64;
        eventually("the service is asked", || {
            asked.load(Ordering::SeqCst) >= if grpc { 1 } else { UPLOADS }
                && HELD.load(Ordering::Relaxed) >= before + bodies
        });
        let most = MOST.load(Ordering::Relaxed) - before;
        eprintln!("{UPLOADS} bodies of {BODY} bytes held {most}");
        assert!(most < bodies + bodies / 4, "{most} bytes for {bodies}");
        drop(clients);
        eventually("the bodies are let go", || {
            HELD.load(Ordering::Relaxed) < before + BODY as u64 / 2
        });
    }
}

/// A client of HTTP/2 that allocates nothing: one request after another, frames read for their
/// length and flags.
struct Http2 {
    stream: TcpStream,
    next: u32,
    buf: [u8; 4096],
    held: usize,
}

impl Http2 {
    fn new(mut stream: TcpStream) -> Self {
        // The preface, empty SETTINGS, and a window of the connection for all answers.
        stream
            .write_all(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
                \0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0",
            )
            .unwrap();
        Self {
            stream,
            next: 1,
            buf: [0; 4096],
            held: 0,
        }
    }

    fn ask(&mut self) {
        // `:method: GET`, `:scheme: http`, `:path`, `:authority`, `x-request-id`, none indexed.
        const BLOCK: &[u8] = b"\x82\x86\x04\x05/path\x01\x07service\
            \0\x0cx-request-id\x246f1c1c1e-0000-4000-8000-000000000000";
        let mut frame = [0; 9 + BLOCK.len()];
        frame[2] = u8::try_from(BLOCK.len()).unwrap();
        // HEADERS with END_STREAM and END_HEADERS.
        (frame[3], frame[4]) = (1, 5);
        frame[5..9].copy_from_slice(&self.next.to_be_bytes());
        frame[9..].copy_from_slice(BLOCK);
        self.next += 2;
        self.stream.write_all(&frame).unwrap();
        while !self.frame() {}
    }

    /// Reads a frame; whether an answer ended with it.
    fn frame(&mut self) -> bool {
        let whole = |held: &[u8]| {
            let length = held.first_chunk::<3>()?;
            let end = 9 + u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            (held.len() >= end).then_some(end)
        };
        let end = loop {
            if let Some(end) = whole(&self.buf[..self.held]) {
                break end;
            }
            let count = self.stream.read(&mut self.buf[self.held..]).unwrap();
            assert!(count > 0, "the proxy closed the connection");
            self.held += count;
        };
        let (kind, flags) = (self.buf[3], self.buf[4]);
        self.buf.copy_within(end..self.held, 0);
        self.held -= end;
        assert!(!matches!(kind, 3 | 7), "RST_STREAM or GOAWAY");
        if kind == 4 && flags == 0 {
            self.stream.write_all(b"\0\0\0\x04\x01\0\0\0\0").unwrap();
        }
        kind <= 1 && flags & 1 != 0
    }
}
