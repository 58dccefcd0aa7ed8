//! The counters Envoy's users look at, one set of cells per worker: listeners,
//! connection managers, clusters, TCP proxies. Handles are made at first use.

pub mod rare;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;
use lateen_proxy_core::config::Name;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::stats::{Counter, Gauge, Histogram, Registry, Scope};

use crate::conn::Connection;
use crate::http::charge::Charge;
use crate::tls::notes::{Fault, Refusal};
use crate::tls::words;
use rare::{
    ClusterEvent, CorsEvent, FaultEvent, HelloEvent, HttpEvent, ListenerEvent, Rare, TracingEvent,
};

/// Counters by class of status, 1xx to 5xx, and by status, each there from its
/// first answer on.
#[derive(Debug)]
struct Codes {
    scope: Scope,
    prefix: &'static str,
    classes: [OnceCell<Counter>; 5],
    /// The most frequent ones in front.
    codes: RefCell<Vec<(u16, Counter)>>,
    by_code: bool,
}

impl Codes {
    fn new(scope: &Scope, prefix: &'static str, by_code: bool) -> Self {
        Self {
            classes: Default::default(),
            scope: scope.clone(),
            prefix,
            codes: RefCell::default(),
            by_code,
        }
    }

    /// Makes the counters of all classes, which are shown from the start.
    fn with_classes(self, registry: &Registry) -> Self {
        for class in 1..=5 {
            self.class(registry, class);
        }
        self
    }

    fn class(&self, registry: &Registry, class: u16) -> Option<&Counter> {
        let cell = self.classes.get(usize::from(class).wrapping_sub(1))?;
        let name = || self.scope.code_class(self.prefix, class);
        Some(cell.get_or_init(|| registry.counter(&name())))
    }

    fn count(&self, registry: &Registry, status: u16) {
        if let Some(class) = self.class(registry, status / 100) {
            class.inc();
        }
        if self.by_code {
            let mut codes = self.codes.borrow_mut();
            if let Some(at) = codes.iter().position(|(known, _)| *known == status) {
                codes[at].1.inc();
                // The more often one is met, the sooner it is found.
                codes.swap(at, at / 2);
                return;
            }
            let code = registry.counter(&self.scope.code(self.prefix, status));
            code.inc();
            codes.push((status, code));
        }
    }
}

