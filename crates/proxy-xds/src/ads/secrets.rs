//! Secrets over streams of their own, one for each as Envoy has it: connects to
//! the cluster that the configuration names, asks, acknowledges, comes back.
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::retry::back_off;
use lateen_xds_proto::Message;
use lateen_xds_proto::envoy::service::discovery::v3 as pb;
use lateen_xds_proto::google::rpc;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::client::{Handle, check_head, grpc_result, now_since};
use super::connect::{ClusterConnector, Connect};
use super::grpc::{Deframer, frame};
use crate::decode::ResourceSource;
use crate::kind::Kind;
use crate::world::Incoming;

const BACK_OFF_BASE: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// gRPC code of a NACK: INTERNAL, as Envoy sends.
const NACK_CODE: i32 = 13;

/// A stream: cluster, delta, secret.
type Key = (Name, bool, Name);

/// The streams that run.
pub(super) struct SecretStreams {
    handle: Handle,
    started: std::time::Instant,
    changed: Arc<Notify>,
    running: BTreeMap<Key, AbortHandle>,
}

impl SecretStreams {
    /// No stream yet; `changed` is told when a secret came.
    pub(super) fn new(handle: Handle, started: std::time::Instant, changed: Arc<Notify>) -> Self {
        Self {
            handle,
            started,
            changed,
            running: BTreeMap::new(),
        }
    }

