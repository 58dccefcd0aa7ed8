//! Clusters.
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::cluster::{
    CircuitBreaker, Cluster, ClusterDiscovery, Http1Options, Http2Options, OriginalDst,
    OutlierDetection, TcpKeepalive, TransportSocket, TransportSocketMatch, UpstreamHttp,
    UpstreamProtocol,
};
use lateen_proxy_core::config::istio::TcpMetadataExchange;
use lateen_proxy_core::config::{BindConfig, Value};
use lateen_xds_proto::Any;
use lateen_xds_proto::envoy::config::cluster::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::clusters::dns::v3 as dns_cluster;
use lateen_xds_proto::envoy::extensions::upstreams::http::v3 as upstream_http;

use super::common::{
    bool_or, config_source, duration, ip_socket_address, metadata, need, opt_duration, percent,
    port, socket_option, struct_to_value, timeout, u32_of,
};
use super::http_connection_manager::{http1, http2};
use super::shared::{self, name};
use super::{
    Collected, Context, Needs, ResourceSource, dns, endpoint, health_check, istio, lb,
    proxy_protocol, subset, tls, type_name, typed,
};
use crate::error::{At, Result, list, refuse, refuse_set};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const DNS_CLUSTER: &str = "envoy.extensions.clusters.dns.v3.DnsCluster";
const MIB: u32 = 1 << 20;

pub(super) fn cluster(
    m: &pb::Cluster,
    c: &Collected<'_>,
    added_via_api: bool,
) -> Result<(Cluster, Option<Needs>)> {
    if m.name.is_empty() {
        return refuse("is required").at("name");
    }
    refuse_unknown(m)?;
    let told = proxy_protocol::upstream(m).at("transport_socket")?;
    let (inner, inner_path) = match &told {
        Some((_, inner)) => (
            inner.as_ref(),
            "transport_socket.typed_config.transport_socket",
        ),
        None => (m.transport_socket.as_ref(), "transport_socket"),
    };
    let (discovery, needs) = discovery(m, c.context)?;
    let load_assignment = m
        .load_assignment
        .as_ref()
        .map(|a| endpoint::assignment(a).map(Arc::new))
        .transpose()
        .at("load_assignment")?;
    if let (ClusterDiscovery::Static, Some(assignment)) = (&discovery, &load_assignment) {
        endpoint::only_addresses(assignment).at("load_assignment")?;
    }
    if let ClusterDiscovery::LogicalDns(_) = discovery {
        let count = load_assignment
            .as_ref()
            .map_or(0, |a| a.endpoints().count());
        if count != 1 {
            return refuse("LOGICAL_DNS clusters must have exactly one endpoint")
                .at("load_assignment");
        }
    }
    let (lb_policy, lb_common) = lb::policy(m, &discovery)?;
    let http = upstream_http(m)?;
    let stat = m.alt_stat_name.trim_end_matches(';');
    let cluster = Cluster {
        name: name(&m.name),
        stat_name: name(if stat.is_empty() { &m.name } else { stat }),
        discovery,
        load_assignment,
        lb_common,
        lb_policy,
        subsets: m
            .lb_subset_config
            .as_ref()
            .map(|c| subset::config(c).map(Arc::new))
            .transpose()
            .at("lb_subset_config")?,
        connect_timeout: connect_timeout(m).at("connect_timeout")?,
        per_connection_buffer_limit: u32_of(m.per_connection_buffer_limit_bytes.as_ref())
            .unwrap_or(MIB),
        circuit_breakers: shared::breakers(circuit_breakers(m)?),
        outlier_detection: m
            .outlier_detection
            .as_ref()
            .map(|o| outlier(o).map(Arc::new))
            .transpose()
            .at("outlier_detection")?,
        health_checks: health_check::checks(m, http.protocol != UpstreamProtocol::Http1)?,
        http: shared::http(http),
        transport_socket: transport(inner, c).at(inner_path)?,
        transport_socket_matches: list(
            &m.transport_socket_matches,
            "transport_socket_matches",
            |t| {
                Ok(TransportSocketMatch {
                    name: name(&t.name),
                    criteria: t
                        .r#match
                        .as_ref()
                        .map_or_else(|| Value::Struct(Default::default()), struct_to_value),
                    transport_socket: transport(t.transport_socket.as_ref(), c)
                        .at("transport_socket")?,
                })
            },
        )?,
        bind: m
            .upstream_bind_config
            .as_ref()
            .map(|b| bind(b).map(Arc::new))
            .transpose()
            .at("upstream_bind_config")?,
        tcp_keepalive: m
            .upstream_connection_options
            .as_ref()
            .and_then(|o| o.tcp_keepalive.as_ref())
            .map(|k| TcpKeepalive {
                probes: u32_of(k.keepalive_probes.as_ref()),
                time: u32_of(k.keepalive_time.as_ref()),
                interval: u32_of(k.keepalive_interval.as_ref()),
            }),
        metadata: metadata(m.metadata.as_ref()),
        proxy_protocol: told.as_ref().map(|(version, _)| *version),
        close_connections_on_host_health_failure: m.close_connections_on_host_health_failure,
        metadata_exchange: filters(m)?,
        connection_pool_per_downstream_connection: m.connection_pool_per_downstream_connection,
        wait_for_warm: bool_or(m.wait_for_warm_on_init.as_ref(), true),
        added_via_api,
    };
    Ok((cluster, needs))
}

