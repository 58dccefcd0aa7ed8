//! The balancer of a cluster in one worker: the choice is `proxy-core`'s, this
//! file keeps its state and tells it what is in flight, ejected and tried.

use std::cell::RefCell;
use std::rc::Rc;

use lateen_proxy_core::config::cluster::{Cluster, LbPolicy, SlowStart};
use lateen_proxy_core::config::endpoint::{ClusterLoadAssignment, HealthStatus};
use lateen_proxy_core::config::{Metadata, Value};
use lateen_proxy_core::lb::{self, Health, Pick};

use super::health::HealthFlags;
use super::host::{DEGRADED, FAILING, Host};
use crate::io::timer::now_ms;

/// Balancing state.
#[derive(Debug, Default)]
pub struct Balancer {
    inner: RefCell<Option<Inner>>,
}

/// The balancer of all hosts, or those of subsets.
#[derive(Debug)]
enum Inner {
    All(Box<lb::Balancer>),
    Subsets(Box<lb::Subsets>),
}

/// What a host is chosen by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// Hash of the request, for consistent hashing.
    pub hash: Option<u64>,
    /// Metadata that the route asks endpoints to have (`metadata_match`).
    pub criteria: Option<&'a Metadata>,
    /// Tried before.
    pub avoid: &'a [Rc<Host>],
    /// How often to choose anew when a host is to be avoided.
    pub attempts: u32,
}

impl<'a> Choice<'a> {
    fn wanted(&self) -> Option<&'a lb::Criteria> {
        match self.criteria?.get("envoy.lb")? {
            Value::Struct(map) => Some(map),
            _ => None,
        }
    }
}

impl Balancer {
    /// Takes a new set of hosts.
    pub fn update(
        &self,
        config: &Cluster,
        hosts: &[Rc<Host>],
        assignment: Option<&ClusterLoadAssignment>,
    ) {
        let factor = match assignment.map_or(0, |a| a.overprovisioning_factor) {
            0 => 140,
            given => given,
        };
        let now = now_ms();
        let places = hosts.iter().map(|host| lb::Place {
            endpoint: &host.endpoint,
            locality: &host.locality,
            priority: host.priority,
            weight: warmed(config, host.endpoint.weight, now.saturating_sub(host.since)),
        });
        let specs = lb::specs(config, assignment, places);
        let random = fastrand::u64(..);
        let inner = match &config.subsets {
            Some(subsets) => Inner::Subsets(Box::new(lb::Subsets::new(
                config, subsets, &specs, factor, random,
            ))),
            None => Inner::All(Box::new(lb::Balancer::new(config, specs, factor, random))),
        };
        *self.inner.borrow_mut() = Some(inner);
        self.refresh(hosts);
    }

    /// Takes changed health.
    pub fn refresh(&self, hosts: &[Rc<Host>]) {
        let random = fastrand::u64(..);
        match &mut *self.inner.borrow_mut() {
            Some(Inner::All(all)) => all.refresh(&|i| health(&hosts[i]), random),
            Some(Inner::Subsets(subsets)) => subsets.refresh(&|i| health(&hosts[i]), random),
            None => {}
        }
    }

    /// Chooses one.
    pub fn choose(&self, hosts: &[Rc<Host>], choice: &Choice<'_>) -> Option<Rc<Host>> {
        let mut inner = self.inner.borrow_mut();
        let pick = Pick {
            hash: choice.hash,
            active: &|i| hosts[i].active.get(),
            avoid: &|i| {
                choice
                    .avoid
                    .iter()
                    .any(|h| h.endpoint.address == hosts[i].endpoint.address)
            },
            attempts: choice.attempts,
        };
        let random = &mut || fastrand::u64(..);
        let index = match inner.as_mut()? {
            Inner::All(all) => all.pick(&pick, random),
            Inner::Subsets(subsets) => subsets.pick(choice.wanted(), &pick, random),
        }?;
        hosts.get(index).cloned()
    }
}

/// The sweep comes once a second: a host counts as warming a little longer
/// than its window, so that it is looked at once after its end.
const SWEEP_MS: u64 = 2000;

fn slow_start(config: &Cluster) -> Option<&SlowStart> {
    match &config.lb_policy {
        LbPolicy::RoundRobin(slow_start) | LbPolicy::LeastRequest { slow_start, .. } => {
            Some(slow_start).filter(|s| !s.window.is_zero())
        }
        _ => None,
    }
}

/// Whether a host is in its slow start, or was a moment ago.
pub fn warming(config: &Cluster, hosts: &[Rc<Host>]) -> bool {
    let Some(slow_start) = slow_start(config) else {
        return false;
    };
    let until = slow_start.window.as_millis() as u64 + SWEEP_MS;
    let now = now_ms();
    hosts.iter().any(|h| now.saturating_sub(h.since) < until)
}

/// The weight of a host under slow start, `age` milliseconds after it was first
/// seen: `weight * max(least share, (age / window) ^ (1 / aggression))`, in
/// hundredths so that small weights can grow.
fn warmed(config: &Cluster, weight: u32, age: u64) -> u32 {
    match slow_start(config) {
        Some(slow_start) => grown(slow_start, weight, age),
        None => weight,
    }
}

fn grown(slow_start: &SlowStart, weight: u32, age: u64) -> u32 {
    let time = (age.max(1000) as f64 / slow_start.window.as_millis() as f64).min(1.0);
    let share = time.powf(1.0 / slow_start.aggression.max(0.001));
    let share = share.max(slow_start.min_weight_percent / 100.0).min(1.0);
    ((f64::from(weight) * 100.0 * share).round() as u32).max(1)
}

fn health(host: &Host) -> Health {
    let flags = host.flags();
    if flags.has(HealthFlags::PENDING_ACTIVE.and(HealthFlags::EXCLUDED)) {
        return Health::Unknown;
    }
    if flags.has(FAILING) {
        return Health::Unhealthy;
    }
    match host.endpoint.health {
        HealthStatus::Unknown | HealthStatus::Healthy if flags.has(DEGRADED) => Health::Degraded,
        HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
        HealthStatus::Degraded => Health::Degraded,
        HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => {
            Health::Unhealthy
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_new_host_grows_into_its_weight() {
        let slow_start = SlowStart {
            window: Duration::from_secs(100),
            aggression: 1.0,
            min_weight_percent: 10.0,
        };
        let shares =
            |s: &SlowStart| [0, 5_000, 50_000, 100_000, 200_000].map(|age| grown(s, 2, age));
        assert_eq!(shares(&slow_start), [20, 20, 100, 200, 200]);
        let eager = SlowStart {
            aggression: 2.0,
            ..slow_start
        };
        assert_eq!(shares(&eager)[2], 141, "2 * sqrt(1/2)");
    }
}
