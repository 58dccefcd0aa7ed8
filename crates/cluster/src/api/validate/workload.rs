//! Validation of workloads with a selector and a template.

use serde_json::{Value, json};

use super::{immutable, pod};
use crate::api::error::Cause;
use crate::api::selector;

/// Deployment, ReplicaSet, DaemonSet, StatefulSet.
pub(super) fn selected(object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if spec["replicas"].as_i64().is_some_and(|r| r < 0) {
        out.push(Cause::invalid(
            "spec.replicas",
            &spec["replicas"],
            "must be greater than or equal to 0",
        ));
    }
    let sel = &spec["selector"];
    let terms = selector::from_label_selector(sel);
    if sel.is_null() {
        out.push(Cause::required("spec.selector", ""));
    } else if terms.is_empty() {
        out.push(Cause::invalid(
            "spec.selector",
            sel,
            "empty selector is invalid for deployment",
        ));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    // No selector selects nothing, so that no template matches it.
    if sel.is_null() || !selector::matches_labels(&terms, labels) {
        let shown = if labels.is_null() {
            Value::Object(serde_json::Map::new())
        } else {
            labels.clone()
        };
        out.push(Cause::invalid(
            "spec.template.metadata.labels",
            &shown,
            "`selector` does not match template `labels`",
        ));
    }
    template(spec, out);
    if let Some(old) = old {
        immutable(sel, &old["spec"]["selector"], "spec.selector", out);
    }
    if let Some(policy) = spec["template"]["spec"]["restartPolicy"].as_str()
        && policy != "Always"
    {
        out.push(Cause::not_supported(
            "spec.template.spec.restartPolicy",
            &spec["template"]["spec"]["restartPolicy"],
            &["Always"],
        ));
    }
}

fn template(spec: &Value, out: &mut Vec<Cause>) {
    super::label_map(
        &spec["template"]["metadata"]["labels"],
        "spec.template.labels",
        out,
    );
    let inner = &spec["template"]["spec"];
    let claims = spec["volumeClaimTemplates"].as_array();
    if let Some(claims) = claims.filter(|_| inner.is_object()) {
        // A stateful set's pods get a volume of each claim.
        let mut filled = inner.clone();
        let mut volumes = inner["volumes"].as_array().cloned().unwrap_or_default();
        for claim in claims {
            let name = &claim["metadata"]["name"];
            if volumes.iter().all(|v| v["name"] != *name) {
                volumes.push(json!({"name": name, "emptyDir": {}}));
            }
        }
        filled["volumes"] = volumes.into();
        pod::pod_spec(&filled, "spec.template.spec", out);
    } else if inner.is_object() {
        pod::pod_spec(inner, "spec.template.spec", out);
    } else {
        out.push(Cause::required("spec.template.spec.containers", ""));
    }
}

/// Job.
pub(super) fn job(object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &object["spec"];
    template(spec, out);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy == "Always" {
        out.push(Cause::required(
            "spec.template.spec.restartPolicy",
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
    if let Some(old) = old {
        for field in ["template", "selector", "completions"] {
            immutable(
                &spec[field],
                &old["spec"][field],
                &format!("spec.{field}"),
                out,
            );
        }
    }
}