fn connect_timeout(m: &pb::Cluster) -> Result<Duration> {
    match m.connect_timeout.as_ref().map(duration).transpose()? {
        None => Ok(Duration::from_secs(5)),
        Some(Duration::ZERO) => refuse("must be greater than 0s"),
        Some(time) => Ok(time),
    }
}

/// What is accepted and has no effect here stands, with the reason, in the list
/// of the test that sets every field (`fields`).
fn refuse_unknown(m: &pb::Cluster) -> Result<()> {
    use pb::cluster::{ClusterDiscoveryType, DiscoveryType};
    let common = m.common_lb_config.as_ref();
    let connection = m.upstream_connection_options.as_ref();
    refuse_set(&[
        (
            m.transport_socket_matcher.is_some(),
            "transport_socket_matcher",
        ),
        (m.lrs_server.is_some(), "lrs_server"),
        (m.upstream_config.is_some(), "upstream_config"),
        (m.preconnect_policy.is_some(), "preconnect_policy"),
        (
            m.close_connections_on_host_health_failure,
            "close_connections_on_host_health_failure",
        ),
        (
            m.connection_pool_per_downstream_connection,
            "connection_pool_per_downstream_connection",
        ),
        (m.stats_matcher.is_some(), "stats_matcher"),
        (
            m.per_connection_buffer_high_watermark_timeout.is_some(),
            "per_connection_buffer_high_watermark_timeout",
        ),
        (m.queuing_policies.is_some(), "queuing_policies"),
        (
            !m.lrs_report_endpoint_metrics.is_empty(),
            "lrs_report_endpoint_metrics",
        ),
        (m.track_timeout_budgets, "track_timeout_budgets"),
        (
            m.track_cluster_stats.as_ref().is_some_and(tracks),
            "track_cluster_stats",
        ),
        (
            common.is_some_and(|c| c.close_connections_on_host_set_change),
            "common_lb_config.close_connections_on_host_set_change",
        ),
        (
            common.is_some_and(|c| c.override_host_status.is_some()),
            "common_lb_config.override_host_status",
        ),
        (
            connection.is_some_and(|c| c.set_local_interface_name_on_upstream_connections),
            "upstream_connection_options.set_local_interface_name_on_upstream_connections",
        ),
        (
            connection.is_some_and(|c| c.happy_eyeballs_config.is_some()),
            "upstream_connection_options.happy_eyeballs_config",
        ),
    ])?;
    let eds = matches!(
        m.cluster_discovery_type,
        Some(ClusterDiscoveryType::Type(t)) if t == DiscoveryType::Eds as i32
    );
    match &m.eds_cluster_config {
        Some(_) if !eds => refuse("is of use with EDS only").at("eds_cluster_config"),
        _ => Ok(()),
    }
}

