//! CPU time per request (or GB, or connection) of the proxy's process in a closed loop: everybody is
//! started, then measured in turn, round by round.

use std::time::Duration;

use super::Bed;
use crate::config::Spec;
use crate::contestant::{Contestant, Program, Running};
use crate::load::{Load, Protocol};
use crate::usage;

/// Runs one of the scenarios.
pub fn run(bed: &mut Bed<'_>, name: &str) -> anyhow::Result<()> {
    let contestants = bed.contestants(contestants(name));
    let mut all = Vec::new();
    for contestant in contestants {
        let mut spec = bed.spec(contestant)?;
        told(name, &mut spec, bed);
        match bed.start(contestant, spec) {
            Ok(running) => all.push(running),
            Err(error) => {
                let line = format!("{name}, {}: {error:#}", contestant.name);
                eprintln!("{line}");
                bed.report.failed.push(line);
            }
        }
    }
    let metric = match name {
        "tcp" => "CPU s per GB",
        "mtls-new" => "CPU us per connection",
        _ => "CPU us per request",
    };
    for round in 0..bed.options.rounds {
        // Every other round goes the other way: a drift of the machine favours nobody.
        let order: Vec<usize> = match round % 2 {
            0 => (0..all.len()).collect(),
            _ => (0..all.len()).rev().collect(),
        };
        for index in order {
            let Some(running) = all.get(index) else {
                continue;
            };
            measure(bed, name, metric, running)?;
        }
    }
    bed.judge(name, metric);
    Ok(())
}

fn contestants(name: &str) -> &'static [&'static str] {
    match name {
        "tcp" => &["floor", "haproxy", "envoy", "lateen"],
        "h1-100" => &[
            "floor",
            "haproxy",
            "nginx",
            "envoy-bare",
            "envoy",
            "lateen-bare",
            "lateen",
        ],
        // Bytes passed on unread are no floor for TLS and HTTP/2, but say how the machine does.
        _ => &["haproxy", "nginx", "envoy", "lateen"],
    }
}

fn told(name: &str, spec: &mut Spec, bed: &Bed<'_>) {
    match name {
        "h1-10k" => spec.backend = bed.large,
        "h1-log" => spec.log = Some(spec.folder.join("access.log")),
        "h2-8x16" | "h2-64x1" => spec.http2 = true,
        "mtls-down" | "mtls-new" => spec.tls_down = true,
        "mtls-up" => {
            spec.tls_up = true;
            spec.backend = bed.tls;
        }
        "tcp" => {
            spec.tcp = true;
            spec.backend = bed.source;
        }
        _ => {}
    }
}

fn load(name: &str, bed: &Bed<'_>, running: &Running) -> Load {
    let mut load = bed.load(running);
    match name {
        "h2-8x16" => (load.connections, load.protocol) = (8, Protocol::Http2(16)),
        "h2-64x1" => load.protocol = Protocol::Http2(1),
        "mtls-new" => (load.connections, load.fresh) = (16, true),
        "tcp" => load.connections = 8,
        _ => {}
    }
    load
}

fn measure(bed: &mut Bed<'_>, name: &str, metric: &str, running: &Running) -> anyhow::Result<()> {
    let Contestant {
        name: who, program, ..
    } = running.contestant;
    let Some(pid) = running.pid() else {
        return Ok(());
    };
    let load = load(name, bed, running);
    bed.driver.open(load)?;
    // Caches and pools fill before the clock counts.
    bed.driver.closed_loop(Duration::from_millis(200))?;
    let before = usage::fine_cpu(pid)?;
    let outcome = bed.driver.closed_loop(bed.slice())?;
    let cpu = (usage::fine_cpu(pid)? - before).as_secs_f64();
    bed.driver.close();
    let per = match name {
        "tcp" => cpu / (outcome.bytes as f64 / 1e9),
        _ => cpu * 1e6 / outcome.requests as f64,
    };
    bed.report.add(name, metric, who, per);
    let seconds = outcome.time.as_secs_f64();
    if name == "tcp" {
        bed.report
            .add(name, "GB/s", who, outcome.bytes as f64 / 1e9 / seconds);
    } else {
        bed.report
            .add(name, "requests/s", who, outcome.requests as f64 / seconds);
    }
    let share = cpu / seconds * 100.0;
    bed.report.add(name, "% of its core", who, share);
    if program == Program::Lateen {
        eprintln!("{name} {who}: {metric} {per:.2}");
    }
    Ok(())
}
