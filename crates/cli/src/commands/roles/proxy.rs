//! `proxy`: the data plane. Takes Envoy's command line with Envoy's bootstrap, or Istio's
//! (`proxy sidecar ...`, `proxy router ...`), whose bootstrap is made from the environment.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use lateen_process::logs::{self, Line, LogFile, Output};
use lateen_proxy::admin::is_logger;
use lateen_proxy::agent::AgentOptions;
use lateen_proxy::run::{LogLevels, ProxyOptions};
use lateen_proxy_core::drain::Strategy;
use lateen_proxy_xds::bootstrap::{self, Overrides, Source};
use lateen_proxy_xds::decode::Context;
use lateen_proxy_xds::{ads, sidecar};
use serde_json::json;

use super::log_pattern::Pattern;
use crate::exit::{self, FAILED, Failure};
use crate::style;

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
    /// Write the log to this file; SIGUSR1 opens it anew
    #[arg(long, value_name = "FILE")]
    log_path: Option<PathBuf>,
    /// What a log line looks like, in spdlog's syntax
    #[arg(long, value_name = "PATTERN")]
    log_format: Option<String>,
    /// Escape what C escapes in the messages of --log-format
    #[arg(long)]
    log_format_escaped: bool,
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
    /// How clients are asked to go during a drain
    #[arg(long, value_parser = ["gradual", "immediate"], default_value = "gradual")]
    drain_strategy: String,
    /// How often access logs are written out, in milliseconds
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    file_flush_interval_msec: u64,
    /// Write the admin port's address to this file
    #[arg(long, value_name = "FILE")]
    admin_address_path: Option<PathBuf>,
    /// Take unknown fields in the bootstrap
    #[arg(long, alias = "allow-unknown-fields")]
    allow_unknown_static_fields: bool,
    /// Print the version, as Envoy does, and exit
    #[arg(long)]
    version: bool,
    /// Print the hot restart compatibility version and exit: there is none
    #[arg(long)]
    hot_restart_version: bool,
    #[command(flatten)]
    ignored: Ignored,
}

/// Flags of Envoy that have no meaning here: hot restart and the shape of its own log.
#[derive(Debug, clap::Args)]
struct Ignored {
    #[arg(long, hide = true)]
    base_id: Option<u32>,
    #[arg(long, hide = true)]
    use_dynamic_base_id: bool,
    #[arg(long, hide = true)]
    base_id_path: Option<String>,
    #[arg(long, hide = true)]
    restart_epoch: Option<u32>,
    #[arg(long, hide = true)]
    disable_hot_restart: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_on_no_parent: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_parent_stats: bool,
    #[arg(long, hide = true)]
    parent_shutdown_time_s: Option<u64>,
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    file_flush_min_size_kb: Option<u64>,
    #[arg(long, hide = true, value_parser = ["v4", "v6"])]
    local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    reject_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    ignore_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    skip_deprecated_logs: bool,
    #[arg(long, hide = true)]
    log_stacktrace_single_entry: bool,
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
    #[arg(long, hide = true, value_parser = stats_tag)]
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
            .map_err(usage)
            .and_then(envoy)
    };
    exit::code(outcome)
}

/// A wrong flag ends Envoy with 1, where the other commands have a code for it.
fn usage(error: clap::Error) -> anyhow::Error {
    if !error.use_stderr() {
        return error.into();
    }
    // The error stream may be gone; there is nobody to tell then.
    let _ = error.print();
    Failure::quiet(FAILED).into()
}

/// `name:value`, as Envoy wants it.
fn stats_tag(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "misformatted stats-tag '{text}', name:value is wanted"
        )),
    }
}

/// What Envoy says of itself, in its words: scripts cut the version out of the second field.
fn about(args: &EnvoyArgs) -> Option<String> {
    if args.version {
        let version = crate::commands::version::VERSION;
        return Some(format!(
            "\nlateen proxy  version: lateen/{version}/Clean/RELEASE/AWS-LC\n\n"
        ));
    }
    args.hot_restart_version.then(|| "disabled\n".to_owned())
}

