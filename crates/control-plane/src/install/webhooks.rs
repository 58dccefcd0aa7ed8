//! The admission webhooks: injection of new pods, validation of Istio objects. Their CA
//! bundles are filled in by the control plane when it runs.

use serde_json::{Value, json};

use super::{Values, labels};

/// Injection (four selectors that exclude each other) and validation.
pub(super) fn all(values: &Values) -> Vec<Value> {
    let mut objects = vec![injection(values), validation(values, "rev")];
    if values.revision() == "default" {
        objects.push(validation(values, "default"));
    }
    objects
}

fn client(values: &Values, path: &str) -> Value {
    json!({"service": {
        "name": format!("istiod{}", values.suffix()),
        "namespace": values.namespace(),
        "path": path,
        "port": 443,
    }})
}

fn expression(key: &str, operator: &str, words: &[&str]) -> Value {
    let mut expression = json!({"key": key, "operator": operator});
    if !words.is_empty() {
        expression["values"] = json!(words);
    }
    expression
}

fn injection(values: &Values) -> Value {
    let revision = values.revision();
    let (rev, namespace_label, inject) =
        ("istio.io/rev", "istio-injection", "sidecar.istio.io/inject");
    let absent = |key: &str| expression(key, "DoesNotExist", &[]);
    let is_ours = expression(rev, "In", &[&revision]);
    let allowed = expression(inject, "NotIn", &["false"]);
    let mut rules = vec![
        (
            "rev.namespace",
            vec![is_ours.clone(), absent(namespace_label)],
            vec![allowed.clone()],
        ),
        (
            "rev.object",
            vec![absent(rev), absent(namespace_label)],
            vec![allowed.clone(), is_ours],
        ),
    ];
    if revision == "default" {
        rules.push((
            "namespace",
            vec![expression(namespace_label, "In", &["enabled"])],
            vec![allowed],
        ));
        rules.push((
            "object",
            vec![absent(namespace_label), absent(rev)],
            vec![expression(inject, "In", &["true"]), absent(rev)],
        ));
    }
    let webhooks: Vec<Value> = rules
        .into_iter()
        .map(|(name, namespaces, objects)| {
            json!({
                "name": format!("{name}.sidecar-injector.istio.io"),
                "clientConfig": client(values, "/inject"),
                "sideEffects": "None",
                "rules": [{
                    "operations": ["CREATE"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                }],
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 10,
                "namespaceSelector": {"matchExpressions": namespaces},
                "objectSelector": {"matchExpressions": objects},
            })
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": format!("istio-sidecar-injector{}", values.suffix()),
            "labels": labels(values, "sidecar-injector"),
        },
        "webhooks": webhooks,
    })
}

/// `rev` validates objects of this revision, `default` those that name none.
fn validation(values: &Values, scope: &str) -> Value {
    let namespace = values.namespace();
    let (name, selector) = match scope {
        "rev" => (
            format!("istio-validator{}-{namespace}", values.suffix()),
            expression("istio.io/rev", "In", &[&values.revision()]),
        ),
        _ => (
            "istiod-default-validator".to_owned(),
            expression("istio.io/rev", "DoesNotExist", &[]),
        ),
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name, "labels": labels(values, "istiod")},
        "webhooks": [{
            "name": match scope {
                "rev" => "rev.validation.istio.io",
                _ => "validation.istio.io",
            },
            "clientConfig": client(values, "/validate"),
            "rules": [{
                "operations": ["CREATE", "UPDATE"],
                "apiGroups": [
                    "security.istio.io", "networking.istio.io", "telemetry.istio.io",
                    "extensions.istio.io",
                ],
                "apiVersions": ["*"],
                "resources": ["*"],
            }],
            // Until the control plane has put its CA in, a refused call must not block users.
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 10,
            "objectSelector": {"matchExpressions": [selector]},
        }],
    })
}
