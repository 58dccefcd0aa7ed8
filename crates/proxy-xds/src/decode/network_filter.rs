//! Network filters: TCP proxy, HTTP, Istio's.
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::access_log::Template;
use lateen_proxy_core::config::network_filter::{TcpClusters, TcpWeightedCluster, Tunneling};
use lateen_proxy_core::config::route::{HashPolicy, HashSource};
use lateen_proxy_core::config::{NetworkFilter, TcpProxy};
use lateen_xds_proto::envoy::config::listener::v3 as listener;
use lateen_xds_proto::envoy::extensions::filters::network::direct_response::v3 as direct;
use lateen_xds_proto::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use lateen_xds_proto::envoy::r#type::v3 as envoy_type;

use super::common::{bool_or, data_source_bytes, header_option, timeout};
use super::{
    Collected, access_log, http_connection_manager, istio, rbac, subset, type_name, typed, written,
};
use crate::error::{At, DecodeError, Result, list, refuse, refuse_set};

const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const DIRECT_RESPONSE: &str = "envoy.extensions.filters.network.direct_response.v3.Config";
const RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
const ECHO: &str = "envoy.extensions.filters.network.echo.v3.Echo";

pub(super) fn filters(
    filters: &[listener::Filter],
    c: &Collected<'_>,
) -> Result<Vec<NetworkFilter>> {
    let out = list(filters, "filters", |f| filter(f, c))?;
    let last = out.len().saturating_sub(1);
    for (i, f) in out.iter().enumerate() {
        if f.is_terminal() != (i == last) {
            let problem = if i == last {
                "the last filter must be terminal"
            } else {
                "a terminal filter must be the last"
            };
            return refuse(problem).item("filters", i);
        }
    }
    Ok(out)
}

fn filter(m: &listener::Filter, c: &Collected<'_>) -> Result<NetworkFilter> {
    let any = match m.config_type.as_ref() {
        Some(listener::filter::ConfigType::TypedConfig(any)) => any,
        Some(listener::filter::ConfigType::ConfigDiscovery(_)) => {
            return refuse(format!("filter {}: ECDS is not implemented", m.name))
                .at("config_discovery");
        }
        None => return refuse("is required").at("typed_config"),
    };
    let name = type_name(any)?;
    let built = match name.as_str() {
        HCM => typed(any)
            .and_then(|h| http_connection_manager::manager(&h, c))
            .map(|h| NetworkFilter::HttpConnectionManager(Arc::new(h))),
        TCP_PROXY => typed(any)
            .and_then(|t| tcp_proxy(&t, c))
            .map(|t| NetworkFilter::TcpProxy(Arc::new(t))),
        istio::STATS => istio::stats(any).map(|s| NetworkFilter::IstioStats(Arc::new(s))),
        istio::METADATA_EXCHANGE => {
            istio::tcp_metadata_exchange(any).map(|m| NetworkFilter::MetadataExchange(Arc::new(m)))
        }
        DIRECT_RESPONSE => typed(any).and_then(|d: direct::Config| {
            data_source_bytes(d.response.as_ref(), c.context)
                .at("response")
                .map(NetworkFilter::DirectResponse)
        }),
        RBAC => typed(any)
            .and_then(|r| rbac::network(&r))
            .map(|r| NetworkFilter::Rbac(Arc::new(r))),
        ECHO => Ok(NetworkFilter::Echo),
        other => refuse(format!(
            "network filter {other} ({}) is not implemented",
            m.name
        )),
    };
    built.at("typed_config")
}

