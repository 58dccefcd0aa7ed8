//! `control-plane` (also `discovery`): the control plane, inside a cluster or over a folder of YAML.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use lateen_control_plane::{ControlPlaneOptions, Objects};
use lateen_model::Sniffing;

#[derive(Debug, Parser)]
#[command(
    name = "lateen control-plane",
    about = "The control plane",
    after_help = "Examples:\n  lateen control-plane                                     (inside a cluster)\n  lateen control-plane --config-dir mesh/ --xds-address 127.0.0.1:15010"
)]
struct ControlPlaneArgs {
    /// Read objects from the YAML of this folder instead of a cluster, again on change
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Mesh configuration file (default: the ConfigMap `istio`)
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Kubernetes configuration file (default: the pod's own account)
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Plain xDS
    #[arg(long, value_name = "[IP]:PORT", value_parser = address)]
    xds_address: Option<SocketAddr>,
    /// Secure xDS and certificate signing
    #[arg(long, value_name = "[IP]:PORT", value_parser = address)]
    secure_address: Option<SocketAddr>,
    /// Webhooks
    #[arg(long, value_name = "[IP]:PORT", value_parser = address)]
    webhook_address: Option<SocketAddr>,
    /// Metrics and debug pages
    #[arg(long = "monitoringAddr", value_name = "[IP]:PORT", value_parser = address)]
    monitoring_addr: Option<SocketAddr>,
    /// Debug pages
    #[arg(long, value_name = "[IP]:PORT", value_parser = address)]
    http_address: Option<SocketAddr>,
    /// Log level
    #[arg(
        long = "log_output_level",
        default_value = "info",
        value_name = "[SCOPE:]LEVEL"
    )]
    log_output_level: String,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    domain: String,
    #[arg(long = "keepaliveMaxServerConnectionAge", hide = true)]
    keepalive_max_server_connection_age: Option<String>,
    /// Behave as an earlier Istio where it behaved differently
    #[arg(long, value_parser = ["1.0"], value_name = "VERSION")]
    compat: Option<String>,
    /// Namespace of the control plane
    #[arg(long, default_value = "istio-system", value_name = "NAMESPACE")]
    namespace: String,
}

/// `127.0.0.1:15010`, or `:15010` for every address.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    full.parse()
        .map_err(|_| format!("\"{text}\" is not IP:PORT or :PORT"))
}

/// Runs the control plane to its end.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let args = ControlPlaneArgs::try_parse_from(
        std::iter::once("control-plane".to_owned()).chain(args.iter().cloned()),
    )?;
    // Istio's scopes have no meaning here; the level behind the last colon does.
    let level = args
        .log_output_level
        .rsplit(':')
        .next()
        .unwrap_or("info")
        .to_owned();
    lateen_process::logs::start(&level, false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = lateen_process::stop::on_signals(lateen_process::stop::Hangup::Stops)?;
        lateen_control_plane::run(options(args), stop).await
    })
}

/// One of Istio's switches, on unless its variable says false.
fn switch(name: &str) -> bool {
    !std::env::var(name).is_ok_and(|value| matches!(value.as_str(), "false" | "0" | "f"))
}

/// What the library is told: in files mode only the ports that were named are served.
fn options(args: ControlPlaneArgs) -> ControlPlaneOptions {
    let base = match &args.config_dir {
        Some(folder) => {
            let xds = args
                .xds_address
                .unwrap_or_else(|| ([127, 0, 0, 1], 15010).into());
            ControlPlaneOptions::files(folder, xds)
        }
        None => ControlPlaneOptions {
            objects: Objects::Kubernetes {
                kubeconfig: args.kubeconfig,
                context: None,
            },
            ..ControlPlaneOptions::default()
        },
    };
    ControlPlaneOptions {
        mesh_config: args.mesh_config,
        namespace: args.namespace,
        domain: args.domain,
        revision: std::env::var("REVISION").unwrap_or_default(),
        xds_address: args.xds_address.or(base.xds_address),
        secure_address: args.secure_address.or(base.secure_address),
        webhook_address: args.webhook_address.or(base.webhook_address),
        http_address: args.http_address.or(base.http_address),
        monitoring_address: args.monitoring_addr.or(base.monitoring_address),
        sniffing: Sniffing {
            outbound: switch("PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND"),
            inbound: switch("PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_INBOUND"),
        },
        compat_1_0: args.compat.as_deref() == Some("1.0"),
        objects: base.objects,
    }
}
