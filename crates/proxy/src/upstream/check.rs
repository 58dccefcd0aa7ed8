//! Active health checks: one task for each host, on the first worker. The rules
//! of thresholds and intervals are Envoy's (`config.core.v3.HealthCheck`).

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::cluster::HealthCheck;
use lateen_proxy_core::stats::{Counter, Gauge};
use tokio::task::JoinHandle;

use super::cluster::ClusterState;
use super::health::{HealthFlags, HostHealth};
use super::host::Host;
use super::probe::{Finding, Prober};
use crate::io::{Timer, timer};

/// A running check; its drop ends it.
#[derive(Debug)]
pub struct Checker(JoinHandle<()>);

impl Drop for Checker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The statistics of a cluster's checks.
#[derive(Debug)]
pub struct CheckStats {
    attempt: Counter,
    success: Counter,
    failure: Counter,
    network_failure: Counter,
    passive_failure: Counter,
    verified: Counter,
    /// Hosts that pass.
    pub healthy: Gauge,
    /// Hosts that pass and are degraded.
    pub degraded: Gauge,
}

impl CheckStats {
    /// The cells of a cluster.
    pub fn new(stats: &crate::stats::ClusterStats) -> Self {
        let counter = |name| stats.counter("health_check", name);
        Self {
            attempt: counter("attempt"),
            success: counter("success"),
            failure: counter("failure"),
            network_failure: counter("network_failure"),
            passive_failure: counter("passive_failure"),
            verified: counter("verify_cluster"),
            healthy: stats.gauge("health_check", "healthy"),
            degraded: stats.gauge("health_check", "degraded"),
        }
    }
}

/// An answer to traffic told the host to fail its check: it fails at once, until
/// checks are good again, and does not count until then.
pub fn fail_at_once(health: &HostHealth, stats: &CheckStats) -> bool {
    stats.failure.inc();
    stats.passive_failure.inc();
    let marks = HealthFlags::FAILED_ACTIVE.and(HealthFlags::EXCLUDED);
    health.mark(marks, HealthFlags::default())
}

/// Begins to check a host; ends with it.
pub fn start(cluster: &Rc<ClusterState>, host: &Rc<Host>) {
    let (Some(config), Some(health), Some(stats)) = (
        cluster.config.health_checks.first(),
        host.health.clone(),
        cluster.check_stats.clone(),
    ) else {
        return;
    };
    if host.endpoint.is_unchecked() {
        return;
    }
    let mut check = Check {
        config: config.clone(),
        first: !health.flags().has(HealthFlags::CHECKED),
        health,
        stats,
        good: 0,
        bad: 0,
    };
    let (cluster, of) = (Rc::downgrade(cluster), Rc::downgrade(host));
    let task = tokio::task::spawn_local(async move { check.run(cluster, of).await });
    host.checker.replace(Some(Checker(task)));
}

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The host answered, and badly: no threshold.
    Answer,
    /// No answer, or one that may be asked for again.
    Network { timeout: bool, counted: bool },
}

/// What a check changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    /// On the way to another state, which a threshold delays.
    Coming,
    Done,
}

struct Check {
    config: HealthCheck,
    health: Arc<HostHealth>,
    stats: Rc<CheckStats>,
    first: bool,
    good: u32,
    bad: u32,
}

impl Check {
    async fn run(&mut self, cluster: Weak<ClusterState>, host: Weak<Host>) {
        let clock = Timer::new();
        clock.sleep(jitter(self.config.initial_jitter)).await;
        let mut prober = Prober::default();
        loop {
            let (Some(at), Some(of)) = (host.upgrade(), cluster.upgrade()) else {
                return;
            };
            self.stats.attempt.inc();
            let finding = {
                let until = timer::deadline(timer::now_ms(), Some(self.config.timeout));
                clock.set(until);
                let probe = prober.probe(&of, &at, &self.config);
                let finding = clock.race(probe).await.unwrap_or(Finding::TimedOut);
                match timer::now_ms() < until {
                    true => finding,
                    false => finding.late(),
                }
            };
            if !self.config.reuse_connection || finding == Finding::TimedOut {
                prober.close();
            }
            let before = self.health.flags();
            if let Finding::Good { verified, .. } | Finding::Bad { verified, .. } = finding
                && verified
            {
                self.stats.verified.inc();
            }
            let (healthy, change) = self.take(finding);
            if self.health.flags() != before {
                of.health_changed();
            }
            if healthy && !self.health.flags().has(HealthFlags::FAILED_ACTIVE) {
                of.passed_check(&at);
            }
            let wait = self.wait(&of, healthy, change);
            drop((at, of));
            clock.sleep(wait).await;
        }
    }