fn tcp_proxy(m: &pb::TcpProxy, c: &Collected<'_>) -> Result<TcpProxy> {
    if m.stat_prefix.is_empty() {
        return refuse("is required").at("stat_prefix");
    }
    let options = m.access_log_options.unwrap_or_default();
    refuse_set(&[
        (m.on_demand.is_some(), "on_demand"),
        (m.backoff_options.is_some(), "backoff_options"),
        (
            bool_or(m.check_drain_close.as_ref(), false),
            "check_drain_close",
        ),
        (
            m.downstream_idle_timeout.is_some(),
            "downstream_idle_timeout",
        ),
        (m.upstream_idle_timeout.is_some(), "upstream_idle_timeout"),
        (
            m.max_downstream_connection_duration_jitter_percentage
                .is_some(),
            "max_downstream_connection_duration_jitter_percentage",
        ),
        (m.max_early_data_bytes.is_some(), "max_early_data_bytes"),
        (!m.proxy_protocol_tlvs.is_empty(), "proxy_protocol_tlvs"),
        (m.upstream_connect_mode != 0, "upstream_connect_mode"),
        (
            m.flush_access_log_on_connected,
            "flush_access_log_on_connected",
        ),
        (
            options.flush_access_log_on_start,
            "access_log_options.flush_access_log_on_start",
        ),
        (
            m.access_log_flush_interval.is_some(),
            "access_log_flush_interval",
        ),
        (
            options.access_log_flush_interval.is_some(),
            "access_log_options.access_log_flush_interval",
        ),
        (
            options.flush_access_log_on_connected,
            "access_log_options.flush_access_log_on_connected",
        ),
    ])?;
    let flush = options
        .access_log_flush_interval
        .as_ref()
        .or(m.access_log_flush_interval.as_ref());
    Ok(TcpProxy {
        stat_prefix: m.stat_prefix.as_str().into(),
        clusters: clusters(m)?,
        idle_timeout: timeout(
            m.idle_timeout.as_ref(),
            "idle_timeout",
            Some(Duration::from_secs(3600)),
        )?,
        max_downstream_connection_duration: timeout(
            m.max_downstream_connection_duration.as_ref(),
            "max_downstream_connection_duration",
            None,
        )?,
        max_connect_attempts: m
            .max_connect_attempts
            .as_ref()
            .map_or(1, |v| v.value.max(1)),
        access_logs: access_log::loggers(&m.access_log, c.context)?,
        access_log_flush_interval: timeout(flush, "access_log_flush_interval", None)?,
        hash_policy: list(&m.hash_policy, "hash_policy", hash_policy)?,
        metadata_match: subset::criteria(m.metadata_match.as_ref(), None),
        tunneling: m
            .tunneling_config
            .as_ref()
            .map(|t| tunneling(t).map(Arc::new))
            .transpose()
            .at("tunneling_config")?,
    })
}

fn tunneling(m: &pb::tcp_proxy::TunnelingConfig) -> Result<Tunneling> {
    refuse_set(&[
        (m.propagate_response_headers, "propagate_response_headers"),
        (m.propagate_response_trailers, "propagate_response_trailers"),
        (m.request_id_extension.is_some(), "request_id_extension"),
        (!m.request_id_header.is_empty(), "request_id_header"),
        (
            !m.request_id_metadata_key.is_empty(),
            "request_id_metadata_key",
        ),
        (!m.formatters.is_empty(), "formatters"),
    ])?;
    if m.hostname.is_empty() {
        return refuse("is required").at("hostname");
    }
    if !m.post_path.is_empty() && !m.use_post {
        return refuse("is for use_post alone").at("post_path");
    }
    let path = match m.post_path.as_str() {
        "" => "/",
        path => path,
    };
    let host = written::target(&m.hostname).at("hostname")?;
    Ok(Tunneling {
        host: Template::parse(&host)
            .map_err(DecodeError::from)
            .at("hostname")?,
        post_path: match m.use_post {
            true => Some(written::target(path).at("post_path")?),
            false => None,
        },
        headers: list(&m.headers_to_add, "headers_to_add", header_option)?,
    })
}

fn clusters(m: &pb::TcpProxy) -> Result<TcpClusters> {
    match m.cluster_specifier.as_ref() {
        Some(pb::tcp_proxy::ClusterSpecifier::Cluster(name)) if name.is_empty() => {
            refuse("must not be empty").at("cluster")
        }
        Some(pb::tcp_proxy::ClusterSpecifier::Cluster(name)) => {
            Ok(TcpClusters::Single(name.as_str().into()))
        }
        Some(pb::tcp_proxy::ClusterSpecifier::WeightedClusters(w)) => {
            let clusters = list(&w.clusters, "clusters", |c| {
                if c.name.is_empty() || c.weight == 0 {
                    return refuse("a name and a weight of at least 1 are required");
                }
                Ok(TcpWeightedCluster {
                    name: c.name.as_str().into(),
                    weight: c.weight,
                    metadata_match: subset::criteria(
                        m.metadata_match.as_ref(),
                        c.metadata_match.as_ref(),
                    ),
                })
            })
            .at("weighted_clusters")?;
            if clusters.is_empty() {
                return refuse("at least one cluster is required").at("weighted_clusters.clusters");
            }
            Ok(TcpClusters::Weighted(clusters))
        }
        None => refuse("cluster or weighted_clusters is required"),
    }
}

fn hash_policy(m: &envoy_type::HashPolicy) -> Result<HashPolicy> {
    use envoy_type::hash_policy::PolicySpecifier as P;
    let source = match m.policy_specifier.as_ref() {
        Some(P::SourceIp(_)) => HashSource::SourceIp,
        Some(P::FilterState(_)) => return refuse("is not implemented").at("filter_state"),
        None => return refuse("a policy is required"),
    };
    Ok(HashPolicy {
        source,
        terminal: false,
    })
}
