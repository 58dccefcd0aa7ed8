//! The productpage service: the page a person sees, the login, and the public API.
//!
//! It always answers 200 for the page; what went wrong is written inside it. The call to reviews
//! is tried twice with 3 s each: the planted bug that the lesson on delays uncovers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue, LOCATION, REFERER, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::http::{self, Answer, Peer};
use crate::{page, session};

const TIMEOUT: Duration = Duration::from_secs(3);
const REVIEWS_TRIES: u32 = 2;

/// The state of one productpage process.
pub struct Productpage {
    details: Peer,
    reviews: Peer,
    ratings: Peer,
    flood: u32,
    /// Answers seen, by (called service, status): what `/metrics` prints.
    results: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Productpage {
    /// Reads where the other services live and `FLOOD_FACTOR`.
    pub fn new(env: &crate::Env) -> Self {
        Self {
            details: Peer::from_env("details", env),
            reviews: Peer::from_env("reviews", env),
            ratings: Peer::from_env("ratings", env),
            flood: env
                .get("FLOOD_FACTOR")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0),
            results: Mutex::new(BTreeMap::new()),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, "/" | "/index.html") => self.index(),
            (&Method::GET | &Method::HEAD, "/health") => {
                http::body(StatusCode::OK, "text/plain", "Product page is healthy")
            }
            (&Method::GET | &Method::HEAD, "/productpage") => self.product_page(&request).await,
            (&Method::POST, "/login") => login(request).await,
            (&Method::GET, "/logout") => back(request.headers(), &session::sign_out()),
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::GET | &Method::HEAD, path) if path.starts_with("/static/") => asset(path),
            (&Method::GET, path) if path.starts_with("/api/v1/products") => {
                self.api(path, request.headers()).await
            }
            _ => http::not_found(),
        }
    }

    fn index(&self) -> Answer {
        html(page::index(&[
            ("details", &self.details.url()),
            ("reviews", &self.reviews.url()),
            ("ratings", &self.ratings.url()),
        ]))
    }

    async fn product_page(&self, request: &Request<Incoming>) -> Answer {
        let user = session::user(request.headers());
        let headers = outgoing(request.headers(), user.as_deref());
        for _ in 0..self.flood {
            let _ = self
                .call("reviews", &self.reviews, "/reviews/0", headers.clone())
                .await;
        }
        let details = self
            .call("details", &self.details, "/details/0", headers.clone())
            .await;
        let reviews = self.reviews("0", headers).await;
        let details = details.and_then(|(status, body)| parse_ok(status, &body));
        let reviews = reviews.and_then(|(status, body)| parse_ok(status, &body));
        html(page::product(user.as_deref(), &details, &reviews))
    }

    async fn reviews(
        &self,
        id: &str,
        headers: HeaderMap,
    ) -> Result<(StatusCode, bytes::Bytes), StatusCode> {
        let path = format!("/reviews/{id}");
        let mut last = Err(StatusCode::INTERNAL_SERVER_ERROR);
        for _ in 0..REVIEWS_TRIES {
            last = self
                .call("reviews", &self.reviews, &path, headers.clone())
                .await;
            if matches!(last, Ok((StatusCode::OK, _))) {
                break;
            }
        }
        last
    }

    /// One call; an unreachable service counts and reads as 500.
    async fn call(
        &self,
        name: &'static str,
        peer: &Peer,
        path: &str,
        headers: HeaderMap,
    ) -> Result<(StatusCode, bytes::Bytes), StatusCode> {
        let answer = peer.get(path, headers, TIMEOUT).await;
        let status = answer
            .as_ref()
            .map_or(StatusCode::INTERNAL_SERVER_ERROR, |a| a.0);
        if let Err(error) = &answer {
            tracing::warn!(service = name, error = format!("{error:#}"), "call failed");
        }
        let mut results = self
            .results
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *results.entry((name, status.as_u16())).or_default() += 1;
        answer.map_err(|_| status)
    }

    async fn api(&self, path: &str, incoming: &HeaderMap) -> Answer {
        let user = session::user(incoming);
        let headers = outgoing(incoming, user.as_deref());
        let rest = path
            .trim_start_matches("/api/v1/products")
            .trim_matches('/');
        let parts: Vec<&str> = if rest.is_empty() {
            vec![]
        } else {
            rest.split('/').collect()
        };
        let (what, answer) = match parts[..] {
            [] => return http::json(StatusCode::OK, &page::products()),
            [id] => {
                let path = format!("/details/{id}");
                (
                    "details",
                    self.call("details", &self.details, &path, headers).await,
                )
            }
            [id, "reviews"] => ("reviews", self.reviews(id, headers).await),
            [id, "ratings"] => {
                let path = format!("/ratings/{id}");
                (
                    "ratings",
                    self.call("ratings", &self.ratings, &path, headers).await,
                )
            }
            _ => return http::not_found(),
        };
        match answer {
            Ok((StatusCode::OK, body)) => http::body(StatusCode::OK, "application/json", body),
            Ok((status, _)) | Err(status) => {
                http::json(status, &json!({"error": page::unavailable(what)}))
            }
        }
    }

    fn metrics(&self) -> Answer {
        let results = self
            .results
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::from("# TYPE request_result_total counter\n");
        for ((app, code), count) in results.iter() {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "request_result_total{{destination_app=\"{app}\",response_code=\"{code}\"}} {count}"
            );
        }
        http::body(StatusCode::OK, "text/plain; version=0.0.4", text)
    }
}

