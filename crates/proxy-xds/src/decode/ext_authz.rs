//! The `ext_authz` filter.
use std::time::Duration;

use lateen_proxy_core::config::ext_authz::{
    AuthzService, CheckedBody, ExtAuthz, ExtAuthzPerRoute, GrpcTarget, HttpAuthz,
};
use lateen_proxy_core::config::http_filter::PerFilterConfig;
use lateen_proxy_core::config::{FractionalPercent, Name};
use lateen_proxy_core::matcher::StringMatcher;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::filters::http::ext_authz::v3 as pb;
use lateen_xds_proto::envoy::r#type::matcher::v3 as matcher_pb;

use super::common::{header_name, need, opt_duration, runtime_fractional};
use super::{jwt, matcher, written};
use crate::error::{At, Result, list, refuse, refuse_set};

pub(super) const FILTER: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
pub(super) const PER_ROUTE: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";

/// How long the service may take where nothing is said.
const TIMEOUT: Duration = Duration::from_millis(200);

pub(super) fn filter(m: &pb::ExtAuthz) -> Result<ExtAuthz> {
    refuse_set(&[
        (
            !m.typed_metadata_context_namespaces.is_empty(),
            "typed_metadata_context_namespaces",
        ),
        (
            !m.route_metadata_context_namespaces.is_empty(),
            "route_metadata_context_namespaces",
        ),
        (
            !m.route_typed_metadata_context_namespaces.is_empty(),
            "route_typed_metadata_context_namespaces",
        ),
        (
            !m.bootstrap_metadata_labels_key.is_empty(),
            "bootstrap_metadata_labels_key",
        ),
        (m.encode_raw_headers, "encode_raw_headers"),
        (
            m.decoder_header_mutation_rules.is_some(),
            "decoder_header_mutation_rules",
        ),
        (
            m.enable_dynamic_metadata_ingestion.is_some(),
            "enable_dynamic_metadata_ingestion",
        ),
        (m.filter_metadata.is_some(), "filter_metadata"),
        (m.emit_filter_state_stats, "emit_filter_state_stats"),
        (m.include_peer_certificate, "include_peer_certificate"),
        (
            m.max_denied_response_body_bytes != 0,
            "max_denied_response_body_bytes",
        ),
        (
            m.enforce_response_header_limits,
            "enforce_response_header_limits",
        ),
        (m.shadow_mode, "shadow_mode"),
        (m.emit_client_span.is_some(), "emit_client_span"),
        (
            m.charge_cluster_response_stats
                .as_ref()
                .is_some_and(|v| !v.value),
            "charge_cluster_response_stats",
        ),
    ])?;
    let service = match m.services.as_ref() {
        // It is the version of the messages: over HTTP there are none.
        Some(pb::ext_authz::Services::GrpcService(_))
            if m.transport_api_version == core::ApiVersion::V2 as i32 =>
        {
            return refuse("must be V3").at("transport_api_version");
        }
        Some(pb::ext_authz::Services::GrpcService(s)) => {
            AuthzService::Grpc(grpc(s, TIMEOUT).at("grpc_service")?)
        }
        Some(pb::ext_authz::Services::HttpService(s)) => {
            AuthzService::Http(http(s).at("http_service")?)
        }
        None => return refuse("grpc_service or http_service is required"),
    };
    let mut allowed_headers = patterns(m.allowed_headers.as_ref()).at("allowed_headers")?;
    if let Some(pb::ext_authz::Services::HttpService(s)) = m.services.as_ref() {
        // The field's old place.
        let old = s.authorization_request.as_ref();
        let old = patterns(old.and_then(|r| r.allowed_headers.as_ref()));
        let old = old.at("http_service.authorization_request.allowed_headers")?;
        allowed_headers.extend(old);
    }
    let status = m.status_on_error.as_ref().map_or(403, |s| s.code);
    let Some(status_on_error) = u16::try_from(status)
        .ok()
        .filter(|s| (200..600).contains(s))
    else {
        return refuse("must be 200 to 599").at("status_on_error.code");
    };
    let deny = m
        .deny_at_disable
        .as_ref()
        .and_then(|f| f.default_value.as_ref());
    let enabled = m
        .filter_enabled
        .as_ref()
        .map(runtime_fractional)
        .transpose();
    Ok(ExtAuthz {
        service,
        failure_mode_allow: m.failure_mode_allow,
        failure_mode_allow_header: m.failure_mode_allow_header_add,
        body: m
            .with_request_body
            .as_ref()
            .map(checked_body)
            .transpose()
            .at("with_request_body")?,
        clear_route_cache: m.clear_route_cache,
        validate_mutations: m.validate_mutations,
        status_on_error,
        enabled: enabled
            .at("filter_enabled")?
            .unwrap_or(FractionalPercent::ALL),
        enabled_metadata: m
            .filter_enabled_metadata
            .as_ref()
            .map(matcher::metadata)
            .transpose()
            .at("filter_enabled_metadata")?,
        deny_at_disable: deny.is_some_and(|v| v.value),
        stat_prefix: m.stat_prefix.as_str().into(),
        allowed_headers,
        disallowed_headers: patterns(m.disallowed_headers.as_ref()).at("disallowed_headers")?,
        metadata_namespaces: names(&m.metadata_context_namespaces),
        include_tls_session: m.include_tls_session,
    })
}

