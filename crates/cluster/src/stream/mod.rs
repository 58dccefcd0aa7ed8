//! Streaming subresources of pods: log, exec, attach and port-forward.
//!
//! [`serve`] is called after authentication and the look-up of the pod; it answers the request
//! and, where it upgrades the connection, carries the session in a task of its own.

mod container;
mod forward;
pub(crate) mod query;
mod remote;
pub(crate) mod session;
pub mod spdy;
mod upgrade;
pub(crate) mod websocket;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;
use tokio::sync::mpsc;

use self::query::Query;
use self::remote::Expected;
use self::session::{Channel, Ending, Output, Purpose};
use self::upgrade::{Offer, Upgrade};
use self::websocket::Version;
use crate::api::ApiError;
use crate::controllers::object::{name, namespace, text, uid};
use crate::node::runtime::{
    AttachRequest, ExecRequest, NodeRuntime, PodRef, RuntimeError, Session,
};

/// The body of a streaming answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Which subresource of a pod is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// `pods/log`
    Log,
    /// `pods/exec`
    Exec,
    /// `pods/attach`
    Attach,
    /// `pods/portforward`
    PortForward,
}

impl Subresource {
    /// The subresource by its name in a URL.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "log" => Some(Self::Log),
            "exec" => Some(Self::Exec),
            "attach" => Some(Self::Attach),
            "portforward" => Some(Self::PortForward),
            _ => None,
        }
    }
}

/// Answers a streaming request for a pod.
///
/// The connection must have been served with upgrades enabled. Errors are answered as a Status.
pub async fn serve<B>(
    mut request: Request<B>,
    pod: &Value,
    subresource: Subresource,
    runtime: Arc<dyn NodeRuntime>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let answer = match subresource {
        Subresource::Log => log(&query, pod, &*runtime).await,
        Subresource::Exec | Subresource::Attach => {
            remote_command(&mut request, &query, pod, subresource, &*runtime).await
        }
        Subresource::PortForward => port_forward(&mut request, &query, pod, runtime),
    };
    answer.unwrap_or_else(|error| match (subresource, error.code) {
        // What the node refuses arrives as the node's own text, not as a Status: kubectl then
        // prints `unable to upgrade connection: container not found ("c")`.
        (Subresource::Exec | Subresource::Attach, 404) => plain(&error),
        _ => refusal(&error),
    })
}

