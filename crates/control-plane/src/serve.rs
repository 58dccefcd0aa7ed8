//! The ports: gRPC plain and over TLS, the HTTP pages, the webhooks over TLS. Each runs
//! until the shutdown signal and then lets open requests finish.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use lateen_xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use lateen_xds_proto::istio::certificate_service::IstioCertificateServiceServer;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use lateen_process::Stop;

use crate::ads::Ads;
use crate::auth::{AuthLayer, Authenticator};
use crate::ca::CaService;
use crate::store::Store;
use crate::tls::{self, Reloaded};

/// A first request may list five hundred extensions; a big mesh's names are longer.
const LARGEST_REQUEST: usize = 16 << 20;

/// Binds an address, naming it in the error.
///
/// # Errors
/// The port is taken or not ours to take.
pub async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| anyhow::anyhow!("cannot listen on {address} for {what}: {e}"))
}

fn ads_service(ads: Ads<Store>) -> AggregatedDiscoveryServiceServer<Ads<Store>> {
    AggregatedDiscoveryServiceServer::new(ads).max_decoding_message_size(LARGEST_REQUEST)
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(20)))
        .tcp_nodelay(true)
}

/// ADS in plain text.
///
/// # Errors
/// The transport failed.
pub async fn xds_plain(listener: TcpListener, ads: Ads<Store>, stop: Stop) -> anyhow::Result<()> {
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        stream.inspect(|s| {
            // Without it small pushes wait for the peer's delayed acknowledgement.
            if let Err(error) = s.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
        })
    });
    server()
        .add_service(ads_service(ads))
        .serve_with_incoming_shutdown(incoming, stopped(stop))
        .await?;
    Ok(())
}

/// ADS and the certificate service over TLS, for callers that prove who they are.
///
/// # Errors
/// The transport failed.
pub async fn xds_secure(
    listener: TcpListener,
    config: Reloaded,
    authenticator: Arc<Authenticator>,
    ads: Ads<Store>,
    ca: CaService,
    stop: Stop,
) -> anyhow::Result<()> {
    server()
        .layer(AuthLayer(authenticator))
        .add_service(ads_service(ads))
        .add_service(IstioCertificateServiceServer::new(ca))
        .serve_with_incoming_shutdown(tls::accept(listener, config), stopped(stop))
        .await?;
    Ok(())
}

/// Pages over plain HTTP.
///
/// # Errors
/// The listener failed.
pub async fn http(listener: TcpListener, router: Router, stop: Stop) -> anyhow::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stopped(stop))
        .await?;
    Ok(())
}

/// Pages over TLS.
///
/// # Errors
/// None today; the type leaves room for a failing accept loop.
pub async fn https(
    listener: TcpListener,
    config: Reloaded,
    router: Router,
    stop: Stop,
) -> anyhow::Result<()> {
    let mut connections = tls::accept(listener, config);
    let ended = stopped(stop.clone());
    tokio::pin!(ended);
    loop {
        let conn = tokio::select! {
            conn = connections.next() => conn,
            () = &mut ended => return Ok(()),
        };
        let Some(Ok(conn)) = conn else { return Ok(()) };
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(until(stop.clone(), async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = builder.serve_connection(TokioIo::new(conn), service).await {
                tracing::debug!(%error, "connection");
            }
        }));
    }
}

async fn stopped(stop: Stop) {
    stop.stopped().await;
}

async fn until(stop: Stop, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stopped(stop) => {}
    }
}
