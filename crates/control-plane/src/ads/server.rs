//! The gRPC service `AggregatedDiscoveryService`: checks the caller and hands each
//! stream to the loop in `stream`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use lateen_process::Stop;
use lateen_xds::{ResourceSet, ResourceType};
use lateen_xds_proto::envoy::service::discovery::v3 as discovery;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::connections::Connections;
use super::node::NodeInfo;
use super::state::{Dialect, Names};
use super::{delta::Delta, sotw::Sotw, stream};
use crate::metrics::Metrics;

/// One configuration as one proxy sees it; everything generated from a view fits together.
pub trait View: Send + Sync + 'static {
    /// Label of the configuration, `version_info` of responses.
    fn version(&self) -> &str;

    /// When the change that made this configuration was noticed.
    fn noticed(&self) -> Instant;

    /// The resources of a type. Named types yield what `names` asks for and exists.
    fn generate(&self, t: ResourceType, names: &Names) -> Arc<ResourceSet>;
}

/// Where the server takes configuration from.
pub trait Source: Send + Sync + 'static {
    /// What this source calls a view.
    type View: View;

    /// Ticks on every new configuration with its number; 0 while there is none.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The newest configuration for this proxy.
    fn view(&self, node: &NodeInfo) -> Arc<Self::View>;
}

/// Who called, put into the request's extensions by the connection's acceptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The plain port: no proof of identity.
    Plain,
    /// An authenticated service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// The ADS service.
#[derive(Debug)]
pub struct Ads<S> {
    pub(super) source: Arc<S>,
    pub(super) connections: Arc<Connections>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: Stop,
}

impl<S> Clone for Ads<S> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            connections: Arc::clone(&self.connections),
            metrics: Arc::clone(&self.metrics),
            stop: self.stop.clone(),
        }
    }
}

impl<S: Source> Ads<S> {
    /// A service over a source; its streams end with the stop, and proxies go elsewhere.
    pub fn new(
        source: Arc<S>,
        connections: Arc<Connections>,
        metrics: Arc<Metrics>,
        stop: Stop,
    ) -> Self {
        Self {
            source,
            connections,
            metrics,
            stop,
        }
    }

    fn start<D: Dialect>(&self, request: Request<Streaming<D::Request>>) -> Outgoing<D::Response>
    where
        D::Request: Unpin,
    {
        let peer = request
            .remote_addr()
            .map_or_else(|| "unknown".to_owned(), |a| a.to_string());
        let caller = request
            .extensions()
            .get::<Caller>()
            .cloned()
            .unwrap_or(Caller::Plain);
        // A few responses may wait for a slow reader; beyond that the stream itself waits,
        // and changes collapse into one push when it reads again.
        let (sender, receiver) = mpsc::channel(8);
        let server = self.clone();
        tokio::spawn(async move {
            stream::run::<D, S>(server, request.into_inner(), sender, peer, caller).await;
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

/// What a proxy reads.
type Outgoing<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

#[tonic::async_trait]
impl<S: Source> AggregatedDiscoveryService for Ads<S> {
    type StreamAggregatedResourcesStream = Outgoing<discovery::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<discovery::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(Response::new(self.start::<Sotw>(request)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(Response::new(self.start::<Delta>(request)))
    }
}