fn envoy(args: EnvoyArgs) -> anyhow::Result<()> {
    if let Some(text) = about(&args) {
        return Ok(style::print(&text)?);
    }
    let components = args.component_log_level.as_deref();
    let levels = start_logs(&args.log_level, components, log_output(&args)?)?;
    let file = args.config_path.as_deref().map(read).transpose()?;
    let path = args
        .config_path
        .as_deref()
        .map(|path| path.display().to_string());
    let mut sources = Vec::new();
    if let (Some(name), Some(text)) = (&path, &file) {
        sources.push(Source { name, text });
    }
    if let Some(text) = &args.config_yaml {
        sources.push(Source {
            name: "--config-yaml",
            text,
        });
    }
    if sources.is_empty() {
        return Err(Failure::new(
            FAILED,
            "At least one of --config-path or --config-yaml should be non-empty",
        )
        .hint("lateen proxy -c bootstrap.yaml")
        .into());
    }
    let overrides = Overrides {
        service_node: args.service_node.clone(),
        service_cluster: args.service_cluster.clone(),
        service_zone: args.service_zone.clone(),
        allow_unknown: args.allow_unknown_static_fields,
    };
    if args.mode != Mode::Serve {
        lateen_proxy_xds::validate(&sources, &overrides, context())
            .map_err(|error| Failure::new(FAILED, error))?;
        let name = path.as_deref().unwrap_or("--config-yaml");
        return Ok(style::print(&format!("configuration '{name}' OK\n"))?);
    }
    let mut loaded = bootstrap::load(&sources, &overrides)
        .map_err(|error| Failure::new(FAILED, error.to_string()))?;
    loaded.texts.extend(path.zip(file));
    let on_line = args.config_yaml.clone();
    loaded
        .texts
        .extend(on_line.map(|text| ("--config-yaml".to_owned(), text)));
    let options = ProxyOptions {
        loaded,
        context: context(),
        ads: ads::Options::default(),
        concurrency: args
            .concurrency
            .filter(|n| *n > 0)
            .unwrap_or_else(processors),
        hostname: hostname(),
        node_ip: None,
        flush_interval: Duration::from_millis(args.file_flush_interval_msec),
        drain_time: Duration::from_secs(args.drain_time_s),
        drain_strategy: match args.drain_strategy.as_str() {
            "immediate" => Strategy::Immediate,
            _ => Strategy::Gradual,
        },
        termination_drain: Duration::ZERO,
        termination_grace: GRACE,
        max_connections: 0,
        command_line: command_line(&args),
        admin_address_path: args.admin_address_path.clone(),
        agent: None,
        log_levels: Some(Arc::new(levels)),
    };
    serve(options)
}

/// How long requests in flight may take when a proxy stops.
const GRACE: Duration = Duration::from_secs(10);
/// How often a sidecar writes its access log: people follow it while they try things.
const SIDECAR_FLUSH: Duration = Duration::from_millis(1000);
/// The downward API's files that injection mounts.
const POD_INFO: &str = "/etc/istio/pod";

fn agent(args: AgentArgs) -> anyhow::Result<()> {
    let levels = start_logs(
        &args.proxy_log_level,
        args.proxy_component_log_level.as_deref(),
        Output::default(),
    )?;
    let info =
        |name: &str| std::fs::read_to_string(format!("{POD_INFO}/{name}")).unwrap_or_default();
    let (environment, labels, annotations) =
        (super::environment(), info("labels"), info("annotations"));
    let router = args.kind == "router";
    let made = sidecar::build(&sidecar::Input {
        role: if router {
            sidecar::Role::Router
        } else {
            sidecar::Role::Sidecar
        },
        environment: &environment,
        labels: &labels,
        annotations: &annotations,
        domain: &args.domain,
        version: crate::commands::version::VERSION,
        state_of_the_world: false,
    });
    let made = made.map_err(|error| Failure::new(FAILED, error.to_string()))?;
    let loaded = made
        .load()
        .map_err(|error| Failure::new(FAILED, error.to_string()))?;
    let pod_ip = environment.get("INSTANCE_IP").cloned().unwrap_or_default();
    let told = |name: &str| json_variable(&environment, name);
    let everywhere = |port| Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let options = ProxyOptions {
        loaded,
        context: context(),
        ads: ads::Options {
            token_file: made.token_file.clone().map(PathBuf::from),
        },
        concurrency: args
            .concurrency
            .or(made.concurrency.and_then(|n| usize::try_from(n).ok()))
            .filter(|n| *n > 0)
            .unwrap_or_else(processors),
        hostname: hostname(),
        node_ip: pod_ip.parse().ok(),
        flush_interval: SIDECAR_FLUSH,
        drain_time: Duration::from_secs(45),
        // As Istio starts its sidecars.
        drain_strategy: Strategy::Immediate,
        termination_drain: Duration::from_secs(made.termination_drain_seconds),
        termination_grace: GRACE,
        max_connections: 0,
        admin_address_path: None,
        command_line: json!({"service_node": made.node_id, "mode": "Serve"}),
        agent: Some(AgentOptions {
            status: everywhere(15020),
            // 15021 and 15090 are static listeners of the bootstrap, as in Istio.
            health: None,
            metrics: None,
            app_probers: told("ISTIO_KUBE_APP_PROBERS")?,
            app_metrics: told("ISTIO_PROMETHEUS_ANNOTATIONS")?,
            pod_ip,
        }),
        log_levels: Some(Arc::new(levels)),
    };
    serve(options)
}

/// A variable that holds JSON; null when it is not set.
fn json_variable(
    environment: &BTreeMap<String, String>,
    name: &str,
) -> anyhow::Result<serde_json::Value> {
    match environment.get(name).filter(|text| !text.trim().is_empty()) {
        None => Ok(serde_json::Value::Null),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Failure::new(FAILED, format!("the variable {name} is no JSON: {error}")).into()
        }),
    }
}

