//! The `scale` subresource: reading and writing a number of replicas by path.

use serde_json::{Value, json};

use super::kinds::Scale;
use super::{meta, selector};

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .filter(|p| !p.is_empty())
        .fold(object, |v, p| &v[p])
}

/// The `autoscaling/v1` Scale of an object.
pub(crate) fn read(paths: &Scale, object: &Value) -> Value {
    let found = at(object, &paths.selector);
    let text = match found {
        // Custom resources may name no path for it.
        _ if paths.selector.is_empty() => String::new(),
        Value::String(s) => s.clone(),
        // A ReplicationController's selector is a plain map of labels.
        Value::Object(m)
            if !m.contains_key("matchLabels") && !m.contains_key("matchExpressions") =>
        {
            selector::label_selector_text(&json!({"matchLabels": m}))
        }
        other => selector::label_selector_text(other),
    };
    let mut status = json!({"replicas": at(object, &paths.status).as_i64().unwrap_or(0)});
    if !text.is_empty() {
        status["selector"] = text.into();
    }
    let source = &object["metadata"];
    let mut metadata = serde_json::Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(v) = source.get(field) {
            metadata.insert(field.to_owned(), v.clone());
        }
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": at(object, &paths.spec).as_i64().unwrap_or(0)}, "status": status})
}

/// Sets the wanted number of replicas.
pub(crate) fn write(paths: &Scale, object: &mut Value, replicas: i64) {
    let mut here = object;
    let mut parts = paths.spec.split('.').filter(|p| !p.is_empty()).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            meta::map_mut_of(here).insert(part.to_owned(), replicas.into());
            return;
        }
        meta::map_mut(here, part);
        here = &mut here[part];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_reads_and_writes_by_path() {
        let paths = Scale {
            spec: ".spec.replicas".into(),
            status: ".status.replicas".into(),
            selector: ".spec.selector".into(),
        };
        let mut o = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 1}});
        let s = read(&paths, &o);
        assert_eq!(s["spec"]["replicas"], 2);
        assert_eq!(s["status"], json!({"replicas": 1, "selector": "a=b"}));
        write(&paths, &mut o, 5);
        assert_eq!(o["spec"]["replicas"], 5);
        let bare = Scale {
            selector: String::new(),
            ..paths
        };
        assert_eq!(read(&bare, &o)["status"], json!({"replicas": 1}));
    }
}
