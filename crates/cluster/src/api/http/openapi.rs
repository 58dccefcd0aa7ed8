//! OpenAPI: the v2 document, and v3 documents per group version from the kinds' schemas.

use std::collections::BTreeSet;

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::body::{self, Answer};
use super::discovery::etag_of;
use super::service::Call;
use super::swagger;
use crate::api::error::ApiError;
use crate::api::kinds::{Kind, Registry};
use crate::api::schema::builtin;

/// The v2 document as clients want it named. They ask with `@`, which their own parser of
/// answers does not take.
const V2_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const REF: &str = "#/components/schemas/";

pub(super) fn handle(call: &Call<'_>, url: &str, etag: &str) -> Result<Answer, ApiError> {
    let registry = call.core().registry();
    match url.trim_end_matches('/') {
        // An empty message is a valid document.
        "/openapi/v2" if call.accept.contains("protobuf") => {
            Ok(body::answer(StatusCode::OK, V2_TYPE, ""))
        }
        "/openapi/v2" => {
            let version = &call.core().settings.version;
            let document = swagger::document(&registry, version);
            Ok(tagged(document.to_string(), etag))
        }
        "/openapi/v3" => Ok(body::json(StatusCode::OK, &index(&registry))),
        other => {
            let place = other
                .strip_prefix("/openapi/v3/")
                .ok_or_else(ApiError::unknown_path)?;
            let (group, version) = match place.split('/').collect::<Vec<_>>().as_slice() {
                ["api", v] => (String::new(), (*v).to_owned()),
                ["apis", g, v] => ((*g).to_owned(), (*v).to_owned()),
                _ => return Err(ApiError::unknown_path()),
            };
            if !registry.versions(&group).contains(&version) {
                return Err(ApiError::unknown_path());
            }
            let mut answer = tagged(document(&registry, &group, &version).to_string(), etag);
            if !call.params.get("hash").is_empty() {
                answer.headers_mut().insert(
                    header::CACHE_CONTROL,
                    HeaderValue::from_static("public, immutable, max-age=31536000"),
                );
            }
            Ok(answer)
        }
    }
}

/// A JSON text, unless the client has it already.
fn tagged(text: String, etag: &str) -> Answer {
    let tag = format!("\"{}\"", etag_of(text.as_bytes()));
    let mut answer = if etag == tag {
        body::answer(StatusCode::NOT_MODIFIED, "application/json", "")
    } else {
        body::answer(StatusCode::OK, "application/json", text)
    };
    if let Ok(v) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, v);
    }
    answer
}

/// All group versions that are served.
pub(super) fn group_versions(registry: &Registry) -> Vec<(String, String)> {
    let groups = std::iter::once("").chain(registry.groups());
    let of_group = |group: &str| {
        let versions = registry.versions(group).into_iter();
        versions
            .map(|version| (group.to_owned(), version))
            .collect::<Vec<_>>()
    };
    groups.flat_map(of_group).collect()
}

fn url_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn kinds_of<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Kind> {
    registry
        .kinds()
        .iter()
        .map(AsRef::as_ref)
        .filter(move |k: &&Kind| k.res.group == group && k.version(version).is_some())
}

/// A name that changes with the content, without building the document.
fn hash(registry: &Registry, group: &str, version: &str) -> String {
    let mut text = String::new();
    for k in kinds_of(registry, group, version) {
        text.push_str(&k.kind);
        text.push_str(&k.origin);
        text.push(';');
    }
    etag_of(text.as_bytes())
}

fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(registry) {
        let url = url_of(&group, &version);
        let hash = hash(registry, &group, &version);
        paths.insert(
            url.clone(),
            json!({"serverRelativeURL": format!("/openapi/v3/{url}?hash={hash}")}),
        );
    }
    json!({"paths": paths})
}

pub(super) fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let mut wanted = BTreeSet::new();
    for kind in kinds_of(registry, group, version) {
        let gvk = json!({"group": group, "version": version, "kind": kind.kind});
        let (name, mut schema) = root_schema(kind, version);
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        collect(&schema, &mut wanted);
        schemas.insert(name.clone(), schema);
        add_paths(&mut paths, kind, group, version, &gvk, &name);
    }
    // The definitions that those above refer to, and so on.
    let mut todo: Vec<String> = wanted.iter().cloned().collect();
    while let Some(name) = todo.pop() {
        if schemas.contains_key(&name) {
            continue;
        }
        let Some(definition) = builtin::definition(&name) else {
            continue;
        };
        let definition = shaped(definition);
        let mut more = BTreeSet::new();
        collect(&definition, &mut more);
        todo.extend(more);
        schemas.insert(name, definition);
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths, "components": {"schemas": schemas}})
}