macro_rules! cells {
    ($(#[$doc:meta])* $name:ident { $($kind:ident $field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[expect(missing_docs, reason = "each field is Envoy's statistic of the same name")]
        pub struct $name { $(pub $field: cells!(@type $kind),)* }

        impl $name {
            fn make(registry: &Registry, scope: &Scope) -> Self {
                Self { $($field: cells!(@make $kind, registry, scope, $field),)* }
            }
        }
    };
    (@type counter) => { Counter };
    (@type gauge) => { Gauge };
    (@type histogram) => { Histogram };
    (@make counter, $r:ident, $s:ident, $f:ident) => { $r.counter(&$s.stat(stringify!($f))) };
    (@make gauge, $r:ident, $s:ident, $f:ident) => { $r.gauge(&$s.stat(stringify!($f))) };
    (@make histogram, $r:ident, $s:ident, $f:ident) => { $r.histogram(&$s.stat(stringify!($f))) };
}

cells! {
    /// A listener's statistics.
    ListenerCells {
        counter downstream_cx_total,
        gauge downstream_cx_active,
        counter downstream_cx_destroy,
        counter no_filter_chain_match,
        counter downstream_pre_cx_timeout,
        counter downstream_listener_filter_error,
        counter downstream_cx_overflow,
        counter downstream_global_cx_overflow,
    }
}

cells! {
    /// A connection manager's statistics.
    HttpCells {
        counter downstream_cx_total,
        gauge downstream_cx_active,
        counter downstream_cx_destroy,
        counter downstream_cx_http1_total,
        counter downstream_cx_http2_total,
        counter downstream_cx_rx_bytes_total,
        counter downstream_cx_tx_bytes_total,
        counter downstream_cx_upgrades_total,
        counter downstream_rq_total,
        counter downstream_rq_http1_total,
        counter downstream_rq_http2_total,
        counter downstream_rq_completed,
        gauge downstream_rq_active,
        counter downstream_rq_rx_reset,
        counter downstream_rq_idle_timeout,
        counter downstream_rq_timeout,
        counter downstream_rq_too_many_premature_resets,
        counter no_route,
        counter no_cluster,
        counter rq_redirect,
        counter rq_direct_response,
        counter rq_total,
        histogram downstream_rq_time,
    }
}

cells! {
    /// A cluster's statistics.
    ClusterCells {
        counter upstream_cx_total,
        gauge upstream_cx_active,
        counter upstream_cx_destroy,
        counter upstream_cx_connect_fail,
        counter upstream_cx_connect_timeout,
        counter upstream_cx_overflow,
        counter upstream_cx_http1_total,
        counter upstream_cx_http2_total,
        counter upstream_cx_none_healthy,
        counter upstream_cx_protocol_error,
        counter upstream_cx_rx_bytes_total,
        counter upstream_cx_tx_bytes_total,
        counter upstream_rq_total,
        gauge upstream_rq_active,
        counter upstream_rq_cancelled,
        counter upstream_rq_completed,
        counter upstream_rq_pending_total,
        gauge upstream_rq_pending_active,
        counter upstream_rq_pending_overflow,
        counter upstream_rq_active_overflow,
        counter upstream_rq_pending_failure_eject,
        counter upstream_rq_retry,
        counter upstream_rq_retry_backoff_exponential,
        counter upstream_rq_retry_backoff_ratelimited,
        counter upstream_rq_retry_success,
        counter upstream_rq_retry_limit_exceeded,
        counter upstream_rq_retry_overflow,
        counter upstream_rq_timeout,
        counter upstream_rq_per_try_timeout,
        counter upstream_rq_rx_reset,
        gauge membership_total,
        gauge membership_healthy,
        gauge membership_degraded,
        gauge membership_excluded,
        counter membership_change,
        counter update_success,
        histogram upstream_cx_connect_ms,
    }
}

cells! {
    /// Statistics of TLS on one side.
    TlsCells {
        counter handshake,
        counter connection_error,
        counter session_reused,
        counter no_certificate,
        counter fail_verify_no_cert,
        counter fail_verify_error,
        counter fail_verify_san,
        counter fail_verify_cert_hash,
    }
}

/// Statistics of TLS on one side, with those by suite, version and group.
#[derive(Debug)]
pub struct TlsStats {
    /// Plain cells.
    pub cells: TlsCells,
    scope: Scope,
    named: RefCell<HashMap<&'static str, Counter>>,
    registry: Registry,
    /// Envoy labels suites otherwise for listeners than for clusters.
    cipher_tag: &'static str,
}

impl TlsStats {
    fn new(registry: &Registry, of: &Scope, cipher_tag: &'static str) -> Self {
        let scope = of.sub("ssl");
        Self {
            cells: TlsCells::make(registry, &scope),
            scope,
            named: RefCell::default(),
            registry: registry.clone(),
            cipher_tag,
        }
    }

    fn count(&self, group: &'static str, tag: &'static str, value: &'static str) {
        let mut named = self.named.borrow_mut();
        let counter = named.entry(value).or_insert_with(|| {
            let name = self.scope.valued(group, tag, value);
            self.registry.counter(&name)
        });
        counter.inc();
    }

    /// Counts a handshake that succeeded.
    pub fn shaken(&self, tls: &rustls::Connection) {
        self.cells.handshake.inc();
        if tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
            self.cells.session_reused.inc();
        }
        if tls.peer_certificates().is_none() {
            self.cells.no_certificate.inc();
        }
        if let Some(version) = tls.protocol_version() {
            self.count("versions", "envoy.ssl_version", words::version(version));
        }
        if let Some(suite) = tls.negotiated_cipher_suite() {
            self.count("ciphers", self.cipher_tag, words::suite(suite.suite()));
        }
        if let Some(group) = tls.negotiated_key_exchange_group() {
            self.count("curves", "envoy.ssl_curve", words::group(group.name()));
        }
    }

    /// Counts a handshake that failed; a connection that only ended is no failure.
    pub fn failed(&self, error: &std::io::Error, refusal: Option<&Refusal>) {
        let inner = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        let counter = match (refusal.map(|r| r.fault), inner) {
            (Some(Fault::Chain), _) => &self.cells.fail_verify_error,
            (Some(Fault::Names), _) => &self.cells.fail_verify_san,
            (Some(Fault::KeyUsage), _) => &self.cells.connection_error,
            (Some(Fault::Pins), _) => &self.cells.fail_verify_cert_hash,
            (None, Some(rustls::Error::NoCertificatesPresented)) => &self.cells.fail_verify_no_cert,
            (None, Some(_)) => &self.cells.connection_error,
            (None, None) => return,
        };
        counter.inc();
    }
}

