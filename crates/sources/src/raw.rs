//! Objects as the API server sends them: JSON, trimmed before it is kept.

use kube::api::{ApiResource, DynamicObject, TypeMeta};
use lateen_resources::kind::KindInfo;
use lateen_resources::{Diagnostic, Kind, Object, ReadResult, read_value};
use serde_json::{Map, Value};

/// Annotation that repeats the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The resource of a kind in one of its versions.
pub fn resource(info: &KindInfo, version: &str) -> ApiResource {
    let api_version = if info.group.is_empty() {
        version.to_owned()
    } else {
        format!("{}/{version}", info.group)
    };
    ApiResource {
        group: info.group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: info.name.to_owned(),
        plural: info.plural.to_owned(),
    }
}

/// Drops what nobody here reads and what takes most of the memory.
pub fn trim(object: &mut DynamicObject) {
    object.metadata.managed_fields = None;
    if let Some(a) = &mut object.metadata.annotations {
        a.remove(LAST_APPLIED);
    }
}

/// Reads an object of a kind; `Err` says why it cannot be read.
pub fn typed(
    kind: Kind,
    resource: &ApiResource,
    object: DynamicObject,
) -> Result<Object, Vec<Diagnostic>> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let value = to_value(resource, object);
    let ReadResult {
        objects,
        diagnostics,
        ..
    } = read_value(value, &namespace);
    match objects.into_iter().next() {
        // Unknown fields come from a newer API: the rest is still right.
        Some(o) if o.kind == kind => Ok(o),
        _ => Err(diagnostics),
    }
}

fn to_value(resource: &ApiResource, object: DynamicObject) -> Value {
    let types = object.types.unwrap_or_else(|| TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    });
    let mut map = match object.data {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    map.insert("apiVersion".into(), types.api_version.into());
    map.insert("kind".into(), types.kind.into());
    let metadata = serde_json::to_value(object.metadata).unwrap_or_default();
    map.insert("metadata".into(), metadata);
    Value::Object(map)
}
