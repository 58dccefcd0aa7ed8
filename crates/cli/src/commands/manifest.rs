//! `manifest`: what `install` would apply, as YAML.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::style;

/// `manifest`.
#[derive(Debug, Args)]
pub struct Manifest {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the install manifests
    Generate(Generate),
}

/// `manifest generate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  lateen manifest generate --set profile=demo | kubectl apply -f -"
)]
struct Generate {
    /// Installation profile: default, demo, minimal or empty
    #[arg(long, default_value = "default", value_name = "NAME")]
    profile: String,
    /// Override an installation value (key=value)
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the command.
pub fn run(args: Manifest) -> anyhow::Result<()> {
    let Command::Generate(args) = args.command;
    print(&super::install::objects(&args.profile, &args.set)?)
}

/// Prints objects as a multi-document YAML stream.
pub fn print(objects: &[Value]) -> anyhow::Result<()> {
    Ok(style::print(&lateen_control_plane::install::print(
        objects,
    ))?)
}
