//! Patches: JSON patch, merge patch, strategic merge patch, server-side apply.

pub mod apply;
pub mod fields;
mod keys;
mod strategic;

use serde_json::{Map, Value};

use super::depth;
use super::error::ApiError;
use super::kinds::Kind;

/// What a PATCH body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// By the `Content-Type` of the request.
    ///
    /// # Errors
    /// 415.
    pub fn parse(content_type: &str) -> Result<Self, ApiError> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Ok(Self::Apply),
            _ => Err(ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

/// Applies a JSON, merge or strategic patch to an object of the given kind.
///
/// # Errors
/// 400 for a malformed patch, 422 for one that does not apply, 415 for a strategic patch of a
/// custom resource.
pub fn apply_to(
    kind: &Kind,
    how: PatchType,
    patch: &Value,
    object: &mut Value,
) -> Result<(), ApiError> {
    match how {
        PatchType::Merge => {
            merge(object, patch);
            Ok(())
        }
        PatchType::Json => json_patch_object(patch, object),
        PatchType::Strategic => {
            if kind.custom {
                return Err(ApiError::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            strategic::apply(
                kind.definition.as_deref().unwrap_or_default(),
                object,
                patch,
            )
            .map_err(ApiError::bad_request)
        }
        PatchType::Apply => Err(ApiError::internal("apply is not a plain patch")),
    }
}

/// Most operations of a JSON patch, as the usual server has it.
const MOST_OPERATIONS: usize = 10_000;
/// Most bytes that the copies of a JSON patch may add, likewise: each may double the object.
const MOST_COPIED: usize = 3 << 20;

/// Applies an RFC 6902 patch, all of it or nothing.
///
/// # Errors
/// 400 when malformed or nested too deep, 413 for too many operations, 422 when it does not apply
/// or copies too much.
pub fn json_patch_object(patch: &Value, object: &mut Value) -> Result<(), ApiError> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    if patch.0.len() > MOST_OPERATIONS {
        let count = patch.0.len();
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {count}"
            ),
        ));
    }
    let refused = |why: &dyn std::fmt::Display| {
        ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {why}"),
        )
    };
    let (mut result, mut copied) = (object.clone(), 0);
    for operation in patch.0 {
        use json_patch::PatchOperation as Op;
        // What is put where, before it makes the object larger.
        let (value, path) = match &operation {
            Op::Add(add) => (Some(&add.value), add.path.as_str()),
            Op::Replace(replace) => (Some(&replace.value), replace.path.as_str()),
            Op::Copy(copy) => (result.pointer(copy.from.as_str()), copy.path.as_str()),
            Op::Move(from) => (result.pointer(from.from.as_str()), from.path.as_str()),
            Op::Remove(_) | Op::Test(_) => (None, ""),
        };
        if let Some(value) = value {
            depth::check_at(value, path.matches('/').count())?;
            if matches!(operation, Op::Copy(_)) {
                copied += value.to_string().len();
            }
        }
        if copied > MOST_COPIED {
            return Err(refused(&format_args!(
                "unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MOST_COPIED}"
            )));
        }
        json_patch::patch(&mut result, std::slice::from_ref(&operation))
            .map_err(|e| refused(&e))?;
    }
    *object = result;
    Ok(())
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(map) = target {
        for (k, v) in patch {
            if v.is_null() {
                map.shift_remove(k);
            } else {
                merge(map.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
    }
}

/// A value as the usual server prints the strategic patch it refuses: `map[spec:map[replicas:two]]`.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", texts.join(" "))
        }
        Value::Object(map) => {
            let mut texts: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}:{}", go_text(v)))
                .collect();
            texts.sort_unstable();
            format!("map[{}]", texts.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches_are_shown_as_maps() {
        let patch =
            json!({"spec": {"replicas": "two", "paused": true}, "l": [1, null, {"a": 1.5}]});
        assert_eq!(
            go_text(&patch),
            "map[l:[1 <nil> map[a:1.5]] spec:map[paused:true replicas:two]]"
        );
    }

    #[test]
    fn a_patch_cannot_grow_without_end() {
        // Doubling sixty times would fill any memory.
        let wide: Vec<Value> = (0..60)
            .map(|n| json!({"op": "copy", "from": "/l", "path": format!("/l/{n}")}))
            .collect();
        let mut object = json!({"l": {}});
        let before = object.clone();
        let error = json_patch_object(&wide.into(), &mut object).expect_err("refused");
        assert_eq!((error.code, &object), (422, &before), "{}", error.message);
        let deep: Vec<Value> = (1..200)
            .map(|n| json!({"op": "add", "path": "/l".repeat(n), "value": {}}))
            .collect();
        let error = json_patch_object(&deep.into(), &mut object).expect_err("refused");
        assert_eq!((error.code, &object), (400, &before), "{}", error.message);
        let flat: Vec<Value> = (0..100)
            .map(|n| json!({"op": "copy", "from": "/big", "path": format!("/l/{n}")}))
            .collect();
        let mut object = json!({"l": {}, "big": "x".repeat(100_000)});
        let error = json_patch_object(&flat.into(), &mut object).expect_err("refused");
        assert_eq!(error.code, 422, "{}", error.message);
        assert!(error.message.contains("accumulated size"));
        assert_eq!(object["l"], json!({}), "all or nothing");
    }

    #[test]
    fn merge_patch_follows_rfc_7386() {
        let mut v = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(
            &mut v,
            &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]}),
        );
        assert_eq!(v, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
    }
}
