//! The daemon set controller: one pod on every node that the template may go to.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::deployment::resolve;
use super::engine::{Change, Controller, Outcome};
use super::events::Recorder;
use super::object::{
    deleting, int, list, name, namespace, pod_active, pod_available_in, pod_ended, pod_ready_since,
    pruned, set_label, text,
};
use super::pods;
use super::queue::Key;
use super::replicaset::owners_of_pod;
use super::revisions::{self, HASH_LABEL};
use super::scheduler::fit;
use crate::api::resource::{CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS};
use crate::api::{Api, ApiError, Resource, Selectors};

/// Taints that pods of daemon sets tolerate, with their effects.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// See the module.
pub struct DaemonSets {
    api: Api,
    recorder: Recorder,
}

impl std::fmt::Debug for DaemonSets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonSets").finish_non_exhaustive()
    }
}

/// What to do with the pods of a daemon set. Pure.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Nodes that lack a pod.
    create: Vec<String>,
    /// Pods that are on the wrong node, ended, doubled or outdated.
    delete: Vec<Arc<Value>>,
}

/// The pod of the set's template for a node.
fn pod_for(set: &Value, node: &str, hash: &str) -> Value {
    let mut pod = pods::from_template(&set["spec"]["template"], set, "apps/v1", "DaemonSet");
    set_label(&mut pod, HASH_LABEL, hash);
    let spec = &mut pod["spec"];
    let pin = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    if !spec["affinity"].is_object() {
        spec["affinity"] = json!({});
    }
    // The pin replaces the template's own requirement, which the node is known to meet.
    let preferred =
        spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"].clone();
    spec["affinity"]["nodeAffinity"] =
        json!({required: {"nodeSelectorTerms": [{"matchFields": pin}]}});
    if preferred.is_array() {
        spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
            preferred;
    }
    let mut tolerations = list(spec, "/tolerations").to_vec();
    tolerations.extend(
        TOLERATED.map(|(key, effect)| json!({"key": key, "operator": "Exists", "effect": effect})),
    );
    spec["tolerations"] = json!(tolerations);
    pod
}

/// Whether the set wants a pod on the node.
fn wants(set: &Value, node: &Value) -> bool {
    let pod = pod_for(set, name(node), "");
    let mut unpinned = json!({"spec": set["spec"]["template"]["spec"]});
    unpinned["spec"]["tolerations"] = pod["spec"]["tolerations"].clone();
    fit::admits(&unpinned, node)
}

/// The node a pod is on, or is pinned to.
fn node_of(pod: &Value) -> &str {
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                 /nodeSelectorTerms/0/matchFields/0/values/0";
    match text(pod, "/spec/nodeName") {
        "" => text(pod, terms),
        node => node,
    }
}

fn plan(set: &Value, nodes: &[Arc<Value>], owned: &[Arc<Value>], hash: &str) -> Plan {
    let mut plan = Plan::default();
    let wanted: Vec<&str> = nodes
        .iter()
        .filter(|n| wants(set, n))
        .map(|n| name(n))
        .collect();
    let mut by_node: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
    for pod in owned {
        by_node.entry(node_of(pod)).or_default().push(pod);
    }
    for (node, pods) in &mut by_node {
        // The oldest pod stays where several are; ended ones are replaced.
        pods.sort_by_cached_key(|pod| {
            (
                !pod_active(pod),
                text(pod, "/metadata/creationTimestamp").to_owned(),
            )
        });
        let keep =
            usize::from(wanted.contains(node) && pods.first().is_some_and(|p| pod_active(p)));
        let surplus = pods.iter().skip(keep).filter(|pod| !deleting(pod));
        plan.delete.extend(surplus.map(|pod| Arc::clone(pod)));
    }
    for node in &wanted {
        // A pod that is still leaving holds its place.
        let taken = by_node
            .get(node)
            .is_some_and(|pods| pods.iter().any(|p| !pod_ended(p)));
        if !taken {
            plan.create.push((*node).to_owned());
        }
    }
    if text(set, "/spec/updateStrategy/type") != "OnDelete" {
        update(set, wanted.len(), owned, hash, &mut plan);
    }
    plan
}

/// Adds outdated pods to the deletes, within `maxUnavailable`: unavailable ones first.
fn update(set: &Value, wanted: usize, owned: &[Arc<Value>], hash: &str, plan: &mut Plan) {
    let limit = set.pointer("/spec/updateStrategy/rollingUpdate/maxUnavailable");
    let limit = limit
        .map_or(1, |limit| resolve(Some(limit), wanted as i64, true))
        .max(1) as usize;
    let ready = |pod: &Arc<Value>| pod_ready_since(pod).is_some() && pod_active(pod);
    let available = owned.iter().filter(|pod| ready(pod)).count();
    let mut room = limit.saturating_sub(wanted.saturating_sub(available));
    for pod in owned.iter().filter(|pod| pod_active(pod)) {
        if revisions::pod_hash(pod) == hash || plan.delete.contains(pod) {
            continue;
        }
        if !ready(pod) {
            plan.delete.push(Arc::clone(pod));
        } else if room > 0 {
            room -= 1;
            plan.delete.push(Arc::clone(pod));
        }
    }
}

