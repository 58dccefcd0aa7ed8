//! A worker: one thread, one loop, with everything a request needs. The main
//! thread sends it configurations and orders; nothing else crosses threads.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hashbrown::HashMap;
use lateen_process::footprint;
use lateen_proxy_core::access_log::FilterInput;
use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::config::{AccessLog, RouteConfiguration, Snapshot};
use lateen_proxy_core::drain::Strategy;
use lateen_proxy_core::local_reply::grpc_status;
use lateen_proxy_core::overload::Action;
use lateen_proxy_core::stats::Registry;
use tokio::sync::{mpsc, oneshot};

use crate::admin::HostStats;
use crate::conn::Connection;
use crate::http::head::Line;
use crate::http::known::Known;
use crate::http::record::StreamRecord;
use crate::http::stream::HttpContext;
use crate::http::trace;
use crate::io::{clock, timer};
use crate::listener::Listeners;
use crate::listener::limits::ConnectionLimits;
use crate::logs::{LogFiles, LogSinks};
use crate::mesh::{Mesh, Own};
use crate::overload::{Gate, Overload, Shedding};
use crate::parting;
use crate::stats::Stats;
use crate::tcp::TcpRecord;
use crate::trace::Tracers;
use crate::upstream::ClusterTable;
use crate::upstream::table::SharedClusters;

/// An order to a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve this from now on; the sockets are new ones for it.
    Config(
        Arc<Snapshot>,
        Vec<(SocketAddr, std::net::TcpListener)>,
        oneshot::Sender<()>,
    ),
    /// Make the clusters ready: resolve names, check hosts once; answer then.
    Warm(Arc<Snapshot>, oneshot::Sender<()>),
    /// Answers close their connections while the health check is told to fail.
    FailHealthCheck(bool),
    /// Tell clients to go: answers close their connections. With `true` no
    /// new connection is accepted any more.
    Drain {
        /// Sockets are closed at once.
        stop_accepting: bool,
        /// Only listeners for inbound traffic.
        inbound_only: bool,
        /// Every client is told with its next answer, whatever the strategy.
        at_once: bool,
    },
    /// Close idle connections; answer when none is left.
    Close(oneshot::Sender<()>),
    /// Tell what is known of the hosts of a cluster.
    Hosts(String, std::sync::mpsc::Sender<Vec<(String, HostStats)>>),
    /// Accept connections, or leave them in the system's queue.
    Accept(bool),
    /// Timeouts have changed: idle connections look at theirs.
    LookAgain,
    /// Give back what is free on the heap.
    GiveBack,
    /// Hand over the access log lines that wait.
    FlushLogs(oneshot::Sender<()>),
}

/// What a worker is made with.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Number of the worker.
    pub index: usize,
    /// The machine's or pod's name.
    pub hostname: String,
    /// The node's address, written in place of a loopback peer.
    pub node_ip: Option<IpAddr>,
    /// How long access log lines may wait.
    pub flush_interval: Duration,
    /// Where access log lines go, shared by all workers.
    pub log_files: LogFiles,
    /// How long a removed listener is drained.
    pub drain_time: Duration,
    /// How clients are asked to go meanwhile.
    pub drain_strategy: Strategy,
    /// Limits on downstream connections, shared by all workers.
    pub limits: Arc<ConnectionLimits>,
    /// How far overload actions are taken; none = no manager is configured.
    pub overload: Option<Arc<Overload>>,
    /// Shared breaker counts.
    pub clusters: Arc<SharedClusters>,
    /// Statistics.
    pub stats: Registry,
    /// This proxy's own workload.
    pub own: Arc<Own>,
}