fn serve(options: ProxyOptions) -> anyhow::Result<()> {
    lateen_proxy::run::run(options).map_err(|error| Failure::new(FAILED, error.to_string()))?;
    Ok(())
}

fn context() -> Context {
    Context {
        environment: Box::new(|name| std::env::var(name).ok()),
        ..Context::files()
    }
}

fn read(path: &std::path::Path) -> anyhow::Result<String> {
    lateen_proxy_xds::files::read_bootstrap(path).map_err(|error| {
        Failure::new(
            FAILED,
            format!("reading the bootstrap {}: {error}", path.display()),
        )
        .into()
    })
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}

/// Where the log goes and how it looks.
fn log_output(args: &EnvoyArgs) -> anyhow::Result<Output> {
    let open = |path: &PathBuf| {
        LogFile::open(path).map_err(|error| {
            let why = format!("--log-path {}: {error}", path.display());
            Failure::new(FAILED, why)
        })
    };
    let pattern = args.log_format.as_deref().or_else(|| {
        // Escaping is a matter of the pattern; alone it means Envoy's own.
        args.log_format_escaped.then_some(ENVOYS_FORMAT)
    });
    Ok(Output {
        colours: false,
        file: args.log_path.as_ref().map(open).transpose()?,
        line: pattern.map(|text| {
            let pattern = Pattern::parse(text, args.log_format_escaped);
            Line::new(move |told| pattern.line(told))
        }),
    })
}

/// Envoy's log line.
const ENVOYS_FORMAT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// Log levels in Envoy's words; a component is a logger, by the names of `/logging`.
fn start_logs(level: &str, components: Option<&str>, output: Output) -> anyhow::Result<Levels> {
    let mut spec = level.to_owned();
    for pair in components
        .unwrap_or_default()
        .split(',')
        .filter(|pair| !pair.is_empty())
    {
        let (name, level) = pair
            .split_once(':')
            .ok_or_else(|| Failure::new(FAILED, format!("\"{pair}\" is not component:level")))?;
        if !is_logger(name) {
            let why = format!("invalid component specified '{name}'");
            let hint = "the admin port's /logging lists the names";
            return Err(Failure::new(FAILED, why).hint(hint).into());
        }
        spec.push_str(&format!(",{name}={level}"));
    }
    let bad = |error: logs::BadLevel| Failure::new(FAILED, error.to_string());
    let file = output.file.clone();
    let levels = logs::start_to(&spec, output).map_err(bad)?;
    Ok(Levels { levels, file })
}

/// The process's log as the admin port shows and sets it.
struct Levels {
    levels: logs::Levels,
    file: Option<LogFile>,
}

impl LogLevels for Levels {
    fn list(&self) -> Vec<(String, String)> {
        self.levels.list()
    }

    fn set(&self, logger: Option<&str>, level: &str) -> Result<(), String> {
        let set = self.levels.set(logger, level);
        set.map_err(|error| error.to_string())
    }

    fn reopen(&self) -> std::io::Result<()> {
        self.file.as_ref().map_or(Ok(()), LogFile::reopen)
    }
}

/// The options that Envoy shows in `/server_info`.
fn command_line(args: &EnvoyArgs) -> serde_json::Value {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    json!({
        "concurrency": args.concurrency.unwrap_or_else(processors),
        "config_path": text(&args.config_path),
        "config_yaml": args.config_yaml,
        "log_level": args.log_level,
        "mode": "Serve",
        "service_node": args.service_node,
        "service_cluster": args.service_cluster,
        "service_zone": args.service_zone,
        "drain_time": format!("{}s", args.drain_time_s),
        "file_flush_interval": format!("{}s", args.file_flush_interval_msec as f64 / 1000.0),
        "admin_address_path": text(&args.admin_address_path),
        "allow_unknown_static_fields": args.allow_unknown_static_fields,
        "disable_hot_restart": args.ignored.disable_hot_restart,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoys_own_flags_are_taken() {
        let parse = |flags: &str| EnvoyArgs::try_parse_from(flags.split(' '));
        let version = parse("proxy --version").ok().and_then(|args| about(&args));
        let version = version.expect("a version");
        let fields: Vec<&str> = version.trim().split("version: ").collect();
        assert_eq!(fields[1].split('/').count(), 5, "{version}");
        let hot = parse("proxy --hot-restart-version").expect("taken");
        assert_eq!(about(&hot).as_deref(), Some("disabled\n"));
        let all = "proxy -c x --base-id 3 --disable-hot-restart --enable-mutex-tracing \
                   --skip-deprecated-logs --allow-unknown-fields --log-stacktrace-single-entry";
        let args = parse(&all.split_whitespace().collect::<Vec<_>>().join(" ")).expect("taken");
        assert!(args.allow_unknown_static_fields && about(&args).is_none());
        for wrong in ["--base-id x", "--restart-epoch -1"] {
            parse(&format!("proxy {wrong}")).expect_err(wrong);
        }
    }
}
