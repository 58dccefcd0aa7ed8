//! Shapes of the kinds, derived from the types, and the walk that compares a
//! value with one: wrong types, ranges, unknown words and unknown fields, each
//! with its path. The walk also brings values to one form: `snake_case` field
//! names (protobuf admits both) become `camelCase`, nulls go.

use crate::proto::Duration;
use crate::yaml::child;
use crate::{Kind, ObjectMeta, istio, kubernetes};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// A difference between a value and its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Field path.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub remedy: String,
    /// An unknown field: the rest of the object can still be read.
    pub unknown_field: bool,
}

/// A shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Anything.
    Any,
    /// `true` or `false`.
    Bool,
    /// Text.
    Text,
    /// A duration.
    Duration,
    /// One of some words.
    Words(Vec<String>),
    /// A whole number in a range.
    Integer(i128, i128),
    /// A number.
    Number,
    /// A list.
    List(Box<Shape>),
    /// Any names with values of one shape.
    Map(Box<Shape>),
    /// Known fields.
    Fields(BTreeMap<String, Shape>),
    /// Any of these.
    Either(Vec<Shape>),
}

/// The JSON schema of a type with everything in place, without titles,
/// defaults and null alternatives.
pub fn json_schema_of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut value = schema.to_value();
    tidy(&mut value);
    value
}