/// A worker's world.
#[derive(Debug)]
pub struct Worker {
    /// What it was made with.
    pub options: WorkerOptions,
    /// The machine's or pod's name.
    pub hostname: String,
    /// The node's address.
    pub node_ip: Option<IpAddr>,
    /// Clusters.
    pub clusters: ClusterTable,
    /// Listeners.
    pub listeners: Listeners,
    /// Whether it accepts connections.
    pub gate: Gate,
    /// Access logs.
    pub logs: LogSinks,
    /// Statistics.
    pub stats: Rc<Stats>,
    /// Spans on their way to collectors.
    pub tracers: Tracers,
    /// Who is who in the mesh, and its metrics.
    pub mesh: Mesh,
    /// What is done under pressure; none = nothing is configured.
    overload: Option<Box<Shedding>>,
    snapshot: RefCell<Arc<Snapshot>>,
    date: RefCell<(u64, Line)>,
    /// Since when clients are asked to go, in ms of the timer's clock.
    draining: Cell<Option<u64>>,
    /// Every client is asked to go.
    leaving: Cell<bool>,
    /// The health check is told to fail: clients go elsewhere.
    failed: Cell<bool>,
    closing: Cell<bool>,
    /// Idle connections close that have never been of use, too.
    hurried: Cell<bool>,
    connections: RefCell<HashMap<u64, Weak<Connection>>>,
    /// When the last drain is over whose idle clients are being told; 0 = none is told.
    telling_until: Cell<u64>,
    /// How many [`Arrival`]s there are.
    arriving: Cell<usize>,
    closed: RefCell<Option<oneshot::Sender<()>>>,
    next_id: Cell<u64>,
    /// Connections that went to rest since the last look.
    rested: Cell<u32>,
}

/// A connection that is accepted and not served yet, or a socket that has such ones still: the
/// process does not end under it. It is over when dropped.
#[derive(Debug)]
pub struct Arrival(Rc<Worker>);

impl Arrival {
    /// Whose it is.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.arriving.set(self.0.arriving.get() - 1);
        self.0.settle();
    }
}

/// How long a request that may be on its way can take when the process ends: the first one of a
/// connection, or the next one of a client that was answered moments ago.
const NEXT_REQUEST: Duration = Duration::from_secs(1);

impl Worker {
    /// A worker that serves nothing yet.
    pub fn new(options: WorkerOptions) -> Rc<Self> {
        let stats = Rc::new(Stats::new(options.stats.clone(), options.index));
        let shedding = |overload| Shedding::new(overload, options.stats.clone());
        Rc::new(Self {
            hostname: options.hostname.clone(),
            node_ip: options.node_ip,
            clusters: ClusterTable::new(options.clusters.clone(), stats.clone(), options.index),
            stats,
            mesh: Mesh::new(options.own.clone(), options.stats.clone()),
            tracers: Tracers::default(),
            listeners: Listeners::default(),
            gate: Gate::default(),
            overload: options.overload.clone().map(shedding).map(Box::new),
            logs: LogSinks::new(options.log_files.clone()),
            snapshot: RefCell::default(),
            date: RefCell::new((0, Line::new(Known::Date, b""))),
            draining: Cell::new(None),
            leaving: Cell::new(false),
            failed: Cell::new(false),
            closing: Cell::new(false),
            hurried: Cell::new(false),
            telling_until: Cell::new(0),
            arriving: Cell::new(0),
            connections: RefCell::default(),
            closed: RefCell::default(),
            next_id: Cell::new(options.index as u64 + 1),
            rested: Cell::new(0),
            options,
        })
    }

    /// Runs the worker on this thread until the orders end.
    pub async fn run(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Command>) {
        tokio::task::spawn_local(timer::drive());
        tokio::task::spawn_local(flush_logs(Rc::downgrade(&self)));
        tokio::task::spawn_local(sweep(Rc::downgrade(&self)));
        tokio::task::spawn_local(self.clusters.idle.clone().watch());
        while let Some(order) = orders.recv().await {
            match order {
                Command::Config(snapshot, sockets, done) => {
                    self.set_snapshot(&snapshot, sockets);
                    let _ = done.send(());
                }
                Command::Warm(snapshot, done) => {
                    self.clusters.set_snapshot(&snapshot);
                    tokio::task::spawn_local(warm(Rc::downgrade(&self), done));
                }
                Command::Drain {
                    stop_accepting,
                    inbound_only,
                    at_once,
                } => {
                    if !inbound_only {
                        let begun = self.draining.get();
                        self.draining.set(begun.or_else(|| Some(timer::now_ms())));
                        self.leaving.set(self.leaving.get() || at_once);
                    }
                    self.listeners.drain(&self, stop_accepting, inbound_only);
                    self.tell_idle();
                }
                Command::Accept(accept) => self.gate.set_closed(!accept),
                Command::LookAgain => self.wake_connections(),
                Command::GiveBack => footprint::release_heap(),
                Command::FailHealthCheck(fail) => self.failed.set(fail),
                Command::Close(done) => self.close(done),
                Command::Hosts(cluster, answer) => {
                    let hosts = self.clusters.existing(&cluster).map(|c| c.host_stats());
                    let _ = answer.send(hosts.unwrap_or_default());
                }
                Command::FlushLogs(done) => {
                    self.logs.flush();
                    let _ = done.send(());
                }
            }
        }
        self.logs.flush();
    }

