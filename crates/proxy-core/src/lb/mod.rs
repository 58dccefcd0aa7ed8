//! Load balancing: priorities, panic, localities, and the choice of a host, as state per worker and
//! cluster over the indexes of a host list. Health, load and randomness come from the caller.
mod hash;
mod load;
mod schedule;
mod spec;
mod subset;

pub use hash::{Maglev, Ring, murmur2_64a};
pub use load::{PriorityHealth, PriorityLoad, priority_load};
pub use schedule::Edf;
pub use spec::{HostSpec, Place, specs};
pub use subset::{Criteria, Subsets};

use crate::config::cluster::{Cluster, LbCommon, LbPolicy, LocalityLb};
use hash::Table;
use schedule::Chooser;

/// Health of a host as the balancer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes traffic.
    Healthy,
    /// Takes traffic after the healthy ones.
    Degraded,
    /// Takes traffic only in panic.
    Unhealthy,
    /// Not looked at yet: as unhealthy, and not counted when the share of
    /// healthy hosts is.
    Unknown,
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
        let mut counted = vec![0; count];
        let mut uncounted = vec![false; self.hosts.len()];
        for (i, host) in self.hosts.iter().enumerate() {
            let list = &mut lists[host.priority as usize];
            match health(i) {
                Health::Healthy => list[0].push(i),
                Health::Degraded => list[1].push(i),
                Health::Unhealthy => {}
                Health::Unknown => uncounted[i] = true,
            }
            counted[host.priority as usize] += usize::from(!uncounted[i]);
            list[2].push(i);
        }
        self.priorities = lists
            .into_iter()
            .zip(counted)
            .map(|([healthy, degraded, all], total)| {
                let of: Vec<usize> = all.iter().filter(|i| !uncounted[**i]).copied().collect();
                Priority {
                    counts: PriorityHealth {
                        healthy: healthy.len(),
                        degraded: degraded.len(),
                        total,
                    },
                    healthy: self.set(healthy, &of, random),
                    degraded: self.set(degraded, &of, random),
                    all: self.flat(all, random),
                }
            })
            .collect();
        let counts: Vec<_> = self.priorities.iter().map(|p| p.counts).collect();
        self.load = priority_load(
            &counts,
            self.overprovisioning,
            self.common.healthy_panic_threshold,
        );
    }

    /// All hosts of a priority, for panic: localities play no part.
    fn flat(&self, hosts: Vec<usize>, random: u64) -> Set {
        let shares = self.shares(&hosts);
        let table = Table::new(&self.policy, &self.hosts, &shares);
        let choosers = match &table {
            Some(_) => vec![],
            None => vec![Chooser::new(&self.hosts, hosts, random)],
        };
        Set {
            localities: None,
            choosers,
            table,
        }
    }

    /// The shares of hosts in a hash table: by weight, and where localities are
    /// weighted by the locality's weight first.
    fn shares(&self, hosts: &[usize]) -> Vec<(usize, f64)> {
        let weight = |i: &usize| f64::from(self.hosts[*i].weight.max(1));
        let of = |list: &[usize], share: f64| -> Vec<(usize, f64)> {
            let total: f64 = list.iter().map(weight).sum();
            list.iter()
                .map(|i| (*i, share * weight(i) / total))
                .collect()
        };
        let by_locality = self.by_locality(hosts);
        let total: f64 = by_locality.iter().map(|(w, _)| w).sum();
        if self.common.locality != LocalityLb::Weighted || total <= 0.0 {
            return of(hosts, 1.0);
        }
        by_locality
            .iter()
            .filter(|(weight, _)| *weight > 0.0)
            .flat_map(|(weight, list)| of(list, weight / total))
            .collect()
    }

    /// Hosts by locality in the order of localities, with its weight.
    fn by_locality(&self, hosts: &[usize]) -> Vec<(f64, Vec<usize>)> {
        let mut lists: std::collections::BTreeMap<u32, Vec<usize>> = Default::default();
        for i in hosts {
            lists.entry(self.hosts[*i].locality).or_default().push(*i);
        }
        let weight = |list: &[usize]| f64::from(self.hosts[list[0]].locality_weight.unwrap_or(0));
        let lists = lists.into_values();
        lists.map(|list| (weight(&list), list)).collect()
    }

    /// The chooser over the hosts of one health; `of` is every host that counts,
    /// for locality availability.
    fn set(&self, hosts: Vec<usize>, of: &[usize], random: u64) -> Set {
        if self.hashes() || self.common.locality != LocalityLb::Weighted {
            return self.flat(hosts, random);
        }
        let mut totals: std::collections::BTreeMap<u32, usize> = Default::default();
        for i in of {
            *totals.entry(self.hosts[*i].locality).or_default() += 1;
        }
        let by_locality = self.by_locality(&hosts);
        let weights: Vec<f64> = by_locality
            .iter()
            .map(|(weight, list)| {
                let total = totals.get(&self.hosts[list[0]].locality).copied();
                let available = list.len() as f64 / total.unwrap_or(0).max(1) as f64
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
            vec![Chooser::new(&self.hosts, hosts, random)]
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
        // A consistent hash keeps its priority as well as its host.
        let hash = self
            .hashes()
            .then(|| pick.hash.unwrap_or_else(&mut *random));
        for attempt in 0..pick.attempts.max(1) {
            let place = hash.unwrap_or_else(&mut *random) % 100;
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
            let host = match (&set.table, hash) {
                (Some(table), Some(hash)) => table.choose(hash, attempt)?,
                _ => set.choose(&self.policy, &self.hosts, pick, random)?,
            };
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
