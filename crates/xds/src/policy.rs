//! Traffic policies onto clusters: balancing, pools and breakers, outlier detection, TLS
//! and the protocol spoken upstream.

use std::time::Duration;

use lateen_model::policy::{
    Algorithm, ClientTls, ClientTlsMode, ConnectionPool, HashTable, LoadBalancer, OutlierDetection,
    RetryBudget, TcpKeepalive, Warmup,
};
use lateen_model::{Port, Protocol, Resolution, Service, TrafficPolicy};
use lateen_xds_proto::UInt64Value;
use lateen_xds_proto::any::{pack, unpack};
use lateen_xds_proto::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, OutlierDetection as WireOutlier, UpstreamConnectionOptions,
    circuit_breakers::{Thresholds, thresholds},
    cluster,
};
use lateen_xds_proto::envoy::config::core::v3::{
    self as core, Http1ProtocolOptions, Http2ProtocolOptions, RuntimeDouble, TransportSocket,
    UpstreamHttpProtocolOptions, transport_socket,
};
use lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsCertificate,
    UpstreamTlsContext, common_tls_context, subject_alt_name_matcher::SanType,
};
use lateen_xds_proto::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options as http,
};
use lateen_xds_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use lateen_xds_proto::envoy::r#type::v3::Percent;

use crate::context::Context;
use crate::wire;

/// Key of the upstream HTTP options in `typed_extension_protocol_options`.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The system's roots where Debian, Ubuntu and Alpine keep them: a client that asks for TLS
/// without naming a CA means these. Envoy has no word for "the system's roots" of its own.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Puts a policy on an outbound cluster.
pub fn apply(
    cx: &Context<'_>,
    c: &mut Cluster,
    policy: &TrafficPolicy,
    service: &Service,
    port: &Port,
) {
    let pool = policy.connection_pool.clone().unwrap_or_default();
    protocol(cx, c, cx.outbound_protocol(port), Some(&pool));
    connection_pool(c, &pool, policy.retry_budget.as_ref());
    load_balancer(c, policy.load_balancer.as_ref(), service);
    if let Some(outlier) = &policy.outlier_detection {
        outlier_detection(c, outlier);
    }
    if let Some(t) = &policy.tls {
        tls(c, t, port.protocol);
    }
}

/// Thresholds that never trip.
pub fn unlimited() -> Option<CircuitBreakers> {
    let max = wire::u32_value(u32::MAX);
    Some(CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: max,
            max_pending_requests: max,
            max_requests: max,
            max_retries: max,
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    })
}

/// Below this share of healthy endpoints all are used.
pub fn panic_threshold(percent: f64) -> Option<cluster::CommonLbConfig> {
    Some(cluster::CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: percent }),
        ..cluster::CommonLbConfig::default()
    })
}

fn options(c: &Cluster) -> HttpProtocolOptions {
    let any = c.typed_extension_protocol_options.get(HTTP_OPTIONS);
    any.and_then(|a| unpack(a).ok()).unwrap_or_default()
}

fn put_options(c: &mut Cluster, options: &HttpProtocolOptions) {
    c.typed_extension_protocol_options
        .insert(HTTP_OPTIONS.to_owned(), pack(options));
}

fn explicit_h2() -> http::UpstreamProtocolOptions {
    use http::explicit_http_config::ProtocolConfig;
    http::UpstreamProtocolOptions::ExplicitHttpConfig(http::ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
            Http2ProtocolOptions::default(),
        )),
    })
}

fn explicit_h1() -> http::UpstreamProtocolOptions {
    use http::explicit_http_config::ProtocolConfig;
    http::UpstreamProtocolOptions::ExplicitHttpConfig(http::ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::HttpProtocolOptions(
            Http1ProtocolOptions::default(),
        )),
    })
}

fn as_downstream() -> http::UpstreamProtocolOptions {
    http::UpstreamProtocolOptions::UseDownstreamProtocolConfig(http::UseDownstreamHttpConfig {
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..http::UseDownstreamHttpConfig::default()
    })
}