    fn set_snapshot(
        self: &Rc<Self>,
        snapshot: &Arc<Snapshot>,
        sockets: Vec<(SocketAddr, std::net::TcpListener)>,
    ) {
        *self.snapshot.borrow_mut() = snapshot.clone();
        self.clusters.set_snapshot(snapshot);
        self.listeners.set_snapshot(self, snapshot, sockets);
    }

    fn close(self: &Rc<Self>, done: oneshot::Sender<()>) {
        self.leaving.set(true);
        self.closing.set(true);
        self.listeners.drain(self, true, false);
        *self.closed.borrow_mut() = Some(done);
        self.settle();
        self.wake_connections();
        let worker = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            timer::Timer::new().sleep(NEXT_REQUEST).await;
            if let Some(worker) = worker.upgrade() {
                worker.hurried.set(true);
                worker.settle();
                worker.wake_connections();
            }
        });
    }

    /// Says so where everything is closed that is to be.
    fn settle(&self) {
        let arriving = self.arriving.get() > 0 && !self.hurried.get();
        if self.connections.borrow().is_empty()
            && !arriving
            && let Some(done) = self.closed.borrow_mut().take()
        {
            let _ = done.send(());
        }
    }

    /// Asks clients of draining connections to go in time, whether or not they ask for something:
    /// such of a drain that begins now.
    pub fn tell_idle(self: &Rc<Self>) {
        let over = timer::deadline(timer::now_ms(), Some(self.options.drain_time));
        if self.telling_until.replace(over) == 0 {
            tokio::task::spawn_local(parting::tell(Rc::downgrade(self)));
        }
    }

    /// Whether the drains are over and nobody is to be told any more; then they are forgotten.
    pub(crate) fn told(&self) -> bool {
        let over = timer::now_ms() >= self.telling_until.get();
        if over {
            self.telling_until.set(0);
        }
        over
    }

    /// The connections that are served.
    pub fn connections(&self) -> Vec<Rc<Connection>> {
        let all = self.connections.borrow();
        all.values().filter_map(Weak::upgrade).collect()
    }

    /// Counts a connection that is on its way to [`Worker::remember`], or a socket that may have
    /// some.
    pub fn arrival(self: &Rc<Self>) -> Arrival {
        self.arriving.set(self.arriving.get() + 1);
        Arrival(self.clone())
    }

    /// Has idle connections look at whether they are to end.
    pub fn wake_connections(&self) {
        for conn in self.connections() {
            conn.wake();
        }
    }

    /// The route table of that name.
    pub fn route_table(&self, name: &str) -> Option<Arc<RouteConfiguration>> {
        self.snapshot.borrow().routes.get(name).cloned()
    }

    /// Since when clients are asked to go, in ms of the timer's clock.
    pub fn draining(&self) -> Option<u64> {
        self.draining.get()
    }

    /// Whether every client is asked to go.
    pub fn leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether an overload action is taken this time.
    pub fn sheds(&self, action: Action) -> bool {
        let overload = self.overload.as_ref();
        overload.is_some_and(|shedding| shedding.takes(action))
    }

    /// What a timeout is under the pressure of now.
    pub fn shortened(&self, which: ScaledTimeout, timeout: Duration) -> Duration {
        match &self.overload {
            None => timeout,
            Some(shedding) => shedding.shortened(which, timeout),
        }
    }

    /// Whether an overload manager is configured.
    pub fn may_shed(&self) -> bool {
        self.overload.is_some()
    }

    /// Whether the health check is told to fail.
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    /// Whether an idle connection closes; `expected` = a request may be on its way.
    pub fn closes(&self, expected: bool) -> bool {
        self.closing.get() && (!expected || self.hurried.get())
    }

    /// A number for a connection, unique in the process.
    pub fn connection_id(&self) -> u64 {
        let id = self.next_id.get();
        // Workers count in steps, so that no counter is shared.
        self.next_id.set(id + 64);
        id
    }

    /// Counts a connection until [`Worker::forget`].
    pub fn remember(&self, conn: &Rc<Connection>) {
        self.connections
            .borrow_mut()
            .insert(conn.id, Rc::downgrade(conn));
    }

    /// A connection went to rest: what served it was freed.
    pub fn rested(&self) {
        self.rested.set(self.rested.get() + 1);
    }

    /// The connection ended.
    pub fn forget(&self, id: u64) {
        self.connections.borrow_mut().remove(&id);
        self.settle();
    }

    /// Hands on the `date` line, made once a second.
    pub fn date(&self, to: impl FnOnce(&Line)) {
        let second = clock::wall_ns() / 1_000_000_000;
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            let now = UNIX_EPOCH + Duration::from_secs(second);
            let text = httpdate::fmt_http_date(now);
            *date = (second, Line::new(Known::Date, text.as_bytes()));
        }
        to(&date.1);
    }

    /// Closes the record of a stream: log lines and statistics.
    pub fn close_stream(&self, record: &StreamRecord, http: &HttpContext) {
        let ms = record.duration_ms();
        http.stats.cells.downstream_rq_active.sub(1);
        http.stats.finished(
            (record.code, record.charge),
            ms,
            record.flags,
            &record.details,
        );
        http.stats.bytes(&record.conn);
        if let Some(place) = &http.place {
            place.finished(record.charge.of_client(record.code));
        }
        if let Some(cluster) = &record.cluster {
            let stats = &cluster.stats;
            stats.finished(
                record.charge.of_cluster(record.code),
                record.upstream_ms(),
                record.flags,
                record.internal,
            );
        }
        if let Some(grpc) = &http.grpc {
            grpc.finished(record);
        }
        if let Some(filter) = &http.telemetry {
            self.mesh.request(record, filter);
        }
        trace::finish(record);
        if http.config.access_logs.is_empty() {
            return;
        }
        use lateen_proxy_core::access_log::Record as _;
        let input = FilterInput {
            code: record.code.into(),
            duration_ms: ms,
            flags: record.flags,
            headers: &record.request,
            // An answer without one has the status that its code means.
            grpc_status: record.grpc_status().or(Some(grpc_status(record.code))),
            health_check: false,
            traced: record.traced,
            log_type: "DownstreamEnd",
            random: record.random,
        };
        self.logs.write(&http.config.access_logs, record, &input);
    }

    /// Closes the record of a TCP connection.
    pub fn close_tcp(&self, record: &TcpRecord, loggers: &[AccessLog]) {
        let none: &[(&str, &str)] = &[];
        let input = FilterInput {
            code: 0,
            duration_ms: record.duration_ms(),
            flags: record.flags,
            headers: none,
            grpc_status: None,
            health_check: false,
            traced: false,
            log_type: "TcpConnectionEnd",
            random: fastrand::u64(..),
        };
        self.logs.write(loggers, record, &input);
    }
}

