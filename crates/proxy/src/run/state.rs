//! The state of the running process as the admin pages and the agent ask for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lateen_process::Stopper;
use lateen_proxy_core::config::Snapshot;
use lateen_proxy_core::config::tls::Secret;
use lateen_proxy_core::stats::{Gauge, Registry, Scope};
use lateen_proxy_xds::ads;
use serde_json::{Value, json};

use super::control_plane::{self, ControlPlane};
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
        super::dump::node(&self.parts.xds)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.changing().snapshot.clone()
    }

    fn hosts(&self, cluster: &str) -> HashMap<String, HostStats> {
        self.parts.engine.hosts(cluster)
    }

    fn config_dump(&self, include_endpoints: bool) -> Value {
        super::dump::config(&self.parts.xds, include_endpoints)
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
        let snapshot = self.snapshot();
        let mut names: Vec<_> = snapshot.secrets.keys().collect();
        names.sort();
        let list = names.into_iter().filter_map(|name| match snapshot.secrets.get(name)?.as_ref() {
            Secret::Certificate(c) => Some(json!({
                "ca_cert": [],
                "cert_chain": certificate_details(&c.certificate_chain.bytes, c.certificate_chain.path.as_deref()),
            })),
            Secret::Validation(v) => {
                let ca = v.trusted_ca.as_ref()?;
                Some(json!({
                    "ca_cert": certificate_details(&ca.bytes, ca.path.as_deref()),
                    "cert_chain": [],
                }))
            }
            _ => None,
        });
        Value::Array(list.collect())
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
            tracing::warn!(%error, "the log goes on in its old file");
        }
        let engine = self.parts.engine.clone();
        self.runtime
            .spawn(async move { engine.flush_logs(true).await });
    }
}

fn certificate_details(pem: &[u8], path: Option<&str>) -> Value {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    let list = CertificateDer::pem_slice_iter(pem).filter_map(|der| {
        let der = der.ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = parsed.validity();
        let now = x509_parser::time::ASN1Time::now().timestamp();
        let names = crate::tls::certificate::Names::of(&der);
        let dns = names.dns.iter().map(|d| json!({"dns": d}));
        let uris = names.uris.iter().map(|u| json!({"uri": u}));
        let ips = names.ips.iter().map(|i| json!({"ip_address": i}));
        let names: Vec<_> = dns.chain(uris).chain(ips).collect();
        Some(json!({
            "path": path.unwrap_or("<inline>"),
            "serial_number": parsed.raw_serial_as_string().replace(':', ""),
            "subject_alt_names": names,
            "days_until_expiration": ((validity.not_after.timestamp() - now) / 86_400).max(0).to_string(),
            "valid_from": date(validity.not_before.timestamp()),
            "expiration_time": date(validity.not_after.timestamp()),
        }))
    });
    Value::Array(list.collect())
}

fn date(unix: i64) -> String {
    let mut out = Vec::new();
    let nanos = u64::try_from(unix).unwrap_or(0) * 1_000_000_000;
    lateen_proxy_core::access_log::write_iso8601_ms(nanos, &mut out);
    String::from_utf8_lossy(&out).replace(".000Z", "Z")
}
