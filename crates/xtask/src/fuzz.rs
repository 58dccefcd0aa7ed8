//! `cargo xtask fuzz`: builds the targets for libFuzzer, with stable Rust, and drives one of them.
//! What is found on the way stays in `fuzz/found/TARGET` of the build folder; what breaks, in
//! `fuzz/broken/TARGET`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::fuzz_hours::{Hours, children_seconds};
use crate::tools;

const HELP: &str = "\
cargo xtask fuzz [TARGET [--seconds N | --keep | FILE...]]
cargo xtask fuzz --hours [SECONDS TARGET...]

  (no target)           list the targets
  TARGET                drive it by coverage for a minute
  TARGET --seconds N    for so long; 0 is without end
  TARGET --keep         put the few of what was found that add most into fuzz/corpus/TARGET
  TARGET FILE...        run these inputs, once each
  --hours               how long each target has run since it last broke (fuzz/hours)
  --hours SECONDS T...  for so long, drive whichever of these targets has run least, in turns, until
                        each has its hour of processor time

The first run builds everything with instrumentation, which takes minutes. Exit codes: 0 nothing
broke, 1 something did (the input is kept and named), 64 wrong usage.

Examples:
  cargo xtask fuzz http1_request --seconds 600
  cargo xtask fuzz http1_request --keep
  cargo xtask fuzz --hours 7200 http1_request jwt
  cargo xtask fuzz http1_request target/fuzz/broken/http1_request/crash-*";

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
/// Longest input that is kept, in bytes.
const LONGEST_KEPT: u32 = 2048;
/// Most inputs that are kept at a time: every test run replays them.
const MOST_KEPT: usize = 10;
/// Slowest input that is no finding, in seconds.
const SLOWEST: u32 = 10;
/// Longest turn of a target among others, in seconds.
const TURN: u64 = 300;
/// C++ compilers that libFuzzer is built with.
const COMPILERS: [&str; 3] = ["c++", "g++", "clang++"];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    List,
    Drive(String, u32),
    Keep(String),
    Replay(String, Vec<PathBuf>),
    /// How long each has run.
    Hours,
    /// For so many seconds, these in turns.
    Turns(u64, Vec<String>),
}

impl Task {
    /// Reads the words after `fuzz`.
    ///
    /// # Errors
    /// Why they make no sense.
    fn parse(args: &[String]) -> Result<Self, String> {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        Ok(match words[..] {
            ["--help" | "-h", ..] | [_, "--help" | "-h"] => Self::Help,
            [] | ["--list"] => Self::List,
            ["--hours"] => Self::Hours,
            ["--hours", _] => return Err("--hours wants targets after its seconds".to_owned()),
            ["--hours", seconds, ref targets @ ..] => match seconds.parse() {
                Ok(seconds) => Self::Turns(
                    seconds,
                    targets.iter().map(|target| (*target).to_owned()).collect(),
                ),
                Err(_) => return Err(format!("--hours wants a number, not {seconds}")),
            },
            [flag, ..] if flag.starts_with('-') => {
                return Err(format!("a target comes first, not {flag}"));
            }
            [target] => Self::Drive(target.to_owned(), 60),
            [target, "--seconds", number] => match number.parse() {
                Ok(seconds) => Self::Drive(target.to_owned(), seconds),
                Err(_) => return Err(format!("--seconds wants a number, not {number}")),
            },
            [_, "--seconds"] => return Err("--seconds wants a number".to_owned()),
            [target, "--keep"] => Self::Keep(target.to_owned()),
            [target, ..] => {
                if let Some(flag) = words[1..].iter().find(|word| word.starts_with('-')) {
                    return Err(format!("{flag} has no meaning here"));
                }
                Self::Replay(
                    target.to_owned(),
                    words[1..].iter().map(PathBuf::from).collect(),
                )
            }
        })
    }

    /// The targets it names.
    fn targets(&self) -> &[String] {
        match self {
            Self::Drive(target, _) | Self::Keep(target) | Self::Replay(target, _) => {
                std::slice::from_ref(target)
            }
            Self::Turns(_, targets) => targets,
            Self::Help | Self::List | Self::Hours => &[],
        }
    }
}

