//! Validation of the built-in kinds: names, metadata, and the rules users meet.

mod config;
pub mod names;
mod pod;
mod service;
mod workload;

use serde_json::Value;

use super::error::Cause;
use super::kinds::{Kind, NameRule};
use super::meta;

/// Total size of all annotations.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Checks a stored-form object; `old` is its present state on update.
pub fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut out = Vec::new();
    metadata(kind.names, &object["metadata"], "metadata", old, &mut out);
    // Definitions are validated by the extension server, which takes any qualified name.
    if kind.store.group != "apiextensions.k8s.io" {
        standard_finalizers(&object["metadata"], &mut out);
    }
    match (kind.store.group.as_ref(), kind.store.plural.as_ref()) {
        ("", "pods") => pod::pod(object, old, &mut out),
        ("", "services") => service::service(object, old, &mut out),
        ("", "secrets") => config::secret(object, old, &mut out),
        ("", "configmaps") => config::config_map(object, old, &mut out),
        ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets") => {
            workload::selected(object, old, &mut out);
        }
        ("batch", "jobs") => workload::job(object, old, &mut out),
        ("networking.k8s.io", "ingresses") => config::ingress(object, &mut out),
        ("discovery.k8s.io", "endpointslices") => config::endpoint_slice(object, &mut out),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations" | "validatingwebhookconfigurations",
        ) => config::webhooks(object, &mut out),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            config::binding(object, old, &mut out);
        }
        _ => {}
    }
    out
}

/// Checks only metadata: custom resources.
pub fn check_metadata(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut out = Vec::new();
    metadata(kind.names, &object["metadata"], "metadata", old, &mut out);
    out
}

fn metadata(rule: NameRule, m: &Value, path: &str, old: Option<&Value>, out: &mut Vec<Cause>) {
    // A name that is in use was fine once.
    if old.is_none() {
        let name = m["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            out.push(Cause::required(
                format!("{path}.name"),
                "name or generateName is required",
            ));
        } else if let Some(why) = names::problem(rule, name) {
            out.push(Cause::invalid(format!("{path}.name"), &m["name"], &why));
        }
    }
    if old.is_none() {
        finalizers(m, path, out);
    }
    label_map(&m["labels"], &format!("{path}.labels"), out);
    let mut size = 0;
    for (k, v) in m["annotations"].as_object().into_iter().flatten() {
        size += k.len() + v.as_str().map_or(0, str::len);
        if let Some(why) = names::qualified_name_problem(&k.to_lowercase()) {
            out.push(Cause::invalid(
                format!("{path}.annotations"),
                &k.as_str().into(),
                &why,
            ));
        }
    }
    if size > MAX_ANNOTATIONS {
        out.push(Cause::too_long(
            format!("{path}.annotations"),
            MAX_ANNOTATIONS,
        ));
    }
    for (i, o) in m["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if o[field].as_str().unwrap_or_default().is_empty() {
                out.push(Cause::invalid(
                    format!("{path}.ownerReferences[{i}].{field}"),
                    &"".into(),
                    "must not be empty",
                ));
            }
        }
    }
    let controllers = m["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|o| o["controller"] == true)
        .count();
    if controllers > 1 {
        out.push(Cause::invalid(
            format!("{path}.ownerReferences"),
            &m["ownerReferences"],
            "Only one reference can have Controller set to true",
        ));
    }
    if let Some(old) = old
        && meta::deleting(old)
    {
        let had: Vec<&str> = meta::finalizers(old).collect();
        let added: Vec<&str> = m["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|f| !had.contains(f))
            .collect();
        if !added.is_empty() {
            out.push(Cause::forbidden(
                format!("{path}.finalizers"),
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
                ),
            ));
        }
    }
}

fn finalizer_names(m: &Value) -> impl Iterator<Item = &str> {
    let list = m["finalizers"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str)
}

/// What a new object's finalizers must be, whatever its kind.
fn finalizers(m: &Value, path: &str, out: &mut Vec<Cause>) {
    let at = format!("{path}.finalizers");
    for name in finalizer_names(m) {
        if let Some(why) = names::qualified_name_problem(name) {
            out.push(Cause::invalid(at.clone(), &name.into(), &why));
        }
    }
    let has = |wanted: &str| finalizer_names(m).any(|name| name == wanted);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        out.push(Cause::invalid(at, &m["finalizers"], why));
    }
}

/// Built-in kinds take only finalizers of a domain, and the cluster's own.
fn standard_finalizers(m: &Value, out: &mut Vec<Cause>) {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    for (i, name) in finalizer_names(m).enumerate() {
        if !name.contains('/') && !STANDARD.contains(&name) {
            out.push(Cause::invalid(
                format!("metadata.finalizers[{i}]"),
                &name.into(),
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

/// Checks keys and values of a label map.
fn label_map(labels: &Value, path: &str, out: &mut Vec<Cause>) {
    for (k, v) in labels.as_object().into_iter().flatten() {
        if let Some(why) = names::qualified_name_problem(k) {
            out.push(Cause::invalid(path, &k.as_str().into(), &why));
        }
        let value = v.as_str().unwrap_or_default();
        if let Some(why) = names::label_value_problem(value) {
            out.push(Cause::invalid(path, v, &why));
        }
    }
}

/// `field is immutable` when a field differs.
fn immutable(new: &Value, old: &Value, path: &str, out: &mut Vec<Cause>) {
    if new != old {
        out.push(Cause::invalid(path, new, "field is immutable"));
    }
}

/// Requires a text below `object`.
fn need(object: &Value, field: &str, path: &str, out: &mut Vec<Cause>) -> bool {
    let missing = match &object[field] {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        _ => false,
    };
    if missing {
        out.push(Cause::required(format!("{path}.{field}"), ""));
    }
    !missing
}

/// Checks that a text, when present, is one of those allowed.
fn one_of(object: &Value, field: &str, allowed: &[&str], path: &str, out: &mut Vec<Cause>) {
    let v = &object[field];
    if let Some(s) = v.as_str()
        && !allowed.contains(&s)
    {
        out.push(Cause::not_supported(format!("{path}.{field}"), v, allowed));
    }
}

/// Checks a port number.
fn port(v: &Value, path: &str, out: &mut Vec<Cause>) {
    let ok = v.as_i64().is_some_and(|p| (1..=65535).contains(&p));
    if !ok {
        let shown = if v.is_null() {
            Value::from(0)
        } else {
            v.clone()
        };
        out.push(Cause::invalid(
            path,
            &shown,
            "must be between 1 and 65535, inclusive",
        ));
    }
}
