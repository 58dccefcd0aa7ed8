//! The ratings service: stars per reviewer, kept in memory, with the misbehaving versions that
//! lessons on outlier detection and retries need (`SERVICE_VERSION`).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::http::{self, Answer};

/// How a ratings process behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Steady,
    /// 503 half of the time.
    Faulty,
    /// 7 s late half of the time.
    Delayed,
    /// Turns its answers off and on every minute.
    Unavailable,
    /// Turns its answers and its health off and on every 15 minutes.
    Unhealthy,
}

const LATE: Duration = Duration::from_secs(7);
const FLIP_UNAVAILABLE: Duration = Duration::from_secs(60);
const FLIP_UNHEALTHY: Duration = Duration::from_secs(15 * 60);

/// The state of one ratings process.
pub struct Ratings {
    version: Version,
    started: Instant,
    stored: Mutex<HashMap<i64, Value>>,
}

impl Ratings {
    /// Reads `SERVICE_VERSION`; an unknown one is the steady v1.
    pub fn new(env: &crate::Env) -> Self {
        let version = match env.get("SERVICE_VERSION").map(String::as_str) {
            Some("v-faulty") => Version::Faulty,
            Some("v-delayed") => Version::Delayed,
            Some("v-unavailable") => Version::Unavailable,
            Some("v-unhealthy") => Version::Unhealthy,
            _ => Version::Steady,
        };
        Self {
            version,
            started: Instant::now(),
            stored: Mutex::new(HashMap::new()),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        if path == "/health" && request.method() == Method::GET {
            return self.health();
        }
        let Some(id) = path.strip_prefix("/ratings/") else {
            return http::not_found();
        };
        let Ok(id) = id.parse::<i64>() else {
            let error = json!({"error": "please provide numeric product ID"});
            return http::json(StatusCode::BAD_REQUEST, &error);
        };
        match *request.method() {
            Method::GET => self.get(id).await,
            Method::POST => self.post(id, request).await,
            _ => http::not_found(),
        }
    }

    fn health(&self) -> Answer {
        if self.version == Version::Unhealthy && off(self.started.elapsed(), FLIP_UNHEALTHY) {
            let body = json!({"status": "Ratings is not healthy"});
            return http::json(StatusCode::INTERNAL_SERVER_ERROR, &body);
        }
        http::json(StatusCode::OK, &json!({"status": "Ratings is healthy"}))
    }

    async fn get(&self, id: i64) -> Answer {
        let up = self.started.elapsed();
        let down = match self.version {
            Version::Faulty => fastrand::bool(),
            Version::Unavailable => off(up, FLIP_UNAVAILABLE),
            Version::Unhealthy => off(up, FLIP_UNHEALTHY),
            Version::Steady | Version::Delayed => false,
        };
        if down {
            let error = json!({"error": "Service unavailable"});
            return http::json(StatusCode::SERVICE_UNAVAILABLE, &error);
        }
        if self.version == Version::Delayed && fastrand::bool() {
            tokio::time::sleep(LATE).await;
        }
        http::json(
            StatusCode::OK,
            &json!({"id": id, "ratings": self.stars(id)}),
        )
    }

    fn stars(&self, id: i64) -> Value {
        let stored = self
            .stored
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        stored
            .get(&id)
            .cloned()
            .unwrap_or_else(|| json!({"Reviewer1": 5, "Reviewer2": 4}))
    }

    async fn post(&self, id: i64, request: Request<Incoming>) -> Answer {
        let body = http::read_body(request.into_body()).await;
        let parsed = body.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(ratings) = parsed.filter(Value::is_object) else {
            let error = json!({"error": "please provide valid ratings JSON"});
            return http::json(StatusCode::BAD_REQUEST, &error);
        };
        let mut stored = self
            .stored
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        stored.insert(id, ratings.clone());
        http::json(StatusCode::OK, &json!({"id": id, "ratings": ratings}))
    }
}

/// Whether a service that flips every `period` is in an off phase after `up`; it starts on.
fn off(up: Duration, period: Duration) -> bool {
    (up.as_secs() / period.as_secs()) % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipping_service_starts_on_and_alternates() {
        assert!(!off(Duration::from_secs(59), FLIP_UNAVAILABLE));
        assert!(off(Duration::from_secs(60), FLIP_UNAVAILABLE));
        assert!(!off(Duration::from_secs(120), FLIP_UNAVAILABLE));
    }
}