async fn flush_logs(worker: Weak<Worker>) {
    let timer = timer::Timer::new();
    while let Some(worker) = worker.upgrade() {
        worker.logs.flush_by_timer(worker.options.index == 0);
        let wait = worker.options.flush_interval.max(Duration::from_millis(10));
        drop(worker);
        timer.sleep(wait).await;
    }
}

/// So many connections at rest leave behind what is worth giving back.
const RESTED: u32 = 64;

async fn warm(worker: Weak<Worker>, done: oneshot::Sender<()>) {
    let timer = timer::Timer::new();
    while let Some(worker) = worker.upgrade() {
        if worker.clusters.is_warm() {
            break;
        }
        drop(worker);
        timer.sleep(Duration::from_millis(5)).await;
    }
    let _ = done.send(());
}

async fn sweep(worker: Weak<Worker>) {
    let timer = timer::Timer::new();
    let mut waiting = 0;
    while let Some(worker) = worker.upgrade() {
        worker.clusters.sweep();
        let new = worker.rested.replace(0);
        waiting += new;
        // Once the wave is over, for it costs as much for one as for all.
        if new == 0 && waiting >= RESTED {
            footprint::release_heap();
            waiting = 0;
        }
        drop(worker);
        timer.sleep(Duration::from_secs(1)).await;
    }
}
