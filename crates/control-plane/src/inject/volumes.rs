//! Volumes of an injected pod and where the proxy mounts them.

use serde_json::{Value, json};

use super::annotation::{Annotations, wrong};
use super::{InjectConfig, InjectError};

const BOOTSTRAP_OVERRIDE: &str = "sidecar.istio.io/bootstrapOverride";
const USER_VOLUME: &str = "sidecar.istio.io/userVolume";
const USER_MOUNT: &str = "sidecar.istio.io/userVolumeMount";

/// The pod's new volumes.
pub(super) fn volumes(
    config: &InjectConfig,
    annotations: &Annotations,
) -> Result<Vec<Value>, InjectError> {
    let audience = config
        .text("global.sds.token.aud")
        .unwrap_or("istio-ca".into());
    let mut list = vec![
        json!({"name": "workload-socket", "emptyDir": {}}),
        json!({"name": "credential-socket", "emptyDir": {}}),
        json!({"name": "workload-certs", "emptyDir": {}}),
        json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "istio-data", "emptyDir": {}}),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}]}}),
        json!({"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": audience, "expirationSeconds": 43200, "path": "istio-token"}}]}}),
        json!({"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}}),
        json!({"name": "istio-ca-crl", "configMap": {"name": "istio-ca-crl", "optional": true}}),
    ];
    if let Some(name) = annotations.get(BOOTSTRAP_OVERRIDE) {
        list.push(json!({"name": "custom-bootstrap-volume", "configMap": {"name": name}}));
    }
    list.extend(user_list(annotations, USER_VOLUME, "name")?);
    Ok(list)
}

/// The proxy's mounts.
pub(super) fn mounts(annotations: &Annotations) -> Result<Vec<Value>, InjectError> {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mut list = vec![
        mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
        mount("credential-socket", "/var/run/secrets/credential-uds"),
        mount(
            "workload-certs",
            "/var/run/secrets/workload-spiffe-credentials",
        ),
        mount("istiod-ca-cert", "/var/run/secrets/istio"),
        mount("istio-ca-crl", "/var/run/secrets/istio/crl"),
        mount("istio-data", "/var/lib/istio/data"),
        mount("istio-envoy", "/etc/istio/proxy"),
        mount("istio-token", "/var/run/secrets/tokens"),
        mount("istio-podinfo", "/etc/istio/pod"),
    ];
    if annotations.get(BOOTSTRAP_OVERRIDE).is_some() {
        list.push(mount(
            "custom-bootstrap-volume",
            "/etc/istio/custom-bootstrap",
        ));
    }
    list.extend(user_list(annotations, USER_MOUNT, "name")?);
    Ok(list)
}

/// Whether the pod brings a bootstrap of its own.
pub(super) fn overrides_bootstrap(annotations: &Annotations) -> bool {
    annotations.get(BOOTSTRAP_OVERRIDE).is_some()
}

/// An annotation with a JSON list, or a JSON object of name to body.
fn user_list(annotations: &Annotations, name: &str, key: &str) -> Result<Vec<Value>, InjectError> {
    match annotations.json(name)? {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list),
        Some(Value::Object(map)) => {
            let named = map.into_iter().map(|(entry, body)| {
                let mut body = body;
                if !body.is_object() {
                    return Err(wrong(name, &entry, "an object by name"));
                }
                body[key] = entry.into();
                Ok(body)
            });
            named.collect()
        }
        Some(other) => Err(wrong(name, &other.to_string(), "a list or an object")),
    }
}
