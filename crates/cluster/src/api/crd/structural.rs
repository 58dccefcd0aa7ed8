//! Structural schemas of custom resources: pruning, defaulting and validation.

use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use super::definition::CrdVersion;
use super::{pattern, rules};
use crate::api::error::Cause;

/// Fields every object has beside its schema.
const TYPE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

/// Drops fields the schema does not specify; returns their paths.
pub fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    prune_at(schema, object, "", true, &mut dropped);
    dropped
}

fn prune_at(schema: &Value, value: &mut Value, path: &str, root: bool, dropped: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let root = root || schema["x-kubernetes-embedded-resource"] == true;
            let props = schema.get("properties").and_then(Value::as_object);
            let each = schema.get("additionalProperties").filter(|a| !a.is_null());
            if !preserves(schema) && each.is_none() {
                map.retain(|k, _| {
                    let known = props.is_some_and(|p| p.contains_key(k))
                        || (root && TYPE_FIELDS.contains(&k.as_str()));
                    if !known {
                        dropped.push(join(path, k));
                    }
                    known
                });
            }
            for (k, v) in map.iter_mut() {
                if root && TYPE_FIELDS.contains(&k.as_str()) {
                    continue;
                }
                let at = join(path, k);
                if let Some(s) = props.and_then(|p| p.get(k)) {
                    prune_at(s, v, &at, false, dropped);
                } else if let Some(s) = each.filter(|e| e.is_object()) {
                    prune_at(s, v, &at, false, dropped);
                }
            }
        }
        Value::Array(items) => {
            if let Some(s) = schema.get("items") {
                for (i, v) in items.iter_mut().enumerate() {
                    prune_at(s, v, &format!("{path}[{i}]"), false, dropped);
                }
            }
        }
        _ => {}
    }
}

/// Drops nulls that are not nullable where a default waits, and fills defaults.
pub fn apply_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(props) = schema.get("properties").and_then(Value::as_object) {
                for (k, s) in props {
                    default_field(k, s, map);
                }
            }
            if let Some(each) = schema.get("additionalProperties").filter(|a| a.is_object()) {
                map.values_mut().for_each(|v| apply_defaults(each, v));
            }
        }
        Value::Array(items) => {
            if let Some(s) = schema.get("items") {
                items.iter_mut().for_each(|v| apply_defaults(s, v));
            }
        }
        _ => {}
    }
}

fn default_field(name: &str, schema: &Value, map: &mut Map<String, Value>) {
    if map.get(name).is_some_and(Value::is_null) && schema["nullable"] != true {
        map.shift_remove(name);
    }
    if !map.contains_key(name)
        && let Some(default) = schema.get("default")
    {
        map.insert(name.to_owned(), default.clone());
    }
    if let Some(v) = map.get_mut(name) {
        apply_defaults(schema, v);
    }
}

/// Checks an object against the schema and its CEL rules (`old` on update).
pub fn validate(version: &CrdVersion, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut out = Vec::new();
    node(&version.schema, object, "", true, &mut out);
    // Rules read the fields by type: they only make sense on an object of the right shape.
    if out.is_empty()
        && let Some(compiled) = version.rules()
    {
        out = rules::run(compiled, object, old);
    }
    out
}

