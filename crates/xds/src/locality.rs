//! Locality load balancing: shares by `distribute`, priorities by `failover` and
//! `failoverPriority`. Priorities need outlier detection, else nothing would ever fail over.

use std::collections::BTreeMap;

use lateen_model::policy::LocalityLb;
use lateen_model::{Endpoint, Labels, Locality, TrafficPolicy};
use lateen_xds_proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};

use crate::context::Context;
use crate::wire;

/// Applies the locality rules in force. `raw` holds the model's endpoints in the order of
/// the load assignment.
pub fn apply(
    cx: &Context<'_>,
    policy: &TrafficPolicy,
    raw: &BTreeMap<Locality, Vec<&Endpoint>>,
    out: &mut ClusterLoadAssignment,
) {
    let rule = policy
        .load_balancer
        .as_ref()
        .and_then(|l| l.locality.clone())
        .unwrap_or_default();
    let enabled = rule.enabled.unwrap_or(cx.snapshot.mesh.locality_lb_enabled);
    if !enabled || cx.key.locality.is_empty() {
        return;
    }
    if !rule.distribute.is_empty() {
        distribute(&cx.key.locality, &rule, out);
    } else if policy.outlier_detection.is_some() {
        if rule.failover_priority.is_empty() {
            failover(&cx.key.locality, &rule, out);
        } else {
            by_labels(&cx.key.labels, &rule.failover_priority, raw, out);
        }
    }
}

fn locality_of(group: &LocalityLbEndpoints) -> Locality {
    let l = group.locality.clone().unwrap_or_default();
    Locality {
        region: l.region.as_str().into(),
        zone: l.zone.as_str().into(),
        sub_zone: l.sub_zone.as_str().into(),
    }
}

/// True when a pattern such as `region/zone/*` or `region` covers a locality.
fn covers(pattern: &str, l: &Locality) -> bool {
    let parts = [&*l.region, &*l.zone, &*l.sub_zone];
    for (want, have) in pattern.split('/').zip(parts) {
        if want == "*" {
            return true;
        }
        if want != have {
            return false;
        }
    }
    true
}

/// Shares by the first rule whose `from` covers the proxy; localities without a share leave.
fn distribute(own: &Locality, rule: &LocalityLb, out: &mut ClusterLoadAssignment) {
    let Some((_, to)) = rule.distribute.iter().find(|(from, _)| covers(from, own)) else {
        return;
    };
    let mut kept: Vec<LocalityLbEndpoints> = Vec::new();
    for (pattern, share) in to {
        let mut members: Vec<LocalityLbEndpoints> = Vec::new();
        out.endpoints.retain(|g| {
            let hit = covers(pattern, &locality_of(g));
            if hit {
                members.push(g.clone());
            }
            !hit
        });
        let endpoints: usize = members.iter().map(|g| g.lb_endpoints.len()).sum();
        for mut g in members {
            // The share of a pattern is split among its localities by endpoint count.
            let part = f64::from(*share) * g.lb_endpoints.len() as f64 / endpoints.max(1) as f64;
            g.load_balancing_weight = wire::u32_value((part.round() as u32).max(1));
            kept.push(g);
        }
    }
    out.endpoints = kept;
}

/// 0 same sub-zone, 1 same zone, 2 same region, 3 failover region or other, 4 the rest.
fn rank(own: &Locality, other: &Locality, rule: &LocalityLb) -> u32 {
    if own.region != other.region {
        let to = rule.failover.iter().find(|(from, _)| *from == own.region);
        return match to {
            Some((_, to)) if *to != other.region => 4,
            _ => 3,
        };
    }
    if own.zone != other.zone {
        2
    } else {
        u32::from(own.sub_zone != other.sub_zone)
    }
}

fn failover(own: &Locality, rule: &LocalityLb, out: &mut ClusterLoadAssignment) {
    for group in &mut out.endpoints {
        group.priority = rank(own, &locality_of(group), rule);
    }
    squeeze(out);
}

/// Priority of an endpoint: how many leading labels of the list it shares with the proxy.
fn by_labels(
    own: &Labels,
    order: &[lateen_model::Str],
    raw: &BTreeMap<Locality, Vec<&Endpoint>>,
    out: &mut ClusterLoadAssignment,
) {
    let mut groups: Vec<LocalityLbEndpoints> = Vec::new();
    for (group, models) in out.endpoints.iter().zip(raw.values()) {
        let mut split: BTreeMap<u32, LocalityLbEndpoints> = BTreeMap::new();
        for (endpoint, model) in group.lb_endpoints.iter().zip(models) {
            let shared = order
                .iter()
                .take_while(|entry| {
                    let (key, fixed) = match entry.split_once('=') {
                        Some((k, v)) => (k, Some(v)),
                        None => (&***entry, None),
                    };
                    let want = fixed.or_else(|| own.get(key).map(|v| &**v));
                    want.is_some() && model.labels.get(key).map(|v| &**v) == want
                })
                .count();
            let priority = u32::try_from(order.len() - shared).unwrap_or(u32::MAX);
            let to = split
                .entry(priority)
                .or_insert_with(|| LocalityLbEndpoints {
                    locality: group.locality.clone(),
                    priority,
                    ..LocalityLbEndpoints::default()
                });
            to.lb_endpoints.push(endpoint.clone());
            let weight = endpoint
                .load_balancing_weight
                .as_ref()
                .map_or(1, |w| w.value);
            let sum = to.load_balancing_weight.as_ref().map_or(0, |w| w.value);
            to.load_balancing_weight = wire::u32_value(sum.saturating_add(weight));
        }
        groups.extend(split.into_values());
    }
    groups.sort_by_key(|g| g.priority);
    out.endpoints = groups;
    squeeze(out);
}

/// Makes priorities 0, 1, 2... without gaps, as Envoy demands.
fn squeeze(out: &mut ClusterLoadAssignment) {
    let mut used: Vec<u32> = out.endpoints.iter().map(|g| g.priority).collect();
    used.sort_unstable();
    used.dedup();
    for g in &mut out.endpoints {
        g.priority = used
            .iter()
            .position(|p| *p == g.priority)
            .map_or(0, |i| i as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_ranks() {
        let l = |s: &str| Locality::parse(s);
        assert!(covers("a/*", &l("a/b")) && covers("a", &l("a/b/c")) && covers("*", &l("z")));
        assert!(!covers("a/c", &l("a/b")));
        let rule = LocalityLb {
            failover: vec![("a".into(), "b".into())],
            ..LocalityLb::default()
        };
        let own = l("a/1/x");
        let ranks: Vec<u32> = ["a/1/x", "a/1/y", "a/2", "b/1", "c/1"]
            .into_iter()
            .map(|s| rank(&own, &l(s), &rule))
            .collect();
        assert_eq!(ranks, [0, 1, 2, 3, 4]);
    }
}
