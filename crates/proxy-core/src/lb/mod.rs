//! Load balancing: priorities, panic, localities, and the choice of a host, as state per worker and
//! cluster over the indexes of a host list. Health, load and randomness come from the caller.
mod hash;
mod load;
mod schedule;

pub use hash::{Maglev, Ring, murmur2_64a};
pub use load::{PriorityHealth, PriorityLoad, priority_load};
pub use schedule::Edf;

use crate::config::cluster::{Cluster, LbCommon, LbPolicy, LocalityLb};
use hash::Table;
use schedule::Chooser;

/// What the balancer knows of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    /// Priority, 0 is best.
    pub priority: u32,
    /// Index of its locality in the assignment.
    pub locality: u32,
    /// Weight of that locality; none = not given.
    pub locality_weight: Option<u32>,
    /// Weight, at least 1.
    pub weight: u32,
    /// What consistent hashing hashes: `ip:port`, or the host name where so configured.
    pub hash_key: String,
}

/// Health of a host as the balancer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes traffic.
    Healthy,
    /// Takes traffic after the healthy ones.
    Degraded,
    /// Takes traffic only in panic.
    Unhealthy,
}

/// What a choice looks at.
pub struct Pick<'a> {
    /// Hash of the request, for consistent hashing.
    pub hash: Option<u64>,
    /// Requests in flight to a host.
    pub active: &'a dyn Fn(usize) -> u32,
    /// Hosts to avoid (tried before); tried again when nothing else is left.
    pub avoid: &'a dyn Fn(usize) -> bool,
    /// How often to choose anew when a host is to be avoided.
    pub attempts: u32,
}

/// The balancer of one cluster in one worker.
#[derive(Clone, Debug)]
pub struct Balancer {
    policy: LbPolicy,
    common: LbCommon,
    overprovisioning: u32,
    hosts: Vec<HostSpec>,
    priorities: Vec<Priority>,
    load: PriorityLoad,
}

/// Choosers of one priority: over healthy hosts, degraded ones, and all (panic).
#[derive(Clone, Debug, Default)]
struct Priority {
    healthy: Set,
    degraded: Set,
    all: Set,
    counts: PriorityHealth,
}

/// Hosts to choose from, cut by locality where that plays a part.
#[derive(Clone, Debug, Default)]
struct Set {
    localities: Option<Edf>,
    choosers: Vec<Chooser>,
    table: Option<Table>,
}

