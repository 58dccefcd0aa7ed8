//! The stateful set controller: pods with a number and a name that stay, made and renewed in
//! order.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::{Change, Controller, Outcome};
use super::events::Recorder;
use super::object::{
    self, deleting, int, list, name, namespace, pod_available_in, pod_ended, pod_ready_since,
    pruned, set_label, text, uid,
};
use super::pods;
use super::queue::Key;
use super::replicaset::owners_of_pod;
use super::revisions::{self, HASH_LABEL};
use crate::api::resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use crate::api::{Api, ApiError, DeleteOptions, Resource};

/// See the module.
pub struct StatefulSets {
    api: Api,
    recorder: Recorder,
}

impl std::fmt::Debug for StatefulSets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatefulSets").finish_non_exhaustive()
    }
}

/// One thing to do now; the next look follows its effect. Pure decision of [`plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Make the pod of this number, from today's template or the one before.
    Create { ordinal: i64, updated: bool },
    /// Delete the pod of this number.
    Delete(i64),
}

/// Which pods should be there, and how they may change.
#[derive(Debug, Clone, Copy)]
struct Shape {
    start: i64,
    replicas: i64,
    /// Numbers from here on follow today's template.
    partition: i64,
    parallel: bool,
    rolling: bool,
}

impl Shape {
    fn of(set: &Value) -> Self {
        Self {
            start: int(set, "/spec/ordinals/start").unwrap_or(0),
            replicas: int(set, "/spec/replicas").unwrap_or(1).max(0),
            partition: int(set, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0),
            parallel: text(set, "/spec/podManagementPolicy") == "Parallel",
            rolling: text(set, "/spec/updateStrategy/type") != "OnDelete",
        }
    }

    fn ordinals(self) -> std::ops::Range<i64> {
        self.start..self.start + self.replicas
    }
}

/// The number at the end of a pod's name, if it is a pod of this set.
fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    let number = name(pod).strip_prefix(name(set))?.strip_prefix('-')?;
    number.parse().ok().filter(|n: &i64| *n >= 0)
}

fn settled(pod: &Value) -> bool {
    pod_ready_since(pod).is_some() && !deleting(pod)
}

/// The next steps: several at once only with the Parallel policy.
fn plan(shape: Shape, pods: &BTreeMap<i64, Arc<Value>>, today: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for ordinal in shape.ordinals() {
        let step = match pods.get(&ordinal) {
            None => {
                let updated = !shape.rolling || ordinal - shape.start >= shape.partition;
                Some(Step::Create { ordinal, updated })
            }
            Some(pod) if pod_ended(pod) && !deleting(pod) => Some(Step::Delete(ordinal)),
            Some(pod) if !shape.parallel && !settled(pod) => return steps,
            Some(_) => None,
        };
        if let Some(step) = step {
            steps.push(step);
            if !shape.parallel {
                return steps;
            }
        }
    }
    for (&ordinal, pod) in pods.iter().rev() {
        if shape.ordinals().contains(&ordinal) {
            continue;
        }
        if !deleting(pod) {
            steps.push(Step::Delete(ordinal));
        }
        if !shape.parallel {
            return steps;
        }
    }
    if steps.is_empty() && shape.rolling {
        steps.extend(renew(shape, pods, today));
    }
    steps
}

/// Renews the highest outdated pod, when all above it are ready.
fn renew(shape: Shape, pods: &BTreeMap<i64, Arc<Value>>, today: &str) -> Option<Step> {
    for ordinal in shape.ordinals().rev() {
        if ordinal - shape.start < shape.partition {
            return None;
        }
        let pod = pods.get(&ordinal)?;
        if revisions::pod_hash(pod) != today {
            return (!deleting(pod)).then_some(Step::Delete(ordinal));
        }
        if !settled(pod) {
            return None;
        }
    }
    None
}

/// The pod of a number, from a template.
fn pod_for(set: &Value, template: &Value, ordinal: i64, hash: &str) -> Value {
    let mut pod = pods::from_template(template, set, "apps/v1", "StatefulSet");
    let pod_name = format!("{}-{ordinal}", name(set));
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.shift_remove("generateName");
    }
    pod["metadata"]["name"] = json!(pod_name);
    set_label(&mut pod, HASH_LABEL, hash);
    set_label(&mut pod, "statefulset.kubernetes.io/pod-name", &pod_name);
    set_label(
        &mut pod,
        "apps.kubernetes.io/pod-index",
        &ordinal.to_string(),
    );
    let spec = &mut pod["spec"];
    spec["hostname"] = json!(pod_name);
    spec["subdomain"] = set["spec"]["serviceName"].clone();
    let claims = list(set, "/spec/volumeClaimTemplates");
    let mut volumes: Vec<Value> = list(spec, "/volumes")
        .iter()
        .filter(|volume| {
            claims
                .iter()
                .all(|claim| name(claim) != text(volume, "/name"))
        })
        .cloned()
        .collect();
    volumes.extend(claims.iter().map(|claim| {
        json!({"name": name(claim),
            "persistentVolumeClaim": {"claimName": format!("{}-{pod_name}", name(claim))}})
    }));
    if !volumes.is_empty() {
        spec["volumes"] = json!(volumes);
    }
    pod
}

