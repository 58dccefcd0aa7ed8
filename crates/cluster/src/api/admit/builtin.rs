//! Built-in admission: namespaces must exist, pods get their service account, protected
//! objects stay.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::meta;
use crate::api::resource::{NAMESPACES, PODS, SERVICE_ACCOUNTS};
use crate::store::Store;

/// Where a pod finds its token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Lifetime asked for by default; odd on purpose: it marks tokens made by admission.
const TOKEN_SECONDS: i64 = 3607;
/// Grace of pods on a node that is not ready or not reachable.
const TOLERATION_SECONDS: i64 = 300;

/// Refuses the deletion of namespaces the cluster needs.
pub(crate) fn check_delete(res: &crate::api::Resource, name: &str) -> Result<(), ApiError> {
    let kept = ["default", "kube-system", "kube-public"];
    if *res == NAMESPACES && kept.contains(&name) {
        return Err(ApiError::forbidden(
            res,
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// Fills what admission adds to a new pod: service account, token volume, tolerations.
pub(crate) fn defaults_of_pod(store: &Store, ns: &str, pod: &mut Value) -> Result<(), ApiError> {
    if !pod["spec"].is_object() {
        return Ok(());
    }
    service_account(store, ns, pod)?;
    let spec = &mut pod["spec"];
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        toleration(spec, key);
    }
    if spec["priority"].is_null() {
        spec["priority"] = 0.into();
    }
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
    Ok(())
}

fn toleration(spec: &mut Value, key: &str) {
    if spec["tolerations"].is_null() {
        spec["tolerations"] = json!([]);
    }
    let Some(list) = spec["tolerations"].as_array_mut() else {
        return;
    };
    let covered = list.iter().any(|t| {
        let same_key = t["key"] == key || t["key"].as_str().unwrap_or_default().is_empty();
        let effect = t["effect"].as_str().unwrap_or_default();
        same_key && (effect.is_empty() || effect == "NoExecute")
    });
    if !covered {
        list.push(
            json!({"key": key, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": TOLERATION_SECONDS}),
        );
    }
}

fn service_account(store: &Store, ns: &str, pod: &mut Value) -> Result<(), ApiError> {
    let spec = &mut pod["spec"];
    let account = match spec["serviceAccountName"].as_str() {
        Some(a) if !a.is_empty() => a.to_owned(),
        _ => "default".to_owned(),
    };
    spec["serviceAccountName"] = account.as_str().into();
    spec["serviceAccount"] = account.as_str().into();
    let Some(found) = store.get(&SERVICE_ACCOUNTS, ns, &account) else {
        let why = format!(
            "error looking up service account {ns}/{account}: serviceaccount \"{account}\" not found"
        );
        return Err(ApiError::forbidden(&PODS, meta::name(pod), &why));
    };
    let spec = &mut pod["spec"];
    if spec["imagePullSecrets"].is_null() && found["imagePullSecrets"].is_array() {
        spec["imagePullSecrets"] = found["imagePullSecrets"].clone();
    }
    let mount = spec["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| found["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if mount {
        mount_token(spec);
    }
    Ok(())
}

/// Mounts the token into each container that has nothing at its place, and adds the volume.
fn mount_token(spec: &mut Value) {
    let existing = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v["name"].as_str())
        .find(|n| n.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let name = existing
        .clone()
        .unwrap_or_else(|| format!("kube-api-access-{}", meta::random_ending(5)));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for c in containers.into_iter().flatten() {
            if !c.is_object() {
                continue;
            }
            if c["volumeMounts"].is_null() {
                c["volumeMounts"] = json!([]);
            }
            let Some(mounts) = c["volumeMounts"].as_array_mut() else {
                continue;
            };
            if mounts.iter().any(|m| m["mountPath"] == TOKEN_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            used = true;
        }
    }
    if used && existing.is_none() {
        if spec["volumes"].is_null() {
            spec["volumes"] = json!([]);
        }
        if let Some(volumes) = spec["volumes"].as_array_mut() {
            volumes.push(token_volume(&name));
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_mounted_once() {
        let mut spec = json!({"containers": [{"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": TOKEN_PATH}]}]});
        mount_token(&mut spec);
        assert_eq!(
            spec["containers"][0]["volumeMounts"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "x");
        let once = spec.clone();
        mount_token(&mut spec);
        assert_eq!(spec, once);
    }

    #[test]
    fn tolerations_are_added_unless_covered() {
        let mut spec = json!({"tolerations": [{"operator": "Exists"}]});
        toleration(&mut spec, "node.kubernetes.io/not-ready");
        assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(1));
        let mut spec = json!({});
        toleration(&mut spec, "node.kubernetes.io/not-ready");
        assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 300);
    }
}
