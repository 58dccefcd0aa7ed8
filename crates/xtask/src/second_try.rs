//! A second look at tests that failed. The tests drive real programs, sockets and clocks on machines
//! that others use too, so a slow moment can fail one of a thousand. A few may be tried again, alone;
//! who needed it is named at the end, for it is a defect of that test. More than a few is a failure.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, bail};

/// Tests that may be tried again in one run.
const MOST: usize = 3;

/// What a run of `cargo test` said of its failures.
#[derive(Default, Debug, PartialEq)]
pub struct Failures {
    /// Failed tests by the arguments that choose their program, as `--test tcp`.
    by_target: BTreeMap<String, Vec<String>>,
    /// Names of failed tests seen since the last program ended.
    open: Vec<String>,
    passed: Vec<String>,
    /// A program that failed without naming a test, or something that is no test.
    nameless: bool,
}

impl Failures {
    /// Reads one line of cargo's or a test program's output.
    fn line(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("test ")
            && let Some((name, _)) = test.split_once(" ... FAILED")
        {
            let name = name.trim_end_matches(" - should panic");
            self.open.push(name.to_owned());
        } else if let Some(test) = line.strip_prefix("test ")
            && let Some((name, _)) = test.split_once(" ... ok")
        {
            self.passed.push(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("error: test failed, to rerun pass `") {
            let names = std::mem::take(&mut self.open);
            let target = rest.split('`').next().and_then(target);
            match target {
                Some(target) if !names.is_empty() => {
                    self.by_target.entry(target).or_default().extend(names);
                }
                _ => self.nameless = true,
            }
        } else if line.starts_with("error: doctest failed") {
            self.nameless = true;
        }
    }

    fn count(&self) -> usize {
        self.by_target.values().map(Vec::len).sum()
    }
}

/// The choice of a program without its package: choosing by package would build other features.
fn target(words: &str) -> Option<String> {
    let words: Vec<&str> = words.split(' ').collect();
    match words.as_slice() {
        ["-p", _, kept @ ..] if !kept.is_empty() => Some(kept.join(" ")),
        _ => None,
    }
}

/// Runs the tests; `make` gives a cargo command with these arguments.
pub fn tests(args: &[&str], make: &dyn Fn(&[&str]) -> Command) -> anyhow::Result<()> {
    let (status, failures) = watched(make(args))?;
    if status.success() {
        return Ok(());
    }
    let count = failures.count();
    if failures.nameless || count == 0 || count > MOST {
        bail!("tests failed ({status}; {count} by name)");
    }
    let mut flaky = Vec::new();
    for (target, names) in &failures.by_target {
        println!("== second try, alone: {target}: {}", names.join(" "));
        let mut again = vec!["test", "--workspace"];
        again.extend(target.split(' '));
        again.push("--");
        again.extend(names.iter().map(String::as_str));
        let (status, second) = watched(make(&again))?;
        // Run and passed: a filter that chose nothing ends well too.
        let unrun = names.iter().find(|name| !second.passed.contains(name));
        if !status.success() || unrun.is_some() {
            bail!("{} did not pass a second time ({status})", names.join(", "));
        }
        flaky.extend(names.iter().cloned());
    }
    println!(
        "== FLAKY: passed only when tried a second time, alone: {}\n   each is a defect of the test, or a rare one of the program: mend it",
        flaky.join(", ")
    );
    Ok(())
}

/// Runs it with its output shown and read.
fn watched(mut command: Command) -> anyhow::Result<(ExitStatus, Failures)> {
    let (reader, writer) = std::io::pipe()?;
    // One pipe, so that cargo's words and the tests' stay in their order.
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("starting cargo")?;
    drop(command);
    let mut failures = Failures::default();
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        failures.line(text.trim_end());
        line.clear();
    }
    Ok((child.wait()?, failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Failures {
        let mut failures = Failures::default();
        lines.iter().for_each(|line| failures.line(line));
        failures
    }

    #[test]
    fn failed_tests_are_kept_by_program() {
        let failures = read(&[
            "test one ... ok",
            "test two::three ... FAILED",
            "test four - should panic ... FAILED",
            "error: test failed, to rerun pass `-p lateen-proxy --test tcp`",
            "test b22 ... FAILED (1.2s)",
            "error: test failed, to rerun pass `-p lateen --test rows`",
        ]);
        let names = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            failures.by_target["--test tcp"],
            names(&["two::three", "four"])
        );
        assert_eq!(failures.by_target["--test rows"], names(&["b22"]));
        assert_eq!((failures.count(), failures.nameless), (3, false));
    }

    #[test]
    fn a_program_that_dies_is_no_flaky_test() {
        let died = ["error: test failed, to rerun pass `-p lateen-proxy --lib`"];
        assert!(read(&died).nameless);
        assert!(read(&["error: doctest failed, to rerun pass `-p lateen-model --doc`"]).nameless);
    }

    #[test]
    fn one_that_fails_again_fails_the_run() {
        let run = |script: &str| {
            let make = |_: &[&str]| {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                command
            };
            tests(&["test"], &make)
        };
        let failing = "echo 'test a ... FAILED'; echo 'error: test failed, to rerun pass `-p p --lib`' >&2; exit 101";
        let error = run(failing).unwrap_err().to_string();
        assert!(error.contains("a did not pass a second time"), "{error}");
        let many = format!("for i in 1 2 3 4; do echo \"test t$i ... FAILED\"; done; {failing}");
        let error = run(&many).unwrap_err().to_string();
        assert!(error.contains("5 by name"), "{error}");
        let once = |second: &str| {
            let folder = tempfile::tempdir().unwrap();
            let been = folder.path().join("been");
            let been = been.display();
            run(&format!(
                "[ -e {been} ] && {{ {second}; exit 0; }}; touch {been}; {failing}"
            ))
        };
        once("echo 'test a ... ok'").unwrap();
        assert!(
            once("echo 'test result: ok'").is_err(),
            "a test that did not run again passed"
        );
        run("exit 0").unwrap();
        assert!(run("exit 101").is_err());
    }
}
