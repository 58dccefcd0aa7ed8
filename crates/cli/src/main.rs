//! The `lateen` command: reads the arguments, runs one subcommand, turns the outcome into an exit
//! code. Environment variables and flags are read here and in the subcommands, nowhere below.

mod allocator;
mod client;
mod commands;
mod exit;
mod paths;
mod style;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    lateen_process::footprint::set_heap_release(allocator::give_back);
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // The roles a container image starts are told apart before the command line of people: their
    // arguments are Istio's and Envoy's, not ours.
    if let Some(code) = commands::roles::run(&args) {
        return code;
    }
    exit::code(commands::run(args))
}
