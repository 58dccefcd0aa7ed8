//! `cargo xtask fuzz`: builds the targets for libFuzzer, with stable Rust, and drives one of them.
//! What is found on the way stays in `fuzz/found/TARGET` of the build folder; what breaks, in
//! `fuzz/broken/TARGET`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::tools;

/// Coverage by edges and comparisons, as libFuzzer wants it. These passes are in stable compilers;
/// sanitizers, which are not, find little in safe Rust.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];

/// Longest input, in bytes.
const LONGEST: u32 = 16 * 1024;
/// Slowest input that is no finding, in seconds.
const SLOWEST: u32 = 10;

/// `fuzz TARGET [--seconds N]`, `fuzz TARGET --keep`, `fuzz --list`.
pub fn fuzz(args: &[String]) -> anyhow::Result<()> {
    let target = match args.first().map(String::as_str) {
        Some(target) if !target.starts_with('-') => target,
        // Without a name the program lists them all.
        _ => "",
    };
    let program = build()?;
    let folder = tools::target().join("fuzz");
    let seeds = folder.join("seeds").join(target);
    let write = format!("--write={}", seeds.display());
    run(Command::new(&program).args([format!("--target={target}"), write]))?;
    let kept = tools::root().join("fuzz/corpus").join(target);
    let found = folder.join("found").join(target);
    let broken = folder.join("broken").join(target);
    for path in [&kept, &found, &broken] {
        std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    }
    let mut command = Command::new(&program);
    command.arg(format!("--target={target}"));
    if args.iter().any(|word| word == "--keep") {
        // Only what adds coverage comes from `found` to the kept corpus.
        command.args(["-merge=1", "-max_len=2048"]);
        return run(command.args([&kept, &found]));
    }
    command
        .arg(format!("-max_total_time={}", seconds(args)?))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-dict={}", seeds.join("words").display()))
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .args(["-rss_limit_mb=2048", "-print_final_stats=1"])
        .args([&found, &kept, &seeds.join("seeds")]);
    run(&mut command)
}

fn seconds(args: &[String]) -> anyhow::Result<u32> {
    match args.iter().position(|word| word == "--seconds") {
        None => Ok(60),
        Some(at) => {
            let text = args.get(at + 1).context("--seconds wants a number")?;
            text.parse().with_context(|| format!("--seconds {text}"))
        }
    }
}

/// Builds the driver in a folder of its own: everything under it is instrumented.
fn build() -> anyhow::Result<PathBuf> {
    const TRIPLE: &str = "x86_64-unknown-linux-gnu";
    let root = tools::root();
    let package = root.join("fuzz/libfuzzer");
    // The driver is no member of the workspace and yet has its dependencies' versions.
    std::fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))
        .context("copying Cargo.lock")?;
    let out = tools::target().join("fuzz");
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--release", "--target", TRIPLE, "--target-dir"])
        .arg(&out)
        .current_dir(&package)
        .env("RUSTFLAGS", FLAGS.join(" "))
        .env_remove("CARGO_MANIFEST_DIR");
    run(&mut command)?;
    Ok(Path::new(&out)
        .join(TRIPLE)
        .join("release/lateen-libfuzzer"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
