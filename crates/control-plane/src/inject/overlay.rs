//! Merging what a user wrote over what a template gives: objects by field, lists of named
//! things by their key, other lists as a whole. The rules are those of Kubernetes' strategic
//! merge for the parts of a pod that injection touches.

use serde_json::{Map, Value};

/// The field by which the elements of a pod's list are told apart.
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        _ => return None,
    })
}

/// Merges `over` into `base`; `null` takes a field away.
pub(super) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => merge_objects(base, over),
        (base, over) => *base = over.clone(),
    }
}

fn merge_objects(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        if value.is_null() {
            base.shift_remove(key);
            continue;
        }
        match (base.get_mut(key), merge_key(key)) {
            (Some(Value::Array(list)), Some(name)) => merge_lists(list, value, name),
            (Some(inner), _) => merge(inner, value),
            (None, _) => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn merge_lists(base: &mut Vec<Value>, over: &Value, key: &str) {
    for element in over.as_array().into_iter().flatten() {
        let same = base
            .iter_mut()
            .find(|known| !known[key].is_null() && known[key] == element[key]);
        match same {
            // A value and a source of a value exclude each other.
            Some(known) if element.get("value").is_some() || element.get("valueFrom").is_some() => {
                *known = element.clone();
            }
            Some(known) => merge(known, element),
            None => base.push(element.clone()),
        }
    }
}
