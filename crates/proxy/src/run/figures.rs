//! Statistics that nobody counts as they happen: what the process is and has at the moment a page
//! is asked for. They cost nothing between pages.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_proxy_core::config::cluster::CircuitBreaker;
use lateen_proxy_core::config::{Name, Snapshot};
use lateen_proxy_core::stats::{Metric, MetricValue, Scope, StatName};
use serde_json::Value;

use crate::upstream::{InFlight, Limited};

/// What the figures are taken from.
pub(super) struct Sources<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) in_flight: Vec<(Name, [Arc<InFlight>; 2])>,
    pub(super) certificates: &'a Value,
    pub(super) runtime: &'a Value,
    /// Unknown fields of the bootstrap that were taken.
    pub(super) unknown: usize,
}

fn gauge(name: StatName, value: i64, used: bool) -> Metric {
    Metric {
        name,
        value: MetricValue::Gauge(value),
        used,
    }
}

/// Size, resident and shared memory in bytes, from the kernel.
pub(crate) fn memory() -> [i64; 2] {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split(' ').filter_map(|n| n.parse::<i64>().ok());
    let mut next = || pages.next().unwrap_or(0) * 4096;
    [next(), next()]
}

/// All of them; `counted` = the series that have cells.
pub(super) fn all(from: &Sources<'_>, counted: &[Metric]) -> Vec<Metric> {
    let mut out = Vec::new();
    let server = Scope::group("server");
    let mut put = |scope: &Scope, stat: &str, value: i64| {
        out.push(gauge(scope.stat(stat), value, true));
    };
    let [size, resident] = memory();
    put(&server, "memory_allocated", resident);
    put(&server, "memory_heap_size", size);
    put(&server, "memory_physical_size", resident);
    put(&server, "total_connections", connections(counted));
    put(&server, "parent_connections", 0);
    put(&server, "hot_restart_epoch", 0);
    let days = first_expiry(from.certificates).unwrap_or(i64::from(u32::MAX));
    put(&server, "days_until_first_cert_expiring", days);
    let runtime = Scope::group("runtime");
    let count = |key: &str| match &from.runtime[key] {
        Value::Object(entries) => entries.len() as i64,
        Value::Array(layers) => layers.len() as i64,
        _ => 0,
    };
    put(&runtime, "num_keys", count("entries"));
    put(&runtime, "num_layers", count("layers"));
    put(&runtime, "admin_overrides_active", 0);
    let listeners = Scope::group("listener_manager");
    put(
        &listeners,
        "workers_started",
        from.snapshot.initialized.into(),
    );
    out.push(Metric {
        name: server.stat("static_unknown_fields"),
        value: MetricValue::Counter(from.unknown as u64),
        used: from.unknown > 0,
    });
    breakers(from, &mut out);
    out
}

/// Connections of clients, over all listeners.
fn connections(counted: &[Metric]) -> i64 {
    let of = |m: &&Metric| &*m.name.base == "listener.downstream_cx_active";
    counted
        .iter()
        .filter(of)
        .map(|m| match m.value {
            MetricValue::Gauge(n) => n,
            _ => 0,
        })
        .sum()
}

/// Days until the first certificate in use expires.
fn first_expiry(certificates: &Value) -> Option<i64> {
    let lists = certificates.as_array()?.iter().flat_map(|entry| {
        let of = |key: &str| entry[key].as_array().into_iter().flatten();
        of("ca_cert").chain(of("cert_chain"))
    });
    lists
        .filter_map(|c| c["days_until_expiration"].as_str()?.parse().ok())
        .min()
}

/// The gauges of the breakers of clusters in use.
fn breakers(from: &Sources<'_>, out: &mut Vec<Metric>) {
    let in_flight: HashMap<&Name, &[Arc<InFlight>; 2]> = from
        .in_flight
        .iter()
        .map(|(name, all)| (name, all))
        .collect();
    for (name, counts) in in_flight {
        let Some(cluster) = from.snapshot.clusters.get(name) else {
            continue;
        };
        let scope = Scope::cluster(&cluster.stat_name).sub("circuit_breakers");
        let both = [("default", 0), ("high", 1)];
        for (priority, at) in both {
            breaker(
                &scope.sub(priority),
                &cluster.circuit_breakers[at],
                &counts[at],
                out,
            );
        }
    }
}

fn breaker(scope: &Scope, limits: &CircuitBreaker, counts: &InFlight, out: &mut Vec<Metric>) {
    let retries = match limits.retry_budget {
        // The limit moves with the requests; none stands still to be shown.
        Some(_) => None,
        None => Some(limits.max_retries),
    };
    for (open, remaining, what, limit) in [
        (
            "cx_open",
            "remaining_cx",
            Limited::Connections,
            Some(limits.max_connections),
        ),
        (
            "rq_pending_open",
            "remaining_pending",
            Limited::Pending,
            Some(limits.max_pending_requests),
        ),
        (
            "rq_open",
            "remaining_rq",
            Limited::Requests,
            Some(limits.max_requests),
        ),
        (
            "rq_retry_open",
            "remaining_retries",
            Limited::Retries,
            retries,
        ),
    ] {
        let now = counts.get(what);
        // Envoy looks where the count changes: nothing is open before that, whatever the limit.
        let is_open = now > 0 && limit.is_some_and(|limit| now >= limit);
        out.push(gauge(scope.stat(open), is_open.into(), is_open));
        if let Some(limit) = limit.filter(|_| limits.track_remaining) {
            let left = limit.saturating_sub(now);
            out.push(gauge(scope.stat(remaining), left.into(), true));
        }
    }
}
