//! `up`: a cluster on this machine with the mesh in it, in the foreground; Ctrl-C stops everything.
//!
//! The order is: look before leaping (`preflight`), take the lock, start the cluster, install the
//! mesh by the same manifests as anywhere else, then the demo. Whatever fails on the way, what was
//! started is stopped again.

mod demo;
mod images;
pub mod lock;
mod preflight;
mod progress;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use lateen_cluster::local::{LocalCluster, LocalOptions};
use lateen_process::Stop;

use crate::exit::{Failure, USAGE};
use crate::{paths, style};
use progress::Progress;

/// `up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lateen up                     a cluster with the mesh in it\n  lateen up --demo bookinfo     and Bookinfo behind the ingress gateway\n  lateen up --profile empty     a plain cluster, without the mesh"
)]
pub struct Up {
    /// Also run a sample application
    #[arg(long, value_enum)]
    demo: Option<Demo>,
    /// Installation profile of the mesh; `empty` installs none
    #[arg(long, default_value = "default", value_name = "NAME")]
    profile: String,
    /// Override an installation value (key=value)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// Behave as an earlier Istio where it behaved differently
    #[arg(long, value_parser = ["1.0"], value_name = "VERSION")]
    compat: Option<String>,
    /// Port of the API server on this machine; 0 takes a free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    api_port: u16,
    /// Log level of the cluster itself
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    log_level: String,
}

impl Up {
    /// The mesh's objects, or why the arguments cannot be met.
    fn manifests(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        if self.profile == "empty" && self.demo.is_some() {
            let why = "the demo needs the mesh: leave --profile empty out";
            return Err(Failure::new(USAGE, why).into());
        }
        // On one machine people want to see each request: Istio's default is no access log.
        let mut values = vec!["meshConfig.accessLogFile=/dev/stdout".to_owned()];
        let compat = self.compat.iter();
        values.extend(compat.map(|version| format!("values.pilot.compat={version}")));
        values.extend(self.values.iter().cloned());
        super::install::objects(&self.profile, &values)
    }
}

/// The samples that `up` can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Demo {
    Bookinfo,
}

/// How long the mesh and the demo may take to be ready.
const READY: Duration = Duration::from_secs(120);

/// Runs until it is told to stop.
pub fn run(args: Up) -> anyhow::Result<()> {
    lateen_process::logs::start(&args.log_level, false)?;
    let home = paths::home();
    let objects = args.manifests()?;
    let tools = preflight::check(args.api_port)?;
    let lock = lock::take(&home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let stop = lateen_process::stop::on_signals(lateen_process::stop::Hangup::Stops)?;
        session(&args, objects, &home, tools, stop).await
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(lock);
    outcome
}

async fn session(
    args: &Up,
    objects: Vec<serde_json::Value>,
    home: &Path,
    tools: preflight::Tools,
    stop: Stop,
) -> anyhow::Result<()> {
    let progress = Progress::start();
    progress.step("starting the cluster");
    let cluster = LocalCluster::start(LocalOptions {
        home: home.to_owned(),
        instance: paths::instance(),
        api_bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.api_port),
        version: crate::commands::version::VERSION.to_owned(),
        program: tools.program,
        images: images::catalogue(),
    })
    .await
    .context("starting the cluster")?;
    let outcome = tokio::select! {
        outcome = inhabit(args, objects, home, &cluster, &progress) => outcome,
        () = stop.stopped() => Err(Failure::quiet(130).into()),
    };
    let outcome = match outcome {
        Ok(text) => {
            progress.finish();
            style::print(&text)?;
            stop.stopped().await;
            Ok(())
        }
        Err(error) => {
            progress.fail();
            Err(error)
        }
    };
    progress.step("stopping");
    let stopped = cluster.stop().await;
    // The kubeconfig leads nowhere any more; a leftover would hide the user's own.
    let _ = std::fs::remove_file(paths::kubeconfig());
    progress.finish();
    stopped.context("stopping the cluster; `lateen down` tries again")?;
    outcome
}

/// Installs the mesh and the demo; gives what to print when all is ready.
async fn inhabit(
    args: &Up,
    objects: Vec<serde_json::Value>,
    home: &Path,
    cluster: &LocalCluster,
    progress: &Progress,
) -> anyhow::Result<String> {
    let kubeconfig = write_kubeconfig(home, &cluster.kubeconfig()?)?;
    let client = client(&kubeconfig).await?;
    if args.profile != "empty" {
        progress.step("installing the mesh");
        super::install::apply(&client, objects).await?;
        progress.step("waiting for the mesh");
        super::install::wait_ready(&client, "istio-system", READY).await?;
    }
    let mut text = String::new();
    if let Some(Demo::Bookinfo) = args.demo {
        progress.step("deploying Bookinfo");
        let url = demo::bookinfo(&client, progress, READY).await?;
        text.push_str(&format!("Bookinfo:    {url}\n"));
    }
    text.push_str(&format!(
        "kubeconfig:  {}\n\nTry next:\n",
        kubeconfig.display()
    ));
    text.push_str("  export KUBECONFIG=$(lateen kubeconfig)\n  kubectl get pods -A -o wide\n");
    if args.demo.is_some() {
        text.push_str("  lateen proxy-config routes deploy/productpage-v1 --name 9080\n");
    } else {
        text.push_str("  kubectl label namespace default istio-injection=enabled\n");
    }
    text.push_str("\nCtrl-C stops everything.\n");
    Ok(text)
}

async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// Writes the file that only its owner may read: it holds a key.
fn write_kubeconfig(home: &Path, text: &str) -> anyhow::Result<PathBuf> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = home.join("kubeconfig");
    let fresh = home.join("kubeconfig.new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&fresh, &path)?;
    Ok(path)
}
