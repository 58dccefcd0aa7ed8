//! Port-forward over SPDY: per local connection an `error` and a `data` stream.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::session::read_chunk;
use super::spdy::{Connection, IncomingStream};
use crate::node::runtime::{Duplex, NodeRuntime, PodRef};

/// A connection into the pod.
pub type Connected = Box<dyn Duplex>;

/// Local connections whose second stream has not come yet.
const MAX_HALF_OPEN: usize = 256;

/// Connects into a pod; the error is the text that the client shows.
///
/// # Errors
/// In the words of a node agent: `error forwarding port P to pod NAME, uid : why`.
pub async fn connect(
    runtime: &dyn NodeRuntime,
    pod: &PodRef,
    port: u16,
) -> Result<Connected, String> {
    runtime.port_forward(pod, port).await.map_err(|why| {
        format!(
            "error forwarding port {port} to pod {}, uid : {why}",
            pod.name
        )
    })
}

/// Serves a port-forward connection until the client leaves.
pub async fn serve<T>(transport: T, pod: PodRef, runtime: Arc<dyn NodeRuntime>)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = Connection::start(transport);
    let mut waiting: HashMap<String, IncomingStream> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(stream) = stream else { break };
        let request = stream.header("requestid").to_owned();
        match (waiting.remove(&request), stream.header("streamtype")) {
            (Some(first), "data") if first.header("streamtype") == "error" => {
                tasks.spawn(forward(first, stream, pod.clone(), Arc::clone(&runtime)));
            }
            (Some(first), "error") if first.header("streamtype") == "data" => {
                tasks.spawn(forward(stream, first, pod.clone(), Arc::clone(&runtime)));
            }
            (None, "data" | "error") if waiting.len() < MAX_HALF_OPEN => {
                waiting.insert(request, stream);
            }
            _ => {} // Dropping the streams resets them.
        }
    }
    tasks.shutdown().await;
}

async fn forward(
    mut error: IncomingStream,
    mut data: IncomingStream,
    pod: PodRef,
    runtime: Arc<dyn NodeRuntime>,
) {
    let connected = match data.header("port").parse::<u16>() {
        Ok(port) if port > 0 => connect(&*runtime, &pod, port).await,
        _ => Err(format!("{:?} is not a valid port", data.header("port"))),
    };
    match connected {
        Ok(connected) => copy(&mut data, connected).await,
        Err(why) => {
            tracing::debug!("{why}");
            error.writer.write(Bytes::from(why)).await;
        }
    }
    data.writer.finish().await;
    error.writer.finish().await;
}

/// Copies both ways; each direction ends by itself.
async fn copy(data: &mut IncomingStream, connected: Connected) {
    let (mut from_pod, mut to_pod) = tokio::io::split(connected);
    let IncomingStream { reader, writer, .. } = data;
    let outward = async {
        while let Some(bytes) = read_chunk(&mut from_pod).await {
            if !writer.write(bytes).await {
                return;
            }
        }
        writer.finish().await;
    };
    let inward = async {
        while let Some(bytes) = reader.read().await {
            if to_pod.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to_pod.shutdown().await;
    };
    tokio::join!(outward, inward);
}
