//! A management server for one client: streams as they come, requests as lines of a transcript.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lateen_proxy_xds::kind::Kind;
use lateen_xds_proto::envoy::service::discovery::v3 as pb;
use lateen_xds_proto::{Any, Message};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::grpc;
use super::life::Form;

/// Longest wait for a request that must come; a busy machine is slow.
const LONG: Duration = Duration::from_secs(20);

/// The server.
pub struct Server {
    listener: TcpListener,
    form: Form,
}

/// One open stream.
pub struct Stream {
    form: Form,
    requests: mpsc::UnboundedReceiver<String>,
    send: h2::SendStream<Bytes>,
    /// Ends the connection when dropped.
    _connection: tokio::task::JoinHandle<()>,
    close: tokio::sync::oneshot::Sender<()>,
}

/// Resources of one response.
pub struct Response {
    /// Their type.
    pub type_url: String,
    /// Version of the response and of each resource.
    pub version: String,
    /// The response's nonce.
    pub nonce: String,
    /// By name.
    pub resources: Vec<(String, Any)>,
    /// Names taken away; delta only.
    pub removed: Vec<String>,
}

impl Server {
    /// Listens on a free port.
    pub async fn start(form: Form) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, form }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Waits for a stream.
    pub async fn accept(&self) -> Stream {
        let come = tokio::time::timeout(LONG, self.listener.accept()).await;
        let (socket, _) = come.expect("no connection came").unwrap();
        let mut connection = h2::server::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(socket)
            .await
            .unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let method = match self.form {
            Form::Sotw => "StreamAggregatedResources",
            Form::Delta => "DeltaAggregatedResources",
        };
        assert_eq!(
            request.uri().path(),
            format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}")
        );
        let send = respond.send_response(grpc::head(), false).unwrap();
        let (close, closed) = tokio::sync::oneshot::channel::<()>();
        let driver = tokio::spawn(async move {
            tokio::select! {
                _ = closed => {}
                () = async { while connection.accept().await.is_some() {} } => {}
            }
        });
        let (tell, requests) = mpsc::unbounded_channel();
        tokio::spawn(read(self.form, request.into_body(), tell));
        Stream {
            form: self.form,
            requests,
            send,
            _connection: driver,
            close,
        }
    }
}

async fn read(form: Form, mut body: h2::RecvStream, tell: mpsc::UnboundedSender<String>) {
    let mut buffer = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        buffer.extend_from_slice(&data);
        while let Some(message) = grpc::take(&mut buffer) {
            let line = match form {
                Form::Sotw => sotw(&pb::DiscoveryRequest::decode(message).unwrap()),
                Form::Delta => delta(&pb::DeltaDiscoveryRequest::decode(message).unwrap()),
            };
            if tell.send(line).is_err() {
                return;
            }
        }
    }
}

impl Stream {
    /// The next requests, so many; more are taken too, where they come within a moment.
    pub async fn requests(&mut self, count: usize) -> Vec<String> {
        let mut out = Vec::new();
        while out.len() < count {
            match tokio::time::timeout(LONG, self.requests.recv()).await {
                Ok(Some(line)) => out.push(line),
                Ok(None) => panic!("the stream ended after {out:#?}"),
                Err(_) => {
                    out.push("(no further request)".to_owned());
                    return out;
                }
            }
        }
        let quiet = Duration::from_millis(150);
        while let Ok(Some(line)) = tokio::time::timeout(quiet, self.requests.recv()).await {
            out.push(line);
        }
        out
    }

    /// Sends a response.
    pub fn answer(&mut self, response: Response) {
        let frame = match self.form {
            Form::Sotw => grpc::frame(&pb::DiscoveryResponse {
                version_info: response.version,
                nonce: response.nonce,
                type_url: response.type_url,
                resources: response.resources.into_iter().map(|(_, any)| any).collect(),
                ..Default::default()
            }),
            Form::Delta => grpc::frame(&pb::DeltaDiscoveryResponse {
                system_version_info: response.version.clone(),
                nonce: response.nonce,
                type_url: response.type_url,
                resources: wrapped(response.resources, &response.version),
                removed_resources: response.removed,
                ..Default::default()
            }),
        };
        self.send.send_data(frame, false).unwrap();
    }

    /// Ends the connection.
    pub fn close(self) {
        let _ = self.close.send(());
    }
}

fn wrapped(resources: Vec<(String, Any)>, version: &str) -> Vec<pb::Resource> {
    let wrap = |(name, any)| pb::Resource {
        name,
        version: version.to_owned(),
        resource: Some(any),
        ..Default::default()
    };
    resources.into_iter().map(wrap).collect()
}

fn short(type_url: &str) -> String {
    match Kind::from_url(type_url) {
        Some(kind) => format!("{kind:?}"),
        None => type_url.to_owned(),
    }
}

fn sorted(names: &[String]) -> String {
    let mut names = names.to_vec();
    names.sort();
    format!("[{}]", names.join(" "))
}

/// A NACK's code and which of the names it must have are in its message.
fn refusal(detail: Option<&lateen_xds_proto::google::rpc::Status>) -> String {
    let Some(status) = detail else {
        return String::new();
    };
    // The words of a reason are each program's own; that it names the resource is not.
    let names: Vec<&str> = ["bad-1", "bad-2", "twice"]
        .into_iter()
        .filter(|name| status.message.contains(name))
        .collect();
    format!(" NACK {} of {}", status.code, names.join(","))
}

fn node(node: Option<&lateen_xds_proto::envoy::config::core::v3::Node>) -> String {
    node.map_or(String::new(), |n| format!(" node {}/{}", n.id, n.cluster))
}

fn sotw(r: &pb::DiscoveryRequest) -> String {
    format!(
        "{} version {:?} nonce {:?} names {}{}{}",
        short(&r.type_url),
        r.version_info,
        r.response_nonce,
        sorted(&r.resource_names),
        node(r.node.as_ref()),
        refusal(r.error_detail.as_ref()),
    )
}

fn delta(r: &pb::DeltaDiscoveryRequest) -> String {
    let known: BTreeMap<_, _> = r.initial_resource_versions.iter().collect();
    format!(
        "{} nonce {:?} +{} -{} known {known:?}{}{}",
        short(&r.type_url),
        r.response_nonce,
        sorted(&r.resource_names_subscribe),
        sorted(&r.resource_names_unsubscribe),
        node(r.node.as_ref()),
        refusal(r.error_detail.as_ref()),
    )
}