/// Speaks upstream what the client speaks; `idle` bounds unused connections.
pub fn downstream_protocol(c: &mut Cluster, idle: Option<Duration>) {
    let options = HttpProtocolOptions {
        common_http_protocol_options: idle.map(|d| core::HttpProtocolOptions {
            idle_timeout: wire::duration(d),
            ..core::HttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(as_downstream()),
        ..HttpProtocolOptions::default()
    };
    put_options(c, &options);
}

/// HTTP/2 for declared HTTP/2, the client's own for detected ports, HTTP/1 otherwise (which
/// needs no word unless other HTTP options are set).
pub fn protocol(cx: &Context<'_>, c: &mut Cluster, p: Protocol, pool: Option<&ConnectionPool>) {
    let mut options = HttpProtocolOptions::default();
    let pool = pool.cloned().unwrap_or_default();
    let upgrade = pool.h2_upgrade.unwrap_or(cx.snapshot.mesh.h2_upgrade);
    options.upstream_protocol_options = if p.is_http2() {
        Some(explicit_h2())
    } else if p == Protocol::Auto || (p.is_http() && pool.use_client_protocol) {
        Some(as_downstream())
    } else if p.is_http() && upgrade {
        Some(explicit_h2())
    } else {
        None
    };
    let common = core::HttpProtocolOptions {
        idle_timeout: pool.http_idle_timeout.and_then(wire::duration),
        max_connection_duration: pool.max_connection_duration.and_then(wire::duration),
        max_requests_per_connection: pool
            .max_requests_per_connection
            .filter(|n| *n > 0)
            .and_then(wire::u32_value),
        ..core::HttpProtocolOptions::default()
    };
    let plain = common == core::HttpProtocolOptions::default();
    if !plain {
        options.common_http_protocol_options = Some(common);
    }
    if let (Some(n), Some(o)) = (
        pool.max_concurrent_streams,
        &mut options.upstream_protocol_options,
    ) {
        concurrent_streams(o, n);
    }
    if options.upstream_protocol_options.is_none() && plain {
        return;
    }
    options
        .upstream_protocol_options
        .get_or_insert_with(explicit_h1);
    put_options(c, &options);
}

fn concurrent_streams(options: &mut http::UpstreamProtocolOptions, n: u32) {
    use http::explicit_http_config::ProtocolConfig;
    let h2 = match options {
        http::UpstreamProtocolOptions::ExplicitHttpConfig(e) => match &mut e.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(h2)) => Some(h2),
            _ => None,
        },
        http::UpstreamProtocolOptions::UseDownstreamProtocolConfig(d) => {
            d.http2_protocol_options.as_mut()
        }
        http::UpstreamProtocolOptions::AutoConfig(_) => None,
    };
    if let Some(h2) = h2 {
        h2.max_concurrent_streams = wire::u32_value(n);
    }
}

fn connection_pool(c: &mut Cluster, pool: &ConnectionPool, budget: Option<&RetryBudget>) {
    if let Some(t) = pool.connect_timeout {
        c.connect_timeout = wire::duration(t);
    }
    if let Some(t) = c
        .circuit_breakers
        .as_mut()
        .and_then(|b| b.thresholds.first_mut())
    {
        let put = |to: &mut Option<_>, n: Option<u32>| {
            if let Some(n) = n.filter(|n| *n > 0) {
                *to = wire::u32_value(n);
            }
        };
        put(&mut t.max_connections, pool.max_connections);
        put(&mut t.max_pending_requests, pool.http1_max_pending_requests);
        put(&mut t.max_requests, pool.http2_max_requests);
        put(&mut t.max_retries, pool.max_retries);
        if let Some(b) = budget {
            t.retry_budget = Some(thresholds::RetryBudget {
                budget_percent: Some(Percent { value: b.percent }),
                min_retry_concurrency: wire::u32_value(b.min_concurrency),
                ..thresholds::RetryBudget::default()
            });
        }
    }
    if let Some(k) = &pool.keepalive {
        c.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive(k)),
            ..UpstreamConnectionOptions::default()
        });
    }
}

fn keepalive(k: &TcpKeepalive) -> core::TcpKeepalive {
    let seconds =
        |d: Option<Duration>| d.and_then(|d| wire::u32_value(u32::try_from(d.as_secs()).ok()?));
    core::TcpKeepalive {
        keepalive_probes: k.probes.and_then(wire::u32_value),
        keepalive_time: seconds(k.time),
        keepalive_interval: seconds(k.interval),
    }
}

fn load_balancer(c: &mut Cluster, lb: Option<&LoadBalancer>, service: &Service) {
    use cluster::{LbConfig, LbPolicy};
    if service.resolution == Resolution::Passthrough {
        return;
    }
    let default = LoadBalancer::default();
    let lb = lb.unwrap_or(&default);
    let slow_start = lb.warmup.as_ref().map(slow_start);
    match &lb.algorithm {
        Algorithm::Unspecified | Algorithm::LeastRequest => {
            c.lb_policy = LbPolicy::LeastRequest as i32;
            c.lb_config = slow_start.map(|s| {
                LbConfig::LeastRequestLbConfig(cluster::LeastRequestLbConfig {
                    slow_start_config: Some(s),
                    ..cluster::LeastRequestLbConfig::default()
                })
            });
        }
        Algorithm::RoundRobin => {
            c.lb_policy = LbPolicy::RoundRobin as i32;
            c.lb_config = slow_start.map(|s| {
                LbConfig::RoundRobinLbConfig(cluster::RoundRobinLbConfig {
                    slow_start_config: Some(s),
                })
            });
        }
        Algorithm::Random => c.lb_policy = LbPolicy::Random as i32,
        Algorithm::Passthrough => {
            c.lb_policy = LbPolicy::ClusterProvided as i32;
            c.cluster_discovery_type = Some(cluster::ClusterDiscoveryType::Type(
                cluster::DiscoveryType::OriginalDst as i32,
            ));
            c.eds_cluster_config = None;
            c.load_assignment = None;
        }
        Algorithm::ConsistentHash(h) => match h.table {
            HashTable::Ring(size) => {
                c.lb_policy = LbPolicy::RingHash as i32;
                c.lb_config = Some(LbConfig::RingHashLbConfig(cluster::RingHashLbConfig {
                    minimum_ring_size: Some(UInt64Value { value: size }),
                    ..cluster::RingHashLbConfig::default()
                }));
            }
            HashTable::Maglev(size) => {
                c.lb_policy = LbPolicy::Maglev as i32;
                c.lb_config = Some(LbConfig::MaglevLbConfig(cluster::MaglevLbConfig {
                    table_size: Some(UInt64Value { value: size }),
                }));
            }
        },
    }
}

