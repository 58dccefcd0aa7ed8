//! A plain-HTTP server with just enough of the API for kubectl to stream: discovery of pods, three
//! pods, and the streaming subresources; and an echo server to forward to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lateen_cluster::stream::{self, Body, Subresource};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::fake::Host;

/// A running server; dropping it stops it.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// A TCP port that answers with what it gets.
    pub echo_port: u16,
    transports: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let echo_port = echo.local_addr().expect("an address").port();
        let transports = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&transports)));
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Self {
            address,
            echo_port,
            transports,
            _tasks: tasks,
        }
    }

    /// The `Upgrade` headers seen.
    pub fn transports(&self) -> Vec<String> {
        self.transports.lock().expect("not poisoned").clone()
    }
}

async fn accept(listener: TcpListener, transports: Arc<Mutex<Vec<String>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let transports = Arc::clone(&transports);
        let service = service_fn(move |request| {
            let transports = Arc::clone(&transports);
            async move { Ok::<_, std::convert::Infallible>(answer(request, &transports).await) }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            let _ = connection.with_upgrades().await;
        });
    }
}

fn pod(name: &str, node: &str, phase: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "main", "image": "i", "stdin": true}]},
        "status": {"phase": phase, "containerStatuses": [
            {"name": "main", "ready": true, "state": {"running": {}}}]},
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

async fn answer(request: Request<Incoming>, transports: &Mutex<Vec<String>>) -> Response<Body> {
    if let Some(upgrade) = request
        .headers()
        .get("upgrade")
        .and_then(|u| u.to_str().ok())
    {
        transports
            .lock()
            .expect("not poisoned")
            .push(upgrade.to_owned());
    }
    let path = request.uri().path().to_owned();
    let resource = |name: &str| {
        json!({"name": name, "singularName": "", "namespaced": true, "kind": "Pod",
            "verbs": ["get", "create", "list"]})
    };
    let found = match path.as_str() {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            resource("pods"), resource("pods/exec"), resource("pods/log"),
            resource("pods/attach"), resource("pods/portforward")]}),
        _ => {
            let parts: Vec<&str> = path
                .trim_start_matches("/api/v1/namespaces/default/pods/")
                .split('/')
                .collect();
            let pod = match parts[0] {
                "one" => pod("one", "node-1", "Running"),
                "ended" => pod("ended", "node-1", "Running"),
                "pending" => pod("pending", "", "Pending"),
                _ => return not_found(),
            };
            let Some(name) = parts.get(1) else {
                return reply(200, &pod);
            };
            return match Subresource::by_name(name) {
                Some(subresource) => {
                    stream::serve(request, &pod, subresource, Arc::new(Host)).await
                }
                None => not_found(),
            };
        }
    };
    reply(200, &found)
}

fn not_found() -> Response<Body> {
    reply(
        404,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
        "reason": "NotFound", "message": "not found"}),
    )
}

fn reply(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.boxed_unsync())
        .expect("a response")
}
