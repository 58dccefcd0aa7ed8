//! ClusterLoadAssignment.
use std::sync::Arc;

use lateen_proxy_core::config::endpoint::EndpointCheck;
use lateen_proxy_core::config::{
    Address, ClusterLoadAssignment, Endpoint, FractionalPercent, HealthStatus, Locality,
    LocalityEndpoints,
};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::endpoint::v3 as pb;

use super::common::{self, fractional, metadata, need, opt_duration};
use super::shared::name;
use crate::error::{At, Result, list, refuse, refuse_set};

/// Most priorities a cluster may have.
const MAX_PRIORITY: u32 = 128;

/// Refuses host names: only a DNS cluster resolves them.
pub(super) fn only_addresses(assignment: &ClusterLoadAssignment) -> Result<()> {
    for (i, locality) in assignment.localities.iter().enumerate() {
        for (j, endpoint) in locality.endpoints.iter().enumerate() {
            only_address(endpoint)
                .at("endpoint.address")
                .item("lb_endpoints", j)
                .item("endpoints", i)?;
        }
    }
    Ok(())
}

fn only_address(endpoint: &Endpoint) -> Result<()> {
    match &endpoint.address {
        Address::Host { host, .. } => refuse(format!(
            "malformed IP address: {host}; a STRICT_DNS or LOGICAL_DNS cluster resolves names"
        )),
        _ => Ok(()),
    }
}

pub(super) fn assignment(m: &pb::ClusterLoadAssignment) -> Result<ClusterLoadAssignment> {
    if m.cluster_name.is_empty() {
        return refuse("is required").at("cluster_name");
    }
    refuse_set(&[(!m.named_endpoints.is_empty(), "named_endpoints")])?;
    let policy = m.policy.clone().unwrap_or_default();
    refuse_set(&[
        (
            policy.endpoint_stale_after.is_some(),
            "endpoint_stale_after",
        ),
        (policy.weighted_priority_health, "weighted_priority_health"),
    ])
    .at("policy")?;
    let drop_overload = drop_overload(&policy.drop_overloads).at("policy")?;
    let stale =
        opt_duration(policy.endpoint_stale_after.as_ref(), "endpoint_stale_after").at("policy")?;
    let localities = list(&m.endpoints, "endpoints", locality)?;
    Ok(ClusterLoadAssignment {
        cluster_name: name(&m.cluster_name),
        localities,
        overprovisioning_factor: policy
            .overprovisioning_factor
            .as_ref()
            .map_or(140, |v| v.value),
        weighted_priority_health: policy.weighted_priority_health,
        drop_overload,
        stale_after_ms: stale.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// The share of requests that is dropped; its category is told to nobody here.
fn drop_overload(
    all: &[pb::cluster_load_assignment::policy::DropOverload],
) -> Result<Option<FractionalPercent>> {
    let one = match all {
        [] => return Ok(None),
        [one] => one,
        more => {
            let count = more.len();
            return refuse(format!("has {count} categories, one is supported"))
                .at("drop_overloads");
        }
    };
    let place = |result: Result<FractionalPercent>| result.item("drop_overloads", 0);
    if one.category.is_empty() {
        return place(refuse("is required").at("category")).map(Some);
    }
    let share = need(one.drop_percentage.as_ref(), "drop_percentage").and_then(fractional);
    place(share).map(Some)
}

pub(crate) fn locality_value(m: Option<&core::Locality>) -> Locality {
    m.map_or_else(Locality::default, |l| Locality {
        region: name(&l.region),
        zone: name(&l.zone),
        sub_zone: name(&l.sub_zone),
    })
}

fn locality(m: &pb::LocalityLbEndpoints) -> Result<LocalityEndpoints> {
    if m.priority > MAX_PRIORITY {
        return refuse(format!("must be at most {MAX_PRIORITY}")).at("priority");
    }
    refuse_set(&[(m.proximity.is_some(), "proximity")])?;
    if m.lb_config.is_some() {
        return refuse("endpoint lists by LEDS or load_balancer_endpoints are not implemented")
            .at("lb_config");
    }
    Ok(LocalityEndpoints {
        locality: locality_value(m.locality.as_ref()),
        priority: m.priority,
        weight: m.load_balancing_weight.as_ref().map(|w| w.value),
        endpoints: list(&m.lb_endpoints, "lb_endpoints", endpoint)?,
        metadata: metadata(m.metadata.as_ref()),
    })
}

fn endpoint(m: &pb::LbEndpoint) -> Result<Endpoint> {
    let e = match m.host_identifier.as_ref() {
        Some(pb::lb_endpoint::HostIdentifier::Endpoint(e)) => e,
        Some(pb::lb_endpoint::HostIdentifier::EndpointName(_)) => {
            return refuse("is not implemented").at("endpoint_name");
        }
        None => return refuse("is required").at("endpoint"),
    };
    let weight = m.load_balancing_weight.as_ref().map_or(1, |w| w.value);
    if weight == 0 {
        return refuse("must be at least 1").at("load_balancing_weight");
    }
    refuse_set(&[
        (!e.additional_addresses.is_empty(), "additional_addresses"),
        (!e.observability_name.is_empty(), "observability_name"),
    ])
    .at("endpoint")?;
    let health_check = e.health_check_config.as_ref().map(check).transpose();
    let health_check = health_check.at("endpoint.health_check_config")?.flatten();
    Ok(Endpoint {
        address: common::address(need(e.address.as_ref(), "address").at("endpoint")?)
            .at("address")
            .at("endpoint")?,
        additional_addresses: list(&e.additional_addresses, "additional_addresses", |a| {
            common::address(need(a.address.as_ref(), "address")?)
        })
        .at("endpoint")?,
        hostname: name(&e.hostname),
        health: health(m.health_status),
        weight,
        metadata: metadata(m.metadata.as_ref()),
        health_check,
    })
}

fn check(m: &pb::endpoint::HealthCheckConfig) -> Result<Option<Arc<EndpointCheck>>> {
    let address = m.address.as_ref().map(common::address).transpose();
    let check = EndpointCheck {
        port: common::port(m.port_value).at("port_value")?,
        hostname: m.hostname.as_str().into(),
        address: address.at("address")?,
        disabled: m.disable_active_health_check,
    };
    if let Some(Address::Host { host, .. }) = &check.address {
        return refuse(format!("malformed IP address: {host}")).at("address");
    }
    if !check.hostname.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse("must be a host name").at("hostname");
    }
    Ok(Some(check)
        .filter(|c| *c != EndpointCheck::default())
        .map(Arc::new))
}

fn health(status: i32) -> HealthStatus {
    match core::HealthStatus::try_from(status) {
        Ok(core::HealthStatus::Healthy) => HealthStatus::Healthy,
        Ok(core::HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
        Ok(core::HealthStatus::Draining) => HealthStatus::Draining,
        Ok(core::HealthStatus::Timeout) => HealthStatus::Timeout,
        Ok(core::HealthStatus::Degraded) => HealthStatus::Degraded,
        Ok(core::HealthStatus::Unknown) | Err(_) => HealthStatus::Unknown,
    }
}
