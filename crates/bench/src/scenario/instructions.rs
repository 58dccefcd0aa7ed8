//! Instructions per request by callgrind: exact, whatever else the machine does.

use anyhow::Context as _;

use super::Bed;
use crate::config::Spec;
use crate::contestant::{Contestant, Program, Running};
use crate::load::{Load, Protocol};

/// Requests of the two runs. Under callgrind each takes some fifty times as long as without.
const REQUESTS: [u64; 2] = [500, 5500];
const CONNECTIONS: usize = 16;
/// Streams of each connection, with HTTP/2.
const STREAMS: usize = 4;
const METRIC: &str = "instructions per request";

/// The plain case.
pub fn run(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    let mut names = vec!["floor", "haproxy", "nginx", "lateen-bare", "lateen"];
    // Under callgrind it takes longer than all others together.
    if bed.options.peers.iter().any(|name| name == "envoy") {
        names.push("envoy");
    }
    for contestant in bed.contestants(&names) {
        let per = measured(bed, contestant, &|_| {})?;
        eprintln!("{name} {}: {per:.0}", contestant.name);
        bed.report.add(name, METRIC, contestant.name, per);
    }
    Ok(())
}

/// The same with HTTP/2 from clients.
pub fn http2(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    for contestant in bed.contestants(&["haproxy", "nginx", "lateen-bare", "lateen"]) {
        let per = measured(bed, contestant, &|spec| spec.http2 = true)?;
        eprintln!("{name} {}: {per:.0}", contestant.name);
        bed.report.add(name, METRIC, contestant.name, per);
    }
    Ok(())
}

/// Ten routes and ten thousand.
pub fn matching(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    for contestant in bed.contestants(&["haproxy", "nginx", "lateen-bare"]) {
        for routes in [10, 10_000] {
            let per = measured(bed, contestant, &|spec| spec.routes = routes)?;
            eprintln!("{name} {} {routes} routes: {per:.0}", contestant.name);
            let metric = format!("{METRIC}, {routes} routes");
            bed.report.add(name, &metric, contestant.name, per);
        }
    }
    Ok(())
}

fn measured(
    bed: &mut Bed<'_>,
    contestant: Contestant,
    told: &dyn Fn(&mut Spec),
) -> anyhow::Result<f64> {
    let mut counts = Vec::new();
    for requests in REQUESTS {
        let mut spec = bed.spec(contestant)?;
        told(&mut spec);
        counts.push(count(bed, contestant, spec, requests)?);
    }
    let [(few, few_requests), (many, many_requests)] = counts[..] else {
        anyhow::bail!("two counts were expected");
    };
    Ok((many - few) / (many_requests - few_requests))
}

/// Instructions of a whole run with so many requests, and how many it really were.
fn count(
    bed: &mut Bed<'_>,
    contestant: Contestant,
    spec: Spec,
    requests: u64,
) -> anyhow::Result<(f64, f64)> {
    let file = spec.folder.join("callgrind");
    let mut wrapper: Vec<String> = vec![
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", file.display()),
    ];
    if contestant.program == Program::Envoy {
        // Its stack is larger than valgrind takes for one.
        wrapper.push("--max-stackframe=16777216".to_owned());
    }
    let mut running = Running::start(bed.programs, contestant, spec, &bed.pki, &wrapper)?;
    let mut load = Load {
        connections: CONNECTIONS,
        ..bed.load(&running)
    };
    if running.spec.http2 {
        load.protocol = Protocol::Http2(STREAMS);
    }
    running.wait_ready(&mut bed.driver, &load)?;
    bed.driver.open(load)?;
    let outcome = bed.driver.closed_count(requests)?;
    bed.driver.close();
    running.finish()?;
    let text = std::fs::read_to_string(&file).context("callgrind's result (Debian: valgrind)")?;
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals:"));
    let total = line.context("its totals")?.trim().parse::<f64>()?;
    Ok((total, outcome.requests as f64))
}
