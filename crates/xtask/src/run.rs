//! The test command: each step named, timed, and stopped at the first that fails.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::second_try;
use crate::tools::{self, Tools};

/// Everything that must hold.
pub fn test(filter: &[String]) -> anyhow::Result<()> {
    let tools = tools::install()?;
    if filter.is_empty() {
        step(&tools, "format", &["fmt", "--all", "--check"])?;
        let lints = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        step(&tools, "lints", &lints)?;
    }
    let mut tests = vec!["test", "--workspace", "--no-fail-fast"];
    tests.extend(filter.iter().map(String::as_str));
    println!("== tests: cargo {}", tests.join(" "));
    let begun = Instant::now();
    let outcome = second_try::tests(&tests, &|args| cargo(&tools, args));
    println!("== tests: {:.0} s", begun.elapsed().as_secs_f32());
    outcome
}

/// Only the rows.
pub fn rows(filter: &[String]) -> anyhow::Result<()> {
    let tools = tools::install()?;
    let mut args = vec!["test", "-p", "lateen", "--test", "rows", "--"];
    args.extend(filter.iter().map(String::as_str));
    step(&tools, "rows", &args)
}

fn step(tools: &Tools, name: &str, args: &[&str]) -> anyhow::Result<()> {
    println!("== {name}: cargo {}", args.join(" "));
    let begun = Instant::now();
    let status = cargo(tools, args)
        .status()
        .with_context(|| format!("starting cargo for {name}"))?;
    println!("== {name}: {:.0} s", begun.elapsed().as_secs_f32());
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

fn cargo(tools: &Tools, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(tools::root());
    tools.tell(&mut command);
    // Each step finds its own package's folder; the one of this program must not pass for it.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}