cells! {
    /// A TCP proxy's statistics.
    TcpCells {
        counter downstream_cx_total,
        counter downstream_cx_no_route,
        counter downstream_cx_rx_bytes_total,
        counter downstream_cx_tx_bytes_total,
        counter idle_timeout,
        counter max_downstream_connection_duration,
    }
}

/// A listener's statistics with those of this worker.
#[derive(Debug)]
pub struct ListenerStats {
    /// Plain cells.
    pub cells: ListenerCells,
    /// What seldom happens.
    pub events: Rare<ListenerEvent>,
    /// Connections that this worker got, and has.
    pub here: (Counter, Gauge),
}

/// The answers of a connection manager in one listener.
#[derive(Debug)]
pub struct PlaceStats {
    completed: Counter,
    codes: Codes,
    registry: Registry,
}

impl PlaceStats {
    /// Counts a finished stream by the status that its client got; 0 = none.
    pub fn finished(&self, status: u16) {
        if status == 0 {
            return;
        }
        self.completed.inc();
        self.codes.count(&self.registry, status);
    }
}

/// A connection manager's statistics with those by status.
#[derive(Debug)]
pub struct HttpStats {
    /// Plain cells.
    pub cells: HttpCells,
    /// What seldom happens.
    pub events: Rare<HttpEvent>,
    scope: Scope,
    codes: Codes,
    cors: OnceCell<Rare<CorsEvent>>,
    fault: OnceCell<Rare<FaultEvent>>,
    tracing: OnceCell<Rare<TracingEvent>>,
    registry: Registry,
}

impl HttpStats {
    /// Of the CORS filter.
    pub fn cors(&self) -> &Rare<CorsEvent> {
        self.cors
            .get_or_init(|| Rare::new(&self.registry, &self.scope))
    }

    /// Of the fault filter.
    pub fn fault(&self) -> &Rare<FaultEvent> {
        self.fault
            .get_or_init(|| Rare::new(&self.registry, &self.scope))
    }

    /// Of decisions about traces.
    pub fn tracing(&self) -> &Rare<TracingEvent> {
        self.tracing
            .get_or_init(|| Rare::new(&self.registry, &self.scope))
    }

    /// Adds the bytes that passed since the last time.
    pub fn bytes(&self, conn: &Connection) {
        let now = conn.io.counts();
        let before = conn.metered.replace(now);
        self.cells
            .downstream_cx_rx_bytes_total
            .add(now.0.saturating_sub(before.0));
        self.cells
            .downstream_cx_tx_bytes_total
            .add(now.1.saturating_sub(before.1));
    }

