//! The admin listener: HTTP/1.1 on hyper, one page a path, Envoy's answers to what it does not know.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, SERVER, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_process::Stop;
use lateen_proxy_core::config::Address;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::query::Query;
use super::{Drain, ServerState, State, clusters, config_dump, loggers, stats};

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

/// Status, content type and body of a page.
type Page = (StatusCode, &'static str, String);

/// A socket that the pages are asked on.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// Takes the admin address; `mode` = permissions of the file of a Unix socket, 0 = the system's.
/// The address as it is bound comes with it.
///
/// # Errors
/// When it cannot be listened on.
pub fn bind(address: &Address, mode: u32) -> io::Result<(Listener, String)> {
    let (listener, bound) = match address {
        Address::Pipe(path) => {
            let listener = unix_listener(path, mode)?;
            listener.set_nonblocking(true)?;
            (Listener::Unix(listener), path.to_string())
        }
        other => {
            let address = other.socket().ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{other} is no address"),
                )
            })?;
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let bound = listener.local_addr()?.to_string();
            (Listener::Tcp(listener), bound)
        }
    };
    Ok((listener, bound))
}

/// A Unix socket; the one that a process before left in its place is replaced.
fn unix_listener(path: &str, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    use std::os::unix::net::{SocketAddr, UnixListener};
    if let Some(name) = path.strip_prefix('@') {
        return UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?);
    }
    if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    if mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(listener)
}

/// The same in the runtime.
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    /// Serves one more connection beside the others.
    async fn serve_next(&self, state: &Arc<dyn State>) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => spawn(listener.accept().await?.0, state),
            Self::Unix(listener) => spawn(listener.accept().await?.0, state),
        }
        Ok(())
    }
}

fn spawn(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, state: &Arc<dyn State>) {
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let service = hyper::service::service_fn(move |request| {
            let answer = answer(state.as_ref(), &request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(target: crate::logger::ADMIN, %error, "admin connection ended");
        }
    });
}