/// Runs the task; see `HELP` for its words.
///
/// # Errors
/// A build that fails, a missing tool, an input that breaks the target.
pub fn fuzz(args: &[String]) -> anyhow::Result<ExitCode> {
    let wrong = |why: String| {
        eprintln!("xtask: {why}\n\n{HELP}");
        Ok(ExitCode::from(64))
    };
    let task = match Task::parse(args) {
        Ok(task) => task,
        Err(why) => return wrong(why),
    };
    let names = names()?;
    let unknown = |target: &&String| !names.contains(target);
    if let Some(target) = task.targets().iter().find(unknown) {
        let known = names.join(" ");
        return wrong(format!("no target {target}; there are:\n{known}"));
    }
    match task {
        Task::Help => println!("{HELP}"),
        Task::List => println!("{}", names.join("\n")),
        Task::Hours => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            print!("{}", hours()?.table(&names));
        }
        _ => Driver::build()?.run(&task)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn hours() -> anyhow::Result<Hours> {
    Hours::read(&tools::root().join("fuzz/hours"))
}

/// The targets: each has a folder of kept inputs, which the tests of `fuzz` see to.
fn names() -> anyhow::Result<Vec<String>> {
    let folder = tools::root().join("fuzz/corpus");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The program with all targets, and where it keeps what.
struct Driver {
    program: PathBuf,
    folder: PathBuf,
}

impl Driver {
    /// Builds it in a folder of its own: everything under it is instrumented.
    fn build() -> anyhow::Result<Self> {
        if !COMPILERS.iter().any(|name| tools::has(name)) {
            bail!(
                "no C++ compiler, which libFuzzer needs; install one (Debian: apt-get install g++)"
            );
        }
        let root = tools::root();
        let package = root.join("fuzz/libfuzzer");
        // The driver is no member of the workspace and yet has its dependencies' versions.
        std::fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))
            .context("copying Cargo.lock")?;
        let folder = tools::target().join("fuzz");
        let triple = host()?;
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--release", "--target", &triple, "--target-dir"])
            .arg(&folder)
            .current_dir(&package)
            .env("RUSTFLAGS", FLAGS.join(" "))
            // It would go before the flags above.
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_MANIFEST_DIR");
        run(&mut command).context("building the targets")?;
        Ok(Self {
            program: folder.join(triple).join("release/lateen-libfuzzer"),
            folder,
        })
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(format!("--target={target}"));
        command
    }

    fn run(&self, task: &Task) -> anyhow::Result<()> {
        match task {
            Task::Drive(target, seconds) => self.drive(target, *seconds),
            Task::Keep(target) => self.keep(target),
            Task::Replay(target, files) => {
                for file in files {
                    let ran = run(self.command(target).arg(file));
                    ran.with_context(|| format!("{} breaks {target}", file.display()))?;
                }
                println!("{} inputs, none breaks {target}", files.len());
                Ok(())
            }
            Task::Turns(seconds, targets) => self.turns(*seconds, targets),
            Task::Help | Task::List | Task::Hours => Ok(()),
        }
    }

    /// A folder of the target, made where it is missing.
    fn of(&self, what: &str, target: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(what).join(target);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }

    /// Writes the seeds and the dictionary of a target; gives their folder.
    fn seeds(&self, target: &str) -> anyhow::Result<PathBuf> {
        let folder = self.of("seeds", target)?;
        // Seeds of an earlier build may be there.
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        run(self
            .command(target)
            .arg(format!("--write={}", folder.display())))?;
        Ok(folder)
    }

    /// The target that has run least comes next; one that breaks ends the whole.
    fn turns(&self, seconds: u64, targets: &[String]) -> anyhow::Result<()> {
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let begun = Instant::now();
        while let Some(left) = seconds.checked_sub(begun.elapsed().as_secs())
            && left > 0
            && let Some(target) = hours()?.next(&targets)
        {
            let turn = u32::try_from(left.min(TURN)).unwrap_or(u32::MAX);
            self.drive(target, turn)?;
        }
        print!("{}", hours()?.table(&targets));
        Ok(())
    }

    fn drive(&self, target: &str, seconds: u32) -> anyhow::Result<()> {
        let seeds = self.seeds(target)?;
        let kept = tools::root().join("fuzz/corpus").join(target);
        let found = self.of("found", target)?;
        let broken = self.of("broken", target)?;
        let (before, broke) = (files(&found)?, files(&broken)?);
        let spent = children_seconds()?;
        let ran = run(self
            .command(target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-timeout={SLOWEST}"))
            .arg(format!("-dict={}", seeds.join("words").display()))
            .arg(format!("-artifact_prefix={}/", broken.display()))
            .args(["-rss_limit_mb=2048", "-print_final_stats=1"])
            .args([&found, &kept, &seeds.join("seeds")]));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole seconds of a run, never below zero"
        )]
        let spent = (children_seconds()? - spent) as u64;
        // Who was interrupted, or killed, has found nothing.
        let breaks: Vec<_> = files(&broken)?.difference(&broke).cloned().collect();
        hours()?.add(target, spent, !breaks.is_empty())?;
        let new = files(&found)?.difference(&before).count();
        println!("{target}: {new} new inputs in {}", found.display());
        if let Err(error) = ran {
            for file in breaks {
                eprintln!(
                    "{target} broke; again: cargo xtask fuzz {target} {}",
                    file.display()
                );
            }
            return Err(error);
        }
        Ok(())
    }

    /// Takes over what reaches code that neither the seeds nor the kept inputs do.
    fn keep(&self, target: &str) -> anyhow::Result<()> {
        let kept = tools::root().join("fuzz/corpus").join(target);
        let found = self.of("found", target)?;
        let merged = self.of("merged", target)?;
        std::fs::remove_dir_all(&merged).with_context(|| merged.display().to_string())?;
        std::fs::create_dir_all(&merged).with_context(|| merged.display().to_string())?;
        for known in [&self.seeds(target)?.join("seeds"), &kept] {
            for file in files(known)? {
                let name = file.file_name().unwrap_or_default();
                std::fs::copy(&file, merged.join(name))
                    .with_context(|| file.display().to_string())?;
            }
        }
        let control = self.of("merged", "")?.join(format!("{target}.control"));
        // One of an earlier merge would be gone on with.
        if control.exists() {
            std::fs::remove_file(&control).with_context(|| control.display().to_string())?;
        }
        run(self
            .command(target)
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .arg(format!("-max_len={LONGEST_KEPT}"))
            .arg(format!("-merge_control_file={}", control.display()))
            .args([&merged, &found]))?;
        let new = best(&std::fs::read_to_string(&control)?);
        for file in &new {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let short = name.get(..12).unwrap_or(&name);
            std::fs::copy(file, kept.join(short)).with_context(|| file.display().to_string())?;
        }
        println!("{target}: {} inputs more in {}", new.len(), kept.display());
        Ok(())
    }
}