    /// Counts an answer of the proxy's own by its details.
    fn local(&self, details: &str) {
        self.events.inc(match details {
            "request_overall_timeout" => return self.cells.downstream_rq_timeout.inc(),
            "path_normalization_failed" => HttpEvent::downstream_rq_failed_path_normalization,
            "request_header_timeout" => HttpEvent::downstream_rq_header_timeout,
            "max_duration_timeout" => HttpEvent::downstream_rq_max_duration_reached,
            "absolute_path_rejected" => HttpEvent::downstream_rq_non_relative_path,
            "request_payload_too_large" => HttpEvent::downstream_rq_too_large,
            "upgrade_failed" => HttpEvent::downstream_rq_ws_on_non_ws_route,
            _ => return,
        });
    }

    /// Counts an answer that came before its request was whole: what is left of the request is
    /// cut off with it.
    pub fn answered_early(&self, flags: ResponseFlags) {
        let event = HttpEvent::downstream_rq_response_before_rq_complete;
        self.events.inc(event);
        if !is_reset(flags) {
            self.cells.downstream_rq_rx_reset.inc();
        }
    }

    /// Counts a finished stream; `code` = the status of its answer, 0 = it had none; `details` =
    /// why it ended as it did.
    pub fn finished(
        &self,
        (code, charge): (u16, Charge),
        ms: u64,
        flags: ResponseFlags,
        details: &str,
    ) {
        let status = charge.of_client(code);
        if details != "via_upstream" && status != 307 {
            self.local(details);
        }
        let cells = &self.cells;
        cells.downstream_rq_time.record(ms);
        if status != 0 {
            cells.downstream_rq_completed.inc();
            self.codes.count(&self.registry, status);
        }
        let has = |flag: ResponseFlags| flags.has(flag);
        if has(ResponseFlags::NO_ROUTE_FOUND) {
            cells.no_route.inc();
        }
        if has(ResponseFlags::NO_CLUSTER_FOUND) {
            cells.no_cluster.inc();
        }
        if has(ResponseFlags::STREAM_IDLE_TIMEOUT) {
            cells.downstream_rq_idle_timeout.inc();
        }
        // A stream without an answer was reset, by whomever.
        if is_reset(flags) || code == 0 {
            cells.downstream_rq_rx_reset.inc();
        }
    }
}

/// Whether the client ended the stream before its answer did.
fn is_reset(flags: ResponseFlags) -> bool {
    flags.has(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION)
        || flags.has(ResponseFlags::DOWNSTREAM_REMOTE_RESET)
}

/// Answers that are counted a second time, under where their request came from
/// or what became of them: `external`, `internal`, `retry`.
#[derive(Debug)]
struct Answers {
    completed: Counter,
    codes: Codes,
}

impl Answers {
    fn new(registry: &Registry, scope: &Scope) -> Self {
        Self {
            completed: registry.counter(&scope.stat("upstream_rq_completed")),
            codes: Codes::new(scope, "upstream_rq", true),
        }
    }

    fn count(&self, registry: &Registry, status: u16) {
        self.completed.inc();
        self.codes.count(registry, status);
    }
}

/// The answers to requests of one origin, and their times.
type OfOrigin = OnceCell<(Answers, Scope, OnceCell<Histogram>)>;

/// A cluster's statistics with those by status.
#[derive(Debug)]
pub struct ClusterStats {
    /// Plain cells.
    pub cells: ClusterCells,
    /// What seldom happens.
    pub events: Rare<ClusterEvent>,
    times: OnceCell<Histogram>,
    scope: Scope,
    codes: Codes,
    external: OfOrigin,
    internal: OfOrigin,
    retried: OnceCell<Answers>,
    tls: OnceCell<TlsStats>,
    registry: Registry,
}

impl ClusterStats {
    /// Statistics of TLS towards the cluster.
    pub fn tls(&self) -> &TlsStats {
        self.tls
            .get_or_init(|| TlsStats::new(&self.registry, &self.scope, "cipher_suite"))
    }

