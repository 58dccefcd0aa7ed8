//! Defaults of the built-in kinds: what users see in a stored object that they did not write.

mod pod;
mod service;
mod workload;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::meta;

/// Sets `object[field]` unless it is there.
fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if object.is_object() && object[field].is_null() {
        object[field] = value.into();
    }
}

/// The items of an array below `object`.
fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Fills the defaults of a built-in kind's stored form.
pub fn apply(kind: &Kind, object: &mut Value) {
    match (kind.store.group.as_ref(), kind.store.plural.as_ref()) {
        ("", "pods") => pod::pod(object),
        ("", "services") => service::service(object),
        ("", "namespaces") => namespace(object),
        ("", "secrets") => secret(object),
        ("", "endpoints") => service::endpoints(object),
        ("", "events") => event(object),
        ("", "replicationcontrollers") => workload::replication_controller(object),
        ("", "podtemplates") => pod::template(&mut object["template"]),
        ("apps", "deployments") => workload::deployment(object),
        ("apps", "replicasets") => workload::replica_set(object),
        ("apps", "statefulsets") => workload::stateful_set(object),
        ("apps", "daemonsets") => workload::daemon_set(object),
        ("batch", "jobs") => workload::job(object),
        ("autoscaling", "horizontalpodautoscalers") => workload::autoscaler(object),
        ("batch", "cronjobs") => workload::cron_job(object),
        ("discovery.k8s.io", "endpointslices") => service::endpoint_slice(object),
        ("networking.k8s.io", "networkpolicies") => service::network_policy(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(object),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations" | "validatingwebhookconfigurations",
        ) => webhooks(object, kind.store.plural.starts_with('m')),
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        let meta = meta::metadata_mut(object);
        let labels = meta.entry("labels").or_insert_with(|| json!({}));
        labels["kubernetes.io/metadata.name"] = name.into();
    }
    meta::map_mut(object, "spec");
    meta::map_mut(object, "status");
    set(&mut object["status"], "phase", "Active");
}

fn secret(object: &mut Value) {
    set(object, "type", "Opaque");
    // stringData is write-only: it is merged into data, base64.
    if let Some(Value::Object(plain)) = meta::remove(object, "stringData") {
        use base64::Engine as _;
        let data = meta::map_mut(object, "data");
        for (k, v) in plain {
            let text = v.as_str().unwrap_or_default();
            let coded = base64::engine::general_purpose::STANDARD.encode(text);
            data.insert(k, coded.into());
        }
    }
}

fn event(object: &mut Value) {
    if object["source"].is_null() {
        object["source"] = json!({});
    }
    set(object, "reportingComponent", "");
    set(object, "reportingInstance", "");
}

fn binding(object: &mut Value) {
    set(
        &mut object["roleRef"],
        "apiGroup",
        "rbac.authorization.k8s.io",
    );
    for subject in items(object, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

fn webhooks(object: &mut Value, mutating: bool) {
    for hook in items(object, "webhooks") {
        set(hook, "failurePolicy", "Fail");
        set(hook, "matchPolicy", "Equivalent");
        set(hook, "namespaceSelector", json!({}));
        set(hook, "objectSelector", json!({}));
        set(hook, "timeoutSeconds", 10);
        if mutating {
            set(hook, "reinvocationPolicy", "Never");
        }
        if hook["clientConfig"]["service"].is_object() {
            set(&mut hook["clientConfig"]["service"], "port", 443);
        }
        for rule in items(hook, "rules") {
            set(rule, "scope", "*");
        }
    }
}
