//! `kubeconfig`: where the kubeconfig of this machine's cluster is.

use clap::Args;

use crate::exit::{FAILED, Failure};
use crate::{paths, style};

/// `kubeconfig`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  export KUBECONFIG=$(lateen kubeconfig)")]
pub struct Kubeconfig {
    /// Print the file itself instead of its path
    #[arg(long)]
    raw: bool,
}

/// Prints the path, or the file.
pub fn run(args: Kubeconfig) -> anyhow::Result<()> {
    let path = paths::kubeconfig();
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(
            FAILED,
            format!("no kubeconfig at {}: {error}", path.display()),
        )
        .hint("start a cluster with `lateen up`")
    })?;
    Ok(style::print(&if args.raw {
        text
    } else {
        format!("{}\n", path.display())
    })?)
}
