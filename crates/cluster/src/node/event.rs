//! Events about pods, as `kubectl describe` shows them; repeated ones are counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::api::Api;
use crate::api::resource::EVENTS;

/// What an event is about and says; repetitions have the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    reason: &'static str,
    message: String,
    field: String,
}

#[derive(Debug, Clone)]
struct Seen {
    name: String,
    count: u64,
}

/// Most distinct events remembered for counting.
const MEMORY: usize = 4096;

/// Writes events in the background.
#[derive(Clone)]
pub struct Recorder {
    api: Api,
    seen: Arc<Mutex<HashMap<Key, Seen>>>,
}

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder that writes through `api`.
    pub fn new(api: Api) -> Self {
        Self {
            api,
            seen: Arc::default(),
        }
    }

    /// Records an event about a pod or, with `field` such as `spec.containers{c}`, a part of it.
    pub fn record(
        &self,
        pod: &Pod,
        field: &str,
        level: Level,
        reason: &'static str,
        message: String,
    ) {
        let meta = &pod.metadata;
        let (namespace, name, uid) = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
            meta.uid.clone().unwrap_or_default(),
        );
        let key = Key {
            uid: uid.clone(),
            reason,
            message: message.clone(),
            field: field.to_owned(),
        };
        let now = Timestamp::now();
        let earlier = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() > MEMORY {
                seen.clear();
            }
            let fresh = Seen {
                name: format!("{name}.{:016x}", fastrand::u64(..)),
                count: 0,
            };
            let entry = seen.entry(key).or_insert(fresh);
            entry.count += 1;
            entry.clone()
        };
        let second = format!("{now:.0}");
        let api = self.api.clone();
        if earlier.count > 1 {
            let patch = json!({"count": earlier.count, "lastTimestamp": second});
            tokio::spawn(async move {
                let done = api
                    .merge_patch(&EVENTS, Some(&namespace), &earlier.name, &patch, None)
                    .await;
                if let Err(error) = done {
                    tracing::debug!(%error, "event was not counted");
                }
            });
            return;
        }
        let mut involved = json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid});
        if let Some(version) = &meta.resource_version {
            involved["resourceVersion"] = Value::from(version.as_str());
        }
        if !field.is_empty() {
            involved["fieldPath"] = Value::from(field);
        }
        let node = pod
            .spec
            .as_ref()
            .and_then(|s| s.node_name.as_deref())
            .unwrap_or_default();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": earlier.name, "namespace": namespace},
            "involvedObject": involved,
            "reason": reason, "message": message,
            "type": if level == Level::Normal { "Normal" } else { "Warning" },
            "source": {"component": "kubelet", "host": node},
            "reportingComponent": "kubelet", "reportingInstance": node,
            "count": 1, "firstTimestamp": second, "lastTimestamp": second, "eventTime": null,
        });
        tokio::spawn(async move {
            if let Err(error) = api.create(&EVENTS, Some(&namespace), event).await {
                tracing::debug!(%error, "event was not written");
            }
        });
    }
}
