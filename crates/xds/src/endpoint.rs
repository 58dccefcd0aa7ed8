//! EDS: the endpoints of a cluster by locality. The most frequent change, so a resource is
//! made from one cluster name and nothing else of the proxy than where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_model::{
    Endpoint, EndpointAddress, Health, Locality, Port, Resolution, Selector, Service, TlsMode,
};
use lateen_xds_proto::envoy::config::core::v3::{HealthStatus, Locality as WireLocality, Metadata};
use lateen_xds_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as WireEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};

use crate::context::Context;
use crate::fingerprint::resource;
use crate::locality;
use crate::names;
use crate::resource::Resource;
use crate::wire;

/// The endpoints of a cluster by its name. An unknown cluster has none: a proxy that asks
/// for it, say in the middle of a change, must not wait.
pub fn by_name(cx: &Context<'_>, name: &str) -> Arc<Resource> {
    let found = names::parse_outbound(name).and_then(|n| {
        let service = cx.service(&n.host)?;
        let port = service.port(n.port)?;
        Some(assignment(cx, name, service, port, n.subset.as_deref()))
    });
    resource(found.unwrap_or_else(|| ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        ..ClusterLoadAssignment::default()
    }))
}

/// Names of all EDS clusters of a proxy, for the debug pages.
pub fn all_names(cx: &Context<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for service in cx
        .services()
        .iter()
        .filter(|s| s.resolution == Resolution::Static)
    {
        let subsets = cx
            .rule(service)
            .map(|r| r.subsets.as_slice())
            .unwrap_or_default();
        for port in &service.ports {
            out.push(names::outbound(port.number, "", &service.hostname));
            for s in subsets {
                out.push(names::outbound(port.number, &s.name, &service.hostname));
            }
        }
    }
    out
}

/// The load assignment of a service port or subset.
pub fn assignment(
    cx: &Context<'_>,
    cluster: &str,
    service: &Service,
    port: &Port,
    subset: Option<&str>,
) -> ClusterLoadAssignment {
    let rule = cx.rule(service);
    let nothing = Selector::from_iter(std::iter::empty::<(&str, &str)>());
    let selector = match subset {
        None => Some(&nothing),
        Some(name) => rule.and_then(|r| r.subset(name)).map(|s| &s.labels),
    };
    let mut localities: BTreeMap<Locality, Vec<LbEndpoint>> = BTreeMap::new();
    let mut raw: BTreeMap<Locality, Vec<&Endpoint>> = BTreeMap::new();
    if let Some(selector) = selector {
        for e in cx.endpoints.subset(&service.key(), port.number, selector) {
            if service.node_local && !e.node.is_empty() && e.node != cx.key.node {
                continue;
            }
            localities
                .entry(e.locality.clone())
                .or_default()
                .push(lb_endpoint(cx, service, e));
            raw.entry(e.locality.clone()).or_default().push(e);
        }
    }
    let mut out = ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: localities.into_iter().map(|(l, e)| group(&l, e)).collect(),
        ..ClusterLoadAssignment::default()
    };
    let policy = rule
        .map(|r| r.effective(subset, port.number))
        .unwrap_or_default();
    locality::apply(cx, &policy, &raw, &mut out);
    out
}

/// A load assignment of one fixed address.
pub fn single(cluster: &str, address: &str, port: u16) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(WireEndpoint {
            address: Some(wire::socket_address(address, port)),
            ..WireEndpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

fn group(at: &Locality, endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    let weights = endpoints
        .iter()
        .filter_map(|e| e.load_balancing_weight.as_ref());
    let weight: u64 = weights.map(|w| u64::from(w.value)).sum();
    LocalityLbEndpoints {
        locality: Some(WireLocality {
            region: at.region.to_string(),
            zone: at.zone.to_string(),
            sub_zone: at.sub_zone.to_string(),
        }),
        lb_endpoints: endpoints,
        load_balancing_weight: wire::u32_value(u32::try_from(weight).unwrap_or(u32::MAX)),
        ..LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(cx: &Context<'_>, service: &Service, e: &Endpoint) -> LbEndpoint {
    let address = match &e.address {
        EndpointAddress::Ip(ip) => wire::socket_address(&ip.to_string(), e.port),
        EndpointAddress::Host(host) => wire::socket_address(host, e.port),
        EndpointAddress::Unix(path) => wire::pipe(path),
    };
    let health = match e.health {
        Health::Unhealthy if service.publish_not_ready => HealthStatus::Healthy,
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(WireEndpoint {
            address: Some(address),
            ..WireEndpoint::default()
        })),
        health_status: health as i32,
        load_balancing_weight: wire::u32_value(e.weight.max(1)),
        metadata: metadata(cx, e),
    }
}

/// `istio`: `workload` as `name;namespace;canonical name;revision;cluster` and the `uid` that
/// debug pages are searched for; `envoy.transport_socket_match` where mesh TLS is spoken.
fn metadata(cx: &Context<'_>, e: &Endpoint) -> Option<Metadata> {
    let mut fields = Vec::new();
    if !e.workload.is_empty() {
        let text = format!(
            "{};{};{};{};{}",
            e.workload, e.namespace, e.canonical_name, e.canonical_revision, cx.key.cluster_id
        );
        fields.push(("workload", wire::text(text)));
    }
    if !e.pod.is_empty() {
        fields.push((
            "uid",
            wire::text(format!("kubernetes://{}.{}", e.pod, e.namespace)),
        ));
    }
    let mut metadata = wire::istio_metadata(fields);
    if cx.features.mesh_tls && e.tls == TlsMode::Istio {
        metadata
            .get_or_insert_with(Metadata::default)
            .filter_metadata
            .insert(
                "envoy.transport_socket_match".to_owned(),
                wire::structure(vec![("tlsMode", wire::text("istio"))]),
            );
    }
    metadata
}
