//! The state of the running process as the admin pages and the agent ask for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lateen_process::Stopper;
use lateen_proxy_core::config::Snapshot;
use lateen_proxy_core::stats::{Gauge, Metric, Registry, Scope};
use lateen_proxy_xds::ads;
use serde_json::Value;

use super::control_plane::{self, ControlPlane};
use super::{certificates, figures, runtime, subscriptions};
use crate::admin::{Drain, HostStats, ServerState, State};
use crate::engine::{Engine, EngineHandle};

/// The process's log levels.
pub trait LogLevels: Send + Sync {
    /// Loggers with their levels, sorted.
    fn list(&self) -> Vec<(String, String)>;
    /// Sets the level of one logger, or of all.
    ///
    /// # Errors
    /// When there is no such logger or level.
    fn set(&self, logger: Option<&str>, level: &str) -> Result<(), String>;
    /// Opens the log's file anew, where it has one.
    ///
    /// # Errors
    /// The system's; the log goes on in its old file.
    fn reopen(&self) -> std::io::Result<()>;
}

/// What the state is made of.
pub(super) struct Parts {
    pub(super) registry: Registry,
    pub(super) xds: ads::Handle,
    pub(super) engine: EngineHandle,
    pub(super) quit: Stopper,
    pub(super) command_line: Value,
    pub(super) log_levels: Option<Arc<dyn LogLevels>>,
    pub(super) drain_time: Duration,
    pub(super) concurrency: usize,
}

struct Changing {
    state: ServerState,
    failed: bool,
    snapshot: Arc<Snapshot>,
    bound: Vec<(String, String)>,
}

struct Gauges {
    live: Gauge,
    state: Gauge,
    uptime: Gauge,
    control_plane: ControlPlane,
}

/// The state of the running process.
pub struct Live {
    parts: Parts,
    started: Instant,
    changing: Mutex<Changing>,
    gauges: Mutex<Gauges>,
    runtime: tokio::runtime::Handle,
}

