//! The data plane as one value: worker threads, the sockets they accept on,
//! configurations applied to all of them, and the way to stop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hashbrown::HashMap;
use lateen_proxy_core::config::{Listener, Name, Snapshot};
use lateen_proxy_core::drain::Strategy;
use lateen_proxy_core::stats::{Metric, Registry};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, oneshot};

use crate::admin::HostStats;
use crate::io::clock;
use crate::listener::bound_addresses;
use crate::listener::limits::ConnectionLimits;
use crate::listener::ports::Ports;
use crate::logs::LogFiles;
use crate::mesh::Own;
use crate::overload::Overload;
use crate::upstream::InFlight;
use crate::upstream::table::SharedClusters;
use crate::worker::{Command, Worker, WorkerOptions};

/// What the engine is made with.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Worker threads, at least 1.
    pub concurrency: usize,
    /// The machine's or pod's name.
    pub hostname: String,
    /// The node's address, written in place of a loopback peer.
    pub node_ip: Option<IpAddr>,
    /// How long access log lines may wait.
    pub flush_interval: Duration,
    /// How long connections of a removed listener or chain may go on.
    pub drain_time: Duration,
    /// How their clients are asked to go.
    pub drain_strategy: Strategy,
    /// Limits on downstream connections.
    pub limits: Arc<ConnectionLimits>,
    /// How far overload actions are taken; none = no manager is configured.
    pub overload: Option<Arc<Overload>>,
    /// Statistics.
    pub stats: Registry,
    /// This proxy's own workload.
    pub own: Arc<Own>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            concurrency: 1,
            hostname: String::new(),
            node_ip: None,
            flush_interval: Duration::from_secs(10),
            drain_time: Duration::from_secs(600),
            drain_strategy: Strategy::Immediate,
            limits: Arc::default(),
            overload: None,
            stats: Registry::new(),
            own: Arc::default(),
        }
    }
}

/// A listener whose address could not be bound.
#[derive(Clone, Debug, thiserror::Error)]
#[error("listener {listener}: cannot bind '{address}': {reason}")]
pub struct BindError {
    /// Listener name.
    pub listener: Name,
    /// Address.
    pub address: SocketAddr,
    /// The system's words.
    pub reason: String,
}

/// Longest wait for a worker's answer to a page.
const WORKER_ANSWERS: Duration = Duration::from_millis(500);

struct Thread {
    orders: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// The running data plane. Dropping it stops the workers at once.
pub struct Engine {
    threads: Vec<Thread>,
    bound: HashMap<SocketAddr, Arc<Listener>>,
    ports: Ports,
    clusters: Arc<SharedClusters>,
    logs: LogFiles,
}

/// Orders for the workers from other threads.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    orders: Vec<mpsc::UnboundedSender<Command>>,
    clusters: Arc<SharedClusters>,
    logs: LogFiles,
}

impl EngineHandle {
    /// What is in flight in the clusters in use, by name and priority.
    pub fn in_flight(&self) -> Vec<(Name, [Arc<InFlight>; 2])> {
        self.clusters.in_flight()
    }

    /// Tells clients to go, as the strategy says: answers close their connections.
    pub fn drain(&self, stop_accepting: bool, inbound_only: bool) {
        self.send_drain(stop_accepting, inbound_only, false);
    }

    /// Tells every client to go with its next answer: the process ends.
    pub fn leave(&self) {
        self.send_drain(false, false, true);
    }

    fn send_drain(&self, stop_accepting: bool, inbound_only: bool, at_once: bool) {
        for orders in &self.orders {
            let _ = orders.send(Command::Drain {
                stop_accepting,
                inbound_only,
                at_once,
            });
        }
    }

    /// Answers close their connections as long as the health check is told to
    /// fail.
    pub fn fail_health_check(&self, fail: bool) {
        for orders in &self.orders {
            let _ = orders.send(Command::FailHealthCheck(fail));
        }
    }

    /// Has the workers accept connections, or leave them in the system's queues.
    pub fn accept(&self, accept: bool) {
        for orders in &self.orders {
            let _ = orders.send(Command::Accept(accept));
        }
    }

    /// Has idle connections look at how long they may idle.
    pub fn look_again(&self) {
        for orders in &self.orders {
            let _ = orders.send(Command::LookAgain);
        }
    }