fn tracks(m: &pb::TrackClusterStats) -> bool {
    m.timeout_budgets || m.request_response_sizes || m.per_endpoint_stats
}

fn discovery(m: &pb::Cluster, context: &Context) -> Result<(ClusterDiscovery, Option<Needs>)> {
    use pb::cluster::{ClusterDiscoveryType as T, DiscoveryType as D};
    let kind = match m.cluster_discovery_type.as_ref() {
        None => D::Static,
        Some(T::Type(t)) => match D::try_from(*t) {
            Ok(kind) => kind,
            Err(_) => return refuse(format!("{t} is no known discovery type")).at("type"),
        },
        Some(T::ClusterType(t)) => return Ok((extension(t).at("cluster_type")?, None)),
    };
    let plain = |d| Ok((d, None));
    match kind {
        D::Static => plain(ClusterDiscovery::Static),
        D::StrictDns => plain(ClusterDiscovery::StrictDns(Arc::new(dns::settings(m)?))),
        D::LogicalDns => plain(ClusterDiscovery::LogicalDns(Arc::new(dns::settings(m)?))),
        D::OriginalDst => plain(ClusterDiscovery::OriginalDst(Arc::new(original_dst(m)?))),
        D::Eds => {
            let eds = need(m.eds_cluster_config.as_ref(), "eds_cluster_config")?;
            let (source, fetch_timeout_ms) = config_source(eds.eds_config.as_ref(), context)
                .at("eds_config")
                .at("eds_cluster_config")?;
            let name = name(match eds.service_name.as_str() {
                "" => &m.name,
                name => name,
            });
            let name = match &source {
                ResourceSource::Ads => name,
                other => other.key(&name),
            };
            let needs = Needs {
                name: name.clone(),
                fetch_timeout_ms,
                source,
            };
            Ok((ClusterDiscovery::Eds { service_name: name }, Some(needs)))
        }
    }
}

/// A kind of cluster that is named by its extension.
fn extension(m: &pb::cluster::CustomClusterType) -> Result<ClusterDiscovery> {
    let any = need(m.typed_config.as_ref(), "typed_config")?;
    if type_name(any)? != DNS_CLUSTER {
        return refuse(format!("cluster type {} is not implemented", m.name));
    }
    let m: dns_cluster::DnsCluster = typed(any).at("typed_config")?;
    let dns = Arc::new(dns::extension(&m).at("typed_config")?);
    Ok(match m.all_addresses_in_single_endpoint {
        true => ClusterDiscovery::LogicalDns(dns),
        false => ClusterDiscovery::StrictDns(dns),
    })
}

fn original_dst(m: &pb::Cluster) -> Result<OriginalDst> {
    let config = match &m.lb_config {
        Some(pb::cluster::LbConfig::OriginalDstLbConfig(o)) => o.clone(),
        _ => pb::cluster::OriginalDstLbConfig::default(),
    };
    if config.metadata_key.is_some() {
        return refuse("is not implemented").at("original_dst_lb_config.metadata_key");
    }
    let header = if config.http_header_name.is_empty() {
        "x-envoy-original-dst-host".to_owned()
    } else {
        config.http_header_name.to_ascii_lowercase()
    };
    Ok(OriginalDst {
        use_http_header: config.use_http_header,
        http_header_name: header.into(),
        upstream_port_override: config
            .upstream_port_override
            .as_ref()
            .map(|p| port(p.value))
            .transpose()
            .at("original_dst_lb_config.upstream_port_override")?,
    })
}

