//! The reviews service: two review texts, with stars from ratings when the version shows them.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::http::{self, Answer, Peer};

/// One reviewer and what they wrote, in our own words.
const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two pairs of twins, one busy harbour town and not a dull page: I laughed out loud twice.",
    ),
    (
        "Reviewer2",
        "Quick, warm and silly in the best way, even if the plot leans hard on luck.",
    ),
];

/// How long ratings may take: long for black stars (v2), short for the others (v3).
const PATIENT: Duration = Duration::from_secs(10);
const HASTY: Duration = Duration::from_millis(2500);

/// The state of one reviews process.
pub struct Reviews {
    ratings: Option<Peer>,
    color: String,
    pod: String,
    cluster: String,
}

impl Reviews {
    /// Reads `ENABLE_RATINGS`, `STAR_COLOR`, `HOSTNAME` and `CLUSTER_NAME`.
    pub fn new(env: &crate::Env) -> Self {
        let get = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
        let rated = get("ENABLE_RATINGS").is_some_and(|value| value == "true");
        Self {
            ratings: rated.then(|| Peer::from_env("ratings", env)),
            color: get("STAR_COLOR").unwrap_or_else(|| "black".to_owned()),
            pod: get("HOSTNAME").unwrap_or_else(|| "null".to_owned()),
            cluster: get("CLUSTER_NAME").unwrap_or_else(|| "null".to_owned()),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return http::not_found();
        }
        let path = request.uri().path();
        if path == "/health" {
            return http::json(StatusCode::OK, &json!({"status": "Reviews is healthy"}));
        }
        let Some(id) = path
            .strip_prefix("/reviews/")
            .and_then(|id| id.parse::<i64>().ok())
        else {
            return http::not_found();
        };
        let stars = match &self.ratings {
            None => None,
            Some(peer) => Some(self.stars(peer, id, request.headers()).await),
        };
        http::json(StatusCode::OK, &self.document(id, stars))
    }

    /// The stars per reviewer, or `None` when ratings does not answer 200 with JSON in time.
    async fn stars(&self, peer: &Peer, id: i64, headers: &HeaderMap) -> Option<Value> {
        let limit = if self.color == "black" {
            PATIENT
        } else {
            HASTY
        };
        let headers = http::forwarded(headers, true);
        match peer.get(&format!("/ratings/{id}"), headers, limit).await {
            Ok((StatusCode::OK, body)) => serde_json::from_slice::<Value>(&body)
                .ok()?
                .get("ratings")
                .cloned(),
            Ok((status, _)) => {
                tracing::warn!(%status, "ratings refused");
                None
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "ratings did not answer");
                None
            }
        }
    }

    /// The answer's document; `stars` is `None` for a version without ratings, `Some(None)` when
    /// ratings failed.
    fn document(&self, id: i64, stars: Option<Option<Value>>) -> Value {
        let reviews = REVIEWS.iter().map(|(reviewer, text)| {
            let mut review = json!({"reviewer": reviewer, "text": text});
            if let Some(stars) = &stars {
                let count = stars
                    .as_ref()
                    .and_then(|all| all.get(reviewer))
                    .filter(|n| n.is_i64());
                review["rating"] = match count {
                    Some(count) => json!({"stars": count, "color": self.color}),
                    None => json!({"error": "Ratings service is currently unavailable"}),
                };
            }
            review
        });
        json!({
            "id": id.to_string(),
            "podname": self.pod,
            "clustername": self.cluster,
            "reviews": reviews.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_versions_differ_in_stars_only() {
        let env = [("STAR_COLOR".to_owned(), "red".to_owned())].into();
        let app = Reviews::new(&env);
        let v1 = app.document(0, None);
        assert_eq!(v1["id"], "0");
        assert_eq!(v1["clustername"], "null");
        assert!(v1["reviews"][0].get("rating").is_none());
        let v3 = app.document(0, Some(Some(json!({"Reviewer1": 5, "Reviewer2": 4}))));
        assert_eq!(
            v3["reviews"][1]["rating"],
            json!({"stars": 4, "color": "red"})
        );
        let broken = app.document(0, Some(None));
        let error = &broken["reviews"][0]["rating"]["error"];
        assert_eq!(error, "Ratings service is currently unavailable");
    }
}
