//! A whole control plane: sources into the planner, the planner's configurations out through
//! every port, the cluster's housekeeping beside it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use lateen_compile::{EndpointOptions, mesh_config_from_yaml};
use lateen_model::MeshConfig;
use lateen_process::Stop;
use lateen_sources::{Kube, KubernetesOptions, connect, run_files, run_kubernetes};
use lateen_xds::Features;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ads::{Ads, Connections};
use crate::auth::Authenticator;
use crate::ca::{self, Authority, CaService};
use crate::cluster::Cluster;
use crate::debug::{self, DebugState};
use crate::inject::InjectConfig;
use crate::metrics::Metrics;
use crate::options::{ControlPlaneOptions, Objects};
use crate::planner::Planner;
use crate::serve;
use crate::store::Store;
use crate::tls::{self, Reloaded};
use crate::webhook::{self, WebhookState};

/// Events that may wait for the planner; beyond that sources slow down.
const QUEUE: usize = 4096;
/// How often the mesh configuration file is looked at.
const MESH_POLL: Duration = Duration::from_millis(500);
/// How long open requests may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(3);

/// Addresses that were really bound: a port 0 in the options is a free one here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound {
    /// Plain xDS.
    pub xds: Option<SocketAddr>,
    /// xDS over TLS.
    pub secure: Option<SocketAddr>,
    /// Webhooks.
    pub webhook: Option<SocketAddr>,
    /// Debug pages.
    pub http: Option<SocketAddr>,
    /// Metrics.
    pub monitoring: Option<SocketAddr>,
}

/// A control plane at work.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub bound: Bound,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: Stop,
}

impl Running {
    /// Waits for the stop, or for a part that failed.
    ///
    /// # Errors
    /// A port or source failed; without it the rest is of no use.
    pub async fn finished(mut self) -> anyhow::Result<()> {
        let mut failed = None;
        tokio::select! {
            () = self.stop.stopped() => {}
            error = first_error(&mut self.tasks) => failed = Some(error),
        }
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, rest).await.is_err() {
            tracing::debug!("open streams are cut");
        }
        self.tasks.shutdown().await;
        failed.map_or(Ok(()), Err)
    }
}

async fn first_error(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    loop {
        match tasks.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error,
            Some(Err(error)) => return error.into(),
            None => std::future::pending().await,
        }
    }
}

/// Runs a control plane until the stop.
///
/// # Errors
/// A port is taken, the configuration cannot be read, or a part failed while running.
pub async fn run(options: ControlPlaneOptions, stop: Stop) -> anyhow::Result<()> {
    start(options, stop).await?.finished().await
}

/// Starts a control plane; it works when this returns, though it may have no configuration
/// yet.
///
/// # Errors
/// A port is taken, or the configuration cannot be read.
pub async fn start(options: ControlPlaneOptions, stop: Stop) -> anyhow::Result<Running> {
    let mesh = base_mesh(&options)?;
    let features = Features {
        compat_1_0: options.compat_1_0,
        ..Features::default()
    };
    let store = Arc::new(Store::new(features));
    let mut parts = Parts {
        store: store.clone(),
        connections: Arc::default(),
        metrics: Arc::default(),
        injection: Arc::new(ArcSwap::from_pointee(InjectConfig::standard(env!(
            "CARGO_PKG_VERSION"
        )))),
        settled: Arc::new(AtomicBool::new(true)),
        bound: Bound::default(),
        tasks: JoinSet::new(),
        stop: stop.clone(),
    };
    let (events, receiver) = mpsc::channel(QUEUE);
    let (meshes, new_meshes) = mpsc::channel(1);
    let from_pods = matches!(options.objects, Objects::Files(_));
    let started = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let planner = Planner::new(store, mesh, EndpointOptions { from_pods }, started);
    parts.tasks.spawn(async move {
        planner.run(receiver, new_meshes).await;
        Ok(())
    });
    if let Some(path) = options.mesh_config.clone() {
        parts
            .tasks
            .spawn(follow_mesh(path, options.clone(), meshes, stop.clone()));
    } else {
        // Nothing will ever come; the planner sees a closed channel and listens no more.
        drop(meshes);
    }
    let authenticator = match &options.objects {
        Objects::Files(folder) => {
            let (folder, ended) = (folder.clone(), stop.clone());
            parts.tasks.spawn(async move {
                let stopped = async move { ended.stopped().await };
                Ok(run_files(folder, "default".to_owned(), events, stopped).await?)
            });
            None
        }
        Objects::Kubernetes {
            kubeconfig,
            context,
        } => {
            let client = connect(kubeconfig.as_deref(), context.as_deref()).await?;
            let watch = KubernetesOptions {
                root_namespace: options.namespace.clone(),
                ..KubernetesOptions::default()
            };
            let (watcher, ended) = (client.clone(), stop.clone());
            parts.tasks.spawn(async move {
                run_kubernetes(watcher, watch, events, async move { ended.stopped().await }).await;
                Ok(())
            });
            Some(
                parts
                    .cluster(&options, Cluster::new(Kube::new(client), &options))
                    .await?,
            )
        }
    };
    parts.plain(&options, authenticator).await?;
    tracing::info!(bound = ?parts.bound, "control plane listening");
    Ok(Running {
        bound: parts.bound,
        tasks: parts.tasks,
        stop,
    })
}

