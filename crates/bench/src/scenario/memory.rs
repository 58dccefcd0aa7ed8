//! Resident memory, empty and for each thing more.

use std::net::TcpStream;
use std::time::Duration;

use super::Bed;
use crate::contestant::{Contestant, Program, Running};
use crate::load::Load;
use crate::usage;

const SERVICES: usize = 5000;
const ENDPOINTS: usize = 10_000;
/// How long a proxy is left alone before it is looked at. Ours gives memory back some seconds after
/// the last change.
fn rest(running: &Running) -> Duration {
    Duration::from_secs(match running.contestant.program {
        Program::Lateen => 8,
        _ => 2,
    })
}

/// Runs the scenario.
pub fn run(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    for contestant in bed.contestants(&["haproxy", "nginx", "envoy-bare", "lateen-bare"]) {
        let who = contestant.name;
        let empty = started(bed, contestant, |_| {})?;
        let base = at_rest(bed, &empty)?;
        bed.report.add(name, "empty MB", who, base / 1024.0);
        connections(bed, name, &empty)?;
        drop(empty);
        let tls = started(bed, contestant, |spec| spec.tls_down = true)?;
        kept(bed, name, "KiB per idle TLS connection", &tls)?;
        drop(tls);
        let many = started(bed, contestant, |spec| spec.services = SERVICES)?;
        let all = at_rest(bed, &many)?;
        drop(many);
        bed.report.add(name, "5,000 services MB", who, all / 1024.0);
        let each = (all - base) / (SERVICES - 1) as f64;
        bed.report.add(name, "KiB per service", who, each);
        if !matches!(contestant.program, Program::Envoy | Program::Lateen) {
            continue;
        }
        let many = started(bed, contestant, |spec| spec.endpoints = ENDPOINTS)?;
        let each = (at_rest(bed, &many)? - base) / (ENDPOINTS - 1) as f64;
        bed.report.add(name, "KiB per endpoint", who, each);
    }
    Ok(())
}

fn started(
    bed: &mut Bed<'_>,
    contestant: Contestant,
    told: impl Fn(&mut crate::config::Spec),
) -> anyhow::Result<Running> {
    let mut spec = bed.spec(contestant)?;
    told(&mut spec);
    bed.start(contestant, spec)
}

fn at_rest(bed: &mut Bed<'_>, running: &Running) -> anyhow::Result<f64> {
    bed.driver.close();
    bed.driver.serve(rest(running))?;
    resident(running)
}

fn resident(running: &Running) -> anyhow::Result<f64> {
    running.pid().map_or(Ok(0.0), usage::resident)
}

fn connections(bed: &mut Bed<'_>, name: &str, running: &Running) -> anyhow::Result<()> {
    kept(bed, name, "KiB per idle connection", running)?;
    bed.driver.close();
    bed.driver.serve(Duration::from_secs(1))?;
    let before = resident(running)?;
    let count = bed.options.idle;
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(TcpStream::connect(running.target())?);
    }
    bed.driver.serve(Duration::from_secs(1))?;
    let each = (resident(running)? - before).max(0.0) / count as f64;
    bed.report.add(
        name,
        "KiB per silent connection",
        running.contestant.name,
        each,
    );
    Ok(())
}

/// Connections that served a request each and then stay. Some are made and closed before, so that
/// what is made once is not counted.
fn kept(bed: &mut Bed<'_>, name: &str, metric: &str, running: &Running) -> anyhow::Result<()> {
    let load = |bed: &Bed<'_>, connections| Load {
        connections,
        ..bed.load(running)
    };
    let few = load(bed, 64);
    bed.driver.open(few)?;
    bed.driver.serve(rest(running))?;
    let before = resident(running)?;
    let count = bed.options.idle;
    let many = load(bed, count + 64);
    bed.driver.open(many)?;
    bed.driver.serve(rest(running))?;
    let each = (resident(running)? - before) / count as f64;
    bed.report.add(name, metric, running.contestant.name, each);
    Ok(())
}
