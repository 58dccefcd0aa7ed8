//! The application's own metrics, joined to the proxy's on one page.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::dial;

/// Largest page taken from the application, in bytes.
const LARGEST: usize = 32 * 1024 * 1024;
/// How long the application may take.
const WAIT: Duration = Duration::from_secs(5);

/// Fetches the application's page as its annotations say; `None` when there is
/// none, or it did not answer.
pub(super) async fn app_metrics(options: &Value, pod_ip: &str) -> Option<String> {
    let text = |key: &str| options.get(key).and_then(Value::as_str);
    if text("scrape") != Some("true") {
        return None;
    }
    let port: u16 = text("port").unwrap_or("80").parse().ok()?;
    let path = text("path").unwrap_or("/metrics");
    let page = tokio::time::timeout(WAIT, fetch(pod_ip, port, path)).await;
    match page {
        Ok(Ok(page)) => Some(page),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the application's metrics");
            None
        }
        Err(_) => None,
    }
}

async fn fetch(
    host: &str,
    port: u16,
    path: &str,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let stream = dial::pod(host, port).await?;
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "metrics connection");
        }
    });
    let request = http::Request::get(path)
        .header("host", format!("{host}:{port}"))
        .header("accept", "text/plain")
        .body(Empty::<Bytes>::new())?;
    let response = send.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status()).into());
    }
    let body = Limited::new(response.into_body(), LARGEST)
        .collect()
        .await?
        .to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}
