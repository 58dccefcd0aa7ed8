//! Events about pods, as `kubectl describe` shows them: the controllers' recorder under the node
//! agent's name.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::api::Api;
use crate::controllers::events;

/// The name under which node agents report.
const COMPONENT: &str = "kubelet";

/// Writes events in the background, in order.
#[derive(Clone, Debug)]
pub struct Recorder {
    inner: events::Recorder,
}

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// The part of a pod that an event refers to.
fn reference(pod: &Pod) -> Value {
    let meta = &pod.metadata;
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": meta.name, "namespace": meta.namespace, "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    }})
}

impl Recorder {
    /// A recorder that writes through `api`.
    pub fn new(api: Api) -> Self {
        Self {
            inner: events::Recorder::start(api, COMPONENT),
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
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        let recorder = self.inner.component(COMPONENT, node.unwrap_or_default());
        let warning = level == Level::Warning;
        recorder.part(&reference(pod), field, warning, reason, &message);
    }
}