fn slow_start(w: &Warmup) -> cluster::SlowStartConfig {
    cluster::SlowStartConfig {
        slow_start_window: wire::duration(w.duration),
        aggression: Some(RuntimeDouble {
            default_value: w.aggression.unwrap_or(1.0),
            // Envoy requires a key; nothing sets it.
            runtime_key: "lateen.slow_start.aggression".to_owned(),
        }),
        min_weight_percent: Some(Percent {
            value: w.minimum_percent.unwrap_or(10.0),
        }),
    }
}

fn outlier_detection(c: &mut Cluster, o: &OutlierDetection) {
    let n = |v: Option<u32>| v.and_then(wire::u32_value);
    let enforce = |v: Option<u32>| {
        v.map(|n| if n > 0 { 100 } else { 0 })
            .and_then(wire::u32_value)
    };
    c.outlier_detection = Some(WireOutlier {
        consecutive_5xx: n(o.consecutive_5xx),
        enforcing_consecutive_5xx: enforce(o.consecutive_5xx),
        consecutive_gateway_failure: n(o.consecutive_gateway),
        enforcing_consecutive_gateway_failure: enforce(o.consecutive_gateway),
        consecutive_local_origin_failure: n(o.consecutive_local_origin),
        enforcing_consecutive_local_origin_failure: enforce(o.consecutive_local_origin),
        split_external_local_origin_errors: o.split_external_local,
        interval: o.interval.and_then(wire::duration),
        base_ejection_time: o.base_ejection_time.and_then(wire::duration),
        max_ejection_percent: n(o.max_ejection_percent),
        // Istio turns success-rate ejection off.
        enforcing_success_rate: wire::u32_value(0),
        ..WireOutlier::default()
    });
    c.common_lb_config = panic_threshold(f64::from(o.min_health_percent.unwrap_or(0)));
}

/// TLS towards the endpoints. ISTIO_MUTUAL is plain text until workloads have identities.
fn tls(c: &mut Cluster, t: &ClientTls, protocol: Protocol) {
    if !matches!(t.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) {
        return;
    }
    let file = |path: &str| core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..core::DataSource::default()
    };
    let sans = t.subject_alt_names.iter().flat_map(|name| {
        [SanType::Uri, SanType::Dns].map(|kind| SubjectAltNameMatcher {
            san_type: kind as i32,
            matcher: Some(StringMatcher {
                match_pattern: Some(string_matcher::MatchPattern::Exact(name.to_string())),
                ..StringMatcher::default()
            }),
            ..SubjectAltNameMatcher::default()
        })
    });
    let mut validation = CertificateValidationContext {
        match_typed_subject_alt_names: sans.collect(),
        crl: t.ca_crl.as_deref().map(file),
        ..CertificateValidationContext::default()
    };
    let ca = t.ca_certificates.as_deref().filter(|ca| *ca != "system");
    validation.trusted_ca = Some(file(ca.unwrap_or(SYSTEM_ROOTS)));
    let mut common = CommonTlsContext::default();
    if !t.insecure_skip_verify {
        common.validation_context_type =
            Some(common_tls_context::ValidationContextType::ValidationContext(validation));
    }
    if let (ClientTlsMode::Mutual, Some(cert), Some(key)) = (
        t.mode,
        t.client_certificate.as_deref(),
        t.private_key.as_deref(),
    ) {
        common.tls_certificates.push(TlsCertificate {
            certificate_chain: Some(file(cert)),
            private_key: Some(file(key)),
            ..TlsCertificate::default()
        });
    }
    let h2 = protocol.is_http2();
    if h2 {
        common.alpn_protocols = vec!["h2".to_owned()];
    }
    auto_sni(c, t);
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: t.sni.as_deref().unwrap_or_default().to_owned(),
        ..UpstreamTlsContext::default()
    };
    c.transport_socket = Some(TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(&context))),
    });
}

/// Without an SNI the Host header is sent as SNI and, without names, checked against the
/// certificate as well.
fn auto_sni(c: &mut Cluster, t: &ClientTls) {
    if t.sni.is_some() {
        return;
    }
    let mut options = options(c);
    options.upstream_http_protocol_options = Some(UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: t.subject_alt_names.is_empty() && !t.insecure_skip_verify,
        ..UpstreamHttpProtocolOptions::default()
    });
    options
        .upstream_protocol_options
        .get_or_insert_with(explicit_h1);
    put_options(c, &options);
}
