//! The replica set controller: as many active pods as `spec.replicas` says. Replication
//! controllers, the older kind, are kept by the same code.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::{Change, Controller, Outcome};
use super::events::Recorder;
use super::object::{
    controller_of, deleting, format_time, int, list, map, namespace, pod_available_in, pruned, text,
};
use super::pods;
use super::queue::Key;
use crate::api::resource::{PODS, REPLICA_SETS, REPLICATION_CONTROLLERS};
use crate::api::{Api, ApiError, Resource, Selectors};

/// Pods made in one reconcile; the rest follows in the next.
const BURST: usize = 500;

/// See the module.
pub struct ReplicaSets {
    api: Api,
    recorder: Recorder,
    resource: &'static Resource,
    api_version: &'static str,
    kind: &'static str,
}

impl ReplicaSets {
    /// The controller of replica sets over this API.
    pub fn new(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:replicaset-controller"),
            recorder: recorder.component("replicaset-controller", ""),
            resource: &REPLICA_SETS,
            api_version: "apps/v1",
            kind: "ReplicaSet",
        }
    }

    /// The controller of replication controllers over this API.
    pub fn older(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:replication-controller"),
            recorder: recorder.component("replication-controller", ""),
            resource: &REPLICATION_CONTROLLERS,
            api_version: "v1",
            kind: "ReplicationController",
        }
    }

    async fn owned(&self, set: &Value) -> Result<Vec<Arc<Value>>, ApiError> {
        pods::claim(&self.api, &PODS, set, self.api_version, self.kind).await
    }

    async fn scale(&self, set: &Value, owned: &[Arc<Value>]) -> Result<(), ApiError> {
        let wanted = int(set, "/spec/replicas").unwrap_or(1).max(0) as usize;
        let mut active = pods::active(owned);
        if active.len() < wanted {
            let template = &set["spec"]["template"];
            let missing = (wanted - active.len()).min(BURST);
            let pod = pods::from_template(template, set, self.api_version, self.kind);
            pods::create(&self.api, &self.recorder, set, vec![pod; missing]).await
        } else {
            pods::sort_for_deletion(&mut active);
            let surplus = &active[..active.len() - wanted];
            pods::delete(&self.api, &self.recorder, set, surplus).await
        }
    }
}

