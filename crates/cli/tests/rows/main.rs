//! The seed documents' rows, each a test of its own name, against one `lateen up --demo bookinfo`
//! driven by the real kubectl.
//!
//! Needs root (network namespaces), kubectl and the redirection tools. What is missing fails the
//! run with the remedy, unless `LATEEN_ROWS=skip` says that a skip is meant; the skip is loud.
//! Arguments are filters on row names, as with any Rust test; `--list` lists.

mod browser;
mod edge;
mod fault;
mod http;
mod inject;
mod life;
mod packet;
mod routing;
mod tproxy;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use world::World;

/// The row after all others, when the mesh has stopped.
const LEFTOVERS: &str = "fault_a_stopped_mesh_leaves_nothing";

/// One row: its name in the list of rows and the check that proves it.
struct Row {
    name: &'static str,
    check: fn(&World),
}

fn rows() -> Vec<Row> {
    [
        edge::ROWS,
        browser::ROWS,
        inject::ROWS,
        life::ROWS,
        routing::ROWS,
        packet::ROWS,
        fault::ROWS,
        tproxy::ROWS,
    ]
    .concat()
    .into_iter()
    .map(|(name, check)| Row { name, check })
    .collect()
}

/// Runs a row and cleans up after it. A failed row says why by panicking; the next rows still run.
fn try_row(row: &Row, world: &World) -> Result<(), ()> {
    let outcome = catch_unwind(AssertUnwindSafe(|| (row.check)(world)));
    let cleaned = catch_unwind(AssertUnwindSafe(|| world.clean()));
    outcome.and(cleaned).map_err(|_| ())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut rows = rows();
    rows.retain(|row| filters.is_empty() || filters.iter().any(|f| row.name.contains(f.as_str())));
    if args.iter().any(|arg| arg == "--list") {
        for row in &rows {
            println!("{}: test", row.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", rows.len() + 1);
    let last = filters.iter().any(|f| LEFTOVERS.contains(f.as_str()));
    if rows.is_empty() && !last {
        println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    if std::env::var("LATEEN_ROWS").is_ok_and(|value| value == "skip") {
        println!("SKIPPED, ALL {} ROWS: LATEEN_ROWS=skip says so", rows.len());
        let ignored = rows.len();
        println!("\ntest result: ok. 0 passed; 0 failed; {ignored} ignored; 0 measured");
        return ExitCode::SUCCESS;
    }
    if let Err(missing) = World::requirements() {
        println!("cannot run the rows: {missing} (LATEEN_ROWS=skip leaves them out)");
        return ExitCode::FAILURE;
    }
    let world = World::start();
    let (mut passed, mut failed) = (0, Vec::new());
    for row in &rows {
        let begun = Instant::now();
        let outcome = try_row(row, &world);
        let took = begun.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({took:.1}s)", row.name);
            }
            Err(()) => {
                failed.push(row.name);
                println!("test {} ... FAILED ({took:.1}s)", row.name);
            }
        }
    }
    let borrowed = world.is_borrowed();
    let instance = world.instance();
    let log = world.stop();
    let left = if borrowed {
        Vec::new()
    } else {
        fault::leftovers(&instance)
    };
    if left.is_empty() {
        passed += 1;
        println!("test {LEFTOVERS} ... ok");
    } else {
        println!("left behind: {left:#?}");
        println!("test {LEFTOVERS} ... FAILED");
        failed.push(LEFTOVERS);
    }
    if !failed.is_empty() {
        println!("\nthe last lines of `lateen up`:\n{log}\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
