//! The mutating webhook's answer: an AdmissionReview in, an AdmissionReview with a JSON patch
//! out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{InjectConfig, InjectError, Outcome, Workload, inject_pod};

/// Answers one review. A pod that is not injected is admitted as it is; one that cannot be is
/// refused with the reason.
#[must_use]
pub fn answer(config: &InjectConfig, review: &Value) -> Value {
    let request = &review["request"];
    let version = review["apiVersion"].as_str();
    let mut response = match patch(config, request) {
        Ok((patch, warnings)) => {
            let mut response = json!({"allowed": true});
            if !warnings.is_empty() {
                response["warnings"] = warnings.into();
            }
            if let Some(patch) = patch {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = STANDARD.encode(patch.to_string()).into();
            }
            response
        }
        Err(error) => json!({
            "allowed": false,
            "status": {"message": format!("sidecar injection failed: {error}"), "code": 400},
        }),
    };
    response["uid"] = request["uid"].clone();
    json!({
        "apiVersion": version.unwrap_or("admission.k8s.io/v1"),
        "kind": "AdmissionReview",
        "response": response,
    })
}

/// The JSON patch for a request's pod, and warnings; no patch where nothing changes.
///
/// # Errors
/// The request holds no pod, or the pod cannot be injected.
pub fn patch(
    config: &InjectConfig,
    request: &Value,
) -> Result<(Option<Value>, Vec<String>), InjectError> {
    // A webhook configuration may send more than it should; only pods have a sidecar.
    if let Some(kind) = request["kind"]["kind"].as_str()
        && kind != "Pod"
    {
        let text: String = kind.chars().take(80).collect();
        return Err(InjectError::Shape(format!(
            "the request is for a {text:?}, not for a pod"
        )));
    }
    let pod = &request["object"];
    if !pod.is_object() {
        return Err(InjectError::Shape("the request holds no pod".to_owned()));
    }
    // A pod made by a controller has no namespace of its own yet.
    let namespace = pod["metadata"]["namespace"]
        .as_str()
        .filter(|namespace| !namespace.is_empty())
        .or_else(|| request["namespace"].as_str())
        .unwrap_or("default");
    let workload = Workload::of_pod(pod, namespace);
    match inject_pod(config, pod, &workload)? {
        Outcome::Skipped(_) => Ok((None, Vec::new())),
        Outcome::Injected { pod: new, warnings } => {
            let patch = json_patch::diff(pod, &new);
            Ok((Some(json!(patch)), warnings))
        }
    }
}
