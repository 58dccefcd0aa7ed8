//! ConfigMap `istio` (the mesh configuration) and `istio-sidecar-injector`.

use serde_json::{Value, json};

use super::{Values, labels};
use crate::inject::yaml;

/// Both.
pub(super) fn all(values: &Values) -> Vec<Value> {
    let suffix = values.suffix();
    let mesh = json!({
        "mesh": yaml::print(values.mesh()),
        "meshNetworks": "networks: {}\n",
    });
    let injector = json!({
        "config": yaml::print(&json!({
            "policy": "enabled",
            "defaultTemplates": ["sidecar"],
            "alwaysInjectSelector": [],
            "neverInjectSelector": [],
            "injectedAnnotations": {},
            "templates": {},
        })),
        "values": format!("{:#}", values.helm()),
    });
    vec![
        config_map(values, &format!("istio{suffix}"), mesh),
        config_map(values, &format!("istio-sidecar-injector{suffix}"), injector),
    ]
}

fn config_map(values: &Values, name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": values.namespace(), "labels": labels(values, "istiod")},
        "data": data,
    })
}
