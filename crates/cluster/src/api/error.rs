//! Errors as the Kubernetes API gives them: a `Status` with code, reason, message and details.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::resource::Resource;

/// A failed request: the parts of a `v1` `Status` object.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason such as `NotFound`; may be empty (a webhook's denial).
    pub reason: Cow<'static, str>,
    /// Text for people; the forms are Kubernetes' own.
    pub message: String,
    /// The Status `details` object, when there is one.
    pub details: Option<Box<Value>>,
}

/// One cause of a 422: a field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    pub reason: &'static str,
    /// Text without the field's path.
    pub message: String,
    /// Path such as `spec.ports[0].port`.
    pub field: String,
}

impl Cause {
    fn new(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self {
            reason,
            message,
            field: field.into(),
        }
    }

    /// `Invalid value: <json>: why`.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value}: {why}"),
        )
    }

    /// `Invalid value: "object": why`: the form used for CEL rules and whole objects.
    pub fn invalid_object(field: impl Into<String>, kind: &str, why: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {kind:?}: {why}"),
        )
    }

    /// `Required value[: why]`.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self::new("FieldValueRequired", field, message)
    }

    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        Self::new(
            "FieldValueNotSupported",
            field,
            format!(
                "Unsupported value: {value}: supported values: {}",
                list.join(", ")
            ),
        )
    }

    /// `Forbidden: why`.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    /// `Duplicate value: <json>`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {value}"),
        )
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {max} bytes"),
        )
    }

    /// `Too many: n: must have at most max items`.
    pub fn too_many(field: impl Into<String>, count: usize, max: usize) -> Self {
        Self::new(
            "FieldValueTooMany",
            field,
            format!("Too many: {count}: must have at most {max} items"),
        )
    }

    /// `Invalid value: "x": why` with reason `FieldValueTypeInvalid`.
    pub fn wrong_type(field: impl Into<String>, actual: &str, why: &str) -> Self {
        Self::new(
            "FieldValueTypeInvalid",
            field,
            format!("Invalid value: {actual:?}: {why}"),
        )
    }
}

impl ApiError {
    /// An error with the given parts and no details.
    pub fn new(
        code: u16,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
        }
    }

    fn with_object(mut self, res: &Resource, name: &str) -> Self {
        let mut d = Map::new();
        if !name.is_empty() {
            d.insert("name".into(), name.into());
        }
        if !res.group.is_empty() {
            d.insert("group".into(), res.group.as_ref().into());
        }
        d.insert("kind".into(), res.plural.as_ref().into());
        self.details = Some(Box::new(Value::Object(d)));
        self
    }

    /// 404 for an object.
    pub fn not_found(res: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{res} {name:?} not found")).with_object(res, name)
    }

    /// 404 for a path that names nothing.
    pub fn unknown_path() -> Self {
        let mut e = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        e.details = Some(Box::new(json!({})));
        e
    }

    /// 409 for a create of what is there already.
    pub fn already_exists(res: &Resource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{res} {name:?} already exists"),
        )
        .with_object(res, name)
    }

    /// 409 for a stale resource version or a failed precondition.
    pub fn conflict(res: &Resource, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {res} {name:?}: {why}"),
        )
        .with_object(res, name)
    }

    /// 409 with the usual text of a stale resource version.
    pub fn modified(res: &Resource, name: &str) -> Self {
        Self::conflict(
            res,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 about an object.
    pub fn forbidden(res: &Resource, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{res} is forbidden: {why}")
        } else {
            format!("{res} {name:?} is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message).with_object(res, name)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401 `Unauthorized`.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_empty_details()
    }

    /// 406 that names the media types there are.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!(
                "only the following media types are accepted: {}",
                offered.join(", ")
            ),
        )
    }

    /// 504 for a read at a version that is yet to come.
    pub fn version_too_large(wanted: u64, current: u64) -> Self {
        let mut e = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {wanted}, current: {current}"),
        );
        e.details = Some(Box::new(json!({"causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1})));
        e
    }

    /// Seconds after which the client may ask again, when the error says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let told = self.details.as_ref()?.get("retryAfterSeconds")?;
        told.as_u64().filter(|seconds| *seconds > 0)
    }

    /// 410 with reason `Expired`.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 500 `Internal error occurred: ..`.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let mut e = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {why}"),
        );
        e.details = Some(Box::new(json!({"causes": [{"message": why.to_string()}]})));
        e
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 422 with its causes; `group` and `kind` are the object's.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|c| {
                if c.field.is_empty() {
                    c.message.clone()
                } else {
                    format!("{}: {}", c.field, c.message)
                }
            })
            .collect();
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let shown = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut details = Map::new();
        for (field, text) in [("name", name), ("group", group), ("kind", kind)] {
            if !text.is_empty() {
                details.insert(field.into(), text.into());
            }
        }
        let list: Vec<Value> = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        details.insert("causes".into(), Value::Array(list));
        Self {
            code: 422,
            reason: "Invalid".into(),
            message: format!("{shown} {name:?} is invalid: {text}"),
            details: Some(Box::new(Value::Object(details))),
        }
    }

    fn with_empty_details(mut self) -> Self {
        self.details = Some(Box::new(json!({})));
        self
    }

    /// The `v1` Status object that HTTP clients receive.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut m = Map::new();
        m.insert("kind".into(), "Status".into());
        m.insert("apiVersion".into(), "v1".into());
        m.insert("metadata".into(), json!({}));
        m.insert("status".into(), "Failure".into());
        m.insert("message".into(), self.message.clone().into());
        if !self.reason.is_empty() {
            m.insert("reason".into(), self.reason.as_ref().into());
        }
        if let Some(d) = &self.details {
            m.insert("details".into(), d.as_ref().clone());
        }
        m.insert("code".into(), self.code.into());
        Value::Object(m)
    }

    /// The object (or path) does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// A create met an object of that name.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code == 409 && self.reason == "AlreadyExists"
    }

    /// A write lost against another one: read again and retry.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// The asked resource version is gone: list again.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }
}
