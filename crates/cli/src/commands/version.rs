//! `version`: of this program, and of the control plane and proxies it can reach.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::client::ClusterArgs;
use crate::exit::sentence;
use crate::style;

/// The version that every part reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// Ask the control plane too (default: where a cluster answers)
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    remote: bool,
    /// Only the numbers
    #[arg(short, long)]
    short: bool,
    /// Output format
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

/// Prints the versions. A cluster that does not answer is no failure: the client's version is
/// still known.
pub async fn run(args: Version, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let mesh = if args.remote {
        mesh(cluster).await
    } else {
        Mesh::default()
    };
    let text = match args.output {
        None => {
            let mut text = format!("client version: {VERSION}\n");
            for version in &mesh.control_planes {
                text.push_str(&format!("control plane version: {version}\n"));
            }
            let proxies = mesh.data_plane.iter().map(|(version, count)| {
                let noun = if *count == 1 { "proxy" } else { "proxies" };
                format!("{version} ({count} {noun})")
            });
            let proxies: Vec<String> = proxies.collect();
            if !proxies.is_empty() {
                text.push_str(&format!("data plane version: {}\n", proxies.join(", ")));
            }
            text
        }
        Some(form) => {
            let mut value = json!({"clientVersion": {"version": VERSION}});
            if !mesh.control_planes.is_empty() {
                let planes = mesh.control_planes.iter();
                let planes = planes.map(|v| json!({"Component": "pilot", "Info": {"version": v}}));
                value["meshVersion"] = planes.collect();
            }
            if !mesh.data_plane.is_empty() {
                let proxies = mesh.data_plane.iter();
                let proxies = proxies.map(|(v, n)| json!({"IstioVersion": v, "count": n}));
                value["dataPlaneVersion"] = proxies.collect();
            }
            match form {
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&value)?),
                Output::Yaml => serde_saphyr::to_string(&value)?,
            }
        }
    };
    Ok(style::print(&text)?)
}

/// What runs in a cluster.
#[derive(Default)]
struct Mesh {
    control_planes: Vec<String>,
    /// Proxies by version.
    data_plane: BTreeMap<String, usize>,
}

/// Asks the cluster. One that was named and does not answer is told; where none was, there may
/// simply be none.
async fn mesh(args: &ClusterArgs) -> Mesh {
    match pods(args).await {
        Ok((pods, istio_namespace)) => versions(&pods, &istio_namespace),
        Err(error) => {
            if args.named().is_some() || args.context.is_some() {
                let why = sentence(&error);
                style::warning(&format!("the cluster's versions are not known: {why}"));
            }
            Mesh::default()
        }
    }
}

async fn pods(args: &ClusterArgs) -> anyhow::Result<(Vec<Pod>, String)> {
    let cluster = args.connect().await?;
    let api: Api<Pod> = Api::all(cluster.client.clone());
    let wait = std::time::Duration::from_secs(5);
    let params = ListParams::default();
    let list = tokio::time::timeout(wait, api.list(&params))
        .await
        .context("no answer in 5 s")??;
    Ok((list.items, cluster.istio_namespace))
}

fn versions(pods: &[Pod], istio_namespace: &str) -> Mesh {
    let mut mesh = Mesh::default();
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let labels = pod.metadata.labels.as_ref();
        let istiod = labels.is_some_and(|l| l.get("app").is_some_and(|app| app == "istiod"));
        if istiod && pod.metadata.namespace.as_deref() == Some(istio_namespace) {
            mesh.control_planes
                .extend(spec.containers.first().and_then(tag));
        }
        let inits = spec.init_containers.iter().flatten();
        let proxy = spec.containers.iter().chain(inits);
        let version = proxy.filter(|c| c.name == "istio-proxy").find_map(tag);
        if let Some(version) = version {
            *mesh.data_plane.entry(version).or_default() += 1;
        }
    }
    mesh
}

fn tag(container: &Container) -> Option<String> {
    let (_, tag) = container.image.as_deref()?.rsplit_once(':')?;
    Some(tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_count_in_either_list_of_containers() {
        let pod = |labels: serde_json::Value, inits: &[&str], mains: &[&str]| -> Pod {
            let list = |names: &[&str]| -> serde_json::Value {
                let one = |n: &&str| json!({"name": n, "image": "lateen/x:1.2"});
                names.iter().map(one).collect()
            };
            let pod = json!({
                "metadata": {"namespace": "istio-system", "labels": labels},
                "spec": {"initContainers": list(inits), "containers": list(mains)},
            });
            serde_json::from_value(pod).expect("a pod")
        };
        let pods = [
            pod(json!({"app": "istiod"}), &[], &["discovery"]),
            pod(json!({}), &["istio-init", "istio-proxy"], &["app"]),
            pod(json!({}), &[], &["app", "istio-proxy"]),
            pod(json!({}), &[], &["app"]),
        ];
        let mesh = versions(&pods, "istio-system");
        assert_eq!(mesh.control_planes, ["1.2"]);
        assert_eq!(mesh.data_plane.get("1.2"), Some(&2));
    }
}
