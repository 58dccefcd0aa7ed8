//! The application's own probes, asked by kubelet at the agent's port because
//! its addresses are redirected: HTTP, TCP or gRPC as injection wrote them down.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::dial;

/// A probe that cannot be understood.
#[derive(Clone, Debug, thiserror::Error)]
#[error("application probe {path}: {why}")]
pub struct BadProbe {
    /// Path on the agent's port.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

/// One probe.
#[derive(Clone, Debug, PartialEq)]
pub struct AppProbe {
    /// What is asked.
    pub action: Action,
    /// How long it may take; 1 s by default.
    pub timeout: Duration,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// GET.
    Http {
        /// Host, empty = the pod's.
        host: String,
        /// Port.
        port: u16,
        /// Path with query.
        path: String,
        /// Over TLS, unverified, as kubelet does.
        https: bool,
        /// Headers to send.
        headers: Vec<(String, String)>,
    },
    /// Connect.
    Tcp {
        /// Port.
        port: u16,
    },
    /// grpc.health.v1.
    Grpc {
        /// Port.
        port: u16,
        /// Service name.
        service: String,
    },
}

/// Reads the JSON object that injection writes: path to probe.
///
/// # Errors
/// When a probe has no action or no numeric port.
pub fn parse_probers(value: &Value) -> Result<Vec<(String, AppProbe)>, BadProbe> {
    let Some(object) = value.as_object() else {
        return Ok(Vec::new());
    };
    object
        .iter()
        .map(|(path, probe)| {
            let action = action(probe).map_err(|why| BadProbe {
                path: path.clone(),
                why,
            })?;
            let seconds = probe
                .get("timeoutSeconds")
                .and_then(Value::as_u64)
                .filter(|s| *s > 0);
            let timeout = Duration::from_secs(seconds.unwrap_or(1));
            Ok((path.clone(), AppProbe { action, timeout }))
        })
        .collect()
}

fn port(action: &Value) -> Result<u16, String> {
    let port = action.get("port").ok_or("no port")?;
    let number = port.as_u64().or_else(|| port.as_str()?.parse().ok());
    number
        .and_then(|n| u16::try_from(n).ok())
        .ok_or_else(|| format!("port {port} is not a number"))
}

fn text(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn action(probe: &Value) -> Result<Action, String> {
    if let Some(http) = probe.get("httpGet") {
        let headers = http.get("httpHeaders").and_then(Value::as_array);
        let pair = |h: &Value| (text(h, "name"), text(h, "value"));
        let path = text(http, "path");
        return Ok(Action::Http {
            host: text(http, "host"),
            port: port(http)?,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            https: text(http, "scheme").eq_ignore_ascii_case("https"),
            headers: headers
                .map(|list| list.iter().map(pair).collect())
                .unwrap_or_default(),
        });
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return Ok(Action::Tcp { port: port(tcp)? });
    }
    if let Some(grpc) = probe.get("grpc") {
        return Ok(Action::Grpc {
            port: port(grpc)?,
            service: text(grpc, "service"),
        });
    }
    Err("it has none of httpGet, tcpSocket, grpc".to_owned())
}

impl AppProbe {
    /// Asks; the answer is an HTTP status for kubelet.
    pub async fn ask(&self, pod_ip: &str) -> u16 {
        match tokio::time::timeout(self.timeout, self.ask_now(pod_ip)).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                tracing::debug!(%error, "application probe");
                500
            }
            Err(_) => 500,
        }
    }

