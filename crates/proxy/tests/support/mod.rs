//! What the tests of the engine share: small configurations, an upstream that
//! is told what to answer, and raw clients.
#![allow(dead_code, reason = "every test file uses a part")]

pub mod whole;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lateen_proxy::engine::{Engine, EngineOptions};
use lateen_proxy_core::access_log::Format;
use lateen_proxy_core::config::access_log::{AccessLog, AccessLogSink};
use lateen_proxy_core::config::cluster::*;
use lateen_proxy_core::config::http_connection_manager::*;
use lateen_proxy_core::config::http_filter::{HttpFilter, HttpFilterConfig, Router};
use lateen_proxy_core::config::route::*;
use lateen_proxy_core::config::*;
use lateen_proxy_core::router::{RouteIndex, VirtualHostIndex};

/// A loopback address nobody listens on, another one with every call: the
/// kernel may give a port that is free again a second time.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        if !given.contains(&address) {
            given.push(address);
            return address;
        }
    }
}

pub fn forward(cluster: &str) -> Forward {
    Forward {
        cluster: ClusterSpecifier::Named(cluster.into()),
        cluster_not_found_code: 503,
        metadata_match: Metadata::default(),
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: Some(Duration::from_secs(15)),
        idle_timeout: None,
        max_stream_duration: None,
        retry_policy: None,
        mirrors: Rare::default(),
        hash_policy: Rare::default(),
        high_priority: false,
        upgrades: Rare::default(),
        internal_redirect: None,
        rate_limits: Rare::default(),
        include_vh_rate_limits: false,
    }
}

pub fn route(prefix: &str, action: RouteAction) -> Arc<Route> {
    Arc::new(Route {
        name: prefix.into(),
        matching: RouteMatch {
            path: PathMatch::Prefix(prefix.into()),
            case_sensitive: true,
            headers: Rare::default(),
            query: Rare::default(),
            grpc: false,
            fraction: None,
            tls_presented: None,
            tls_validated: None,
            dynamic_metadata: Rare::default(),
            cookies: Rare::default(),
        },
        action,
        headers: Rare::default(),
        per_filter: Rare::default(),
        metadata: Metadata::default(),
        decorator: None,
        tracing: None,
        per_request_buffer_limit: None,
        stat_prefix: "".into(),
    })
}

pub fn table(routes: Vec<Arc<Route>>) -> Arc<RouteConfiguration> {
    let hosts = vec![Arc::new(VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        index: RouteIndex::new(&routes),
        routes,
        require_tls: RequireTls::None,
        headers: Rare::default(),
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        retry_policy: None,
        mirrors: Rare::default(),
        per_filter: Rare::default(),
        per_request_buffer_limit: None,
        rate_limits: Rare::default(),
        metadata: Metadata::default(),
    })];
    Arc::new(RouteConfiguration {
        index: VirtualHostIndex::new(&hosts).unwrap(),
        virtual_hosts: hosts,
        ..RouteConfiguration::new("t".into())
    })
}

pub fn manager(routes: Vec<Arc<Route>>) -> HttpConnectionManager {
    HttpConnectionManager {
        http_filters: vec![HttpFilter {
            name: "router".into(),
            disabled: false,
            config: HttpFilterConfig::Router(Router::default()),
        }],
        ..HttpConnectionManager::new("t".into(), RouteSource::Inline(table(routes)))
    }
}

pub fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoints = addresses
        .iter()
        .map(|address| Endpoint {
            address: Address::Socket(*address),
            additional_addresses: vec![],
            hostname: "".into(),
            health: HealthStatus::Unknown,
            weight: 1,
            metadata: Metadata::default(),
            health_check: None,
        })
        .collect();
    Cluster {
        load_assignment: Some(Arc::new(ClusterLoadAssignment {
            cluster_name: name.into(),
            localities: vec![LocalityEndpoints {
                endpoints,
                ..LocalityEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        })),
        ..Cluster::new(name.into())
    }
}

pub fn chain(filters: Vec<NetworkFilter>) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        name: "".into(),
        matching: Default::default(),
        tls: None,
        filters,
        transport_socket_connect_timeout: None,
        metadata: Metadata::default(),
    })
}