fn circuit_breakers(m: &pb::Cluster) -> Result<[CircuitBreaker; 2]> {
    let mut out = [CircuitBreaker::default(), CircuitBreaker::default()];
    let Some(all) = &m.circuit_breakers else {
        return Ok(out);
    };
    if !all.per_host_thresholds.is_empty() {
        return refuse("is not implemented").at("circuit_breakers.per_host_thresholds");
    }
    for (i, t) in all.thresholds.iter().enumerate() {
        let Some(slot) = usize::try_from(t.priority)
            .ok()
            .and_then(|p| out.get_mut(p))
        else {
            return refuse("is no known priority").item("circuit_breakers.thresholds", i);
        };
        let budget = t.retry_budget.as_ref();
        refuse_set(&[
            (t.max_connection_pools.is_some(), "max_connection_pools"),
            (
                budget.is_some_and(|b| b.budget_interval.is_some()),
                "retry_budget.budget_interval",
            ),
        ])
        .item("circuit_breakers.thresholds", i)?;
        let d = CircuitBreaker::default();
        *slot = CircuitBreaker {
            max_connections: u32_of(t.max_connections.as_ref()).unwrap_or(d.max_connections),
            max_pending_requests: u32_of(t.max_pending_requests.as_ref())
                .unwrap_or(d.max_pending_requests),
            max_requests: u32_of(t.max_requests.as_ref()).unwrap_or(d.max_requests),
            max_retries: u32_of(t.max_retries.as_ref()).unwrap_or(d.max_retries),
            retry_budget: t
                .retry_budget
                .as_ref()
                .map(retry_budget)
                .transpose()
                .item("circuit_breakers.thresholds", i)?,
            max_connection_pools: u32_of(t.max_connection_pools.as_ref()),
            track_remaining: t.track_remaining,
        };
    }
    Ok(out)
}

fn retry_budget(m: &pb::circuit_breakers::thresholds::RetryBudget) -> Result<(f64, u32)> {
    let share = percent(m.budget_percent.as_ref(), "budget_percent", 20.0);
    let least = u32_of(m.min_retry_concurrency.as_ref()).unwrap_or(3);
    Ok((share.at("retry_budget")?, least))
}

fn outlier(m: &pb::OutlierDetection) -> Result<OutlierDetection> {
    let d = OutlierDetection::default();
    refuse_set(&[
        (!m.monitors.is_empty(), "monitors"),
        (
            bool_or(m.detect_degraded_hosts.as_ref(), false),
            "detect_degraded_hosts",
        ),
    ])?;
    let or = |v: Option<&_>, default| u32_of(v).unwrap_or(default);
    let time = |v: Option<&_>, field, default| -> Result<Duration> {
        Ok(opt_duration(v, field)?.unwrap_or(default))
    };
    let base = time(
        m.base_ejection_time.as_ref(),
        "base_ejection_time",
        d.base_ejection_time,
    )?;
    Ok(OutlierDetection {
        consecutive_5xx: or(m.consecutive_5xx.as_ref(), d.consecutive_5xx),
        enforcing_consecutive_5xx: or(
            m.enforcing_consecutive_5xx.as_ref(),
            d.enforcing_consecutive_5xx,
        ),
        consecutive_gateway_failure: or(
            m.consecutive_gateway_failure.as_ref(),
            d.consecutive_gateway_failure,
        ),
        enforcing_consecutive_gateway_failure: or(
            m.enforcing_consecutive_gateway_failure.as_ref(),
            d.enforcing_consecutive_gateway_failure,
        ),
        split_external_local_origin_errors: m.split_external_local_origin_errors,
        consecutive_local_origin_failure: or(
            m.consecutive_local_origin_failure.as_ref(),
            d.consecutive_local_origin_failure,
        ),
        enforcing_consecutive_local_origin_failure: or(
            m.enforcing_consecutive_local_origin_failure.as_ref(),
            d.enforcing_consecutive_local_origin_failure,
        ),
        interval: time(m.interval.as_ref(), "interval", d.interval)?,
        base_ejection_time: base,
        max_ejection_time: time(
            m.max_ejection_time.as_ref(),
            "max_ejection_time",
            d.max_ejection_time.max(base),
        )?,
        max_ejection_time_jitter: time(
            m.max_ejection_time_jitter.as_ref(),
            "max_ejection_time_jitter",
            d.max_ejection_time_jitter,
        )?,
        max_ejection_percent: or(m.max_ejection_percent.as_ref(), d.max_ejection_percent),
        enforcing_success_rate: or(m.enforcing_success_rate.as_ref(), d.enforcing_success_rate),
        enforcing_local_origin_success_rate: or(
            m.enforcing_local_origin_success_rate.as_ref(),
            d.enforcing_local_origin_success_rate,
        ),
        enforcing_failure_percentage_local_origin: or(
            m.enforcing_failure_percentage_local_origin.as_ref(),
            d.enforcing_failure_percentage_local_origin,
        ),
        success_rate_minimum_hosts: or(
            m.success_rate_minimum_hosts.as_ref(),
            d.success_rate_minimum_hosts,
        ),
        success_rate_request_volume: or(
            m.success_rate_request_volume.as_ref(),
            d.success_rate_request_volume,
        ),
        success_rate_stdev_factor: or(
            m.success_rate_stdev_factor.as_ref(),
            d.success_rate_stdev_factor,
        ),
        failure_percentage_threshold: or(
            m.failure_percentage_threshold.as_ref(),
            d.failure_percentage_threshold,
        ),
        enforcing_failure_percentage: or(
            m.enforcing_failure_percentage.as_ref(),
            d.enforcing_failure_percentage,
        ),
        failure_percentage_minimum_hosts: or(
            m.failure_percentage_minimum_hosts.as_ref(),
            d.failure_percentage_minimum_hosts,
        ),
        failure_percentage_request_volume: or(
            m.failure_percentage_request_volume.as_ref(),
            d.failure_percentage_request_volume,
        ),
        always_eject_one_host: bool_or(m.always_eject_one_host.as_ref(), d.always_eject_one_host),
        successful_active_health_check_uneject_host: bool_or(
            m.successful_active_health_check_uneject_host.as_ref(),
            d.successful_active_health_check_uneject_host,
        ),
    })
}