    async fn ask_now(&self, pod_ip: &str) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
        match &self.action {
            Action::Tcp { port } => {
                dial::pod(pod_ip, *port).await?;
                Ok(200)
            }
            Action::Http {
                host,
                port,
                path,
                https,
                headers,
            } => {
                let target = if host.is_empty() { pod_ip } else { host };
                let stream = match target == pod_ip {
                    true => dial::pod(pod_ip, *port).await?,
                    false => TcpStream::connect((target, *port)).await?,
                };
                let mut request = http::Request::get(path).header("user-agent", "kube-probe/1.37");
                let named = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("host"));
                let authority =
                    named.map_or_else(|| format!("{target}:{port}"), |(_, v)| v.clone());
                request = request.header("host", authority);
                for (name, value) in headers
                    .iter()
                    .filter(|(n, _)| !n.eq_ignore_ascii_case("host"))
                {
                    request = request.header(name, value);
                }
                let request = request.body(Empty::<Bytes>::new())?;
                match https {
                    false => get(TokioIo::new(stream), request).await,
                    true => get(TokioIo::new(over_tls(stream, target).await?), request).await,
                }
            }
            Action::Grpc { port, service } => {
                let stream = dial::pod(pod_ip, *port).await?;
                grpc_health(stream, pod_ip, service).await
            }
        }
    }
}

async fn get<S>(
    stream: S,
    request: http::Request<Empty<Bytes>>,
) -> Result<u16, Box<dyn std::error::Error + Send + Sync>>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut send, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "application probe connection");
        }
    });
    let response = send.send_request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

async fn over_tls(
    stream: TcpStream,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    let contexts = crate::tls::TlsContexts::default();
    // No roots: kubelet does not verify probes either.
    let context = lateen_proxy_core::config::UpstreamTls::default();
    let config = contexts.client(&context, None, None)?;
    let name = rustls_pki_types::ServerName::try_from(host.to_owned())?;
    Ok(tokio_rustls::TlsConnector::from(config)
        .connect(name, stream)
        .await?)
}

/// Asks grpc.health.v1.Health/Check; 200 for SERVING, 500 otherwise.
async fn grpc_health(
    stream: TcpStream,
    host: &str,
    service: &str,
) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let (mut send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "application probe connection");
        }
    });
    let request = http::Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = send.send_request(request, false)?;
    // HealthCheckRequest { service = 1 } in a gRPC frame.
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        message.push(u8::try_from(service.len()).map_err(|_| "service name too long")?);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    body.send_data(frame.into(), true)?;
    let mut answer = response.await?.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = answer.data().await {
        let data = data?;
        answer.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    // HealthCheckResponse { status = 1: SERVING } is the field 0x08 0x01.
    let serving = bytes
        .get(5..)
        .is_some_and(|m| m.windows(2).any(|w| w == [0x08, 0x01]));
    Ok(if serving { 200 } else { 500 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn probers_as_injection_writes_them() {
        let probers = json!({
            "/app-health/app/readyz": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 3},
            "/app-health/app/livez": {"tcpSocket": {"port": "9000"}},
        });
        let parsed = parse_probers(&probers).unwrap();
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[0].1.timeout, Duration::from_secs(3));
        assert_eq!(parsed[1].1.action, Action::Tcp { port: 9000 });
        assert!(parse_probers(&json!({"/x": {"httpGet": {"port": "http"}}})).is_err());
        assert!(parse_probers(&json!({"/x": {}})).is_err());
        assert!(parse_probers(&Value::Null).unwrap().is_empty());
    }

    #[tokio::test]
    async fn http_and_tcp_probes() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                let mut bytes = [0; 1024];
                let count = stream.read(&mut bytes).await.unwrap();
                let good = bytes[..count].starts_with(b"GET /ok ");
                let status = if good { "204 No Content" } else { "418 No" };
                let text = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        let http = |path: &str| AppProbe {
            action: Action::Http {
                host: String::new(),
                port,
                path: path.to_owned(),
                https: false,
                headers: vec![],
            },
            timeout: Duration::from_secs(5),
        };
        assert_eq!(http("/ok").ask("127.0.0.1").await, 204);
        assert_eq!(http("/bad").ask("127.0.0.1").await, 418);
        let tcp = AppProbe {
            action: Action::Tcp { port: 1 },
            timeout: Duration::from_secs(5),
        };
        assert_eq!(tcp.ask("127.0.0.1").await, 500);
    }
}
