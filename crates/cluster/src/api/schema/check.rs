//! Checks an object of a built-in kind against its definition: unknown fields are reported and
//! dropped, nulls dropped, quantities written as numbers turned into text, wrong types refused.

use serde_json::{Map, Value};

use super::{base64, builtin, quantity};

/// What the check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Paths of fields the schema does not know; they were removed.
    pub unknown: Vec<String>,
    /// The first value that the field cannot hold.
    pub type_error: Option<TypeError>,
}

/// A value that a field cannot hold, in the words of the two usual decoders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeError {
    /// Of whole objects, merge and JSON patches.
    pub decoded: String,
    /// Of strategic merge patches, whose result is converted field by field.
    pub converted: String,
}

impl TypeError {
    fn same(text: String) -> Self {
        Self {
            converted: text.clone(),
            decoded: text,
        }
    }
}

/// Checks and cleans `object` in place.
pub fn check_builtin(definition: &str, object: &mut Value) -> Checked {
    let mut walk = Walk {
        found: Checked::default(),
        owner: String::new(),
    };
    if let Some(schema) = builtin::definition(definition) {
        walk.owner = short_name(definition).to_owned();
        walk.node(schema, object, "", "");
    }
    walk.found
}

/// Checks and cleans the `metadata` of a custom resource.
pub fn check_metadata(metadata: &mut Value) -> Checked {
    let mut walk = Walk {
        found: Checked::default(),
        owner: "ObjectMeta".to_owned(),
    };
    let name = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    if let Some(schema) = builtin::definition(name) {
        walk.node(schema, metadata, "metadata", "metadata");
    }
    walk.found
}

fn short_name(definition: &str) -> &str {
    definition.rsplit('.').next().unwrap_or(definition)
}

struct Walk {
    found: Checked,
    /// Go struct that holds the field being looked at.
    owner: String,
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

impl Walk {
    /// `path` has indices (for unknown fields), `plain` has none (for type errors).
    fn node(&mut self, schema: &Value, value: &mut Value, path: &str, plain: &str) {
        if let Some(name) = builtin::reference(schema) {
            self.referenced(name, value, path, plain);
            return;
        }
        let Some(kind) = schema.get("type").and_then(Value::as_str) else {
            return;
        };
        match kind {
            "object" => self.object(schema, value, path, plain),
            "array" => match value {
                Value::Array(items) => {
                    if let Some(item) = schema.get("items") {
                        for (i, v) in items.iter_mut().enumerate() {
                            self.node(item, v, &format!("{path}[{i}]"), plain);
                        }
                    }
                }
                other => self.wrong(other, plain, "slice"),
            },
            "string" if !value.is_string() => self.wrong(value, plain, "string"),
            "string" if schema.get("format").is_some_and(|f| f == "byte") => self.bytes(value),
            "boolean" if !value.is_boolean() => self.wrong(value, plain, "bool"),
            "integer" if !(value.is_i64() || value.is_u64()) => {
                // 1.0 is an integer in JSON.
                let whole = value
                    .as_f64()
                    .filter(|f| f.fract() == 0.0 && f.abs() < 9e15);
                match whole {
                    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
                    Some(f) => *value = Value::from(f as i64),
                    None => {
                        let go = schema.get("format").and_then(Value::as_str);
                        self.wrong(value, plain, go.unwrap_or("int"));
                    }
                }
            }
            "number" if !value.is_number() => self.wrong(value, plain, "float64"),
            _ => {}
        }
    }

    fn referenced(&mut self, name: &str, value: &mut Value, path: &str, plain: &str) {
        match short_name(name) {
            "Quantity" => {
                if value.is_number() {
                    *value = Value::String(value.to_string());
                }
                match value.as_str() {
                    Some(text) => self.note(quantity::problem(text)),
                    None => self.note(Some(quantity::WRONG_FORMAT)),
                }
            }
            "IntOrString" => {
                if !value.is_string() && !value.is_i64() && !value.is_u64() {
                    self.wrong(value, plain, "intstr.IntOrString");
                }
            }
            "FieldsV1" | "RawExtension" | "JSON" => {}
            "JSONSchemaPropsOrBool" if value.is_boolean() => {}
            "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
                let props =
                    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
                match value {
                    Value::Array(_) => {}
                    other => self.referenced(props, other, path, plain),
                }
            }
            short => {
                if let Some(schema) = builtin::definition(name) {
                    let outer = std::mem::replace(&mut self.owner, short.to_owned());
                    self.node(schema, value, path, plain);
                    self.owner = outer;
                }
            }
        }
    }

    fn object(&mut self, schema: &Value, value: &mut Value, path: &str, plain: &str) {
        let Value::Object(map) = value else {
            let what = if schema.get("properties").is_some() {
                self.owner.clone()
            } else {
                "map".to_owned()
            };
            self.wrong(value, plain, &what);
            return;
        };
        if let Some(props) = schema.get("properties").and_then(Value::as_object) {
            self.struct_fields(props, map, path, plain);
            return;
        }
        if let Some(each) = schema.get("additionalProperties").filter(|a| a.is_object()) {
            map.retain(|_, v| !v.is_null() || each.get("$ref").is_some());
            for (k, v) in map.iter_mut() {
                self.node(each, v, &join(path, k), plain);
            }
        }
    }

