//! Probes: pure counting of outcomes, and the dialling of http, tcp and exec checks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Gates the others; failure restarts.
    Startup,
    /// Failure restarts.
    Liveness,
    /// Decides whether traffic comes.
    Readiness,
}

impl Purpose {
    /// As event texts begin.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A probe's numbers with their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Before the first try.
    pub initial_delay: Duration,
    /// Between tries.
    pub period: Duration,
    /// For one try.
    pub timeout: Duration,
    /// Successes in a row that make a success.
    pub success_threshold: u32,
    /// Failures in a row that make a failure.
    pub failure_threshold: u32,
}

impl Timing {
    /// Reads a probe.
    pub fn of(probe: &Probe) -> Self {
        let number = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default)
        };
        let seconds =
            |value: Option<i32>, default: u32| Duration::from_secs(number(value, default).into());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: number(probe.success_threshold, 1),
            failure_threshold: number(probe.failure_threshold, 3),
        }
    }
}

/// Counts outcomes in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    last: Option<bool>,
    length: u32,
}

impl Streak {
    /// Notes an outcome; `Some(verdict)` once the threshold of its kind is reached (and with each
    /// further one).
    pub fn note(&mut self, success: bool, timing: &Timing) -> Option<bool> {
        if self.last == Some(success) {
            self.length = self.length.saturating_add(1);
        } else {
            self.last = Some(success);
            self.length = 1;
        }
        let needed = if success {
            timing.success_threshold
        } else {
            timing.failure_threshold
        };
        (self.length >= needed).then_some(success)
    }
}

/// A port by number or by the name of one of the container's ports.
///
/// # Errors
/// When the name is unknown or the number is no port.
pub fn resolve_port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let mut ports = container.ports.iter().flatten();
            ports
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port)
        }),
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n != 0)
        .ok_or_else(|| {
            format!(
                "couldn't find port {port:?} of container {:?}",
                container.name
            )
        })
}

/// How a Go network error would read: people know these texts.
fn dial_text(address: SocketAddr, error: &std::io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connection refused".to_owned(),
        Some(libc::EHOSTUNREACH) => "no route to host".to_owned(),
        Some(libc::ETIMEDOUT) => "connection timed out".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: connect: {why}")
}

/// Opens and closes a connection.
///
/// # Errors
/// The text of the failure.
pub async fn tcp(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect(address)
        .await
        .map(drop)
        .map_err(|e| dial_text(address, &e))
}

/// Sends a GET; any status from 200 to 399 passes.
///
/// # Errors
/// The text of the failure.
pub async fn http(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: IpAddr,
) -> Result<(), String> {
    let port = resolve_port(container, &action.port)?;
    let host = match action.host.as_deref().filter(|h| !h.is_empty()) {
        None => pod_ip,
        Some(text) => text
            .parse()
            .map_err(|_| format!("probe host {text:?} is not an address"))?,
    };
    let address = SocketAddr::new(host, port);
    let path = action
        .path
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let scheme = if secure { "https" } else { "http" };
    let url = format!("{scheme}://{address}{slash}{path}");
    let mut head = format!("GET {slash}{path} HTTP/1.1\r\n");
    let headers = || action.http_headers.iter().flatten();
    let has = |name: &str| headers().any(|h| h.name.eq_ignore_ascii_case(name));
    if !has("host") {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    if !has("user-agent") {
        head.push_str("User-Agent: kube-probe/1.37\r\n");
    }
    if !has("accept") {
        head.push_str("Accept: */*\r\n");
    }
    for header in headers() {
        head.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    head.push_str("Connection: close\r\n\r\n");
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|e| format!("Get {url:?}: {}", dial_text(address, &e)))?;
    let status = if secure {
        let stream = super::probe_tls::connect(stream, host).await;
        exchange(stream.map_err(|e| format!("Get {url:?}: {e}"))?, &head).await
    } else {
        exchange(stream, &head).await
    };
    match status.map_err(|e| format!("Get {url:?}: {e}"))? {
        200..400 => Ok(()),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    head: &str,
) -> Result<u16, String> {
    stream
        .write_all(head.as_bytes())
        .await
        .map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    let mut buf = [0; 1024];
    // The status line is all that counts.
    while !answer.contains(&b'\n') && answer.len() < 8192 {
        match stream.read(&mut buf).await.map_err(|e| e.to_string())? {
            0 => break,
            n => answer.extend_from_slice(&buf[..n]),
        }
    }
    if answer.is_empty() {
        return Err("EOF".to_owned());
    }
    let line = String::from_utf8_lossy(&answer);
    let mut words = line.split_whitespace();
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse().ok());
    status
        .filter(|_| version.starts_with("HTTP/"))
        .ok_or_else(|| {
            format!(
                "malformed HTTP response {:?}",
                line.lines().next().unwrap_or_default()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::TcpListener;

    #[test]
    fn thresholds_count_in_a_row() {
        let probe: Probe =
            serde_json::from_value(json!({"failureThreshold": 2, "successThreshold": 3})).unwrap();
        let timing = Timing::of(&probe);
        assert_eq!((timing.period.as_secs(), timing.timeout.as_secs()), (10, 1));
        let mut streak = Streak::default();
        let mut note = |success| streak.note(success, &timing);
        assert_eq!(note(false), None);
        assert_eq!(note(true), None);
        assert_eq!(note(false), None);
        assert_eq!(note(false), Some(false));
        assert_eq!(note(false), Some(false));
        assert_eq!(
            [note(true), note(true), note(true)],
            [None, None, Some(true)]
        );
    }

    fn container() -> Container {
        serde_json::from_value(
            json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap()
    }

    #[test]
    fn ports_by_number_and_name() {
        let port = |p: IntOrString| resolve_port(&container(), &p);
        assert_eq!(port(IntOrString::Int(80)), Ok(80));
        assert_eq!(port(IntOrString::String("web".into())), Ok(8080));
        assert!(port(IntOrString::String("no".into())).is_err());
        assert!(port(IntOrString::Int(0)).is_err());
    }

    #[tokio::test]
    async fn http_statuses_and_texts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action: HTTPGetAction = serde_json::from_value(
            json!({"port": port, "path": "ready", "httpHeaders": [{"name": "X-A", "value": "1"}]}),
        )
        .unwrap();
        let server = tokio::spawn(async move {
            for answer in [
                "HTTP/1.1 302 Found\r\n\r\n",
                "HTTP/1.1 503 No\r\n\r\n",
                "junk\n",
                "",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buf = [0; 1024];
                let n = stream.read(&mut buf).await.unwrap();
                let head = String::from_utf8_lossy(&buf[..n]).into_owned();
                assert!(
                    head.starts_with("GET /ready HTTP/1.1\r\n") && head.contains("X-A: 1"),
                    "{head}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let container = container();
        let mut results = Vec::new();
        for _ in 0..4 {
            results.push(http(&action, &container, [127, 0, 0, 1].into()).await);
        }
        server.await.unwrap();
        assert_eq!(results[0], Ok(()));
        assert_eq!(
            results[1],
            Err("HTTP probe failed with statuscode: 503".into())
        );
        assert!(
            results[2]
                .as_ref()
                .unwrap_err()
                .contains("malformed HTTP response")
        );
        assert!(results[3].as_ref().unwrap_err().ends_with("EOF"));
        let refused = http(&action, &container, [127, 0, 0, 1].into())
            .await
            .unwrap_err();
        assert!(refused.contains("connect: connection refused"), "{refused}");
    }
}