    fn take(&mut self, finding: Finding) -> (bool, Change) {
        match finding {
            Finding::Good { degraded, .. } => (true, self.succeed(degraded)),
            Finding::Bad { excluded, .. } => {
                let marks = [HealthFlags::default(), HealthFlags::EXCLUDED];
                self.health
                    .mark(marks[usize::from(excluded)], marks[usize::from(!excluded)]);
                (false, self.fail(Kind::Answer))
            }
            Finding::Retriable => (
                false,
                self.fail(Kind::Network {
                    timeout: false,
                    counted: false,
                }),
            ),
            Finding::NoAnswer => (
                false,
                self.fail(Kind::Network {
                    timeout: false,
                    counted: true,
                }),
            ),
            Finding::TimedOut => (
                false,
                self.fail(Kind::Network {
                    timeout: true,
                    counted: true,
                }),
            ),
        }
    }

    fn succeed(&mut self, degraded: bool) -> Change {
        self.bad = 0;
        self.stats.success.inc();
        let flags = self.health.flags();
        let mut change = Change::None;
        let clear = HealthFlags::FAILED_ACTIVE
            .and(HealthFlags::TIMED_OUT)
            .and(HealthFlags::PENDING_ACTIVE)
            .and(HealthFlags::EXCLUDED);
        if flags.has(HealthFlags::FAILED_ACTIVE) {
            self.good += 1;
            // The first outcome counts at once, so that a start is quick.
            if self.first || self.good >= self.config.healthy_threshold {
                self.good = 0;
                self.health.mark(HealthFlags::default(), clear);
                change = Change::Done;
            } else {
                change = Change::Coming;
            }
        }
        if degraded != flags.has(HealthFlags::DEGRADED_ACTIVE) {
            let marks = [HealthFlags::default(), HealthFlags::DEGRADED_ACTIVE];
            self.health
                .mark(marks[usize::from(degraded)], marks[usize::from(!degraded)]);
            change = Change::Done;
        }
        self.checked();
        change
    }

    fn fail(&mut self, kind: Kind) -> Change {
        self.good = 0;
        self.stats.failure.inc();
        if matches!(kind, Kind::Network { counted: true, .. }) {
            self.stats.network_failure.inc();
        }
        let flags = self.health.flags();
        let mut change = Change::None;
        let timed_out = matches!(kind, Kind::Network { timeout: true, .. });
        if !flags.has(HealthFlags::FAILED_ACTIVE) {
            self.bad += 1;
            let at_once = kind == Kind::Answer;
            if at_once || self.bad >= self.config.unhealthy_threshold {
                self.bad = 0;
                let marks = match timed_out {
                    true => HealthFlags::FAILED_ACTIVE.and(HealthFlags::TIMED_OUT),
                    false => HealthFlags::FAILED_ACTIVE,
                };
                self.health.mark(marks, HealthFlags::default());
                change = Change::Done;
            } else {
                change = Change::Coming;
            }
        } else {
            let marks = [HealthFlags::default(), HealthFlags::TIMED_OUT];
            self.health.mark(
                marks[usize::from(timed_out)],
                marks[usize::from(!timed_out)],
            );
        }
        if self
            .health
            .mark(HealthFlags::default(), HealthFlags::PENDING_ACTIVE)
        {
            change = Change::Done;
        }
        self.checked();
        change
    }

    fn checked(&mut self) {
        self.first = false;
        self.health
            .mark(HealthFlags::CHECKED, HealthFlags::default());
    }

    /// Until the next check.
    fn wait(&self, cluster: &ClusterState, healthy: bool, change: Change) -> Duration {
        let config = &self.config;
        let coming = change == Change::Coming;
        let base = match (cluster.is_used(), healthy, coming) {
            (true, true, false) => config.interval,
            (true, true, true) => config.healthy_edge_interval,
            (true, false, false) => config.unhealthy_interval,
            (true, false, true) => config.unhealthy_edge_interval,
            (false, true, false) => config.no_traffic_healthy_interval,
            (false, ..) => config.no_traffic_interval,
        };
        let share = base.mul_f64(f64::from(config.interval_jitter_percent) / 100.0);
        base + jitter(config.interval_jitter) + jitter(share)
    }
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}