/// The headers for the services behind: the trace's, and the signed-in user as `end-user`. A
/// client's own `end-user` never passes.
fn outgoing(incoming: &HeaderMap, user: Option<&str>) -> HeaderMap {
    let mut headers = http::forwarded(incoming, false);
    if let Some(value) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        headers.insert("end-user", value);
    }
    headers
}

fn parse_ok(status: StatusCode, body: &[u8]) -> Result<Value, StatusCode> {
    if status != StatusCode::OK {
        return Err(status);
    }
    serde_json::from_slice(body).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn login(request: Request<Incoming>) -> Answer {
    let headers = request.headers().clone();
    let body = http::read_body(request.into_body())
        .await
        .unwrap_or_default();
    match session::sign_in(&form_field(&body, "username").unwrap_or_default()) {
        Some(cookie) => back(&headers, &cookie),
        None => http::body(
            StatusCode::BAD_REQUEST,
            "text/plain",
            "a username is needed\n",
        ),
    }
}

/// A 302 to where the person came from, setting a cookie.
fn back(headers: &HeaderMap, cookie: &str) -> Answer {
    let mut answer = http::body(StatusCode::FOUND, "text/plain", "");
    let place = headers.get(REFERER).cloned();
    let place = place.unwrap_or_else(|| HeaderValue::from_static("/productpage"));
    answer.headers_mut().insert(LOCATION, place);
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// One field of an `application/x-www-form-urlencoded` body, decoded.
fn form_field(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let pair = text
        .split('&')
        .filter_map(|p| p.split_once('='))
        .find(|p| p.0 == name)?;
    let mut bytes = Vec::with_capacity(pair.1.len());
    let mut rest = pair.1.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn asset(path: &str) -> Answer {
    let (kind, body) = match path {
        "/static/bookinfo.css" => ("text/css", page::STYLE),
        "/static/favicon.svg" => ("image/svg+xml", page::ICON),
        _ => return http::not_found(),
    };
    let mut answer = http::body(StatusCode::OK, kind, body);
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    answer
}

fn html(text: String) -> Answer {
    http::body(StatusCode::OK, "text/html; charset=utf-8", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_field_is_decoded_and_a_broken_escape_is_none() {
        assert_eq!(
            form_field(b"passwd=&username=ja+s%6Fn", "username").as_deref(),
            Some("ja son")
        );
        assert_eq!(form_field(b"username=%4", "username"), None);
        assert_eq!(form_field(b"user=x", "username"), None);
    }

    #[test]
    fn a_clients_own_end_user_does_not_pass() {
        let mut incoming = HeaderMap::new();
        incoming.insert("end-user", HeaderValue::from_static("jason"));
        assert!(outgoing(&incoming, None).get("end-user").is_none());
        assert_eq!(outgoing(&incoming, Some("ann"))["end-user"], "ann");
    }
}
