//! `proxy-status` (`ps`): every proxy that is connected, and whether it has the newest of each
//! type, from the control plane's `/debug/syncz`.

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::client::ClusterArgs;
use crate::exit::{FAILED, Failure};
use crate::style;
use crate::table::Table;

/// `proxy-status`.
#[derive(Debug, Args)]
pub struct ProxyStatus {
    /// Only this proxy: `name` or `name.namespace`
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    target: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
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

const COLUMNS: [(&str, &str); 5] = [
    ("CDS", "cluster"),
    ("LDS", "listener"),
    ("EDS", "endpoint"),
    ("RDS", "route"),
    ("ECDS", "extensionconfig"),
];

/// Runs the command.
pub async fn run(args: ProxyStatus, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let cluster = cluster.connect().await?;
    let namespace = cluster.istio_namespace.clone();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
    let pods = api
        .list(&ListParams::default().labels("app=istiod"))
        .await?;
    let mut rows: Vec<Value> = Vec::new();
    let mut asked = false;
    for name in pods
        .items
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
    {
        let port = args.control_plane_port;
        let answer = cluster
            .pod_request(&namespace, name, port, "GET", "/debug/syncz")
            .await?;
        asked = true;
        let mut found: Vec<Value> = serde_json::from_slice(&answer.body)?;
        for row in &mut found {
            row["istiod"] = name.into();
        }
        rows.extend(found);
    }
    if !asked {
        return Err(
            Failure::new(FAILED, format!("no istiod pod in namespace {namespace}"))
                .hint("install the mesh with `lateen install`, or name its namespace with -i")
                .into(),
        );
    }
    if let Some(target) = &args.target {
        let wanted = target.rsplit('/').next().unwrap_or(target);
        rows.retain(|row| {
            let id = row["proxy"].as_str().unwrap_or_default();
            id == wanted
                || id.starts_with(&format!("{wanted}."))
                || id.starts_with(&format!("{wanted}-"))
        });
    }
    rows.sort_by_key(|row| row["proxy"].as_str().unwrap_or_default().to_owned());
    match args.output {
        Output::Json => Ok(style::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&rows)?
        ))?),
        Output::Yaml => Ok(style::print(&serde_saphyr::to_string(&rows)?)?),
        Output::Table => Ok(style::print(&table(&rows).render())?),
    }
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new([
        "NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ECDS", "ISTIOD", "VERSION",
    ]);
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    for row in rows {
        let mut cells = vec![text(row, "proxy"), text(row, "cluster_id")];
        cells.extend(COLUMNS.iter().map(|(_, key)| state(row, key)));
        cells.push(text(row, "istiod"));
        cells.push(text(row, "istio_version"));
        table.row(cells);
    }
    table
}

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
        (true, _) => "NOT SENT",
        (false, true) => "SYNCED",
        (false, false) => "STALE",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nonces_tell_the_state() {
        let row = json!({"proxy": "p.default", "cluster_sent": "n1", "cluster_acked": "n1",
            "listener_sent": "n2", "listener_acked": "n1"});
        assert_eq!(state(&row, "cluster"), "SYNCED");
        assert_eq!(state(&row, "listener"), "STALE");
        assert_eq!(state(&row, "route"), "NOT SENT");
    }
}
