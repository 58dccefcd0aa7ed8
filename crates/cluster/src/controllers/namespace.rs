//! Namespace deletion: empties a terminating namespace, shows what is left, then lets it go.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::{Change, Controller, Outcome};
use super::object::{deleting, format_time, list, name, namespace, pruned, text, uid};
use super::queue::Key;
use crate::api::resource::{EVENTS, NAMESPACES, PODS};
use crate::api::{Api, ApiError, DeleteOptions, Propagation, Resource, Selectors};

/// How soon to look again when something other than pods is left (the end of a pod is watched).
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// See the module.
pub struct Namespaces {
    api: Api,
}

impl std::fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespaces").finish_non_exhaustive()
    }
}

/// What is left in a namespace.
#[derive(Debug, Default)]
struct Remains {
    /// Number of objects per resource.
    objects: BTreeMap<String, usize>,
    /// Number of objects per finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Deletes that failed.
    failures: Vec<String>,
}

impl Namespaces {
    /// A controller over this API.
    pub fn new(api: &Api) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:namespace-controller"),
        }
    }

    async fn empty(&self, ns: &str) -> Result<Remains, ApiError> {
        let mut remains = Remains::default();
        for (resource, namespaced) in self.api.served_resources().await {
            if namespaced {
                self.empty_of(ns, &resource, &mut remains).await?;
            }
        }
        Ok(remains)
    }

    async fn empty_of(
        &self,
        ns: &str,
        resource: &Resource,
        remains: &mut Remains,
    ) -> Result<(), ApiError> {
        let found = match self.api.list(resource, Some(ns), &Selectors::all()).await {
            Ok((found, _)) => found,
            // A custom resource that has just ceased to be served.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        for object in found {
            let left = if deleting(&object) {
                Some(object)
            } else {
                let options = DeleteOptions {
                    propagation: Some(Propagation::Background),
                    ..DeleteOptions::default().with_uid(uid(&object))
                };
                match self
                    .api
                    .delete(resource, Some(ns), name(&object), options)
                    .await
                {
                    Ok(left) => left,
                    Err(error) if error.is_not_found() || error.is_conflict() => None,
                    Err(error) => {
                        remains.failures.push(error.to_string());
                        Some(object)
                    }
                }
            };
            if let Some(left) = left {
                *remains.objects.entry(resource.to_string()).or_insert(0) += 1;
                for finalizer in list(&left, "/metadata/finalizers")
                    .iter()
                    .filter_map(Value::as_str)
                {
                    *remains.finalizers.entry(finalizer.to_owned()).or_insert(0) += 1;
                }
            }
        }
        Ok(())
    }

    async fn show(&self, ns: &Value, remains: &Remains) -> Result<(), ApiError> {
        let conditions = conditions(ns, remains, Timestamp::now());
        if pruned(&ns["status"]["conditions"]) == pruned(&conditions) {
            return Ok(());
        }
        let patch = json!({"status": {"phase": "Terminating", "conditions": conditions}});
        match self
            .api
            .merge_patch(&NAMESPACES, None, name(ns), &patch, Some("status"))
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn conditions(ns: &Value, remains: &Remains, now: Timestamp) -> Value {
    let counted = |counts: &BTreeMap<String, usize>, middle: &str| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(what, n)| format!("{what}{middle}{n} resource instances"))
            .collect();
        parts.join(", ")
    };
    let failed = !remains.failures.is_empty();
    let some = !remains.objects.is_empty();
    let finalizers = !remains.finalizers.is_empty();
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        (
            "NamespaceDeletionContentFailure",
            failed,
            if failed {
                "ContentDeletionFailed"
            } else {
                "ContentDeleted"
            },
            if failed {
                format!(
                    "Failed to delete all resource types: {}",
                    remains.failures.join(", ")
                )
            } else {
                "All content successfully deleted, may be waiting on finalization".to_owned()
            },
        ),
        (
            "NamespaceContentRemaining",
            some,
            if some {
                "SomeResourcesRemain"
            } else {
                "ContentRemoved"
            },
            if some {
                format!(
                    "Some resources are remaining: {}",
                    counted(&remains.objects, " has ")
                )
            } else {
                "All content successfully removed".to_owned()
            },
        ),
        (
            "NamespaceFinalizersRemaining",
            finalizers,
            if finalizers {
                "SomeFinalizersRemain"
            } else {
                "ContentHasNoFinalizers"
            },
            if finalizers {
                let counts = counted(&remains.finalizers, " in ");
                format!("Some content in the namespace has finalizers remaining: {counts}")
            } else {
                "All content-preserving finalizers finished".to_owned()
            },
        ),
    ];
    let row = |(kind, holds, reason, message): (&str, bool, &str, String)| {
        let status = if holds { "True" } else { "False" };
        let since = super::object::condition(ns, kind)
            .filter(|c| text(c, "/status") == status)
            .map_or_else(
                || format_time(now),
                |c| text(c, "/lastTransitionTime").to_owned(),
            );
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since})
    };
    rows.into_iter().map(row).collect()
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&NAMESPACES, &PODS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == NAMESPACES {
            let leaves = deleting(&change.object) && !change.deleted;
            return if leaves {
                vec![change.key()]
            } else {
                Vec::new()
            };
        }
        if !change.deleted {
            return Vec::new();
        }
        vec![Key::new("", namespace(&change.object))]
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let ns = match self.api.get(&NAMESPACES, None, &key.name).await {
            Ok(ns) if deleting(&ns) => ns,
            Ok(_) => return Ok(None),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let remains = self.empty(&key.name).await?;
        let only_events = remains
            .objects
            .keys()
            .all(|resource| *resource == EVENTS.to_string());
        if remains.objects.is_empty() || (only_events && remains.failures.is_empty()) {
            match self.api.finalize_namespace(&key.name).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => return Ok(None),
            }
        }
        self.show(&ns, &remains).await?;
        Ok(Some(LOOK_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_is_left_and_keep_their_times() {
        let mut remains = Remains::default();
        remains.objects.insert("pods".into(), 2);
        remains.finalizers.insert("x/y".into(), 1);
        let ns = json!({"metadata": {"name": "n"}});
        let first = conditions(&ns, &remains, Timestamp::UNIX_EPOCH);
        let wrapped = json!({"status": {"conditions": first}});
        let left = super::super::object::condition(&wrapped, "NamespaceContentRemaining");
        let left = left.expect("the condition");
        assert_eq!(
            text(left, "/message"),
            "Some resources are remaining: pods has 2 resource instances"
        );
        let again = conditions(
            &wrapped,
            &remains,
            "2026-01-01T00:00:00Z".parse().expect("a time"),
        );
        assert_eq!(again, wrapped["status"]["conditions"]);
    }
}
