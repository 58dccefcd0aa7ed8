//! `/clusters`: every cluster with its limits and hosts, as text lines or JSON.

use std::collections::HashMap;
use std::fmt::Write as _;

use lateen_proxy_core::config::cluster::CircuitBreaker;
use lateen_proxy_core::config::{
    Address, Cluster, ClusterDiscovery, Endpoint, HealthStatus, Locality, Snapshot, Value as Meta,
};
use lateen_proxy_core::regex::{RegexError, Search};
use serde_json::{Value, json};

use super::query::Query;
use super::{HostStats, State};
use crate::upstream::health::HealthFlags;

/// Which clusters are asked for.
pub struct Wanted(Option<Search>);

impl Wanted {
    /// By `?filter=`, a pattern that is looked for in the name.
    pub fn of(query: &Query) -> Result<Self, String> {
        let pattern = query.get("filter").map(Search::new).transpose();
        let refused = |error: RegexError| format!("filter is no regular expression: {error}\n");
        Ok(Self(pattern.map_err(refused)?))
    }

    fn has(&self, cluster: &Cluster) -> bool {
        let filter = self.0.as_ref();
        filter.is_none_or(|filter| filter.is_in(&cluster.name))
    }
}

/// The text form: `name::key::value` lines.
pub fn text(state: &dyn State, wanted: &Wanted) -> String {
    let snapshot = state.snapshot();
    let mut out = String::new();
    for cluster in sorted(&snapshot.clusters).filter(|c| wanted.has(c)) {
        let name = &cluster.name;
        line(&mut out, name, "observability_name", &cluster.stat_name);
        for (priority, limits) in ["default_priority", "high_priority"]
            .iter()
            .zip(cluster.circuit_breakers.iter())
        {
            for (what, limit) in limits_of(limits) {
                line(&mut out, name, &format!("{priority}::{what}"), &limit);
            }
        }
        line(&mut out, name, "added_via_api", &cluster.added_via_api);
        let stats = state.hosts(name);
        for (place, endpoint, host) in hosts(&snapshot, cluster, &stats) {
            let address = endpoint.address.to_string();
            let mut put = |key: &str, value: &dyn std::fmt::Display| {
                line(&mut out, name, &format!("{address}::{key}"), value);
            };
            for (key, value) in counters(&host) {
                put(key, &value);
            }
            put("hostname", &endpoint.hostname);
            put("health_flags", &flags(endpoint, &host));
            put("weight", &endpoint.weight);
            put("region", &place.0.region);
            put("zone", &place.0.zone);
            put("sub_zone", &place.0.sub_zone);
            put("canary", &is_canary(endpoint));
            put("priority", &place.1);
            put("success_rate", &-1);
            put("local_origin_success_rate", &-1);
        }
    }
    out
}

/// The JSON form.
pub fn json(state: &dyn State, wanted: &Wanted) -> Value {
    let snapshot = state.snapshot();
    let all = sorted(&snapshot.clusters).filter(|c| wanted.has(c));
    let statuses = all.map(|cluster| {
        let stats = state.hosts(&cluster.name);
        let hosts: Vec<Value> = hosts(&snapshot, cluster, &stats)
            .map(|(place, endpoint, host)| host_json(place, endpoint, &host))
            .collect();
        let mut high = thresholds(&cluster.circuit_breakers[1]);
        high["priority"] = json!("HIGH");
        let mut status = json!({
            "name": &*cluster.name,
            "circuit_breakers": {"thresholds": [
                thresholds(&cluster.circuit_breakers[0]),
                high,
            ]},
            "observability_name": &*cluster.stat_name,
        });
        // Protobuf's JSON leaves out what is a field's default.
        if cluster.added_via_api {
            status["added_via_api"] = json!(true);
        }
        if !hosts.is_empty() {
            status["host_statuses"] = Value::Array(hosts);
        }
        status
    });
    json!({"cluster_statuses": statuses.collect::<Vec<_>>()})
}

fn sorted(
    clusters: &lateen_proxy_core::config::ResourceMap<Cluster>,
) -> impl Iterator<Item = &Cluster> {
    let mut all: Vec<&Cluster> = clusters.values().map(AsRef::as_ref).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.into_iter()
}

/// Where a host is, and its priority.
type Place<'a> = (&'a Locality, u32);

/// The hosts of a cluster with what the workers know of them: as configured or discovered, or
/// where the workers find them, as they found them.
fn hosts<'a>(
    snapshot: &'a Snapshot,
    cluster: &'a Cluster,
    stats: &'a HashMap<String, HostStats>,
) -> impl Iterator<Item = (Place<'a>, &'a Endpoint, HostStats)> {
    let mut found: Vec<_> = stats
        .values()
        .filter_map(|host| host.found.as_ref().map(|found| (found, host)))
        .map(|(found, host)| ((&found.1, found.2), &found.0, host.clone()))
        .collect();
    found.sort_by_key(|(place, endpoint, _)| (place.1, endpoint.address.to_string()));
    let at_work = matches!(
        cluster.discovery,
        ClusterDiscovery::StrictDns(_)
            | ClusterDiscovery::LogicalDns(_)
            | ClusterDiscovery::OriginalDst(_)
    );
    let assignment = snapshot.assignment(cluster).filter(|_| !at_work);
    let known = assignment
        .into_iter()
        .flat_map(|assignment| assignment.endpoints());
    let known = known.map(|(group, endpoint)| {
        let host = stats.get(&endpoint.address.to_string()).cloned();
        let place = (&group.locality, group.priority);
        (place, endpoint, host.unwrap_or_default())
    });
    known.chain(found)
}

