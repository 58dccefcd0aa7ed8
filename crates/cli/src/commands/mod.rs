//! The tree of subcommands: its files are the tree.

mod analyze;
mod completion;
mod config;
mod down;
mod install;
mod kube_inject;
mod kubeconfig;
mod manifest;
mod objects;
mod proxy_compare;
mod proxy_config;
mod proxy_status;
pub mod roles;
mod status;
mod up;
mod validate;
mod version;

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::client::ClusterArgs;

const EXAMPLES: &str = "\
Examples:
  lateen up --demo bookinfo                            Bookinfo in a mesh on this machine
  export KUBECONFIG=$(lateen kubeconfig)               the ordinary kubectl drives it
  lateen proxy-config routes deploy/productpage-v1 --name 9080 -o json
  lateen analyze -A                                    what is wrong with the configuration
  lateen kube-inject -f app.yaml | kubectl apply -f -  sidecars by hand

Roles (what container images start; each has --help):
  lateen proxy            the data plane: Envoy's command line and bootstrap
  lateen control-plane    the control plane (also `discovery`)
  lateen istio-iptables   the redirection rules of istio-init
  lateen bookinfo         one of the sample's services";

/// A service mesh that speaks Istio's API and Envoy's xDS, in one program.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, about, after_help = EXAMPLES,
    arg_required_else_help = true, propagate_version = false, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster on this machine with the mesh in it; Ctrl-C stops everything
    Up(up::Up),
    /// Stop a running `up` and remove what it made
    Down(down::Down),
    /// What runs on this machine
    Status(status::Status),
    /// Print the path of the kubeconfig that `up` wrote
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Install the mesh into a Kubernetes cluster
    #[command(visible_alias = "apply")]
    Install(install::Install),
    /// The install manifests
    Manifest(manifest::Manifest),
    /// Add the sidecar to the workloads of a file
    KubeInject(kube_inject::KubeInject),
    /// What one proxy has been told
    #[command(visible_alias = "pc", subcommand)]
    ProxyConfig(proxy_config::Command),
    /// Whether every proxy has the newest configuration
    #[command(visible_alias = "ps")]
    ProxyStatus(proxy_status::ProxyStatus),
    /// Check Istio objects in files, without a cluster
    #[command(visible_alias = "v")]
    Validate(validate::Validate),
    /// Find what is wrong with a cluster's or a folder's configuration
    Analyze(analyze::Analyze),
    /// Create Istio objects from a file
    Create(config::Write),
    /// Replace Istio objects by a file's
    Replace(config::Write),
    /// Show Istio objects
    Get(config::Get),
    /// Delete Istio objects
    Delete(config::Delete),
    /// Client and control-plane versions
    Version(version::Version),
    /// A completion script for your shell
    Completion(completion::Completion),
}

/// Parses `args` and runs what they say.
pub fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let name = program_name(&args);
    let command = Cli::command().name(name).bin_name(name);
    let matches = command.try_get_matches_from(args)?;
    let cli = <Cli as clap::FromArgMatches>::from_arg_matches(&matches)?;
    let cluster = cli.cluster;
    match cli.command {
        // These run their own runtimes, or none.
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(args),
        Command::Kubeconfig(args) => kubeconfig::run(args),
        Command::Manifest(args) => manifest::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Completion(args) => completion::run(args, name),
        other => runtime()?.block_on(on_runtime(other, cluster)),
    }
}

async fn on_runtime(command: Command, cluster: ClusterArgs) -> anyhow::Result<()> {
    match command {
        Command::Status(args) => status::run(args).await,
        Command::Install(args) => install::run(args, &cluster).await,
        Command::KubeInject(args) => kube_inject::run(args, &cluster).await,
        Command::ProxyConfig(command) => proxy_config::run(command, &cluster).await,
        Command::ProxyStatus(args) => proxy_status::run(args, &cluster).await,
        Command::Analyze(args) => analyze::run(args, &cluster).await,
        Command::Create(args) => config::create(args, &cluster).await,
        Command::Replace(args) => config::replace(args, &cluster).await,
        Command::Get(args) => config::get(args, &cluster).await,
        Command::Delete(args) => config::delete(args, &cluster).await,
        Command::Version(args) => version::run(args, &cluster).await,
        Command::Up(_)
        | Command::Down(_)
        | Command::Kubeconfig(_)
        | Command::Manifest(_)
        | Command::Validate(_)
        | Command::Completion(_) => Ok(()),
    }
}

/// The runtime of the commands that talk to a cluster.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// `istioctl` when called through a link of that name, so that its help says what was typed.
fn program_name(args: &[OsString]) -> &'static str {
    let called = args
        .first()
        .map(std::path::Path::new)
        .and_then(|path| path.file_name());
    if called.is_some_and(|name| name == "istioctl") {
        "istioctl"
    } else {
        "lateen"
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn istioctls_habits_parse() {
        for line in [
            "istioctl pc routes productpage-1.default --name 9080 -o json",
            "istioctl proxy-config listeners p --address 0.0.0.0 --port 9080 -n shop",
            "istioctl pc c deploy/x --fqdn a.b --subset=v1",
            "istioctl ps -i mesh-system",
            "istioctl kube-inject -f app.yaml",
            "istioctl create -f -",
            "istioctl analyze -A",
            "istioctl -n istio-system pc all x -o yaml",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
        assert!(Cli::try_parse_from(["lateen", "nonsense"]).is_err());
        let kind = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|e| e.kind());
        let help = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        assert_eq!(kind("lateen").err(), Some(help));
        assert_eq!(
            kind("lateen --version").err(),
            Some(ErrorKind::DisplayVersion)
        );
    }

    #[test]
    fn no_option_reads_a_variable_that_usage_lines_would_show_as_typed() {
        let of_environment: Vec<_> = Cli::command()
            .get_arguments()
            .filter(|argument| argument.get_env().is_some())
            .map(|argument| argument.get_id().to_string())
            .collect();
        assert_eq!(of_environment, Vec::<String>::new());
        let error = Cli::try_parse_from(["lateen", "create"]).expect_err("no file");
        let text = error.to_string();
        assert!(text.contains("lateen create --file <FILE>\n"), "{text}");
    }
}
