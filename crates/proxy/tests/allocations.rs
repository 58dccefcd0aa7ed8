//! The steady state allocates nothing per request, or next to it: an allocator
//! that counts, a client and an upstream that allocate nothing themselves.
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; it only counts and passes on"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lateen_proxy_core::config::http_filter::{HttpFilter, HttpFilterConfig};
use lateen_proxy_core::config::route::*;
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

#[test]
fn the_steady_state_allocates_next_to_nothing() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: text/plain\r\n\r\n";
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let mut answer = [b'x'; 200];
        answer[..ANSWER.len()].copy_from_slice(ANSWER);
        let mut request = [0; 4096];
        while stream.read(&mut request).is_ok_and(|n| n > 0) {
            stream.write_all(&answer[..ANSWER.len() + 100]).unwrap();
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let mut manager = manager(vec![route(
        "/",
        RouteAction::Forward(Arc::new(forward("c"))),
    )]);
    manager.access_logs = vec![text_log(
        &dir.path().join("log"),
        lateen_proxy_core::access_log::DEFAULT_TEXT,
    )];
    // Istio's metrics add to slots that are found without a new one.
    let stats = HttpFilterConfig::IstioStats(Arc::default());
    manager.http_filters.insert(
        0,
        HttpFilter {
            name: "istio.stats".into(),
            disabled: false,
            config: stats,
        },
    );
    let (_running, address) = http_proxy(manager, vec![cluster("c", &[upstream])]);
    let request = b"GET /some/path?with=query HTTP/1.1\r\nHost: service.example\r\n\
        User-Agent: test\r\nAccept: */*\r\nX-Request-Id: 6f1c1c1e-0000-4000-8000-000000000000\r\n\r\n";
    let mut client = connect(address);
    let mut answer = [0; 4096];
    let mut ask = |times: u64| {
        for _ in 0..times {
            client.write_all(request).unwrap();
            let mut got = 0;
            while !answer[..got].ends_with(&[b'x'; 100]) {
                got += client.read(&mut answer[got..]).unwrap();
            }
        }
    };
    ask(1000);
    let before = COUNT.load(Ordering::Relaxed);
    ask(2000);
    let count = COUNT.load(Ordering::Relaxed) - before;
    eprintln!("allocations per request: {:.3}", count as f64 / 2000.0);
    assert!(count < 200, "{count} allocations in 2000 requests");
}
