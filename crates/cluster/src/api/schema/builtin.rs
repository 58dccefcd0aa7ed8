//! OpenAPI definitions of the built-in kinds, generated once from their typed forms.

use std::collections::HashMap;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::api::kinds::ROWS;

/// Where definitions live in an OpenAPI v3 document.
const PREFIX: &str = "#/components/schemas/";

struct Builtin {
    definitions: Map<String, Value>,
    of_kind: HashMap<(&'static str, &'static str), String>,
}

static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| {
    let mut generator = SchemaSettings::draft07()
        .with(|s| s.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut of_kind = HashMap::new();
    for row in ROWS {
        if let Some(add) = row.schema {
            let schema = add(&mut generator);
            if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
                let name = name.strip_prefix(PREFIX).unwrap_or(name);
                of_kind.insert((row.group, row.plural), name.to_owned());
            }
        }
    }
    Builtin {
        definitions: generator.take_definitions(true),
        of_kind,
    }
});

/// The definition's name of a built-in kind.
pub fn definition_of(group: &str, plural: &str) -> Option<String> {
    BUILTIN
        .of_kind
        .iter()
        .find(|((g, p), _)| *g == group && *p == plural)
        .map(|(_, name)| name.clone())
}

/// A definition by name.
pub fn definition(name: &str) -> Option<&'static Value> {
    BUILTIN.definitions.get(name)
}

/// The name a schema node refers to, directly or through a single `allOf`.
pub fn reference(node: &Value) -> Option<&str> {
    let r = node.get("$ref").or_else(|| {
        node.get("allOf")
            .and_then(Value::as_array)
            .and_then(|a| a.first())
            .and_then(|n| n.get("$ref"))
    })?;
    let r = r.as_str()?;
    Some(r.strip_prefix(PREFIX).unwrap_or(r))
}
