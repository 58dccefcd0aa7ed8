//! Active health checks.
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::access_log::Op;
use lateen_proxy_core::config::cluster::{HealthCheck, HealthProbe, ProbeHeaders};
use lateen_proxy_core::config::headers::AppendAction;
use lateen_proxy_core::config::{Metadata, Name};
use lateen_xds_proto::envoy::config::cluster::v3 as cluster;
use lateen_xds_proto::envoy::config::core::v3 as core;

use super::common::{bool_or, header_names, header_option, opt_duration, struct_to_value};
use super::matcher;
use crate::error::{At, Result, list, refuse, refuse_set};

/// The checks of a cluster: none or one.
pub(super) fn checks(m: &cluster::Cluster, speaks_http2: bool) -> Result<Vec<HealthCheck>> {
    if m.health_checks.len() > 1 {
        return refuse("more than one health check is not supported").at("health_checks");
    }
    list(&m.health_checks, "health_checks", |c| {
        check(c, speaks_http2)
    })
}

fn check(m: &core::HealthCheck, speaks_http2: bool) -> Result<HealthCheck> {
    refuse_set(&[
        (m.alt_port.is_some(), "alt_port"),
        (!m.event_log_path.is_empty(), "event_log_path"),
        (!m.event_logger.is_empty(), "event_logger"),
        (m.event_service.is_some(), "event_service"),
        (
            m.always_log_health_check_failures,
            "always_log_health_check_failures",
        ),
        (
            m.always_log_health_check_success,
            "always_log_health_check_success",
        ),
    ])?;
    let alpn = m.tls_options.as_ref().map(|o| &o.alpn_protocols);
    let criteria = m.transport_socket_match_criteria.as_ref();
    let required = |value, field: &str| match opt_duration(value, field)? {
        Some(time) if !time.is_zero() => Ok(time),
        Some(_) => refuse("must be greater than 0").at(field),
        None => refuse("is required").at(field),
    };
    let threshold = |value: Option<&lateen_xds_proto::UInt32Value>, field: &str| match value {
        Some(value) => Ok(value.value.max(1)),
        None => refuse("is required").at(field),
    };
    let interval = required(m.interval.as_ref(), "interval")?;
    let or = |value, field: &str, default: Duration| match opt_duration(value, field)? {
        Some(time) if time.is_zero() => refuse("must be greater than 0").at(field),
        time => Ok(time.unwrap_or(default)),
    };
    let no_traffic_interval = or(
        m.no_traffic_interval.as_ref(),
        "no_traffic_interval",
        Duration::from_secs(60),
    )?;
    let unhealthy_interval = or(
        m.unhealthy_interval.as_ref(),
        "unhealthy_interval",
        interval,
    )?;
    Ok(HealthCheck {
        timeout: required(m.timeout.as_ref(), "timeout")?,
        interval,
        initial_jitter: opt_duration(m.initial_jitter.as_ref(), "initial_jitter")?
            .unwrap_or_default(),
        interval_jitter: opt_duration(m.interval_jitter.as_ref(), "interval_jitter")?
            .unwrap_or_default(),
        interval_jitter_percent: m.interval_jitter_percent,
        unhealthy_threshold: threshold(m.unhealthy_threshold.as_ref(), "unhealthy_threshold")?,
        healthy_threshold: threshold(m.healthy_threshold.as_ref(), "healthy_threshold")?,
        no_traffic_interval,
        no_traffic_healthy_interval: or(
            m.no_traffic_healthy_interval.as_ref(),
            "no_traffic_healthy_interval",
            no_traffic_interval,
        )?,
        unhealthy_interval,
        unhealthy_edge_interval: or(
            m.unhealthy_edge_interval.as_ref(),
            "unhealthy_edge_interval",
            unhealthy_interval,
        )?,
        healthy_edge_interval: or(
            m.healthy_edge_interval.as_ref(),
            "healthy_edge_interval",
            interval,
        )?,
        reuse_connection: bool_or(m.reuse_connection.as_ref(), true),
        transport_criteria: criteria.map(transport_criteria),
        alpn: alpn.map(|list| list.iter().map(|p| p.as_str().into()).collect()),
        probe: probe(m, speaks_http2)?,
    })
}

fn probe(m: &core::HealthCheck, speaks_http2: bool) -> Result<HealthProbe> {
    use core::health_check::HealthChecker as C;
    match &m.health_checker {
        Some(C::HttpHealthCheck(h)) => http(h).at("http_health_check"),
        Some(C::TcpHealthCheck(t)) => tcp(t).at("tcp_health_check"),
        Some(C::GrpcHealthCheck(_)) if !speaks_http2 => {
            refuse("needs a cluster that speaks HTTP/2").at("grpc_health_check")
        }
        Some(C::GrpcHealthCheck(g)) => grpc(g).at("grpc_health_check"),
        Some(C::CustomHealthCheck(_)) => refuse("is not implemented").at("custom_health_check"),
        None => {
            refuse("one of http_health_check, tcp_health_check and grpc_health_check is required")
        }
    }
}

