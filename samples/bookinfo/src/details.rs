//! The details service: the facts of one book.
//!
//! Version 2 (`ENABLE_EXTERNAL_BOOK_SERVICE=true`) asks an outside book service instead; it speaks
//! plain HTTP only and leaves encryption to the mesh, so `DO_NOT_ENCRYPT=true` is required.

use std::time::Duration;

use anyhow::{Context, bail};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::http::{self, Answer, Peer};

const EXTERNAL_HOST: &str = "www.googleapis.com";
const EXTERNAL_ISBN: &str = "0486424618";
const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of one details process.
pub struct Details {
    external: Option<Peer>,
}

impl Details {
    /// Reads the version switches; refuses the encrypted form of version 2 at start, with the
    /// remedy, rather than at the first request.
    pub fn new(env: &crate::Env) -> anyhow::Result<Self> {
        let on = |name: &str| env.get(name).is_some_and(|v| v == "true");
        let external = on("ENABLE_EXTERNAL_BOOK_SERVICE");
        if external && !on("DO_NOT_ENCRYPT") {
            bail!(
                "details v2 leaves TLS to the mesh: set DO_NOT_ENCRYPT=true and originate TLS \
                 for {EXTERNAL_HOST} with a DestinationRule"
            );
        }
        let peer = || {
            let env = [
                ("BOOKS_HOSTNAME".to_owned(), EXTERNAL_HOST.to_owned()),
                ("BOOKS_SERVICE_PORT".to_owned(), "80".to_owned()),
            ];
            Peer::from_env("books", &env.into())
        };
        Ok(Self {
            external: external.then(peer),
        })
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if request.method() != Method::GET {
            return http::not_found();
        }
        if path == "/health" {
            return http::json(StatusCode::OK, &json!({"status": "Details is healthy"}));
        }
        let Some(id) = path.strip_prefix("/details/") else {
            return http::not_found();
        };
        let Ok(id) = id.parse::<i64>() else {
            let error = json!({"error": "please provide numeric product id"});
            return http::json(StatusCode::BAD_REQUEST, &error);
        };
        match &self.external {
            None => http::json(StatusCode::OK, &book(id)),
            Some(peer) => match external_book(peer, id, &request).await {
                Ok(book) => http::json(StatusCode::OK, &book),
                Err(error) => {
                    let error = json!({"error": format!("{error:#}")});
                    http::json(StatusCode::INTERNAL_SERVER_ERROR, &error)
                }
            },
        }
    }
}

fn book(id: i64) -> Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}

async fn external_book(peer: &Peer, id: i64, request: &Request<Incoming>) -> anyhow::Result<Value> {
    let mut headers = http::forwarded(request.headers(), true);
    headers.insert(HOST, HeaderValue::from_static(EXTERNAL_HOST));
    let path = format!("/books/v1/volumes?q=isbn:{EXTERNAL_ISBN}");
    let (status, body) = peer.get(&path, headers, EXTERNAL_TIMEOUT).await?;
    if !status.is_success() {
        bail!("the book service answered {status}");
    }
    let answer: Value = serde_json::from_slice(&body).context("the book service's answer")?;
    from_volume(id, &answer).context("the book service's answer has no volume")
}

/// Our shape of a book from the outside service's first volume.
fn from_volume(id: i64, answer: &Value) -> Option<Value> {
    let volume = answer.pointer("/items/0/volumeInfo")?;
    let text = |key: &str| volume.get(key).and_then(Value::as_str).unwrap_or("unknown");
    let isbn = |kind: &str| {
        let of_kind = |entry: &&Value| entry.get("type").and_then(Value::as_str) == Some(kind);
        let entries = volume.get("industryIdentifiers")?.as_array()?;
        entries.iter().find(of_kind)?.get("identifier")?.as_str()
    };
    Some(json!({
        "id": id,
        "author": volume.pointer("/authors/0").and_then(Value::as_str).unwrap_or("unknown"),
        "year": text("publishedDate"),
        "type": if text("printType") == "BOOK" { "paperback" } else { "unknown" },
        "pages": volume.get("pageCount").cloned().unwrap_or(Value::Null),
        "publisher": text("publisher"),
        "language": if text("language") == "en" { "English" } else { "unknown" },
        "ISBN-10": isbn("ISBN_10").unwrap_or("unknown"),
        "ISBN-13": isbn("ISBN_13").unwrap_or("unknown"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_two_without_plain_http_is_refused_with_the_remedy() {
        let env = [("ENABLE_EXTERNAL_BOOK_SERVICE".to_owned(), "true".to_owned())].into();
        let error = Details::new(&env)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(error.contains("DO_NOT_ENCRYPT=true"), "{error}");
    }

    #[test]
    fn a_volume_becomes_a_book_and_an_empty_answer_does_not() {
        let answer = json!({"items": [{"volumeInfo": {
            "authors": ["W. S."], "publishedDate": "2002", "printType": "BOOK", "language": "en",
            "pageCount": 64, "publisher": "P",
            "industryIdentifiers": [{"type": "ISBN_10", "identifier": "0486424618"}],
        }}]});
        let book = from_volume(3, &answer).expect("a book");
        assert_eq!(book["id"], 3);
        assert_eq!(book["ISBN-10"], "0486424618");
        assert_eq!(book["ISBN-13"], "unknown");
        assert!(from_volume(3, &json!({"items": []})).is_none());
    }
}
