//! Patches: JSON patch, merge patch, strategic merge patch, server-side apply.

pub mod apply;
pub mod fields;
mod keys;
mod strategic;

use serde_json::{Map, Value};

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

fn json_patch_object(patch: &Value, object: &mut Value) -> Result<(), ApiError> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    json_patch::patch(object, &patch).map_err(|e| {
        ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {e}"),
        )
    })
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
    fn merge_patch_follows_rfc_7386() {
        let mut v = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(
            &mut v,
            &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]}),
        );
        assert_eq!(v, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
    }
}
