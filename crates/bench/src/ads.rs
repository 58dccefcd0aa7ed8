//! A management server for one proxy: answers its subscriptions with what it was given, pushes, and
//! waits for the acknowledgement. A thread of its own, so that the driver goes on.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use lateen_xds_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use lateen_xds_proto::{Any, Message as _, json};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The type of clusters.
pub const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
/// The type of listeners.
pub const LISTENER: &str = "envoy.config.listener.v3.Listener";
/// The type of route tables.
pub const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

/// No proxy takes so long for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// All resources of one type, ready to be sent.
#[derive(Clone, Debug)]
pub struct Resources {
    url: String,
    all: Vec<Any>,
}

/// Resources of a type, from their JSON form.
///
/// # Errors
/// When one is not what its type says.
pub fn resources(kind: &str, values: impl IntoIterator<Item = Value>) -> anyhow::Result<Resources> {
    let url = format!("type.googleapis.com/{kind}");
    let make = |value: Value| {
        let value = json::to_wire(kind, &value).with_context(|| kind.to_owned())?;
        anyhow::Ok(Any {
            type_url: url.clone(),
            value,
        })
    };
    let all = values
        .into_iter()
        .map(make)
        .collect::<anyhow::Result<_>>()?;
    Ok(Resources { url, all })
}

struct Push {
    resources: Resources,
    done: mpsc::Sender<Result<(), String>>,
}

/// The server's handle; it ends when this is dropped.
pub struct Server {
    orders: UnboundedSender<Push>,
}

impl Server {
    /// Serves on this port of loopback.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(port: u16, first: Vec<Resources>) -> anyhow::Result<Self> {
        let socket = std::net::TcpListener::bind(("127.0.0.1", port))?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, received) = unbounded_channel();
        std::thread::spawn(move || {
            if let Err(error) = runtime.block_on(serve(socket, first, received)) {
                eprintln!("the management server ended: {error:#}");
            }
        });
        Ok(Self { orders })
    }

    /// Sends these and waits until the proxy acknowledges them; how long that took.
    ///
    /// # Errors
    /// When it refuses them or does not answer.
    pub fn push(&self, resources: Resources) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let pending = self.begin(resources)?;
        let answer = pending.0.recv_timeout(PATIENCE);
        judged(answer.context("no acknowledgement")?)?;
        Ok(begun.elapsed())
    }

    /// Sends these and goes on.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn begin(&self, resources: Resources) -> anyhow::Result<Pending> {
        let (done, wait) = mpsc::channel();
        if self.orders.send(Push { resources, done }).is_err() {
            bail!("the management server has ended");
        }
        Ok(Pending(wait))
    }
}

fn judged(answer: Result<(), String>) -> anyhow::Result<()> {
    answer.map_err(|why| anyhow::anyhow!("refused: {why}"))
}

/// An acknowledgement that is still to come.
pub struct Pending(mpsc::Receiver<Result<(), String>>);

impl Pending {
    /// What the proxy answered, once it did.
    pub fn poll(&self) -> Option<anyhow::Result<()>> {
        match self.0.try_recv() {
            Ok(answer) => Some(judged(answer)),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => {
                Some(Err(anyhow::anyhow!("the management server has ended")))
            }
        }
    }
}

/// One stream's state.
struct Stream {
    send: h2::SendStream<Bytes>,
    state: HashMap<String, Resources>,
    /// The names that were last asked for, by type.
    asked: HashMap<String, Vec<String>>,
    waiting: HashMap<String, mpsc::Sender<Result<(), String>>>,
    nonce: u64,
}

async fn serve(
    socket: std::net::TcpListener,
    first: Vec<Resources>,
    mut orders: UnboundedReceiver<Push>,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let (socket, _) = tokio::select! {
        accepted = listener.accept() => accepted?,
        // Dropped before anybody came.
        _ = orders.recv() => return Ok(()),
    };
    socket.set_nodelay(true)?;
    let mut builder = h2::server::Builder::new();
    builder.max_send_buffer_size(64 << 20);
    let mut connection = builder.handshake::<_, Bytes>(socket).await?;
    let (request, mut respond) = connection.accept().await.context("no stream")??;
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut stream = Stream {
        send: respond.send_response(head.body(())?, false)?,
        state: first.into_iter().map(|r| (r.url.clone(), r)).collect(),
        asked: HashMap::new(),
        waiting: HashMap::new(),
        nonce: 0,
    };
    let (mut body, mut buffer) = (request.into_body(), BytesMut::new());
    loop {
        tokio::select! {
            data = body.data() => {
                let Some(Ok(data)) = data else { return Ok(()) };
                body.flow_control().release_capacity(data.len())?;
                buffer.extend_from_slice(&data);
                while let Some(request) = next(&mut buffer)? {
                    stream.request(&request)?;
                }
            }
            order = orders.recv() => {
                let Some(Push { resources, done }) = order else { return Ok(()) };
                let url = resources.url.clone();
                stream.waiting.insert(url.clone(), done);
                stream.state.insert(url.clone(), resources);
                stream.send(&url)?;
            }
        }
    }
}

/// The next whole message of a gRPC stream.
fn next(buffer: &mut BytesMut) -> anyhow::Result<Option<DiscoveryRequest>> {
    let Some((head, rest)) = buffer.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if rest.len() < length {
        return Ok(None);
    }
    buffer.advance(5);
    Ok(Some(DiscoveryRequest::decode(buffer.split_to(length))?))
}

impl Stream {
    fn request(&mut self, request: &DiscoveryRequest) -> anyhow::Result<()> {
        let url = request.type_url.clone();
        let names = request.resource_names.clone();
        let changed = self.asked.insert(url.clone(), names.clone()) != Some(names);
        if request.response_nonce == self.nonce_of(&url) {
            let answer = match &request.error_detail {
                Some(error) => Err(error.message.clone()),
                None => Ok(()),
            };
            if let Err(why) = &answer {
                eprintln!("the proxy refuses {url}: {why}");
            }
            if let Some(done) = self.waiting.remove(&url) {
                // Who waited may have given up.
                let _ = done.send(answer);
            }
        }
        if request.response_nonce.is_empty() || changed {
            self.send(&url)?;
        }
        Ok(())
    }

    /// Nonces are the type's own count.
    fn nonce_of(&self, url: &str) -> String {
        format!("{url}#{}", self.nonce)
    }

    fn send(&mut self, url: &str) -> anyhow::Result<()> {
        let Some(resources) = self.state.get(url) else {
            return Ok(());
        };
        self.nonce += 1;
        let response = DiscoveryResponse {
            version_info: self.nonce.to_string(),
            nonce: self.nonce_of(url),
            type_url: url.to_owned(),
            resources: resources.all.clone(),
            ..DiscoveryResponse::default()
        };
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(response.encoded_len())?.to_be_bytes());
        response.encode(&mut frame)?;
        self.send.send_data(frame.into(), false)?;
        Ok(())
    }
}
