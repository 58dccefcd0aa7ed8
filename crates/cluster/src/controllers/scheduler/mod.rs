//! The scheduler: binds pods that name no node to the one that `fit` chooses.

pub mod fit;
pub mod quantity;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use self::fit::{Unschedulable, World, choose};
use super::engine::{Change, Controller, Outcome};
use super::events::Recorder;
use super::object::{
    condition, deleting, format_time, list, name, namespace, pod_active, pod_ended, text,
};
use super::queue::Key;
use crate::api::resource::{NODES, PODS};
use crate::api::{Api, ApiError, Resource, Selectors};

/// The name in `spec.schedulerName` of the pods this scheduler places.
const SCHEDULER: &str = "default-scheduler";
/// How often a pod that fits nowhere is looked at without any change (normally a change of a node
/// or the end of a pod brings the next look).
const RETRY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Scheduler {
    api: Api,
    recorder: Recorder,
    /// One decision at a time: each must see the one before.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler over this API.
    pub fn new(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:kube-scheduler"),
            recorder: recorder.component(SCHEDULER, ""),
            turn: Mutex::new(()),
        }
    }

    async fn waiting(&self) -> Vec<Key> {
        match self
            .api
            .list(&PODS, None, &Selectors::field("spec.nodeName", ""))
            .await
        {
            Ok((pods, _)) => pods
                .iter()
                .filter(|pod| mine(pod))
                .map(|pod| Key::of(pod))
                .collect(),
            Err(error) => {
                tracing::warn!("listing pods without a node: {error}");
                Vec::new()
            }
        }
    }

    async fn place(&self, pod: &Value) -> Outcome {
        let _turn = self.turn.lock().await;
        let (nodes, _) = self.api.list(&NODES, None, &Selectors::all()).await?;
        let (pods, _) = self.api.list(&PODS, None, &Selectors::all()).await?;
        match choose(
            pod,
            World {
                nodes: &nodes,
                pods: &pods,
            },
        ) {
            Ok(node) => {
                let (ns, pod_name) = (namespace(pod), name(pod));
                match self.api.bind_pod(ns, pod_name, &node).await {
                    Ok(()) => {
                        let message = format!("Successfully assigned {ns}/{pod_name} to {node}");
                        self.recorder.normal(pod, "Scheduled", message);
                        Ok(None)
                    }
                    Err(error) if error.is_not_found() || error.is_conflict() => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Err(Unschedulable(why)) => {
                let news = refuse(&self.api, pod, "Unschedulable", &why).await?;
                if news {
                    self.recorder.warning(pod, "FailedScheduling", why);
                }
                Ok(Some(RETRY))
            }
        }
    }
}

/// Whether the pod waits for this scheduler.
fn mine(pod: &Value) -> bool {
    text(pod, "/spec/nodeName").is_empty()
        && matches!(text(pod, "/spec/schedulerName"), "" | SCHEDULER)
        && pod_active(pod)
}

/// Writes `PodScheduled: False`; false when it said so already.
async fn refuse(api: &Api, pod: &Value, reason: &str, why: &str) -> Result<bool, ApiError> {
    let had = condition(pod, "PodScheduled");
    if had.is_some_and(|c| text(c, "/reason") == reason && text(c, "/message") == why) {
        return Ok(false);
    }
    let mut conditions: Vec<Value> = list(pod, "/status/conditions").to_vec();
    conditions.retain(|c| text(c, "/type") != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": why,
        "lastProbeTime": null, "lastTransitionTime": format_time(Timestamp::now()),
    }));
    let patch = json!({
        "metadata": {"resourceVersion": text(pod, "/metadata/resourceVersion")},
        "status": {"conditions": conditions},
    });
    let ns = Some(namespace(pod));
    match api
        .merge_patch(&PODS, ns, name(pod), &patch, Some("status"))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&PODS, &NODES]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == PODS {
            let pod = &change.object;
            if !change.deleted && mine(pod) {
                return vec![change.key()];
            }
            // A placed pod that goes or ends makes room.
            let ended_now = pod_ended(pod) && change.old.as_deref().is_some_and(|p| !pod_ended(p));
            let placed = !text(pod, "/spec/nodeName").is_empty();
            return if placed && (change.deleted || ended_now) {
                self.waiting().await
            } else {
                Vec::new()
            };
        }
        let place = |node: &Value| {
            let ready = super::object::condition_true(node, "Ready");
            let labels = node.pointer("/metadata/labels").cloned();
            let room = node.pointer("/status/allocatable").cloned();
            (ready, labels, node["spec"].clone(), room)
        };
        let same = change
            .old
            .as_deref()
            .is_some_and(|old| place(old) == place(&change.object));
        if same {
            Vec::new()
        } else {
            self.waiting().await
        }
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let pod = match self.api.get(&PODS, Some(&key.namespace), &key.name).await {
            Ok(pod) => pod,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if !mine(&pod) || deleting(&pod) {
            return Ok(None);
        }
        if !list(&pod, "/spec/schedulingGates").is_empty() {
            let why = "Scheduling is blocked due to non-empty scheduling gates";
            refuse(&self.api, &pod, "SchedulingGated", why).await?;
            return Ok(None);
        }
        self.place(&pod).await
    }
}
