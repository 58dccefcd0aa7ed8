//! Bodies: reading a request's object in any of its encodings, writing answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

use super::protobuf;
use crate::api::depth;
use crate::api::error::ApiError;

/// Largest request body: what the usual server takes.
const MAX_BODY: usize = 3 << 20;
/// What is read of a larger one before the answer, at most, and for how long.
const MAX_DISCARDED: usize = 512 << 20;
const DISCARDING: Duration = Duration::from_secs(5);

/// Body of every answer; the same type that streaming subresources answer with.
pub(crate) type Body = crate::stream::Body;
/// An answer.
pub(crate) type Answer = Response<Body>;

/// A body from bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer with the given type and bytes.
pub(crate) fn answer(code: StatusCode, content_type: &str, bytes: impl Into<Bytes>) -> Answer {
    let mut r = Response::new(full(bytes));
    *r.status_mut() = code;
    if let Ok(v) = HeaderValue::from_str(content_type) {
        r.headers_mut().insert(header::CONTENT_TYPE, v);
    }
    r
}

/// A JSON answer.
pub(crate) fn json(code: StatusCode, value: &Value) -> Answer {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    answer(code, "application/json", bytes)
}

/// An error as a Status.
pub(crate) fn error(e: &ApiError) -> Answer {
    let code = StatusCode::from_u16(e.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut r = json(code, &e.status());
    let seconds = e.retry_after().or((e.code == 429).then_some(1));
    if let Some(seconds) = seconds {
        r.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    r
}

/// Reads a whole request body.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    match Limited::new(body.as_mut(), MAX_BODY).collect().await {
        Ok(c) => Ok(c.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => {
            discard(body).await;
            Err(ApiError::new(
                413,
                "RequestEntityTooLarge",
                format!("Request entity too large: limit is {MAX_BODY}"),
            ))
        }
        Err(e) => Err(ApiError::bad_request(format!("cannot read the body: {e}"))),
    }
}

/// Reads on and throws away, for a bounded while: a connection closed with bytes still coming is
/// reset, and the client would never see why.
async fn discard<B: http_body::Body<Data = Bytes>>(mut body: std::pin::Pin<&mut B>) {
    let rest = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > MAX_DISCARDED {
                break;
            }
        }
    };
    // Either way the answer is the same.
    let _ = tokio::time::timeout(DISCARDING, rest).await;
}

/// Decodes an object by its content type.
pub(crate) fn decode(content_type: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    let value = match content_type.split(';').next().unwrap_or_default().trim() {
        ""
        | "application/json"
        | "application/merge-patch+json"
        | "application/json-patch+json"
        | "application/strategic-merge-patch+json" => from_json(bytes),
        "application/yaml" | "application/apply-patch+yaml" => from_yaml(bytes),
        "application/vnd.kubernetes.protobuf" => protobuf::decode(bytes),
        other => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf (got {other})"
        ))),
    }?;
    depth::check(&value)?;
    Ok(value)
}

fn from_json(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|e| ApiError::bad_request(format!("error decoding the body: {e}")))
}

fn from_yaml(bytes: &[u8]) -> Result<Value, ApiError> {
    // Clients send JSON under this type as a rule.
    if let Ok(v) = serde_json::from_slice(bytes) {
        return Ok(v);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ApiError::bad_request(format!("error decoding the body: {e}")))?;
    serde_saphyr::from_str(text)
        .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))
}
