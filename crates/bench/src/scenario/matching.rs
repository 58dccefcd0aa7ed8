//! What it costs when the last of 10 and of 10,000 routes matches: CPU time of requests that are the
//! same but for that, measured in turn.

use std::time::Duration;

use super::Bed;
use crate::config::service;
use crate::usage;

/// Sizes of the table, with what they are called.
const TABLES: [(usize, &str); 2] = [(10, "10"), (10_000, "10,000")];

/// Runs the scenario.
///
/// # Errors
/// When a proxy that started does not answer.
pub fn run(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for contestant in bed.contestants(&["haproxy", "nginx", "envoy-bare", "lateen-bare"]) {
        let mut pair = Vec::new();
        for (routes, _) in TABLES {
            let mut spec = bed.spec(contestant)?;
            spec.routes = routes;
            pair.push(bed.start(contestant, spec)?);
        }
        all.push(pair);
    }
    for _ in 0..bed.options.rounds {
        for pair in &all {
            let mut costs = Vec::new();
            for (running, (_, routes)) in pair.iter().zip(TABLES) {
                let Some(pid) = running.pid() else { continue };
                let load = bed.load(running);
                debug_assert_eq!(load.host, service(0));
                bed.driver.open(load)?;
                bed.driver.closed_loop(Duration::from_millis(200))?;
                let before = usage::fine_cpu(pid)?;
                let outcome = bed.driver.closed_loop(bed.slice())?;
                let cpu = (usage::fine_cpu(pid)? - before).as_secs_f64();
                bed.driver.close();
                let per = cpu * 1e6 / outcome.requests as f64;
                let metric = format!("CPU us per request, {routes} routes");
                bed.report.add(name, &metric, running.contestant.name, per);
                costs.push(per);
            }
            if let ([few, many], Some(running)) = (&costs[..], pair.first()) {
                let who = running.contestant.name;
                bed.report.add(name, "10,000 to 10", who, many / few);
            }
        }
    }
    Ok(())
}
