//! Whether a webhook's rules, selectors and match conditions select a request.

use kube_cel::{
    AdmissionRequest, GroupVersionKind, GroupVersionResource, VapEvaluator, VapExpression,
};
use serde_json::Value;

use super::Attributes;
use crate::api::meta;
use crate::api::resource::NAMESPACES;
use crate::api::selector;
use crate::store::Store;

/// Message by which a condition that is false is told from one that fails.
const FALSE: &str = "false";

fn has(list: &Value, wanted: &str) -> bool {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|v| v == "*" || v == wanted)
}

/// `pods`, `pods/*`, `*/status`, `*`, `*/*` against a resource and subresource.
fn resource_fits(pattern: &str, plural: &str, sub: Option<&str>) -> bool {
    match (pattern.split_once('/'), sub) {
        (None, None) => pattern == "*" || pattern == plural,
        (None, Some(_)) => false,
        (Some((r, s)), None) => (r == "*" || r == plural) && s == "*",
        (Some((r, s)), Some(sub)) => (r == "*" || r == plural) && (s == "*" || s == sub),
    }
}

/// The version in which a webhook wants the object, when one of its rules selects the request.
pub(super) fn version_for(hook: &Value, at: &Attributes<'_>) -> Option<String> {
    let equivalent = hook["matchPolicy"] != "Exact";
    for rule in hook["rules"].as_array().into_iter().flatten() {
        let scope_ok = match rule["scope"].as_str() {
            Some("Namespaced") => at.ns.is_some(),
            Some("Cluster") => at.ns.is_none(),
            _ => true,
        };
        let resource_ok = rule["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|p| resource_fits(p, &at.kind.res.plural, at.sub));
        let group_ok = has(&rule["apiGroups"], &at.kind.res.group);
        if !(scope_ok && resource_ok && group_ok && has(&rule["operations"], at.operation.name())) {
            continue;
        }
        if has(&rule["apiVersions"], at.version) {
            return Some(at.version.to_owned());
        }
        if equivalent {
            let other = at
                .kind
                .versions
                .iter()
                .find(|v| has(&rule["apiVersions"], &v.name));
            if let Some(v) = other {
                return Some(v.name.clone());
            }
        }
    }
    None
}

/// Whether the namespace and object selectors of a hook select the request.
pub(super) fn selected(
    store: &Store,
    hook: &Value,
    at: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> bool {
    let ns_terms = selector::from_label_selector(&hook["namespaceSelector"]);
    if !ns_terms.is_empty() {
        let own;
        let labels = if at.kind.is(&NAMESPACES) {
            own = if object.is_null() {
                old.map(|o| o["metadata"]["labels"].clone())
                    .unwrap_or_default()
            } else {
                object["metadata"]["labels"].clone()
            };
            &own
        } else if let Some(ns) = at.ns {
            own = store
                .get(&NAMESPACES, "", ns)
                .map(|n| n["metadata"]["labels"].clone())
                .unwrap_or_default();
            &own
        } else {
            // Cluster-scoped objects are not narrowed by namespaces.
            own = Value::Null;
            &own
        };
        let scoped = at.ns.is_some() || at.kind.is(&NAMESPACES);
        if scoped && !selector::matches_labels(&ns_terms, labels) {
            return false;
        }
    }
    let terms = selector::from_label_selector(&hook["objectSelector"]);
    if terms.is_empty() {
        return true;
    }
    let fits =
        |o: &Value| !o.is_null() && selector::matches_labels(&terms, &o["metadata"]["labels"]);
    fits(object) || old.is_some_and(fits)
}

/// Evaluates `matchConditions`: `Ok(true)` when all hold, `Err` with the first evaluation error
/// when none is false.
pub(super) fn conditions(
    hook: &Value,
    at: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<bool, String> {
    let Some(list) = hook["matchConditions"].as_array().filter(|l| !l.is_empty()) else {
        return Ok(true);
    };
    let expressions: Vec<VapExpression> = list
        .iter()
        .map(|c| VapExpression {
            expression: c["expression"].as_str().unwrap_or_default().to_owned(),
            message: Some(FALSE.to_owned()),
            message_expression: None,
        })
        .collect();
    let mut builder = VapEvaluator::builder().request(request(at));
    if !object.is_null() {
        builder = builder.object(object.clone());
    }
    if let Some(old) = old {
        builder = builder.old_object(old.clone());
    }
    let results = builder.build().evaluate(&expressions);
    let mut error = None;
    for (result, c) in results.iter().zip(list) {
        match result.message.as_deref() {
            None => {}
            Some(FALSE) => return Ok(false),
            Some(e) => {
                error.get_or_insert_with(|| format!("match condition {}: {e}", c["name"]));
            }
        }
    }
    error.map_or(Ok(true), Err)
}

fn request(at: &Attributes<'_>) -> AdmissionRequest {
    AdmissionRequest {
        operation: at.operation.name().to_owned(),
        username: at.info.user.name.clone(),
        groups: at.info.user.groups.clone(),
        uid: meta::new_uid(),
        name: at.name.to_owned(),
        namespace: at.ns.unwrap_or_default().to_owned(),
        dry_run: at.info.dry_run,
        kind: GroupVersionKind {
            group: at.kind.res.group.to_string(),
            version: at.version.to_owned(),
            kind: at.kind.kind.clone(),
        },
        resource: GroupVersionResource {
            group: at.kind.res.group.to_string(),
            version: at.version.to_owned(),
            resource: at.kind.res.plural.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_patterns_fit_as_documented() {
        assert!(resource_fits("pods", "pods", None));
        assert!(!resource_fits("pods", "pods", Some("status")));
        assert!(resource_fits("pods/*", "pods", Some("status")));
        assert!(resource_fits("*/*", "pods", None));
        assert!(resource_fits("*", "pods", None));
        assert!(!resource_fits("*", "pods", Some("status")));
        assert!(resource_fits("*/scale", "deployments", Some("scale")));
    }
}
