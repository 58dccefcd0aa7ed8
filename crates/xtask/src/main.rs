//! Development tasks behind `cargo xtask`: the whole test command, its tools, the figures and the bench.

mod bench;
mod figures;
mod fuzz;
mod fuzz_hours;
mod run;
mod second_try;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask TASK

  test [FILTER]   everything that must hold: format, lints, unit and integration tests, and the
                  seed documents' rows against a real mesh (installs the tools it needs)
  rows [FILTER]   only the rows, against `lateen up --demo bookinfo`
  tools           install what the tests need, say what cannot be had
  figures         measure what docs/figures.md reports
  bench           the proxy beside Envoy, HAProxy and nginx; `bench --help` says more
  fuzz [TARGET]   drive a target of fuzz/ by coverage, or list them; `fuzz --help` says more

Variables: LATEEN_ROWS=skip leaves the rows out, loudly (for machines without root).";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let outcome = match args.first().map(String::as_str) {
        Some("test") => run::test(rest),
        Some("rows") => run::rows(rest),
        Some("tools") => tools::install().map(|_| ()),
        Some("figures") => figures::measure(rest),
        Some("bench") => match bench::bench(rest) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Some("fuzz") => match fuzz::fuzz(rest) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Some("help" | "--help" | "-h") | None => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("no task \"{other}\"\n\n{HELP}");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
