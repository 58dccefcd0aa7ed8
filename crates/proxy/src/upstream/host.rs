//! One endpoint as a worker sees it: its connections, idle and busy, and what
//! is in flight on them.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use lateen_proxy_core::config::Address;
use lateen_proxy_core::config::cluster::HeaderCase;
use lateen_proxy_core::config::endpoint::{Endpoint, HealthStatus, Locality};
use lateen_proxy_core::local_reply::http_status;
use lateen_proxy_core::outlier::HostResult;

use super::breaker::Permit;
use super::check::Checker;
use super::cluster::ClusterState;
use super::health::{HealthFlags, HostHealth};
use super::http2::H2Client;
use super::idle::HostWaker;
use super::proxy_header::Origin;
use crate::http::reader::H1Reader;
use crate::http::writer::H1Writer;
use crate::io::Io;
use crate::io::timer::now_ms;
use crate::stats::ClusterStats;
use crate::stats::rare::ClusterEvent;

/// Takes no traffic but in panic.
pub(super) const FAILING: HealthFlags = HealthFlags::FAILED_ACTIVE.and(HealthFlags::EJECTED);
/// Takes traffic after the healthy ones.
pub(super) const DEGRADED: HealthFlags = HealthFlags::DEGRADED_ACTIVE;

/// Totals of a host.
#[derive(Clone, Debug, Default)]
pub struct HostCounts {
    /// Connections opened.
    pub connections: Cell<u64>,
    /// Connections that failed to open.
    pub connect_failures: Cell<u64>,
    /// Requests begun.
    pub requests: Cell<u64>,
    /// Requests that ended well.
    pub successes: Cell<u64>,
    /// Requests that ended in an error.
    pub errors: Cell<u64>,
    /// Requests that ran out of time.
    pub timeouts: Cell<u64>,
}

/// Adds one to a count.
pub fn add_one(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// An endpoint of a cluster in one worker.
#[derive(Debug)]
pub struct Host {
    /// As configured (or as DNS or the original destination gave it).
    pub endpoint: Endpoint,
    /// Where it is.
    pub locality: Locality,
    /// Its priority.
    pub priority: u32,
    /// The address to connect to; `None` for unix sockets.
    pub addr: Option<SocketAddr>,
    /// The address as logs write it.
    pub text: Rc<str>,
    /// Requests in flight.
    pub active: Cell<u32>,
    /// Open connections.
    pub connections: Rc<Cell<u32>>,
    /// Left discovery: connections are not kept.
    pub removed: Cell<bool>,
    /// What all workers know of it, where the cluster checks health.
    pub health: Option<Arc<HostHealth>>,
    /// Its active check, on the worker that does them.
    pub(super) checker: RefCell<Option<Checker>>,
    /// What happened so far.
    pub counts: HostCounts,
    /// Its workload's number in the worker's [`crate::mesh::Mesh`]; 0 = not
    /// looked at yet.
    pub peer: Cell<u32>,
    /// When it was first seen (ms).
    pub since: u64,
    #[expect(
        clippy::vec_box,
        reason = "a client moves between pool and request by pointer"
    )]
    pub(super) idle: RefCell<Vec<Box<H1Client>>>,
    pub(super) streams: RefCell<Vec<Rc<H2Client>>>,
    pub(super) opening: Cell<bool>,
    pub(super) waiting: RefCell<Vec<Waker>>,
    /// The worker's [`super::idle::IdleWatch`] has it.
    pub(super) watched: Cell<bool>,
    pub(super) waker: OnceCell<(Arc<HostWaker>, Waker)>,
}

impl Host {
    /// A host without connections.
    pub fn new(endpoint: Endpoint, locality: Locality, priority: u32) -> Self {
        let addr = endpoint.address.socket();
        let text = match &endpoint.address {
            Address::Socket(addr) => addr.to_string(),
            other => other.to_string(),
        };
        Self {
            endpoint,
            locality,
            priority,
            addr,
            text: text.into(),
            active: Cell::new(0),
            connections: Rc::new(Cell::new(0)),
            removed: Cell::new(false),
            health: None,
            checker: RefCell::default(),
            counts: HostCounts::default(),
            peer: Cell::new(0),
            since: now_ms(),
            idle: RefCell::default(),
            streams: RefCell::default(),
            opening: Cell::new(false),
            waiting: RefCell::default(),
            watched: Cell::new(false),
            waker: OnceCell::new(),
        }
    }

    /// The same host as it is configured now: connections, counts and ejection
    /// stay.
    pub(super) fn renewed(&self, endpoint: Endpoint, locality: Locality, priority: u32) -> Self {
        let mut new = Self::new(endpoint, locality, priority);
        new.counts = self.counts.clone();
        new.since = self.since;
        new.idle.swap(&self.idle);
        new.streams.swap(&self.streams);
        new.health = self.health.clone();
        self.checker.take();
        self.removed.set(true);
        new
    }

