//! `down`: stops a running `up` and removes what it made, also after a crash that left things.

use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::up::lock;
use crate::exit::{FAILED, Failure};
use crate::{paths, style};

/// `down`.
#[derive(Debug, Args)]
pub struct Down {
    /// Also remove the cluster's stored state
    #[arg(long)]
    purge: bool,
}

/// How long a running `up` gets to stop its pods.
const GRACE: Duration = Duration::from_secs(45);

/// Runs the command.
pub fn run(args: Down) -> anyhow::Result<()> {
    let home = paths::home();
    let known = home.try_exists().unwrap_or(true);
    let running = if known { lock::holder(&home)? } else { None };
    if let Some(pid) = running {
        stop(pid, &home)?;
    }
    if !nix::unistd::geteuid().is_root() {
        let why = "removing network namespaces and rules needs root";
        return Err(Failure::new(FAILED, why).hint("run it with sudo").into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(lateen_cluster::local::clean_up(&home))?;
    let _ = std::fs::remove_file(paths::kubeconfig());
    if args.purge && home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    style::done(if running.is_some() {
        "stopped"
    } else {
        "nothing was running; what a crash may have left is removed"
    });
    Ok(())
}

fn stop(pid: i32, home: &std::path::Path) -> anyhow::Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| {
        Failure::new(FAILED, format!("stopping `lateen up` (pid {pid}): {error}"))
    })?;
    let begun = Instant::now();
    while lock::holder(home)?.is_some() {
        if begun.elapsed() > GRACE {
            style::warning(&format!(
                "pid {pid} did not stop in {} s: killing it",
                GRACE.as_secs()
            ));
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            std::thread::sleep(Duration::from_millis(500));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