/// HTTP options: the typed extension, else the older fields of the cluster.
fn upstream_http(m: &pb::Cluster) -> Result<UpstreamHttp> {
    if let Some((key, any)) = m.typed_extension_protocol_options.iter().next() {
        let place = format!("typed_extension_protocol_options[{key:?}]");
        if m.typed_extension_protocol_options.len() > 1
            || type_name(any).at(&place)? != HTTP_OPTIONS
            || key != HTTP_OPTIONS
        {
            return refuse("only HttpProtocolOptions are implemented").at(&place);
        }
        let options = typed(any).at(&place)?;
        return http_options(&options).at(&place);
    }
    let mut http = UpstreamHttp::default();
    if let Some(common) = &m.common_http_protocol_options {
        common_http(common, &mut http).at("common_http_protocol_options")?;
    }
    http.http1 = to_http1(m.http_protocol_options.as_ref()).at("http_protocol_options")?;
    http.http2 = to_http2(m.http2_protocol_options.as_ref()).at("http2_protocol_options")?;
    let use_downstream =
        m.protocol_selection == pb::cluster::ClusterProtocolSelection::UseDownstreamProtocol as i32;
    http.protocol = match (use_downstream, m.http2_protocol_options.is_some()) {
        (true, _) => UpstreamProtocol::UseDownstream,
        (false, true) => UpstreamProtocol::Http2,
        (false, false) => UpstreamProtocol::Http1,
    };
    if let Some(max) = u32_of(m.max_requests_per_connection.as_ref()) {
        http.max_requests_per_connection = (max > 0).then_some(max);
    }
    if let Some(u) = &m.upstream_http_protocol_options {
        upstream_options(u, &mut http).at("upstream_http_protocol_options")?;
    }
    Ok(http)
}

fn upstream_options(m: &core::UpstreamHttpProtocolOptions, http: &mut UpstreamHttp) -> Result<()> {
    refuse_set(&[(
        !m.override_auto_sni_header.is_empty(),
        "override_auto_sni_header",
    )])?;
    http.auto_sni = m.auto_sni;
    http.auto_san_validation = m.auto_san_validation;
    Ok(())
}

/// HTTP/1 towards endpoints. What only servers do with it is of no meaning here.
fn to_http1(m: Option<&core::Http1ProtocolOptions>) -> Result<Http1Options> {
    if let Some(m) = m {
        let fully = m.send_fully_qualified_url;
        refuse_set(&[
            (fully, "send_fully_qualified_url"),
            (
                !m.ignore_http_11_upgrade.is_empty(),
                "ignore_http_11_upgrade",
            ),
        ])?;
    }
    http1(m, false)
}

