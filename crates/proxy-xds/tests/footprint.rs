//! What a service costs at rest: the bytes that live on the heap for each cluster, virtual host and
//! endpoint, counted by the allocator, so that the figure is the same on every machine.
#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; it only counts and passes on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lateen_proxy_xds::ads::{self, Options};
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use serde_json::{Value, json};

struct Counting;

thread_local! {
    /// Bytes alive of what this thread took and gave back: tests beside this one do not count.
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// Sizes are rounded up as allocators do: to 16 bytes, above 128 to an eighth of a power of two.
fn rounded(size: usize) -> i64 {
    let step = (size.next_power_of_two() / 16).max(16);
    i64::try_from(size.next_multiple_of(step)).unwrap_or(i64::MAX)
}

fn count(bytes: i64) {
    // A thread that ends gives back when its cells are gone already.
    let _ = ALIVE.try_with(|alive| alive.set(alive.get() + bytes));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(rounded(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-rounded(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(-rounded(layout.size()));
        count(rounded(size));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn alive() -> i64 {
    ALIVE.get()
}

const SERVICES: usize = 500;

fn service(number: usize) -> String {
    format!("service-{number:05}.default.svc.cluster.local")
}

fn endpoint(number: usize) -> Value {
    let ip = format!("10.0.{}.{}", number / 250, 1 + number % 250);
    json!({"endpoint": {"address": {"socket_address": {"address": ip, "port_value": 8080}}}})
}

/// A cluster as Istio names and labels it.
fn cluster(number: usize, endpoints: usize) -> Value {
    let name = format!("outbound|80||{}", service(number));
    let all: Vec<Value> = (0..endpoints).map(endpoint).collect();
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": all}]},
        "metadata": {"filter_metadata": {"istio": {"services": [{
            "host": service(number), "name": format!("service-{number:05}"), "namespace": "default",
        }]}}},
    })
}

fn routes(services: usize) -> Value {
    let host = |number: usize| {
        let name = service(number);
        let short = format!("service-{number:05}");
        json!({
            "name": format!("{name}:80"),
            "domains": [name, format!("{name}:80"), short, format!("{short}:80")],
            "routes": [{
                "name": "default", "match": {"prefix": "/"},
                "route": {"cluster": format!("outbound|80||{name}"), "timeout": "0s"},
            }],
            "include_request_attempt_count": true,
        })
    };
    let hosts: Vec<Value> = (0..services).map(host).collect();
    json!({"name": "80", "virtual_hosts": hosts, "validate_clusters": false})
}

fn listener(table: Value) -> Value {
    json!({
        "name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "out", "route_config": table,
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}

/// Bytes that a bootstrap of so many services, the asked one with so many endpoints, keeps.
fn from_file(services: usize, endpoints: usize) -> i64 {
    let clusters = (0..services).map(|n| cluster(n, if n == 0 { endpoints } else { 1 }));
    let text = json!({"static_resources": {
        "clusters": clusters.collect::<Vec<_>>(),
        "listeners": [listener(routes(services))],
    }});
    let text = text.to_string();
    let before = alive();
    let source = Source {
        name: "b.json",
        text: &text,
    };
    let loaded = load(&[source], &Overrides::default()).expect("a bootstrap");
    let kept = ads::start(loaded, Context::empty(), Options::default()).expect("a start");
    let bytes = alive() - before;
    drop(kept);
    bytes
}

#[test]
fn a_service_and_an_endpoint_cost_little() {
    // What is made once is made.
    from_file(1, 1);
    let one = from_file(1, 1);
    let each = |all: i64| (all - one) / (SERVICES as i64 - 1);
    let (service, endpoint) = (each(from_file(SERVICES, 1)), each(from_file(1, SERVICES)));
    eprintln!("bytes per service: {service}, per endpoint: {endpoint}");
    assert!(service < 4096, "{service} bytes for a service");
    assert!(endpoint < 200, "{endpoint} bytes for an endpoint");
}
