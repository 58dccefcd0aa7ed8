//! `proxy-config bootstrap`: what the proxy started with.

use clap::Args;
use lateen_xds_proto::type_url;
use serde_json::json;

use super::dump::{Dump, normal};
use super::{Common, Output, emit};
use crate::client::ClusterArgs;

/// `proxy-config bootstrap`.
#[derive(Debug, Clone, Args)]
pub struct Bootstrap {
    #[command(flatten)]
    common: Common,
}

/// Runs the command. Its only forms are JSON (the default) and YAML.
pub async fn run(args: Bootstrap, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let dump = Dump::load(&args.common, cluster).await?;
    let found = dump
        .section("BootstrapConfigDump")
        .and_then(|section| section.get("bootstrap"));
    let Some(found) = found else {
        anyhow::bail!("the dump has no bootstrap");
    };
    let form = if args.common.output == Output::Yaml {
        Output::Yaml
    } else {
        Output::Json
    };
    emit(
        &json!({"bootstrap": normal(found, type_url::BOOTSTRAP)?}),
        form,
    )
}
