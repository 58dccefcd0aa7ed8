//! From a request's body to an object that may be stored: place, schema, defaults, admission,
//! validation.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::admit::{self, Attributes, Operation, Webhooks};
use super::carry::restore_owned;
use super::core::{Core, FieldValidation, Patched, RequestInfo};
use super::error::{ApiError, Cause};
use super::kinds::{Kind, Target};
use super::resource::{CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, SERVICES};
use super::{crd, defaults, meta, schema, services, validate};

/// The body names the kind it is sent to; what it leaves out is filled in.
pub(crate) fn check_type(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request(
            "the object provided is not a JSON object",
        ));
    };
    let api_version = target.api_version();
    let given = map
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !given.is_empty() && given != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({api_version})"
        )));
    }
    let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !kind.is_empty() && kind != target.kind.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: converting (v1.{kind}) to (v1.{}): unknown conversion",
            target.version, target.kind.kind, target.kind.kind
        )));
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), target.kind.kind.as_str().into());
    let slot = map.entry("metadata").or_insert_with(|| json!({}));
    if slot.is_null() {
        *slot = json!({});
    }
    if !slot.is_object() {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    Ok(())
}

/// The body's namespace agrees with the request's, and is filled in.
pub(crate) fn check_place(
    target: &Target,
    ns: Option<&str>,
    object: &mut Value,
) -> Result<(), ApiError> {
    if !target.kind.namespaced {
        meta::remove(&mut object["metadata"], "namespace");
        return Ok(());
    }
    let Some(ns) = ns.filter(|n| !n.is_empty()) else {
        return Err(ApiError::bad_request(
            "an empty namespace may not be set during creation",
        ));
    };
    let given = meta::namespace(object);
    if !given.is_empty() && given != ns {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given:?} and {ns:?})"
        )));
    }
    object["metadata"]["namespace"] = ns.into();
    Ok(())
}

/// Recursively drops nulls: for built-in kinds they mean absence.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(m) => {
            m.retain(|_, v| !v.is_null());
            m.values_mut().for_each(strip_nulls);
        }
        Value::Array(a) => a.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// 400 about a body that is not of its kind, or 422 about the patch that led to such an object.
fn undecodable(info: &RequestInfo, target: &Target, object: &Value, why: &str) -> ApiError {
    let kind = &target.kind.kind;
    let shown = match info.patched.as_deref() {
        None => {
            return ApiError::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {why}",
                target.version
            ));
        }
        Some(Patched::Fields(text)) => text.clone(),
        Some(Patched::Whole) => object.to_string(),
    };
    ApiError::invalid("", "", "", &[Cause::invalid("patch", &shown.into(), why)])
}

fn mistyped(
    info: &RequestInfo,
    target: &Target,
    object: &Value,
    why: &schema::TypeError,
) -> ApiError {
    let why = match info.patched.as_deref() {
        Some(Patched::Fields(_)) => &why.converted,
        _ => &why.decoded,
    };
    undecodable(info, target, object, why)
}

