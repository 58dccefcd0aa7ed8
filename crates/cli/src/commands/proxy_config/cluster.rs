//! `proxy-config cluster`: where traffic can be sent.

use clap::Args;
use serde_json::Value;

use super::dump::Dump;
use super::{ClusterName, Common, config_name, show, text};
use crate::client::ClusterArgs;
use crate::table::Table;

/// `proxy-config cluster`.
#[derive(Debug, Clone, Args)]
pub struct Cluster {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    filter: Filter,
}

/// Which clusters.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only this service's clusters (fully qualified name)
    #[arg(long, value_name = "HOST")]
    fqdn: Option<String>,
    /// Only this service port
    #[arg(long, value_name = "PORT")]
    port: Option<u32>,
    /// Only this subset
    #[arg(long, value_name = "NAME")]
    subset: Option<String>,
    /// Only this direction
    #[arg(long, value_name = "inbound|outbound")]
    direction: Option<String>,
}

impl Filter {
    /// The clusters of a dump that pass, sorted by service, port, subset and direction.
    pub fn select(&self, dump: &Dump) -> anyhow::Result<Vec<Value>> {
        let mut clusters = dump.clusters()?;
        clusters.retain(|cluster| self.takes(text(cluster, "/name")));
        clusters.sort_by_cached_key(|cluster| {
            let row = row(cluster);
            (
                row[0].clone(),
                row[1].parse::<u32>().unwrap_or(0),
                row[2].clone(),
                row[3].clone(),
            )
        });
        Ok(clusters)
    }

    fn takes(&self, name: &str) -> bool {
        let parsed = ClusterName::parse(name);
        let host = parsed.as_ref().map_or(name, |n| n.host);
        let same = |wanted: &Option<String>, part: fn(&ClusterName<'_>) -> String| {
            wanted
                .as_ref()
                .is_none_or(|w| parsed.as_ref().is_some_and(|n| part(n) == *w))
        };
        self.fqdn.as_ref().is_none_or(|fqdn| host == fqdn)
            && same(&self.port.map(|p| p.to_string()), |n| n.port.to_owned())
            && same(&self.subset, |n| n.subset.to_owned())
            && same(&self.direction, |n| n.direction.to_owned())
    }
}

/// Runs the command.
pub async fn run(args: Cluster, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let dump = Dump::load(&args.common, cluster).await?;
    show(args.filter.select(&dump)?, args.common.output, table)
}

/// The table of clusters.
pub fn table(clusters: &[Value]) -> Table {
    let mut table = Table::new([
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ]);
    for cluster in clusters {
        table.row(row(cluster));
    }
    table
}

fn row(cluster: &Value) -> Vec<String> {
    let name = text(cluster, "/name");
    let dash = |part: &str| {
        if part.is_empty() {
            "-".to_owned()
        } else {
            part.to_owned()
        }
    };
    let kind = match text(cluster, "/type") {
        "" => cluster
            .pointer("/clusterType/name")
            .and_then(Value::as_str)
            .unwrap_or("STATIC"),
        kind => kind,
    };
    let rule = config_name(&cluster["metadata"]);
    match ClusterName::parse(name) {
        Some(n) => {
            vec![
                n.host.to_owned(),
                dash(n.port),
                dash(n.subset),
                dash(n.direction),
                kind.to_owned(),
                rule,
            ]
        }
        None => vec![
            name.to_owned(),
            dash(""),
            dash(""),
            dash(""),
            kind.to_owned(),
            rule,
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_becomes_columns_and_the_rule_is_named() {
        let clusters = [
            json!({"name": "BlackHoleCluster", "type": "STATIC"}),
            json!({"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS",
                "metadata": {"filterMetadata": {"istio": {"config":
                    "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"}}}}),
        ];
        let text = table(&clusters).render();
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(words[1], ["BlackHoleCluster", "-", "-", "-", "STATIC"]);
        let host = "reviews.default.svc.cluster.local";
        assert_eq!(
            words[2],
            [host, "9080", "v1", "outbound", "EDS", "reviews.default"]
        );
    }

    #[test]
    fn filters_look_at_the_parts_of_a_name() {
        let filter = Filter {
            subset: Some("v1".into()),
            port: Some(9080),
            ..Filter::default()
        };
        assert!(filter.takes("outbound|9080|v1|a.b"));
        assert!(!filter.takes("outbound|9080|v2|a.b"));
        assert!(!filter.takes("BlackHoleCluster"));
    }
}
