//! Writing Event objects: what `kubectl describe` and `kubectl get events` show.
//!
//! Repeats of one event raise its count instead of making a new object. Writing is done by a
//! background task, in order, so that a controller never waits for its events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::object::{format_time, name, namespace, text, uid};
use crate::api::resource::EVENTS;
use crate::api::{Api, ApiError};

/// Distinct events remembered for counting; the oldest knowledge is dropped beyond it.
const REMEMBERED: usize = 4096;
/// Events waiting to be written; more are dropped, as events are advice.
const WAITING: usize = 8192;

/// Reports events of one component.
#[derive(Clone, Debug)]
pub struct Recorder {
    component: &'static str,
    host: String,
    sender: mpsc::Sender<Record>,
}

#[derive(Debug)]
struct Record {
    about: Value,
    namespace: String,
    kind: &'static str,
    reason: String,
    message: String,
    component: &'static str,
    host: String,
    at: Timestamp,
}

impl Recorder {
    /// Starts the writing task; it ends when the last recorder is dropped.
    pub fn start(api: Api, component: &'static str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_all(api, receiver));
        Self {
            component,
            host: String::new(),
            sender,
        }
    }

    /// The same writer for another component, on a named host (a node agent), or `""`.
    #[must_use]
    pub fn component(&self, component: &'static str, host: &str) -> Self {
        Self {
            component,
            host: host.to_owned(),
            sender: self.sender.clone(),
        }
    }

    /// Reports something ordinary about an object, which must carry `apiVersion` and `kind`.
    pub fn normal(&self, about: &Value, reason: &str, message: impl Into<String>) {
        self.record(about, "", "Normal", reason, message.into());
    }

    /// Reports something that a person should look at.
    pub fn warning(&self, about: &Value, reason: &str, message: impl Into<String>) {
        self.record(about, "", "Warning", reason, message.into());
    }

    /// Reports about a part of an object: `field_path` such as `spec.containers{c}`.
    pub fn part(
        &self,
        about: &Value,
        field_path: &str,
        warning: bool,
        reason: &str,
        message: &str,
    ) {
        let kind = if warning { "Warning" } else { "Normal" };
        self.record(about, field_path, kind, reason, message.to_owned());
    }

    fn record(
        &self,
        about: &Value,
        field_path: &str,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let mut involved = json!({
            "apiVersion": text(about, "/apiVersion"), "kind": text(about, "/kind"),
            "name": name(about), "uid": uid(about),
            "resourceVersion": text(about, "/metadata/resourceVersion"),
        });
        if !namespace(about).is_empty() {
            involved["namespace"] = json!(namespace(about));
        }
        if !field_path.is_empty() {
            involved["fieldPath"] = json!(field_path);
        }
        let namespace = if namespace(about).is_empty() {
            "default"
        } else {
            namespace(about)
        };
        let record = Record {
            about: involved,
            namespace: namespace.to_owned(),
            kind,
            reason: reason.to_owned(),
            message,
            component: self.component,
            host: self.host.clone(),
            at: Timestamp::now(),
        };
        if let Err(error) = self.sender.try_send(record) {
            tracing::debug!("an event was dropped: {error}");
        }
    }
}

/// What makes two events the same: object, part, type, reason, message, component.
type Identity = (String, String, &'static str, String, String, &'static str);

async fn write_all(api: Api, mut receiver: mpsc::Receiver<Record>) {
    let mut seen: HashMap<Identity, (String, u64)> = HashMap::new();
    while let Some(record) = receiver.recv().await {
        let identity = (
            text(&record.about, "/uid").to_owned(),
            text(&record.about, "/fieldPath").to_owned(),
            record.kind,
            record.reason.clone(),
            record.message.clone(),
            record.component,
        );
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        let known = seen.get(&identity).cloned();
        match write(&api, &record, known).await {
            Ok(entry) => {
                seen.insert(identity, entry);
            }
            Err(error) => tracing::debug!(reason = record.reason, "event not written: {error}"),
        }
    }
}

/// Raises the count of a known event, or creates one; returns its name and count.
async fn write(
    api: &Api,
    record: &Record,
    known: Option<(String, u64)>,
) -> Result<(String, u64), ApiError> {
    if let Some((event, count)) = known {
        let count = count + 1;
        let patch = json!({"count": count, "lastTimestamp": format_time(record.at)});
        let patched = api
            .merge_patch(&EVENTS, Some(&record.namespace), &event, &patch, None)
            .await;
        match patched {
            Ok(_) => return Ok((event, count)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let object = object(record);
    let event = name(&object).to_owned();
    api.create(&EVENTS, Some(&record.namespace), object).await?;
    Ok((event, 1))
}

fn object(record: &Record) -> Value {
    static LAST: AtomicU64 = AtomicU64::new(0);
    // Nanoseconds since 1970, made strictly increasing so that names never meet.
    let now = u64::try_from(record.at.as_nanosecond()).unwrap_or(0);
    let last = LAST.fetch_max(now, Ordering::Relaxed);
    let unique = if last >= now {
        LAST.fetch_add(1, Ordering::Relaxed) + 1
    } else {
        now
    };
    let at = format_time(record.at);
    let mut source = json!({"component": record.component});
    if !record.host.is_empty() {
        source["host"] = json!(record.host);
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {
            "name": format!("{}.{unique:x}", text(&record.about, "/name")),
            "namespace": record.namespace,
        },
        "involvedObject": record.about,
        "reason": record.reason, "message": record.message, "type": record.kind,
        "source": source, "count": 1, "firstTimestamp": at, "lastTimestamp": at,
        "eventTime": null,
        "reportingComponent": record.component, "reportingInstance": record.host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_objects_name_the_object_and_differ() {
        let record = Record {
            about: json!({"kind": "Pod", "name": "p", "uid": "u", "namespace": "n"}),
            namespace: "n".into(),
            kind: "Normal",
            reason: "Scheduled".into(),
            message: "m".into(),
            component: "default-scheduler",
            host: String::new(),
            at: Timestamp::from_second(1_700_000_000).expect("a time"),
        };
        let (a, b) = (object(&record), object(&record));
        assert_ne!(name(&a), name(&b));
        assert!(name(&a).starts_with("p.") && text(&a, "/involvedObject/uid") == "u");
        assert_eq!(text(&a, "/lastTimestamp"), "2023-11-14T22:13:20Z");
    }
}