    /// Takes the idle connection for `origin` used last that is still alive.
    pub fn take_idle(&self, origin: Origin) -> Option<Box<H1Client>> {
        loop {
            let mut client = {
                let mut idle = self.idle.borrow_mut();
                let at = idle.iter().rposition(|c| c.origin == origin)?;
                idle.remove(at)
            };
            // While none of the idle ones told of anything, none was closed. In use a
            // connection's events are its request's alone.
            let quiet = self.waker.get().is_some_and(|(host, _)| host.is_quiet());
            if quiet || client.is_alive(Waker::noop()) {
                return Some(client);
            }
        }
    }

    /// Closes the connection that idles longest; false = none idles.
    pub(super) fn close_idle(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let any = !idle.is_empty();
        idle.drain(..usize::from(any));
        any
    }

    /// Keeps a connection for the next request. The host must be watched
    /// ([`ClusterState::watch_idle`]) for the connection to go with its server.
    pub fn put_idle(&self, mut client: Box<H1Client>) {
        if self.removed.get() || !client.is_alive(self.waker()) {
            return self.connection_closed();
        }
        client.idle_since = now_ms();
        client.rests();
        self.idle.borrow_mut().push(client);
        self.wake_one();
    }

    /// An HTTP/2 connection for `origin` with room for one more stream.
    pub fn take_stream(&self, origin: Origin) -> Option<Rc<H2Client>> {
        let mut streams = self.streams.borrow_mut();
        streams.retain(|c| !c.closed.get());
        let fits = |c: &&Rc<H2Client>| c.origin == origin && c.has_room();
        streams.iter().find(fits).cloned()
    }

    /// Keeps an HTTP/2 connection for others to share.
    pub fn put_stream(&self, client: Rc<H2Client>) {
        if !self.removed.get() {
            self.streams.borrow_mut().push(client);
        }
    }

    /// Closes idle connections that the peer closed or that idled too long.
    /// Returns whether any is left.
    pub fn sweep(&self, idle_ms: u64) -> bool {
        let now = now_ms();
        let mut idle = self.idle.borrow_mut();
        let waker = self.waker();
        idle.retain_mut(|c| {
            if now.saturating_sub(c.idle_since) >= idle_ms {
                c.connected.idled();
                return false;
            }
            c.is_alive(waker)
        });
        let mut streams = self.streams.borrow_mut();
        streams.retain(|c| {
            let idling = c.active.get() == 0 && now.saturating_sub(c.idle_since.get()) >= idle_ms;
            if let (true, false, Some(connected)) = (idling, c.closed.get(), &c.connected) {
                connected.idled();
            }
            !c.closed.get() && !idling
        });
        !idle.is_empty() || !streams.is_empty()
    }

    /// Closes idle connections whose peer closed them, and has the others tell
    /// when theirs does.
    pub(super) fn drop_dead(&self) {
        let waker = self.waker();
        self.idle.borrow_mut().retain_mut(|c| c.is_alive(waker));
        self.streams.borrow_mut().retain(|c| !c.closed.get());
        self.connection_closed();
    }

    fn waker(&self) -> &Waker {
        self.waker.get().map_or(Waker::noop(), |(_, waker)| waker)
    }

    /// Closes what idles and keeps nothing from now on.
    pub fn remove(&self) {
        self.removed.set(true);
        self.checker.take();
        self.idle.borrow_mut().clear();
        self.streams.borrow_mut().clear();
    }

    /// Whether it takes traffic as a healthy host.
    pub fn is_healthy(&self) -> bool {
        self.endpoint.health.is_healthy() && !self.flags().has(FAILING.and(DEGRADED))
    }

    /// Whether it takes traffic after the healthy ones.
    pub fn is_degraded(&self) -> bool {
        let flags = self.flags();
        let said = self.endpoint.health == HealthStatus::Degraded;
        let taken = said || self.endpoint.health.is_healthy() && flags.has(DEGRADED);
        taken && !flags.has(FAILING)
    }

    /// What active and passive checks say.
    pub fn flags(&self) -> HealthFlags {
        self.health
            .as_ref()
            .map_or(HealthFlags::default(), |h| h.flags())
    }

    /// An answer came from this host.
    pub fn note_answer(&self, cluster: &ClusterState, status: u16) {
        self.note_good(status < 500);
        self.note_status(cluster, status);
    }