fn to_http2(m: Option<&core::Http2ProtocolOptions>) -> Result<Http2Options> {
    if let Some(m) = m {
        let alive = m.connection_keepalive.as_ref();
        let huffman = bool_or(m.enable_huffman_encoding.as_ref(), true);
        refuse_set(&[
            (!huffman, "enable_huffman_encoding"),
            (m.max_metadata_size.is_some(), "max_metadata_size"),
            (
                m.max_header_field_size_kb.is_some(),
                "max_header_field_size_kb",
            ),
            (
                bool_or(m.disallow_obs_text.as_ref(), false),
                "disallow_obs_text",
            ),
            (
                alive.is_some_and(|k| k.connection_idle_interval.is_some()),
                "connection_keepalive.connection_idle_interval",
            ),
        ])?;
    }
    http2(m)
}

fn common_http(m: &core::HttpProtocolOptions, http: &mut UpstreamHttp) -> Result<()> {
    // The parser of answers takes at most 100 headers, Envoy's default; a higher or lower bound
    // cannot be kept.
    let count = u32_of(m.max_headers_count.as_ref());
    let underscores = m.headers_with_underscores_action != 0;
    refuse_set(&[
        (count.is_some_and(|n| n != 100), "max_headers_count"),
        (
            m.max_connection_duration_jitter.is_some(),
            "max_connection_duration_jitter",
        ),
        (
            m.max_response_headers_kb.is_some(),
            "max_response_headers_kb",
        ),
        (underscores, "headers_with_underscores_action"),
    ])?;
    http.idle_timeout = timeout(m.idle_timeout.as_ref(), "idle_timeout", http.idle_timeout)?;
    http.max_connection_duration = timeout(
        m.max_connection_duration.as_ref(),
        "max_connection_duration",
        None,
    )?;
    http.max_stream_duration =
        timeout(m.max_stream_duration.as_ref(), "max_stream_duration", None)?;
    http.max_headers_count = u32_of(m.max_headers_count.as_ref()).unwrap_or(http.max_headers_count);
    http.max_requests_per_connection =
        u32_of(m.max_requests_per_connection.as_ref()).filter(|n| *n > 0);
    Ok(())
}

fn http_options(m: &upstream_http::HttpProtocolOptions) -> Result<UpstreamHttp> {
    use upstream_http::http_protocol_options::UpstreamProtocolOptions as U;
    use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig as P;
    let codec_filter = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
    for (i, filter) in m.http_filters.iter().enumerate() {
        use lateen_xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
        match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) if type_name(any)? == codec_filter => {}
            _ => {
                return refuse(format!(
                    "upstream HTTP filter {} is not implemented",
                    filter.name
                ))
                .item("http_filters", i);
            }
        }
    }
    for (set, field) in [
        (m.outlier_detection.is_some(), "outlier_detection"),
        (
            !m.request_mirror_policies.is_empty(),
            "request_mirror_policies",
        ),
        (!m.hash_policy.is_empty(), "hash_policy"),
        (m.retry_policy.is_some(), "retry_policy"),
        (
            m.header_validation_config.is_some(),
            "header_validation_config",
        ),
    ] {
        if set {
            return refuse("is not implemented").at(field);
        }
    }
    let mut http = UpstreamHttp::default();
    if let Some(common) = &m.common_http_protocol_options {
        common_http(common, &mut http).at("common_http_protocol_options")?;
    }
    if let Some(u) = &m.upstream_http_protocol_options {
        upstream_options(u, &mut http).at("upstream_http_protocol_options")?;
    }
    match m.upstream_protocol_options.as_ref() {
        Some(U::ExplicitHttpConfig(e)) => match e.protocol_config.as_ref() {
            Some(P::HttpProtocolOptions(o)) => {
                http.http1 = to_http1(Some(o)).at("http_protocol_options")?
            }
            Some(P::Http2ProtocolOptions(o)) => {
                http.protocol = UpstreamProtocol::Http2;
                http.http2 = to_http2(Some(o)).at("http2_protocol_options")?;
            }
            Some(P::Http3ProtocolOptions(_)) => {
                return refuse("HTTP/3 is not implemented").at("explicit_http_config");
            }
            None => return refuse("a protocol is required").at("explicit_http_config"),
        },
        Some(U::UseDownstreamProtocolConfig(u)) => {
            refuse_set(&[(u.http3_protocol_options.is_some(), "http3_protocol_options")])
                .at("use_downstream_protocol_config")?;
            http.protocol = UpstreamProtocol::UseDownstream;
            http.http1 = to_http1(u.http_protocol_options.as_ref()).at("http_protocol_options")?;
            http.http2 =
                to_http2(u.http2_protocol_options.as_ref()).at("http2_protocol_options")?;
        }
        Some(U::AutoConfig(a)) => {
            let cache = a.alternate_protocols_cache_options.is_some();
            refuse_set(&[
                (a.http3_protocol_options.is_some(), "http3_protocol_options"),
                (cache, "alternate_protocols_cache_options"),
            ])
            .at("auto_config")?;
            http.protocol = UpstreamProtocol::Auto;
            http.http1 = to_http1(a.http_protocol_options.as_ref()).at("http_protocol_options")?;
            http.http2 =
                to_http2(a.http2_protocol_options.as_ref()).at("http2_protocol_options")?;
        }
        None => {
            return refuse(
                "a protocol is required: explicit_http_config, use_downstream_protocol_config or auto_config",
            );
        }
    }
    Ok(http)
}