/// Removes what only documents Rust: titles, defaults, null types; turns
/// one-word alternatives into word lists.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            tidy_schema(map);
            for (key, v) in map.iter_mut() {
                // Properties are named by users' words, not by schema words.
                if key == "properties" {
                    if let Value::Object(fields) = v {
                        fields.values_mut().for_each(tidy);
                    }
                } else if key != "enum" {
                    tidy(v);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_schema(map: &mut Map<String, Value>) {
    map.shift_remove("title");
    map.shift_remove("default");
    if let Some(Value::Array(types)) = map.get("type") {
        let real: Vec<&Value> = types.iter().filter(|t| *t != "null").collect();
        if let [one] = real[..] {
            let one = one.clone();
            map.insert("type".into(), one);
        }
    }
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(list)) = map.get(key) else {
            continue;
        };
        let real: Vec<Value> = list
            .iter()
            .filter(|v| v.get("type") != Some(&"null".into()))
            .cloned()
            .collect();
        if let [Value::Object(one)] = &real[..] {
            let one = one.clone();
            map.shift_remove(key);
            for (k, v) in one {
                map.entry(k).or_insert(v);
            }
            return tidy_schema(map);
        }
        let words: Option<Vec<Value>> = real
            .iter()
            .map(|v| match (v.get("const"), v.get("enum")) {
                (Some(c), _) => Some(vec![c.clone()]),
                (None, Some(Value::Array(e))) => Some(e.clone()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(|l| l.concat());
        if let Some(words) = words {
            map.shift_remove(key);
            map.insert("type".into(), "string".into());
            map.insert("enum".into(), Value::Array(words));
            return;
        }
    }
    if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.retain(|w| !w.is_null());
    }
}

impl Shape {
    /// The shape of a type.
    pub fn of<T: JsonSchema>() -> Shape {
        Shape::from_schema(&json_schema_of::<T>())
    }

    fn from_schema(schema: &Value) -> Shape {
        let get = |k: &str| schema.get(k);
        if let Some(Value::Array(words)) = get("enum") {
            return Shape::Words(
                words
                    .iter()
                    .filter_map(Value::as_str)
                    .map(String::from)
                    .collect(),
            );
        }
        if let Some(Value::Array(list)) = get("anyOf").or_else(|| get("oneOf")) {
            return Shape::Either(list.iter().map(Shape::from_schema).collect());
        }
        match get("type").and_then(Value::as_str) {
            Some("boolean") => Shape::Bool,
            Some("string") if get("format") == Some(&"duration".into()) => Shape::Duration,
            Some("string") => Shape::Text,
            Some("number") => Shape::Number,
            Some("integer") => match get("format").and_then(Value::as_str) {
                Some("uint32") => Shape::Integer(0, u32::MAX.into()),
                Some("uint64") => Shape::Integer(0, u64::MAX.into()),
                Some("int32") => Shape::Integer(i32::MIN.into(), i32::MAX.into()),
                _ => Shape::Integer(i64::MIN.into(), i64::MAX.into()),
            },
            Some("array") => Shape::List(Box::new(
                get("items").map_or(Shape::Any, Shape::from_schema),
            )),
            Some("object") => match (get("properties"), get("additionalProperties")) {
                (Some(Value::Object(p)), _) => Shape::Fields(
                    p.iter()
                        .map(|(k, v)| (k.clone(), Shape::from_schema(v)))
                        .collect(),
                ),
                (_, Some(v)) => Shape::Map(Box::new(Shape::from_schema(v))),
                _ => Shape::Map(Box::new(Shape::Any)),
            },
            _ => Shape::Any,
        }
    }

    /// What the shape is, in words.
    fn describe(&self) -> String {
        match self {
            Shape::Any => "anything".into(),
            Shape::Bool => "true or false".into(),
            Shape::Text => "a string".into(),
            Shape::Duration => "a duration such as \"10s\"".into(),
            Shape::Words(w) => format!("one of {}", w.join(", ")),
            Shape::Integer(..) => "a whole number".into(),
            Shape::Number => "a number".into(),
            Shape::List(_) => "a list".into(),
            Shape::Map(_) | Shape::Fields(_) => "an object".into(),
            Shape::Either(list) => list
                .iter()
                .map(Shape::describe)
                .collect::<Vec<_>>()
                .join(" or "),
        }
    }
}

/// Walks a value along its shape, normalises it and notes every difference.
/// `strict` reports unknown fields.
pub fn walk(shape: &Shape, value: &mut Value, path: &str, strict: bool, out: &mut Vec<Problem>) {
    let mut wrong = |value: &Value| {
        out.push(Problem {
            path: path.to_owned(),
            message: format!("must be {}, is {}", shape.describe(), brief(value)),
            remedy: match (shape, value) {
                (Shape::Text, Value::Number(_) | Value::Bool(_)) => {
                    format!("quote it: \"{value}\"")
                }
                _ => String::new(),
            },
            unknown_field: false,
        });
    };
    match (shape, &mut *value) {
        (Shape::Any, _) | (Shape::Bool, Value::Bool(_)) | (Shape::Text, Value::String(_)) => {}
        (Shape::Number, Value::Number(_)) => {}
        (Shape::Duration, Value::String(text)) => {
            if let Err(e) = Duration::parse(text) {
                out.push(Problem {
                    path: path.to_owned(),
                    message: e.to_string(),
                    remedy: String::new(),
                    unknown_field: false,
                });
            }
        }
        (Shape::Words(words), Value::String(text)) => {
            if !words.contains(text) {
                wrong(value);
            }
        }
        (Shape::Integer(min, max), Value::Number(n)) => match whole(n) {
            Some(n) if n >= *min && n <= *max => *value = number(n),
            Some(n) => out.push(Problem {
                path: path.to_owned(),
                message: format!("{n} is out of range: must be {min} to {max}"),
                remedy: String::new(),
                unknown_field: false,
            }),
            None => wrong(value),
        },
        (Shape::List(item), Value::Array(list)) => {
            for (i, v) in list.iter_mut().enumerate() {
                walk(item, v, &format!("{path}[{i}]"), strict, out);
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            map.retain(|_, v| !v.is_null());
            for (k, v) in map.iter_mut() {
                walk(item, v, &child(path, k), strict, out);
            }
        }
        (Shape::Fields(fields), Value::Object(map)) => {
            walk_fields(fields, map, path, strict, out);
        }
        (Shape::Either(list), _) => {
            let fits = list.iter().find(|s| {
                let mut problems = Vec::new();
                walk(s, &mut value.clone(), path, strict, &mut problems);
                problems.is_empty()
            });
            match fits {
                Some(s) => walk(s, value, path, strict, out),
                None => wrong(value),
            }
        }
        _ => wrong(value),
    }
}

fn walk_fields(
    fields: &BTreeMap<String, Shape>,
    map: &mut Map<String, Value>,
    path: &str,
    strict: bool,
    out: &mut Vec<Problem>,
) {
    map.retain(|_, v| !v.is_null());
    let odd: Vec<String> = map
        .keys()
        .filter(|k| !fields.contains_key(*k))
        .cloned()
        .collect();
    for key in odd {
        let camel = camel(&key);
        if fields.contains_key(&camel) && !map.contains_key(&camel) {
            if let Some(v) = map.shift_remove(&key) {
                map.insert(camel, v);
            }
        } else if strict {
            out.push(Problem {
                path: child(path, &key),
                message: format!("unknown field {key:?}"),
                remedy: suggest(&key, fields),
                unknown_field: true,
            });
        }
    }
    for (k, v) in map.iter_mut() {
        if let Some(shape) = fields.get(k) {
            walk(shape, v, &child(path, k), strict, out);
        }
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Null => "empty".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(s) if s.chars().count() > 60 => "a long string".into(),
        other => other.to_string(),
    }
}

fn whole(n: &serde_json::Number) -> Option<i128> {
    if let Some(i) = n.as_i64() {
        return Some(i.into());
    }
    if let Some(u) = n.as_u64() {
        return Some(u.into());
    }
    n.as_f64()
        .filter(|f| f.fract() == 0.0 && f.abs() < 1e18)
        .map(|f| f as i128)
}

fn number(n: i128) -> Value {
    i64::try_from(n)
        .map(Value::from)
        .or_else(|_| u64::try_from(n).map(Value::from))
        .unwrap_or(Value::Null)
}

/// `snake_case` to `camelCase`.
pub fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        if c == '_' {
            upper = !out.is_empty();
        } else if upper {
            out.extend(c.to_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

fn suggest(key: &str, fields: &BTreeMap<String, Shape>) -> String {
    let near = fields
        .keys()
        .map(|f| (distance(&key.to_lowercase(), &f.to_lowercase()), f))
        .min()
        .filter(|(d, f)| *d <= 1 + f.len() / 4);
    match near {
        Some((_, f)) => format!("did you mean {f:?}?"),
        None if fields.len() <= 20 => {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            format!("known fields here: {}", known.join(", "))
        }
        None => String::new(),
    }
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The JSON schema of a kind's `spec`; `None` for kinds whose spec is kept as it is.
pub fn spec_schema(kind: Kind) -> Option<Value> {
    Some(match kind {
        Kind::Gateway => json_schema_of::<istio::Gateway>(),
        Kind::VirtualService => json_schema_of::<istio::VirtualService>(),
        Kind::DestinationRule => json_schema_of::<istio::DestinationRule>(),
        Kind::ServiceEntry => json_schema_of::<istio::ServiceEntry>(),
        Kind::WorkloadEntry => json_schema_of::<istio::WorkloadEntry>(),
        Kind::Sidecar => json_schema_of::<istio::Sidecar>(),
        _ => return None,
    })
}

/// The shape of what follows `metadata`: the `spec` of Istio kinds, the whole
/// rest of core kinds.
pub fn shape_of(kind: Kind) -> &'static Shape {
    static SHAPES: LazyLock<HashMap<Kind, Shape>> = LazyLock::new(|| {
        crate::kind::KINDS
            .iter()
            .map(|k| (k.kind, build(k.kind)))
            .collect()
    });
    SHAPES.get(&kind).unwrap_or(&Shape::Any)
}

fn build(kind: Kind) -> Shape {
    match kind {
        Kind::Node => Shape::of::<kubernetes::Node>(),
        Kind::Pod => Shape::of::<kubernetes::Pod>(),
        Kind::Service => Shape::of::<kubernetes::Service>(),
        Kind::Endpoints => Shape::of::<kubernetes::Endpoints>(),
        Kind::EndpointSlice => Shape::of::<kubernetes::EndpointSlice>(),
        Kind::ConfigMap => Shape::of::<kubernetes::ConfigMap>(),
        Kind::Secret => Shape::of::<kubernetes::Secret>(),
        Kind::Ingress => Shape::of::<kubernetes::Ingress>(),
        Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::DaemonSet => {
            Shape::of::<kubernetes::Controller>()
        }
        other => spec_schema(other)
            .as_ref()
            .map_or(Shape::Any, Shape::from_schema),
    }
}

/// The shape of `metadata`.
pub fn meta_shape() -> &'static Shape {
    static SHAPE: LazyLock<Shape> = LazyLock::new(Shape::of::<ObjectMeta>);
    &SHAPE
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(kind: Kind, mut v: Value) -> (Value, Vec<(String, String, String)>) {
        let mut out = Vec::new();
        walk(shape_of(kind), &mut v, "spec", true, &mut out);
        (
            v,
            out.into_iter()
                .map(|p| (p.path, p.message, p.remedy))
                .collect(),
        )
    }

    #[test]
    fn both_name_styles_and_nulls() {
        let (v, p) = problems(
            Kind::VirtualService,
            json!({"hosts": ["a"], "export_to": ["."], "gateways": null,
                   "http": [{"direct_response": {"status": 200}}]}),
        );
        assert!(p.is_empty(), "{p:?}");
        assert_eq!(
            v,
            json!({"hosts": ["a"], "exportTo": ["."], "http": [{"directResponse": {"status": 200}}]})
        );
    }

    #[test]
    fn paths_and_suggestions() {
        let (_, p) = problems(
            Kind::VirtualService,
            json!({"hosts": [1], "htp": [], "http": [{"timeout": "5", "route": [{"weight": "x"}]}]}),
        );
        let at = |path: &str| {
            p.iter()
                .find(|(q, ..)| q == path)
                .unwrap_or_else(|| panic!("{p:?}"))
        };
        assert_eq!(at("spec.hosts[0]").2, "quote it: \"1\"");
        assert_eq!(at("spec.htp").2, "did you mean \"http\"?");
        assert!(at("spec.http[0].timeout").1.contains("invalid duration"));
        assert!(
            at("spec.http[0].route[0].weight")
                .1
                .contains("must be a whole number")
        );
        assert_eq!(p.len(), 4);
    }

    #[test]
    fn enums_and_ranges() {
        let (_, p) = problems(
            Kind::Gateway,
            json!({"servers": [{"port": {"number": -1}, "tls": {"mode": "SIMPEL"}}]}),
        );
        assert_eq!(p[0].1, "-1 is out of range: must be 0 to 4294967295");
        assert!(
            p[1].1.starts_with("must be one of PASSTHROUGH, SIMPLE"),
            "{}",
            p[1].1
        );
    }
}
