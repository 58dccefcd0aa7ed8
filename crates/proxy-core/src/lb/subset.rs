//! Subset balancing: hosts that share values of some metadata keys have a balancer of their own;
//! the route names the values.
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::spec::NAMESPACE;
use super::{Balancer, Health, HostSpec, Pick};
use crate::config::cluster::{Cluster, LocalityLb, SubsetConfig, SubsetFallback};
use crate::config::{Fields, Name, Value};

/// The metadata a route asks endpoints to have: keys and values, sorted by key.
pub type Criteria = Fields;

/// The balancers of a cluster's subsets.
#[derive(Clone, Debug)]
pub struct Subsets {
    config: Arc<SubsetConfig>,
    /// By the selector's place, then by the values of its keys in their order.
    subsets: Vec<(usize, Vec<Value>, Subset)>,
    any: Option<Subset>,
    default: Option<Subset>,
}

/// A balancer over some of the hosts.
#[derive(Clone, Debug)]
struct Subset {
    hosts: Vec<usize>,
    balancer: Balancer,
}

impl Subset {
    fn new(
        cluster: &Cluster,
        all: &[HostSpec],
        hosts: Vec<usize>,
        overprovisioning: u32,
        random: u64,
    ) -> Self {
        let specs = hosts.iter().map(|i| all[*i].clone()).collect();
        Self {
            balancer: Balancer::new(cluster, specs, overprovisioning, random),
            hosts,
        }
    }

    fn pick(&mut self, pick: &Pick<'_>, random: &mut dyn FnMut() -> u64) -> Option<usize> {
        let hosts = &self.hosts;
        let inner = Pick {
            hash: pick.hash,
            active: &|i| (pick.active)(hosts[i]),
            avoid: &|i| (pick.avoid)(hosts[i]),
            attempts: pick.attempts,
        };
        self.balancer.pick(&inner, random).map(|i| hosts[i])
    }

    fn refresh(&mut self, health: &dyn Fn(usize) -> Health, random: u64) {
        let hosts = &self.hosts;
        self.balancer.refresh(&|i| health(hosts[i]), random);
    }
}

impl Subsets {
    /// The subsets of the hosts, all healthy until [`Self::refresh`] says otherwise.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        config: &Arc<SubsetConfig>,
        hosts: &[HostSpec],
        overprovisioning: u32,
        random: u64,
    ) -> Self {
        let mut inner = cluster.clone();
        if !config.locality_weight_aware && inner.lb_common.locality == LocalityLb::Weighted {
            inner.lb_common.locality = LocalityLb::None;
        }
        let make = |list| Subset::new(&inner, hosts, list, overprovisioning, random);
        let mut lists: Vec<(usize, Vec<Value>, Vec<usize>)> = Vec::new();
        for (place, selector) in config.selectors.iter().enumerate() {
            for (index, host) in hosts.iter().enumerate() {
                for values in values_of(host, &selector.keys, config.list_as_any) {
                    match lists.binary_search_by(|(p, v, _)| order(*p, v, place, &values)) {
                        Ok(at) => lists[at].2.push(index),
                        Err(at) => lists.insert(at, (place, values, vec![index])),
                    }
                }
            }
        }
        let all = || (0..hosts.len()).collect::<Vec<_>>();
        let fallbacks = || {
            std::iter::once(config.fallback)
                .chain(config.selectors.iter().filter_map(|s| s.fallback))
        };
        let wants_any = config.panic_mode_any || fallbacks().any(|f| f == SubsetFallback::Any);
        let matching = |want: &Criteria| -> Vec<usize> {
            let have = |i: &usize| covers(&hosts[*i], want, config.list_as_any);
            all().into_iter().filter(have).collect()
        };
        let default = fallbacks()
            .any(|f| f == SubsetFallback::Default)
            .then(|| make(matching(&config.default_subset)));
        Self {
            subsets: lists
                .into_iter()
                .map(|(place, values, list)| (place, values, make(list)))
                .collect(),
            any: wants_any.then(|| make(all())),
            default,
            config: config.clone(),
        }
    }

    /// Takes new health of the hosts.
    pub fn refresh(&mut self, health: &dyn Fn(usize) -> Health, random: u64) {
        let listed = self.subsets.iter_mut().map(|(_, _, subset)| subset);
        for subset in listed.chain(&mut self.any).chain(&mut self.default) {
            subset.refresh(health, random);
        }
    }

    /// Chooses a host among those that have what is asked for, else by the fallback. `None` = no
    /// host may be used (503 UH).
    pub fn pick(
        &mut self,
        wanted: Option<&Criteria>,
        pick: &Pick<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let none = Criteria::new();
        let wanted = wanted.unwrap_or(&none);
        let config = self.config.clone();
        let place = config
            .selectors
            .iter()
            .position(|s| same_keys(&s.keys, wanted));
        let Some((place, selector)) = place.map(|p| (p, &config.selectors[p])) else {
            return self.fall_back(pick, random);
        };
        if let Some(subset) = self.find(place, wanted) {
            return subset.pick(pick, random);
        }
        match selector.fallback {
            None => self.fall_back(pick, random),
            Some(SubsetFallback::None) => None,
            Some(SubsetFallback::Any) => self.any.as_mut()?.pick(pick, random),
            Some(SubsetFallback::Default) => self.default.as_mut()?.pick(pick, random),
            Some(SubsetFallback::Keys) => {
                let fewer: Criteria = wanted
                    .iter()
                    .filter(|(key, _)| selector.fallback_keys.contains(*key))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                // Fewer keys each time (checked when the configuration is read): this ends.
                self.pick(Some(&fewer), pick, random)
            }
        }
    }

    fn find(&mut self, place: usize, wanted: &Criteria) -> Option<&mut Subset> {
        let found = self.subsets.binary_search_by(|(p, have, _)| {
            p.cmp(&place).then_with(|| {
                let pairs = have.iter().zip(wanted.values());
                pairs.fold(Ordering::Equal, |o, (a, b)| o.then_with(|| compare(a, b)))
            })
        });
        found.ok().map(|at| &mut self.subsets[at].2)
    }

    fn fall_back(&mut self, pick: &Pick<'_>, random: &mut dyn FnMut() -> u64) -> Option<usize> {
        let subset = match self.config.fallback {
            SubsetFallback::Any => self.any.as_mut(),
            SubsetFallback::Default => self.default.as_mut(),
            SubsetFallback::None | SubsetFallback::Keys => return None,
        };
        let chosen = subset.and_then(|s| s.pick(pick, random));
        if chosen.is_some() || !self.config.panic_mode_any {
            return chosen;
        }
        self.any.as_mut()?.pick(pick, random)
    }
}