    /// Starts the streams that are wanted now and ends the others.
    pub(super) fn reconcile(&mut self) {
        let wanted = self.handle.world().secret_streams();
        self.running.retain(|key, task| {
            let stays = wanted.contains(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for key in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let stream = Stream {
                handle: self.handle.clone(),
                started: self.started,
                changed: self.changed.clone(),
                source: ResourceSource::Grpc {
                    cluster: key.0.clone(),
                    delta: key.1,
                },
                cluster: key.0.clone(),
                delta: key.1,
                name: key.2.clone(),
                version: String::new(),
            };
            let task = tokio::spawn(stream.run()).abort_handle();
            self.running.insert(key, task);
        }
    }
}

impl Drop for SecretStreams {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

struct Stream {
    handle: Handle,
    started: std::time::Instant,
    changed: Arc<Notify>,
    source: ResourceSource,
    cluster: Name,
    delta: bool,
    name: Name,
    version: String,
}

impl Stream {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let before = self.version.clone();
            let error = match self.once().await {
                Ok(()) => "the server closed the stream".to_owned(),
                Err(error) => error.to_string(),
            };
            self.handle.world().secret_failed(&self.source, &self.name);
            failures = if self.version == before {
                failures + 1
            } else {
                0
            };
            let wait = back_off(BACK_OFF_BASE, BACK_OFF_MAX, failures, fastrand::u64(..));
            let retry_ms = wait.as_millis();
            let (cluster, secret) = (&self.cluster, &self.name);
            tracing::warn!(target: "secret", %cluster, %secret, %error, retry_ms, "SDS stream ended");
            tokio::time::sleep(wait).await;
        }
    }

    /// One stream, from connect to its end.
    async fn once(&mut self) -> io::Result<()> {
        let snapshot = self.handle.world().snapshot();
        let connector = ClusterConnector::new(&self.cluster, snapshot).map_err(io::Error::other)?;
        let io = connector.connect().await?;
        let request = self.request(&connector)?;
        let handshake = h2::client::Builder::new().enable_push(false).handshake(io);
        let (client, connection) = handshake.await.map_err(io::Error::other)?;
        tokio::pin!(connection);
        tokio::select! {
            end = &mut connection => end.map_err(io::Error::other),
            end = self.exchange(client, request) => end,
        }
    }

    fn request(&self, connector: &ClusterConnector) -> io::Result<http::Request<()>> {
        let method = if self.delta {
            "DeltaSecrets"
        } else {
            "StreamSecrets"
        };
        let (scheme, authority) = (connector.scheme(), connector.authority());
        http::Request::builder()
            .method("POST")
            .uri(format!(
                "{scheme}://{authority}/envoy.service.secret.v3.SecretDiscoveryService/{method}"
            ))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("lateen/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(io::Error::other)
    }

    async fn exchange(
        &mut self,
        client: h2::client::SendRequest<bytes::Bytes>,
        request: http::Request<()>,
    ) -> io::Result<()> {
        let mut client = client.ready().await.map_err(io::Error::other)?;
        let (response, mut send) = client
            .send_request(request, false)
            .map_err(io::Error::other)?;
        send.send_data(self.first(), false)
            .map_err(io::Error::other)?;
        let response = response.await.map_err(io::Error::other)?;
        check_head(response.status(), response.headers())?;
        let mut body = response.into_body();
        let mut deframer = Deframer::default();
        while let Some(data) = body.data().await {
            let data = data.map_err(io::Error::other)?;
            body.flow_control()
                .release_capacity(data.len())
                .map_err(io::Error::other)?;
            deframer.push(&data);
            while let Some(message) = deframer.next().map_err(io::Error::other)? {
                let answer = self.receive(&message)?;
                send.send_data(answer, false).map_err(io::Error::other)?;
            }
        }
        match body.trailers().await.map_err(io::Error::other)? {
            Some(trailers) => grpc_result(&trailers),
            None => Ok(()),
        }
    }

    /// The stream's first request, and every acknowledgement's frame.
    fn first(&self) -> bytes::Bytes {
        let node = Some(self.handle.loaded.node.clone());
        let type_url = Kind::Secret.type_url().to_owned();
        if self.delta {
            let held = (!self.version.is_empty()).then(|| self.version.clone());
            let held = held.map(|version| (self.name.to_string(), version));
            frame(&pb::DeltaDiscoveryRequest {
                node,
                type_url,
                resource_names_subscribe: vec![self.name.to_string()],
                initial_resource_versions: held.into_iter().collect(),
                ..Default::default()
            })
        } else {
            frame(&pb::DiscoveryRequest {
                node,
                type_url,
                version_info: self.version.clone(),
                resource_names: vec![self.name.to_string()],
                ..Default::default()
            })
        }
    }

    /// Takes a response in; what acknowledges or refuses it.
    fn receive(&mut self, message: &[u8]) -> io::Result<bytes::Bytes> {
        let bad = |e| io::Error::new(io::ErrorKind::InvalidData, format!("response: {e}"));
        let type_url = Kind::Secret.type_url().to_owned();
        let detail = |error: Option<String>| {
            error.map(|message| rpc::Status {
                code: NACK_CODE,
                message,
                details: vec![],
            })
        };
        if self.delta {
            let response = pb::DeltaDiscoveryResponse::decode(message).map_err(bad)?;
            let found = response.resources.iter().find(|r| *r.name == *self.name);
            let any = found.and_then(|r| r.resource.as_ref());
            let version = found.map(|r| r.version.clone()).unwrap_or_default();
            let error = any.and_then(|any| self.take(any, &version).err());
            Ok(frame(&pb::DeltaDiscoveryRequest {
                type_url,
                response_nonce: response.nonce,
                error_detail: detail(error),
                ..Default::default()
            }))
        } else {
            let response = pb::DiscoveryResponse::decode(message).map_err(bad)?;
            let mut error = None;
            for any in &response.resources {
                if let Err(refusal) = self.take(any, &response.version_info) {
                    error = Some(refusal);
                }
            }
            Ok(frame(&pb::DiscoveryRequest {
                type_url,
                version_info: self.version.clone(),
                resource_names: vec![self.name.to_string()],
                response_nonce: response.nonce,
                error_detail: detail(error),
                ..Default::default()
            }))
        }
    }

    /// Takes the secret in; the reason of a refusal.
    fn take(&mut self, any: &lateen_xds_proto::Any, version: &str) -> Result<(), String> {
        let taken = self.try_take(any, version);
        if taken.is_err() {
            let mut world = self.handle.world();
            world.secret_rejected(&self.source, &self.name);
        }
        self.changed.notify_one();
        taken
    }

    fn try_take(&mut self, any: &lateen_xds_proto::Any, version: &str) -> Result<(), String> {
        if any.type_url != Kind::Secret.type_url() {
            return Err(format!("type URL {} is no secret's", any.type_url));
        }
        let name = crate::decode::secret_name(&any.value).map_err(|e| e.to_string())?;
        if *name != *self.name {
            return Err(format!(
                "secret `{name}` was not asked for, `{}` was",
                self.name
            ));
        }
        let incoming = Incoming {
            name: self.name.clone(),
            version: version.into(),
            raw: any.value.as_slice().into(),
        };
        let now = now_since(self.started);
        let taken = self
            .handle
            .world()
            .update_secret(&self.source, &incoming, now);
        taken.map_err(|e| e.to_string())?;
        self.version = version.to_owned();
        Ok(())
    }
}
