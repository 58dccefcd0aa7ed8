//! The little HTTP that four small services share: a server that drains, a client without pooling
//! (each call is one connection, so a proxy balances every call), and the headers they pass on.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, SERVER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};

use crate::log::{self, Asked, Log};

/// An answer with its whole body.
pub type Answer = Response<Full<Bytes>>;

/// The largest request or response body a service reads, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// How long a stopping service waits for requests in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// Request headers every service hands on to the services it calls, so that a trace and the
/// caller's identity survive the hop (`bookinfo.md`, last of the facts on headers).
const FORWARDED: &[&str] = &[
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// The headers of `incoming` to send along; `end-user` too where the service passes it through.
pub fn forwarded(incoming: &HeaderMap, with_end_user: bool) -> HeaderMap {
    let extra = with_end_user.then_some("end-user");
    let mut out = HeaderMap::new();
    for name in FORWARDED.iter().copied().chain(extra) {
        if let Some(value) = incoming.get(name) {
            out.insert(HeaderName::from_static(name), value.clone());
        }
    }
    out
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    body(status, "application/json", value.to_string())
}

/// An answer with a given content type.
pub fn body(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
        .headers_mut()
        .insert(SERVER, HeaderValue::from_static("bookinfo"));
    answer
}

/// The plain 404 of an unknown path.
pub fn not_found() -> Answer {
    body(StatusCode::NOT_FOUND, "text/plain", "not found\n")
}

/// Reads a request body up to [`MAX_BODY`]; `None` when it is longer or breaks off.
pub async fn read_body(body: Incoming) -> Option<Bytes> {
    Some(
        Limited::new(body, MAX_BODY)
            .collect()
            .await
            .ok()?
            .to_bytes(),
    )
}

/// Serves connections and tells `log` of each request until `stop`, then stops accepting and lets requests in flight finish.
pub async fn serve<H, F>(
    listener: TcpListener,
    stop: impl Future<Output = ()>,
    log: Log,
    handler: H,
) -> anyhow::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(error) => {
                    // Out of descriptors or a connection gone before accept: neither ends a server.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // A failed setsockopt costs latency, not correctness.
        let _ = stream.set_nodelay(true);
        let (handler, log) = (handler.clone(), log.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let asked = Asked {
                peer,
                method: request.method().clone(),
                target: request.uri().clone(),
                version: request.version(),
            };
            let (answer, log) = (handler(request), log.clone());
            async move {
                let answer = answer.await;
                log.line(&log::request(&asked, &answer, jiff::Timestamp::now()));
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}

/// Where another service of the sample lives.
#[derive(Debug, Clone)]
pub struct Peer {
    host: String,
    port: u16,
}

impl Peer {
    /// Reads `<NAME>_HOSTNAME`, `<NAME>_SERVICE_PORT` and `SERVICES_DOMAIN`; the service's own
    /// name and 9080 by default.
    pub fn from_env(name: &str, env: &crate::Env) -> Self {
        let upper = name.to_ascii_uppercase();
        let host = env
            .get(&format!("{upper}_HOSTNAME"))
            .cloned()
            .unwrap_or_else(|| name.to_owned());
        let host = match env
            .get("SERVICES_DOMAIN")
            .filter(|domain| !domain.is_empty())
        {
            Some(domain) => format!("{host}.{domain}"),
            None => host,
        };
        let port = env
            .get(&format!("{upper}_SERVICE_PORT"))
            .and_then(|p| p.parse().ok());
        Self {
            host,
            port: port.unwrap_or(9080),
        }
    }

    /// The peer's base URL, for a person to read.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// Sends one GET over a fresh connection and reads the whole answer within `limit`.
    pub async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        limit: Duration,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        tokio::time::timeout(limit, self.get_unbounded(path, headers))
            .await
            .map_err(|_| anyhow::anyhow!("no answer from {} in {limit:?}", self.url()))?
    }

    async fn get_unbounded(
        &self,
        path: &str,
        headers: HeaderMap,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = path.parse()?;
        *request.headers_mut() = headers;
        let authority = format!("{}:{}", self.host, self.port);
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_str(&authority)?);
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("reading the answer of {}: {error}", self.url()))?
            .to_bytes();
        driver.abort();
        Ok((status, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_headers_travel_and_end_user_by_choice() {
        let mut incoming = HeaderMap::new();
        for (name, value) in [
            ("x-request-id", "r1"),
            ("end-user", "jason"),
            ("x-secret", "s"),
        ] {
            incoming.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let without = forwarded(&incoming, false);
        assert_eq!(without.len(), 1);
        assert_eq!(without["x-request-id"], "r1");
        assert_eq!(forwarded(&incoming, true)["end-user"], "jason");
    }

    #[test]
    fn a_peer_takes_host_port_and_domain_from_the_environment() {
        let mut env = crate::Env::new();
        assert_eq!(Peer::from_env("ratings", &env).url(), "http://ratings:9080");
        env.insert("SERVICES_DOMAIN".into(), "shop.svc".into());
        env.insert("RATINGS_SERVICE_PORT".into(), "80".into());
        assert_eq!(
            Peer::from_env("ratings", &env).url(),
            "http://ratings.shop.svc:80"
        );
        env.insert("RATINGS_SERVICE_PORT".into(), "tcp://10.0.0.1:80".into());
        assert_eq!(
            Peer::from_env("ratings", &env).url(),
            "http://ratings.shop.svc:9080"
        );
    }
}