#[async_trait]
impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        self.kind
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![self.resource, &PODS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == *self.resource {
            return vec![change.key()];
        }
        owners_of_pod(&self.api, change, self.resource, self.kind).await
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let set = match self
            .api
            .get(self.resource, Some(&key.namespace), &key.name)
            .await
        {
            Ok(set) => set,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let owned = self.owned(&set).await?;
        let scaled = if deleting(&set) {
            Ok(())
        } else {
            self.scale(&set, &owned).await
        };
        let owned = self.owned(&set).await?;
        let (status, again) = status(&set, &owned, scaled.as_ref().err(), Timestamp::now());
        if pruned(&set["status"]) != pruned(&status) {
            let patch = json!({"status": status});
            let ns = Some(key.namespace.as_str());
            match self
                .api
                .merge_patch(self.resource, ns, &key.name, &patch, Some("status"))
                .await
            {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        scaled?;
        Ok(again)
    }
}

/// The keys of the controllers of a kind that a pod change concerns: its owner now and before;
/// for a pod without a controller, all owners that would select it.
pub async fn owners_of_pod(api: &Api, change: &Change, owners: &Resource, kind: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    for pod in change.states() {
        match controller_of(pod) {
            Some(owner) if text(owner, "/kind") == kind => {
                keys.push(Key::new(namespace(pod), text(owner, "/name")));
            }
            Some(_) => {}
            None if change.deleted => {}
            None => {
                let ns = Some(namespace(pod));
                let Ok((all, _)) = api.list(owners, ns, &Selectors::all()).await else {
                    continue;
                };
                keys.extend(
                    all.iter()
                        .filter(|owner| super::object::owner_selects(owner, pod))
                        .map(|o| Key::of(o)),
                );
            }
        }
    }
    keys.dedup();
    keys
}

/// The status of a replica set with these pods, and when to look again for `minReadySeconds`.
fn status(
    set: &Value,
    owned: &[Arc<Value>],
    failure: Option<&ApiError>,
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let min_ready = int(set, "/spec/minReadySeconds").unwrap_or(0);
    let template_labels = map(set, "/spec/template/metadata/labels");
    let active = pods::active(owned);
    let (mut labelled, mut ready, mut available) = (0, 0, 0);
    let mut again: Option<i64> = None;
    for pod in &active {
        if super::object::plain_selector_matches(template_labels, pod) {
            labelled += 1;
        }
        match pod_available_in(pod, min_ready, now) {
            None => {}
            Some(0) => {
                ready += 1;
                available += 1;
            }
            Some(seconds) => {
                ready += 1;
                again = Some(again.map_or(seconds, |least| least.min(seconds)));
            }
        }
    }
    let mut status = json!({
        "replicas": active.len(),
        "observedGeneration": int(set, "/metadata/generation").unwrap_or(0),
    });
    for (field, count) in [
        ("fullyLabeledReplicas", labelled),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ] {
        status[field] = json!(count);
    }
    status["conditions"] = conditions(set, failure, now);
    (
        status,
        again.map(|seconds| Duration::from_secs(seconds.max(1).unsigned_abs())),
    )
}

fn conditions(set: &Value, failure: Option<&ApiError>, now: Timestamp) -> Value {
    let mut conditions: Vec<Value> = list(set, "/status/conditions")
        .iter()
        .filter(|c| text(c, "/type") != "ReplicaFailure" || failure.is_some())
        .cloned()
        .collect();
    if let Some(error) = failure
        && super::object::condition(set, "ReplicaFailure")
            .is_none_or(|c| text(c, "/message") != error.message)
    {
        conditions.retain(|c| text(c, "/type") != "ReplicaFailure");
        conditions.push(json!({
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": error.message, "lastTransitionTime": format_time(now),
        }));
    }
    if conditions.is_empty() {
        Value::Null
    } else {
        json!(conditions)
    }
}

impl std::fmt::Debug for ReplicaSets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaSets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready_since: Option<&str>) -> Arc<Value> {
        let conditions = ready_since.map_or(
            json!([]),
            |at| json!([{"type": "Ready", "status": "True", "lastTransitionTime": at}]),
        );
        Arc::new(json!({"metadata": {"name": "p", "labels": {"a": "b"}},
            "status": {"phase": "Running", "conditions": conditions}}))
    }

    #[test]
    fn status_counts_ready_and_available_and_plans_the_next_look() {
        let set = json!({"metadata": {"name": "rs", "generation": 3}, "spec": {
            "minReadySeconds": 10, "template": {"metadata": {"labels": {"a": "b"}}}}});
        let now = "2026-01-01T00:00:30Z".parse().expect("a time");
        let pods = [
            pod(Some("2026-01-01T00:00:00Z")),
            pod(Some("2026-01-01T00:00:26Z")),
            pod(None),
        ];
        let (status, again) = status(&set, &pods, None, now);
        assert_eq!(again, Some(Duration::from_secs(6)));
        assert_eq!(status["replicas"], 3);
        assert_eq!(status["readyReplicas"], 2);
        assert_eq!(status["availableReplicas"], 1);
        assert_eq!(status["fullyLabeledReplicas"], 3);
        assert_eq!(status["observedGeneration"], 3);
    }

    #[test]
    fn a_failure_is_a_condition_until_it_passes() {
        let now: Timestamp = "2026-01-01T00:00:30Z".parse().expect("a time");
        let error = ApiError::bad_request("no");
        let set = json!({"metadata": {}, "status": {}});
        let failed = conditions(&set, Some(&error), now);
        assert_eq!(text(&failed[0], "/reason"), "FailedCreate");
        let set = json!({"status": {"conditions": failed}});
        assert_eq!(conditions(&set, None, now), Value::Null);
        assert_eq!(
            conditions(&set, Some(&error), Timestamp::UNIX_EPOCH),
            set["status"]["conditions"]
        );
    }
}
