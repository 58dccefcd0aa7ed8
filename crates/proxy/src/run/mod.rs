//! A proxy process from start to end: configuration, workers, admin, the
//! sidecar's own ports, and a stop that loses no request.

mod certificates;
mod control_plane;
pub(crate) mod figures;
mod overload;
mod pressure;
mod rest;
mod runtime;
mod state;
mod subscriptions;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lateen_process::{Stop, stop};
use lateen_proxy_core::config::bootstrap::{Bootstrap, StatsMatcher};
use lateen_proxy_core::config::{Address, ResourceMap};
use lateen_proxy_core::drain::Strategy;
use lateen_proxy_core::stats::{Counter, Registry, Scope};
use lateen_proxy_xds::ads;
use lateen_proxy_xds::bootstrap::Loaded;
use lateen_proxy_xds::decode::Context;
use lateen_proxy_xds::runtime::Runtime;
use lateen_proxy_xds::world::StaticError;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, ServerState};
use crate::agent::{self, Agent, AgentOptions, BadProbe};
use crate::engine::{self, Engine, EngineOptions};
use crate::listener::limits::ConnectionLimits;
use crate::mesh::Own;
use crate::overload::Overload;
pub use state::{Live, LogLevels};

/// What a proxy is run with.
pub struct ProxyOptions {
    /// The bootstrap, loaded.
    pub loaded: Loaded,
    /// Files and environment that messages may name.
    pub context: Context,
    /// What the bootstrap cannot say of the ADS stream.
    pub ads: ads::Options,
    /// Worker threads, at least 1.
    pub concurrency: usize,
    /// The machine's or pod's name.
    pub hostname: String,
    /// The node's address, written in place of a loopback peer.
    pub node_ip: Option<IpAddr>,
    /// How long access log lines may wait (`--file-flush-interval-msec`).
    pub flush_interval: Duration,
    /// How long removed listeners drain (`--drain-time-s`).
    pub drain_time: Duration,
    /// How their clients are asked to go (`--drain-strategy`).
    pub drain_strategy: Strategy,
    /// How long a stop tells clients to go before connections are closed.
    pub termination_drain: Duration,
    /// How long requests in flight may take after that.
    pub termination_grace: Duration,
    /// Most downstream connections; 0 = what the bootstrap says.
    pub max_connections: u32,
    /// A file that the admin port's address is written to, for ports that the system chooses
    /// (`--admin-address-path`).
    pub admin_address_path: Option<PathBuf>,
    /// Command-line options by their Envoy names, for `/server_info`.
    pub command_line: Value,
    /// The sidecar's own ports; none = a plain proxy.
    pub agent: Option<AgentOptions>,
    /// Reads and sets the process's log levels.
    pub log_levels: Option<Arc<dyn LogLevels>>,
}

