//! CEL rules of custom resources (`x-kubernetes-validations`).

use kube_cel::{CompiledSchema, Validator};
use serde_json::Value;

use crate::api::error::Cause;

/// Runs all rules of a schema on an object; `old` enables transition rules.
pub(super) fn run(compiled: &CompiledSchema, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Err(errors) = Validator::new().validate_compiled(compiled, object, old) else {
        return Vec::new();
    };
    errors
        .into_vec()
        .into_iter()
        .map(|e| cause(object, &e))
        .collect()
}

fn cause(object: &Value, e: &kube_cel::ValidationError) -> Cause {
    let field = e.field_path.trim_start_matches('.').to_owned();
    match e.reason.as_deref() {
        Some("FieldValueRequired") => Cause::required(field, &e.message),
        Some("FieldValueForbidden") => Cause::forbidden(field, &e.message),
        Some("FieldValueDuplicate") => Cause::duplicate(field.clone(), at(object, &field)),
        _ => {
            let kind = match at(object, &field) {
                Value::Object(_) | Value::Null => "object",
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "boolean",
                Value::Number(n) if n.is_f64() => "number",
                Value::Number(_) => "integer",
            };
            Cause::invalid_object(field, kind, &e.message)
        }
    }
}

/// The value at a path such as `spec.http[0].route`; null when there is none.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    let mut here = object;
    for part in path.split(['.', '[']).filter(|p| !p.is_empty()) {
        here = match part.strip_suffix(']') {
            Some(i) => i
                .parse::<usize>()
                .ok()
                .and_then(|i| here.get(i))
                .unwrap_or(&Value::Null),
            None => here.get(part).unwrap_or(&Value::Null),
        };
    }
    here
}