fn transport(m: Option<&core::TransportSocket>, c: &Collected<'_>) -> Result<TransportSocket> {
    let Some(m) = m else {
        return Ok(TransportSocket::RawBuffer);
    };
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = &m.config_type else {
        return match m.name.as_str() {
            "envoy.transport_sockets.raw_buffer" | "raw_buffer" => Ok(TransportSocket::RawBuffer),
            name => refuse(format!("transport socket {name} needs a typed_config")),
        };
    };
    match type_name(any)?.as_str() {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {
            Ok(TransportSocket::RawBuffer)
        }
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            let tls = typed(any)
                .and_then(|t| tls::upstream(&t, c))
                .at("typed_config")?;
            Ok(TransportSocket::Tls(Arc::new(tls)))
        }
        other => refuse(format!(
            "transport socket {other} ({}) is not implemented",
            m.name
        ))
        .at("typed_config"),
    }
}

fn bind(m: &core::BindConfig) -> Result<BindConfig> {
    refuse_set(&[
        (m.local_address_selector.is_some(), "local_address_selector"),
        (
            !m.additional_source_addresses.is_empty(),
            "additional_source_addresses",
        ),
        (m.validate_network_namespaces, "validate_network_namespaces"),
    ])?;
    let mut source_addresses = Vec::new();
    if let Some(address) = &m.source_address {
        source_addresses.push(ip_socket_address(address).at("source_address")?);
    }
    source_addresses.extend(list(
        &m.extra_source_addresses,
        "extra_source_addresses",
        |e| {
            refuse_set(&[(e.socket_options.is_some(), "socket_options")])?;
            ip_socket_address(need(e.address.as_ref(), "address")?).at("address")
        },
    )?);
    Ok(BindConfig {
        source_addresses,
        freebind: bool_or(m.freebind.as_ref(), false),
        socket_options: list(&m.socket_options, "socket_options", socket_option)?,
    })
}

/// Cluster filters: only Istio's metadata exchange is known.
fn filters(m: &pb::Cluster) -> Result<Option<Arc<TcpMetadataExchange>>> {
    let mut found = None;
    for (i, f) in m.filters.iter().enumerate() {
        let any: &Any = need(f.typed_config.as_ref(), "typed_config").item("filters", i)?;
        let name = type_name(any).item("filters", i)?;
        if name != istio::METADATA_EXCHANGE {
            return refuse(format!(
                "cluster filter {name} ({}) is not implemented",
                f.name
            ))
            .item("filters", i);
        }
        found = Some(Arc::new(
            istio::tcp_metadata_exchange(any).item("filters", i)?,
        ));
    }
    Ok(found)
}
