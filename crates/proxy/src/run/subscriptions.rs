//! The statistics of subscriptions to route tables, endpoints and secrets, taken from the ADS client's
//! tally and the world when a page is asked for.

use std::collections::{BTreeMap, BTreeSet};

use lateen_proxy_core::config::{ClusterDiscovery, Name, NetworkFilter, RouteSource, Snapshot};
use lateen_proxy_core::stats::{Metric, MetricValue, Scope};
use lateen_proxy_xds::ads::{Subscribed, Tally};
use lateen_proxy_xds::kind::Kind;
use lateen_proxy_xds::world::SecretUpdates;

/// All of them, under the names of Envoy: `http.<prefix>.rds.<table>` for each connection manager
/// that uses a table, `cluster.<name>` for each cluster.
pub(super) fn all(snapshot: &Snapshot, tally: &Tally) -> Vec<Metric> {
    let mut out = Vec::new();
    for (prefix, table) in tables(snapshot) {
        if let Some(found) = tally.get(Kind::Routes, table) {
            let scope = Scope::http(prefix).tag("rds", "envoy.rds_route_config", table);
            updates(&scope, &found, &mut out);
            let changes = MetricValue::Counter(found.changes);
            push(&scope, "config_reload", changes, &mut out);
            let changed = MetricValue::Gauge(found.changed_ms as i64);
            push(&scope, "config_reload_time_ms", changed, &mut out);
        }
    }
    for cluster in snapshot.clusters.values() {
        if let ClusterDiscovery::Eds { service_name } = &cluster.discovery
            && let Some(found) = tally.get(Kind::Endpoints, service_name)
        {
            updates(&Scope::cluster(&cluster.stat_name), &found, &mut out);
        }
    }
    out
}

/// Prefixes of connection managers with the tables they ask for, each pair once.
fn tables(snapshot: &Snapshot) -> BTreeSet<(&str, &str)> {
    let listeners = snapshot.listeners.values();
    let chains = listeners.flat_map(|l| l.filter_chains.iter().chain(&l.default_filter_chain));
    let filters = chains.flat_map(|chain| &chain.filters);
    filters.filter_map(table).collect()
}

/// The prefix of a connection manager and the table it asks for.
fn table(filter: &NetworkFilter) -> Option<(&str, &str)> {
    match filter {
        NetworkFilter::HttpConnectionManager(manager) => match &manager.routes {
            RouteSource::Rds(name) => Some((&*manager.stat_prefix, &**name)),
            RouteSource::Inline(_) => None,
        },
        _ => None,
    }
}

/// Those of secrets, wherever they come from: `sds.<name>`.
pub(super) fn secrets(updates: &BTreeMap<Name, SecretUpdates>) -> Vec<Metric> {
    let mut out = Vec::new();
    for (name, found) in updates {
        let scope = Scope::group("sds").sub(name);
        for (stat, count) in [
            ("init_fetch_timeout", found.timed_out),
            ("update_attempt", found.attempts),
            ("update_failure", found.failed),
            ("update_rejected", found.rejected),
            ("update_success", found.accepted),
        ] {
            push(&scope, stat, MetricValue::Counter(count), &mut out);
        }
        let at = MetricValue::Gauge(found.updated_ms as i64);
        push(&scope, "update_time", at, &mut out);
    }
    out
}

fn updates(scope: &Scope, found: &Subscribed, out: &mut Vec<Metric>) {
    for (stat, count) in [
        ("update_attempt", found.attempts()),
        ("update_success", found.accepted),
        ("update_rejected", found.rejected),
        ("update_failure", found.failed),
    ] {
        push(scope, stat, MetricValue::Counter(count), out);
    }
    let at = MetricValue::Gauge(found.updated_ms as i64);
    push(scope, "update_time", at, out);
}

fn push(scope: &Scope, stat: &str, value: MetricValue, out: &mut Vec<Metric>) {
    let used = !matches!(value, MetricValue::Counter(0) | MetricValue::Gauge(0));
    let name = scope.stat(stat);
    out.push(Metric { name, value, used });
}