/// `canary` of the load balancer's metadata.
fn is_canary(endpoint: &Endpoint) -> bool {
    let canary = endpoint
        .metadata
        .get("envoy.lb")
        .and_then(|fields| match fields {
            Meta::Struct(fields) => fields.get("canary"),
            _ => None,
        });
    canary == Some(&Meta::Bool(true))
}

fn line(out: &mut String, cluster: &str, key: &str, value: &dyn std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{cluster}::{key}::{value}");
}

fn limits_of(limits: &CircuitBreaker) -> [(&'static str, u32); 4] {
    [
        ("max_connections", limits.max_connections),
        ("max_pending_requests", limits.max_pending_requests),
        ("max_requests", limits.max_requests),
        ("max_retries", limits.max_retries),
    ]
}

fn thresholds(limits: &CircuitBreaker) -> Value {
    let mut value = json!({});
    for (name, limit) in limits_of(limits) {
        value[name] = json!(limit);
    }
    value
}

fn counters(host: &HostStats) -> [(&'static str, u64); 8] {
    [
        ("cx_active", host.cx_active),
        ("cx_connect_fail", host.cx_connect_fail),
        ("cx_total", host.cx_total),
        ("rq_active", host.rq_active),
        ("rq_error", host.rq_error),
        ("rq_success", host.rq_success),
        ("rq_timeout", host.rq_timeout),
        ("rq_total", host.rq_total),
    ]
}

/// `healthy`, or the reasons why not, joined by bars and led by one.
fn flags(endpoint: &Endpoint, host: &HostStats) -> String {
    let mut flags = String::new();
    let has = |marks| host.flags.has(marks);
    let reasons = [
        (has(HealthFlags::FAILED_ACTIVE), "/failed_active_hc"),
        (has(HealthFlags::EJECTED), "/failed_outlier_check"),
        (
            matches!(
                endpoint.health,
                HealthStatus::Unhealthy | HealthStatus::Timeout
            ),
            "/failed_eds_health",
        ),
        (has(HealthFlags::DEGRADED_ACTIVE), "/degraded_active_hc"),
        (
            endpoint.health == HealthStatus::Degraded,
            "/degraded_eds_health",
        ),
        (has(HealthFlags::PENDING_ACTIVE), "/pending_active_hc"),
        (
            has(HealthFlags::EXCLUDED),
            "/excluded_via_immediate_hc_fail",
        ),
        (has(HealthFlags::TIMED_OUT), "/active_hc_timeout"),
        (
            endpoint.health == HealthStatus::Draining,
            "/eds_status_draining",
        ),
    ];
    reasons
        .iter()
        .filter(|(is, _)| *is)
        .for_each(|(_, flag)| flags.push_str(flag));
    if flags.is_empty() {
        "healthy".to_owned()
    } else {
        flags
    }
}

fn host_json(place: Place<'_>, endpoint: &Endpoint, host: &HostStats) -> Value {
    let stats = counters(host).map(|(name, value)| {
        let gauge = name.ends_with("_active");
        let mut stat = json!({"name": name});
        if gauge {
            stat["type"] = json!("GAUGE");
        }
        if value > 0 {
            // 64-bit numbers are strings in proto JSON.
            stat["value"] = json!(value.to_string());
        }
        stat
    });
    let mut health = json!({"eds_health_status": match endpoint.health {
        HealthStatus::Unknown | HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Timeout => "TIMEOUT",
        HealthStatus::Degraded => "DEGRADED",
    }});
    let has = |marks| host.flags.has(marks);
    if has(HealthFlags::EJECTED) {
        health["failed_outlier_check"] = json!(true);
    }
    for (marks, field) in [
        (HealthFlags::FAILED_ACTIVE, "failed_active_health_check"),
        (HealthFlags::DEGRADED_ACTIVE, "failed_active_degraded_check"),
        (HealthFlags::PENDING_ACTIVE, "pending_active_hc"),
        (HealthFlags::EXCLUDED, "excluded_via_immediate_hc_fail"),
        (HealthFlags::TIMED_OUT, "active_hc_timeout"),
    ] {
        if has(marks) {
            health[field] = json!(true);
        }
    }
    let mut value = json!({
        "address": address_json(&endpoint.address),
        "stats": stats,
        "health_status": health,
        "weight": endpoint.weight,
        "locality": {},
    });
    for (name, text) in [
        ("region", &place.0.region),
        ("zone", &place.0.zone),
        ("sub_zone", &place.0.sub_zone),
    ] {
        if !text.is_empty() {
            value["locality"][name] = json!(&**text);
        }
    }
    if !endpoint.hostname.is_empty() {
        value["hostname"] = json!(&*endpoint.hostname);
    }
    if place.1 > 0 {
        value["priority"] = json!(place.1);
    }
    value
}

/// An address in Envoy's JSON shape.
pub fn address_json(address: &Address) -> Value {
    match address {
        Address::Socket(socket) => json!({"socket_address": {
            "address": socket.ip().to_string(), "port_value": socket.port()}}),
        Address::Host { host, port } => json!({"socket_address": {
            "address": &**host, "port_value": port}}),
        Address::Pipe(path) => json!({"pipe": {"path": &**path}}),
        Address::Internal(name) => {
            json!({"envoy_internal_address": {"server_listener_name": &**name}})
        }
    }
}
