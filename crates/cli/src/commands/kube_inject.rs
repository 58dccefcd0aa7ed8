//! `kube-inject`: the sidecar added to the workloads of a file, as the webhook would add it; other
//! objects pass untouched, and a second run changes nothing. Needs no cluster.

use std::path::PathBuf;

use clap::Args;
use lateen_control_plane::inject;

use super::objects;
use crate::exit::{BAD_INPUT, Failure};
use crate::style;

/// `kube-inject`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl apply -f <(lateen kube-inject -f app.yaml)\n  lateen kube-inject -f app.yaml -o injected.yaml"
)]
pub struct KubeInject {
    /// The objects (`-` is standard input)
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: PathBuf,
    /// Where to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Mesh configuration to inject for (a MeshConfig in YAML)
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// Revision to inject for
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    revision: String,
}

/// Runs the command.
pub fn run(args: KubeInject) -> anyhow::Result<()> {
    let text = objects::read(&args.filename)?;
    let mesh = args
        .mesh_config_file
        .as_deref()
        .map(objects::read)
        .transpose()?;
    let config = inject::InjectConfig::for_files(mesh.as_deref(), &args.revision)
        .map_err(|error| Failure::new(BAD_INPUT, error.to_string()))?;
    let injected = inject::inject_text(&text, &config).map_err(|error| {
        Failure::new(BAD_INPUT, format!("{}: {error}", args.filename.display()))
    })?;
    match &args.output {
        Some(path) => Ok(std::fs::write(path, injected)?),
        None => Ok(style::print(&injected)?),
    }
}
