//! Latency at a fixed rate, and what a request costs there.

use std::time::Duration;

use super::Bed;
use crate::load::Load;
use crate::usage;

const RATE: u32 = 1000;
const CONNECTIONS: usize = 8;

/// Runs the scenario.
pub fn run(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    let names = ["direct", "floor", "haproxy", "nginx", "envoy", "lateen"];
    let mut all = Vec::new();
    for contestant in bed.contestants(&names) {
        let spec = bed.spec(contestant)?;
        all.push(bed.start(contestant, spec)?);
    }
    for _ in 0..bed.options.rounds {
        for running in &all {
            let who = running.contestant.name;
            let load = Load {
                connections: CONNECTIONS,
                ..bed.load(running)
            };
            bed.driver.open(load)?;
            bed.driver.open_loop(RATE, Duration::from_millis(300))?;
            let cpu = |pid: Option<u32>| pid.map(usage::fine_cpu).transpose();
            let before = cpu(running.pid())?;
            let outcome = bed.driver.open_loop(RATE, bed.slice() * 2)?;
            let after = cpu(running.pid())?;
            bed.driver.close();
            let mut sorted = outcome.latencies;
            sorted.sort_unstable();
            for (metric, share) in [("p50 us", 0.5), ("p99 us", 0.99)] {
                let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
                let nanoseconds = sorted.get(index).copied().unwrap_or_default();
                bed.report.add(name, metric, who, nanoseconds as f64 / 1e3);
            }
            if let Some((before, after)) = before.zip(after) {
                let per = (after - before).as_secs_f64() * 1e6 / outcome.requests as f64;
                bed.report.add(name, "CPU us per request", who, per);
            }
        }
    }
    bed.judge(name, "CPU us per request");
    Ok(())
}
