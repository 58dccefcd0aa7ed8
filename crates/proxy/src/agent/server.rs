//! The HTTP server of the agent's ports.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_process::Stop;
use tokio::net::TcpListener;

use super::{Agent, Role, scrape};
use crate::admin::{self, Drain, ServerState};

/// Opens a port.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves one port until told to stop.
///
/// # Errors
/// When the listener cannot be handed to the runtime.
pub async fn serve(
    listener: std::net::TcpListener,
    role: Role,
    agent: Arc<Agent>,
    stop: Stop,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            () = stop.stopped() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "agent accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let agent = agent.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let agent = agent.clone();
                async move { Ok::<_, Infallible>(answer(&agent, role, peer.ip(), &request).await) }
            });
            // One request a connection: probes that come through the proxy's
            // own listener (15021) must never meet a connection kept too long.
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "agent connection ended");
            }
        });
    }
}

fn text(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// Paths of the application's probes and lifecycle hooks, as injection writes
/// them.
fn is_probe(path: &str) -> bool {
    path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/")
}

/// The port is open to the whole network; only the pod itself may end or drain
/// its proxy.
fn may_order(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

async fn answer<B>(
    agent: &Agent,
    role: Role,
    peer: IpAddr,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let post = request.method() == Method::POST;
    let orders = role == Role::Status && matches!(path, "/quitquitquit" | "/drain");
    if orders && !may_order(peer) {
        return text(403, "Only requests from localhost are allowed\n");
    }
    match path {
        "/healthz/ready" if role != Role::Metrics => ready(agent),
        "/stats/prometheus" | "/metrics" if role != Role::Health => metrics(agent, role).await,
        "/quitquitquit" | "/drain" if role == Role::Status && !post => text(405, ""),
        "/quitquitquit" if role == Role::Status => {
            agent.state.quit();
            text(200, "OK")
        }
        "/drain" if role == Role::Status => {
            agent.state.drain(Drain {
                inbound_only: true,
                graceful: true,
                skip_exit: true,
            });
            text(200, "")
        }
        _ if role == Role::Status && is_probe(path) => {
            match agent.probes.iter().find(|(known, _)| known == path) {
                Some((_, probe)) => text(probe.ask(&agent.options.pod_ip).await, ""),
                None => text(404, format!("no probe is known at {path}\n")),
            }
        }
        _ => text(404, ""),
    }
}

fn ready(agent: &Agent) -> Response<Full<Bytes>> {
    match agent.state.server_state() {
        // A listener that was refused from the start leaves the pod without its
        // traffic: it must not count as ready.
        ServerState::Live => match agent.state.missing() {
            None => text(200, ""),
            Some(why) => text(503, format!("{why}\n")),
        },
        other => text(503, format!("proxy is {}\n", other.name())),
    }
}

async fn metrics(agent: &Agent, role: Role) -> Response<Full<Bytes>> {
    let mut page = admin::prometheus(&*agent.state);
    if role == Role::Status {
        let options = &agent.options;
        if let Some(own) = scrape::app_metrics(&options.app_metrics, &options.pod_ip).await {
            page.push_str(&own);
        }
    }
    let mut response = text(200, page);
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pod_itself_gives_orders() {
        for (peer, may) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.244.0.7", false),
            ("::ffff:10.244.0.7", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(may_order(peer.parse().unwrap()), may, "{peer}");
        }
    }

    #[test]
    fn probes_and_hooks_are_the_applications() {
        assert!(is_probe("/app-health/a/readyz"));
        assert!(is_probe("/app-lifecycle/a/prestopz"));
        assert!(!is_probe("/app-other/a"));
    }
}