fn same_keys(keys: &BTreeSet<Name>, wanted: &Criteria) -> bool {
    keys.len() == wanted.len() && keys.iter().eq(wanted.keys())
}

fn order(place: usize, values: &[Value], other: usize, others: &[Value]) -> Ordering {
    place.cmp(&other).then_with(|| {
        let pairs = values.iter().zip(others);
        pairs.fold(Ordering::Equal, |o, (a, b)| o.then_with(|| compare(a, b)))
    })
}

/// The values of a host for the keys; none where it lacks one, several where a list stands for
/// each of its values.
fn values_of(host: &HostSpec, keys: &BTreeSet<Name>, list_as_any: bool) -> Vec<Vec<Value>> {
    let mut all = vec![Vec::new()];
    for key in keys {
        let found = host.metadata.get(NAMESPACE).and_then(|m| m.path([key]));
        let choices = match found {
            Some(Value::List(list)) if list_as_any => list.clone(),
            Some(value) => vec![value.clone()],
            None => return Vec::new(),
        };
        all = all
            .iter()
            .flat_map(|start: &Vec<Value>| {
                choices.iter().map(|value| {
                    let mut values = start.clone();
                    values.push(value.clone());
                    values
                })
            })
            .collect();
    }
    all
}

fn covers(host: &HostSpec, want: &Criteria, list_as_any: bool) -> bool {
    want.iter().all(
        |(key, value)| match host.metadata.get(NAMESPACE).and_then(|m| m.path([key])) {
            Some(Value::List(list)) if list_as_any => {
                list.contains(value) || *value == Value::List(list.clone())
            }
            Some(have) => have == value,
            None => false,
        },
    )
}

/// Any total order that agrees with equality.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::List(_) => 4,
        Value::Struct(_) => 5,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b).unwrap_or_else(|| a.total_cmp(b)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::List(a), Value::List(b)) => by_parts(a.iter().zip(b), a.len().cmp(&b.len())),
        (Value::Struct(a), Value::Struct(b)) => {
            let keys = a.keys().cmp(b.keys());
            by_parts(a.values().zip(b.values()), keys)
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn by_parts<'a>(
    mut pairs: impl Iterator<Item = (&'a Value, &'a Value)>,
    first: Ordering,
) -> Ordering {
    first.then_with(|| {
        let unequal = pairs.find_map(|(a, b)| Some(compare(a, b)).filter(|o| o.is_ne()));
        unequal.unwrap_or(Ordering::Equal)
    })
}
