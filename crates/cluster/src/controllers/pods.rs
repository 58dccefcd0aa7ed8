//! What all pod-making controllers share: a pod from a template, claiming pods by selector,
//! the order in which surplus pods go, and creating or deleting several at once.

use std::cmp::Ordering;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::Recorder;
use super::object::{
    self, annotation, controller_of, controller_uid, deleting, name, namespace, pod_active,
    pod_ready_since, text, uid,
};
use crate::api::resource::PODS;
use crate::api::{Api, ApiError, DeleteOptions, Resource, Selectors};

/// Pods created or deleted at the same time for one owner.
const AT_ONCE: usize = 16;

/// A pod made from a pod template, controlled by `owner`, named by the server from `OWNER-`.
pub fn from_template(template: &Value, owner: &Value, api_version: &str, kind: &str) -> Value {
    let mut metadata = json!({
        "generateName": format!("{}-", name(owner)),
        "namespace": namespace(owner),
        "ownerReferences": [object::owner_reference(owner, api_version, kind)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.get("metadata").and_then(|m| m.get(field)) {
            metadata[field] = value.clone();
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})),
    })
}

/// The dependents of `owner` among the objects of its namespace: those it controls already and
/// still selects, and matching orphans, which are adopted. Controlled objects that no longer
/// match are released.
///
/// # Errors
/// A failed write other than the object having vanished or changed meanwhile.
pub async fn claim(
    api: &Api,
    resource: &Resource,
    owner: &Value,
    api_version: &str,
    kind: &str,
) -> Result<Vec<Arc<Value>>, ApiError> {
    let ns = namespace(owner);
    let (all, _) = api.list(resource, Some(ns), &Selectors::all()).await?;
    let mut mine = Vec::new();
    for dependent in all {
        let matches = object::owner_selects(owner, &dependent);
        let controlled = controller_uid(&dependent) == uid(owner);
        match (controlled, matches) {
            (true, true) => mine.push(dependent),
            (true, false) if !deleting(owner) && !deleting(&dependent) => {
                let others: Vec<&Value> = object::list(&dependent, "/metadata/ownerReferences")
                    .iter()
                    .filter(|reference| text(reference, "/uid") != uid(owner))
                    .collect();
                set_owners(api, resource, &dependent, json!(others)).await?;
            }
            (false, true) if adoptable(owner, &dependent) => {
                let mut owners = object::list(&dependent, "/metadata/ownerReferences").to_vec();
                owners.push(object::owner_reference(owner, api_version, kind));
                mine.extend(set_owners(api, resource, &dependent, json!(owners)).await?);
            }
            _ => {}
        }
    }
    Ok(mine)
}

fn adoptable(owner: &Value, dependent: &Value) -> bool {
    controller_of(dependent).is_none()
        && !deleting(owner)
        && !deleting(dependent)
        && !object::pod_ended(dependent)
}