impl Live {
    pub(super) fn new(parts: Parts) -> Self {
        let group = |name: &str, stat: &str| parts.registry.gauge(&Scope::group(name).stat(stat));
        let gauges = Gauges {
            live: group("server", "live"),
            state: group("server", "state"),
            uptime: group("server", "uptime"),
            control_plane: ControlPlane::new(
                &parts.registry,
                parts.xds.loaded.bootstrap.ads.as_ref().map(|a| &*a.cluster),
                [
                    parts.xds.loaded.bootstrap.cds.is_some(),
                    parts.xds.loaded.bootstrap.lds.is_some(),
                ],
            ),
        };
        group("server", "concurrency").set(parts.concurrency as i64);
        Self {
            parts,
            started: Instant::now(),
            changing: Mutex::new(Changing {
                state: ServerState::Initializing,
                failed: false,
                snapshot: Arc::default(),
                bound: Vec::new(),
            }),
            gauges: Mutex::new(gauges),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, Changing> {
        // Values are replaced whole: a panicked holder leaves nothing half-made.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry, for the process's own gauges.
    pub(super) fn registry_of_process(&self) -> Registry {
        self.parts.registry.clone()
    }

    /// A snapshot is served by every worker.
    pub(super) fn serving(&self, snapshot: Arc<Snapshot>, engine: &Engine) {
        let mut bound: Vec<_> = engine
            .bound()
            .map(|(address, listener)| (listener.name.to_string(), address.to_string()))
            .collect();
        // Those without a socket get their connections from another listener; Envoy lists them too.
        for listener in snapshot.listeners.values().filter(|l| !l.bind_to_port) {
            let addresses = listener.addresses();
            bound.extend(addresses.map(|a| (listener.name.to_string(), a.to_string())));
        }
        bound.sort();
        let mut changing = self.changing();
        changing.snapshot = snapshot;
        changing.bound = bound;
        if changing.state == ServerState::Initializing {
            changing.state = ServerState::Live;
        }
    }

    /// The process goes on to another state.
    pub(super) fn set_state(&self, state: ServerState) {
        self.changing().state = state;
    }

    fn refresh_gauges(&self) {
        let state = self.server_state();
        let number = match state {
            ServerState::Live => 0,
            ServerState::Draining => 1,
            ServerState::PreInitializing => 2,
            ServerState::Initializing => 3,
        };
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.live.set(i64::from(state == ServerState::Live));
        gauges.state.set(number);
        gauges.uptime.set(self.uptime().as_secs() as i64);
        gauges.control_plane.refresh(&self.parts.xds.status());
    }
}

impl State for Live {
    fn allows(&self, path: &str) -> bool {
        let allowed = &self.parts.xds.loaded.bootstrap.admin.allow_paths;
        allowed.is_empty() || allowed.iter().any(|m| m.matches(path.as_bytes()))
    }

    fn server_state(&self) -> ServerState {
        let changing = self.changing();
        match changing.state {
            ServerState::Live if changing.failed => ServerState::Draining,
            state => state,
        }
    }

    fn missing(&self) -> Option<String> {
        let bootstrap = &self.parts.xds.loaded.bootstrap;
        control_plane::missing(
            &self.parts.xds.status(),
            [bootstrap.cds.is_some(), bootstrap.lds.is_some()],
        )
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn options(&self) -> Value {
        self.parts.command_line.clone()
    }

    fn node(&self) -> Value {
        self.parts.xds.node_json()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.changing().snapshot.clone()
    }

    fn hosts(&self, cluster: &str) -> HashMap<String, HostStats> {
        self.parts.engine.hosts(cluster)
    }

    fn config_dump(&self, include_endpoints: bool) -> Value {
        self.parts.xds.config_dump(include_endpoints)
    }

    fn registry(&self) -> &Registry {
        self.refresh_gauges();
        &self.parts.registry
    }

    fn loggers(&self) -> Vec<(String, String)> {
        self.parts
            .log_levels
            .as_ref()
            .map(|l| l.list())
            .unwrap_or_default()
    }

    fn set_level(&self, logger: Option<&str>, level: &str) -> Result<(), String> {
        match &self.parts.log_levels {
            Some(levels) => levels.set(logger, level),
            None => Err("log levels of this process cannot be changed".to_owned()),
        }
    }

    fn bound(&self) -> Vec<(String, String)> {
        self.changing().bound.clone()
    }

    fn certificates(&self) -> Value {
        certificates::all(&self.snapshot())
    }

    fn runtime(&self) -> Value {
        let dump = self.config_dump(false);
        runtime::page(&dump[0]["bootstrap"])
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut all = self.registry().collect();
        let snapshot = self.snapshot();
        let more = figures::all(
            &figures::Sources {
                snapshot: &snapshot,
                in_flight: self.parts.engine.in_flight(),
                certificates: &self.certificates(),
                runtime: &self.runtime(),
                unknown: self.parts.xds.loaded.unknown.len(),
            },
            &all,
        );
        // What a worker counts of a cluster's endpoints is how often they changed.
        let subscribed = subscriptions::all(&snapshot, self.parts.xds.tally());
        let names: HashSet<&str> = subscribed.iter().map(|m| &*m.name.flat).collect();
        all.retain(|m| !names.contains(&*m.name.flat));
        drop(names);
        let registry = &self.parts.registry;
        let more = more.into_iter().chain(subscribed);
        let more = more.chain(self.parts.engine.log_metrics());
        let secrets = {
            let xds = &self.parts.xds;
            xds.world().secret_updates(xds.tally())
        };
        let more = more.chain(subscriptions::secrets(&secrets));
        all.extend(more.filter(|m| registry.keeps(&m.name.flat)));
        all.sort_by(|a, b| a.name.flat.cmp(&b.name.flat));
        all
    }

    fn drain(&self, drain: Drain) {
        let engine = self.parts.engine.clone();
        engine.drain(!drain.graceful, drain.inbound_only);
        if drain.graceful && !drain.skip_exit {
            let wait = self.parts.drain_time;
            self.runtime.spawn(async move {
                tokio::time::sleep(wait).await;
                engine.drain(true, drain.inbound_only);
            });
        }
    }

    fn fail_health_check(&self, fail: bool) {
        self.changing().failed = fail;
        self.parts.engine.fail_health_check(fail);
    }

    fn quit(&self) {
        self.parts.quit.stop();
    }

    fn reopen_logs(&self) {
        let log = self.parts.log_levels.as_ref();
        if let Some(Err(error)) = log.map(|log| log.reopen()) {
            tracing::warn!(target: crate::logger::MAIN, %error, "the log goes on in its old file");
        }
        let engine = self.parts.engine.clone();
        self.runtime
            .spawn(async move { engine.flush_logs(true).await });
    }
}
