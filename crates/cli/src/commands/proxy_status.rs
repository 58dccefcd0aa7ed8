//! `proxy-status` (`ps`): every proxy that is connected, and whether it has the newest of each
//! type, from the control plane's `/debug/syncz`.

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::proxy_config::dump::Dump;
use super::{proxy_compare, proxy_config};
use crate::client::{Cluster, ClusterArgs};
use crate::exit::{FAILED, Failure};
use crate::style;
use crate::table::Table;

/// The port of a proxy's admin interface.
const ADMIN_PORT: u16 = 15000;

/// `proxy-status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lateen proxy-status                          every proxy, and what it asked for\n  lateen proxy-status -v1                      and whether it has the newest of it\n  lateen proxy-status deploy/productpage-v1    its configuration against the control plane's"
)]
pub struct ProxyStatus {
    /// Compare what this proxy holds with what its control plane has for it
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    target: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// 0: the types each proxy asked for; 1: how far each type is
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    verbosity: u8,
    /// The control plane's monitoring port
    #[arg(long, value_name = "PORT", default_value_t = 15014)]
    control_plane_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

/// The types in the order in which proxies ask for them, with their keys on the page.
const TYPES: [(&str, &str); 5] = [
    ("CDS", "cluster"),
    ("LDS", "listener"),
    ("EDS", "endpoint"),
    ("RDS", "route"),
    ("ECDS", "extensionconfig"),
];

/// A control plane's pod and what it said.
struct Answer {
    istiod: String,
    body: Vec<u8>,
}

/// Runs the command.
pub async fn run(args: ProxyStatus, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let cluster = cluster.connect().await?;
    if let Some(target) = &args.target {
        return compared(&args, &cluster, target).await;
    }
    let mut rows: Vec<Value> = Vec::new();
    for answer in ask_all(&args, &cluster, "/debug/syncz").await? {
        let mut found: Vec<Value> = serde_json::from_slice(&answer.body)?;
        for row in &mut found {
            row["istiod"] = answer.istiod.as_str().into();
        }
        rows.extend(found);
    }
    rows.sort_by_key(|row| row["proxy"].as_str().unwrap_or_default().to_owned());
    match args.output {
        Output::Json => Ok(style::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&rows)?
        ))?),
        Output::Yaml => Ok(style::print(&serde_saphyr::to_string(&rows)?)?),
        Output::Table if args.verbosity > 0 => Ok(style::print(&states(&rows).render())?),
        Output::Table => Ok(style::print(&table(&rows).render())?),
    }
}

/// What every control plane answers at a path; those that say 404 know nothing of it.
async fn ask_all(args: &ProxyStatus, cluster: &Cluster, path: &str) -> anyhow::Result<Vec<Answer>> {
    let namespace = &cluster.istio_namespace;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let params = ListParams::default().labels("app=istiod");
    let pods = api.list(&params).await?.items;
    let names: Vec<String> = pods.into_iter().filter_map(|p| p.metadata.name).collect();
    if names.is_empty() {
        let why = format!("no istiod pod in namespace {namespace}");
        return Err(Failure::new(FAILED, why)
            .hint("install the mesh with `lateen install`, or name its namespace with -i")
            .into());
    }
    let mut out = Vec::new();
    for name in names {
        let port = args.control_plane_port;
        let answer = cluster
            .pod_request(namespace, &name, port, "GET", path)
            .await?;
        match answer.status {
            200 => out.push(Answer {
                istiod: name,
                body: answer.body.to_vec(),
            }),
            404 => {}
            status => {
                let said = String::from_utf8_lossy(&answer.body);
                let why = format!("{name} answered {status} to {path}: {}", said.trim());
                return Err(Failure::new(FAILED, why).into());
            }
        }
    }
    Ok(out)
}

