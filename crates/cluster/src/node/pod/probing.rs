//! Running a container's probes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::time::{sleep, timeout};

use super::{Notice, Worker};
use crate::node::live::Live;
use crate::node::probe::{self, Purpose, Streak, Timing};
use crate::node::probe_grpc;

/// Wait between readiness probes before the first success.
const EAGER: Duration = Duration::from_secs(1);

impl Worker {
    /// Starts the probes that are due: the startup probe first, the others once it passed.
    pub(super) fn start_probes(&mut self, n: usize) {
        let Some(address) = self.pod_ip().map(IpAddr::V4) else {
            return;
        };
        let notices = self.notices.clone();
        let unit = &mut self.units[n];
        let Some(live) = unit.live.clone() else {
            return;
        };
        unit.stop_probes();
        let started = unit.seen().started;
        let spec = &unit.spec;
        let wanted = [
            (
                Purpose::Startup,
                spec.startup_probe.clone().filter(|_| !started),
            ),
            (
                Purpose::Liveness,
                spec.liveness_probe.clone().filter(|_| started),
            ),
            (
                Purpose::Readiness,
                spec.readiness_probe.clone().filter(|_| started),
            ),
        ];
        let turn = unit.turn;
        for (purpose, probe) in wanted {
            let Some(probe) = probe else {
                continue;
            };
            let (container, live, notices) =
                (unit.spec.clone(), Arc::clone(&live), notices.clone());
            let task = tokio::spawn(async move {
                repeat(
                    purpose,
                    &probe,
                    &container,
                    &live,
                    address,
                    |verdict, message| {
                        drop(notices.send(Notice::Probe(n, turn, purpose, verdict, message)));
                        // A startup probe that passed has done its work.
                        !(purpose == Purpose::Startup && verdict == Some(true))
                    },
                )
                .await;
            });
            unit.probes.push(task.abort_handle());
        }
    }
}

/// Probes until `tell` says stop; it hears each verdict and the message of each failure.
async fn repeat(
    purpose: Purpose,
    probe: &Probe,
    container: &Container,
    live: &Live,
    address: IpAddr,
    tell: impl Fn(Option<bool>, String) -> bool,
) {
    let timing = Timing::of(probe);
    let mut streak = Streak::default();
    let mut told = None;
    let mut passed = false;
    // Counted from the container's start, whatever the startup probe took of it.
    sleep(timing.initial_delay.saturating_sub(live.started.elapsed())).await;
    loop {
        let outcome = timeout(
            timing.timeout,
            once(probe, container, live, address, timing.timeout),
        )
        .await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    .to_owned(),
            )
        });
        let verdict = streak.note(outcome.is_ok(), &timing);
        // A verdict that repeats itself is no news, unless it fails and restarts.
        let news = verdict.filter(|v| told != Some(*v) || !*v);
        told = verdict.or(told);
        passed |= outcome.is_ok();
        let message = outcome.err().unwrap_or_default();
        if (news.is_some() || !message.is_empty()) && !tell(news, message) {
            return;
        }
        // A container that was never ready is looked at more often: readiness can only gain by it.
        let eager = purpose == Purpose::Readiness && !passed;
        sleep(if eager {
            timing.period.min(EAGER)
        } else {
            timing.period
        })
        .await;
    }
}

async fn once(
    probe: &Probe,
    container: &Container,
    live: &Live,
    address: IpAddr,
    limit: Duration,
) -> Result<(), String> {
    if let Some(get) = &probe.http_get {
        return probe::http(get, container, address).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let port = probe::resolve_port(container, &socket.port)?;
        let host = match socket.host.as_deref().filter(|h| !h.is_empty()) {
            None => address,
            Some(text) => text
                .parse()
                .map_err(|_| format!("probe host {text:?} is not an address"))?,
        };
        return probe::tcp(SocketAddr::new(host, port)).await;
    }
    if let Some(exec) = &probe.exec {
        let argv = exec.command.clone().unwrap_or_default();
        let (code, output) = live.run(argv, limit).await?;
        let output = output.trim_end();
        return match (code, output.is_empty()) {
            (0, _) => Ok(()),
            (code, true) => Err(format!("command exited with {code}")),
            (_, false) => Err(output.to_owned()),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let port =
            u16::try_from(grpc.port).map_err(|_| "the probe's port is no port".to_owned())?;
        let service = grpc.service.as_deref().unwrap_or_default();
        return probe_grpc::check(SocketAddr::new(address, port), service).await;
    }
    Ok(())
}
