//! The admin interface: Envoy's pages, over what the engine tells through [`State`].
//!
//! Runs on the main thread's runtime, never on a worker's. Pages that change something want POST,
//! as Envoy's do.

mod clusters;
mod config_dump;
mod histograms;
mod loggers;
pub(crate) mod query;
mod server;
mod stats;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::Snapshot;
use lateen_proxy_core::config::endpoint::{Endpoint, Locality};
use lateen_proxy_core::stats::{Metric, Registry};
use serde_json::Value;

pub use loggers::is_logger;
pub use server::{Listener, bind, serve};
pub use stats::prometheus;

use crate::upstream::health::HealthFlags;

/// The state of the whole process, as `/ready` and `/server_info` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// The bootstrap is being read.
    PreInitializing,
    /// The first configuration is on its way.
    Initializing,
    /// Serving.
    Live,
    /// Stopping, or told to fail its health check.
    Draining,
}

impl ServerState {
    /// Envoy's name of the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
        }
    }
}

/// What the workers know of one upstream host, summed over them.
#[derive(Debug, Clone, Default)]
pub struct HostStats {
    /// The host, where it is found as the proxy runs (by DNS, by its connections'
    /// destination), with its place and priority.
    pub found: Option<Box<(Endpoint, Locality, u32)>>,
    /// Open connections.
    pub cx_active: u64,
    /// Connections that failed to open.
    pub cx_connect_fail: u64,
    /// Connections opened.
    pub cx_total: u64,
    /// Requests under way.
    pub rq_active: u64,
    /// Requests that ended in an error.
    pub rq_error: u64,
    /// Requests that ended well.
    pub rq_success: u64,
    /// Requests that ran out of time.
    pub rq_timeout: u64,
    /// Requests.
    pub rq_total: u64,
    /// What active and passive health checks say.
    pub flags: HealthFlags,
}

/// Which listeners a drain is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Only those of inbound traffic.
    pub inbound_only: bool,
    /// Keep serving and close gradually.
    pub graceful: bool,
    /// Do not end when the drain is over.
    pub skip_exit: bool,
}

/// What the pages show and do; the engine implements it.
pub trait State: Send + Sync + 'static {
    /// Whether a path, its query included, may be asked for.
    fn allows(&self, _path: &str) -> bool {
        true
    }
    /// The process's state.
    fn server_state(&self) -> ServerState;
    /// Why the configuration is not whole yet: clusters or listeners were not
    /// received, or no response with them was accepted as a whole.
    fn missing(&self) -> Option<String>;
    /// Time since the start.
    fn uptime(&self) -> Duration;
    /// Command-line options by their Envoy names.
    fn options(&self) -> Value;
    /// The node as the bootstrap gives it, as JSON.
    fn node(&self) -> Value;
    /// The configuration the workers serve with.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// What the workers know of the hosts of a cluster, by address.
    fn hosts(&self, cluster: &str) -> HashMap<String, HostStats>;
    /// Envoy's `configs` list, endpoints in it when asked for; keys are redacted.
    fn config_dump(&self, include_endpoints: bool) -> Value;
    /// All series that are counted as things happen.
    fn registry(&self) -> &Registry;
    /// All series as they are now, sorted by flat name.
    fn metrics(&self) -> Vec<Metric> {
        self.registry().collect()
    }
    /// The runtime's layers, in the shape of `/runtime`.
    fn runtime(&self) -> Value;
    /// Loggers with their levels, sorted.
    fn loggers(&self) -> Vec<(String, String)>;
    /// Sets the level of a logger, of all of them for `None`.
    ///
    /// # Errors
    /// When there is no such logger or level.
    fn set_level(&self, logger: Option<&str>, level: &str) -> Result<(), String>;
    /// Addresses that listeners are really bound to, by listener name.
    fn bound(&self) -> Vec<(String, String)>;
    /// Certificates in use, in the shape of `/certs`.
    fn certificates(&self) -> Value;
    /// Begins a drain.
    fn drain(&self, drain: Drain);
    /// Makes the health check fail (`true`) or pass again.
    fn fail_health_check(&self, fail: bool);
    /// Ends the process.
    fn quit(&self);
    /// Opens access logs anew.
    fn reopen_logs(&self);
}
