//! Questions that are posted and answered, not stored: who am I, may I, is this token good.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Answer};
use super::path::ResourcePath;
use super::service::Call;
use crate::api::auth::{self, Action};
use crate::api::error::ApiError;
use crate::api::handle::UserInfo;

/// One of the review kinds.
#[derive(Clone, Copy)]
pub(super) enum Review {
    Token,
    WhoAmI,
    MayI,
    MyRules,
    MayThey,
}

/// The review a request is for.
pub(super) fn handle(
    _: &Call<'_>,
    method: &Method,
    path: &ResourcePath,
    _: &str,
) -> Option<Review> {
    if *method != Method::POST || path.version != "v1" || path.name.is_some() {
        return None;
    }
    match (path.group.as_str(), path.plural.as_str()) {
        ("authentication.k8s.io", "tokenreviews") => Some(Review::Token),
        ("authentication.k8s.io", "selfsubjectreviews") => Some(Review::WhoAmI),
        ("authorization.k8s.io", "selfsubjectaccessreviews") => Some(Review::MayI),
        ("authorization.k8s.io", "selfsubjectrulesreviews") => Some(Review::MyRules),
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
            Some(Review::MayThey)
        }
        _ => None,
    }
}

impl Review {
    pub(super) fn run(self, call: &Call<'_>, bytes: &[u8]) -> Result<Answer, ApiError> {
        let mut review = call.object(bytes)?;
        if !review.is_object() {
            return Err(ApiError::bad_request(
                "the object provided is not a JSON object",
            ));
        }
        if !review["metadata"].is_object() {
            review["metadata"] = json!({"creationTimestamp": null});
        }
        review["status"] = match self {
            Self::Token => token(call, &review["spec"]),
            Self::WhoAmI => json!({"userInfo": call.info.user.to_json()}),
            Self::MayI => access(call, &call.info.user, &review["spec"]),
            Self::MayThey => access(call, &user_of(&review["spec"]), &review["spec"]),
            Self::MyRules => rules(call, &review["spec"]),
        };
        Ok(body::json(StatusCode::CREATED, &review))
    }
}

fn token(call: &Call<'_>, spec: &Value) -> Value {
    let core = call.core();
    let text = spec["token"].as_str().unwrap_or_default();
    let wanted: Vec<&str> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let wanted = if wanted.is_empty() {
        vec![core.signer.issuer.as_str()]
    } else {
        wanted
    };
    if let Some(t) = call.shared.tokens.iter().find(|t| t.token == text) {
        let user = auth::authenticated(&t.user, &t.groups);
        return json!({"authenticated": true, "user": user.to_json(), "audiences": wanted});
    }
    match core.verify_token(text) {
        Ok(v) => {
            let both: Vec<&str> = wanted
                .into_iter()
                .filter(|w| v.audiences.iter().any(|a| a == w))
                .collect();
            if both.is_empty() {
                return json!({"authenticated": false, "user": {},
                    "error": format!("token audiences {:?} is invalid for the target audiences", v.audiences)});
            }
            json!({"authenticated": true, "user": v.user.to_json(), "audiences": both})
        }
        Err(why) => json!({"authenticated": false, "user": {},
            "error": format!("[invalid bearer token, {why}]")}),
    }
}

fn user_of(spec: &Value) -> UserInfo {
    let groups: Vec<String> = spec["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|g| g.as_str().map(str::to_owned))
        .collect();
    UserInfo {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups,
        ..UserInfo::default()
    }
}

fn access(call: &Call<'_>, user: &UserInfo, spec: &Value) -> Value {
    let text = |v: &'static str, of: &'_ Value| of[v].as_str().unwrap_or_default().to_owned();
    let r = &spec["resourceAttributes"];
    let n = &spec["nonResourceAttributes"];
    let parts = [
        "verb",
        "group",
        "resource",
        "subresource",
        "name",
        "namespace",
    ]
    .map(|f| text(f, r));
    let path = text("path", n);
    let verb = text("verb", n);
    let action = if n.is_object() {
        Action {
            verb: &verb,
            path: Some(&path),
            ..Action::default()
        }
    } else {
        Action {
            verb: &parts[0],
            group: &parts[1],
            resource: &parts[2],
            sub: &parts[3],
            name: &parts[4],
            ns: &parts[5],
            path: None,
        }
    };
    let allowed = auth::allowed(&call.core().store, user, &action);
    let mut status = json!({"allowed": allowed});
    if allowed {
        status["reason"] = "RBAC: allowed".into();
    }
    status
}

fn rules(call: &Call<'_>, spec: &Value) -> Value {
    let ns = spec["namespace"].as_str().unwrap_or_default();
    let all = auth::rules_of(&call.core().store, &call.info.user, ns);
    let (paths, resources): (Vec<Value>, Vec<Value>) = all
        .into_iter()
        .partition(|r| r["nonResourceURLs"].is_array());
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
