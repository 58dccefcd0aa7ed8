//! `version`: of this program, and of the control plane and proxies it can reach.

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::client::ClusterArgs;
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
    let planes = if args.remote {
        control_planes(cluster).await
    } else {
        Vec::new()
    };
    let text = match args.output {
        None => {
            let mut text = format!("client version: {VERSION}\n");
            for version in &planes {
                text.push_str(&format!("control plane version: {version}\n"));
            }
            text
        }
        Some(form) => {
            let mut value = json!({"clientVersion": {"version": VERSION}});
            if !planes.is_empty() {
                let planes = planes
                    .iter()
                    .map(|v| json!({"Component": "pilot", "Info": {"version": v}}));
                value["meshVersion"] = planes.collect();
            }
            match form {
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&value)?),
                Output::Yaml => serde_saphyr::to_string(&value)?,
            }
        }
    };
    Ok(style::print(&text)?)
}

async fn control_planes(cluster: &ClusterArgs) -> Vec<String> {
    let Ok(cluster) = cluster.connect().await else {
        return Vec::new();
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.istio_namespace);
    let wait = std::time::Duration::from_secs(5);
    let params = ListParams::default().labels("app=istiod");
    let Ok(Ok(pods)) = tokio::time::timeout(wait, pods.list(&params)).await else {
        return Vec::new();
    };
    let image = |pod: Pod| pod.spec?.containers.into_iter().next()?.image;
    let tag = |image: String| image.rsplit_once(':').map(|(_, tag)| tag.to_owned());
    pods.items
        .into_iter()
        .filter_map(image)
        .filter_map(tag)
        .collect()
}
