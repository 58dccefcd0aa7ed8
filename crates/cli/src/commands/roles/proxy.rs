//! `proxy`: the data plane. Takes Envoy's command line with Envoy's bootstrap, or Istio's
//! (`proxy sidecar ...`, `proxy router ...`), whose bootstrap is made from the environment.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::exit::{self, Failure, USAGE};

/// Envoy's command line. Flags that mean nothing here are taken and told at debug level.
#[derive(Debug, Parser)]
#[command(
    name = "lateen proxy",
    about = "The data plane: Envoy's command line and bootstrap",
    after_help = "Examples:\n  lateen proxy -c bootstrap.yaml\n  lateen proxy -c bootstrap.yaml --mode validate\n  lateen proxy sidecar --domain default.svc.cluster.local   (inside an injected pod)"
)]
struct EnvoyArgs {
    /// Path of the bootstrap (YAML or JSON)
    #[arg(short = 'c', long, value_name = "FILE")]
    config_path: Option<PathBuf>,
    /// Bootstrap as text, merged over the file
    #[arg(long, value_name = "YAML")]
    config_yaml: Option<String>,
    /// Worker threads (default: one for each processor)
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Log level: trace, debug, info, warning, error, critical or off
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    log_level: String,
    /// Log levels by component (name:level,...)
    #[arg(long, value_name = "PAIRS")]
    component_log_level: Option<String>,
    /// serve, or validate the bootstrap and exit
    #[arg(long, value_enum, default_value = "serve")]
    mode: Mode,
    /// Node id for xDS
    #[arg(long, value_name = "ID")]
    service_node: Option<String>,
    /// Node cluster for xDS
    #[arg(long, value_name = "NAME")]
    service_cluster: Option<String>,
    /// Node zone for xDS
    #[arg(long, value_name = "ZONE")]
    service_zone: Option<String>,
    /// How long a drain may take, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    drain_time_s: u64,
    /// How often access logs are written out, in milliseconds
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    file_flush_interval_msec: u64,
    /// Write the admin port's address to this file
    #[arg(long, value_name = "FILE")]
    admin_address_path: Option<PathBuf>,
    /// Take unknown fields in the bootstrap
    #[arg(long)]
    allow_unknown_static_fields: bool,
    #[command(flatten)]
    ignored: Ignored,
}

/// Flags of Envoy that have no meaning here: hot restart and the shape of its own log.
#[derive(Debug, clap::Args)]
struct Ignored {
    #[arg(long, hide = true)]
    base_id: Option<String>,
    #[arg(long, hide = true)]
    use_dynamic_base_id: bool,
    #[arg(long, hide = true)]
    base_id_path: Option<String>,
    #[arg(long, hide = true)]
    restart_epoch: Option<String>,
    #[arg(long, hide = true)]
    disable_hot_restart: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_on_no_parent: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_parent_stats: bool,
    #[arg(long, hide = true)]
    parent_shutdown_time_s: Option<u64>,
    #[arg(long, hide = true)]
    drain_strategy: Option<String>,
    #[arg(long, hide = true)]
    log_format: Option<String>,
    #[arg(long, hide = true)]
    log_format_escaped: bool,
    #[arg(long, hide = true)]
    log_path: Option<String>,
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    file_flush_min_size_kb: Option<u64>,
    #[arg(long, hide = true)]
    local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    reject_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    ignore_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    cpuset_threads: bool,
    #[arg(long, hide = true)]
    enable_core_dump: bool,
    #[arg(long, hide = true)]
    disable_extensions: Option<String>,
    #[arg(long, hide = true)]
    socket_path: Option<String>,
    #[arg(long, hide = true)]
    socket_mode: Option<String>,
    #[arg(long, hide = true)]
    stats_tag: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Serve,
    Validate,
    #[value(name = "init_only")]
    InitOnly,
}

/// Istio's agent's command line.
#[derive(Debug, Parser)]
#[command(
    name = "lateen proxy sidecar",
    about = "The data plane of an injected pod or a gateway"
)]
struct AgentArgs {
    /// sidecar or router
    #[arg(value_parser = ["sidecar", "router"])]
    kind: String,
    /// DNS domain suffix of the proxy's namespace
    #[arg(long, default_value = "", value_name = "DOMAIN")]
    domain: String,
    /// The proxy's log level
    #[arg(
        long = "proxyLogLevel",
        default_value = "warning",
        value_name = "LEVEL"
    )]
    proxy_log_level: String,
    /// Log levels by component
    #[arg(long = "proxyComponentLogLevel", value_name = "PAIRS")]
    proxy_component_log_level: Option<String>,
    /// The agent's own log levels
    #[arg(long = "log_output_level", value_name = "SCOPE:LEVEL")]
    log_output_level: Option<String>,
    /// Worker threads
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Name of the service this proxy stands before
    #[arg(long = "serviceCluster", value_name = "NAME")]
    service_cluster: Option<String>,
    #[arg(long = "templateFile", hide = true)]
    template_file: Option<String>,
    #[arg(long = "meshConfig", hide = true)]
    mesh_config: Option<String>,
    #[arg(long = "stsPort", hide = true)]
    sts_port: Option<u16>,
    #[arg(long = "outlierLogPath", hide = true)]
    outlier_log_path: Option<String>,
}

/// Runs the role to its end.
pub fn run(args: &[String]) -> ExitCode {
    let kind = args.first().map(String::as_str);
    let words = std::iter::once("proxy".to_owned()).chain(args.iter().cloned());
    let outcome = if matches!(kind, Some("sidecar" | "router")) {
        AgentArgs::try_parse_from(words)
            .map_err(Into::into)
            .and_then(agent)
    } else {
        EnvoyArgs::try_parse_from(words)
            .map_err(Into::into)
            .and_then(envoy)
    };
    exit::code(outcome)
}

fn envoy(args: EnvoyArgs) -> anyhow::Result<()> {
    let _ = (args.ignored, args.config_path, args.config_yaml, args.mode);
    Err(Failure::new(USAGE, "not wired").into())
}

fn agent(args: AgentArgs) -> anyhow::Result<()> {
    let _ = args;
    Err(Failure::new(USAGE, "not wired").into())
}
