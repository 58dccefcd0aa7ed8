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
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Failure::new(FAILED, format!("reading {}: {error}", path.display()))
                .hint("it holds an administrator's key: ask as the user who started `lateen up`");
        }
        let why = format!("no kubeconfig at {}: {error}", path.display());
        Failure::new(FAILED, why).hint("start a cluster with `lateen up`")
    })?;
    Ok(style::print(&if args.raw {
        text
    } else {
        format!("{}\n", path.display())
    })?)
}
