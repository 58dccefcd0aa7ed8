//! `kube-inject`: the sidecar added to the workloads of a file, as the webhook would add it; other
//! objects pass untouched, and a second run changes nothing. Goes by the settings of the cluster's
//! mesh where there is one, else by files or this version's own settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use lateen_control_plane::cluster::installed_injection;
use lateen_control_plane::inject::{self, InjectConfig};
use lateen_sources::Kube;

use super::objects;
use crate::client::ClusterArgs;
use crate::exit::{BAD_INPUT, Failure};
use crate::style;

/// How long a cluster may take to give its settings.
const PATIENCE: Duration = Duration::from_secs(10);

/// `kube-inject`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl apply -f <(lateen kube-inject -f app.yaml)\n  lateen kube-inject -f app.yaml -o injected.yaml\n  lateen kube-inject -f app.yaml --use-kube=false     this version's settings, no cluster"
)]
pub struct KubeInject {
    /// The objects (`-` is standard input)
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: PathBuf,
    /// Where to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Mesh configuration to inject for (a MeshConfig in YAML)
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// Injection settings: `config` of ConfigMap istio-sidecar-injector
    #[arg(long = "injectConfigFile", value_name = "FILE")]
    inject_config_file: Option<PathBuf>,
    /// Installation values: `values` of ConfigMap istio-sidecar-injector
    #[arg(long = "valuesFile", value_name = "FILE")]
    values_file: Option<PathBuf>,
    /// Ask the cluster's mesh for its settings where no file gives them
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    use_kube: bool,
    /// Revision to inject for
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    revision: String,
}

/// Runs the command.
pub async fn run(args: KubeInject, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let text = objects::read(&args.filename)?;
    let config = args.config(cluster).await?;
    let namespace = args.namespace(cluster).await;
    let injected = inject::files::inject(&config, &text, &namespace).map_err(|error| {
        Failure::new(BAD_INPUT, format!("{}: {error}", args.filename.display()))
    })?;
    for warning in &injected.warnings {
        style::warning(warning);
    }
    match &args.output {
        Some(path) => Ok(std::fs::write(path, injected.text)?),
        None => Ok(style::print(&injected.text)?),
    }
}

impl KubeInject {
    /// Where an object without a namespace will be: `-n`, else the context's namespace, as for the
    /// `kubectl apply` that follows.
    async fn namespace(&self, cluster: &ClusterArgs) -> String {
        if let Some(given) = &cluster.namespace {
            return given.clone();
        }
        if self.use_kube
            && let Ok(connected) = cluster.connect().await
        {
            return connected.namespace;
        }
        "default".to_owned()
    }

    async fn config(&self, cluster: &ClusterArgs) -> anyhow::Result<InjectConfig> {
        let text = |path: &Option<PathBuf>| path.as_deref().map(objects::read).transpose();
        let mesh = text(&self.mesh_config_file)?;
        let (settings, values) = (text(&self.inject_config_file)?, text(&self.values_file)?);
        if settings.is_some() || values.is_some() {
            let file = self
                .inject_config_file
                .as_ref()
                .or(self.values_file.as_ref());
            let file = file.map(PathBuf::as_path).unwrap_or(Path::new("-"));
            let (settings, values) = (settings.unwrap_or_default(), values.unwrap_or_default());
            let read = InjectConfig::read(&settings, &values, &mesh.unwrap_or_default());
            return read.map_err(|error| bad(file, &error));
        }
        if mesh.is_none()
            && self.use_kube
            && let Some(found) = self.installed(cluster).await?
        {
            return Ok(found);
        }
        let file = self.mesh_config_file.as_deref().unwrap_or(Path::new("-"));
        InjectConfig::for_files(mesh.as_deref(), &self.revision).map_err(|error| bad(file, &error))
    }

    /// The settings of the mesh in the cluster; without one, a word about it and nothing. A
    /// kubeconfig that was named must be one.
    async fn installed(&self, cluster: &ClusterArgs) -> anyhow::Result<Option<InjectConfig>> {
        let connected = match cluster.connect().await {
            Ok(connected) => connected,
            Err(error) if cluster.named().is_some() || cluster.context.is_some() => {
                return Err(error);
            }
            Err(_) => {
                own_settings("no cluster is known");
                return Ok(None);
            }
        };
        let suffix = match self.revision.as_str() {
            "" | "default" => String::new(),
            name => format!("-{name}"),
        };
        let kube = Kube::new(connected.client);
        let asked = installed_injection(&kube, &connected.istio_namespace, &suffix);
        let why = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(Some(config))) => return Ok(Some(config)),
            Ok(Ok(None)) => "no mesh is installed in the cluster".to_owned(),
            Ok(Err(error)) => format!("the cluster's settings cannot be read: {error}"),
            Err(_) => "the cluster does not answer".to_owned(),
        };
        own_settings(&why);
        Ok(None)
    }
}

fn own_settings(why: &str) {
    style::warning(&format!(
        "{why}; injecting with this version's own settings"
    ));
}

fn bad(file: &Path, error: &inject::InjectError) -> anyhow::Error {
    Failure::new(BAD_INPUT, format!("{}: {error}", file.display())).into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        cluster: ClusterArgs,
        #[command(flatten)]
        inject: KubeInject,
    }

    /// What `kube-inject` writes for a pod without a namespace.
    async fn injected(flags: &[&str]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, out) = (
            folder.path().join("pod.yaml"),
            folder.path().join("out.yaml"),
        );
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: eq}\n\
                   spec: {containers: [{name: a, image: b}]}\n";
        std::fs::write(&file, pod).expect("written");
        let kubeconfig = folder.path().join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                    clusters: [{name: k, cluster: {server: \"http://127.0.0.1:1\"}}]\n\
                    contexts: [{name: c, context: {cluster: k, user: u, namespace: ofcontext}}]\n\
                    users: [{name: u, user: {}}]\n";
        std::fs::write(&kubeconfig, text).expect("written");
        let paths = [&file, &out, &kubeconfig].map(|path| path.display().to_string());
        let words = [
            "kube-inject",
            "-f",
            &paths[0],
            "-o",
            &paths[1],
            "-c",
            &paths[2],
        ];
        let line = Line::parse_from(words.into_iter().chain(flags.iter().copied()));
        run(line.inject, &line.cluster).await.expect("injected");
        std::fs::read_to_string(&out).expect("output")
    }

    #[tokio::test]
    async fn an_object_without_namespace_is_in_the_one_of_n_or_of_the_context() {
        for (flags, namespace) in [
            (&["--use-kube=false", "-n", "inj"][..], "inj"),
            (&["--use-kube=false"], "default"),
            (&[], "ofcontext"),
        ] {
            let text = injected(flags).await;
            let owner = format!("kubernetes://apis/v1/namespaces/{namespace}/pods/eq");
            assert!(text.contains(&owner), "{flags:?}: {text}");
        }
    }
}
