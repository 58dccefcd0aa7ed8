//! CustomResourceDefinitions of Istio's kinds, generated from our types.

use crate::Kind;
use crate::kind::{KINDS, KindInfo};
use crate::schema::spec_schema;
use serde_json::{Map, Value, json};

/// The CustomResourceDefinitions of every Istio kind, in the order of the kind table.
pub fn crds() -> Vec<Value> {
    KINDS
        .iter()
        .filter(|k| k.kind.is_istio())
        .map(crd)
        .collect()
}

fn crd(info: &KindInfo) -> Value {
    let singular = info.name.to_lowercase();
    let schema = object_schema(info.kind);
    let columns = columns(info.kind);
    let versions: Vec<Value> = info
        .versions
        .iter()
        .enumerate()
        .map(|(i, version)| {
            json!({
                "name": version,
                "served": true,
                "storage": i == 0,
                "additionalPrinterColumns": columns,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            })
        })
        .collect();
    let mut names = json!({
        "categories": ["istio-io", format!("{}-istio-io", info.group.split('.').next().unwrap_or_default())],
        "kind": info.name,
        "listKind": format!("{}List", info.name),
        "plural": info.plural,
        "singular": singular,
    });
    if !info.short_names.is_empty() {
        names["shortNames"] = json!(info.short_names);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", info.plural, info.group),
            "labels": {"app": "istio-pilot", "istio": "pilot", "release": "istio"},
        },
        "spec": {
            "group": info.group,
            "names": names,
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

fn object_schema(kind: Kind) -> Value {
    let mut spec = match spec_schema(kind) {
        Some(mut s) => {
            structural(&mut s);
            s
        }
        None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    if let Some(required) = required(kind) {
        spec["required"] = json!(required);
    }
    json!({
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    })
}

/// Fields without which an object of the kind cannot be admitted.
fn required(kind: Kind) -> Option<&'static [&'static str]> {
    match kind {
        Kind::DestinationRule => Some(&["host"]),
        Kind::ServiceEntry => Some(&["hosts"]),
        _ => None,
    }
}

/// Turns a JSON schema into the structural form that Kubernetes demands.
fn structural(value: &mut Value) {
    match value {
        Value::Bool(_) => *value = json!({"x-kubernetes-preserve-unknown-fields": true}),
        Value::Object(map) => structural_object(map),
        _ => {}
    }
}

fn structural_object(map: &mut Map<String, Value>) {
    // OpenAPI knows these formats only as int32 and int64; ranges say the rest.
    match map.get("format").and_then(Value::as_str) {
        Some("uint32") => {
            map.insert("format".into(), "int64".into());
            map.insert("minimum".into(), 0.into());
            map.insert("maximum".into(), u32::MAX.into());
        }
        Some("uint64") => {
            map.insert("format".into(), "int64".into());
            map.insert("minimum".into(), 0.into());
        }
        // Kubernetes' "duration" format is not Go's: ours is checked at admission.
        Some("duration") => {
            map.shift_remove("format");
        }
        _ => {}
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(v) = map.get_mut(key) {
            structural(v);
        }
    }
}

/// kubectl's columns, as Istio prints them.
fn columns(kind: Kind) -> Value {
    let column = |name: &str, path: &str, description: &str| json!({"name": name, "type": "string", "jsonPath": path, "description": description});
    let age = json!({
        "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        "description": "Time since the object was made",
    });
    let mut out = match kind {
        Kind::VirtualService => vec![
            column(
                "Gateways",
                ".spec.gateways",
                "The gateways that apply these routes",
            ),
            column("Hosts", ".spec.hosts", "The hosts whose traffic is routed"),
        ],
        Kind::DestinationRule => {
            vec![column(
                "Host",
                ".spec.host",
                "The host the policies are for",
            )]
        }
        Kind::ServiceEntry => vec![
            column("Hosts", ".spec.hosts", "The hosts added to the registry"),
            column(
                "Location",
                ".spec.location",
                "Inside or outside of the mesh",
            ),
            column("Resolution", ".spec.resolution", "How endpoints are found"),
        ],
        Kind::WorkloadEntry => vec![column(
            "Address",
            ".spec.address",
            "Address of the workload",
        )],
        Kind::PeerAuthentication => {
            vec![column("Mode", ".spec.mtls.mode", "Mode of mutual TLS")]
        }
        Kind::AuthorizationPolicy => {
            vec![column(
                "Action",
                ".spec.action",
                "What is done with matching requests",
            )]
        }
        // Istio prints only name and age for these.
        _ => vec![],
    };
    out.push(age);
    Value::Array(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_versions_and_columns() {
        let all = crds();
        let vs = all
            .iter()
            .find(|c| c["metadata"]["name"] == "virtualservices.networking.istio.io")
            .unwrap();
        assert_eq!(vs["spec"]["names"]["shortNames"], json!(["vs"]));
        let versions = vs["spec"]["versions"].as_array().unwrap();
        let names: Vec<_> = versions
            .iter()
            .map(|v| v["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["v1", "v1beta1", "v1alpha3"]);
        assert_eq!(versions.iter().filter(|v| v["storage"] == true).count(), 1);
        let heads: Vec<_> = versions[0]["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(heads, ["Gateways", "Hosts", "Age"]);
    }

    #[test]
    fn schemas_are_structural() {
        fn check(v: &Value, path: &str) {
            let Value::Object(m) = v else {
                panic!("{path}: no object")
            };
            for bad in [
                "$ref", "$defs", "anyOf", "oneOf", "const", "default", "title", "$schema",
            ] {
                assert!(!m.contains_key(bad), "{path} has {bad}");
            }
            assert!(
                m.contains_key("type") || m.contains_key("x-kubernetes-preserve-unknown-fields"),
                "{path} has no type"
            );
            if let Some(t) = m.get("type") {
                assert!(t.is_string(), "{path}: type {t}");
            }
            if let Some(Value::Object(p)) = m.get("properties") {
                p.iter().for_each(|(k, v)| check(v, &format!("{path}.{k}")));
                assert!(!m.contains_key("additionalProperties"), "{path}");
            }
            for k in ["items", "additionalProperties"] {
                if let Some(v) = m.get(k) {
                    check(v, &format!("{path}.{k}"));
                }
            }
        }
        for c in crds() {
            check(
                &c["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
                c["metadata"]["name"].as_str().unwrap(),
            );
        }
    }
}
