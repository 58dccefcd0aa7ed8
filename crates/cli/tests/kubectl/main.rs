//! The verbs of the real kubectl against one empty `lateen up`, with the kubectl of the PATH and,
//! where `LATEEN_KUBECTL_NEWEST` names one, with the newest too: its own texts and exit codes.
//!
//! Needs root (network namespaces). Without it the run fails with the remedy, unless, as with the
//! rows, `LATEEN_ROWS=skip` says that a skip is meant; the skip is loud. Arguments filter by name.

mod bad_input;
mod cluster;
mod life;
mod objects;
mod pods;
mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use cluster::{Cluster, Kubectl};

/// Checks that run at a time: some mostly wait, all mostly start kubectl.
const WORKERS: usize = 4;

/// A check's name and what it does with one kubectl.
type Check = (&'static str, fn(&Kubectl));

fn checks() -> Vec<Check> {
    [
        // The longest first, mostly waiting: the others run beside it.
        pods::CHECKS,
        life::CHECKS,
        objects::CHECKS,
        bad_input::CHECKS,
        workloads::CHECKS,
        workloads::ALONE,
    ]
    .concat()
}

/// Runs the checks, several at a time, and then those that must be alone; the names of those that
/// failed.
fn run_all(cluster: &Cluster, programs: &[(String, &str)], checks: &[Check]) -> Vec<String> {
    let is_alone = |(name, _): &Check| workloads::ALONE.iter().any(|(n, _)| n == name);
    let (alone, together): (Vec<Check>, Vec<Check>) = checks.iter().partition(|c| is_alone(c));
    let todo: Vec<_> = together
        .into_iter()
        .flat_map(|check| programs.iter().map(move |program| (program, check)))
        .collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(((program, label), check)) = todo.get(next.fetch_add(1, Relaxed)) {
                    let bad = run(cluster, program, label, &[*check]);
                    failed.lock().expect("no panic while held").extend(bad);
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic while held");
    for (program, label) in programs {
        failed.extend(run(cluster, program, label, &alone));
    }
    failed
}

/// Runs checks one after the other; the names of those that failed.
fn run(cluster: &Cluster, program: &str, label: &str, checks: &[Check]) -> Vec<String> {
    let mut failed = Vec::new();
    for (name, check) in checks {
        let begun = Instant::now();
        // A failed check says why by panicking; the next ones still run.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let kubectl = cluster.kubectl(program);
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&kubectl)));
            kubectl.clean();
            outcome.unwrap_or_else(|why| resume_unwind(why));
        }));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        let took = begun.elapsed().as_secs_f32();
        println!("test {label}::{name} ... {verdict} ({took:.1}s)");
        if outcome.is_err() {
            failed.push(format!("{label}::{name}"));
        }
    }
    failed
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut checks = checks();
    checks.retain(|(name, _)| {
        filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()))
    });
    if args.iter().any(|arg| arg == "--list") {
        checks.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let newest = std::env::var("LATEEN_KUBECTL_NEWEST").ok();
    let mut programs = vec![("kubectl".to_owned(), "path")];
    programs.extend(newest.map(|program| (program, "newest")));
    let total = checks.len() * programs.len();
    println!("\nrunning {total} tests");
    if total == 0 {
        println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    if std::env::var("LATEEN_ROWS").is_ok_and(|value| value == "skip") {
        println!("SKIPPED, ALL {total} CHECKS: LATEEN_ROWS=skip says so");
        println!(
            "\ntest result: ok. 0 passed; 0 failed; {total} ignored; 0 measured; 0 filtered out"
        );
        return ExitCode::SUCCESS;
    }
    if let Err(missing) = cluster::requirements() {
        println!("cannot run kubectl's checks: {missing} (LATEEN_ROWS=skip leaves them out)");
        println!(
            "\ntest result: FAILED. 0 passed; {total} failed; 0 ignored; 0 measured; 0 filtered out"
        );
        return ExitCode::FAILURE;
    }
    let cluster = Cluster::start();
    let failed = run_all(&cluster, &programs, &checks);
    cluster.stop();
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        total - failed.len(),
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