    /// A counter in a group of the cluster's, such as `health_check`.
    pub fn counter(&self, group: &str, stat: &str) -> Counter {
        self.registry.counter(&self.scope.sub(group).stat(stat))
    }

    /// A gauge in a group of the cluster's.
    pub fn gauge(&self, group: &str, stat: &str) -> Gauge {
        self.registry.gauge(&self.scope.sub(group).stat(stat))
    }

    /// Counts an answer that was not passed on: its request was tried again.
    pub fn retried(&self, status: u16) {
        let scope = || self.scope.sub("retry");
        let retried = self
            .retried
            .get_or_init(|| Answers::new(&self.registry, &scope()));
        retried.count(&self.registry, status);
    }

    fn answered(&self, status: u16, ms: Option<u64>, internal: bool) {
        self.cells.upstream_rq_completed.inc();
        if let Some(ms) = ms {
            let name = || self.scope.stat("upstream_rq_time");
            self.times
                .get_or_init(|| self.registry.histogram(&name()))
                .record(ms);
        }
        self.codes.count(&self.registry, status);
        let (cell, name) = match internal {
            true => (&self.internal, "internal"),
            false => (&self.external, "external"),
        };
        let (answers, scope, times) = cell.get_or_init(|| {
            let scope = self.scope.sub(name);
            let answers = Answers::new(&self.registry, &scope);
            (answers, scope, OnceCell::new())
        });
        answers.count(&self.registry, status);
        if let Some(ms) = ms {
            let name = || scope.stat("upstream_rq_time");
            times
                .get_or_init(|| self.registry.histogram(&name()))
                .record(ms);
        }
    }

    /// Counts a finished request; `status` = the cluster's answer, 0 = none; `ms` = from the end of the request to that of
    /// the upstream's answer, where it answered; `internal` = it came from within
    /// the mesh's own network (`x-envoy-internal`). What the client did to it is no answer
    /// of the cluster: a client that went away, a request malformed past its
    /// head.
    pub fn finished(&self, status: u16, ms: Option<u64>, flags: ResponseFlags, internal: bool) {
        let cells = &self.cells;
        if status != 0 && !flags.has(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR) {
            self.answered(status, ms, internal);
        }
        let has = |flag: ResponseFlags| flags.has(flag);
        if has(ResponseFlags::NO_HEALTHY_UPSTREAM) {
            cells.upstream_cx_none_healthy.inc();
        }
        if has(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED) {
            cells.upstream_rq_retry_limit_exceeded.inc();
        }
        if has(ResponseFlags::UPSTREAM_REMOTE_RESET) {
            cells.upstream_rq_rx_reset.inc();
        }
        if has(ResponseFlags::UPSTREAM_PROTOCOL_ERROR) {
            cells.upstream_cx_protocol_error.inc();
        }
    }
}

/// The statistics of a worker.
#[derive(Debug)]
pub struct Stats {
    registry: Registry,
    worker: usize,
    listeners: RefCell<HashMap<Name, Rc<ListenerStats>>>,
    places: RefCell<HashMap<(Name, Name), Rc<PlaceStats>>>,
    listener_tls: RefCell<HashMap<Name, Rc<TlsStats>>>,
    http: RefCell<HashMap<Name, Rc<HttpStats>>>,
    clusters: RefCell<HashMap<Name, Rc<ClusterStats>>>,
    tcp: RefCell<HashMap<Name, Rc<TcpCells>>>,
    named: RefCell<HashMap<String, Counter>>,
    hello: OnceCell<Rare<HelloEvent>>,
}

fn cached<T>(map: &RefCell<HashMap<Name, Rc<T>>>, name: &Name, make: impl FnOnce() -> T) -> Rc<T> {
    map.borrow_mut()
        .entry(name.clone())
        .or_insert_with(|| Rc::new(make()))
        .clone()
}