/// Of the inputs that libFuzzer's merge looked at, the few beside the known ones that reach most
/// edges that none before them does. A merge's control file names all inputs after their number and
/// the number of known ones; `COV` lines have an input's number and its edges.
fn best(control: &str) -> Vec<PathBuf> {
    let mut lines = control.lines();
    let mut number = || lines.next()?.parse::<usize>().ok();
    let (Some(count), Some(known)) = (number(), number()) else {
        return Vec::new();
    };
    let names: Vec<&str> = lines.by_ref().take(count).collect();
    let mut edges: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        if words.next() == Some("COV")
            && let Some(index) = words.next().and_then(|word| word.parse().ok())
        {
            edges.insert(index, words.collect());
        }
    }
    let candidates = edges.split_off(&known);
    let mut reached: BTreeSet<&str> = edges.into_values().flatten().collect();
    let mut chosen = Vec::new();
    while chosen.len() < MOST_KEPT {
        let gain = |set: &BTreeSet<&str>| set.difference(&reached).count();
        let best = candidates
            .iter()
            .map(|(index, set)| (gain(set), *index))
            .max();
        let Some((1.., index)) = best else {
            break;
        };
        reached.extend(&candidates[&index]);
        chosen.extend(names.get(index).map(PathBuf::from));
    }
    chosen
}

/// The triple that this machine's compiler builds for.
fn host() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").output();
    let out = out.context("starting rustc")?.stdout;
    let text = String::from_utf8_lossy(&out);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The files of a folder.
fn files(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let list = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths: std::io::Result<Vec<_>> = list.map(|entry| Ok(entry?.path())).collect();
    Ok(paths?.into_iter().filter(|path| path.is_file()).collect())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("starting {program}"))?;
    if !status.success() {
        bail!("{program}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Task, String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Task::parse(&words)
    }

    #[test]
    fn a_merge_keeps_what_adds_most() {
        let control = "4\n1\nknown\nlittle\nmost\nnothing\nSTARTED 0 1\nFT 0 1\nCOV 0 a b\n\
                       STARTED 1 1\nCOV 1 a c\nSTARTED 2 1\nCOV 2 d e\nCOV 3 b d\n";
        assert_eq!(best(control), [PathBuf::from("most"), "little".into()]);
        assert!(best("").is_empty());
    }

    #[test]
    fn words_are_understood_or_refused() {
        let target = "t".to_owned();
        assert_eq!(parse(""), Ok(Task::List));
        assert_eq!(parse("--help"), Ok(Task::Help));
        assert_eq!(parse("t -h"), Ok(Task::Help));
        assert_eq!(parse("t"), Ok(Task::Drive(target.clone(), 60)));
        assert_eq!(parse("t --seconds 5"), Ok(Task::Drive(target.clone(), 5)));
        assert_eq!(parse("t --keep"), Ok(Task::Keep(target.clone())));
        assert_eq!(parse("--hours"), Ok(Task::Hours));
        assert_eq!(
            parse("--hours 9 t"),
            Ok(Task::Turns(9, vec![target.clone()]))
        );
        let files = vec!["a".into(), "b".into()];
        assert_eq!(parse("t a b"), Ok(Task::Replay(target, files)));
        for wrong in [
            "--keep t",
            "t --seconds",
            "t --seconds x",
            "t --sceonds 5",
            "t --keep x",
            "--hours 9",
            "--hours t t",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
