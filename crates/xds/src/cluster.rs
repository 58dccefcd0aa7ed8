//! CDS: one cluster per service port and subset, the passthrough and black hole clusters,
//! and for sidecars one inbound cluster per served port.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lateen_model::{DestinationRule, Port, Protocol, Resolution, Service};
use lateen_xds_proto::envoy::config::cluster::v3::{Cluster, cluster};
use lateen_xds_proto::envoy::config::core::v3::{BindConfig, SocketAddress, socket_address};
use lateen_xds_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use lateen_xds_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

use crate::context::Context;
use crate::fingerprint::resource;
use crate::resource::Resource;
use crate::{endpoint, filters, names, policy, wire};

/// Source of connections to the own workload, by which redirection rules know them.
const INBOUND_SOURCE: &str = "127.0.0.6";

/// All clusters of a proxy.
pub fn clusters(cx: &Context<'_>) -> Vec<Arc<Resource>> {
    let mut out: Vec<Arc<Resource>> = cx
        .services()
        .iter()
        .flat_map(|s| of_service(cx, s))
        .collect();
    out.extend(without_service(cx));
    out.extend(own(cx));
    out
}

/// The clusters of one service: its ports and their subsets.
pub fn of_service(cx: &Context<'_>, service: &Service) -> Vec<Arc<Resource>> {
    let mut out = Vec::new();
    let rule = cx.rule(service);
    for port in &service.ports {
        if port.protocol == Protocol::Udp {
            continue;
        }
        out.extend(service_cluster(cx, service, port, rule, None));
        for subset in rule.iter().flat_map(|r| &r.subsets) {
            out.extend(service_cluster(cx, service, port, rule, Some(&subset.name)));
        }
    }
    out.into_iter().map(resource).collect()
}

/// The outbound clusters that stand for no service.
pub fn without_service(cx: &Context<'_>) -> Vec<Arc<Resource>> {
    let mut out = vec![resource(black_hole())];
    if !cx.is_gateway() {
        out.push(resource(passthrough(names::PASSTHROUGH)));
    }
    out
}

/// The clusters towards a sidecar's own workload.
pub fn own(cx: &Context<'_>) -> Vec<Arc<Resource>> {
    if cx.is_gateway() {
        return Vec::new();
    }
    let mut out = inbound(cx);
    let mut other = passthrough(names::INBOUND_PASSTHROUGH);
    other.upstream_bind_config = inbound_bind();
    out.push(other);
    out.into_iter().map(resource).collect()
}

/// The cluster of a service port or one of its subsets; `None` when no endpoint of it could
/// ever be reached (a wildcard host to be resolved by DNS).
fn service_cluster(
    cx: &Context<'_>,
    service: &Service,
    port: &Port,
    rule: Option<&Arc<DestinationRule>>,
    subset: Option<&str>,
) -> Option<Cluster> {
    let name = names::outbound(port.number, subset.unwrap_or_default(), &service.hostname);
    let policy = rule
        .map(|r| r.effective(subset, port.number))
        .unwrap_or_default();
    let mut c = base(cx, name);
    c.metadata = metadata(service, rule, subset);
    discover(cx, &mut c, service, port, subset)?;
    policy::apply(cx, &mut c, &policy, service, port);
    c.filters = filters::cluster_filters(cx);
    Some(c)
}

/// The mesh's connect timeout; Istio 1.0's was a second.
fn connect_timeout(cx: &Context<'_>) -> Duration {
    if cx.features.compat_1_0 {
        Duration::from_secs(1)
    } else {
        cx.snapshot.mesh.connect_timeout
    }
}

/// What every outbound cluster has.
fn base(cx: &Context<'_>, name: String) -> Cluster {
    Cluster {
        // Statistics names end in `;` so that a name cannot run into the metric's.
        alt_stat_name: format!("{name};"),
        name,
        connect_timeout: wire::duration(connect_timeout(cx)),
        lb_policy: cluster::LbPolicy::LeastRequest as i32,
        circuit_breakers: policy::unlimited(),
        // Unready endpoints are announced as unhealthy and must stay unused.
        common_lb_config: policy::panic_threshold(0.0),
        ..Cluster::default()
    }
}

fn discover(
    cx: &Context<'_>,
    c: &mut Cluster,
    service: &Service,
    port: &Port,
    subset: Option<&str>,
) -> Option<()> {
    use cluster::DiscoveryType as T;
    match service.resolution {
        Resolution::Static => {
            set_type(c, T::Eds);
            c.eds_cluster_config = Some(cluster::EdsClusterConfig {
                eds_config: Some(wire::ads()),
                service_name: c.name.clone(),
            });
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let round = service.resolution == Resolution::DnsRoundRobin;
            set_type(c, if round { T::LogicalDns } else { T::StrictDns });
            c.load_assignment = Some(dns_assignment(cx, c, service, port, subset)?);
            dns_settings(cx, c);
        }
        Resolution::Passthrough => {
            set_type(c, T::OriginalDst);
            c.lb_policy = cluster::LbPolicy::ClusterProvided as i32;
        }
        // Served by the proxy's forward proxy and not by clusters.
        Resolution::DynamicDns => return None,
    }
    Some(())
}

fn set_type(c: &mut Cluster, t: cluster::DiscoveryType) {
    c.cluster_discovery_type = Some(cluster::ClusterDiscoveryType::Type(t as i32));
}

