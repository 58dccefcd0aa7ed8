//! Runs the embedded API server alone, for trying clients against it:
//! `cargo run -p lateen-cluster --example apiserver -- DIR [PORT]`. Writes DIR/kubeconfig.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use lateen_cluster::api::{ApiServer, ApiServerOptions, ClusterPki};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "cluster-data".to_owned()));
    let port: u16 = args.next().map_or(Ok(0), |p| p.parse())?;
    let now = SystemTime::now();
    let pki = ClusterPki::load_or_create(&dir.join("pki"), now)?;
    let mut options = ApiServerOptions::new(&dir, pki);
    options.bind = SocketAddr::from(([127, 0, 0, 1], port));
    let (server, _api) = ApiServer::start(options).await?;
    let config = server.kubeconfig("kubernetes-admin", "system:masters", now)?;
    let path = dir.join("kubeconfig");
    std::fs::write(&path, config)?;
    println!("{} {}", server.url(), path.display());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
