//! Tracing of a connection manager and its providers: Zipkin and OpenTelemetry.
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::tracing::{
    CustomTag, OpenTelemetry, Provider, RouteTracing, Sampling, Tracing, Zipkin,
};
use lateen_proxy_core::config::{FractionalPercent, Name};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::route::v3 as route;
use lateen_xds_proto::envoy::config::trace::v3 as pb;
use lateen_xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as inner;
use lateen_xds_proto::envoy::r#type::tracing::v3::{CustomTag as Tag, custom_tag::Type as T};
use lateen_xds_proto::envoy::r#type::v3 as envoy_type;

use super::common::{bool_or, fractional, need, opt_duration, percent, u32_of};
use super::{Context, type_name, typed};
use crate::error::{At, Result, list, refuse, refuse_set};

/// Where OTLP over gRPC goes (opentelemetry-proto, collector/trace/v1/trace_service.proto).
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub(super) fn tracing(m: &inner::Tracing, context: &Context) -> Result<Tracing> {
    refuse_set(&[
        (m.verbose, "verbose"),
        (!m.operation.is_empty(), "operation"),
        (!m.upstream_operation.is_empty(), "upstream_operation"),
        (m.no_context_propagation, "no_context_propagation"),
    ])?;
    let provider = m.provider.as_ref().map(provider).transpose();
    let tag = |tag: &Tag| custom_tag(tag, context);
    Ok(Tracing {
        sampling: Sampling {
            client: share(m.client_sampling.as_ref(), "client_sampling")?,
            random: share(m.random_sampling.as_ref(), "random_sampling")?,
            overall: share(m.overall_sampling.as_ref(), "overall_sampling")?,
        },
        max_path_tag_length: u32_of(m.max_path_tag_length.as_ref()).unwrap_or(256),
        custom_tags: list(&m.custom_tags, "custom_tags", tag)?,
        spawn_upstream_span: bool_or(m.spawn_upstream_span.as_ref(), false),
        provider: provider.at("provider")?.map(Arc::new),
    })
}

/// A percent with two places; all where nothing is said.
fn share(m: Option<&envoy_type::Percent>, field: &str) -> Result<FractionalPercent> {
    let percent = percent(m, field, 100.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percent is from 0 to 100"
    )]
    let numerator = (percent * 100.0).round() as u32;
    Ok(FractionalPercent {
        numerator,
        denominator: 10_000,
    })
}

/// What a route says of traces.
pub(super) fn of_route(m: &route::Tracing, context: &Context) -> Result<RouteTracing> {
    let route::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        custom_tags,
        operation,
        upstream_operation,
    } = m;
    refuse_set(&[
        (!operation.is_empty(), "operation"),
        (!upstream_operation.is_empty(), "upstream_operation"),
    ])?;
    let share = |m: &Option<envoy_type::FractionalPercent>, field: &str| match m {
        Some(m) => fractional(m).at(field),
        None => Ok(FractionalPercent::ALL),
    };
    Ok(RouteTracing {
        sampling: Sampling {
            client: share(client_sampling, "client_sampling")?,
            random: share(random_sampling, "random_sampling")?,
            overall: share(overall_sampling, "overall_sampling")?,
        },
        custom_tags: list(custom_tags, "custom_tags", |tag| custom_tag(tag, context))?,
    })
}

fn custom_tag(m: &Tag, context: &Context) -> Result<(Name, CustomTag)> {
    if m.tag.is_empty() {
        return refuse("is required").at("tag");
    }
    let value = match m.r#type.as_ref() {
        Some(T::Literal(l)) => CustomTag::Literal(l.value.as_str().into()),
        Some(T::RequestHeader(h)) => {
            let name = h.name.to_ascii_lowercase();
            CustomTag::Header(name.into(), h.default_value.as_str().into())
        }
        Some(T::Environment(e)) => {
            let value = (context.environment)(&e.name);
            CustomTag::Literal(value.unwrap_or_else(|| e.default_value.clone()).into())
        }
        Some(T::Metadata(_)) => {
            return refuse(format!("tag {}: is not implemented", m.tag)).at("metadata");
        }
        _ => return refuse(format!("the value of tag {} is not implemented", m.tag)),
    };
    Ok((m.tag.as_str().into(), value))
}

fn provider(m: &pb::tracing::Http) -> Result<Provider> {
    let Some(pb::tracing::http::ConfigType::TypedConfig(any)) = &m.config_type else {
        return refuse("is required").at("typed_config");
    };
    match type_name(any)?.as_str() {
        "envoy.config.trace.v3.ZipkinConfig" => zipkin(&typed(any).at("typed_config")?)
            .map(Provider::Zipkin)
            .at("typed_config"),
        "envoy.config.trace.v3.OpenTelemetryConfig" => {
            open_telemetry(&typed(any).at("typed_config")?)
                .map(Provider::OpenTelemetry)
                .at("typed_config")
        }
        _ => refuse(format!("tracing provider {} is not implemented", m.name)),
    }
}

