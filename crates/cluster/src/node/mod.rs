//! The node agent: virtual nodes whose pods are processes in namespaces of their own.
//!
//! [`start`] registers the nodes and follows the pods bound to them; each pod has a task
//! ([`pod`]) that owns its state. Decisions (what next, status, environment, root file system) are
//! pure modules beside it; [`process`] is the only part that touches namespaces.

pub mod agent;
pub mod cgroup;
pub mod env;
pub mod event;
pub mod files;
mod hook;
pub mod host;
pub mod identity;
pub mod image;
pub mod live;
pub mod log;
pub mod plan;
pub mod pod;
pub mod probe;
mod probe_grpc;
mod probe_tls;
pub mod process;
mod register;
pub mod rootfs;
pub mod runtime;
mod start;
pub mod status;
mod stream;
mod volume;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

pub use agent::{NodeOptions, NodeSpec};

use self::agent::Agent;
use self::pod::Notice;
use self::runtime::NodeRuntime;
use self::stream::Runtime;
use crate::api::resource::PODS;
use crate::api::{Api, ApiError, Selectors, WatchEvent, WatchKind};
use crate::network::dns::forward::Forwarder;
use crate::network::dns::server::{DnsServer, Resolver};
use crate::network::service::ServiceSync;

/// Wait before the API is watched again after a failure.
const RETRY: Duration = Duration::from_millis(300);
/// Port of the DNS server on the bridge.
const DNS_PORT: u16 = 53;

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// State folder or machine facts.
    #[error("node agent: {0}")]
    Io(#[from] std::io::Error),
    /// The DNS server's address is in use or not local.
    #[error("DNS cannot listen on {address}: {source}")]
    Dns {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The API refused.
    #[error("node agent: {0}")]
    Api(#[from] ApiError),
}

/// A running agent.
#[derive(Debug)]
pub struct NodeHandle {
    agent: Arc<Agent>,
    services: Arc<ServiceSync>,
    stop: oneshot::Sender<()>,
    manager: JoinHandle<()>,
    background: JoinSet<()>,
}

impl NodeHandle {
    /// What the streaming subresources talk to; stands for all nodes.
    pub fn runtime(&self) -> Arc<dyn NodeRuntime> {
        Arc::new(Runtime {
            agent: Arc::clone(&self.agent),
        })
    }

    /// The service rules' follower.
    pub fn services(&self) -> &Arc<ServiceSync> {
        &self.services
    }

    /// Ends all pods' processes and the agent. Objects in the API stay as they are; the network
    /// itself is removed by [`crate::network::host::clean_up`].
    pub async fn shutdown(mut self) {
        // The manager may have ended already; waiting for it is all that is left then.
        let _ = self.stop.send(());
        if let Err(error) = self.manager.await {
            tracing::warn!(%error, "the pod manager ended badly");
        }
        self.background.shutdown().await;
    }
}

/// Starts the agent: nodes, DNS, service rules, pods.
///
/// # Errors
/// When DNS cannot listen, the state folder cannot be made or the API refuses the nodes.
pub async fn start(api: Api, options: NodeOptions) -> Result<NodeHandle, NodeError> {
    let api = api.as_user(&format!(
        "system:node:{}",
        options
            .network
            .nodes
            .first()
            .map_or("agent", |n| n.name.as_str())
    ));
    let agent = Arc::new(Agent::new(api.clone(), options)?);
    let options = &agent.options;
    let services = Arc::new(ServiceSync::default());
    let mut background = JoinSet::new();
    let resolver = Resolver::new(
        services.view(),
        options.cluster_domain.clone(),
        options.network.ranges.pods,
        options.network.ranges.services,
        Forwarder::new(
            agent
                .resolvers
                .iter()
                .map(|ip| (*ip, DNS_PORT).into())
                .collect(),
        ),
    );
    let address = options.network.listen(DNS_PORT);
    let dns = DnsServer::bind(address, resolver).await;
    let dns = dns.map_err(|source| NodeError::Dns { address, source })?;
    background.spawn(dns.serve());
    background.spawn(Arc::clone(&services).run(api.clone(), options.network.layout.clone()));
    register::register(&agent).await?;
    register::announce_dns(&agent, DNS_PORT).await?;
    background.spawn(register::keep_alive(Arc::clone(&agent)));
    let (stop, stopped) = oneshot::channel();
    let manager = tokio::spawn(manage(Arc::clone(&agent), stopped));
    Ok(NodeHandle {
        agent,
        services,
        stop,
        manager,
        background,
    })
}

type Workers = HashMap<String, mpsc::UnboundedSender<Notice>>;

/// Follows the pods until told to stop; then ends them all.
async fn manage(agent: Arc<Agent>, mut stopped: oneshot::Receiver<()>) {
    let mut workers = Workers::new();
    let mut tasks = JoinSet::new();
    loop {
        let followed = tokio::select! {
            followed = follow(&agent, &mut workers, &mut tasks) => followed,
            _ = &mut stopped => break,
        };
        if let Err(error) = followed {
            tracing::warn!(%error, "watching pods failed; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = &mut stopped => break,
        }
    }
    for worker in workers.values() {
        // A worker that ended needs no notice.
        let _ = worker.send(Notice::Shutdown);
    }
    drop(workers);
    while tasks.join_next().await.is_some() {}
}

async fn follow(
    agent: &Arc<Agent>,
    workers: &mut Workers,
    tasks: &mut JoinSet<()>,
) -> Result<(), ApiError> {
    let mut pods = agent.api.watch(&PODS, None, &Selectors::all(), 0).await?;
    let initial = crate::network::service::take_initial(&mut pods).await?;
    let present: Vec<&str> = initial
        .iter()
        .filter_map(|event| uid(&event.object))
        .collect();
    for (known, worker) in workers.iter() {
        if !present.contains(&known.as_str()) {
            let _ = worker.send(Notice::Gone);
        }
    }
    if workers.is_empty() {
        agent.forget_all_but(&present);
    }
    for event in &initial {
        dispatch(agent, workers, tasks, event);
    }
    loop {
        tokio::select! {
            event = pods.next_event() => match event {
                Some(event) => dispatch(agent, workers, tasks, &event?),
                None => return Ok(()),
            },
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a pod's task ended badly");
                }
                workers.retain(|_, worker| !worker.is_closed());
            }
        }
    }
}

fn uid(object: &Value) -> Option<&str> {
    object["metadata"]["uid"].as_str()
}

fn dispatch(
    agent: &Arc<Agent>,
    workers: &mut Workers,
    tasks: &mut JoinSet<()>,
    event: &WatchEvent,
) {
    let Some(uid) = uid(&event.object).map(str::to_owned) else {
        return;
    };
    if event.kind == WatchKind::Deleted {
        if let Some(worker) = workers.remove(&uid) {
            let _ = worker.send(Notice::Gone);
        }
        return;
    }
    let node = event.object["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default();
    if agent.node(node).is_none() {
        return;
    }
    let pod = match Pod::deserialize(&*event.object) {
        Ok(pod) => Arc::new(pod),
        Err(error) => {
            tracing::error!(%error, %uid, "a pod could not be read");
            return;
        }
    };
    match workers.get(&uid) {
        Some(worker) => {
            let _ = worker.send(Notice::Updated(pod));
        }
        None => {
            if let Some(worker) = pod::spawn(agent, pod, tasks) {
                workers.insert(uid, worker);
            }
        }
    }
}
