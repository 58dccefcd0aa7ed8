//! Passive health checks at work: results of requests are counted for all
//! workers together, hosts are ejected and come back (`outlier_detection`).

use std::rc::Rc;
use std::time::Duration;

use lateen_proxy_core::config::cluster::OutlierDetection;
use lateen_proxy_core::outlier::{self, Cause, HostResult};
use lateen_proxy_core::stats::{Counter, Gauge};

use super::health::HealthFlags;
use super::host::Host;
use crate::io::timer::now_ms;
use crate::stats::ClusterStats;

const GROUP: &str = "outlier_detection";

/// The statistics of a cluster's ejections.
#[derive(Debug)]
pub struct OutlierStats {
    active: Gauge,
    overflow: Counter,
    enforced: Counter,
}

impl OutlierStats {
    /// The cells of a cluster.
    pub fn new(stats: &ClusterStats) -> Self {
        Self {
            active: stats.gauge(GROUP, "ejections_active"),
            overflow: stats.counter(GROUP, "ejections_overflow"),
            enforced: stats.counter(GROUP, "ejections_enforced_total"),
        }
    }
}

fn name(cause: Cause) -> &'static str {
    match cause {
        Cause::Consecutive5xx => "consecutive_5xx",
        Cause::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
        Cause::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
        Cause::SuccessRate => "success_rate",
        Cause::FailurePercentage => "failure_percentage",
        Cause::LocalOriginSuccessRate => "local_origin_success_rate",
        Cause::LocalOriginFailurePercentage => "local_origin_failure_percentage",
    }
}

/// The passive checks of a cluster.
pub(super) struct Outliers<'a> {
    pub(super) config: &'a OutlierDetection,
    pub(super) stats: &'a ClusterStats,
    pub(super) cells: &'a OutlierStats,
    pub(super) hosts: &'a [Rc<Host>],
}

impl Outliers<'_> {
    /// Counts how a request to a host ended; true when it was ejected for it.
    pub(super) fn note(&self, host: &Host, result: HostResult) -> bool {
        let Some(health) = &host.health else {
            return false;
        };
        let cause = health.monitor().record(self.config, result);
        match cause {
            Some(cause) if !health.flags().has(HealthFlags::EJECTED) => self.eject(host, cause),
            _ => false,
        }
    }

    /// Ejects a host, where the configuration acts on the cause and lets one
    /// more go.
    fn eject(&self, host: &Host, cause: Cause) -> bool {
        let Some(health) = &host.health else {
            return false;
        };
        let detected = format!("ejections_detected_{}", name(cause));
        self.stats.counter(GROUP, &detected).inc();
        if !outlier::enforce(self.config, cause, fastrand::u64(..)) {
            return false;
        }
        let ejected = |h: &&Rc<Host>| h.flags().has(HealthFlags::EJECTED);
        let out = self.hosts.iter().filter(ejected).count();
        if !outlier::may_eject(self.config, out, self.hosts.len()) {
            self.cells.overflow.inc();
            return false;
        }
        if !health.mark(HealthFlags::EJECTED, HealthFlags::default()) {
            return false;
        }
        let now = Duration::from_millis(now_ms());
        health.monitor().eject(self.config, now, fastrand::u64(..));
        self.cells.enforced.inc();
        let enforced = format!("ejections_enforced_{}", name(cause));
        self.stats.counter(GROUP, &enforced).inc();
        self.cells.active.add(1);
        true
    }

    /// The periodic look: ends ejections, ejects by success rate and by share
    /// of failures. True when the health of any host changed.
    pub(super) fn sweep(&self) -> bool {
        let now = Duration::from_millis(now_ms());
        let mut changed = false;
        let mut counts = [Vec::new(), Vec::new()];
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(health) = &host.health else {
                continue;
            };
            let (back, taken) = {
                let mut monitor = health.monitor();
                (monitor.sweep(now), monitor.take_counts())
            };
            if back {
                changed |= self.uneject(host);
            }
            for (counts, taken) in counts.iter_mut().zip(taken) {
                counts.push((index, taken));
            }
        }
        let causes = [
            (Cause::SuccessRate, Cause::FailurePercentage),
            (
                Cause::LocalOriginSuccessRate,
                Cause::LocalOriginFailurePercentage,
            ),
        ];
        for (counts, (slow, failing)) in counts.iter().zip(causes) {
            changed |= self.eject_outliers(counts, slow, failing);
        }
        changed
    }

    fn eject_outliers(&self, counts: &[(usize, (u64, u64))], slow: Cause, failing: Cause) -> bool {
        let mut changed = false;
        let config = self.config;
        let rates = |least: u32| -> Vec<(usize, f64)> {
            let rate = |(index, counts): &(usize, _)| {
                Some((*index, outlier::success_rate(*counts, least)?))
            };
            counts.iter().filter_map(rate).collect()
        };
        let enough = rates(config.success_rate_request_volume);
        let below = outlier::success_rate_outliers(config, &enough).1;
        let below = below.into_iter().map(|index| (index, slow));
        let enough = rates(config.failure_percentage_request_volume);
        let often = outlier::failure_percentage_outliers(config, &enough);
        let often = often.into_iter().map(|index| (index, failing));
        for (index, cause) in below.chain(often) {
            let host = &self.hosts[index];
            if !host.flags().has(HealthFlags::EJECTED) {
                changed |= self.eject(host, cause);
            }
        }
        changed
    }

    /// Ends an ejection; true when there was one.
    pub(super) fn uneject(&self, host: &Host) -> bool {
        let back = host.health.as_ref().is_some_and(|health| {
            health.monitor().ejected_at = None;
            health.mark(HealthFlags::default(), HealthFlags::EJECTED)
        });
        if back {
            self.cells.active.sub(1);
        }
        back
    }
}
