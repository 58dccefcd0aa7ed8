//! Writing a pod's status: in order, one write at a time, without holding up the pod. When writes
//! fall behind, the newest wins; but that a pod was ready, however shortly, is always told: clients
//! such as `kubectl run -i` wait for it.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep};

use crate::api::Api;
use crate::api::resource::PODS;

/// Wait before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(300);

pub(super) struct Publisher {
    wanted: Option<mpsc::UnboundedSender<Value>>,
    task: Option<JoinHandle<()>>,
    last: Value,
}

impl Publisher {
    pub fn new(api: Api, namespace: &str, name: &str, uid: &str) -> Self {
        let (wanted, receiver) = mpsc::unbounded_channel();
        let writer = Writer {
            api,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let task = tokio::spawn(writer.run(receiver));
        Self {
            wanted: Some(wanted),
            task: Some(task),
            last: Value::Null,
        }
    }

    /// Publishes a status if it differs from the last one.
    pub fn publish(&mut self, status: &PodStatus) {
        // Serialising plain data cannot fail; if it did, the old status would stay.
        let Ok(mut value) = serde_json::to_value(status) else {
            return;
        };
        for key in ["reason", "message"] {
            if value.get(key).is_none() {
                value[key] = Value::Null;
            }
        }
        if value != self.last
            && let Some(wanted) = &self.wanted
        {
            self.last = value.clone();
            // A writer that ended has told why.
            let _ = wanted.send(value);
        }
    }

    /// Waits until the last status is written; nothing can be published afterwards.
    pub async fn flush(&mut self) {
        drop(self.wanted.take());
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::debug!(%error, "status writer ended early");
        }
    }
}

struct Writer {
    api: Api,
    namespace: String,
    name: String,
    uid: String,
}

impl Writer {
    async fn run(self, mut wanted: mpsc::UnboundedReceiver<Value>) {
        let mut waiting = Vec::new();
        while wanted.recv_many(&mut waiting, usize::MAX).await > 0 {
            for status in worth_telling(std::mem::take(&mut waiting)) {
                self.write(&status).await;
            }
        }
    }

    async fn write(&self, status: &Value) {
        let (namespace, name) = (Some(self.namespace.as_str()), self.name.as_str());
        // The uid keeps a status off a new pod of the same name.
        let patch = json!({"metadata": {"uid": self.uid}, "status": status});
        loop {
            let written = self
                .api
                .merge_patch(&PODS, namespace, name, &patch, Some("status"));
            match written.await {
                Ok(_) => return,
                Err(error) if matches!(error.code, 404 | 409) => return,
                Err(error) => {
                    tracing::warn!(%error, pod = name, "pod status was not written; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The newest of the waiting statuses, and before it those in which the pod was ready and then was
/// not.
fn worth_telling(waiting: Vec<Value>) -> Vec<Value> {
    let ready: Vec<bool> = waiting.iter().map(is_ready).collect();
    let last = waiting.len().saturating_sub(1);
    let keep = |n: usize| n == last || (ready[n] && !ready[n + 1]);
    waiting
        .into_iter()
        .enumerate()
        .filter(|(n, _)| keep(*n))
        .map(|(_, status)| status)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_readiness_is_told() {
        let status = |n: u32, ready: &str| json!({"n": n, "conditions": [{"type": "Ready", "status": ready}]});
        let waiting = vec![
            status(0, "False"),
            status(1, "True"),
            status(2, "True"),
            status(3, "False"),
            status(4, "False"),
        ];
        let told: Vec<u64> = worth_telling(waiting)
            .iter()
            .filter_map(|s| s["n"].as_u64())
            .collect();
        assert_eq!(told, [2, 4]);
        assert!(worth_telling(Vec::new()).is_empty());
    }
}
