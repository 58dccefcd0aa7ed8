//! Many services: from a file, and from a management server that sends them, sends them again, and
//! sends them changed.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::Bed;
use crate::ads::{self, Server};
use crate::config::{Given, Spec, envoy};
use crate::contestant::{Contestant, Running, free_ports};
use crate::usage;

/// Runs a scenario of this family; its name ends with the number of services.
pub fn run(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    let number = name.rsplit('-').next().context("a number")?;
    let services: usize = number.parse()?;
    for contestant in bed.contestants(&["envoy", "lateen"]) {
        for _ in 0..bed.options.rounds.min(3) {
            from_file(bed, name, contestant, services)?;
            from_server(bed, name, contestant, services)?;
        }
    }
    Ok(())
}

fn from_file(
    bed: &mut Bed<'_>,
    name: &str,
    contestant: Contestant,
    services: usize,
) -> anyhow::Result<()> {
    let mut spec = bed.spec(contestant)?;
    spec.services = services;
    let begun = Instant::now();
    let running = bed.start(contestant, spec)?;
    let wall = begun.elapsed().as_secs_f64();
    add_ready(bed, name, "file", &running, wall)
}

fn add_ready(
    bed: &mut Bed<'_>,
    name: &str,
    from: &str,
    running: &Running,
    wall: f64,
) -> anyhow::Result<()> {
    let who = running.contestant.name;
    let cpu = usage::fine_cpu(running.pid().context("a process")?)?;
    bed.report.add(
        name,
        &format!("ready from {from}, CPU s"),
        who,
        cpu.as_secs_f64(),
    );
    bed.report
        .add(name, &format!("ready from {from}, s"), who, wall);
    Ok(())
}

fn from_server(
    bed: &mut Bed<'_>,
    name: &str,
    contestant: Contestant,
    services: usize,
) -> anyhow::Result<()> {
    let mut spec = bed.spec(contestant)?;
    spec.services = services;
    let port = free_ports(1)?.first().copied().context("a port")?;
    spec.ads = Some(port);
    let all = resources_of(bed, &spec)?;
    let first = clusters(bed, &spec, "5s")?;
    let changed = clusters(bed, &spec, "6s")?;
    let server = Server::start(port, all)?;
    let begun = Instant::now();
    let running = bed.start(contestant, spec)?;
    add_ready(bed, name, "xDS", &running, begun.elapsed().as_secs_f64())?;
    let pid = running.pid().context("a process")?;
    // The first state is applied and what hangs on it is over.
    bed.driver.serve(Duration::from_secs(1))?;
    for (what, resources) in [("resend", first), ("change all", changed)] {
        let before = usage::fine_cpu(pid)?;
        let wall = server
            .push(resources)
            .with_context(|| json!({"push": what}).to_string())?;
        let cpu = settled(bed, pid)?;
        let who = contestant.name;
        let metric = format!("{what}, CPU s");
        bed.report
            .add(name, &metric, who, (cpu - before).as_secs_f64());
        bed.report
            .add(name, &format!("{what} to ACK, s"), who, wall.as_secs_f64());
    }
    Ok(())
}

/// The clusters of a mesh; another timeout makes each of them another one.
pub(super) fn clusters(
    bed: &Bed<'_>,
    spec: &Spec,
    timeout: &str,
) -> anyhow::Result<ads::Resources> {
    let pki = &bed.pki;
    let make = |number| envoy::cluster(Given { spec, pki }, number, timeout);
    ads::resources(ads::CLUSTER, (0..spec.services).map(make))
}

/// All that a management server has to begin with.
pub(super) fn resources_of(bed: &Bed<'_>, spec: &Spec) -> anyhow::Result<Vec<ads::Resources>> {
    let pki = &bed.pki;
    Ok(vec![
        clusters(bed, spec, "5s")?,
        ads::resources(ads::LISTENER, [envoy::listener(Given { spec, pki })])?,
        ads::resources(ads::ROUTES, [envoy::routes(spec)])?,
    ])
}

/// CPU time once the process has been at rest for a moment.
fn settled(bed: &mut Bed<'_>, pid: u32) -> anyhow::Result<Duration> {
    loop {
        let before = usage::fine_cpu(pid)?;
        bed.driver.serve(Duration::from_millis(300))?;
        let after = usage::fine_cpu(pid)?;
        if after - before < Duration::from_millis(3) {
            return Ok(after);
        }
    }
}