fn json_type(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_fits(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    let Some(wanted) = schema["type"].as_str() else {
        return true;
    };
    match wanted {
        "number" => value.is_number(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        other => json_type(value) == other,
    }
}

fn node(schema: &Value, value: &Value, path: &str, root: bool, out: &mut Vec<Cause>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if !type_fits(schema, value) {
        let wanted = if schema["x-kubernetes-int-or-string"] == true {
            "integer,string"
        } else {
            schema["type"].as_str().unwrap_or_default()
        };
        let actual = json_type(value);
        out.push(Cause::wrong_type(
            path,
            actual,
            &format!("{path} in body must be of type {wanted}: {actual:?}"),
        ));
        return;
    }
    scalar(schema, value, path, out);
    match value {
        Value::Object(map) => object(schema, map, path, root, out),
        Value::Array(items) => array(schema, items, path, out),
        _ => {}
    }
    combinations(schema, value, path, out);
}

fn object(schema: &Value, map: &Map<String, Value>, path: &str, root: bool, out: &mut Vec<Cause>) {
    for field in schema["required"].as_array().into_iter().flatten() {
        let field = field.as_str().unwrap_or_default();
        if !map.contains_key(field) {
            out.push(Cause::required(join(path, field), ""));
        }
    }
    let count = map.len() as u64;
    if schema["minProperties"].as_u64().is_some_and(|m| count < m) {
        let why = format!(
            "{path} in body should have at least {} properties",
            schema["minProperties"]
        );
        out.push(Cause::invalid(path, &count.into(), &why));
    }
    if let Some(max) = schema["maxProperties"].as_u64()
        && count > max
    {
        out.push(Cause::too_many(
            path,
            map.len(),
            usize::try_from(max).unwrap_or(usize::MAX),
        ));
    }
    let props = schema.get("properties").and_then(Value::as_object);
    let each = schema.get("additionalProperties").filter(|a| a.is_object());
    for (k, v) in map {
        if root && TYPE_FIELDS.contains(&k.as_str()) {
            continue;
        }
        if let Some(s) = props.and_then(|p| p.get(k)) {
            node(s, v, &join(path, k), false, out);
        } else if let Some(s) = each {
            node(s, v, &join(path, k), false, out);
        }
    }
}

fn array(schema: &Value, items: &[Value], path: &str, out: &mut Vec<Cause>) {
    if let Some(min) = schema["minItems"].as_u64()
        && (items.len() as u64) < min
    {
        let why = format!("{path} in body should have at least {min} items");
        out.push(Cause::invalid(path, &items.len().into(), &why));
    }
    if let Some(max) = schema["maxItems"].as_u64()
        && items.len() as u64 > max
    {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        out.push(Cause::too_many(path, items.len(), max));
    }
    if let Some(s) = schema.get("items") {
        for (i, v) in items.iter().enumerate() {
            node(s, v, &format!("{path}[{i}]"), false, out);
        }
    }
    duplicates(schema, items, path, out);
}

fn duplicates(schema: &Value, items: &[Value], path: &str, out: &mut Vec<Cause>) {
    let list_type = schema["x-kubernetes-list-type"]
        .as_str()
        .unwrap_or_default();
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let identity = |v: &Value| match list_type {
        "map" => Some(Value::Object(
            keys.iter()
                .filter_map(|k| Some(((*k).to_owned(), v.get(*k)?.clone())))
                .collect(),
        )),
        "set" => Some(v.clone()),
        _ if schema["uniqueItems"] == true => Some(v.clone()),
        _ => None,
    };
    let mut seen: Vec<Value> = Vec::new();
    for (i, v) in items.iter().enumerate() {
        let Some(id) = identity(v) else { return };
        if seen.contains(&id) {
            out.push(Cause::duplicate(format!("{path}[{i}]"), &id));
        } else {
            seen.push(id);
        }
    }
}

fn scalar(schema: &Value, value: &Value, path: &str, out: &mut Vec<Cause>) {
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        out.push(Cause::not_supported(path, value, &names));
    }
    if let Some(n) = value.as_f64() {
        number(schema, value, n, path, out);
    }
    let Some(s) = value.as_str() else { return };
    let length = s.chars().count() as u64;
    if let Some(min) = schema["minLength"].as_u64()
        && length < min
    {
        let why = format!("{path} in body should be at least {min} chars long");
        out.push(Cause::invalid(path, value, &why));
    }
    if let Some(max) = schema["maxLength"].as_u64()
        && length > max
    {
        out.push(Cause::too_long(
            path,
            usize::try_from(max).unwrap_or(usize::MAX),
        ));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !pattern_matches(pattern, s)
    {
        let why = format!("{path} in body should match '{pattern}'");
        out.push(Cause::invalid(path, value, &why));
    }
    if let Some(format) = schema["format"].as_str()
        && !format_matches(format, s)
    {
        let why = format!("{path} in body must be of type {format}: {s:?}");
        out.push(Cause::invalid(path, value, &why));
    }
}

fn number(schema: &Value, value: &Value, n: f64, path: &str, out: &mut Vec<Cause>) {
    if let Some(min) = schema["minimum"].as_f64() {
        let strict = schema["exclusiveMinimum"] == true;
        if n < min || (strict && n <= min) {
            let word = if strict {
                "greater than"
            } else {
                "greater than or equal to"
            };
            let why = format!("{path} in body should be {word} {}", schema["minimum"]);
            out.push(Cause::invalid(path, value, &why));
        }
    }
    if let Some(max) = schema["maximum"].as_f64() {
        let strict = schema["exclusiveMaximum"] == true;
        if n > max || (strict && n >= max) {
            let word = if strict {
                "less than"
            } else {
                "less than or equal to"
            };
            let why = format!("{path} in body should be {word} {}", schema["maximum"]);
            out.push(Cause::invalid(path, value, &why));
        }
    }
    if let Some(of) = schema["multipleOf"].as_f64()
        && of > 0.0
        && (n / of).fract().abs() > 1e-9
    {
        let why = format!(
            "{path} in body should be a multiple of {}",
            schema["multipleOf"]
        );
        out.push(Cause::invalid(path, value, &why));
    }
}

/// Patterns with their compiled form; `None` for one that is not understood.
type Patterns = Vec<(String, Option<Regex>)>;
/// Compiled patterns, most recent last; schemas have few different ones.
static PATTERNS: LazyLock<Mutex<Patterns>> = LazyLock::new(Mutex::default);
const PATTERNS_KEPT: usize = 256;

fn pattern_matches(wanted: &str, text: &str) -> bool {
    let mut kept = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, re)) = kept.iter().find(|(p, _)| p == wanted) {
        return re.as_ref().is_none_or(|r| r.is_match(text));
    }
    let re = pattern::compile(wanted).ok();
    if re.is_none() {
        tracing::warn!(
            pattern = wanted,
            "a schema's pattern is not understood and not enforced"
        );
    }
    let ok = re.as_ref().is_none_or(|r| r.is_match(text));
    if kept.len() >= PATTERNS_KEPT {
        kept.remove(0);
    }
    kept.push((wanted.to_owned(), re));
    ok
}