async fn set_owners(
    api: &Api,
    resource: &Resource,
    dependent: &Value,
    owners: Value,
) -> Result<Option<Arc<Value>>, ApiError> {
    let patch = json!({"metadata": {
        "uid": uid(dependent),
        "resourceVersion": text(dependent, "/metadata/resourceVersion"),
        "ownerReferences": owners,
    }});
    let ns = Some(namespace(dependent));
    match api
        .merge_patch(resource, ns, name(dependent), &patch, None)
        .await
    {
        Ok(updated) => Ok(Some(updated)),
        // Gone or changed: its own watch event brings the next look.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates `count` pods; reports each on the owner. Stops at the first failure.
///
/// # Errors
/// The first failure; pods created before it stay.
pub async fn create(
    api: &Api,
    recorder: &Recorder,
    owner: &Value,
    pods: Vec<Value>,
) -> Result<(), ApiError> {
    let ns = namespace(owner);
    let mut results = stream::iter(pods)
        .map(|pod| api.create(&PODS, Some(ns), pod))
        .buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        match result {
            Ok(pod) => {
                recorder.normal(
                    owner,
                    "SuccessfulCreate",
                    format!("Created pod: {}", name(&pod)),
                );
            }
            Err(error) => {
                if !error.message.contains("is being terminated") {
                    recorder.warning(owner, "FailedCreate", format!("Error creating: {error}"));
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Deletes pods gracefully; reports each on the owner.
///
/// # Errors
/// The first failure other than the pod being gone already.
pub async fn delete(
    api: &Api,
    recorder: &Recorder,
    owner: &Value,
    pods: &[Arc<Value>],
) -> Result<(), ApiError> {
    for pod in pods {
        let options = DeleteOptions::default().with_uid(uid(pod));
        match api
            .delete(&PODS, Some(namespace(pod)), name(pod), options)
            .await
        {
            Ok(_) => {
                recorder.normal(
                    owner,
                    "SuccessfulDelete",
                    format!("Deleted pod: {}", name(pod)),
                );
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                recorder.warning(owner, "FailedDelete", format!("Error deleting: {error}"));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Sorts pods so that those to be deleted first come first: unscheduled, pending, not ready,
/// cheaper by `controller.kubernetes.io/pod-deletion-cost`, ready for a shorter time, restarted
/// more often, younger.
pub fn sort_for_deletion(pods: &mut [Arc<Value>]) {
    pods.sort_by(|a, b| deletion_order(a, b));
}

fn deletion_order(a: &Value, b: &Value) -> Ordering {
    let scheduled = |pod: &Value| !text(pod, "/spec/nodeName").is_empty();
    let phase = |pod: &Value| match text(pod, "/status/phase") {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |pod: &Value| {
        annotation(pod, "controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse::<i32>().ok())
            .unwrap_or(0)
    };
    let created = |pod: &Value| object::time(pod, "/metadata/creationTimestamp");
    let restarts = |pod: &Value| -> i64 {
        let statuses = object::list(pod, "/status/containerStatuses");
        statuses
            .iter()
            .filter_map(|s| object::int(s, "/restartCount"))
            .sum()
    };
    let ready: fn(&Value) -> Option<Timestamp> = pod_ready_since;
    scheduled(a)
        .cmp(&scheduled(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| ready(a).is_some().cmp(&ready(b).is_some()))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| ready(b).cmp(&ready(a)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| created(b).cmp(&created(a)))
}

/// The pods that count for a controller: neither ended nor being deleted.
pub fn active(pods: &[Arc<Value>]) -> Vec<Arc<Value>> {
    pods.iter().filter(|pod| pod_active(pod)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready_since: &str, created: &str) -> Arc<Value> {
        let conditions = if ready_since.is_empty() {
            json!([])
        } else {
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": ready_since}])
        };
        Arc::new(json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": conditions},
        }))
    }

    #[test]
    fn surplus_pods_go_in_the_documented_order() {
        let t = |s: u32| format!("2026-01-01T00:00:{s:02}Z");
        let mut pods = vec![
            pod("old-ready", "n", "Running", &t(1), &t(0)),
            pod("young-ready", "n", "Running", &t(9), &t(8)),
            pod("not-ready", "n", "Running", "", &t(0)),
            pod("unscheduled", "", "Pending", "", &t(0)),
            pod("pending", "n", "Pending", "", &t(0)),
        ];
        sort_for_deletion(&mut pods);
        let names: Vec<&str> = pods.iter().map(|p| name(p)).collect();
        assert_eq!(
            names,
            [
                "unscheduled",
                "pending",
                "not-ready",
                "young-ready",
                "old-ready"
            ]
        );
    }

    #[test]
    fn a_templated_pod_keeps_labels_and_names_its_owner() {
        let owner = json!({"metadata": {"name": "rs", "namespace": "n", "uid": "u"}});
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        let pod = from_template(&template, &owner, "apps/v1", "ReplicaSet");
        assert_eq!(controller_uid(&pod), "u");
        assert_eq!(text(&pod, "/metadata/generateName"), "rs-");
        assert_eq!(object::label(&pod, "a"), Some("b"));
    }
}
