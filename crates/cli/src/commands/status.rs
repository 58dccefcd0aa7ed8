//! `status`: whether an `up` runs on this machine, and what runs in it.

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use super::up::lock;
use crate::exit::Failure;
use crate::table::Table;
use crate::{paths, style};

/// `status`. Exits with 1 when nothing runs.
#[derive(Debug, Args)]
pub struct Status {
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs the command.
pub async fn run(args: Status) -> anyhow::Result<()> {
    let home = paths::home();
    let known = home.try_exists().unwrap_or(true);
    let holder = if known { lock::holder(&home)? } else { None };
    let Some(pid) = holder else {
        if args.output == Output::Json {
            style::print("{\"running\": false}\n")?;
            return Err(Failure::quiet(1).into());
        }
        return Err(Failure::new(1, "no `lateen up` runs on this machine")
            .hint("start one with `lateen up --demo bookinfo`")
            .into());
    };
    let file = kube::config::Kubeconfig::read_from(paths::kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
    let server = config.cluster_url.to_string();
    let client = kube::Client::try_from(config)?;
    let pods = Api::<Pod>::all(client)
        .list(&ListParams::default())
        .await?
        .items;
    let mut namespaces = std::collections::BTreeMap::<String, (usize, usize)>::new();
    for pod in &pods {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let counts = namespaces.entry(namespace).or_default();
        counts.1 += 1;
        counts.0 += usize::from(is_ready(pod));
    }
    if args.output == Output::Json {
        let rows = namespaces
            .iter()
            .map(|(n, c)| json!({"namespace": n, "ready": c.0, "pods": c.1}));
        let value = json!({"running": true, "pid": pid, "server": server,
            "kubeconfig": paths::kubeconfig(), "namespaces": rows.collect::<Vec<_>>()});
        return Ok(style::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&value)?
        ))?);
    }
    let mut table = Table::new(["NAMESPACE", "READY PODS"]);
    for (namespace, (ready, all)) in namespaces {
        table.row(vec![namespace, format!("{ready}/{all}")]);
    }
    let head = format!("running as pid {pid}, API server {server}\n\n");
    Ok(style::print(&(head + &table.render()))?)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
