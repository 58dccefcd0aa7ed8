//! Turn-taking by weight (earliest deadline first) and the choice within one list of hosts.
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::{HostSpec, Pick};
use crate::config::cluster::LbPolicy;

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: f64,
    order: u64,
    item: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.deadline
            .total_cmp(&other.deadline)
            .then(self.order.cmp(&other.order))
    }
}

/// Earliest deadline first: an item of weight w comes up every 1/w.
#[derive(Clone, Debug, Default)]
pub struct Edf {
    heap: BinaryHeap<Reverse<Entry>>,
    weights: Vec<f64>,
    now: f64,
    order: u64,
}

impl Edf {
    /// A schedule over the items with a weight over zero. `random` moves its start, so that
    /// workers do not send in step.
    #[must_use]
    pub fn new(weights: &[f64], random: u64) -> Self {
        let mut edf = Self {
            weights: weights.to_vec(),
            ..Self::default()
        };
        for (item, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            edf.push(item, 1.0 / weight);
        }
        if !edf.heap.is_empty() {
            for _ in 0..random % (edf.heap.len() as u64 * 2) {
                edf.next(|_, weight| weight);
            }
        }
        edf
    }

    fn push(&mut self, item: usize, deadline: f64) {
        self.order += 1;
        self.heap.push(Reverse(Entry {
            deadline,
            order: self.order,
            item,
        }));
    }

    /// The next item; `weight` may change the weight it is put back with.
    pub fn next(&mut self, weight: impl FnOnce(usize, f64) -> f64) -> Option<usize> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.deadline;
        let again = weight(entry.item, self.weights[entry.item]).max(f64::MIN_POSITIVE);
        self.push(entry.item, self.now + 1.0 / again);
        Some(entry.item)
    }
}

/// A list of hosts and the state of taking turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Chooser {
    hosts: Vec<usize>,
    /// Only where weights differ.
    edf: Option<Edf>,
    turn: usize,
}

impl Chooser {
    pub(super) fn new(all: &[HostSpec], hosts: Vec<usize>, random: u64) -> Self {
        let weight = |i: &usize| f64::from(all[*i].weight.max(1));
        let equal = hosts
            .windows(2)
            .all(|w| all[w[0]].weight == all[w[1]].weight);
        let edf = (!equal).then(|| Edf::new(&hosts.iter().map(weight).collect::<Vec<_>>(), random));
        let turn = if hosts.is_empty() {
            0
        } else {
            (random % hosts.len() as u64) as usize
        };
        Self { hosts, edf, turn }
    }

    pub(super) fn choose(
        &mut self,
        policy: &LbPolicy,
        all: &[HostSpec],
        pick: &Pick<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let any = |random: &mut dyn FnMut() -> u64| {
            self.hosts
                .get((random() % (self.hosts.len() as u64).max(1)) as usize)
                .copied()
        };
        match policy {
            LbPolicy::Random => any(random),
            LbPolicy::LeastRequest { choice_count, .. } if self.edf.is_none() => {
                let mut best = any(random)?;
                for _ in 1..(*choice_count).max(2) {
                    let other = any(random)?;
                    if (pick.active)(other) < (pick.active)(best) {
                        best = other;
                    }
                }
                Some(best)
            }
            LbPolicy::LeastRequest {
                active_request_bias,
                ..
            } => {
                let hosts = &self.hosts;
                let at = self.edf.as_mut()?.next(|item, weight| {
                    let active = f64::from((pick.active)(hosts[item])) + 1.0;
                    weight / active.powf(*active_request_bias)
                })?;
                Some(self.hosts[at])
            }
            _ => match &mut self.edf {
                Some(edf) => edf.next(|_, weight| weight).map(|at| self.hosts[at]),
                None => {
                    debug_assert!(all.len() >= self.hosts.len());
                    let host = *self.hosts.get(self.turn)?;
                    self.turn = (self.turn + 1) % self.hosts.len();
                    Some(host)
                }
            },
        }
    }
}