fn format_matches(format: &str, s: &str) -> bool {
    match format {
        "date-time" => s.parse::<jiff::Timestamp>().is_ok(),
        "date" => s.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => s.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => s.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => s.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => s.len() == 36 && s.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
        _ => true,
    }
}

fn passes(schema: &Value, value: &Value) -> bool {
    let mut found = Vec::new();
    node(schema, value, "", false, &mut found);
    found.is_empty()
}

fn combinations(schema: &Value, value: &Value, path: &str, out: &mut Vec<Cause>) {
    if let Some(all) = schema["allOf"].as_array() {
        all.iter().for_each(|s| node(s, value, path, false, out));
    }
    let kind = json_type(value);
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(|s| passes(s, value))
    {
        let why = format!("{path} in body must validate at least one schema (anyOf)");
        out.push(Cause::invalid_object(path, kind, &why));
    }
    if let Some(one) = schema["oneOf"].as_array() {
        let n = one.iter().filter(|s| passes(s, value)).count();
        if n != 1 {
            let how = if n == 0 {
                "Found none valid"
            } else {
                "Found several valid"
            };
            let why = format!(
                "{path} in body must validate one and only one schema (oneOf). {how} alternatives"
            );
            out.push(Cause::invalid_object(path, kind, &why));
        }
    }
    if let Some(not) = schema.get("not").filter(|n| n.is_object())
        && passes(not, value)
    {
        let why = format!("{path} in body must not validate the schema (not)");
        out.push(Cause::invalid_object(path, kind, &why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn version(schema: Value) -> CrdVersion {
        CrdVersion::new(schema, vec![])
    }

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
            "required": ["host"],
            "x-kubernetes-validations": [{"rule": "!has(self.port) || self.port != 25",
                "message": "no mail"}],
            "properties": {
                "host": {"type": "string", "minLength": 1, "pattern": "^[a-z.]+$"},
                "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 80},
                "mode": {"type": "string", "enum": ["A", "B"]},
                "either": {"type": "object", "properties": {"x": {"type": "string"},
                    "y": {"type": "string"}},
                    "oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let s = schema();
        let mut o = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"},
            "spec": {"host": "a", "bogus": 1, "free": {"any": 1}, "port": null}, "extra": 1});
        assert_eq!(prune(&s, &mut o), ["extra", "spec.bogus"]);
        apply_defaults(&s, &mut o);
        assert_eq!(
            o["spec"],
            json!({"host": "a", "free": {"any": 1}, "port": 80})
        );
    }

    #[test]
    fn violations_name_the_field() {
        let v = version(schema());
        let causes = |spec: Value| {
            let o = json!({"metadata": {}, "spec": spec});
            validate(&v, &o, None)
                .into_iter()
                .map(|c| c.field)
                .collect::<Vec<_>>()
        };
        assert!(causes(json!({"host": "a.b"})).is_empty());
        assert_eq!(causes(json!({})), ["spec.host"]);
        assert_eq!(causes(json!({"host": 5})), ["spec.host"]);
        assert_eq!(causes(json!({"host": "A"})), ["spec.host"]);
        assert_eq!(causes(json!({"host": "a", "port": 0})), ["spec.port"]);
        assert_eq!(causes(json!({"host": "a", "mode": "C"})), ["spec.mode"]);
        assert_eq!(
            causes(json!({"host": "a", "either": {"x": "1", "y": "2"}})),
            ["spec.either"]
        );
        assert_eq!(causes(json!({"host": "a", "port": 25})), ["spec"]);
    }

    #[test]
    fn rules_over_old_values_run_on_update_only() {
        let v = version(
            json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"n": {"type": "integer", "x-kubernetes-validations":
                [{"rule": "self >= oldSelf", "message": "may only grow"}]}}}}}),
        );
        let (a, b) = (json!({"spec": {"n": 5}}), json!({"spec": {"n": 4}}));
        assert!(validate(&v, &b, None).is_empty());
        let causes = validate(&v, &b, Some(&a));
        assert_eq!(causes.len(), 1, "{causes:?}");
        assert_eq!(causes[0].field, "spec.n");
        assert_eq!(
            causes[0].message,
            "Invalid value: \"integer\": may only grow"
        );
    }
}
