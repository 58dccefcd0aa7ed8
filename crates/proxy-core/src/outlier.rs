//! Passive health checks: when a host is ejected, for how long, and when it comes back.
use std::time::Duration;

use crate::config::cluster::OutlierDetection;

/// How a request to a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostResult {
    /// An answer with this status.
    Status(u16),
    /// No connection, reset or timeout: counted as 500-class where local errors are not split.
    LocalFailure,
}

/// Why a host is to be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Server errors in a row.
    Consecutive5xx,
    /// 502, 503, 504 in a row.
    ConsecutiveGatewayFailure,
    /// Local failures in a row.
    ConsecutiveLocalOriginFailure,
    /// Success rate below the others'.
    SuccessRate,
    /// Too many failures.
    FailurePercentage,
    /// Success rate by local failures below the others'.
    LocalOriginSuccessRate,
    /// Too many local failures.
    LocalOriginFailurePercentage,
}

/// What is counted of one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Monitor {
    consecutive_5xx: u32,
    consecutive_gateway: u32,
    consecutive_local: u32,
    /// Good and all results of this interval; of the second, as far as failures
    /// are local, where they are split.
    rates: [(u64, u64); 2],
    /// Grows with each ejection, falls with each good interval.
    pub ejection_multiplier: u32,
    /// Ejected at this time (monotonic); none = in use.
    pub ejected_at: Option<Duration>,
    ejection_length: Duration,
}

impl Monitor {
    /// Counts a result. A returned cause is to be checked with [`enforce`] and [`may_eject`].
    pub fn record(&mut self, config: &OutlierDetection, result: HostResult) -> Option<Cause> {
        let split = config.split_external_local_origin_errors;
        let (failed, gateway) = match result {
            HostResult::LocalFailure if split => {
                self.count(1, false);
                self.consecutive_local += 1;
                let full = config.consecutive_local_origin_failure;
                return hit(&mut self.consecutive_local, full)
                    .then_some(Cause::ConsecutiveLocalOriginFailure);
            }
            HostResult::LocalFailure => (true, true),
            HostResult::Status(code) => ((500..600).contains(&code), (502..=504).contains(&code)),
        };
        self.consecutive_local = 0;
        if split {
            self.count(1, true);
        }
        self.count(0, !failed);
        if !failed {
            self.consecutive_5xx = 0;
            self.consecutive_gateway = 0;
            return None;
        }
        self.consecutive_5xx += 1;
        self.consecutive_gateway = if gateway {
            self.consecutive_gateway + 1
        } else {
            0
        };
        if hit(
            &mut self.consecutive_gateway,
            config.consecutive_gateway_failure,
        ) && config.enforcing_consecutive_gateway_failure > 0
        {
            return Some(Cause::ConsecutiveGatewayFailure);
        }
        hit(&mut self.consecutive_5xx, config.consecutive_5xx).then_some(Cause::Consecutive5xx)
    }

    /// Marks the host ejected.
    pub fn eject(&mut self, config: &OutlierDetection, now: Duration, random: u64) {
        self.ejection_multiplier += 1;
        let most = config.max_ejection_time.max(config.base_ejection_time);
        let jitter = u64::try_from(config.max_ejection_time_jitter.as_millis()).unwrap_or(0);
        let extra = if jitter == 0 { 0 } else { random % jitter };
        self.ejection_length = config
            .base_ejection_time
            .saturating_mul(self.ejection_multiplier)
            .min(most)
            + Duration::from_millis(extra);
        self.ejected_at = Some(now);
        self.consecutive_5xx = 0;
        self.consecutive_gateway = 0;
        self.consecutive_local = 0;
    }

    /// A sweep: brings a host back when its time is over, lets the multiplier of a good host fall.
    /// Returns true when it came back.
    pub fn sweep(&mut self, now: Duration) -> bool {
        match self.ejected_at {
            Some(at) if now.saturating_sub(at) >= self.ejection_length => {
                self.ejected_at = None;
                true
            }
            Some(_) => false,
            None => {
                self.ejection_multiplier = self.ejection_multiplier.saturating_sub(1);
                false
            }
        }
    }

    fn count(&mut self, of: usize, good: bool) {
        let (successes, all) = &mut self.rates[of];
        *successes += u64::from(good);
        *all += 1;
    }

    /// Takes the interval's counts, good results and all: of all results and of
    /// local ones.
    pub fn take_counts(&mut self) -> [(u64, u64); 2] {
        std::mem::take(&mut self.rates)
    }
}

/// The share of good results in percent, where there are results enough.
#[must_use]
pub fn success_rate((good, all): (u64, u64), least: u32) -> Option<f64> {
    (all >= u64::from(least) && all > 0).then(|| good as f64 * 100.0 / all as f64)
}

fn hit(count: &mut u32, full: u32) -> bool {
    if full > 0 && *count >= full {
        *count = 0;
        return true;
    }
    false
}

