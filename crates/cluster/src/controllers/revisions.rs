//! ControllerRevisions: the remembered templates of stateful and daemon sets.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{
    controller_uid, int, label, name, namespace, owner_reference, pruned, short_hash, text, uid,
};
use crate::api::resource::CONTROLLER_REVISIONS;
use crate::api::{Api, ApiError, DeleteOptions, Selectors};

/// Label of pods and revisions that names the revision.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// What an owner's template is remembered as: a strategic merge patch that brings it back, which
/// is how `kubectl rollout undo` uses it.
fn data(owner: &Value) -> Value {
    let mut template = owner["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision remembers.
pub fn template(revision: &Value) -> Value {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.shift_remove("$patch");
    }
    template
}

/// All revisions of an owner, oldest first, with that of today's template last.
///
/// # Errors
/// A failed read or write.
pub async fn sync(
    api: &Api,
    owner: &Value,
    api_version: &str,
    kind: &str,
) -> Result<Vec<Arc<Value>>, ApiError> {
    let ns = Some(namespace(owner));
    let (all, _) = api
        .list(&CONTROLLER_REVISIONS, ns, &Selectors::all())
        .await?;
    let mut mine: Vec<Arc<Value>> = all
        .into_iter()
        .filter(|revision| controller_uid(revision) == uid(owner))
        .collect();
    mine.sort_by_key(|revision| int(revision, "/revision").unwrap_or(0));
    let wanted = data(owner);
    let newest = mine
        .last()
        .and_then(|last| int(last, "/revision"))
        .unwrap_or(0);
    let found = mine
        .iter()
        .position(|r| pruned(&r["data"]) == pruned(&wanted));
    let today = match found {
        Some(at) if at + 1 == mine.len() => return Ok(mine),
        Some(at) => {
            let reused = mine.remove(at);
            let patch = json!({"revision": newest + 1});
            api.merge_patch(&CONTROLLER_REVISIONS, ns, name(&reused), &patch, None)
                .await?
        }
        None => create(api, owner, (api_version, kind), wanted, newest + 1).await?,
    };
    mine.push(today);
    Ok(mine)
}

async fn create(
    api: &Api,
    owner: &Value,
    (api_version, kind): (&str, &str),
    data: Value,
    number: i64,
) -> Result<Arc<Value>, ApiError> {
    // A name that is taken by another template gets the next salt.
    for salt in 0..16 {
        let hash = short_hash(&data, salt);
        let mut labels = owner["spec"]["template"]["metadata"]["labels"].clone();
        if !labels.is_object() {
            labels = json!({});
        }
        labels[HASH_LABEL] = json!(hash);
        let revision = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {
                "name": format!("{}-{hash}", name(owner)), "namespace": namespace(owner),
                "labels": labels, "ownerReferences": [owner_reference(owner, api_version, kind)],
            },
            "data": data, "revision": number,
        });
        match api
            .create(&CONTROLLER_REVISIONS, Some(namespace(owner)), revision)
            .await
        {
            Err(error) if error.is_already_exists() => {}
            other => return other,
        }
    }
    Err(ApiError::internal("no free name for a controller revision"))
}

/// The hash of a revision, as pods carry it.
pub fn hash(revision: &Value) -> &str {
    label(revision, HASH_LABEL).unwrap_or("")
}

/// Deletes the oldest revisions beyond the owner's history limit; those in use stay.
///
/// # Errors
/// A failed delete other than the revision being gone.
pub async fn prune(
    api: &Api,
    owner: &Value,
    revisions: &[Arc<Value>],
    used: &HashSet<&str>,
) -> Result<(), ApiError> {
    let keep = int(owner, "/spec/revisionHistoryLimit")
        .unwrap_or(10)
        .max(0) as usize;
    let idle: Vec<&Arc<Value>> = revisions
        .iter()
        .take(revisions.len().saturating_sub(1))
        .filter(|revision| !used.contains(hash(revision)) && !used.contains(name(revision)))
        .collect();
    for revision in idle.iter().take(idle.len().saturating_sub(keep)) {
        let options = DeleteOptions::default().with_uid(uid(revision));
        let ns = Some(namespace(revision));
        match api
            .delete(&CONTROLLER_REVISIONS, ns, name(revision), options)
            .await
        {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The hash label of a pod, or `""`.
pub fn pod_hash(pod: &Value) -> &str {
    label(pod, HASH_LABEL).unwrap_or("")
}

/// The remembered revision with this name.
pub fn by_name<'a>(revisions: &'a [Arc<Value>], wanted: &str) -> Option<&'a Arc<Value>> {
    revisions
        .iter()
        .find(|revision| text(revision, "/metadata/name") == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_brings_the_template_back() {
        let owner = json!({"spec": {"template": {"spec": {"containers": []}}}});
        let revision = json!({"data": data(&owner)});
        assert_eq!(revision["data"]["spec"]["template"]["$patch"], "replace");
        assert_eq!(template(&revision), owner["spec"]["template"]);
    }
}