/// Declared endpoints, or the host itself where none are.
fn dns_assignment(
    cx: &Context<'_>,
    c: &Cluster,
    service: &Service,
    port: &Port,
    subset: Option<&str>,
) -> Option<ClusterLoadAssignment> {
    let declared = endpoint::assignment(cx, &c.name, service, port, subset);
    if declared
        .endpoints
        .iter()
        .any(|l| !l.lb_endpoints.is_empty())
    {
        return Some(declared);
    }
    if service.is_wildcard() || subset.is_some() {
        return None;
    }
    let host = service
        .external_name
        .as_deref()
        .unwrap_or(&service.hostname);
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(wire::socket_address(host, port.number)),
            ..Endpoint::default()
        })),
        load_balancing_weight: wire::u32_value(1),
        ..LbEndpoint::default()
    };
    Some(ClusterLoadAssignment {
        cluster_name: c.name.clone(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            load_balancing_weight: wire::u32_value(1),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    })
}

#[expect(
    deprecated,
    reason = "Istio emits these fields and every Envoy since 1.20 takes them"
)]
fn dns_settings(cx: &Context<'_>, c: &mut Cluster) {
    let refresh = cx.snapshot.mesh.dns_refresh_rate;
    c.dns_refresh_rate = wire::duration(refresh);
    c.respect_dns_ttl = true;
    c.dns_jitter = wire::duration(Duration::from_millis(100));
    c.dns_failure_refresh_rate = Some(cluster::RefreshRate {
        base_interval: wire::duration(refresh),
        max_interval: wire::duration(refresh),
    });
    let family = if cx.key.ipv6 {
        cluster::DnsLookupFamily::All
    } else {
        cluster::DnsLookupFamily::V4Only
    };
    c.dns_lookup_family = family as i32;
    let resolver = "envoy.network.dns_resolver.cares";
    if cx.key.supports(resolver) {
        c.typed_dns_resolver_config = Some(wire::extension(
            resolver,
            &CaresDnsResolverConfig::default(),
        ));
    }
}

/// `istio` metadata: the services behind a cluster, the rule that shaped it, its subset.
fn metadata(
    service: &Service,
    rule: Option<&Arc<DestinationRule>>,
    subset: Option<&str>,
) -> Option<lateen_xds_proto::envoy::config::core::v3::Metadata> {
    let mut fields = vec![(
        "services",
        wire::list(vec![wire::object(vec![
            ("host", wire::text(&*service.hostname)),
            ("name", wire::text(&*service.name)),
            ("namespace", wire::text(&*service.namespace)),
        ])]),
    )];
    if let Some(rule) = rule {
        fields.push(("config", wire::text(rule.origin.istio_config())));
    }
    if let Some(subset) = subset {
        fields.push(("subset", wire::text(subset)));
    }
    if service.mesh_external {
        let yes = lateen_xds_proto::google::protobuf::value::Kind::BoolValue(true);
        fields.push(("external", lateen_xds_proto::Value { kind: Some(yes) }));
    }
    wire::istio_metadata(fields)
}

fn black_hole() -> Cluster {
    let mut c = Cluster {
        name: names::BLACK_HOLE.to_owned(),
        connect_timeout: wire::duration(Duration::from_secs(10)),
        ..Cluster::default()
    };
    set_type(&mut c, cluster::DiscoveryType::Static);
    c
}

/// A cluster that keeps the original destination and speaks what the client speaks.
fn passthrough(name: &str) -> Cluster {
    let mut c = Cluster {
        name: name.to_owned(),
        connect_timeout: wire::duration(Duration::from_secs(10)),
        lb_policy: cluster::LbPolicy::ClusterProvided as i32,
        circuit_breakers: policy::unlimited(),
        ..Cluster::default()
    };
    set_type(&mut c, cluster::DiscoveryType::OriginalDst);
    policy::downstream_protocol(&mut c, Some(Duration::from_secs(300)));
    c
}

fn inbound_bind() -> Option<BindConfig> {
    Some(BindConfig {
        source_address: Some(SocketAddress {
            address: INBOUND_SOURCE.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(0)),
            ..SocketAddress::default()
        }),
        ..BindConfig::default()
    })
}

/// One cluster per target port; of two services on one port the oldest decides.
fn inbound(cx: &Context<'_>) -> Vec<Cluster> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for s in cx.serves() {
        if s.port.protocol != Protocol::Udp && seen.insert(s.target_port) {
            out.push(inbound_cluster(cx, &s.service, &s.port, s.target_port));
        }
    }
    out
}

fn inbound_cluster(cx: &Context<'_>, service: &Service, port: &Port, target: u16) -> Cluster {
    let name = names::inbound(target);
    let mut c = Cluster {
        alt_stat_name: format!("{name};"),
        name,
        connect_timeout: wire::duration(cx.snapshot.mesh.connect_timeout),
        circuit_breakers: policy::unlimited(),
        metadata: metadata(service, None, None),
        ..Cluster::default()
    };
    if cx.snapshot.mesh.inbound_localhost {
        set_type(&mut c, cluster::DiscoveryType::Static);
        c.load_assignment = Some(endpoint::single(&c.name, "127.0.0.1", target));
    } else {
        set_type(&mut c, cluster::DiscoveryType::OriginalDst);
        c.lb_policy = cluster::LbPolicy::ClusterProvided as i32;
        c.upstream_bind_config = inbound_bind();
        // A connection to the own workload is never "unused": no sweep.
        c.cleanup_interval = None;
    }
    policy::protocol(cx, &mut c, cx.inbound_protocol(port), None);
    c
}
