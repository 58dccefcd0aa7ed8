//! Whether the schemas of a definition are structural: every node says its type, its patterns and
//! its CEL rules can be compiled. The served API refuses definitions in which that is not so.

use serde_json::{Value, json};

use super::pattern;
use crate::api::error::Cause;

/// Types a node may have.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Levels looked into; a definition's depth is bounded at decoding, this bounds our own stack.
const MAX_DEPTH: usize = 200;

/// What is wrong with the schemas of a definition's versions.
#[must_use]
pub fn schema_problems(crd: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    for (i, version) in versions.enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_object() {
            let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
            node(schema, &path, "at the root", 0, &mut out);
        }
    }
    out
}

/// `place` completes "must not be empty".
fn node(schema: &Value, path: &str, place: &str, depth: usize, out: &mut Vec<Cause>) {
    if depth > MAX_DEPTH {
        out.push(Cause::forbidden(path, "the schema is nested too deep"));
        return;
    }
    kind(schema, path, place, out);
    conditions(schema, path, depth, out);
    if let Some(properties) = schema["properties"].as_object() {
        let field = "for specified object fields";
        for (name, below) in properties {
            let at = format!("{path}.properties[{name}]");
            node(below, &at, field, depth + 1, out);
        }
        if schema["additionalProperties"].is_object() && !properties.is_empty() {
            let why = "additionalProperties and properties are mutual exclusive";
            out.push(Cause::forbidden(
                format!("{path}.additionalProperties"),
                why,
            ));
        }
    }
    if schema["additionalProperties"].is_object() {
        let at = format!("{path}.additionalProperties");
        let field = "for specified object fields";
        node(&schema["additionalProperties"], &at, field, depth + 1, out);
    }
    if schema["items"].is_object() {
        let at = format!("{path}.items");
        let item = "for specified array items";
        node(&schema["items"], &at, item, depth + 1, out);
    }
    rules(schema, path, out);
}

fn kind(schema: &Value, path: &str, place: &str, out: &mut Vec<Cause>) {
    let is = |mark: &str| schema[mark] == true;
    let named = schema["type"].as_str().unwrap_or_default();
    let at = format!("{path}.type");
    if named.is_empty() {
        let free = is("x-kubernetes-int-or-string") || is("x-kubernetes-preserve-unknown-fields");
        // An absent root type is told about with the definition's other fields.
        if !free && place != "at the root" {
            out.push(Cause::required(at, &format!("must not be empty {place}")));
        }
    } else if !TYPES.contains(&named) {
        out.push(Cause::not_supported(at, &schema["type"], &TYPES));
    }
    if named == "array" && schema["items"].is_null() {
        out.push(Cause::required(
            format!("{path}.items"),
            "must be specified",
        ));
    }
}

/// Patterns here and in the conditions (`allOf`, ...), whose nodes need no types.
fn conditions(schema: &Value, path: &str, depth: usize, out: &mut Vec<Cause>) {
    if let Some(text) = schema["pattern"].as_str()
        && let Some(why) = pattern::syntax_error(text)
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        out.push(Cause::invalid(
            format!("{path}.pattern"),
            &schema["pattern"],
            &why,
        ));
    }
    for group in ["allOf", "anyOf", "oneOf"] {
        for (i, below) in schema[group].as_array().into_iter().flatten().enumerate() {
            condition(below, &format!("{path}.{group}[{i}]"), depth + 1, out);
        }
    }
    if schema["not"].is_object() {
        condition(&schema["not"], &format!("{path}.not"), depth + 1, out);
    }
}

fn condition(schema: &Value, path: &str, depth: usize, out: &mut Vec<Cause>) {
    if depth > MAX_DEPTH {
        out.push(Cause::forbidden(path, "the schema is nested too deep"));
        return;
    }
    conditions(schema, path, depth, out);
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{path}.properties[{name}]");
        condition(below, &at, depth + 1, out);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            condition(&schema[below], &format!("{path}.{below}"), depth + 1, out);
        }
    }
}

fn rules(schema: &Value, path: &str, out: &mut Vec<Cause>) {
    let list = &schema["x-kubernetes-validations"];
    if !list.is_array() {
        return;
    }
    let compiled = kube_cel::compile_schema(&json!({"x-kubernetes-validations": list}));
    for (i, rule) in compiled.validations.iter().enumerate() {
        let Err(why) = rule else { continue };
        let field = match why {
            kube_cel::CompilationError::MessageExpressionParse { .. } => "messageExpression",
            _ => "rule",
        };
        out.push(Cause::invalid(
            format!("{path}.x-kubernetes-validations[{i}].{field}"),
            &list[i][field],
            &format!("compilation failed: {why}"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(schema: Value) -> Vec<String> {
        let crd = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
        let said = |c: Cause| {
            let field = c
                .field
                .replace("spec.versions[0].schema.openAPIV3Schema", "");
            format!("{field}: {}", c.message)
        };
        schema_problems(&crd).into_iter().map(said).collect()
    }

    #[test]
    fn every_node_needs_a_type() {
        let missing = "Required value: must not be empty for specified object fields";
        let found = texts(json!({"type": "object", "properties": {
            "spec": {"properties": {"a": {"type": "string"}}},
            "list": {"type": "array", "items": {"minLength": 1}},
            "bare": {"type": "array"},
            "map": {"type": "object", "additionalProperties": {}},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "odd": {"type": "text"}}}));
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found.contains(&format!(".properties[spec].type: {missing}")));
        assert!(found.contains(&format!(
            ".properties[map].additionalProperties.type: {missing}"
        )));
        assert!(found.contains(
            &".properties[list].items.type: Required value: must not be empty for specified array items"
                .to_owned()
        ));
        assert!(
            found
                .contains(&".properties[bare].items: Required value: must be specified".to_owned())
        );
        assert!(
            found
                .iter()
                .any(|t| t.starts_with(".properties[odd].type: Unsupported value: \"text\"")),
            "{found:#?}"
        );
    }

    #[test]
    fn patterns_and_rules_compile() {
        let found = texts(json!({"type": "object", "properties": {
            "a": {"type": "string", "pattern": "("},
            "b": {"type": "object", "oneOf": [{"properties": {"c": {"pattern": "["}}}]}},
            "x-kubernetes-validations": [{"rule": "has(self.a)"}, {"rule": "self.nope +++"},
                {"rule": "true", "messageExpression": "'"}]}));
        let fields: Vec<&str> = found.iter().filter_map(|t| t.split(": ").next()).collect();
        assert_eq!(
            fields,
            [
                ".properties[a].pattern",
                ".properties[b].oneOf[0].properties[c].pattern",
                ".x-kubernetes-validations[1].rule",
                ".x-kubernetes-validations[2].messageExpression",
            ],
            "{found:#?}"
        );
        assert!(found[2].contains("compilation failed"), "{found:#?}");
    }
}