    fn struct_fields(
        &mut self,
        props: &Map<String, Value>,
        map: &mut Map<String, Value>,
        path: &str,
        plain: &str,
    ) {
        let unknown = &mut self.found.unknown;
        map.retain(|k, v| {
            if props.contains_key(k) {
                return !v.is_null();
            }
            unknown.push(join(path, k));
            false
        });
        for (k, v) in map.iter_mut() {
            self.node(&props[k.as_str()], v, &join(path, k), &join(plain, k));
        }
    }

    /// Bytes in base64, kept in the canonical form.
    fn bytes(&mut self, value: &mut Value) {
        match base64::canonical(value.as_str().unwrap_or_default()) {
            Ok(text) => *value = text.into(),
            Err(at) if self.found.type_error.is_none() => {
                let text = format!("illegal base64 data at input byte {at}");
                self.found.type_error = Some(TypeError::same(text));
            }
            Err(_) => {}
        }
    }

    fn note(&mut self, problem: Option<&str>) {
        if let Some(text) = problem
            && self.found.type_error.is_none()
        {
            self.found.type_error = Some(TypeError::same(text.to_owned()));
        }
    }

    fn wrong(&mut self, value: &Value, plain: &str, go_type: &str) {
        if self.found.type_error.is_some() {
            return;
        }
        let what = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let kind = match value {
            Value::Number(n) if n.is_f64() => "float64",
            Value::Number(_) => "int64",
            Value::Array(_) => "slice",
            Value::Object(_) => "map",
            _ => what,
        };
        let converted = match go_type {
            "slice" | "map" => format!("cannot restore {go_type} from {kind}"),
            "string" | "bool" | "int" | "int32" | "int64" | "float64" => {
                format!("unrecognized type: {go_type}")
            }
            _ => format!("cannot restore struct from: {kind}"),
        };
        self.found.type_error = Some(TypeError {
            decoded: format!(
                "json: cannot unmarshal {what} into Go struct field {}.{plain} of type {go_type}",
                self.owner
            ),
            converted,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

    #[test]
    fn unknown_fields_are_named_and_dropped() {
        let mut o = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "creationTimestamp": null, "bogus": 1},
            "spec": {"replicas": 2, "foo": 1, "template": {"spec": {"containers": [
                {"name": "c", "imag": "x", "resources": {"limits": {"cpu": 1}}}]}}}});
        let c = check_builtin(DEPLOYMENT, &mut o);
        assert_eq!(c.type_error, None);
        assert_eq!(
            c.unknown,
            [
                "metadata.bogus",
                "spec.foo",
                "spec.template.spec.containers[0].imag"
            ]
        );
        assert!(o["spec"].get("foo").is_none());
        let container = &o["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["resources"]["limits"]["cpu"], "1");
    }

    #[test]
    fn wrong_types_are_refused_with_the_field() {
        let mut o = json!({"spec": {"replicas": "two"}});
        let c = check_builtin(DEPLOYMENT, &mut o);
        assert_eq!(
            c.type_error.map(|e| (e.decoded, e.converted)),
            Some((
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32".to_owned(),
                "unrecognized type: int32".to_owned()
            ))
        );
        for (object, converted) in [
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "unrecognized type: string",
            ),
            (
                json!({"metadata": {"labels": "a"}}),
                "cannot restore map from string",
            ),
            (
                json!({"metadata": {"finalizers": 1}}),
                "cannot restore slice from int64",
            ),
            (json!({"spec": []}), "cannot restore struct from: slice"),
        ] {
            let mut o = object.clone();
            let found = check_builtin(DEPLOYMENT, &mut o).type_error;
            assert_eq!(
                found.map(|e| e.converted).as_deref(),
                Some(converted),
                "{object}"
            );
        }
    }

    #[test]
    fn quantities_and_bytes_are_read() {
        let mut o = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}});
        let found = check_builtin("io.k8s.api.core.v1.Pod", &mut o).type_error;
        let text = found.map(|e| e.decoded).unwrap_or_default();
        assert!(
            text.starts_with("quantities must match the regular expression '^("),
            "{text}"
        );
        let mut o = json!({"data": {"a": "YWJj\nZA==", "b": "YR=="}});
        let found = check_builtin("io.k8s.api.core.v1.Secret", &mut o);
        assert_eq!(found.type_error, None);
        assert_eq!(o["data"], json!({"a": "YWJjZA==", "b": "YQ=="}));
        let mut o = json!({"data": {"a": "YWJj!"}});
        let found = check_builtin("io.k8s.api.core.v1.Secret", &mut o).type_error;
        assert_eq!(
            found.map(|e| e.decoded).as_deref(),
            Some("illegal base64 data at input byte 4")
        );
    }

    #[test]
    fn a_schema_of_a_crd_passes_whole() {
        let mut o = json!({"spec": {"group": "g", "names": {"kind": "K", "plural": "ks"},
            "scope": "Namespaced", "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "array", "items": {"type": "object", "additionalProperties": true,
                "x-kubernetes-preserve-unknown-fields": true, "default": {"a": 1}}}}}}}]}});
        let before = o.clone();
        let c = check_builtin(
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
            &mut o,
        );
        assert!(c.unknown.is_empty() && c.type_error.is_none(), "{c:?}");
        assert_eq!(o, before);
    }
}
