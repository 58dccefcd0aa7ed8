//! How subcommands reach a cluster: kubeconfig and context flags, the default namespace, and an
//! HTTP request to a port inside a pod through the API's port-forward.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::exit::{FAILED, Failure};
use crate::paths;

/// The flags every subcommand that talks to a cluster takes.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterArgs {
    // Read from the environment by `named` and not by clap: that would count a variable among
    // what was typed, and show the option in the usage line of every error.
    /// Kubernetes configuration file [env: KUBECONFIG]
    #[arg(short = 'c', long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Kubernetes configuration context
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubernetes namespace (default: the context's)
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Namespace of the mesh's own control plane
    #[arg(
        short,
        long = "istioNamespace",
        global = true,
        value_name = "NAMESPACE",
        default_value = "istio-system"
    )]
    pub istio_namespace: String,
}

/// The API server that this command talks to, for the words of an error: the client's own errors
/// do not name it.
static SERVER: OnceLock<String> = OnceLock::new();

/// The API server's address, once a command has asked for one.
pub fn server() -> Option<&'static str> {
    SERVER.get().map(|url| url.trim_end_matches('/'))
}

/// A connected cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace that names without one mean.
    pub namespace: String,
    /// The mesh's own namespace.
    pub istio_namespace: String,
}

impl ClusterArgs {
    /// The kubeconfig file to use: the flag or `KUBECONFIG`, the running `lateen up`, the user's
    /// own `~/.kube/config`, in this order.
    fn file(&self) -> Option<PathBuf> {
        self.named()
            .or_else(|| Some(paths::kubeconfig()).filter(|path| path.exists()))
    }

    /// The kubeconfig file that the flag or else `KUBECONFIG` names.
    pub fn named(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let given = self.kubeconfig.clone().or_else(variable);
        given.filter(|path| !path.as_os_str().is_empty())
    }

    /// Connects (the client dials at the first request).
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..Default::default()
        };
        let config = match self.file() {
            Some(path) => {
                let file = Kubeconfig::read_from(&path)
                    .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await?
            }
            None => match Config::from_kubeconfig(&options).await {
                Ok(config) => config,
                Err(error) => {
                    let message = format!("no cluster to talk to: {error}");
                    return Err(Failure::new(FAILED, message)
                        .hint("start one with `lateen up`, or name one with --kubeconfig")
                        .into());
                }
            },
        };
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        // A command talks to one cluster; the first one named is the one an error is about.
        let _ = SERVER.set(config.cluster_url.to_string());
        let client = Client::try_from(config).context("the kubeconfig's credentials")?;
        Ok(Cluster {
            client,
            namespace,
            istio_namespace: self.istio_namespace.clone(),
        })
    }
}

/// What a port inside a pod answered.
pub struct PodAnswer {
    /// HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

impl Cluster {
    /// One HTTP/1.1 request to `port` of a pod, through the API server's port-forward.
    pub async fn pod_request(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        method: &str,
        path: &str,
    ) -> anyhow::Result<PodAnswer> {
        let what = || format!("asking port {port} of pod {pod}.{namespace}");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut forward = pods.portforward(pod, &[port]).await.with_context(what)?;
        let stream = forward
            .take_stream(port)
            .context("the port-forward gave no stream")?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let silent = |error: hyper::Error| {
            Failure::new(FAILED, format!("{}: {error}", what()))
                .hint("nothing answers there: has the pod a sidecar (`kubectl get pod` shows 2/2), and is it ready?")
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(silent)?;
        let driver = tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("localhost:{port}"))
            .body(Full::<Bytes>::default())?;
        let answer = sender.send_request(request).await.map_err(silent)?;
        let status = answer.status().as_u16();
        let body = answer
            .into_body()
            .collect()
            .await
            .with_context(what)?
            .to_bytes();
        driver.abort();
        Ok(PodAnswer { status, body })
    }
}