/// Why a proxy did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A static resource is not acceptable.
    #[error(transparent)]
    Resource(Box<StaticError>),
    /// A static listener has no port.
    #[error("{0}")]
    Static(String),
    /// The system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// An application probe cannot be understood.
    #[error(transparent)]
    Probe(#[from] BadProbe),
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RunError {
    let what = what.into();
    move |error| RunError::System { what, error }
}

/// Longest wait for names and first health checks before ports open.
const WARMING: Duration = Duration::from_secs(30);

/// Runs a proxy until a signal or an order ends it.
///
/// # Errors
/// When it cannot begin; nothing is left behind then.
pub fn run(options: ProxyOptions) -> Result<ExitCode, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("runtime"))?;
    runtime.block_on(async {
        let stop = stop::on_signals(stop::Hangup::Ignored).map_err(system("signals"))?;
        serve(options, stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Limits on connections: the flag's before the overload manager's before the runtime's.
fn limits(flag: u32, bootstrap: &Bootstrap) -> ConnectionLimits {
    let runtime = Runtime::new(&bootstrap.runtime);
    let configured = bootstrap.max_downstream_connections;
    let global = Some(flag).filter(|most| *most > 0).or(configured);
    let global = global.or_else(|| runtime.max_downstream_connections());
    ConnectionLimits::new(global, runtime.listener_connections())
}

/// Runs a proxy in the caller's runtime until `stop`.
///
/// # Errors
/// When it cannot begin.
pub async fn serve(options: ProxyOptions, stop: Stop) -> Result<(), RunError> {
    let registry = Registry::new();
    keep_wanted(&registry, options.loaded.bootstrap.stats_matcher.clone());
    let bootstrap = &options.loaded.bootstrap;
    let managed = bootstrap.overload.clone();
    let managed = managed.map(|config| {
        let overload = Arc::new(Overload::new(config.timeouts.clone()));
        (config, overload)
    });
    let engine = Engine::start(&EngineOptions {
        concurrency: options.concurrency,
        hostname: options.hostname.clone(),
        node_ip: options.node_ip.or_else(own_address),
        flush_interval: options.flush_interval,
        drain_strategy: options.drain_strategy,
        drain_time: options.drain_time,
        limits: Arc::new(limits(options.max_connections, bootstrap)),
        overload: managed.as_ref().map(|(_, overload)| overload.clone()),
        stats: registry.clone(),
        own: Arc::new(Own::of_node(&options.loaded.bootstrap.node)),
    })
    .map_err(system("worker threads"))?;
    let admin = options.loaded.bootstrap.admin.clone();
    let (handle, mut client) = ads::start(options.loaded, options.context, options.ads)
        .map_err(|error| RunError::Resource(Box::new(error)))?;
    handle.world().set_binder(Box::new(engine::try_bind));
    handle.world().set_drain_time(options.drain_time);
    client
        .open_files()
        .map_err(|error| RunError::Resource(Box::new(error)))?;
    let (quit, quitting) = stop::pair();
    let live = Arc::new(Live::new(state::Parts {
        registry: registry.clone(),
        xds: handle.clone(),
        engine: engine.handle(),
        quit,
        command_line: options.command_line,
        log_levels: options.log_levels,
        drain_time: options.drain_time,
        concurrency: options.concurrency,
    }));
    if let Some((config, overload)) = managed {
        let manager = overload::Manager::new(&config, overload, engine.handle(), &registry);
        tokio::spawn(manager.run());
    }
    tokio::spawn(rest::after_changes(
        handle.snapshots.clone(),
        engine.handle(),
    ));
    let xds = tokio::spawn(client.run());
    let (stopper, pages) = stop::pair();
    if let Some(address) = &admin.address {
        let bound = serve_admin(address, admin.mode, &live, &pages)?;
        if let Some(path) = &options.admin_address_path {
            let what = || format!("--admin-address-path {}", path.display());
            std::fs::write(path, bound).map_err(|error| system(what())(error))?;
        }
    }
    if let Some(agent) = options.agent {
        serve_agent(agent, &live, &pages)?;
    }
    tokio::spawn(reopen_on_signal(live.clone()));
    let mut process = Process {
        engine,
        live: live.clone(),
    };
    tokio::select! {
        followed = process.follow(handle) => followed?,
        () = stop.stopped() => {}
        () = quitting.stopped() => {}
    }
    process
        .end(options.termination_drain, options.termination_grace)
        .await;
    xds.abort();
    stopper.stop();
    Ok(())
}

/// The first IPv4 address of this machine that is not loopback.
fn own_address() -> Option<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    let v4 = |i: nix::ifaddrs::InterfaceAddress| Some(i.address?.as_sockaddr_in()?.ip());
    all.filter_map(v4)
        .find(|ip| !ip.is_loopback())
        .map(IpAddr::V4)
}

/// Gives the address that was bound.
fn serve_admin(
    address: &Address,
    mode: u32,
    live: &Arc<Live>,
    stop: &Stop,
) -> Result<String, RunError> {
    let what = format!("admin address {address}");
    let (listener, bound) = admin::bind(address, mode).map_err(system(what))?;
    tracing::info!(target: crate::logger::MAIN, "admin address: {bound}");
    let (live, stop) = (live.clone(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, live, stop).await {
            tracing::error!(target: crate::logger::MAIN, %error, "admin");
        }
    });
    Ok(bound)
}

fn serve_agent(options: AgentOptions, live: &Arc<Live>, stop: &Stop) -> Result<(), RunError> {
    let agent = Arc::new(Agent::new(options, live.clone())?);
    for (address, role) in agent.ports().collect::<Vec<_>>() {
        let listener = agent::bind(address).map_err(system(format!("agent port {address}")))?;
        let (agent, stop) = (agent.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = agent::serve(listener, role, agent, stop).await {
                tracing::error!(target: crate::logger::MAIN, %error, %address, "agent");
            }
        });
    }
    Ok(())
}

/// Which series are kept, as the bootstrap says.
fn keep_wanted(registry: &Registry, matcher: StatsMatcher) {
    if matcher.reject_all {
        return registry.keep(|_| false);
    }
    if matcher.inclusion.is_empty() && matcher.exclusion.is_empty() {
        return;
    }
    registry.keep(move |name| {
        let name = name.as_bytes();
        let any = |list: &[lateen_proxy_core::matcher::StringMatcher]| {
            list.iter().any(|m| m.matches(name))
        };
        !any(&matcher.exclusion) && (matcher.inclusion.is_empty() || any(&matcher.inclusion))
    });
}