/// One proxy: what its control plane has for it against what it holds.
async fn compared(args: &ProxyStatus, cluster: &Cluster, target: &str) -> anyhow::Result<()> {
    let pod = proxy_config::target::resolve(cluster, target).await?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
    api.get(&pod.name).await?;
    let id = format!("{}.{}", pod.name, pod.namespace);
    let path = format!("/debug/config_dump?proxyID={id}");
    let answers = ask_all(args, cluster, &path).await?;
    let Some(answer) = answers.first() else {
        return Err(
            Failure::new(FAILED, format!("{id} is connected to no control plane"))
                .hint("`lateen proxy-status` lists the proxies that are; has the pod a sidecar?")
                .into(),
        );
    };
    let held = cluster
        .pod_request(&pod.namespace, &pod.name, ADMIN_PORT, "GET", "/config_dump")
        .await?;
    let (wanted, held) = (Dump::parse(&answer.body)?, Dump::parse(&held.body)?);
    if args.output == Output::Table {
        return Ok(style::print(&proxy_compare::compare(&wanted, &held)?)?);
    }
    let both = json!({"proxy": id, "istiod": answer.istiod,
        "controlPlane": wanted.raw(), "envoy": held.raw()});
    let text = match args.output {
        Output::Yaml => serde_saphyr::to_string(&both)?,
        _ => format!("{}\n", serde_json::to_string_pretty(&both)?),
    };
    Ok(style::print(&text)?)
}

/// One row a proxy: what it asked for.
fn table(rows: &[Value]) -> Table {
    let mut table = Table::new(["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"]);
    for row in rows {
        let types: Vec<&str> = TYPES
            .iter()
            .filter(|(_, key)| state(row, key) != NOT_SENT)
            .map(|(name, _)| *name)
            .collect();
        table.row(vec![
            text(row, "proxy"),
            text(row, "cluster_id"),
            text(row, "istiod"),
            text(row, "istio_version"),
            format!("{} ({})", types.len(), types.join(",")),
        ]);
    }
    table
}

/// One row a proxy: how far each type is.
fn states(rows: &[Value]) -> Table {
    let mut table = Table::new([
        "NAME", "CLUSTER", "CDS", "ECDS", "EDS", "LDS", "RDS", "ISTIOD", "VERSION",
    ]);
    for row in rows {
        let mut cells = vec![text(row, "proxy"), text(row, "cluster_id")];
        for name in ["CDS", "ECDS", "EDS", "LDS", "RDS"] {
            let key = TYPES.iter().find(|(short, _)| *short == name);
            cells.push(key.map_or_else(String::new, |(_, key)| state(row, key)));
        }
        cells.push(text(row, "istiod"));
        cells.push(text(row, "istio_version"));
        table.row(cells);
    }
    table
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

const NOT_SENT: &str = "NOT SENT";

/// SYNCED when what was sent is what was acknowledged, STALE when not, NOT SENT when nothing was.
fn state(row: &Value, key: &str) -> String {
    let part = |what: &str| {
        row[format!("{key}_{what}")]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (sent, acked) = (part("sent"), part("acked"));
    match (sent.is_empty(), sent == acked) {
        (true, _) => NOT_SENT,
        (false, true) => "SYNCED",
        (false, false) => "STALE",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_table_counts_what_was_asked_for() {
        let row = json!({"proxy": "p.default", "cluster_id": "Kubernetes", "istiod": "istiod-1",
            "istio_version": "1.27.0", "cluster_sent": "n1", "route_sent": "n2"});
        let shown = table(&[row]).render();
        assert!(shown.contains("SUBSCRIBED TYPES"), "{shown}");
        assert!(shown.contains("2 (CDS,RDS)"), "{shown}");
    }

    #[test]
    fn nonces_tell_the_state() {
        let row = json!({"proxy": "p.default", "cluster_sent": "n1", "cluster_acked": "n1",
            "listener_sent": "n2", "listener_acked": "n1"});
        assert_eq!(state(&row, "cluster"), "SYNCED");
        assert_eq!(state(&row, "listener"), "STALE");
        assert_eq!(state(&row, "route"), "NOT SENT");
    }
}