impl Balancer {
    /// A balancer over hosts, all healthy until [`Self::refresh`] says otherwise.
    /// `overprovisioning` is the assignment's factor in percent (140 by default).
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        hosts: Vec<HostSpec>,
        overprovisioning: u32,
        random: u64,
    ) -> Self {
        let mut balancer = Self {
            policy: cluster.lb_policy.clone(),
            common: cluster.lb_common.clone(),
            overprovisioning: if overprovisioning == 0 {
                140
            } else {
                overprovisioning
            },
            hosts,
            priorities: Vec::new(),
            load: PriorityLoad::default(),
        };
        balancer.refresh(&|_| Health::Healthy, random);
        balancer
    }

    /// Number of hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there is no host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Takes new health of the hosts. `random` places the start of turn-taking.
    pub fn refresh(&mut self, health: &dyn Fn(usize) -> Health, random: u64) {
        let count = self
            .hosts
            .iter()
            .map(|h| h.priority as usize + 1)
            .max()
            .unwrap_or(0);
        let mut lists: Vec<[Vec<usize>; 3]> = vec![Default::default(); count];
        for (i, host) in self.hosts.iter().enumerate() {
            let list = &mut lists[host.priority as usize];
            match health(i) {
                Health::Healthy => list[0].push(i),
                Health::Degraded => list[1].push(i),
                Health::Unhealthy => {}
            }
            list[2].push(i);
        }
        self.priorities = lists
            .into_iter()
            .map(|[healthy, degraded, all]| Priority {
                counts: PriorityHealth {
                    healthy: healthy.len(),
                    degraded: degraded.len(),
                    total: all.len(),
                },
                healthy: self.set(healthy, Some(&all), random),
                degraded: self.set(degraded, Some(&all), random),
                all: self.set(all, None, random),
            })
            .collect();
        let counts: Vec<_> = self.priorities.iter().map(|p| p.counts).collect();
        self.load = priority_load(
            &counts,
            self.overprovisioning,
            self.common.healthy_panic_threshold,
        );
    }

    /// The chooser over some hosts; `of` is the whole priority, for locality availability.
    fn set(&self, hosts: Vec<usize>, of: Option<&[usize]>, random: u64) -> Set {
        if let Some(table) = Table::new(&self.policy, &self.hosts, &hosts) {
            return Set {
                table: Some(table),
                ..Set::default()
            };
        }
        if self.common.locality != LocalityLb::Weighted {
            return Set {
                choosers: vec![Chooser::new(&self.hosts, hosts, random)],
                ..Set::default()
            };
        }
        let mut by_locality: Vec<(u32, Vec<usize>)> = Vec::new();
        for i in hosts {
            let locality = self.hosts[i].locality;
            match by_locality.iter_mut().find(|(l, _)| *l == locality) {
                Some((_, list)) => list.push(i),
                None => by_locality.push((locality, vec![i])),
            }
        }
        let weights: Vec<f64> = by_locality
            .iter()
            .map(|(locality, list)| {
                let weight = f64::from(self.hosts[list[0]].locality_weight.unwrap_or(0));
                let total = of.map_or(list.len(), |of| {
                    of.iter()
                        .filter(|i| self.hosts[**i].locality == *locality)
                        .count()
                });
                let available = list.len() as f64 / total.max(1) as f64
                    * f64::from(self.overprovisioning)
                    / 100.0;
                weight * available.min(1.0)
            })
            .collect();
        let weighted = weights.iter().any(|w| *w > 0.0);
        let choosers = if weighted {
            by_locality
                .into_iter()
                .map(|(_, list)| Chooser::new(&self.hosts, list, random))
                .collect()
        } else {
            vec![Chooser::new(
                &self.hosts,
                by_locality.into_iter().flat_map(|(_, l)| l).collect(),
                random,
            )]
        };
        Set {
            localities: weighted.then(|| Edf::new(&weights, random)),
            choosers,
            table: None,
        }
    }

    /// Chooses a host. `None` = no host may be used (503 UH).
    pub fn pick(&mut self, pick: &Pick<'_>, random: &mut dyn FnMut() -> u64) -> Option<usize> {
        let mut last = None;
        for _ in 0..pick.attempts.max(1) {
            let draw = random();
            // A consistent hash keeps its priority as well as its host.
            let place = pick.hash.filter(|_| self.hashes()).unwrap_or(draw) % 100;
            let (priority, degraded) = self.load.choose(place)?;
            let panic = self.load.panic[priority];
            if panic && self.common.fail_traffic_on_panic {
                return None;
            }
            let level = &mut self.priorities[priority];
            let set = match (panic, degraded) {
                (true, _) => &mut level.all,
                (false, true) => &mut level.degraded,
                (false, false) => &mut level.healthy,
            };
            let host = set.choose(&self.policy, &self.hosts, pick, random)?;
            if !(pick.avoid)(host) {
                return Some(host);
            }
            last = Some(host);
        }
        last
    }

    fn hashes(&self) -> bool {
        matches!(
            self.policy,
            LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }
        )
    }

    /// The load of each priority, for tests and the admin pages.
    #[must_use]
    pub fn load(&self) -> &PriorityLoad {
        &self.load
    }
}

impl Set {
    fn choose(
        &mut self,
        policy: &LbPolicy,
        hosts: &[HostSpec],
        pick: &Pick<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        if let Some(table) = &self.table {
            return table.choose(pick.hash.unwrap_or_else(random));
        }
        let at = match &mut self.localities {
            Some(edf) => edf.next(|_, weight| weight)?,
            None => 0,
        };
        self.choosers
            .get_mut(at)?
            .choose(policy, hosts, pick, random)
    }
}

#[cfg(test)]
mod tests;