impl Core {
    /// Removes or refuses what the schema does not allow; `object` is in its stored form.
    pub(crate) fn clean(
        &self,
        info: &RequestInfo,
        target: &Target,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let kind = &target.kind;
        let unknown = if let Some(definition) = &kind.definition {
            let found = schema::check_builtin(definition, object);
            if let Some(why) = &found.type_error {
                return Err(mistyped(info, target, object, why));
            }
            found.unknown
        } else if let Some(version) = kind.storage_schema() {
            let found = schema::check_metadata(&mut object["metadata"]);
            if let Some(why) = &found.type_error {
                return Err(mistyped(info, target, object, why));
            }
            let mut unknown = found.unknown;
            unknown.extend(crd::prune(&version.schema, object));
            unknown
        } else {
            Vec::new()
        };
        let texts: Vec<String> = unknown
            .iter()
            .map(|p| format!("unknown field {p:?}"))
            .collect();
        match info.validation {
            FieldValidation::Strict if !texts.is_empty() => {
                let why = format!("strict decoding error: {}", texts.join(", "));
                Err(undecodable(info, target, object, &why))
            }
            FieldValidation::Warn => {
                if !info.tracked && !texts.is_empty() {
                    // Nobody reads the warnings of our own components but this log.
                    tracing::warn!(
                        user = info.user.name,
                        kind = kind.kind,
                        ?unknown,
                        "fields dropped"
                    );
                }
                texts.iter().for_each(|t| info.warn(t));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn fill_defaults(kind: &Kind, object: &mut Value) {
        if let Some(version) = kind.storage_schema() {
            crd::apply_defaults(&version.schema, object);
        } else {
            defaults::apply(kind, object);
            strip_nulls(object);
        }
    }

    pub(crate) fn validate(
        &self,
        kind: &Kind,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let causes = match kind.storage_schema() {
            Some(version) => {
                let mut causes = validate::check_metadata(kind, object, old);
                causes.extend(crd::validate(version, object, old));
                causes
            }
            None => validate::check(kind, object, old),
        };
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(
            &kind.res.group,
            &kind.kind,
            meta::name(object),
            &causes,
        ))
    }

    /// New objects need a namespace that is there and stays.
    pub(crate) fn check_namespace(
        &self,
        kind: &Kind,
        ns: Option<&str>,
        name: &str,
    ) -> Result<(), ApiError> {
        let Some(ns) = ns.filter(|_| kind.namespaced) else {
            return Ok(());
        };
        let Some(found) = self.store.get(&NAMESPACES, "", ns) else {
            return Err(ApiError::not_found(&NAMESPACES, ns));
        };
        if meta::deleting(&found) {
            let why = format!(
                "unable to create new content in namespace {ns} because it is being terminated"
            );
            let mut e = ApiError::forbidden(&kind.res, name, &why);
            if let Some(d) = &mut e.details {
                d["causes"] = json!([{"reason": "NamespaceTerminating",
                    "message": format!("namespace {ns} is being terminated"), "field": "metadata.namespace"}]);
            }
            return Err(e);
        }
        Ok(())
    }

    pub(crate) fn deprecation(info: &RequestInfo, target: &Target) {
        if let Some(w) = target
            .kind
            .version(&target.version)
            .and_then(|v| v.deprecation.as_ref())
        {
            info.warn(w);
        }
    }

    /// Built-in admission and the mutating webhooks.
    pub(crate) async fn admit(
        &self,
        at: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let new_pod = at.kind.is(&PODS) && at.operation == Operation::Create && at.sub.is_none();
        let ns = at.ns.unwrap_or_default();
        if new_pod {
            admit::defaults_of_pod(&self.store, ns, object)?;
        }
        let hooks = Webhooks { store: &self.store };
        let before = object.clone();
        if admit::run_mutating(&hooks, at, object, old).await? {
            restore_owned(at.kind, at.sub, &before, old, object)?;
            if new_pod {
                // A hook's containers count in it: the defaults below set it anew.
                meta::remove(&mut object["status"], "qosClass");
            }
            // A hook may add what the schema does not know, and fields that have defaults.
            let target = Target {
                kind: Arc::clone(at.kind),
                version: at.version.to_owned(),
            };
            let quiet = RequestInfo {
                validation: FieldValidation::Ignore,
                ..at.info.clone()
            };
            self.clean(&quiet, &target, object)?;
            Self::fill_defaults(at.kind, object);
            if new_pod {
                admit::defaults_of_pod(&self.store, ns, object)?;
            }
        }
        Ok(())
    }

    /// Addresses, the rules of definitions, validation and the validating webhooks. The guard,
    /// when there is one, is held until the write is done.
    pub(crate) async fn settle(
        &self,
        at: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<MutexGuard<'_, ()>>, ApiError> {
        let kind = at.kind;
        let main = at.sub.is_none();
        let hooks = Webhooks { store: &self.store };
        if kind.is(&CUSTOM_RESOURCE_DEFINITIONS) && main {
            let mut causes = crd::prepare(object, old.is_none());
            // A definition from before these rules may still get its status and finalizers.
            if old.is_none_or(|o| o["spec"]["versions"] != object["spec"]["versions"]) {
                causes.extend(crd::schema_problems(object));
            }
            if !causes.is_empty() {
                return Err(ApiError::invalid(
                    &kind.res.group,
                    &kind.kind,
                    at.name,
                    &causes,
                ));
            }
            if old.is_none() {
                crd::set_status(object, false);
            }
        }
        if kind.is(&SERVICES) && main {
            // Hooks come first: a slow one must not hold up every other Service.
            admit::run_validating(&hooks, at, object, old).await?;
            let held = self.service_lock.lock().await;
            services::allocate(self, object, old)?;
            self.validate(kind, object, old)?;
            return Ok(Some(held));
        }
        self.validate(kind, object, old)?;
        admit::run_validating(&hooks, at, object, old).await?;
        Ok(None)
    }
}