fn names(all: &[String]) -> Vec<Name> {
    all.iter().map(|name| name.as_str().into()).collect()
}

fn patterns(m: Option<&matcher_pb::ListStringMatcher>) -> Result<Vec<StringMatcher>> {
    m.map_or(Ok(Vec::new()), |m| {
        list(&m.patterns, "patterns", matcher::string)
    })
}

fn checked_body(m: &pb::BufferSettings) -> Result<CheckedBody> {
    if m.max_request_bytes == 0 {
        return refuse("must be at least 1").at("max_request_bytes");
    }
    Ok(CheckedBody {
        most: m.max_request_bytes as usize,
        partial: m.allow_partial_message,
        as_bytes: m.pack_as_bytes,
    })
}

fn pairs(all: &[core::HeaderValue], field: &str) -> Result<Vec<(Name, Name)>> {
    list(all, field, |h| {
        refuse_set(&[(!h.raw_value.is_empty(), "raw_value")])?;
        let plain = |b: u8| b == b'\t' || (b >= 0x20 && b != 0x7f);
        if !h.value.bytes().all(plain) {
            return refuse("must hold no control characters").at("value");
        }
        if h.value.contains('%') {
            return refuse("operators are not implemented here").at("value");
        }
        Ok((header_name(&h.key).at("key")?, h.value.as_str().into()))
    })
}

/// A gRPC service behind a cluster of this proxy.
pub(super) fn grpc(m: &core::GrpcService, timeout: Duration) -> Result<GrpcTarget> {
    refuse_set(&[(m.retry_policy.is_some(), "retry_policy")])?;
    let target = match m.target_specifier.as_ref() {
        Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(target)) => target,
        Some(core::grpc_service::TargetSpecifier::GoogleGrpc(_)) => {
            return refuse("is not implemented, envoy_grpc is").at("google_grpc");
        }
        None => return refuse("is required").at("envoy_grpc"),
    };
    if target.cluster_name.is_empty() {
        return refuse("is required").at("envoy_grpc.cluster_name");
    }
    refuse_set(&[
        (target.retry_policy.is_some(), "retry_policy"),
        (
            target.max_receive_message_length.is_some(),
            "max_receive_message_length",
        ),
        (target.skip_envoy_headers, "skip_envoy_headers"),
    ])
    .at("envoy_grpc")?;
    let authority = match target.authority.as_str() {
        "" => &target.cluster_name,
        authority => authority,
    };
    Ok(GrpcTarget {
        cluster: target.cluster_name.as_str().into(),
        authority: authority.into(),
        timeout: opt_duration(m.timeout.as_ref(), "timeout")?.unwrap_or(timeout),
        metadata: pairs(&m.initial_metadata, "initial_metadata")?,
    })
}

