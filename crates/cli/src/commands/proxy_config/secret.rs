//! `proxy-config secret`: the certificates and roots a proxy holds. Private keys are never shown.

use clap::Args;
use serde_json::Value;

use super::dump::Dump;
use super::{Common, list, show, text};
use crate::client::ClusterArgs;
use crate::table::Table;

/// `proxy-config secret`.
#[derive(Debug, Clone, Args)]
pub struct Secret {
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
pub async fn run(args: Secret, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let dump = Dump::load(&args.common, cluster).await?;
    let mut secrets = Vec::new();
    if let Some(section) = dump.section("SecretsConfigDump") {
        for name in [
            "/static_secrets",
            "/dynamic_active_secrets",
            "/dynamic_warming_secrets",
        ] {
            secrets.extend(list(section, name).iter().cloned());
        }
    }
    show(secrets, args.common.output, table)
}

fn table(secrets: &[Value]) -> Table {
    let mut table = Table::new(["RESOURCE NAME", "TYPE", "STATUS"]);
    for secret in secrets {
        let kind = if secret.pointer("/secret/validation_context").is_some() {
            "CA"
        } else {
            "Cert Chain"
        };
        table.row(vec![
            text(secret, "/name").to_owned(),
            kind.to_owned(),
            "ACTIVE".to_owned(),
        ]);
    }
    table
}