impl Stats {
    /// The cells of one worker, by its number, in a registry.
    pub fn new(registry: Registry, worker: usize) -> Self {
        Self {
            registry,
            worker,
            listeners: RefCell::default(),
            places: RefCell::default(),
            listener_tls: RefCell::default(),
            http: RefCell::default(),
            clusters: RefCell::default(),
            tcp: RefCell::default(),
            named: RefCell::default(),
            hello: OnceCell::new(),
        }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A listener's.
    pub fn listener(&self, prefix: &Name) -> Rc<ListenerStats> {
        let registry = &self.registry;
        cached(&self.listeners, prefix, || {
            let scope = Scope::listener(prefix);
            let here = |stat: &str| scope.worker(self.worker, stat);
            ListenerStats {
                here: (
                    registry.counter(&here("downstream_cx_total")),
                    registry.gauge(&here("downstream_cx_active")),
                ),
                cells: ListenerCells::make(registry, &scope),
                events: Rare::new(registry, &scope),
            }
        })
    }

    /// Those of a connection manager in a listener.
    pub fn place(&self, listener: &Name, manager: &Name) -> Rc<PlaceStats> {
        let mut places = self.places.borrow_mut();
        let made = places.entry((listener.clone(), manager.clone()));
        made.or_insert_with(|| {
            let tag = "envoy.http_conn_manager_prefix";
            let scope = Scope::listener(listener).tag("http", tag, manager);
            Rc::new(PlaceStats {
                completed: self
                    .registry
                    .counter(&scope.stat("downstream_rq_completed")),
                codes: Codes::new(&scope, "downstream_rq", false).with_classes(&self.registry),
                registry: self.registry.clone(),
            })
        })
        .clone()
    }

    /// Those of a listener's TLS.
    pub fn listener_tls(&self, prefix: &Name) -> Rc<TlsStats> {
        cached(&self.listener_tls, prefix, || {
            TlsStats::new(&self.registry, &Scope::listener(prefix), "envoy.ssl_cipher")
        })
    }

    /// A connection manager's.
    pub fn http(&self, prefix: &Name) -> Rc<HttpStats> {
        let registry = &self.registry;
        cached(&self.http, prefix, || {
            let scope = Scope::http(prefix);
            HttpStats {
                cells: HttpCells::make(registry, &scope),
                events: Rare::new(registry, &scope),
                cors: OnceCell::new(),
                fault: OnceCell::new(),
                tracing: OnceCell::new(),
                codes: Codes::new(&scope, "downstream_rq", false).with_classes(registry),
                registry: registry.clone(),
                scope,
            }
        })
    }

    /// A cluster's.
    pub fn cluster(&self, name: &Name) -> Rc<ClusterStats> {
        let registry = &self.registry;
        cached(&self.clusters, name, || {
            let scope = Scope::cluster(name);
            ClusterStats {
                cells: ClusterCells::make(registry, &scope),
                events: Rare::new(registry, &scope),
                times: OnceCell::new(),
                codes: Codes::new(&scope, "upstream_rq", true),
                external: OnceCell::new(),
                internal: OnceCell::new(),
                retried: OnceCell::new(),
                tls: OnceCell::new(),
                registry: registry.clone(),
                scope,
            }
        })
    }

    /// What the TLS inspector learns.
    pub fn hello(&self) -> &Rare<HelloEvent> {
        self.hello
            .get_or_init(|| Rare::new(&self.registry, &Scope::root()))
    }

    /// A single counter of a scope, for what is counted rarely.
    pub fn named(&self, scope: &Scope, stat: &str) -> Counter {
        let name = scope.stat(stat);
        let mut named = self.named.borrow_mut();
        named
            .entry_ref(&*name.flat)
            .or_insert_with(|| self.registry.counter(&name))
            .clone()
    }

    /// A TCP proxy's.
    pub fn tcp(&self, prefix: &Name) -> Rc<TcpCells> {
        let registry = &self.registry;
        cached(&self.tcp, prefix, || {
            TcpCells::make(registry, &Scope::tcp(prefix))
        })
    }
}