fn http(m: &pb::HttpService) -> Result<HttpAuthz> {
    refuse_set(&[(m.retry_policy.is_some(), "retry_policy")])?;
    let uri = need(m.server_uri.as_ref(), "server_uri")?;
    let request = m.authorization_request.clone().unwrap_or_default();
    let answer = m.authorization_response.clone().unwrap_or_default();
    let of = |m: Option<&_>, field: &str| patterns(m).at(field).at("authorization_response");
    for (path, field) in [
        (&m.path_prefix, "path_prefix"),
        (&m.path_override, "path_override"),
    ] {
        if !(path.is_empty() || path.starts_with('/')) {
            return refuse("must start with `/`").at(field);
        }
    }
    if !m.path_prefix.is_empty() && !m.path_override.is_empty() {
        return refuse("must not be set beside path_prefix").at("path_override");
    }
    Ok(HttpAuthz {
        uri: jwt::http_uri(uri).at("server_uri")?,
        path_prefix: written::target(&m.path_prefix).at("path_prefix")?,
        path_override: written::target(&m.path_override).at("path_override")?,
        headers_to_add: pairs(&request.headers_to_add, "headers_to_add")
            .at("authorization_request")?,
        upstream_headers: of(
            answer.allowed_upstream_headers.as_ref(),
            "allowed_upstream_headers",
        )?,
        upstream_headers_to_append: of(
            answer.allowed_upstream_headers_to_append.as_ref(),
            "allowed_upstream_headers_to_append",
        )?,
        client_headers: of(
            answer.allowed_client_headers.as_ref(),
            "allowed_client_headers",
        )?,
        client_headers_on_success: of(
            answer.allowed_client_headers_on_success.as_ref(),
            "allowed_client_headers_on_success",
        )?,
        metadata_headers: of(
            answer.dynamic_metadata_from_headers.as_ref(),
            "dynamic_metadata_from_headers",
        )?,
    })
}

pub(super) fn per_route(m: &pb::ExtAuthzPerRoute) -> Result<PerFilterConfig> {
    use pb::ext_authz_per_route::Override as O;
    match m.r#override.as_ref() {
        Some(O::Disabled(true)) => Ok(PerFilterConfig::Disabled),
        Some(O::Disabled(false)) => Ok(PerFilterConfig::Enabled),
        Some(O::CheckSettings(s)) => {
            let settings = check_settings(s).at("check_settings")?;
            Ok(PerFilterConfig::ExtAuthz(std::sync::Arc::new(settings)))
        }
        None => refuse("disabled or check_settings is required"),
    }
}

fn check_settings(m: &pb::CheckSettings) -> Result<ExtAuthzPerRoute> {
    use pb::check_settings::ServiceOverride as S;
    refuse_set(&[
        (
            matches!(m.service_override, Some(S::GrpcService(_))),
            "grpc_service",
        ),
        (
            matches!(m.service_override, Some(S::HttpService(_))),
            "http_service",
        ),
        (m.emit_client_span.is_some(), "emit_client_span"),
    ])?;
    let mut context_extensions: Vec<(Name, Name)> = m
        .context_extensions
        .iter()
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect();
    context_extensions.sort();
    let body = m.with_request_body.as_ref().map(checked_body).transpose();
    let body = body.at("with_request_body")?;
    if body.is_some() && m.disable_request_body_buffering {
        return refuse("excludes disable_request_body_buffering").at("with_request_body");
    }
    Ok(ExtAuthzPerRoute {
        context_extensions,
        without_body: m.disable_request_body_buffering,
        body,
    })
}
