//! What the kernel says of a process: CPU time, memory, its descendants.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

/// User and system time of a process so far, of the threads that live, from each one's
/// `schedstat`: to the nanosecond, where `/proc/PID/stat` tells ticks of 10 ms.
///
/// # Errors
/// When the process is gone.
pub fn fine_cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // A thread may end between the listing and here.
        if let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) {
            let ran = text.split_whitespace().next().and_then(|n| n.parse().ok());
            sum += ran.unwrap_or(0u64);
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Resident memory of a process in KiB.
///
/// # Errors
/// When the process is gone.
pub fn resident(pid: u32) -> anyhow::Result<f64> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let text = std::fs::read_to_string(path).context("reading its status")?;
    let row = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = row.and_then(|row| row.split_whitespace().next());
    Ok(number.context("its resident memory")?.parse()?)
}
