//! `proxy-config` (`pc`): what one proxy has been told, as istioctl's tables or as JSON.
//!
//! The facts come from the proxy's admin port (through the API's port-forward) or from a saved
//! dump (`-f`). Each resource is read through the protobuf schema, so field names and enums are
//! proto JSON's whatever the dump's spelling.

mod bootstrap;
mod cluster;
pub mod dump;
mod endpoint;
mod listener;
mod log;
mod route;
mod secret;
pub mod target;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::client::ClusterArgs;
use crate::exit::{Failure, USAGE};
use crate::style;
use crate::table::Table;

use dump::Dump;

/// How a resource list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table.
    Short,
    /// Proto JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Which proxy, and how to print.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The pod: `name`, `name.namespace`, or `type/name[.namespace]` such as deploy/reviews-v1
    #[arg(value_name = "[TYPE/]NAME[.NAMESPACE]")]
    pub target: Option<String>,
    /// Read a saved config dump instead of asking a pod (`-` is standard input)
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "short")]
    pub output: Output,
    /// The proxy's admin port
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    pub proxy_admin_port: u16,
}

/// `proxy-config`'s subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Every cluster, listener, route and endpoint of a proxy
    #[command(visible_alias = "a")]
    All(All),
    /// The clusters: where traffic can be sent
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster(cluster::Cluster),
    /// The listeners: what the proxy accepts
    #[command(visible_aliases = ["listeners", "l"])]
    Listener(listener::Listener),
    /// The routes: which request goes where
    #[command(visible_aliases = ["routes", "r"])]
    Route(route::Route),
    /// The endpoints, with their health as the proxy sees it
    #[command(visible_aliases = ["endpoints", "ep"])]
    Endpoint(endpoint::Endpoint),
    /// The bootstrap the proxy started with
    #[command(visible_alias = "b")]
    Bootstrap(bootstrap::Bootstrap),
    /// The certificates and trust roots
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(secret::Secret),
    /// Show or set the proxy's log levels
    #[command(visible_alias = "o")]
    Log(log::Log),
}

/// `proxy-config all`.
#[derive(Debug, Clone, Args)]
pub struct All {
    #[command(flatten)]
    common: Common,
}

/// Runs one subcommand.
pub async fn run(command: Command, cluster: &ClusterArgs) -> anyhow::Result<()> {
    match command {
        Command::All(args) => all(args, cluster).await,
        Command::Cluster(args) => cluster::run(args, cluster).await,
        Command::Listener(args) => listener::run(args, cluster).await,
        Command::Route(args) => route::run(args, cluster).await,
        Command::Endpoint(args) => endpoint::run(args, cluster).await,
        Command::Bootstrap(args) => bootstrap::run(args, cluster).await,
        Command::Secret(args) => secret::run(args, cluster).await,
        Command::Log(args) => log::run(args, cluster).await,
    }
}

async fn all(args: All, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let dump = Dump::load(&args.common, cluster).await?;
    match args.common.output {
        Output::Short => {
            let parts = [
                cluster::table(&cluster::Filter::default().select(&dump)?),
                listener::table(&listener::Filter::default().select(&dump)?),
                route::table(&route::Filter::default().select(&dump)?),
            ];
            let text: Vec<String> = parts.iter().map(Table::render).collect();
            Ok(style::print(&text.join("\n"))?)
        }
        Output::Json | Output::Yaml => emit(dump.raw(), args.common.output),
    }
}

/// Prints a JSON value in the chosen form, four spaces deep as istioctl does.
fn emit(value: &Value, output: Output) -> anyhow::Result<()> {
    let text = match output {
        Output::Yaml => serde_saphyr::to_string(value)?,
        Output::Json | Output::Short => {
            let mut out = Vec::new();
            let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
            serde::Serialize::serialize(value, &mut writer)?;
            let mut text = String::from_utf8(out)?;
            text.push('\n');
            text
        }
    };
    Ok(style::print(&text)?)
}

/// Prints a selection: the table or the resources themselves.
fn show(items: Vec<Value>, output: Output, table: fn(&[Value]) -> Table) -> anyhow::Result<()> {
    match output {
        Output::Short => Ok(style::print(&table(&items).render())?),
        form => emit(&Value::Array(items), form),
    }
}

/// A string field, or the empty string.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A list field, or nothing.
fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// `name.namespace` from the `istio.config` path in a resource's metadata, or `""`.
fn config_name(metadata: &Value) -> String {
    let path = text(metadata, "/filterMetadata/istio/config");
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        [.., "namespaces", namespace, _kind, name] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

/// `outbound|9080|v1|reviews.default.svc.cluster.local` taken apart.
struct ClusterName<'a> {
    direction: &'a str,
    port: &'a str,
    subset: &'a str,
    host: &'a str,
}

impl<'a> ClusterName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.splitn(4, '|');
        let (direction, port, subset, host) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            direction,
            port,
            subset,
            host,
        })
    }
}

fn need_target() -> anyhow::Error {
    Failure::new(
        USAGE,
        "name a pod, such as deploy/productpage-v1, or give a dump with -f",
    )
    .into()
}
