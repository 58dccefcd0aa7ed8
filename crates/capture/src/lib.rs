//! The redirection rules of an istio-init: from flags to rule sets, applied.
//!
//! [`flags`] reads the command line of `istio-iptables`, [`rules`] turns it into rule sets
//! (pure), [`iptables`] and [`nft`] write them as text, [`apply`] puts them in place in the
//! network namespace of the calling process, [`validate`] proves that they work.

pub mod apply;
pub mod config;
pub mod flags;
pub mod iptables;
pub mod nft;
mod rule;
pub mod rules;
pub mod validate;

use std::io::Write;
use std::process::ExitCode;

use config::Config;
use flags::Action;
use rules::RuleSet;

/// Exit status of a wrong command line (BSD's `EX_USAGE`).
pub const USAGE: u8 = 64;

/// Runs `istio-iptables`: `args` without the program's name; `environment` gives the variables
/// that stand in for flags (`ENVOY_PORT`, `ISTIO_META_DNS_CAPTURE`, ...).
///
/// Exit status: 0, 1 when rules could not be applied or do not work, 64 for wrong flags.
pub fn main(args: &[String], environment: &dyn Fn(&str) -> Option<String>) -> ExitCode {
    let config = match flags::parse(args, environment) {
        Ok(Action::Run(config)) => config,
        Ok(Action::Help) => {
            print(&flags::help());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("istio-iptables: {error}\nRun with --help for the flags.");
            return ExitCode::from(USAGE);
        }
    };
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("istio-iptables: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What `istio-iptables` does after its flags are read.
///
/// # Errors
/// No tool, a tool's refusal, or a failed validation.
pub fn run(config: &Config) -> Result<(), apply::ApplyError> {
    let system = apply::system()?;
    let sets = rules::build(config, &system);
    if config.dry_run {
        print(&text(config, &sets));
        return Ok(());
    }
    if config.cleanup {
        return apply::cleanup(config, &sets);
    }
    if !config.skip_rule_apply {
        apply::apply(config, &sets)?;
    }
    if config.run_validation {
        validate::validate(config)?;
    }
    Ok(())
}

/// The rule sets as the text that would be handed to the tool.
#[must_use]
pub fn text(config: &Config, sets: &[RuleSet]) -> String {
    let write = if config.native_nftables {
        nft::text
    } else {
        iptables::text
    };
    sets.iter().map(write).collect()
}

fn print(text: &str) {
    // A closed pipe is the reader's choice, not a failure of ours.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