fn http(m: &core::health_check::HttpHealthCheck) -> Result<HealthProbe> {
    refuse_set(&[
        (m.send.is_some(), "send"),
        (!m.receive.is_empty(), "receive"),
        (m.response_buffer_size.is_some(), "response_buffer_size"),
    ])?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if m.path.is_empty() || !plain(&m.path) {
        return refuse("must be a path without white space").at("path");
    }
    if !plain(&m.host) {
        return refuse("must be a host name").at("host");
    }
    use core::RequestMethod as M;
    let method = match M::try_from(m.method) {
        Ok(M::MethodUnspecified | M::Get) => "GET",
        Ok(M::Connect) => return refuse("must not be CONNECT").at("method"),
        Ok(other) => other.as_str_name(),
        Err(_) => return refuse("is no known method").at("method"),
    };
    let http2 = match m.codec_client_type {
        0 => false,
        1 => true,
        _ => return refuse("HTTP/3 is not implemented").at("codec_client_type"),
    };
    let ranges = |ranges: &[lateen_xds_proto::envoy::r#type::v3::Int64Range], field| {
        list(ranges, field, |r| {
            if r.start < 100 || r.end > 600 || r.start >= r.end {
                return refuse("must be a range [start, end) within [100, 600)");
            }
            Ok((
                u16::try_from(r.start).unwrap_or(100),
                u16::try_from(r.end).unwrap_or(600),
            ))
        })
    };
    Ok(HealthProbe::Http {
        host: m.host.as_str().into(),
        path: m.path.as_str().into(),
        method: method.into(),
        expected: ranges(&m.expected_statuses, "expected_statuses")?,
        retriable: ranges(&m.retriable_statuses, "retriable_statuses")?,
        http2,
        headers: ProbeHeaders {
            remove: header_names(&m.request_headers_to_remove, "request_headers_to_remove")?,
            add: list(
                &m.request_headers_to_add,
                "request_headers_to_add",
                fixed_header,
            )?,
        },
        service: m
            .service_name_matcher
            .as_ref()
            .map(matcher::string)
            .transpose()
            .at("service_name_matcher")?,
    })
}

fn grpc(m: &core::health_check::GrpcHealthCheck) -> Result<HealthProbe> {
    if !m.authority.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse("must be a host name").at("authority");
    }
    Ok(HealthProbe::Grpc {
        service_name: m.service_name.as_str().into(),
        authority: m.authority.as_str().into(),
        headers: ProbeHeaders {
            remove: Vec::new(),
            add: list(&m.initial_metadata, "initial_metadata", fixed_header)?,
        },
    })
}

/// A header of a check: there is no request whose values an operator could mean.
fn fixed_header(m: &core::HeaderValueOption) -> Result<(Name, Name, AppendAction)> {
    let header = header_option(m)?;
    if header.name.starts_with(':') {
        return refuse("must not be a pseudo-header").at("header.key");
    }
    let mut value = String::new();
    for op in header.value.ops() {
        let Op::Literal(text) = op else {
            return refuse("operators are not implemented in health checks").at("header.value");
        };
        value.push_str(text);
    }
    Ok((header.name, value.into(), header.action))
}

fn transport_criteria(m: &lateen_xds_proto::Struct) -> Metadata {
    let namespace = "envoy.transport_socket_match".into();
    Metadata {
        filter: Arc::new([(namespace, struct_to_value(m))].into()),
    }
}

fn tcp(m: &core::health_check::TcpHealthCheck) -> Result<HealthProbe> {
    refuse_set(&[(m.proxy_protocol_config.is_some(), "proxy_protocol_config")])?;
    Ok(HealthProbe::Tcp {
        send: m
            .send
            .as_ref()
            .map(payload)
            .transpose()
            .at("send")?
            .unwrap_or_default(),
        receive: list(&m.receive, "receive", payload)?,
    })
}

/// Bytes, or their hexadecimal text.
fn payload(m: &core::health_check::Payload) -> Result<Vec<u8>> {
    use core::health_check::payload::Payload as P;
    match &m.payload {
        Some(P::Binary(bytes)) => Ok(bytes.clone()),
        Some(P::Text(text)) => {
            let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
            let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
                [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
                _ => None,
            });
            let bytes: Option<Vec<u8>> = pairs.collect();
            match bytes {
                Some(bytes) if !bytes.is_empty() => Ok(bytes),
                _ => refuse("must be pairs of hexadecimal digits").at("text"),
            }
        }
        None => refuse("text or binary is required"),
    }
}
