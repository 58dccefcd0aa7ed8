//! A whole proxy over a static bootstrap, and the pieces to write one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lateen_process::{Stopper, stop};
use lateen_proxy::agent::AgentOptions;
use lateen_proxy::run::{LogLevels, ProxyOptions, serve};
use lateen_proxy_xds::ads;
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use serde_json::{Value, json};

use super::free_address;

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A running proxy; its drop stops it and waits.
pub struct Proxy {
    stopper: Stopper,
    pub thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(listeners: Value, clusters: Value, agent: Option<AgentOptions>) -> Self {
        let mut options = options(listeners, clusters);
        options.agent = agent;
        Self::run(options)
    }

    /// One whose admin pages can be asked.
    pub fn with_admin(listeners: Value, clusters: Value, admin: SocketAddr) -> Self {
        let admin = json!({ "address": socket(admin) });
        Self::run(options_of(bootstrap(
            listeners,
            clusters,
            json!({ "admin": admin }),
        )))
    }

    /// With further fields of the bootstrap.
    pub fn with(listeners: Value, clusters: Value, extra: Value) -> Self {
        Self::run(options_of(bootstrap(listeners, clusters, extra)))
    }

    /// One on a whole bootstrap, whose admin pages set these levels.
    pub fn logging(bootstrap: &Value, levels: Arc<dyn LogLevels>) -> Self {
        let mut options = options_of(bootstrap.clone());
        options.log_levels = Some(levels);
        Self::run(options)
    }

    /// One with options of its own, see [`options_of`].
    pub fn run(options: ProxyOptions) -> Self {
        let (stopper, stop) = stop::pair();
        let thread = std::thread::spawn(move || {
            runtime()
                .block_on(serve(options, stop))
                .unwrap_or_else(|e| panic!("{e}"));
        });
        Self {
            stopper,
            thread: Some(thread),
        }
    }

    /// Has it end as by a signal; [`Proxy::end`] waits for it.
    pub fn ask_to_end(&self) {
        self.stopper.stop();
    }

    pub fn end(&mut self) {
        self.ask_to_end();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs a proxy that is to refuse its start; what it says.
pub fn try_serve(listeners: Value, clusters: Value) -> Result<(), String> {
    try_serve_with(listeners, clusters, Value::Null)
}

/// The same with further fields of the bootstrap.
pub fn try_serve_with(listeners: Value, clusters: Value, extra: Value) -> Result<(), String> {
    let (_stopper, stop) = stop::pair();
    let served = runtime().block_on(async {
        let options = options_of(bootstrap(listeners, clusters, extra));
        let serve = serve(options, stop);
        tokio::time::timeout(Duration::from_secs(10), serve).await
    });
    let ended = served.map_err(|_| "it serves".to_owned())?;
    ended.map_err(|error| error.to_string())
}

/// A bootstrap of these, with further fields.
pub fn bootstrap(listeners: Value, clusters: Value, extra: Value) -> Value {
    let mut bootstrap = json!({
        "node": { "id": "sidecar~10.0.0.1~a-v1-x.shop~shop.svc.cluster.local", "cluster": "a.shop", "metadata": {
            "WORKLOAD_NAME": "a-v1", "NAMESPACE": "shop", "CLUSTER_ID": "Kubernetes",
            "LABELS": { "app": "a", "version": "v1" } } },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        bootstrap[key] = value.clone();
    }
    bootstrap
}

fn options(listeners: Value, clusters: Value) -> ProxyOptions {
    options_of(bootstrap(listeners, clusters, Value::Null))
}

/// The options that the other proxies here run with.
pub fn options_of(bootstrap: Value) -> ProxyOptions {
    let text = bootstrap.to_string();
    let source = Source {
        name: "test.json",
        text: &text,
    };
    let loaded = load(&[source], &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    ProxyOptions {
        loaded,
        context: Context::files(),
        ads: ads::Options::default(),
        concurrency: 2,
        hostname: "test".into(),
        node_ip: None,
        flush_interval: Duration::from_millis(50),
        drain_time: Duration::from_secs(5),
        drain_strategy: lateen_proxy_core::drain::Strategy::Gradual,
        termination_drain: Duration::from_millis(200),
        termination_grace: Duration::from_secs(5),
        max_connections: 0,
        admin_address_path: None,
        command_line: Value::Null,
        agent: None,
        log_levels: None,
    }
}

pub fn wait_for(address: SocketAddr) {
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "{address} never opened");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn url(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

pub fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

pub fn static_cluster(name: &str, address: SocketAddr) -> Value {
    json!({ "name": name, "connect_timeout": "2s", "load_assignment": { "cluster_name": name,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(address) } }] }] } })
}

pub fn filter(name: &str, message: &str, mut config: Value) -> Value {
    config["@type"] = json!(url(message));
    json!({ "name": name, "typed_config": config })
}

pub fn router() -> Value {
    let message = "envoy.extensions.filters.http.router.v3.Router";
    filter("envoy.filters.http.router", message, json!({}))
}

pub fn http(address: SocketAddr, filters: Vec<Value>, routes: Value, extra: Value) -> Value {
    let mut all = filters;
    all.push(router());
    let mut manager = json!({
        "@type": url("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "t", "http_filters": all,
        "route_config": { "name": "r", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        manager[key] = value.clone();
    }
    json!({ "name": address.to_string(), "address": socket(address),
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

pub fn everything() -> Value {
    json!([{ "match": { "prefix": "/" }, "route": { "cluster": "c" } }])
}

/// One proxy with these routes and filters in front of `upstream`.
pub fn proxied(upstream: SocketAddr, filters: Vec<Value>, routes: Value) -> (Proxy, SocketAddr) {
    let address = free_address();
    let listener = http(address, filters, routes, Value::Null);
    let proxy = Proxy::start(
        json!([listener]),
        json!([static_cluster("c", upstream)]),
        None,
    );
    wait_for(address);
    (proxy, address)
}

pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

pub fn agent(upstream: u16) -> (AgentOptions, [SocketAddr; 3]) {
    let addresses = [free_address(), free_address(), free_address()];
    let options = AgentOptions {
        status: Some(addresses[0]),
        health: Some(addresses[1]),
        metrics: Some(addresses[2]),
        app_probers: json!({
            "/app-health/a/readyz": { "httpGet": { "path": "/ready", "port": upstream } },
            "/app-lifecycle/a/poststartz": { "httpGet": { "path": "/started", "port": upstream } },
        }),
        app_metrics: json!({ "scrape": "true", "path": "/app-metrics", "port": upstream.to_string() }),
        pod_ip: "127.0.0.1".into(),
    };
    (options, addresses)
}
