//! Deployment arithmetic: how many pods each replica set should have next. Pure.
//!
//! Rules: maxSurge percent rounds up, maxUnavailable down, both zero means one unavailable; the
//! total never exceeds replicas + surge; available never falls under replicas - unavailable while
//! healthy pods are removed (unhealthy ones go first).

use serde_json::Value;

use crate::controllers::object::{int, text};

/// What the arithmetic needs to know of one replica set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetView {
    /// `spec.replicas`.
    pub replicas: i64,
    /// `status.availableReplicas`.
    pub available: i64,
    /// Annotation `deployment.kubernetes.io/max-replicas`: the ceiling when it was last scaled.
    pub max_annotation: Option<i64>,
}

/// The resolved numbers of a deployment's strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `spec.replicas`.
    pub replicas: i64,
    /// Pods allowed over `replicas`.
    pub surge: i64,
    /// Pods that may be unavailable.
    pub unavailable: i64,
}

impl Limits {
    /// Resolves `spec.replicas` and `spec.strategy`; Recreate has no surge and no floor.
    pub fn of(deployment: &Value) -> Self {
        let replicas = int(deployment, "/spec/replicas").unwrap_or(1).max(0);
        if text(deployment, "/spec/strategy/type") == "Recreate" {
            return Self {
                replicas,
                surge: 0,
                unavailable: replicas,
            };
        }
        let rolling = deployment.pointer("/spec/strategy/rollingUpdate");
        let field = |key: &str| rolling.and_then(|r| r.get(key));
        let surge = resolve(field("maxSurge"), replicas, true);
        let mut unavailable = resolve(field("maxUnavailable"), replicas, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self {
            replicas,
            surge,
            unavailable: unavailable.min(replicas),
        }
    }

    /// The ceiling of pods over all sets; zero when scaled to zero.
    pub fn ceiling(self) -> i64 {
        if self.replicas == 0 {
            0
        } else {
            self.replicas + self.surge
        }
    }
}

/// An int-or-percent of `total`; absent or malformed reads as 25 %.
pub fn resolve(value: Option<&Value>, total: i64, round_up: bool) -> i64 {
    let percent = match value {
        Some(Value::Number(n)) => return n.as_i64().unwrap_or(0).max(0),
        Some(Value::String(s)) => s.trim_end_matches('%').parse::<i64>().unwrap_or(25).max(0),
        _ => 25,
    };
    let scaled = total.saturating_mul(percent);
    if round_up {
        (scaled + 99) / 100
    } else {
        scaled / 100
    }
}

/// The next size of the new set in a rolling update.
pub fn next_new(limits: Limits, new: &SetView, old: &[SetView]) -> i64 {
    if new.replicas >= limits.replicas {
        return limits.replicas;
    }
    let total: i64 = new.replicas + old.iter().map(|s| s.replicas).sum::<i64>();
    let room = limits.replicas + limits.surge - total;
    new.replicas + room.clamp(0, limits.replicas - new.replicas)
}

/// The next sizes of the old sets (oldest first) in a rolling update.
///
/// Unhealthy pods of old sets are removed first: they serve nobody, so they never block progress.
pub fn next_old(limits: Limits, new: &SetView, old: &[SetView]) -> Vec<i64> {
    let mut sizes: Vec<i64> = old.iter().map(|s| s.replicas).collect();
    let floor = limits.replicas - limits.unavailable;
    let total = new.replicas + sizes.iter().sum::<i64>();
    let new_unavailable = (new.replicas - new.available).max(0);
    let mut may_remove = total - floor - new_unavailable;
    if may_remove <= 0 {
        return sizes;
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let cut = (*size - set.available).clamp(0, may_remove);
        *size -= cut;
        may_remove -= cut;
    }
    let available = new.available + old.iter().map(|s| s.available).sum::<i64>();
    let mut surplus = available - floor;
    for size in &mut sizes {
        let cut = (*size).clamp(0, surplus.max(0));
        *size -= cut;
        surplus -= cut;
    }
    sizes
}

/// New sizes when the deployment was scaled in the middle of a rollout: the change is shared among
/// the sets in proportion to their size, the remainder goes to the first.
///
/// `sets` are all sets with pods, newest first. Returns sizes in the same order.
pub fn proportional(limits: Limits, sets: &[SetView]) -> Vec<i64> {
    let mut sizes: Vec<i64> = sets.iter().map(|s| s.replicas).collect();
    let change = limits.ceiling() - sizes.iter().sum::<i64>();
    if change == 0 {
        return sizes;
    }
    // Growing prefers big sets and, among equals, new ones; shrinking prefers big and old ones.
    let mut order: Vec<usize> = (0..sets.len()).collect();
    order.sort_by_key(|&i| {
        let tie = if change > 0 { i as i64 } else { -(i as i64) };
        (-sets[i].replicas, tie)
    });
    let mut left = change;
    for &i in &order {
        let before = sets[i]
            .max_annotation
            .filter(|m| *m > 0)
            .unwrap_or(limits.replicas.max(1));
        let share = if limits.replicas == 0 {
            -sets[i].replicas
        } else {
            let target = sets[i].replicas as f64 * limits.ceiling() as f64 / before as f64;
            target.round() as i64 - sets[i].replicas
        };
        let share = if change > 0 {
            share.clamp(0, left)
        } else {
            share.clamp(left, 0)
        };
        sizes[i] += share;
        left -= share;
    }
    if let Some(&first) = order.first() {
        sizes[first] = (sizes[first] + left).max(0);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i64, available: i64) -> SetView {
        SetView {
            replicas,
            available,
            max_annotation: None,
        }
    }

    fn limits(replicas: i64, surge: i64, unavailable: i64) -> Limits {
        Limits {
            replicas,
            surge,
            unavailable,
        }
    }

    #[test]
    fn percents_round_surge_up_and_unavailable_down() {
        let of = |r: i64, s: Value, u: Value| {
            Limits::of(
                &json!({"spec": {"replicas": r, "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": s, "maxUnavailable": u}}}}),
            )
        };
        assert_eq!(of(10, json!("25%"), json!("25%")), limits(10, 3, 2));
        assert_eq!(of(1, json!("25%"), json!("25%")), limits(1, 1, 0));
        assert_eq!(of(3, json!(0), json!(0)), limits(3, 0, 1));
        assert_eq!(of(3, json!(0), json!(9)), limits(3, 0, 3));
        assert_eq!(
            Limits::of(&json!({"spec": {"replicas": 4}})),
            limits(4, 1, 1)
        );
    }

    #[test]
    fn one_replica_surges_then_removes() {
        let l = limits(1, 1, 0);
        assert_eq!(next_new(l, &set(0, 0), &[set(1, 1)]), 1);
        assert_eq!(next_old(l, &set(1, 0), &[set(1, 1)]), [1]);
        assert_eq!(next_old(l, &set(1, 1), &[set(1, 1)]), [0]);
    }

    #[test]
    fn bounds_hold_at_every_step_of_any_rollout() {
        for replicas in 0..7 {
            for surge in 0..4 {
                for unavailable in 0..4 {
                    if surge == 0 && unavailable == 0 {
                        continue;
                    }
                    walk(limits(replicas, surge, unavailable.min(replicas)));
                }
            }
        }
    }

    fn walk(l: Limits) {
        let (mut new, mut old) = (set(0, 0), vec![set(l.replicas, l.replicas)]);
        for _ in 0..100 {
            let grown = next_new(l, &new, &old);
            if grown == new.replicas {
                let sizes = next_old(l, &new, &old);
                for (set, size) in old.iter_mut().zip(sizes) {
                    set.replicas = size;
                    set.available = set.available.min(size);
                }
            }
            new.replicas = grown;
            let total = new.replicas + old[0].replicas;
            assert!(total <= l.replicas + l.surge, "{l:?}: {total} pods");
            let available = new.available + old[0].available;
            assert!(
                available >= l.replicas - l.unavailable,
                "{l:?}: {available} available"
            );
            new.available = (new.available + 1).min(new.replicas);
        }
        assert_eq!((new.replicas, old[0].replicas), (l.replicas, 0), "{l:?}");
    }

    #[test]
    fn broken_old_pods_go_first_and_a_broken_rollout_keeps_the_old() {
        let l = limits(3, 1, 1);
        assert_eq!(next_old(l, &set(1, 0), &[set(1, 0), set(2, 2)]), [0, 2]);
        // The new set never becomes available: two old pods stay.
        assert_eq!(next_old(l, &set(2, 0), &[set(2, 2)]), [2]);
    }

    #[test]
    fn scaling_in_a_rollout_keeps_proportions() {
        let view = |replicas| SetView {
            replicas,
            available: 0,
            max_annotation: Some(13),
        };
        // 10 replicas with surge 3 split 5 / 8, scaled to 15 (ceiling 18).
        let sizes = proportional(limits(15, 3, 2), &[view(5), view(8)]);
        assert_eq!(sizes.iter().sum::<i64>(), 18);
        assert_eq!(sizes, [7, 11]);
        assert_eq!(proportional(limits(0, 1, 0), &[view(5), view(8)]), [0, 0]);
    }
}