/// SIGUSR1 opens the access logs anew, as Envoy does.
async fn reopen_on_signal(live: Arc<Live>) {
    let Ok(mut signals) = signal(SignalKind::user_defined1()) else {
        return;
    };
    while signals.recv().await.is_some() {
        admin::State::reopen_logs(&*live);
    }
}

/// Counts what becomes of the resources of one kind from snapshot to snapshot.
struct Kinds<T> {
    now: ResourceMap<T>,
    added: Counter,
    modified: Counter,
    removed: Counter,
}

impl<T> Kinds<T> {
    fn new(registry: &Registry, manager: &str, word: &str) -> Self {
        let scope = Scope::group(manager);
        let counter = |what: &str| registry.counter(&scope.stat(&format!("{word}_{what}")));
        Self {
            now: Arc::default(),
            added: counter("added"),
            modified: counter("modified"),
            removed: counter("removed"),
        }
    }

    fn take(&mut self, next: &ResourceMap<T>) {
        if Arc::ptr_eq(&self.now, next) {
            return;
        }
        for (name, value) in next.iter() {
            match self.now.get(name) {
                None => self.added.inc(),
                Some(before) if !Arc::ptr_eq(before, value) => self.modified.inc(),
                Some(_) => {}
            }
        }
        let gone = self.now.keys().filter(|name| !next.contains_key(*name));
        self.removed.add(gone.count() as u64);
        self.now = next.clone();
    }
}

struct Process {
    engine: Engine,
    live: Arc<Live>,
}

impl Process {
    /// Serves every snapshot that is published; ends only with its publisher.
    /// A static listener without its port is none: the process must not go on as
    /// if it served.
    async fn follow(&mut self, handle: ads::Handle) -> Result<(), RunError> {
        let mut snapshots = handle.snapshots.clone();
        let mut warmed = false;
        let registry = self.live.registry_of_process();
        let mut listeners = Kinds::new(&registry, "listener_manager", "listener");
        let mut clusters = Kinds::new(&registry, "cluster_manager", "cluster");
        let manager = Scope::group("listener_manager");
        let failed = registry.counter(&manager.stat("listener_create_failure"));
        let active = [
            registry.gauge(&manager.stat("total_listeners_active")),
            registry.gauge(&Scope::group("cluster_manager").stat("active_clusters")),
        ];
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            // Ports open when everything that the start waits for is there.
            if snapshot.initialized {
                if !std::mem::replace(&mut warmed, true) {
                    self.engine.warm(&snapshot, WARMING).await;
                }
                let errors = self.engine.apply(&snapshot).await;
                for error in &errors {
                    if handle.world().listeners.is_fixed(&error.listener) {
                        return Err(RunError::Static(error.to_string()));
                    }
                    failed.inc();
                    tracing::error!(target: crate::logger::MAIN, "{error}");
                }
                listeners.take(&snapshot.listeners);
                clusters.take(&snapshot.clusters);
                active[0].set(snapshot.listeners.len() as i64);
                active[1].set(snapshot.clusters.len() as i64);
                self.live.serving(snapshot, &self.engine);
            }
            if snapshots.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Tells clients to go, waits, closes what idles, and lets requests in
    /// flight end.
    async fn end(&mut self, drain: Duration, grace: Duration) {
        self.live.set_state(ServerState::Draining);
        let handle = self.engine.handle();
        handle.leave();
        if !drain.is_zero() {
            tokio::time::sleep(drain).await;
        }
        if !handle.close(grace).await {
            tracing::warn!(target: crate::logger::MAIN, "connections were still open at the end");
        }
        handle.flush_logs(false).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_proxy_core::stats::MetricValue;

    #[test]
    fn resources_are_counted_as_they_come_change_and_go() {
        let registry = Registry::new();
        let mut kinds = Kinds::<u8>::new(&registry, "cluster_manager", "cluster");
        let map = |list: &[(&str, &Arc<u8>)]| -> ResourceMap<u8> {
            let pairs = list.iter().map(|(n, v)| ((*n).into(), (*v).clone()));
            Arc::new(pairs.collect())
        };
        let (one, two) = (Arc::new(1), Arc::new(2));
        kinds.take(&map(&[("a", &one), ("b", &one), ("c", &one)]));
        kinds.take(&map(&[("a", &one), ("b", &two), ("d", &one)]));
        let counted: Vec<_> = registry
            .collect()
            .into_iter()
            .map(|m| (m.name.flat.to_string(), m.value))
            .collect();
        let want = |what: &str, n| {
            let name = format!("cluster_manager.cluster_{what}");
            (name, MetricValue::Counter(n))
        };
        assert_eq!(
            counted,
            [want("added", 4), want("modified", 1), want("removed", 1)]
        );
    }
}
