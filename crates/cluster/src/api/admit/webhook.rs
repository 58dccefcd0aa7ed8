//! Mutating and validating webhooks: which are called, in what order, and what their answers do.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Attributes, call, rules};
use crate::api::error::ApiError;
use crate::api::meta;
use crate::api::resource::{MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS};
use crate::store::Store;

const WEBHOOK_GROUP: &str = "admissionregistration.k8s.io";
/// Kinds that are questions, not objects.
const REVIEW_GROUPS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// What webhook calls need of the server.
pub(crate) struct Webhooks<'a> {
    pub(crate) store: &'a Store,
}

struct Called {
    hook: Value,
    /// Version the hook wants.
    version: String,
}

impl Webhooks<'_> {
    /// The hooks that select this request, in order of configuration name and list.
    fn matching(
        &self,
        res: &crate::api::Resource,
        at: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Vec<Called>, ApiError> {
        let group = at.kind.res.group.as_ref();
        if group == WEBHOOK_GROUP || REVIEW_GROUPS.contains(&group) {
            return Ok(Vec::new());
        }
        let (configurations, _) = self.store.list(res, None);
        let mut out = Vec::new();
        for configuration in &configurations {
            for hook in configuration["webhooks"].as_array().into_iter().flatten() {
                let Some(version) = rules::version_for(hook, at) else {
                    continue;
                };
                if !rules::selected(self.store, hook, at, object, old) {
                    continue;
                }
                match rules::conditions(hook, at, object, old) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(why) if hook["failurePolicy"] == "Ignore" => {
                        tracing::warn!(hook = %hook["name"], why, "match conditions failed");
                        continue;
                    }
                    Err(why) => {
                        let name = hook["name"].as_str().unwrap_or_default();
                        return Err(ApiError::forbidden(
                            &at.kind.res,
                            at.name,
                            &format!("webhook {name:?}: {why}"),
                        ));
                    }
                }
                check_dry_run(hook, at)?;
                out.push(Called {
                    hook: hook.clone(),
                    version,
                });
            }
        }
        Ok(out)
    }

    /// Calls one hook: `Ok(None)` when it failed and its policy is to ignore that.
    async fn call(
        &self,
        called: &Called,
        at: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Value>, ApiError> {
        let hook = &called.hook;
        let name = hook["name"].as_str().unwrap_or_default();
        let uid = meta::new_uid();
        let review = review(&uid, called, at, object, old);
        let answer = self
            .exchange(hook, &review)
            .await
            .and_then(|a| checked(a, &uid));
        match answer {
            Ok(response) => {
                for w in response["warnings"].as_array().into_iter().flatten() {
                    at.info.warn(w.as_str().unwrap_or_default());
                }
                if response["allowed"] == true {
                    Ok(Some(response))
                } else {
                    Err(denied(name, &response["status"]))
                }
            }
            Err(why) if hook["failurePolicy"] == "Ignore" => {
                tracing::warn!(hook = name, why, "failed open");
                Ok(None)
            }
            Err(why) => Err(ApiError::internal(format!(
                "failed calling webhook {name:?}: {why}"
            ))),
        }
    }

    async fn exchange(&self, hook: &Value, review: &Value) -> Result<Value, String> {
        let timeout = hook["timeoutSeconds"].as_u64().unwrap_or(10);
        let config = &hook["clientConfig"];
        let to = call::destination(self.store, config, timeout)
            .map_err(|e| format!("failed to call webhook: {e}"))?;
        let body = serde_json::to_vec(review).map_err(|e| e.to_string())?;
        call::post(&to, config, body, timeout)
            .await
            .map_err(|e| format!("failed to call webhook: Post {:?}: {e}", to.url))
    }
}

fn check_dry_run(hook: &Value, at: &Attributes<'_>) -> Result<(), ApiError> {
    let harmless = matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun"));
    if at.info.dry_run && !harmless {
        let name = hook["name"].as_str().unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "admission webhook {name:?} does not support dry run"
        )));
    }
    Ok(())
}

/// The `response` of a well-formed answer.
fn checked(mut answer: Value, uid: &str) -> Result<Value, String> {
    let response = answer["response"].take();
    if !response.is_object() {
        return Err("the webhook's answer has no response".to_owned());
    }
    if response["uid"].as_str() != Some(uid) {
        return Err(format!(
            "expected response.uid={uid:?}, got {:?}",
            response["uid"].as_str().unwrap_or_default()
        ));
    }
    Ok(response)
}