/// Whether a cause is acted on: its enforcing percentage against a random number.
#[must_use]
pub fn enforce(config: &OutlierDetection, cause: Cause, random: u64) -> bool {
    let percent = match cause {
        Cause::Consecutive5xx => config.enforcing_consecutive_5xx,
        Cause::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
        Cause::ConsecutiveLocalOriginFailure => config.enforcing_consecutive_local_origin_failure,
        Cause::SuccessRate => config.enforcing_success_rate,
        Cause::FailurePercentage => config.enforcing_failure_percentage,
        Cause::LocalOriginSuccessRate => config.enforcing_local_origin_success_rate,
        Cause::LocalOriginFailurePercentage => config.enforcing_failure_percentage_local_origin,
    };
    random % 100 < u64::from(percent)
}

/// Whether one more host may go: so many of the hosts are ejected already.
#[must_use]
pub fn may_eject(config: &OutlierDetection, ejected: usize, hosts: usize) -> bool {
    if ejected == 0 && config.always_eject_one_host {
        return true;
    }
    (ejected + 1) * 100 <= hosts * config.max_ejection_percent.min(100) as usize
}

/// Hosts whose success rate lies below `mean - factor/1000 * deviation`: (threshold, indexes).
#[must_use]
pub fn success_rate_outliers(
    config: &OutlierDetection,
    rates: &[(usize, f64)],
) -> (f64, Vec<usize>) {
    if rates.len() < config.success_rate_minimum_hosts.max(1) as usize {
        return (0.0, vec![]);
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, r)| r).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, r)| (r - mean).powi(2)).sum::<f64>() / count;
    let threshold = mean - f64::from(config.success_rate_stdev_factor) / 1000.0 * variance.sqrt();
    (
        threshold,
        rates
            .iter()
            .filter(|(_, r)| *r < threshold)
            .map(|(i, _)| *i)
            .collect(),
    )
}

/// Hosts whose share of failures is at or over the threshold.
#[must_use]
pub fn failure_percentage_outliers(
    config: &OutlierDetection,
    rates: &[(usize, f64)],
) -> Vec<usize> {
    if rates.len() < config.failure_percentage_minimum_hosts as usize {
        return vec![];
    }
    let most = f64::from(config.failure_percentage_threshold);
    rates
        .iter()
        .filter(|(_, r)| 100.0 - r >= most)
        .map(|(i, _)| *i)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_a_row_and_back() {
        let config = OutlierDetection {
            max_ejection_percent: 100,
            ..OutlierDetection::default()
        };
        let mut m = Monitor::default();
        for _ in 0..4 {
            assert_eq!(m.record(&config, HostResult::Status(500)), None);
        }
        assert_eq!(
            m.record(&config, HostResult::Status(200)),
            None,
            "a success starts over"
        );
        for _ in 0..4 {
            assert_eq!(m.record(&config, HostResult::LocalFailure), None);
        }
        assert_eq!(
            m.record(&config, HostResult::Status(503)),
            Some(Cause::Consecutive5xx)
        );
        let at = |s| Duration::from_secs(s);
        m.eject(&config, at(0), 0);
        assert!(!m.sweep(at(20)));
        assert!(m.sweep(at(30)));
        m.eject(&config, at(40), 0);
        assert!(!m.sweep(at(99)), "the second time is twice as long");
        assert!(m.sweep(at(100)));
    }

    #[test]
    fn local_failures_count_apart() {
        let config = OutlierDetection {
            split_external_local_origin_errors: true,
            ..OutlierDetection::default()
        };
        let mut m = Monitor::default();
        for _ in 0..4 {
            assert_eq!(m.record(&config, HostResult::LocalFailure), None);
        }
        let cause = m.record(&config, HostResult::LocalFailure);
        assert_eq!(cause, Some(Cause::ConsecutiveLocalOriginFailure));
        for status in [200, 200, 200, 200, 500] {
            m.record(&config, HostResult::Status(status));
        }
        let counts = m.take_counts();
        assert_eq!(
            counts.map(|c| super::success_rate(c, 5)),
            [Some(80.0), Some(50.0)]
        );
        assert_eq!(
            counts.map(|c| super::success_rate(c, 6)),
            [None, Some(50.0)]
        );
        assert_eq!(m.take_counts(), [(0, 0); 2], "a new interval");
    }

    #[test]
    fn limits() {
        let config = OutlierDetection::default();
        assert!(!may_eject(&config, 0, 3), "10 % of 3 hosts is none");
        assert!(may_eject(&config, 0, 10));
        assert!(!may_eject(&config, 1, 10));
        let one = OutlierDetection {
            always_eject_one_host: true,
            ..config
        };
        assert!(may_eject(&one, 0, 1));
        assert!(!enforce(&one, Cause::ConsecutiveGatewayFailure, 0));
        assert!(enforce(&one, Cause::Consecutive5xx, 99));
    }

    #[test]
    fn success_rate() {
        let config = OutlierDetection::default();
        let rates: Vec<_> = [100.0, 100.0, 100.0, 100.0, 100.0, 50.0]
            .into_iter()
            .enumerate()
            .collect();
        assert_eq!(success_rate_outliers(&config, &rates).1, [5]);
        assert!(
            success_rate_outliers(&config, &rates[2..]).1.is_empty(),
            "too few hosts"
        );
    }
}
