//! The admission webhooks: `/inject` answers for pods, `/validate` for Istio's objects.

mod validate;

pub(crate) use validate::has_effect;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use crate::inject::{InjectConfig, review};
use crate::metrics::Metrics;

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
        .with_state(state)
}

/// The review in a body, or the answer to one that is none.
fn review_of(body: &Bytes) -> Result<Value, Box<Response>> {
    let bad = |why: String| Box::new((StatusCode::BAD_REQUEST, format!("{why}\n")).into_response());
    let review: Value =
        serde_json::from_slice(body).map_err(|e| bad(format!("not an AdmissionReview: {e}")))?;
    if review["request"]["uid"].as_str().is_none() {
        return Err(bad(
            "not an AdmissionReview: request.uid is missing".to_owned()
        ));
    }
    Ok(review)
}

async fn inject(State(s): State<WebhookState>, body: Bytes) -> Response {
    s.metrics.count("sidecar_injection_requests_total", &[]);
    let review = match review_of(&body) {
        Ok(review) => review,
        Err(answer) => return *answer,
    };
    let answer = review::answer(&s.injection.load(), &review);
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
    let review = match review_of(&body) {
        Ok(review) => review,
        Err(answer) => return *answer,
    };
    let answer = validate::answer(&review);
    let passed = answer["response"]["allowed"] == true;
    let outcome = if passed {
        "galley_validation_passed"
    } else {
        "galley_validation_failed"
    };
    s.metrics.count(outcome, &[]);
    Json(answer).into_response()
}