/// Serves the pages until told to stop.
///
/// # Errors
/// When the listener cannot be handed to the runtime.
pub async fn serve(listener: Listener, state: Arc<dyn State>, stop: Stop) -> io::Result<()> {
    let listener = match listener {
        Listener::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
        Listener::Unix(listener) => Accepting::Unix(UnixListener::from_std(listener)?),
    };
    loop {
        let served = tokio::select! {
            () = stop.stopped() => return Ok(()),
            served = listener.serve_next(&state) => served,
        };
        if let Err(error) = served {
            tracing::warn!(target: crate::logger::ADMIN, %error, "admin accept failed");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

fn answer(state: &dyn State, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let asked = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let (status, kind, body) = match state.allows(asked) {
        false => refused(asked),
        true => page(state, request.method(), request.uri().path(), &query),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(SERVER, HeaderValue::from_static("envoy"));
    response
}

/// What `allow_paths` does not name.
fn refused(path: &str) -> Page {
    let text = format!("request to path {path} not allowed");
    (StatusCode::FORBIDDEN, TEXT, text)
}

/// One page of the list: path, whether it changes something, what it is for.
const PAGES: &[(&str, bool, &str)] = &[
    ("/", false, "Admin home page"),
    ("/certs", false, "print certs on machine"),
    ("/clusters", false, "upstream cluster status"),
    ("/config_dump", false, "dump current configs"),
    ("/drain_listeners", true, "drain listeners"),
    (
        "/healthcheck/fail",
        true,
        "cause the server to fail health checks",
    ),
    (
        "/healthcheck/ok",
        true,
        "cause the server to pass health checks",
    ),
    ("/help", false, "print out list of admin commands"),
    (
        "/hot_restart_version",
        false,
        "print the hot restart compatibility version",
    ),
    ("/init_dump", false, "dump what is still initializing"),
    ("/listeners", false, "print listener info"),
    ("/logging", true, "query/change logging levels"),
    ("/memory", false, "print current allocation/heap usage"),
    ("/quitquitquit", true, "exit the server"),
    (
        "/ready",
        false,
        "print server state, 200 if LIVE, otherwise 503",
    ),
    ("/reopen_logs", true, "reopen access logs"),
    ("/reset_counters", true, "reset all counters to zero"),
    ("/runtime", false, "print runtime values"),
    (
        "/server_info",
        false,
        "print server version/status information",
    ),
    ("/stats", false, "print server stats"),
    (
        "/stats/prometheus",
        false,
        "print server stats in prometheus format",
    ),
];

fn page(state: &dyn State, method: &Method, path: &str, query: &Query) -> Page {
    let Some((_, changes, _)) = PAGES.iter().find(|(known, _, _)| *known == path) else {
        let text = format!("invalid path. admin commands are:\n{}", help());
        return (StatusCode::NOT_FOUND, TEXT, text);
    };
    if *changes && method != Method::POST {
        let text = format!("Method {method} not allowed, POST required.");
        return (StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    }
    if *changes {
        change(state, path, query)
    } else {
        show(state, path, query)
    }
}

fn ok(text: impl Into<String>) -> Page {
    (StatusCode::OK, TEXT, text.into())
}

fn pretty(value: &Value) -> Page {
    // A JSON value always has a text form.
    (
        StatusCode::OK,
        JSON,
        serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
    )
}

fn metrics(page: Result<(&'static str, String), String>) -> Page {
    match page {
        Ok((kind, body)) => (StatusCode::OK, kind, body),
        Err(text) => bad(text),
    }
}

fn bad(text: String) -> Page {
    (StatusCode::BAD_REQUEST, TEXT, text)
}

fn show(state: &dyn State, path: &str, query: &Query) -> Page {
    let as_json = query.get("format") == Some("json");
    match path {
        "/certs" => pretty(&json!({"certificates": state.certificates()})),
        "/clusters" => match clusters::Wanted::of(query) {
            Ok(wanted) if as_json => pretty(&clusters::json(state, &wanted)),
            Ok(wanted) => ok(clusters::text(state, &wanted)),
            Err(text) => bad(text),
        },
        "/config_dump" => {
            let configs = state.config_dump(query.has("include_eds"));
            match config_dump::filtered(configs, query) {
                Ok(value) => pretty(&value),
                Err((404, text)) => (StatusCode::NOT_FOUND, TEXT, text),
                Err((_, text)) => bad(text),
            }
        }
        "/hot_restart_version" => ok("disabled\n"),
        "/init_dump" => pretty(&json!({})),
        "/listeners" => listeners(state, as_json),
        "/memory" => pretty(&memory()),
        "/ready" => ready(state.server_state()),
        "/runtime" => pretty(&state.runtime()),
        "/server_info" => pretty(&server_info(state)),
        "/stats" => metrics(stats::page(state, query)),
        "/stats/prometheus" => metrics(stats::prometheus_page(state, query)),
        _ => ok(format!("admin commands are:\n{}", help())),
    }
}

fn change(state: &dyn State, path: &str, query: &Query) -> Page {
    match path {
        "/drain_listeners" => state.drain(Drain {
            inbound_only: query.has("inboundonly"),
            graceful: query.has("graceful"),
            skip_exit: query.has("skip_exit"),
        }),
        "/healthcheck/fail" => state.fail_health_check(true),
        "/healthcheck/ok" => state.fail_health_check(false),
        "/logging" => return logging(state, query),
        "/quitquitquit" => state.quit(),
        "/reopen_logs" => state.reopen_logs(),
        "/reset_counters" => state.registry().reset_counters(),
        _ => {}
    }
    ok("OK\n")
}

fn help() -> String {
    let row = |(path, changes, what): &(&str, bool, &str)| {
        format!(
            "  {path}{}: {what}\n",
            if *changes { " (POST)" } else { "" }
        )
    };
    PAGES.iter().map(row).collect()
}

fn ready(state: ServerState) -> Page {
    let live = state == ServerState::Live;
    let status = if live {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, TEXT, format!("{}\n", state.name()))
}

fn listeners(state: &dyn State, as_json: bool) -> Page {
    let bound = state.bound();
    if !as_json {
        return ok(bound
            .iter()
            .map(|(name, at)| format!("{name}::{at}\n"))
            .collect::<String>());
    }
    let statuses = bound.iter().map(|(name, at)| {
        let address = at.parse::<SocketAddr>().map_or_else(
            |_| json!({"pipe": {"path": at}}),
            |at| clusters::address_json(&at.into()),
        );
        json!({"name": name, "local_address": address})
    });
    pretty(&json!({"listener_statuses": statuses.collect::<Vec<_>>()}))
}

fn logging(state: &dyn State, query: &Query) -> Page {
    match loggers::change(state, query) {
        Ok(text) => ok(text),
        Err(text) => bad(text),
    }
}

/// Resident and virtual size from the kernel; the allocator keeps no count of its own.
fn memory() -> Value {
    let [size, resident] = crate::run::figures::memory().map(|n| n.to_string());
    json!({"allocated": resident, "heap_size": size, "total_physical_bytes": resident})
}

fn server_info(state: &dyn State) -> Value {
    let uptime = format!("{}s", state.uptime().as_secs());
    json!({
        "version": format!("lateen/{}/Clean/RELEASE/AWS-LC", env!("CARGO_PKG_VERSION")),
        "state": state.server_state().name(),
        "hot_restart_version": "disabled",
        "command_line_options": state.options(),
        "node": state.node(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_initializing": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_list_the_commands_and_changes_want_post() {
        assert!(help().contains("/quitquitquit (POST): exit the server"));
        let (status, _, body) = ready(ServerState::Draining);
        assert_eq!((status.as_u16(), body.as_str()), (503, "DRAINING\n"));
        let (status, _, body) = ready(ServerState::Live);
        assert_eq!((status.as_u16(), body.as_str()), (200, "LIVE\n"));
    }
}