fn plain(error: &ApiError) -> Response<Body> {
    let text = Full::new(Bytes::from(error.message.clone()));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::NOT_FOUND;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn refusal(error: &ApiError) -> Response<Body> {
    let text = error.status().to_string();
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn pod_ref(pod: &Value) -> PodRef {
    PodRef {
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
        uid: uid(pod).to_owned(),
    }
}

fn api_error(error: RuntimeError) -> ApiError {
    match error {
        RuntimeError::NotFound(message) => ApiError::new(404, "NotFound", message),
        RuntimeError::BadRequest(message) => ApiError::bad_request(message),
        other => ApiError::internal(other),
    }
}

fn on_a_node(pod: &Value) -> Result<(), ApiError> {
    if text(pod, "/spec/nodeName").is_empty() {
        let why = format!("pod {} does not have a host assigned", name(pod));
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

async fn log(
    query: &Query,
    pod: &Value,
    runtime: &dyn NodeRuntime,
) -> Result<Response<Body>, ApiError> {
    let container = container::choose(pod, query.get("container"))?;
    let options = query.log_options()?;
    let body = if text(pod, "/spec/nodeName").is_empty() {
        Full::default()
            .map_err(|never| match never {})
            .boxed_unsync()
    } else {
        let lines = runtime
            .logs(&pod_ref(pod), &container, options)
            .await
            .map_err(api_error)?;
        StreamBody::new(lines.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
    };
    let mut response = Response::new(body);
    let plain = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

/// WebSocket protocols for exec and attach, best first.
const COMMAND_SOCKETS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
/// SPDY protocols for exec and attach, best first. Version 5 adds nothing over SPDY.
const COMMAND_SPDY: [&str; 5] = [
    "v4.channel.k8s.io",
    "v5.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

async fn remote_command<B>(
    request: &mut Request<B>,
    query: &Query,
    pod: &Value,
    subresource: Subresource,
    runtime: &dyn NodeRuntime,
) -> Result<Response<Body>, ApiError> {
    let offer = Offer::of(request, &COMMAND_SOCKETS, &COMMAND_SPDY)?;
    on_a_node(pod)?;
    let container = container::choose(pod, query.get("container"))?;
    let flag = |name: &str| query.flag(name);
    let (stdin, stdout, tty) = (flag("stdin"), flag("stdout"), flag("tty"));
    let stderr = flag("stderr") && !tty;
    if !(stdin || stdout || stderr) {
        let why = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(ApiError::bad_request(why));
    }
    let reference = pod_ref(pod);
    let (purpose, started) = if subresource == Subresource::Exec {
        let command = query.all("command");
        if command.is_empty() {
            return Err(ApiError::bad_request(
                "you must specify at least one command",
            ));
        }
        let exec = ExecRequest {
            command,
            stdin,
            stdout,
            stderr,
            tty,
        };
        (
            Purpose::Exec,
            runtime.exec(&reference, &container, exec).await,
        )
    } else {
        let tty = tty || container::has_terminal(pod, &container);
        let attach = AttachRequest {
            stdin,
            stdout,
            stderr,
            tty,
        };
        (
            Purpose::Attach,
            runtime.attach(&reference, &container, attach).await,
        )
    };
    let session = match started {
        Ok(session) => Ok(session),
        // The program could not be started: the client learns it like an exit code.
        Err(RuntimeError::Start { code, message }) => Err((code, message)),
        Err(error) => return Err(api_error(error)),
    };
    let expected = Expected {
        stdin,
        stdout,
        stderr,
        resize: tty && !matches!(offer.protocol(), "v2.channel.k8s.io" | "channel.k8s.io"),
        status: matches!(offer.protocol(), "v4.channel.k8s.io" | "v5.channel.k8s.io"),
    };
    let (upgrade, answer) = offer.accept(request);
    tokio::spawn(run_command(upgrade, session, purpose, expected));
    Ok(answer)
}

async fn run_command(
    upgrade: Upgrade,
    session: Result<Session, (i32, String)>,
    purpose: Purpose,
    expected: Expected,
) {
    let (input_sender, input) = mpsc::channel(16);
    let (output_sender, output) = mpsc::channel(16);
    let carried = async {
        match session {
            Ok(session) => session::carry(session, purpose, input, output_sender).await,
            Err((code, message)) => {
                let channel = if expected.stderr {
                    Channel::Stderr
                } else {
                    Channel::Stdout
                };
                let line = Bytes::from(format!("{message}\r\n"));
                let _ = output_sender.send(Output::Data(channel, line)).await;
                let _ = output_sender.send(Output::End(Ending::Code(code))).await;
            }
        }
    };
    let transported = async {
        match upgrade {
            Upgrade::WebSocket {
                connection,
                protocol,
            } => {
                let version = match protocol.as_str() {
                    "v5.channel.k8s.io" => Version::V5,
                    "v4.channel.k8s.io" => Version::V4,
                    _ => Version::Text,
                };
                let Some(transport) = connection.ready().await else {
                    return;
                };
                let socket = websocket::accept(transport).await;
                websocket::remote_command(socket, version, input_sender, output).await;
            }
            Upgrade::Spdy { connection } => {
                let Some(transport) = connection.ready().await else {
                    return;
                };
                remote::remote_command(transport, expected, input_sender, output).await;
            }
        }
    };
    tokio::join!(carried, transported);
}

/// SPDY inside WebSocket messages.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const FORWARD_SOCKETS: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "v5.channel.k8s.io"];
const FORWARD_SPDY: [&str; 1] = ["portforward.k8s.io"];

fn port_forward<B>(
    request: &mut Request<B>,
    query: &Query,
    pod: &Value,
    runtime: Arc<dyn NodeRuntime>,
) -> Result<Response<Body>, ApiError> {
    let offer = Offer::of(request, &FORWARD_SOCKETS, &FORWARD_SPDY)?;
    on_a_node(pod)?;
    let channels = offer.is_websocket() && offer.protocol() != TUNNEL;
    let ports = if channels { query.ports()? } else { Vec::new() };
    let reference = pod_ref(pod);
    let (upgrade, answer) = offer.accept(request);
    tokio::spawn(async move {
        match upgrade {
            Upgrade::Spdy { connection } => {
                let Some(transport) = connection.ready().await else {
                    return;
                };
                forward::serve(transport, reference, runtime).await;
            }
            Upgrade::WebSocket { connection, .. } => {
                let Some(transport) = connection.ready().await else {
                    return;
                };
                let socket = websocket::accept(transport).await;
                if channels {
                    websocket::forward_channels(socket, &ports, &reference, &*runtime).await;
                } else {
                    forward::serve(websocket::tunnel(socket), reference, runtime).await;
                }
            }
        }
    });
    Ok(answer)
}