fn denied(hook: &str, status: &Value) -> ApiError {
    let message = status["message"].as_str().filter(|m| !m.is_empty());
    let reason = status["reason"].as_str().filter(|r| !r.is_empty());
    let text = match (message, reason) {
        (Some(m), _) => format!("admission webhook {hook:?} denied the request: {m}"),
        (None, Some(r)) => format!("admission webhook {hook:?} denied the request: {r}"),
        (None, None) => {
            format!("admission webhook {hook:?} denied the request without explanation")
        }
    };
    let code = status["code"].as_u64().and_then(|c| u16::try_from(c).ok());
    let code = code.filter(|c| (400..600).contains(c)).unwrap_or(400);
    let mut e = ApiError::new(code, reason.unwrap_or_default().to_owned(), text);
    if status["details"].is_object() {
        e.details = Some(Box::new(status["details"].clone()));
    }
    e
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn gvr(group: &str, version: &str, plural: &str) -> Value {
    json!({"group": group, "version": version, "resource": plural})
}

fn review(
    uid: &str,
    called: &Called,
    at: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Value {
    let shown = |o: &Value| {
        if o.is_null() {
            Value::Null
        } else {
            (*at.kind.present(&Arc::new(o.clone()), &called.version)).clone()
        }
    };
    let kind = at.kind;
    let group = kind.res.group.as_ref();
    let user = &at.info.user;
    let mut request = json!({
        "uid": uid,
        "kind": gvk(group, &called.version, &kind.kind),
        "resource": gvr(group, &called.version, &kind.res.plural),
        "requestKind": gvk(group, at.version, &kind.kind),
        "requestResource": gvr(group, at.version, &kind.res.plural),
        "name": at.name,
        "operation": at.operation.name(),
        "userInfo": user.to_json(),
        "object": shown(object),
        "oldObject": old.map_or(Value::Null, shown),
        "dryRun": at.info.dry_run,
        "options": at.options,
    });
    if let Some(ns) = at.ns {
        request["namespace"] = ns.into();
    }
    if let Some(sub) = at.sub {
        request["subResource"] = sub.into();
        request["requestSubResource"] = sub.into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

/// Applies the JSON patch of a response.
fn apply_patch(hook: &str, response: &Value, object: &mut Value) -> Result<bool, ApiError> {
    let fail = |why: String| ApiError::internal(format!("failed calling webhook {hook:?}: {why}"));
    let patch = response["patch"].as_str().filter(|p| !p.is_empty());
    let patch = match (patch, response["patchType"].as_str()) {
        (None, None) => return Ok(false),
        (Some(p), Some("JSONPatch")) => p,
        _ => {
            return Err(fail(
                "a patch needs patchType JSONPatch, and only a patch has one".to_owned(),
            ));
        }
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(patch)
        .map_err(|e| fail(format!("the patch is not base64: {e}")))?;
    let patch = serde_json::from_slice(&bytes).map_err(|e| fail(format!("bad JSON patch: {e}")))?;
    let mut changed = object.clone();
    // With the limits of anybody's patch: sixty copies could fill any memory.
    crate::api::patch::json_patch_object(&patch, &mut changed)
        .map_err(|e| fail(format!("the patch does not apply: {}", e.message)))?;
    if !(changed.is_object() && changed["metadata"].is_object()) {
        return Err(fail("the patch leaves no object with metadata".to_owned()));
    }
    for field in ["kind", "apiVersion"] {
        if changed[field] != object[field] {
            return Err(fail(format!(
                "the patch makes {field} {} of {}",
                changed[field], object[field]
            )));
        }
    }
    let differs = changed != *object;
    *object = changed;
    Ok(differs)
}

/// Calls the mutating hooks one after the other; a hook with `reinvocationPolicy: IfNeeded`
/// runs once more when a later one changed the object. Returns whether anything changed.
pub(crate) async fn run_mutating(
    hooks: &Webhooks<'_>,
    at: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<bool, ApiError> {
    let called = hooks.matching(&MUTATING_WEBHOOKS, at, object, old)?;
    let mut last_change = None;
    let mut any = false;
    for (i, c) in called.iter().enumerate() {
        if mutate(hooks, c, at, object, old).await? {
            last_change = Some(i);
            any = true;
        }
    }
    if let Some(last) = last_change {
        for c in called[..last]
            .iter()
            .filter(|c| c.hook["reinvocationPolicy"] == "IfNeeded")
        {
            mutate(hooks, c, at, object, old).await?;
        }
    }
    Ok(any)
}

async fn mutate(
    hooks: &Webhooks<'_>,
    called: &Called,
    at: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<bool, ApiError> {
    // An earlier hook may have taken the object out of this one's selectors.
    if !rules::selected(hooks.store, &called.hook, at, object, old) {
        return Ok(false);
    }
    let Some(response) = hooks.call(called, at, object, old).await? else {
        return Ok(false);
    };
    let name = called.hook["name"].as_str().unwrap_or_default();
    let mut shown = (*at.kind.present(&Arc::new(object.clone()), &called.version)).clone();
    match apply_patch(name, &response, &mut shown) {
        Ok(true) => {
            at.kind.to_storage(&mut shown);
            *object = shown;
            Ok(true)
        }
        Ok(false) => Ok(false),
        Err(e) if called.hook["failurePolicy"] == "Ignore" => {
            tracing::warn!(hook = name, error = %e, "failed open");
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

/// Calls the validating hooks at the same time; the first refusal in their order counts.
pub(crate) async fn run_validating(
    hooks: &Webhooks<'_>,
    at: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let called = hooks.matching(&VALIDATING_WEBHOOKS, at, object, old)?;
    let calls = called.iter().map(|c| hooks.call(c, at, object, old));
    for answer in futures_util::future::join_all(calls).await {
        if let Some(response) = answer?
            && response["patch"].is_string()
        {
            return Err(ApiError::internal(
                "a validating webhook answered with a patch",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_read_like_the_usual_ones() {
        let e = denied("w.x.io", &json!({"message": "why"}));
        assert_eq!(
            e.message,
            "admission webhook \"w.x.io\" denied the request: why"
        );
        assert_eq!((e.code, e.reason.as_ref()), (400, ""));
        let e = denied("w.x.io", &json!({"code": 200}));
        assert_eq!(e.code, 400);
        assert!(e.message.ends_with("without explanation"));
        let e = denied(
            "w",
            &json!({"code": 403, "reason": "Forbidden", "message": "m"}),
        );
        assert_eq!((e.code, e.reason.as_ref()), (403, "Forbidden"));
    }

    #[test]
    fn patches_need_their_type() {
        let mut o = json!({"metadata": {}, "a": 1});
        let patch = base64::engine::general_purpose::STANDARD
            .encode(r#"[{"op":"add","path":"/b","value":2}]"#);
        assert!(apply_patch("w", &json!({"patch": patch}), &mut o).is_err());
        let r = json!({"patch": patch, "patchType": "JSONPatch"});
        assert_eq!(apply_patch("w", &r, &mut o).ok(), Some(true));
        assert_eq!(o, json!({"metadata": {}, "a": 1, "b": 2}));
        assert_eq!(apply_patch("w", &json!({}), &mut o).ok(), Some(false));
    }

    #[test]
    fn a_webhook_cannot_make_something_else_of_an_object() {
        for (path, value) in [
            ("", json!([])),
            ("", json!(null)),
            ("/metadata", json!("x")),
            ("/kind", json!("Secret")),
            ("/apiVersion", json!(null)),
        ] {
            let patch = json!([{"op": "replace", "path": path, "value": value}]);
            let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
            let answer = json!({"patch": patch, "patchType": "JSONPatch"});
            let mut object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}});
            let error = apply_patch("w", &answer, &mut object).expect_err("refused");
            assert_eq!(error.code, 500, "{}", error.message);
            assert_eq!(object["metadata"]["name"], "a");
        }
    }

    #[test]
    fn a_webhook_cannot_grow_an_object_without_end() {
        let doubling: Vec<Value> = (0..60)
            .map(|n| json!({"op": "copy", "from": "/l", "path": format!("/l/{n}")}))
            .collect();
        let patch =
            base64::engine::general_purpose::STANDARD.encode(Value::from(doubling).to_string());
        let answer = json!({"patch": patch, "patchType": "JSONPatch"});
        let mut object = json!({"l": {}});
        let error = apply_patch("w", &answer, &mut object).expect_err("refused");
        assert_eq!(
            (error.code, &object),
            (500, &json!({"l": {}})),
            "{}",
            error.message
        );
    }
}
