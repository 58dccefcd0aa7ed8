//! `/clusters`: every cluster with its limits and hosts, as text lines or JSON.

use std::fmt::Write as _;

use lateen_proxy_core::config::cluster::CircuitBreaker;
use lateen_proxy_core::config::{Address, Cluster, Endpoint, HealthStatus, LocalityEndpoints};
use serde_json::{Value, json};

use super::{HostStats, State};
use crate::upstream::health::HealthFlags;

/// The text form: `name::key::value` lines.
pub fn text(state: &dyn State) -> String {
    let snapshot = state.snapshot();
    let mut out = String::new();
    for cluster in sorted(&snapshot.clusters) {
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
        for (locality, endpoint) in endpoints(&snapshot, cluster) {
            let address = endpoint.address.to_string();
            let host = stats.get(&address).cloned().unwrap_or_default();
            let mut put = |key: &str, value: &dyn std::fmt::Display| {
                line(&mut out, name, &format!("{address}::{key}"), value);
            };
            for (key, value) in counters(&host) {
                put(key, &value);
            }
            put("hostname", &endpoint.hostname);
            put("health_flags", &flags(endpoint, &host));
            put("weight", &endpoint.weight);
            put("region", &locality.locality.region);
            put("zone", &locality.locality.zone);
            put("sub_zone", &locality.locality.sub_zone);
            put("canary", &false);
            put("priority", &locality.priority);
            put("success_rate", &-1);
            put("local_origin_success_rate", &-1);
        }
    }
    out
}

/// The JSON form.
pub fn json(state: &dyn State) -> Value {
    let snapshot = state.snapshot();
    let statuses = sorted(&snapshot.clusters).map(|cluster| {
        let stats = state.hosts(&cluster.name);
        let hosts: Vec<Value> = endpoints(&snapshot, cluster)
            .map(|(locality, endpoint)| {
                let host = stats
                    .get(&endpoint.address.to_string())
                    .cloned()
                    .unwrap_or_default();
                host_json(locality, endpoint, &host)
            })
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

fn endpoints<'a>(
    snapshot: &'a lateen_proxy_core::config::Snapshot,
    cluster: &'a Cluster,
) -> impl Iterator<Item = (&'a LocalityEndpoints, &'a Endpoint)> {
    snapshot
        .assignment(cluster)
        .into_iter()
        .flat_map(|assignment| assignment.endpoints())
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

fn host_json(locality: &LocalityEndpoints, endpoint: &Endpoint, host: &HostStats) -> Value {
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
        ("region", &locality.locality.region),
        ("zone", &locality.locality.zone),
        ("sub_zone", &locality.locality.sub_zone),
    ] {
        if !text.is_empty() {
            value["locality"][name] = json!(&**text);
        }
    }
    if !endpoint.hostname.is_empty() {
        value["hostname"] = json!(&*endpoint.hostname);
    }
    if locality.priority > 0 {
        value["priority"] = json!(locality.priority);
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