fn zipkin(m: &pb::ZipkinConfig) -> Result<Zipkin> {
    use pb::zipkin_config::{CollectorEndpointVersion as Version, TraceContextOption as Option};
    if m.collector_cluster.is_empty() {
        return refuse("is required").at("collector_cluster");
    }
    if m.collector_endpoint.is_empty() {
        return refuse("is required").at("collector_endpoint");
    }
    if m.collector_endpoint_version != Version::HttpJson as i32 {
        return refuse("only HTTP_JSON is implemented").at("collector_endpoint_version");
    }
    refuse_set(&[
        (m.split_spans_for_request, "split_spans_for_request"),
        (m.collector_service.is_some(), "collector_service"),
        (m.timestamp_trace_ids, "timestamp_trace_ids"),
    ])?;
    let host = match m.collector_hostname.is_empty() {
        true => &m.collector_cluster,
        false => &m.collector_hostname,
    };
    Ok(Zipkin {
        cluster: m.collector_cluster.as_str().into(),
        path: m.collector_endpoint.as_str().into(),
        host: host.as_str().into(),
        trace_id_128bit: m.trace_id_128bit,
        shared_span_context: bool_or(m.shared_span_context.as_ref(), true),
        with_w3c: match Option::try_from(m.trace_context_option) {
            Ok(Option::UseB3) => false,
            Ok(Option::UseB3WithW3cPropagation) => true,
            Err(_) => return refuse("is no known option").at("trace_context_option"),
        },
    })
}

fn open_telemetry(m: &pb::OpenTelemetryConfig) -> Result<OpenTelemetry> {
    refuse_set(&[
        (m.exporter.is_some(), "exporter"),
        (!m.resource_detectors.is_empty(), "resource_detectors"),
        (m.sampler.is_some(), "sampler"),
        (m.max_cache_size.is_some(), "max_cache_size"),
    ])?;
    let mut made = match (&m.grpc_service, &m.http_service) {
        (Some(grpc), None) => grpc_service(grpc).at("grpc_service")?,
        (None, Some(http)) => http_service(http).at("http_service")?,
        (None, None) => return refuse("grpc_service or http_service is required"),
        _ => return refuse("grpc_service and http_service exclude each other"),
    };
    if !m.service_name.is_empty() {
        made.service_name = m.service_name.as_str().into();
    }
    Ok(made)
}

fn grpc_service(m: &core::GrpcService) -> Result<OpenTelemetry> {
    use core::grpc_service::TargetSpecifier as Target;
    let Some(Target::EnvoyGrpc(envoy)) = &m.target_specifier else {
        return refuse("is required; google_grpc is not implemented").at("envoy_grpc");
    };
    if envoy.cluster_name.is_empty() {
        return refuse("is required").at("envoy_grpc.cluster_name");
    }
    refuse_set(&[
        (envoy.retry_policy.is_some(), "envoy_grpc.retry_policy"),
        (m.retry_policy.is_some(), "retry_policy"),
    ])?;
    let host = match envoy.authority.is_empty() {
        true => &envoy.cluster_name,
        false => &envoy.authority,
    };
    let headers = list(&m.initial_metadata, "initial_metadata", |h| {
        Ok((
            Name::from(h.key.to_ascii_lowercase()),
            Name::from(h.value.as_str()),
        ))
    })?;
    let timeout = opt_duration(m.timeout.as_ref(), "timeout")?;
    Ok(made(
        &envoy.cluster_name,
        EXPORT,
        host,
        true,
        timeout,
        headers,
    ))
}

fn http_service(m: &core::HttpService) -> Result<OpenTelemetry> {
    use core::http_uri::HttpUpstreamType as Upstream;
    let uri = need(m.http_uri.as_ref(), "http_uri")?;
    let Some(Upstream::Cluster(cluster)) = uri.http_upstream_type.as_ref() else {
        return refuse("is required").at("http_uri.cluster");
    };
    let rest = uri
        .uri
        .split_once("://")
        .map_or(uri.uri.as_str(), |(_, rest)| rest);
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let path = if path.is_empty() { "/" } else { path };
    let headers = list(&m.request_headers_to_add, "request_headers_to_add", |h| {
        let header = need(h.header.as_ref(), "header")?;
        if header.value.contains('%') {
            return refuse("operators are not implemented here").at("header.value");
        }
        let name = Name::from(header.key.to_ascii_lowercase());
        Ok((name, Name::from(header.value.as_str())))
    })?;
    let timeout = opt_duration(uri.timeout.as_ref(), "http_uri.timeout")?;
    Ok(made(cluster, path, host, false, timeout, headers))
}

fn made(
    cluster: &str,
    path: &str,
    host: &str,
    grpc: bool,
    timeout: Option<Duration>,
    headers: Vec<(Name, Name)>,
) -> OpenTelemetry {
    OpenTelemetry {
        cluster: cluster.into(),
        path: path.into(),
        host: host.into(),
        grpc,
        timeout: timeout
            .filter(|t| !t.is_zero())
            .unwrap_or(Duration::from_secs(5)),
        headers,
        service_name: "unknown_service:envoy".into(),
    }
}
