//! Writing a pod's status: the newest wins, one write at a time, without holding up the pod.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep};

use crate::api::Api;
use crate::api::resource::PODS;

/// Wait before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(300);

pub(super) struct Publisher {
    wanted: Option<watch::Sender<Value>>,
    task: Option<JoinHandle<()>>,
    last: Value,
}

impl Publisher {
    pub fn new(api: Api, namespace: &str, name: &str, uid: &str) -> Self {
        let (wanted, receiver) = watch::channel(Value::Null);
        let task = tokio::spawn(write(
            api,
            namespace.to_owned(),
            name.to_owned(),
            uid.to_owned(),
            receiver,
        ));
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
            wanted.send_replace(value);
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

async fn write(
    api: Api,
    namespace: String,
    name: String,
    uid: String,
    mut wanted: watch::Receiver<Value>,
) {
    while wanted.changed().await.is_ok() {
        loop {
            let status = wanted.borrow_and_update().clone();
            // The uid keeps a status off a new pod of the same name.
            let patch = json!({"metadata": {"uid": uid}, "status": status});
            match api
                .merge_patch(&PODS, Some(&namespace), &name, &patch, Some("status"))
                .await
            {
                Ok(_) => break,
                Err(error) if matches!(error.code, 404 | 409) => break,
                Err(error) => {
                    tracing::warn!(%error, %namespace, %name, "pod status was not written; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }
}