pub fn listener(name: &str, address: SocketAddr, chains: Vec<Arc<FilterChain>>) -> Listener {
    Listener {
        name: name.into(),
        stat_prefix: name.into(),
        address: Address::Socket(address),
        additional_addresses: vec![],
        bind_to_port: true,
        use_original_dst: false,
        transparent: false,
        drains_when_modified_only: false,
        freebind: false,
        backlog: None,
        reuse_port: true,
        ipv4_compat: false,
        ignore_global_conn_limit: false,
        bypass_overload: false,
        socket_options: vec![],
        listener_filters: vec![],
        listener_filters_timeout: Duration::from_secs(15),
        continue_on_listener_filters_timeout: false,
        matcher: lateen_proxy_core::filter_chain::Matcher::new(&chains),
        filter_chains: chains,
        default_filter_chain: None,
        access_logs: vec![],
        traffic_direction: Default::default(),
        per_connection_buffer_limit: 1 << 20,
        tcp_fast_open_queue_length: None,
        max_connections_per_event: None,
        metadata: Metadata::default(),
    }
}

pub fn text_log(path: &std::path::Path, format: &str) -> AccessLog {
    AccessLog {
        sink: AccessLogSink::File(path.to_str().unwrap().into()),
        format: Arc::new(Format::text(format, false).unwrap()),
        filter: None,
    }
}

pub fn snapshot(listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        listeners: Arc::new(
            listeners
                .into_iter()
                .map(|l| (l.name.clone(), Arc::new(l)))
                .collect(),
        ),
        clusters: Arc::new(
            clusters
                .into_iter()
                .map(|c| (c.name.clone(), Arc::new(c)))
                .collect(),
        ),
        ..Snapshot::default()
    })
}

/// An engine with one configuration, and a runtime to talk to it.
pub struct Running {
    pub runtime: tokio::runtime::Runtime,
    pub engine: Engine,
}

pub fn run(snapshot: &Arc<Snapshot>) -> Running {
    run_with(EngineOptions::default(), snapshot)
}

pub fn run_with(options: EngineOptions, snapshot: &Arc<Snapshot>) -> Running {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut engine = Engine::start(&options).unwrap();
    let errors = runtime.block_on(engine.apply(snapshot));
    assert!(errors.is_empty(), "{errors:?}");
    Running { runtime, engine }
}

/// HTTP proxying of everything to one cluster.
pub fn http_proxy(manager: HttpConnectionManager, clusters: Vec<Cluster>) -> (Running, SocketAddr) {
    let address = free_address();
    let filter = NetworkFilter::HttpConnectionManager(Arc::new(manager));
    let listener = listener("l", address, vec![chain(vec![filter])]);
    (run(&snapshot(vec![listener], clusters)), address)
}

/// An upstream that answers each request head with the next text (the last one
/// again and again) and keeps what it received. `!close` in front closes the
/// connection after the answer; `!drop` closes without an answer; `!silent`
/// does nothing.
pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<Mutex<u32>>,
}

impl Upstream {
    pub fn new(answers: &[&str]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let answers: Arc<Mutex<Vec<String>>> = Arc::new(Mutex::new(
            answers.iter().rev().map(|s| (*s).to_owned()).collect(),
        ));
        let (all, count) = (seen.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                *count.lock().unwrap() += 1;
                let (answers, seen) = (answers.clone(), all.clone());
                std::thread::spawn(move || serve(stream, &answers, &seen));
            }
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answers: &Mutex<Vec<String>>, seen: &Mutex<Vec<String>>) {
    while let Some(request) = read_message(&mut stream) {
        seen.lock().unwrap().push(request);
        let answer = {
            let mut list = answers.lock().unwrap();
            match list.len() {
                0 | 1 => list.last().cloned().unwrap_or_default(),
                _ => list.pop().unwrap(),
            }
        };
        if answer == "!drop" {
            return;
        }
        if answer == "!silent" {
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let (text, close) = match answer.strip_prefix("!close") {
            Some(text) => (text, true),
            None => (answer.as_str(), false),
        };
        if stream.write_all(text.as_bytes()).is_err() || close {
            return;
        }
    }
}

/// Reads one HTTP/1 message with its body; `None` at the end.
pub fn read_message(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length: Option<usize> = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
            let whole = match length {
                Some(length) => bytes.len() >= end + 4 + length,
                None if head.contains("transfer-encoding: chunked") => {
                    bytes.ends_with(b"0\r\n\r\n")
                }
                None => true,
            };
            if whole {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// Sends one request and reads one answer on a new connection.
pub fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read_message(&mut stream).unwrap_or_default()
}

/// Sends bytes and reads until the connection ends.
pub fn ask_all(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example\r\n\r\n")
}

/// The value of a header in a raw message.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\r\n\r\n").next()?;
    head.lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
}

pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
