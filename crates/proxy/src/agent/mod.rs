//! The sidecar's own ports beside the proxy: health (15021), agent (15020) and
//! metrics (15090). They answer kubelet and scrapers, not the mesh's traffic,
//! and run on the main thread.

mod dial;
mod probe;
mod scrape;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

pub use probe::{AppProbe, BadProbe, parse_probers};
pub use server::{bind, serve};

use crate::admin::State;

/// What the agent's ports serve.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// `/healthz/ready`, `/stats/prometheus`, `/app-health/...`, `/quitquitquit`,
    /// `/drain`.
    pub status: Option<SocketAddr>,
    /// `/healthz/ready` only.
    pub health: Option<SocketAddr>,
    /// `/stats/prometheus` only.
    pub metrics: Option<SocketAddr>,
    /// The application's probes as injection wrote them (JSON object by path);
    /// null = none.
    pub app_probers: Value,
    /// Where the application's own metrics are:
    /// `{"scrape": "true", "path": ..., "port": ...}`; null = none.
    pub app_metrics: Value,
    /// The pod's own address, where probes are sent.
    pub pod_ip: String,
}

/// What one of the ports is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Status,
    /// Readiness.
    Health,
    /// Metrics.
    Metrics,
}

/// The agent at work.
pub struct Agent {
    options: AgentOptions,
    probes: Vec<(String, AppProbe)>,
    state: Arc<dyn State>,
}

impl Agent {
    /// An agent over the process's state.
    ///
    /// # Errors
    /// When a probe of the application cannot be understood.
    pub fn new(options: AgentOptions, state: Arc<dyn State>) -> Result<Self, BadProbe> {
        Ok(Self {
            probes: parse_probers(&options.app_probers)?,
            options,
            state,
        })
    }

    /// The addresses to listen on, with what they serve.
    pub fn ports(&self) -> impl Iterator<Item = (SocketAddr, Role)> {
        let all = [
            (self.options.status, Role::Status),
            (self.options.health, Role::Health),
            (self.options.metrics, Role::Metrics),
        ];
        all.into_iter()
            .filter_map(|(address, role)| Some((address?, role)))
    }
}
