//! `cargo xtask bench`: builds the proxy as it is shipped and the bench, and starts the bench with
//! their places. What it does is in the bench's own crate, which is built optimised.

use std::process::{Command, ExitCode};

use anyhow::bail;

use crate::tools;

/// Runs the bench; its own `--help` names the words.
///
/// # Errors
/// A build that fails.
pub fn bench(args: &[String]) -> anyhow::Result<ExitCode> {
    let given = |name: &str| args.iter().any(|word| word == name);
    build("release", "lateen-bench")?;
    let mut command = Command::new(tools::target().join("release/lateen-bench"));
    let only_words = ["--help", "-h", "--list", "--from-json"];
    if !only_words.iter().any(|word| given(word)) {
        if !given("--program") {
            build("dist", "lateen")?;
            command.arg("--program");
            command.arg(tools::target().join("dist/lateen"));
            command.args(["--commit", &commit()]);
        }
        if !given("--envoy")
            && let Some(envoy) = tools::envoy()
        {
            command.arg("--envoy").arg(envoy);
        }
    }
    if !given("--json") {
        command
            .arg("--json")
            .arg(tools::target().join("bench.json"));
    }
    let status = command.args(args).current_dir(tools::root()).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// The commit that is built, and whether there is more in the tree.
fn commit() -> String {
    let mut git = Command::new("git");
    let described = git
        .args([
            "describe",
            "--always",
            "--exclude=*",
            "--abbrev=12",
            "--dirty=+changes",
        ])
        .current_dir(tools::root())
        .output();
    let text = described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn build(profile: &str, package: &str) -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", profile, "-p", package])
        .current_dir(tools::root())
        .status()?;
    if !status.success() {
        bail!("the build of {package} failed");
    }
    Ok(())
}
