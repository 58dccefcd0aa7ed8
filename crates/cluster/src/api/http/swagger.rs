//! The OpenAPI v2 (Swagger 2.0) document: all group versions in one, from the v3 documents.
//!
//! Clients written in Go ask for a protobuf form and take nothing else; they get an empty message,
//! which is valid and leaves the checks to the server. A full one would be worse than none: old
//! versions of kubectl would merge lists by it, and these schemas carry no merge keys.

use serde_json::{Map, Value, json};

use super::openapi;
use crate::api::kinds::Registry;

/// Where v3 keeps schemas, and where v2 does.
const FROM: &str = "#/components/schemas/";
const TO: &str = "#/definitions/";

/// Keywords that v2 does not know.
const UNKNOWN: [&str; 5] = ["oneOf", "anyOf", "not", "nullable", "deprecated"];

/// Operations of a path.
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// The document.
pub(super) fn document(registry: &Registry, version: &str) -> Value {
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for (group, group_version) in openapi::group_versions(registry) {
        let mut v3 = openapi::document(registry, &group, &group_version);
        for (name, schema) in taken(&mut v3["components"]["schemas"]) {
            // Only the document of its own group says of which kind a schema is.
            let of_kind = "x-kubernetes-group-version-kind";
            if !definitions.contains_key(&name) || schema.get(of_kind).is_some() {
                definitions.insert(name, schema_of(&schema));
            }
        }
        for (path, item) in taken(&mut v3["paths"]) {
            let item = path_item(&path, &item);
            paths.insert(path, item);
        }
    }
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": version},
        "paths": paths, "definitions": definitions})
}

fn taken(map: &mut Value) -> Map<String, Value> {
    match map.take() {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn reference(node: &Value) -> Option<String> {
    let name = node.get("$ref")?.as_str()?;
    Some(name.replacen(FROM, TO, 1))
}

/// A schema without what v2 does not know. A reference with a description stands in an `allOf` of
/// one; v2's readers take the description beside it.
fn schema_of(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let only = match fields.get("allOf").and_then(Value::as_array) {
        Some(list) if list.len() == 1 => reference(&list[0]),
        _ => None,
    };
    if let Some(target) = reference(schema).or(only) {
        let mut out = json!({"$ref": target});
        if let Some(text) = fields.get("description") {
            out["description"] = text.clone();
        }
        return out;
    }
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match key.as_str() {
            key if UNKNOWN.contains(&key) => continue,
            // Names of properties, not keywords.
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                properties
                    .map(|(name, schema)| (name.clone(), schema_of(schema)))
                    .collect()
            }
            "items" | "additionalProperties" => schema_of(value),
            "allOf" => value
                .as_array()
                .into_iter()
                .flatten()
                .map(schema_of)
                .collect(),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

fn path_item(path: &str, item: &Value) -> Value {
    let mut out = Map::new();
    for method in METHODS {
        if let Some(operation) = item.get(method) {
            out.insert(method.to_owned(), operation_of(operation));
        }
    }
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "type": "string",
                "uniqueItems": true})
        })
        .collect();
    if !parameters.is_empty() {
        out.insert("parameters".to_owned(), parameters.into());
    }
    Value::Object(out)
}

fn operation_of(operation: &Value) -> Value {
    let mut parameters = Vec::new();
    let content = operation["requestBody"]["content"].as_object();
    if let Some(first) = content.and_then(|types| types.values().next()) {
        parameters.push(json!({"name": "body", "in": "body", "required": true,
            "schema": schema_of(&first["schema"])}));
    }
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let mut flat = json!({"name": parameter["name"], "in": parameter["in"]});
        for (key, value) in parameter["schema"].as_object().into_iter().flatten() {
            flat[key] = value.clone();
        }
        parameters.push(flat);
    }
    let consumes: Vec<&String> = content.into_iter().flat_map(Map::keys).collect();
    let mut out = json!({"produces": ["application/json"], "parameters": parameters,
        "responses": {"200": {"description": "OK",
            "schema": schema_of(&operation["responses"]["200"]["content"]["application/json"]["schema"])}}});
    if !consumes.is_empty() {
        out["consumes"] = json!(consumes);
    }
    for key in ["x-kubernetes-action", "x-kubernetes-group-version-kind"] {
        out[key] = operation[key].clone();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference of a schema, and every keyword in it that v2 does not know.
    fn walk(schema: &Value, references: &mut Vec<String>, unknown: &mut Vec<String>) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            match key.as_str() {
                "$ref" => references.extend(value.as_str().map(str::to_owned)),
                "properties" => {
                    let properties = value.as_object().into_iter().flatten();
                    properties.for_each(|(_, schema)| walk(schema, references, unknown));
                }
                "items" | "additionalProperties" => walk(value, references, unknown),
                key if UNKNOWN.contains(&key) => unknown.push(key.to_owned()),
                _ => {}
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_no_keyword_is_unknown() {
        let document = document(&Registry::build(&[]), "v1");
        let definitions = document["definitions"].as_object().expect("definitions");
        let (mut references, mut unknown) = (Vec::new(), Vec::new());
        for schema in definitions.values() {
            walk(schema, &mut references, &mut unknown);
        }
        assert!(references.len() > 500, "{}", references.len());
        assert_eq!(unknown, Vec::<String>::new());
        let lost: Vec<_> = references
            .iter()
            .filter(|r| {
                !r.strip_prefix(TO)
                    .is_some_and(|name| definitions.contains_key(name))
            })
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
        // A schema of schemas has properties that are named like keywords.
        let schemas = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let properties = &definitions[schemas]["properties"];
        assert_eq!(properties["$ref"]["type"], "string", "{properties}");
        assert!(properties["not"]["$ref"].is_string() && properties["nullable"].is_object());
    }

    #[test]
    fn operations_have_their_bodies_and_places() {
        let document = document(&Registry::build(&[]), "v1");
        let deployment = "io.k8s.api.apps.v1.Deployment";
        assert_eq!(
            document["definitions"][deployment]["x-kubernetes-group-version-kind"][0],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        let places: Vec<_> = item["parameters"]
            .as_array()
            .expect("a list")
            .iter()
            .collect();
        assert_eq!(places[0]["name"], "namespace");
        assert_eq!(places[1]["name"], "name");
        let body = &item["put"]["parameters"][0];
        assert_eq!(body["schema"]["$ref"], format!("{TO}{deployment}"));
        let dry = &item["patch"]["parameters"][1];
        assert_eq!(
            (&dry["name"], &dry["type"]),
            (&json!("dryRun"), &json!("string"))
        );
        assert!(
            item["patch"]["consumes"]
                .as_array()
                .is_some_and(|types| types.len() == 3)
        );
    }
}
