//! The admission webhooks: `/inject` answers for pods, `/validate` for Istio's objects.

#[cfg(test)]
mod tests;
mod validate;

pub(crate) use validate::has_effect;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use crate::inject::{InjectConfig, review};
use crate::metrics::Metrics;

/// Longest review: the API server takes objects of at most 3 MiB, and an update brings the
/// old one along.
const LARGEST_REVIEW: usize = 8 << 20;
/// Versions of the review that are spoken; the answer has that of the question.
const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// What the webhooks need.
#[derive(Clone)]
pub struct WebhookState {
    /// The injector's settings, replaced while serving.
    pub injection: Arc<ArcSwap<InjectConfig>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// `/inject`, `/inject/...` (Istio's URLs may name cluster and network) and `/validate`.
pub fn router(state: WebhookState) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/inject/{*rest}", post(inject))
        .route("/validate", post(validate))
        .route("/ready", get(|| async { "" }))
        .layer(DefaultBodyLimit::max(LARGEST_REVIEW))
        .with_state(state)
}

/// The review in a body.
///
/// # Errors
/// Why it is none, for the API server's log.
fn review_of(body: &[u8]) -> Result<Value, String> {
    let review: Value =
        serde_json::from_slice(body).map_err(|e| format!("not an AdmissionReview: {e}"))?;
    let no = |why: &str| Err(format!("not an AdmissionReview: {why}"));
    if review["kind"] != "AdmissionReview" {
        return no("its kind is another");
    }
    if !VERSIONS.iter().any(|v| review["apiVersion"] == *v) {
        return no("its apiVersion is not admission.k8s.io/v1 or v1beta1");
    }
    let request = &review["request"];
    if request["uid"].as_str().is_none_or(str::is_empty) {
        return no("request.uid is missing");
    }
    if !(request["object"].is_object() || request["object"].is_null()) {
        return no("request.object is no object");
    }
    Ok(review)
}

/// The answer of the injector to a body.
///
/// # Errors
/// The reason for a body that is no review.
pub(crate) fn answer_inject(config: &InjectConfig, body: &[u8]) -> Result<Value, String> {
    review_of(body).map(|review| review::answer(config, &review))
}

/// The answer of the validator to a body.
///
/// # Errors
/// The reason for a body that is no review.
pub(crate) fn answer_validate(body: &[u8]) -> Result<Value, String> {
    review_of(body).map(|review| validate::answer(&review))
}

fn refused(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

async fn inject(State(s): State<WebhookState>, body: Bytes) -> Response {
    s.metrics.count("sidecar_injection_requests_total", &[]);
    let answer = match answer_inject(&s.injection.load(), &body) {
        Ok(answer) => answer,
        Err(why) => return refused(&why),
    };
    let response = &answer["response"];
    let outcome = if response["allowed"] != true {
        "sidecar_injection_failure_total"
    } else if response["patch"].is_null() {
        "sidecar_injection_skip_total"
    } else {
        "sidecar_injection_success_total"
    };
    s.metrics.count(outcome, &[]);
    Json(answer).into_response()
}

async fn validate(State(s): State<WebhookState>, body: Bytes) -> Response {
    let answer = match answer_validate(&body) {
        Ok(answer) => answer,
        Err(why) => return refused(&why),
    };
    let passed = answer["response"]["allowed"] == true;
    let outcome = if passed {
        "galley_validation_passed"
    } else {
        "galley_validation_failed"
    };
    s.metrics.count(outcome, &[]);
    Json(answer).into_response()
}
