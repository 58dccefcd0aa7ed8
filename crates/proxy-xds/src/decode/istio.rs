//! Istio's own filters: metrics, ALPN, metadata exchange.
use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::istio::{
    IstioAlpn, IstioStats, MetricOverride, PeerMetadata, Reporter, TcpMetadataExchange,
};
use lateen_xds_proto::Any;
use lateen_xds_proto::istio::{
    alpn as alpn_pb, metadata_exchange, peer_metadata as peer_pb, stats as stats_pb,
};

use super::common::opt_duration;
use super::typed;
use crate::error::{At, Result, refuse, refuse_set};

pub(super) const STATS: &str = "stats.PluginConfig";
pub(super) const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
pub(super) const PEER_METADATA: &str = "io.istio.http.peer_metadata.Config";
pub(super) const METADATA_EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

fn names(list: &[String]) -> Vec<Name> {
    list.iter().map(|s| s.as_str().into()).collect()
}

/// Istio's metrics. `tcp_reporting_duration` is how often TCP bytes are told while a connection is
/// open: here at its end, so the sums are the same and only come later. Series are not rotated.
pub(super) fn stats(any: &Any) -> Result<IstioStats> {
    let m: stats_pb::PluginConfig = typed(any)?;
    for (i, metric) in m.metrics.iter().enumerate() {
        refuse_set(&[
            (!metric.dimensions.is_empty(), "dimensions"),
            (!metric.r#match.is_empty(), "match"),
        ])
        .item("metrics", i)?;
    }
    refuse_set(&[(!m.definitions.is_empty(), "definitions")])?;
    Ok(IstioStats {
        disable_host_header_fallback: m.disable_host_header_fallback,
        tcp_reporting_duration: opt_duration(
            m.tcp_reporting_duration.as_ref(),
            "tcp_reporting_duration",
        )?,
        metrics: m
            .metrics
            .iter()
            .map(|c| MetricOverride {
                name: c.name.as_str().into(),
                dimensions: c
                    .dimensions
                    .iter()
                    .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
                    .collect(),
                tags_to_remove: names(&c.tags_to_remove),
                drop: c.drop,
            })
            .collect(),
        reporter: if m.reporter == stats_pb::Reporter::ServerGateway as i32 {
            Reporter::ServerGateway
        } else {
            Reporter::Unspecified
        },
        rotation_interval: opt_duration(m.rescoping_duration.as_ref(), "rescoping_duration")?,
    })
}

/// Istio's upstream ALPN. It says which names a TLS connection between sidecars offers; istiod sends
/// it always, and without TLS between sidecars there is nothing to offer them on.
pub(super) fn alpn(any: &Any) -> Result<IstioAlpn> {
    let m: alpn_pb::FilterConfig = typed(any)?;
    let of = |protocol: alpn_pb::Protocol| {
        m.alpn_override
            .iter()
            .find(|o| o.upstream_protocol == protocol as i32)
            .map_or_else(Vec::new, |o| names(&o.alpn_override))
    };
    Ok(IstioAlpn {
        http10: of(alpn_pb::Protocol::Http10),
        http11: of(alpn_pb::Protocol::Http11),
        http2: of(alpn_pb::Protocol::Http2),
    })
}

pub(super) fn peer_metadata(any: &Any) -> Result<PeerMetadata> {
    use peer_pb::discovery_method::MethodSpecifier as D;
    use peer_pb::propagation_method::MethodSpecifier as P;
    let m: peer_pb::Config = typed(any)?;
    for (list, field) in [
        (&m.downstream_discovery, "downstream_discovery"),
        (&m.upstream_discovery, "upstream_discovery"),
    ] {
        let baggage =
            |d: &peer_pb::DiscoveryMethod| matches!(d.method_specifier, Some(D::Baggage(_)));
        if let Some(i) = list.iter().position(baggage) {
            return refuse("is not implemented").at("baggage").item(field, i);
        }
    }
    let headers = |list: &[peer_pb::DiscoveryMethod]| {
        list.iter()
            .any(|d| matches!(d.method_specifier, Some(D::IstioHeaders(_))))
    };
    let workloads = |list: &[peer_pb::DiscoveryMethod]| {
        list.iter()
            .any(|d| matches!(d.method_specifier, Some(D::WorkloadDiscovery(_))))
    };
    let propagate = |list: &[peer_pb::PropagationMethod]| {
        list.iter().find_map(|p| {
            p.method_specifier
                .map(|P::IstioHeaders(h)| h.skip_external_clusters)
        })
    };
    let upstream = propagate(&m.upstream_propagation);
    Ok(PeerMetadata {
        downstream_headers: headers(&m.downstream_discovery),
        downstream_workload_discovery: workloads(&m.downstream_discovery),
        upstream_headers: headers(&m.upstream_discovery),
        upstream_workload_discovery: workloads(&m.upstream_discovery),
        propagate_upstream: upstream.is_some(),
        propagate_downstream: propagate(&m.downstream_propagation).is_some(),
        skip_external_clusters: upstream.unwrap_or(false),
        shared_with_upstream: m.shared_with_upstream,
        additional_labels: names(&m.additional_labels),
    })
}

pub(super) fn tcp_metadata_exchange(any: &Any) -> Result<TcpMetadataExchange> {
    let m: metadata_exchange::MetadataExchange = typed(any)?;
    Ok(TcpMetadataExchange {
        protocol: m.protocol.as_str().into(),
        enable_discovery: m.enable_discovery,
        additional_labels: names(&m.additional_labels),
    })
}