    /// The head of an answer came from this host; whether it counts as good is told apart.
    pub fn note_status(&self, cluster: &ClusterState, status: u16) {
        cluster.note(self, HostResult::Status(status));
    }

    /// An answer counts by its status, unless it is one of gRPC ([`Host::note_grpc`]).
    pub fn note_unless(&self, grpc: bool, status: u16) {
        if !grpc {
            self.note_good(status < 500);
        }
    }

    /// The head of an answer to a gRPC call came from this host: with its HTTP status, the gRPC
    /// status that stands in it, and whether nothing follows. What trailers say is told to
    /// [`Host::note_good`].
    pub fn note_grpc(&self, cluster: &ClusterState, status: u16, grpc: Option<u32>, bare: bool) {
        let judged = grpc.map_or(status, http_status);
        if status >= 500 || bare {
            self.note_good(status < 500 && grpc.is_some() && judged < 500);
        }
        cluster.note(self, HostResult::Status(judged));
    }

    /// A request ended well, or not.
    pub fn note_good(&self, good: bool) {
        add_one(match good {
            true => &self.counts.successes,
            false => &self.counts.errors,
        });
    }

    /// No answer came from this host.
    pub fn note_failure(&self, cluster: &ClusterState) {
        add_one(&self.counts.errors);
        cluster.note(self, HostResult::LocalFailure);
    }

    /// A connection went: who waits for one may open its own now.
    pub fn connection_closed(&self) {
        self.wake_all();
    }

    /// Counts of idle HTTP/1 connections and HTTP/2 connections, for admin.
    pub fn pooled(&self) -> (usize, usize) {
        (self.idle.borrow().len(), self.streams.borrow().len())
    }

    pub(super) fn wake_one(&self) {
        if let Some(waker) = self.waiting.borrow_mut().pop() {
            waker.wake();
        }
    }

    pub(super) fn wake_all(&self) {
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}

/// Numbers upstream connections for logs.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Counts one open connection of a host and holds its breaker permit.
#[derive(Debug)]
pub struct Connected {
    /// Number of the connection within the process, from 1.
    pub id: u64,
    count: Rc<Cell<u32>>,
    stats: Rc<ClusterStats>,
    _permit: Permit,
}

impl Connected {
    pub(crate) fn new(host: &Host, stats: &Rc<ClusterStats>, permit: Permit) -> Self {
        host.connections.set(host.connections.get() + 1);
        add_one(&host.counts.connections);
        stats.cells.upstream_cx_total.inc();
        stats.cells.upstream_cx_active.add(1);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            count: host.connections.clone(),
            stats: stats.clone(),
            _permit: permit,
        }
    }
}

impl Connected {
    /// It is closed for it idled too long.
    pub(super) fn idled(&self) {
        self.stats
            .events
            .inc(ClusterEvent::upstream_cx_idle_timeout);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
        self.stats.cells.upstream_cx_active.sub(1);
        self.stats.cells.upstream_cx_destroy.inc();
    }
}

/// An HTTP/1 connection to an endpoint; one request at a time.
#[derive(Debug)]
pub struct H1Client {
    /// The connection.
    pub io: Io,
    /// Its receiving half.
    pub reader: H1Reader,
    /// Its sending half.
    pub writer: H1Writer,
    /// Requests sent on it.
    pub requests: u32,
    /// When it was opened (ms).
    pub born: u64,
    idle_since: u64,
    origin: Origin,
    connected: Connected,
}

impl H1Client {
    pub(super) fn new(io: Io, origin: Origin, connected: Connected, case: HeaderCase) -> Self {
        let now = now_ms();
        Self {
            io,
            origin,
            reader: H1Reader::new(case),
            writer: H1Writer::new(case),
            requests: 0,
            born: now,
            idle_since: now,
            connected,
        }
    }

    pub(super) fn into_parts(self) -> super::connect::H1Parts {
        super::connect::H1Parts {
            io: self.io,
            connected: self.connected,
        }
    }

    /// Number of the connection within the process.
    pub fn id(&self) -> u64 {
        self.connected.id
    }

    /// A request begins on it.
    pub fn begins(&mut self) {
        self.requests += 1;
        if let Some(meters) = self.io.meters() {
            meters.begin();
        }
    }

    /// Its request is over.
    pub fn rests(&self) {
        if let Some(meters) = self.io.meters() {
            meters.busy.set(false);
        }
    }

    /// Whether the peer neither closed nor sent something unasked; if so, the
    /// waker is told when it does.
    fn is_alive(&mut self, waker: &Waker) -> bool {
        if !self.reader.buf.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(waker);
        let quiet = matches!(self.reader.buf.poll_fill(&self.io, &mut cx), Poll::Pending);
        quiet && self.reader.buf.is_empty()
    }
}