    /// Has the workers give back what is free on their heaps.
    pub fn give_back(&self) {
        for orders in &self.orders {
            let _ = orders.send(Command::GiveBack);
        }
    }

    /// Stops accepting and closes idle connections; returns when no connection
    /// is left, or after `grace`. True when none was left.
    pub async fn close(&self, grace: Duration) -> bool {
        let all = self.ask(Command::Close);
        tokio::time::timeout(grace, all).await.is_ok()
    }

    /// Writes the access logs that wait; opens their files anew if `reopen`. Waits for a file that
    /// takes no more no longer than 2 s.
    pub async fn flush_logs(&self, reopen: bool) {
        self.ask(Command::FlushLogs).await;
        self.logs.written(reopen).await;
    }

    /// What became of access log lines.
    pub fn log_metrics(&self) -> Vec<Metric> {
        self.logs.metrics()
    }

    /// What the workers know of the hosts of a cluster, by address, summed.
    /// Waits for the workers, which answer between requests.
    pub fn hosts(&self, cluster: &str) -> std::collections::HashMap<String, HostStats> {
        let (answer, answers) = std::sync::mpsc::channel();
        for orders in &self.orders {
            let _ = orders.send(Command::Hosts(cluster.to_owned(), answer.clone()));
        }
        drop(answer);
        let mut sums: std::collections::HashMap<String, HostStats> = Default::default();
        while let Ok(hosts) = answers.recv_timeout(WORKER_ANSWERS) {
            for (address, stats) in hosts {
                let sum = sums.entry(address).or_default();
                if sum.found.is_none() {
                    sum.found = stats.found;
                }
                sum.cx_active += stats.cx_active;
                sum.cx_connect_fail += stats.cx_connect_fail;
                sum.cx_total += stats.cx_total;
                sum.rq_active += stats.rq_active;
                sum.rq_error += stats.rq_error;
                sum.rq_success += stats.rq_success;
                sum.rq_timeout += stats.rq_timeout;
                sum.rq_total += stats.rq_total;
                sum.flags = sum.flags.and(stats.flags);
            }
        }
        sums
    }

    async fn ask(&self, order: impl Fn(oneshot::Sender<()>) -> Command) {
        let mut answers = Vec::new();
        for orders in &self.orders {
            let (done, answer) = oneshot::channel();
            if orders.send(order(done)).is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            // A worker that is gone has nothing more to do.
            let _ = answer.await;
        }
    }
}

