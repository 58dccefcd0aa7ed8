//! `completion`: a script that lets the shell complete our command line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

/// `completion SHELL`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  source <(lateen completion bash)\n  lateen completion zsh > \"${fpath[1]}/_lateen\""
)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: Completion, name: &str) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), name, &mut script);
    Ok(crate::style::print(&String::from_utf8(script)?)?)
}
