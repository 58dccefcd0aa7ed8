//! Deletion: grace, finalizers, propagation, preconditions; bindings and evictions of pods.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admit::{self, Attributes, Operation, Webhooks};
use super::core::{Core, RequestInfo, store_error};
use super::error::ApiError;
use super::handle::{DeleteOptions, Propagation};
use super::kinds::{Kind, Target};
use super::meta;
use super::resource::{CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Resource};
use super::selector::Selectors;
use super::write::key;
use crate::store::{StoreError, Write};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const ATTEMPTS: usize = 8;

/// What a deletion does to the present state.
enum Plan {
    Remove,
    Mark(Value),
    /// It is on its way already.
    Nothing,
}

impl Core {
    pub(crate) async fn delete(
        &self,
        info: &RequestInfo,
        res: &Resource,
        ns: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        let target = self.target(res)?;
        let (object, gone) = self.delete_in(info, &target, ns, name, options).await?;
        Ok((!gone).then_some(object))
    }

    /// Deletes an object: its last known state, and whether it is gone.
    pub(crate) async fn delete_in(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(Arc<Value>, bool), ApiError> {
        let kind = &target.kind;
        admit::check_delete(&kind.store, name)?;
        let mut admitted = false;
        for _ in 0..ATTEMPTS {
            let current = self.stored(kind, ns, name)?;
            check_preconditions(kind, name, &current, options)?;
            if !admitted {
                self.admit_delete(info, target, ns, name, options, &current)
                    .await?;
                admitted = true;
            }
            let dry = info.dry_run || options.dry_run;
            let (write, gone) = match plan(kind, &current, options) {
                Plan::Nothing => return Ok((current, false)),
                Plan::Remove => {
                    let last = (*current).clone();
                    let rv = meta::version(&current);
                    (Write::Remove { rv, last }, true)
                }
                Plan::Mark(object) => {
                    let rv = meta::version(&current);
                    (Write::Replace { rv, object }, false)
                }
            };
            if dry {
                return Ok((kind.present(&current, &target.version), gone));
            }
            match self.store.write(key(kind, ns, name), write).await {
                Err(StoreError::Conflict) => {}
                Err(e) => return Err(store_error(&kind.res, name, &e)),
                Ok(object) => {
                    if kind.is(&CUSTOM_RESOURCE_DEFINITIONS) {
                        self.refresh_registry();
                    }
                    return Ok((kind.present(&object, &target.version), gone));
                }
            }
        }
        Err(ApiError::modified(&kind.res, name))
    }

    async fn admit_delete(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        options: &DeleteOptions,
        current: &Value,
    ) -> Result<(), ApiError> {
        let at = Attributes {
            kind: &target.kind,
            version: &target.version,
            ns: ns.filter(|_| target.kind.namespaced),
            name,
            sub: None,
            operation: Operation::Delete,
            info,
            options: options_json(options),
        };
        let hooks = Webhooks { store: &self.store };
        let mut nothing = Value::Null;
        admit::run_mutating(&hooks, &at, &mut nothing, Some(current)).await?;
        admit::run_validating(&hooks, &at, &Value::Null, Some(current)).await
    }

    /// Deletes all matching objects; the list of what was found.
    pub(crate) async fn delete_collection(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        selectors: &Selectors,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let (found, _) = self.list_in(target, ns, selectors)?;
        for object in &found {
            let ns = Some(meta::namespace(object)).filter(|n| !n.is_empty());
            let done = self
                .delete_in(info, target, ns, meta::name(object), options)
                .await;
            if let Err(e) = done
                && !e.is_not_found()
            {
                return Err(e);
            }
        }
        Ok(found)
    }

    /// Binds a pod to a node.
    pub(crate) async fn bind_pod(
        &self,
        info: &RequestInfo,
        ns: &str,
        name: &str,
        node: &str,
    ) -> Result<(), ApiError> {
        let target = self.target(&PODS)?;
        let kind = &target.kind;
        for _ in 0..ATTEMPTS {
            let current = self.stored(kind, Some(ns), name)?;
            let bound = current["spec"]["nodeName"].as_str().unwrap_or_default();
            if !bound.is_empty() {
                return Err(ApiError::conflict(
                    &PODS,
                    name,
                    &format!("pod {name} is already assigned to node {bound:?}"),
                ));
            }
            if meta::deleting(&current) {
                return Err(ApiError::conflict(
                    &PODS,
                    name,
                    &format!("pod {name} is being deleted, cannot be assigned to a host"),
                ));
            }
            if node.is_empty() {
                return Err(ApiError::bad_request("a binding needs target.name"));
            }
            let mut next = (*current).clone();
            next["spec"]["nodeName"] = node.into();
            let mut conditions: Vec<Value> = next["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions.retain(|c| c["type"] != "PodScheduled");
            conditions.push(
                json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": meta::now_text()}),
            );
            next["status"]["conditions"] = conditions.into();
            if info.dry_run {
                return Ok(());
            }
            let write = Write::Replace {
                rv: meta::version(&current),
                object: next,
            };
            match self.store.write(key(kind, Some(ns), name), write).await {
                Err(StoreError::Conflict) => {}
                Err(e) => return Err(store_error(&PODS, name, &e)),
                Ok(_) => return Ok(()),
            }
        }
        Err(ApiError::modified(&PODS, name))
    }

    pub(crate) async fn finalize_namespace(
        &self,
        info: &RequestInfo,
        name: &str,
    ) -> Result<(), ApiError> {
        let target = self.target(&NAMESPACES)?;
        self.modify(info, &target, None, name, Some("finalize"), |current| {
            let mut next = (**current).clone();
            let mut kept: Vec<Value> = next["spec"]["finalizers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            kept.retain(|f| f != "kubernetes");
            next["spec"]["finalizers"] = kept.into();
            Ok(next)
        })
        .await?;
        Ok(())
    }
}

/// The `DeleteOptions` object of a request, as webhooks see it.
fn options_json(options: &DeleteOptions) -> Value {
    let mut o = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
    if let Some(g) = options.grace_period_seconds {
        o["gracePeriodSeconds"] = g.into();
    }
    if let Some(p) = options.propagation {
        o["propagationPolicy"] = format!("{p:?}").into();
    }
    o
}

fn check_preconditions(
    kind: &Kind,
    name: &str,
    current: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let checks = [
        ("UID", &options.precondition.uid, "uid"),
        (
            "ResourceVersion",
            &options.precondition.resource_version,
            "resourceVersion",
        ),
    ];
    for (word, wanted, field) in checks {
        let have = meta::text(current, field);
        if let Some(w) = wanted
            && w != have
        {
            return Err(ApiError::conflict(
                &kind.res,
                name,
                &format!(
                    "Precondition failed: {word} in precondition: {w}, {word} in object meta: {have}"
                ),
            ));
        }
    }
    Ok(())
}

fn plan(kind: &Kind, current: &Value, options: &DeleteOptions) -> Plan {
    let grace = grace(kind, current, options);
    let finalizers = wanted_finalizers(kind, current, options);
    let keeps = !finalizers.is_empty()
        || (kind.is(&NAMESPACES)
            && current["spec"]["finalizers"]
                .as_array()
                .is_some_and(|f| !f.is_empty()));
    if !keeps && grace == 0 {
        return Plan::Remove;
    }
    let mut next = current.clone();
    let already = meta::deleting(current);
    if already {
        let left = current["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        let shorter = kind.is(&PODS) && grace < left;
        let same: Vec<String> = meta::finalizers(current).map(str::to_owned).collect();
        if !shorter && same == finalizers {
            return Plan::Nothing;
        }
        if shorter {
            next["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            next["metadata"]["deletionTimestamp"] =
                meta::time_text(meta::now_unix() + grace).into();
        }
    } else {
        next["metadata"]["deletionTimestamp"] = meta::time_text(meta::now_unix() + grace).into();
        next["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if kind.generation {
            let g = current["metadata"]["generation"].as_i64().unwrap_or(1);
            next["metadata"]["generation"] = (g + 1).into();
        }
        if kind.is(&NAMESPACES) {
            next["status"]["phase"] = "Terminating".into();
        }
    }
    if finalizers.is_empty() {
        meta::remove(&mut next["metadata"], "finalizers");
    } else {
        next["metadata"]["finalizers"] = finalizers.into();
    }
    Plan::Mark(next)
}

/// Seconds a pod has to end; 0 for all other kinds, and for pods that run nowhere.
fn grace(kind: &Kind, current: &Value, options: &DeleteOptions) -> i64 {
    if !kind.is(&PODS) {
        return 0;
    }
    let unscheduled = current["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    let ended = matches!(
        current["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if unscheduled || ended {
        return 0;
    }
    options
        .grace_period_seconds
        .or_else(|| current["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
        .max(0)
}

fn wanted_finalizers(kind: &Kind, current: &Value, options: &DeleteOptions) -> Vec<String> {
    let mut list: Vec<String> = meta::finalizers(current).map(str::to_owned).collect();
    // Jobs and replication controllers leave their pods when the client says nothing.
    let orphaning = matches!(kind.res.plural.as_ref(), "jobs" | "replicationcontrollers");
    let default = if list.iter().any(|f| f == ORPHAN) {
        Propagation::Orphan
    } else if list.iter().any(|f| f == FOREGROUND) {
        Propagation::Foreground
    } else if orphaning && !kind.custom {
        Propagation::Orphan
    } else {
        Propagation::Background
    };
    list.retain(|f| f != ORPHAN && f != FOREGROUND);
    match options.propagation.unwrap_or(default) {
        Propagation::Background => {}
        Propagation::Foreground => list.push(FOREGROUND.to_owned()),
        Propagation::Orphan => list.push(ORPHAN.to_owned()),
    }
    list
}
