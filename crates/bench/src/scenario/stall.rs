//! What requests feel while 5,000 services change: an open loop goes on while a management server
//! sends every cluster changed. The server's thread shares the driver's core, so time in which the
//! driver itself did not run is taken off each request that waited through it.

use std::time::Duration;

use anyhow::Context as _;

use super::Bed;
use super::scale::{clusters, resources_of};
use crate::ads::Server;
use crate::contestant::{Contestant, free_ports};
use crate::load::{Load, Outcome};

const SERVICES: usize = 5000;
const RATE: u32 = 1000;
const CONNECTIONS: usize = 8;
/// How long requests go on once the change is acknowledged: what hangs on it is over then.
const AFTER: Duration = Duration::from_millis(700);

/// Runs the scenario.
///
/// # Errors
/// When a proxy refuses the change or stops answering.
pub fn run(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    for contestant in bed.contestants(&["envoy-bare", "lateen-bare"]) {
        changed(bed, name, contestant)?;
    }
    Ok(())
}

fn changed(bed: &mut Bed<'_>, name: &str, contestant: Contestant) -> anyhow::Result<()> {
    let who = contestant.name;
    let mut spec = bed.spec(contestant)?;
    spec.services = SERVICES;
    let port = free_ports(1)?.first().copied().context("a port")?;
    spec.ads = Some(port);
    let first = resources_of(bed, &spec)?;
    let timeouts = (0..bed.options.rounds.min(5)).map(|round| format!("{}s", 6 + round));
    let pushes: Vec<_> = timeouts
        .map(|timeout| clusters(bed, &spec, &timeout))
        .collect::<anyhow::Result<_>>()?;
    let server = Server::start(port, first)?;
    let running = bed.start(contestant, spec)?;
    bed.driver.serve(Duration::from_secs(1))?;
    for push in pushes {
        let load = Load {
            connections: CONNECTIONS,
            ..bed.load(&running)
        };
        bed.driver.open(load)?;
        bed.driver.open_loop(RATE, Duration::from_millis(300))?;
        let rest = bed.driver.open_loop(RATE, bed.slice())?;
        let pending = server.begin(push)?;
        let mut done: Option<(Duration, anyhow::Result<()>)> = None;
        let during = bed.driver.open_loop_while(RATE, |elapsed| {
            if done.is_none() {
                done = pending.poll().map(|answer| (elapsed, answer));
            }
            match &done {
                Some((acknowledged, _)) => elapsed < *acknowledged + AFTER,
                None => elapsed < Duration::from_secs(60),
            }
        })?;
        bed.driver.close();
        let (time, answer) = done.context("the change was not acknowledged")?;
        answer?;
        for (what, outcome) in [("at rest", rest), ("changing", during)] {
            note(bed, name, who, what, outcome);
        }
        bed.report
            .add(name, "change to ACK, s", who, time.as_secs_f64());
    }
    Ok(())
}

fn note(bed: &mut Bed<'_>, name: &str, who: &str, what: &str, outcome: Outcome) {
    let mut sorted = outcome.latencies;
    sorted.sort_unstable();
    for (metric, share) in [("worst ms", 1.0), ("p99 ms", 0.99)] {
        let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
        let nanoseconds = sorted.get(index).copied().unwrap_or_default();
        let metric = format!("{metric}, {what}");
        bed.report.add(name, &metric, who, nanoseconds as f64 / 1e6);
    }
}
