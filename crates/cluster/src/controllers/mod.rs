//! The controllers of the cluster: each watches objects and makes others follow.
//!
//! `engine` is the loop they share; a controller is a file (or folder) that says what it watches
//! and what one reconcile does, with its decisions in pure functions.

pub mod collector;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod endpoints;
pub mod engine;
pub mod events;
pub mod job;
pub mod namespace;
pub mod object;
pub mod pods;
pub mod queue;
pub mod replicaset;
pub mod revisions;
pub mod scheduler;
pub mod serviceaccount;
pub mod statefulset;
pub mod sweep;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::engine::Controller;
use self::events::Recorder;
use crate::api::Api;

/// What the controllers need beside the API.
#[derive(Debug, Clone)]
pub struct Options {
    /// PEM of the authority that signs the API server's certificate: `ca.crt` of every
    /// namespace's ConfigMap `kube-root-ca.crt`.
    pub ca_pem: String,
}

/// Runs all controllers until `shutdown` is cancelled.
pub async fn run(api: Api, options: Options, shutdown: CancellationToken) {
    let recorder = Recorder::start(api.clone(), "controller-manager");
    let controllers: Vec<Arc<dyn Controller>> = vec![
        Arc::new(serviceaccount::NamespaceDefaults::new(&api, options.ca_pem)),
        Arc::new(scheduler::Scheduler::new(&api, &recorder)),
        Arc::new(replicaset::ReplicaSets::new(&api, &recorder)),
        Arc::new(replicaset::ReplicaSets::older(&api, &recorder)),
        Arc::new(statefulset::StatefulSets::new(&api, &recorder)),
        Arc::new(daemonset::DaemonSets::new(&api, &recorder)),
        Arc::new(job::Jobs::new(&api, &recorder)),
        Arc::new(cronjob::CronJobs::new(&api, &recorder)),
        Arc::new(deployment::Deployments::new(&api, &recorder)),
        Arc::new(endpoints::Endpoints::new(&api)),
        Arc::new(namespace::Namespaces::new(&api)),
    ];
    let mut tasks = JoinSet::new();
    for controller in controllers {
        tasks.spawn(engine::run(controller, api.clone(), shutdown.clone()));
    }
    tasks.spawn(collector::run(api.clone(), shutdown.clone()));
    tasks.spawn(sweep::run(api, shutdown));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!("a controller failed: {error}");
        }
    }
}