/// The claims of a pod of the set.
fn claims_for(set: &Value, ordinal: i64) -> Vec<Value> {
    let claim = |template: &Value| {
        let mut claim = template.clone();
        claim["apiVersion"] = json!("v1");
        claim["kind"] = json!("PersistentVolumeClaim");
        claim["metadata"]["name"] = json!(format!("{}-{}-{ordinal}", name(template), name(set)));
        claim["metadata"]["namespace"] = json!(namespace(set));
        for (key, value) in object::map(set, "/spec/selector/matchLabels")
            .into_iter()
            .flatten()
        {
            set_label(&mut claim, key, value.as_str().unwrap_or(""));
        }
        claim
    };
    list(set, "/spec/volumeClaimTemplates")
        .iter()
        .map(claim)
        .collect()
}

impl StatefulSets {
    /// A controller over this API.
    pub fn new(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:statefulset-controller"),
            recorder: recorder.component("statefulset-controller", ""),
        }
    }

    async fn pods(&self, set: &Value) -> Result<BTreeMap<i64, Arc<Value>>, ApiError> {
        let owned = pods::claim(&self.api, &PODS, set, "apps/v1", "StatefulSet").await?;
        Ok(owned
            .into_iter()
            .filter_map(|pod| Some((ordinal(set, &pod)?, pod)))
            .collect())
    }

    async fn sync(&self, set: &Value) -> Result<Option<Duration>, ApiError> {
        let revisions = revisions::sync(&self.api, set, "apps/v1", "StatefulSet").await?;
        let Some(today) = revisions.last() else {
            return Ok(None);
        };
        let current =
            revisions::by_name(&revisions, text(set, "/status/currentRevision")).unwrap_or(today);
        let pods = self.pods(set).await?;
        for step in plan(Shape::of(set), &pods, revisions::hash(today)) {
            match step {
                Step::Create { ordinal, updated } => {
                    self.create(set, if updated { today } else { current }, ordinal)
                        .await?;
                }
                Step::Delete(ordinal) => {
                    if let Some(pod) = pods.get(&ordinal) {
                        self.delete(set, pod).await?;
                    }
                }
            }
        }
        let pods = self.pods(set).await?;
        let (status, again) = status(set, &pods, today, current, Timestamp::now());
        if pruned(&set["status"]) != pruned(&status) {
            let patch = json!({"status": status});
            let ns = Some(namespace(set));
            self.api
                .merge_patch(&STATEFUL_SETS, ns, name(set), &patch, Some("status"))
                .await?;
        }
        let mut used: HashSet<&str> = pods.values().map(|pod| revisions::pod_hash(pod)).collect();
        used.insert(name(current));
        revisions::prune(&self.api, set, &revisions, &used).await?;
        Ok(again)
    }

    async fn create(&self, set: &Value, revision: &Value, ordinal: i64) -> Result<(), ApiError> {
        let ns = Some(namespace(set));
        for claim in claims_for(set, ordinal) {
            match self.api.create(&PERSISTENT_VOLUME_CLAIMS, ns, claim).await {
                Err(error) if !error.is_already_exists() => return Err(error),
                _ => {}
            }
        }
        let hash = revisions::hash(revision);
        let pod = pod_for(set, &revisions::template(revision), ordinal, hash);
        let pod_name = name(&pod).to_owned();
        let told = |verb: &str, result: &str| {
            format!(
                "{verb} Pod {pod_name} in StatefulSet {} {result}",
                name(set)
            )
        };
        match self.api.create(&PODS, ns, pod).await {
            Ok(_) => {
                self.recorder
                    .normal(set, "SuccessfulCreate", told("create", "successful"));
                Ok(())
            }
            // The pod of the same name is still leaving: its end brings the next look.
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let message = told("create", &format!("failed error: {error}"));
                self.recorder.warning(set, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &Value, pod: &Value) -> Result<(), ApiError> {
        let options = DeleteOptions::default().with_uid(uid(pod));
        match self
            .api
            .delete(&PODS, Some(namespace(pod)), name(pod), options)
            .await
        {
            Ok(_) => {
                let message = format!(
                    "delete Pod {} in StatefulSet {} successful",
                    name(pod),
                    name(set)
                );
                self.recorder.normal(set, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn status(
    set: &Value,
    pods: &BTreeMap<i64, Arc<Value>>,
    today: &Value,
    current: &Value,
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let shape = Shape::of(set);
    let min_ready = int(set, "/spec/minReadySeconds").unwrap_or(0);
    let (mut replicas, mut ready, mut available, mut on_today, mut on_current) = (0, 0, 0, 0, 0);
    let mut again = None;
    for pod in pods.values().filter(|pod| !pod_ended(pod)) {
        replicas += 1;
        if !deleting(pod) {
            on_today += i64::from(revisions::pod_hash(pod) == revisions::hash(today));
            on_current += i64::from(revisions::pod_hash(pod) == revisions::hash(current));
        }
        if let Some(wait) = pod_available_in(pod, min_ready, now) {
            ready += 1;
            available += i64::from(wait == 0);
            if wait > 0 {
                again = Some(Duration::from_secs(wait.unsigned_abs()));
            }
        }
    }
    // The rollout is over when all pods are of today's revision and ready.
    let over = on_today == shape.replicas && ready == shape.replicas && replicas == shape.replicas;
    let (shown, on_current) = if over {
        (today, on_today)
    } else {
        (current, on_current)
    };
    let status = json!({
        "observedGeneration": int(set, "/metadata/generation").unwrap_or(0),
        "replicas": replicas, "readyReplicas": ready, "availableReplicas": available,
        "currentReplicas": on_current, "updatedReplicas": on_today,
        "currentRevision": name(shown), "updateRevision": name(today), "collisionCount": 0,
    });
    (status, again)
}

#[async_trait]
impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&STATEFUL_SETS, &PODS, &CONTROLLER_REVISIONS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == STATEFUL_SETS {
            return vec![change.key()];
        }
        owners_of_pod(&self.api, change, &STATEFUL_SETS, "StatefulSet").await
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        match self
            .api
            .get(&STATEFUL_SETS, Some(&key.namespace), &key.name)
            .await
        {
            Ok(set) if deleting(&set) => Ok(None),
            Ok(set) => self.sync(&set).await,
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(hash: &str, ready: bool) -> Arc<Value> {
        Arc::new(
            json!({"metadata": {"labels": {HASH_LABEL: hash}}, "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}),
        )
    }

    fn shape(replicas: i64) -> Shape {
        Shape {
            start: 0,
            replicas,
            partition: 0,
            parallel: false,
            rolling: true,
        }
    }

    fn pods(list: &[(i64, &str, bool)]) -> BTreeMap<i64, Arc<Value>> {
        list.iter()
            .map(|(n, hash, ready)| (*n, pod(hash, *ready)))
            .collect()
    }

    #[test]
    fn pods_come_in_order_and_go_in_reverse() {
        let create = |ordinal| {
            vec![Step::Create {
                ordinal,
                updated: true,
            }]
        };
        assert_eq!(plan(shape(2), &pods(&[]), "h"), create(0));
        assert_eq!(plan(shape(2), &pods(&[(0, "h", false)]), "h"), []);
        assert_eq!(plan(shape(2), &pods(&[(0, "h", true)]), "h"), create(1));
        let three = pods(&[(0, "h", true), (1, "h", true), (2, "h", true)]);
        assert_eq!(plan(shape(1), &three, "h"), [Step::Delete(2)]);
        let parallel = Shape {
            parallel: true,
            ..shape(2)
        };
        assert_eq!(plan(parallel, &pods(&[]), "h").len(), 2);
        assert_eq!(
            plan(
                Shape {
                    start: 5,
                    ..shape(1)
                },
                &pods(&[]),
                "h"
            ),
            create(5)
        );
    }

    #[test]
    fn renewal_goes_from_the_highest_down_to_the_partition() {
        let old = pods(&[(0, "old", true), (1, "old", true)]);
        assert_eq!(plan(shape(2), &old, "new"), [Step::Delete(1)]);
        let half = pods(&[(0, "old", true), (1, "new", false)]);
        assert_eq!(plan(shape(2), &half, "new"), []);
        let done = pods(&[(0, "old", true), (1, "new", true)]);
        assert_eq!(plan(shape(2), &done, "new"), [Step::Delete(0)]);
        assert_eq!(
            plan(
                Shape {
                    partition: 1,
                    ..shape(2)
                },
                &done,
                "new"
            ),
            []
        );
        assert_eq!(
            plan(
                Shape {
                    rolling: false,
                    ..shape(2)
                },
                &old,
                "new"
            ),
            []
        );
    }

    #[test]
    fn pods_have_their_names_and_claims() {
        let set = json!({"metadata": {"name": "db", "namespace": "n"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}});
        let pod = pod_for(&set, &json!({"spec": {}}), 3, "h");
        assert_eq!((name(&pod), text(&pod, "/spec/hostname")), ("db-3", "db-3"));
        assert_eq!(text(&pod, "/spec/subdomain"), "db");
        let claim = text(&pod, "/spec/volumes/0/persistentVolumeClaim/claimName");
        assert_eq!(claim, name(&claims_for(&set, 3)[0]));
        assert_eq!(ordinal(&set, &pod), Some(3));
        assert_eq!(ordinal(&set, &json!({"metadata": {"name": "db-x"}})), None);
    }
}