impl Engine {
    /// Starts the workers; they serve nothing yet.
    pub fn start(options: &EngineOptions) -> io::Result<Self> {
        let clusters = Arc::new(SharedClusters::default());
        let logs = LogFiles::default();
        let count = options.concurrency.max(1);
        let mut threads = Vec::new();
        for index in 0..count {
            let (orders, received) = mpsc::unbounded_channel();
            let worker = WorkerOptions {
                index,
                hostname: options.hostname.clone(),
                node_ip: options.node_ip,
                flush_interval: options.flush_interval,
                log_files: logs.clone(),
                drain_time: options.drain_time,
                drain_strategy: options.drain_strategy,
                limits: options.limits.clone(),
                overload: options.overload.clone(),
                clusters: clusters.clone(),
                stats: options.stats.clone(),
                own: options.own.clone(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_unpark(clock::passed)
                .build()?;
            let thread = std::thread::Builder::new()
                .name(format!("wrk:{index}"))
                .spawn(move || {
                    clock::attend();
                    let local = tokio::task::LocalSet::new();
                    local.block_on(&runtime, Worker::new(worker).run(received));
                })?;
            threads.push(Thread {
                orders,
                thread: Some(thread),
            });
        }
        Ok(Self {
            threads,
            bound: HashMap::new(),
            ports: Ports::default(),
            clusters,
            logs,
        })
    }

    /// A handle for orders from elsewhere.
    pub fn handle(&self) -> EngineHandle {
        EngineHandle {
            orders: self.threads.iter().map(|t| t.orders.clone()).collect(),
            clusters: self.clusters.clone(),
            logs: self.logs.clone(),
        }
    }

    /// Makes the clusters of the first snapshot ready before its listeners open:
    /// names are resolved, hosts are checked once. Waits no longer than `most`.
    pub async fn warm(&self, snapshot: &Arc<Snapshot>, most: Duration) {
        let Some(first) = self.threads.first() else {
            return;
        };
        let (done, answer) = oneshot::channel();
        let sent = first.orders.send(Command::Warm(snapshot.clone(), done));
        if sent.is_ok() && tokio::time::timeout(most, answer).await.is_err() {
            tracing::warn!(target: crate::logger::MAIN, "some clusters are not ready; listeners open without them");
        }
    }

    /// Serves a snapshot from now on. Returns when every worker has it, with
    /// the listeners that could not be bound.
    pub async fn apply(&mut self, snapshot: &Arc<Snapshot>) -> Vec<BindError> {
        let (snapshot, _reserved) = self.ports.settle(snapshot);
        let mut errors = Vec::new();
        let mut wanted: HashMap<SocketAddr, Arc<Listener>> = HashMap::new();
        for listener in snapshot.listeners.values() {
            for address in bound_addresses(listener) {
                wanted.insert(address, listener.clone());
            }
        }
        self.bound.retain(|address, _| wanted.contains_key(address));
        let mut sockets: Vec<Vec<_>> = self.threads.iter().map(|_| Vec::new()).collect();
        for (address, listener) in wanted {
            if self.bound.contains_key(&address) {
                continue;
            }
            let made: io::Result<Vec<_>> = self
                .threads
                .iter()
                .map(|_| bind(&listener, address))
                .collect();
            match made {
                Ok(made) => {
                    for (list, socket) in sockets.iter_mut().zip(made) {
                        list.push((address, socket));
                    }
                    self.bound.insert(address, listener);
                }
                Err(error) => errors.push(BindError {
                    listener: listener.name.clone(),
                    address,
                    reason: error.to_string(),
                }),
            }
        }
        self.clusters.retain(&snapshot);
        let mut answers = Vec::new();
        for (thread, sockets) in self.threads.iter().zip(sockets) {
            let (done, answer) = oneshot::channel();
            if thread
                .orders
                .send(Command::Config(snapshot.clone(), sockets, done))
                .is_ok()
            {
                answers.push(answer);
            }
        }
        for answer in answers {
            // A worker that is gone cannot take it; the process is ending.
            let _ = answer.await;
        }
        errors
    }

    /// The addresses that are listened on.
    pub fn bound(&self) -> impl Iterator<Item = (SocketAddr, &Arc<Listener>)> {
        self.bound.iter().map(|(a, l)| (*a, l))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for thread in &mut self.threads {
            // The orders end with their last sender; handles may be around
            // still, so the thread is not waited for.
            thread.orders = mpsc::unbounded_channel().0;
            drop(thread.thread.take());
        }
    }
}

/// Tries whether all addresses of a listener can be bound, beside sockets that
/// this process has there already.
///
/// # Errors
/// When one cannot; the text names it.
pub fn try_bind(listener: &Listener) -> Result<(), String> {
    for address in bound_addresses(listener) {
        if let Err(error) = socket(listener, address) {
            return Err(format!("cannot bind '{address}': {error}"));
        }
    }
    Ok(())
}

/// Opens a listening socket; every worker has one of its own on the address.
fn bind(listener: &Listener, address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(listener, address)?;
    if let Some(queue) = listener.tcp_fast_open_queue_length {
        crate::os::set_fast_open(&socket, i32::try_from(queue).unwrap_or(i32::MAX))?;
    }
    socket.listen(i32::try_from(backlog(listener)).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// How many connections may wait to be accepted, on each socket of the listener.
pub(crate) fn backlog(listener: &Listener) -> u32 {
    listener.backlog.unwrap_or(1024)
}

/// A socket bound to the address with the listener's options; it does not
/// listen yet.
pub(crate) fn socket(listener: &Listener, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!listener.ipv4_compat)?;
    }
    if listener.freebind {
        crate::os::set_freebind(&socket, address.is_ipv4())?;
    }
    if listener.transparent {
        crate::os::set_transparent(&socket, address.is_ipv4())?;
    }
    for option in &listener.socket_options {
        crate::os::set_socket_option(&socket, option)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