fn status(
    set: &Value,
    nodes: &[Arc<Value>],
    owned: &[Arc<Value>],
    hash: &str,
    now: Timestamp,
) -> (Value, Option<Duration>) {
    let min_ready = int(set, "/spec/minReadySeconds").unwrap_or(0);
    let (mut desired, mut current, mut misplaced, mut ready) = (0, 0, 0, 0);
    let (mut available, mut updated) = (0, 0);
    let mut again = None;
    for node in nodes {
        let here = owned
            .iter()
            .find(|pod| node_of(pod) == name(node) && pod_active(pod));
        if !wants(set, node) {
            misplaced += usize::from(here.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = here else { continue };
        current += 1;
        updated += usize::from(revisions::pod_hash(pod) == hash);
        if let Some(wait) = pod_available_in(pod, min_ready, now) {
            ready += 1;
            available += usize::from(wait == 0);
            if wait > 0 {
                again = Some(Duration::from_secs(wait.unsigned_abs()));
            }
        }
    }
    let status = json!({
        "desiredNumberScheduled": desired, "currentNumberScheduled": current,
        "numberMisscheduled": misplaced, "numberReady": ready,
        "updatedNumberScheduled": updated, "numberAvailable": available,
        "numberUnavailable": desired - available,
        "observedGeneration": int(set, "/metadata/generation").unwrap_or(0),
    });
    (status, again)
}

impl DaemonSets {
    /// A controller over this API.
    pub fn new(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:daemon-set-controller"),
            recorder: recorder.component("daemonset-controller", ""),
        }
    }

    async fn sync(&self, set: &Value) -> Result<Option<Duration>, ApiError> {
        let revisions = revisions::sync(&self.api, set, "apps/v1", "DaemonSet").await?;
        let hash = revisions
            .last()
            .map_or("", |last| revisions::hash(last))
            .to_owned();
        let (nodes, _) = self.api.list(&NODES, None, &Selectors::all()).await?;
        let owned = pods::claim(&self.api, &PODS, set, "apps/v1", "DaemonSet").await?;
        let plan = plan(set, &nodes, &owned, &hash);
        pods::delete(&self.api, &self.recorder, set, &plan.delete).await?;
        let new = plan
            .create
            .iter()
            .map(|node| pod_for(set, node, &hash))
            .collect();
        pods::create(&self.api, &self.recorder, set, new).await?;
        let owned = pods::claim(&self.api, &PODS, set, "apps/v1", "DaemonSet").await?;
        let used: HashSet<&str> = owned.iter().map(|pod| revisions::pod_hash(pod)).collect();
        revisions::prune(&self.api, set, &revisions, &used).await?;
        let (status, again) = status(set, &nodes, &owned, &hash, Timestamp::now());
        if pruned(&set["status"]) != pruned(&status) {
            let patch = json!({"status": status});
            let ns = Some(namespace(set));
            self.api
                .merge_patch(&DAEMON_SETS, ns, name(set), &patch, Some("status"))
                .await?;
        }
        Ok(again)
    }
}

#[async_trait]
impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&DAEMON_SETS, &PODS, &NODES, &CONTROLLER_REVISIONS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == DAEMON_SETS {
            return vec![change.key()];
        }
        if change.resource == NODES {
            let place = |node: &Value| (node["metadata"]["labels"].clone(), node["spec"].clone());
            let old = change.old.as_deref();
            if !change.deleted && old.is_some_and(|old| place(old) == place(&change.object)) {
                return Vec::new();
            }
            let all = self.api.list(&DAEMON_SETS, None, &Selectors::all()).await;
            return all.map_or_else(
                |_| Vec::new(),
                |(sets, _)| sets.iter().map(|s| Key::of(s)).collect(),
            );
        }
        owners_of_pod(&self.api, change, &DAEMON_SETS, "DaemonSet").await
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        match self
            .api
            .get(&DAEMON_SETS, Some(&key.namespace), &key.name)
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

    fn node(name: &str) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": name, "labels": {"disk": name}}}))
    }

    fn set(selector: Value) -> Value {
        json!({"metadata": {"name": "ds", "namespace": "n"}, "spec": {
            "template": {"metadata": {}, "spec": {"nodeSelector": selector}}}})
    }

    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Value> {
        Arc::new(
            json!({"metadata": {"name": name, "labels": {HASH_LABEL: hash}},
            "spec": {"nodeName": node}, "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }}]}}),
        )
    }

    #[test]
    fn every_admitting_node_gets_one_pod() {
        let nodes = [node("a"), node("b")];
        let set_all = set(json!({}));
        assert_eq!(plan(&set_all, &nodes, &[], "h").create, ["a", "b"]);
        assert_eq!(
            plan(&set(json!({"disk": "b"})), &nodes, &[], "h").create,
            ["b"]
        );
        let there = [
            pod("1", "a", "h", true),
            pod("2", "b", "h", true),
            pod("3", "b", "h", true),
        ];
        let planned = plan(&set_all, &nodes, &there, "h");
        assert!(planned.create.is_empty() && planned.delete.len() == 1);
        assert_eq!(node_of(&pod_for(&set_all, "b", "h")), "b");
    }

    #[test]
    fn updates_go_one_after_the_other() {
        let nodes = [node("a"), node("b")];
        let all = set(json!({}));
        let ready = [pod("1", "a", "old", true), pod("2", "b", "old", true)];
        assert_eq!(plan(&all, &nodes, &ready, "new").delete.len(), 1);
        let half = [pod("1", "a", "new", false), pod("2", "b", "old", true)];
        assert!(plan(&all, &nodes, &half, "new").delete.is_empty());
        let (status, _) = status(&all, &nodes, &half, "new", Timestamp::UNIX_EPOCH);
        assert_eq!(status["updatedNumberScheduled"], 1);
        assert_eq!(status["numberUnavailable"], 1);
    }
}
