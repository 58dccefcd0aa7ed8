//! `proxy-config endpoint`: the endpoints and their health, as the proxy sees them now.

use clap::Args;
use serde_json::{Value, json};

use super::dump::{Dump, fetch};
use super::{Common, Output, list, show, text};
use crate::client::ClusterArgs;
use crate::table::Table;

/// `proxy-config endpoint`.
#[derive(Debug, Clone, Args)]
pub struct Endpoint {
    #[command(flatten)]
    common: Common,
    /// Only this address
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// Only this port
    #[arg(long, value_name = "PORT")]
    port: Option<u64>,
    /// Only endpoints of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only endpoints in this state
    #[arg(long, value_name = "healthy|unhealthy")]
    status: Option<String>,
}

/// Runs the command.
pub async fn run(args: Endpoint, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let rows = match &args.common.file {
        Some(_) => from_dump(&Dump::load_with_endpoints(&args.common, cluster).await?)?,
        None => {
            let bytes = fetch(&args.common, cluster, "/clusters?format=json").await?;
            from_clusters(&serde_json::from_slice(&bytes)?)
        }
    };
    let mut kept: Vec<Value> = rows.into_iter().filter(|row| args.takes(row)).collect();
    kept.sort_by_cached_key(|row| {
        (
            text(row, "/cluster").to_owned(),
            text(row, "/endpoint").to_owned(),
        )
    });
    match args.common.output {
        Output::Short => show(kept, Output::Short, table),
        form => show(grouped(&kept), form, table),
    }
}

impl Endpoint {
    fn takes(&self, row: &Value) -> bool {
        let (address, port) = text(row, "/endpoint").rsplit_once(':').unwrap_or_default();
        self.address.as_ref().is_none_or(|wanted| address == wanted)
            && self.port.is_none_or(|wanted| port == wanted.to_string())
            && self
                .cluster
                .as_ref()
                .is_none_or(|wanted| text(row, "/cluster") == wanted)
            && self
                .status
                .as_ref()
                .is_none_or(|s| text(row, "/status").eq_ignore_ascii_case(s))
    }
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new(["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    for row in rows {
        let cells = ["/endpoint", "/status", "/outlierCheck", "/cluster"];
        table.row(
            cells
                .iter()
                .map(|cell| text(row, cell).to_owned())
                .collect(),
        );
    }
    table
}

/// The JSON form: one entry a cluster, its hosts inside.
fn grouped(rows: &[Value]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for row in rows {
        let same = out
            .last()
            .is_some_and(|last| last["name"] == row["cluster"]);
        if !same {
            out.push(json!({"name": row["cluster"], "hostStatuses": []}));
        }
        let mut host = row.clone();
        if let Some(fields) = host.as_object_mut() {
            fields.shift_remove("cluster");
        }
        if let Some(hosts) = out
            .last_mut()
            .and_then(|last| last["hostStatuses"].as_array_mut())
        {
            hosts.push(host);
        }
    }
    out
}

/// Rows from the admin's `/clusters?format=json`.
fn from_clusters(clusters: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for cluster in list(clusters, "/cluster_statuses") {
        for host in list(cluster, "/host_statuses") {
            let health = &host["health_status"];
            let status = match text(health, "/eds_health_status") {
                "" => "UNKNOWN",
                other => other,
            };
            let ejected = health["failed_outlier_check"] == Value::Bool(true);
            rows.push(json!({
                "endpoint": socket(&host["address"], "socket_address", "port_value"),
                "status": status,
                "outlierCheck": if ejected { "FAILED" } else { "OK" },
                "cluster": cluster["name"],
            }));
        }
    }
    rows
}

/// Rows from a saved dump with endpoints, which knows no ejections.
fn from_dump(dump: &Dump) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for assignment in dump.endpoints()? {
        for locality in list(&assignment, "/endpoints") {
            for host in list(locality, "/lbEndpoints") {
                let status = match text(host, "/healthStatus") {
                    "" => "HEALTHY",
                    other => other,
                };
                let address = &host["endpoint"]["address"];
                rows.push(json!({
                    "endpoint": socket(address, "socketAddress", "portValue"),
                    "status": status,
                    "outlierCheck": "OK",
                    "cluster": assignment["clusterName"],
                }));
            }
        }
    }
    Ok(rows)
}

fn socket(address: &Value, kind: &str, port: &str) -> String {
    match address.get(kind) {
        Some(socket) => format!("{}:{}", text(socket, "/address"), socket[port]),
        None => format!("unix://{}", text(address, "/pipe/path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_rows_and_json_groups_them_by_cluster() {
        let host = |ip: &str| {
            json!({"address": {"socket_address": {"address": ip, "port_value": 9080}},
                "health_status": {"eds_health_status": "HEALTHY"}})
        };
        let clusters = json!({"cluster_statuses": [
            {"name": "outbound|9080||a", "host_statuses": [host("10.0.0.1"), host("10.0.0.2")]}]});
        let rows = from_clusters(&clusters);
        let text = table(&rows).render();
        assert!(text.contains("10.0.0.1:9080     HEALTHY     OK"), "{text}");
        assert_eq!(
            grouped(&rows)[0]["hostStatuses"].as_array().map(Vec::len),
            Some(2)
        );
    }
}