/// What the ports share.
struct Parts {
    store: Arc<Store>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    injection: Arc<ArcSwap<InjectConfig>>,
    /// False until a cluster's webhooks are in order.
    settled: Arc<AtomicBool>,
    bound: Bound,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: Stop,
}

impl Parts {
    fn ads(&self) -> Ads<Store> {
        let (store, stop) = (self.store.clone(), self.stop.clone());
        Ads::new(store, self.connections.clone(), self.metrics.clone(), stop)
    }

    /// The ports in plain text.
    async fn plain(
        &mut self,
        options: &ControlPlaneOptions,
        authenticator: Option<Arc<Authenticator>>,
    ) -> anyhow::Result<()> {
        if let Some(address) = options.xds_address {
            let listener = serve::bind("xDS", address).await?;
            self.bound.xds = Some(listener.local_addr()?);
            self.tasks
                .spawn(serve::xds_plain(listener, self.ads(), self.stop.clone()));
        }
        let (store, settled) = (self.store.clone(), self.settled.clone());
        let injection = self.injection.clone();
        let router = debug::router(DebugState {
            store: self.store.clone(),
            connections: self.connections.clone(),
            metrics: self.metrics.clone(),
            authenticator,
            injection: Arc::new(move || inject_page(&injection.load())),
            ready: Arc::new(move || store.current().number > 0 && settled.load(Ordering::Relaxed)),
        });
        if let Some(address) = options.http_address {
            let listener = serve::bind("debug pages", address).await?;
            self.bound.http = Some(listener.local_addr()?);
            self.tasks
                .spawn(serve::http(listener, router.clone(), self.stop.clone()));
        }
        if let Some(address) = options.monitoring_address {
            let listener = serve::bind("metrics", address).await?;
            self.bound.monitoring = Some(listener.local_addr()?);
            self.tasks
                .spawn(serve::http(listener, router, self.stop.clone()));
        }
        Ok(())
    }

    /// CA, TLS ports and housekeeping in a cluster.
    async fn cluster(
        &mut self,
        options: &ControlPlaneOptions,
        cluster: Cluster,
    ) -> anyhow::Result<Arc<Authenticator>> {
        // An API server that is not there yet is waited for, but not longer than wanted.
        let authority = tokio::select! {
            authority = cluster.authority() => Arc::new(authority?),
            () = self.stop.stopped() => anyhow::bail!("stopped before the API server answered"),
        };
        let names = ca::server_names(&options.namespace);
        let certificate = ServerCertificate::new(authority.clone(), names)?;
        let reviewer = Arc::new(cluster.clone());
        let authenticator = Arc::new(Authenticator::new(reviewer, self.metrics.clone()));
        if let Some(address) = options.secure_address {
            let listener = serve::bind("xDS over TLS", address).await?;
            self.bound.secure = Some(listener.local_addr()?);
            let store = self.store.clone();
            let domain = move || store.current().snapshot.mesh.trust_domain.to_string();
            let ca = CaService::new(authority.clone(), domain, self.metrics.clone());
            let (a, ads) = (authenticator.clone(), self.ads());
            let tls = certificate.h2.clone();
            self.tasks.spawn(serve::xds_secure(
                listener,
                tls,
                a,
                ads,
                ca,
                self.stop.clone(),
            ));
        }
        if let Some(address) = options.webhook_address {
            let listener = serve::bind("webhooks", address).await?;
            self.bound.webhook = Some(listener.local_addr()?);
            let router = webhook::router(WebhookState {
                injection: self.injection.clone(),
                metrics: self.metrics.clone(),
            });
            let tls = certificate.http.clone();
            self.tasks
                .spawn(serve::https(listener, tls, router, self.stop.clone()));
        }
        cluster.refresh_injection(&self.injection).await;
        self.tasks.spawn(certificate.renew(self.stop.clone()));
        self.settled.store(false, Ordering::Relaxed);
        let settled = self.settled.clone();
        let (store, injection, ended) = (
            self.store.clone(),
            self.injection.clone(),
            self.stop.clone(),
        );
        self.tasks.spawn(async move {
            let done = move || settled.store(true, Ordering::Relaxed);
            cluster.keep(store, authority, injection, done, ended).await;
            Ok(())
        });
        Ok(authenticator)
    }
}

