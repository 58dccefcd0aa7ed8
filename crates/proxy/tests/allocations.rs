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

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
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
        rules: Some(Arc::new(Rules { action, policies })),
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
