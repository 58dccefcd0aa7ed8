//! Stopping containers: pre-stop hook, stop signal, grace, kill; sidecars after the others, each
//! with what is left of the grace.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Mode, Notice, Worker};
use crate::node::event::Level;
use crate::node::hook;
use crate::node::live::Live;
use crate::node::plan::{Life, Role};
use crate::node::start::field;

/// What a container gets after a pre-stop hook, or a sidecar after the others, used up the grace.
const MINIMUM: Duration = Duration::from_secs(2);
/// How long after the last container's end the news of it may take.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a killed process may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// A container to stop.
#[derive(Clone)]
struct Target {
    live: Arc<Live>,
    container: Container,
    role: Role,
    pod_ip: String,
}

fn stop_signal(container: &Container) -> i32 {
    let name = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.as_deref());
    name.and_then(|n| n.parse::<nix::sys::signal::Signal>().ok())
        .map_or(libc::SIGTERM, |s| s as i32)
}

async fn stop(target: Target, until: Instant) {
    pre_stop(&target, until).await;
    let now = Instant::now();
    let until = if until > now { until } else { now + MINIMUM };
    end(&target, until).await;
}

async fn pre_stop(target: &Target, until: Instant) {
    let handler = target
        .container
        .lifecycle
        .as_ref()
        .and_then(|l| l.pre_stop.clone());
    if let Some(handler) = handler {
        let left = until.saturating_duration_since(Instant::now());
        let done = hook::run(
            &handler,
            &target.container,
            &target.live,
            &target.pod_ip,
            left,
        )
        .await;
        if let Err(message) = done {
            tracing::debug!(container = target.container.name, %message, "pre-stop hook failed");
        }
    }
}

/// Asks the program to end, and at `until` ends it.
async fn end(target: &Target, until: Instant) {
    target.live.signal(stop_signal(&target.container)).await;
    if timeout_at(until, target.live.process.ended())
        .await
        .is_err()
    {
        target.live.kill().await;
        if timeout(KILL_WAIT, target.live.process.ended())
            .await
            .is_err()
        {
            tracing::warn!(
                container = target.container.name,
                "a killed container is still there"
            );
        }
    }
}

impl Worker {
    fn target(&self, n: usize) -> Option<Target> {
        let unit = &self.units[n];
        Some(Target {
            live: unit.live.clone()?,
            container: unit.spec.clone(),
            role: unit.role,
            pod_ip: self.pod_ip().map(|ip| ip.to_string()).unwrap_or_default(),
        })
    }

    fn own_grace(&self) -> Duration {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30))
    }

    /// Stops one container; its end is then handled like any other.
    pub(super) fn stop_one(&mut self, n: usize) {
        if let Some(target) = self.target(n) {
            let until = Instant::now() + self.own_grace();
            tokio::spawn(stop(target, until));
        }
    }

    /// Stops a sidecar that has no work left.
    pub(super) fn stop_sidecar(&mut self, n: usize) {
        if self.life(n) == Life::Running && !self.units[n].told_to_stop {
            self.units[n].told_to_stop = true;
            self.units[n].stop_probes();
            let field = field(self.units[n].role, self.units[n].name());
            let text = format!("Stopping container {}", self.units[n].name());
            self.event(&field, Level::Normal, "Killing", text);
            self.stop_one(n);
        }
    }

    /// Begins (or, with a shorter grace, hastens) the end of the pod.
    pub(super) fn begin_termination(&mut self) {
        let grace = self.pod.metadata.deletion_grace_period_seconds;
        let grace = grace
            .and_then(|g| u64::try_from(g).ok())
            .unwrap_or(self.own_grace().as_secs());
        let again = self.mode == Mode::Terminating;
        if again && grace >= self.grace {
            return;
        }
        self.grace = grace;
        self.mode = Mode::Terminating;
        if let Some(stopping) = self.stopping.take() {
            stopping.abort();
        }
        let mut targets = Vec::new();
        for n in 0..self.units.len() {
            self.units[n].stop_probes();
            if let Some(target) = self.target(n) {
                if !again {
                    let text = format!("Stopping container {}", target.container.name);
                    self.event(
                        &field(target.role, &target.container.name),
                        Level::Normal,
                        "Killing",
                        text,
                    );
                }
                targets.push(target);
            }
        }
        let notices = self.notices.clone();
        let until = Instant::now() + Duration::from_secs(grace);
        let task = tokio::spawn(async move {
            stop_all(targets, until).await;
            drop(notices.send(Notice::Stopped));
        });
        self.stopping = Some(task.abort_handle());
    }

    /// How each container ended is told with its last output, a little later than its end. One
    /// that cannot be killed is not waited for.
    pub(super) fn stopped(&mut self) {
        self.all_stopped = true;
        let notices = self.notices.clone();
        if self.units.iter().all(|unit| unit.live.is_none()) {
            drop(notices.send(Notice::Settled));
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(SETTLE).await;
            drop(notices.send(Notice::Settled));
        });
    }
}

/// Main containers (and a running init container) together, then sidecars in reverse order. The
/// pre-stop hooks of all begin at once.
async fn stop_all(targets: Vec<Target>, until: Instant) {
    let (sidecars, others): (Vec<Target>, Vec<Target>) =
        targets.into_iter().partition(|t| t.role == Role::Sidecar);
    // How many turns are over: the first is that of the others.
    let turns = watch::Sender::new(0);
    let others = async {
        let stops = others.into_iter().map(|target| stop(target, until));
        futures_util::future::join_all(stops).await;
        turns.send_modify(|over| *over += 1);
    };
    let in_turn = sidecars.iter().rev().zip(1..).map(|(sidecar, turn)| {
        let (turns, mut seen) = (&turns, turns.subscribe());
        async move {
            pre_stop(sidecar, until).await;
            // The sender is in this very task.
            let _ = seen.wait_for(|over| *over >= turn).await;
            end(sidecar, until.max(Instant::now() + MINIMUM)).await;
            turns.send_modify(|over| *over += 1);
        }
    });
    futures_util::future::join(others, futures_util::future::join_all(in_turn)).await;
}