/// The control plane's own certificate, renewed at half its life.
struct ServerCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    h2: Reloaded,
    http: Reloaded,
}

impl ServerCertificate {
    fn new(authority: Arc<Authority>, names: Vec<String>) -> anyhow::Result<Self> {
        let (h2, http) = Self::issue(&authority, &names)?;
        let swap = |c| Arc::new(ArcSwap::from_pointee(c));
        Ok(Self {
            authority,
            names,
            h2: swap(h2),
            http: swap(http),
        })
    }

    fn issue(
        authority: &Authority,
        names: &[String],
    ) -> anyhow::Result<(rustls::ServerConfig, rustls::ServerConfig)> {
        let (chain, key) = ca::server_certificate(authority, names, SystemTime::now())?;
        let h2 = tls::server_config(&chain, &key, &["h2"])?;
        Ok((h2, tls::server_config(&chain, &key, &["h2", "http/1.1"])?))
    }

    async fn renew(self, stop: Stop) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(ca::SERVER_LIFE / 2) => {}
                () = stop.stopped() => return Ok(()),
            }
            match Self::issue(&self.authority, &self.names) {
                Ok((h2, http)) => {
                    self.h2.store(Arc::new(h2));
                    self.http.store(Arc::new(http));
                }
                // The old one is good for as long again.
                Err(error) => tracing::error!(%error, "the certificate could not be renewed"),
            }
        }
    }
}

fn inject_page(config: &InjectConfig) -> Value {
    serde_json::json!({
        "policy": if config.enabled { "enabled" } else { "disabled" },
        "revision": config.revision,
        "defaultTemplates": config.default_templates,
        "alwaysInjectSelector": config.always_inject,
        "neverInjectSelector": config.never_inject,
        "injectedAnnotations": config.injected_annotations,
        "templates": config.templates,
        "values": config.values,
        "mesh": config.mesh,
    })
}

/// The mesh settings at the start.
fn base_mesh(options: &ControlPlaneOptions) -> anyhow::Result<MeshConfig> {
    let text = match &options.mesh_config {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| anyhow::anyhow!("cannot read {}: {e}", path.display()))?,
        None => String::new(),
    };
    let file = options
        .mesh_config
        .as_ref()
        .map(|p| p.display().to_string())
        .unwrap_or_default();
    mesh_of(options, &text, &file)
}

fn mesh_of(options: &ControlPlaneOptions, text: &str, file: &str) -> anyhow::Result<MeshConfig> {
    let (mut mesh, found) = mesh_config_from_yaml(text, file);
    let errors: Vec<String> = found
        .iter()
        .filter(|d| d.severity == lateen_resources::Severity::Error)
        .map(ToString::to_string)
        .collect();
    if !errors.is_empty() {
        anyhow::bail!("{}", errors.join("\n"));
    }
    if !text.contains("rootNamespace") {
        mesh.root_namespace = options.namespace.as_str().into();
    }
    mesh.cluster_domain = options.domain.as_str().into();
    mesh.sniffing = options.sniffing;
    Ok(mesh)
}

/// Reads the mesh configuration file again when it changes; a bad one is reported and the
/// settings stay.
async fn follow_mesh(
    path: PathBuf,
    options: ControlPlaneOptions,
    meshes: mpsc::Sender<MeshConfig>,
    stop: Stop,
) -> anyhow::Result<()> {
    let mut last = tokio::fs::read_to_string(&path).await.ok();
    let file = path.display().to_string();
    loop {
        tokio::select! {
            () = tokio::time::sleep(MESH_POLL) => {}
            () = stop.stopped() => return Ok(()),
        }
        // A file that is being replaced is back at the next look.
        let Ok(text) = tokio::fs::read_to_string(&path).await else {
            continue;
        };
        if last.as_ref() == Some(&text) {
            continue;
        }
        match mesh_of(&options, &text, &file) {
            Ok(mesh) => {
                if meshes.send(mesh).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::warn!(%file, %error, "mesh settings kept as they were"),
        }
        last = Some(text);
    }
}