/// References carry their description beside them in our definitions; OpenAPI 3.0 wants them
/// inside `allOf` for that.
fn shaped(v: &Value) -> Value {
    match v {
        Value::Object(m) => {
            // A property of that name is no text.
            if let Some(r) = m.get("$ref").filter(|r| r.is_string()) {
                let mut out = Map::new();
                for (k, x) in m.iter().filter(|(k, _)| *k != "$ref") {
                    out.insert(k.clone(), shaped(x));
                }
                if out.is_empty() {
                    return json!({"$ref": r});
                }
                out.insert("allOf".to_owned(), json!([{"$ref": r}]));
                if !out.contains_key("default") {
                    out.insert("default".to_owned(), json!({}));
                }
                return Value::Object(out);
            }
            Value::Object(m.iter().map(|(k, x)| (k.clone(), shaped(x))).collect())
        }
        Value::Array(a) => Value::Array(a.iter().map(shaped).collect()),
        other => other.clone(),
    }
}

fn collect(schema: &Value, out: &mut BTreeSet<String>) {
    match schema {
        Value::Object(m) => {
            if let Some(name) = m
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.strip_prefix(REF))
            {
                out.insert(name.to_owned());
            }
            m.values().for_each(|v| collect(v, out));
        }
        Value::Array(a) => a.iter().for_each(|v| collect(v, out)),
        _ => {}
    }
}

/// Name and schema of a kind in one version.
fn root_schema(kind: &Kind, version: &str) -> (String, Value) {
    if let Some(name) = &kind.definition {
        let schema = builtin::definition(name).map(shaped).unwrap_or_default();
        if kind.res == kind.store {
            return (name.clone(), schema);
        }
        return (
            format!("alias.{}.{version}.{}", kind.res.group, kind.kind),
            schema,
        );
    }
    let mut reversed: Vec<&str> = kind.res.group.split('.').collect();
    reversed.reverse();
    let name = format!("{}.{version}.{}", reversed.join("."), kind.kind);
    let custom = kind.version(version).and_then(|v| v.custom.as_ref());
    let mut schema = custom.map(|c| c.schema.clone()).unwrap_or_default();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let string = |d: &str| json!({"type": "string", "description": d});
    let properties = crate::api::meta::map_mut(&mut schema, "properties");
    properties.insert(
        "apiVersion".into(),
        string("APIVersion defines the versioned schema of this representation of an object."),
    );
    properties.insert(
        "kind".into(),
        string("Kind is a string value representing the REST resource this object represents."),
    );
    properties.insert(
        "metadata".into(),
        json!({"description": "Standard object's metadata.",
            "allOf": [{"$ref": format!("{REF}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")}]}),
    );
    (name, schema)
}

fn add_paths(
    paths: &mut Map<String, Value>,
    kind: &Kind,
    group: &str,
    version: &str,
    gvk: &Value,
    schema: &str,
) {
    let place = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let base = format!("/{}{place}/{}", url_of(group, version), kind.res.plural);
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let write = json!([
        query("dryRun"),
        query("fieldManager"),
        query("fieldValidation")
    ]);
    let content = json!({"application/json": {"schema": {"$ref": format!("{REF}{schema}")}}});
    let ok = json!({"200": {"description": "OK", "content": content}});
    let operation = |action: &str, parameters: &Value, body: bool| {
        let mut o = json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
            "parameters": parameters, "responses": ok});
        if body {
            o["requestBody"] = json!({"content": content});
        }
        o
    };
    let none = json!([]);
    // Strategic merge is not listed: clients then use the types they were built with, which have
    // the merge keys that these schemas do not carry.
    let mut patch = operation("patch", &write, false);
    let any = json!({"schema": {"type": "object"}});
    patch["requestBody"] = json!({"content": {"application/json-patch+json": any,
        "application/merge-patch+json": any, "application/apply-patch+yaml": any}});
    paths.insert(
        base.clone(),
        json!({"get": operation("list", &none, false), "post": operation("post", &write, true)}),
    );
    paths.insert(
        format!("{base}/{{name}}"),
        json!({"get": operation("get", &none, false), "put": operation("put", &write, true),
            "patch": patch, "delete": operation("delete", &none, false)}),
    );
}
