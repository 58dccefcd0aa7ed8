//! The HTTP connection manager.
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::cluster::{HeaderCase, Http1Options, Http2Options};
use lateen_proxy_core::config::http_connection_manager::{
    ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, PathNormalization, ServerHeader,
    StripPort, Underscores, Upgrade,
};
use lateen_proxy_core::config::{HttpConnectionManager, Name, RouteSource};
use lateen_proxy_core::local_reply::{LocalReplyConfig, ResponseMapper};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use lateen_xds_proto::envoy::extensions::http::header_formatters::preserve_case::v3::{
    PreserveCaseFormatterConfig, preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders,
};
use lateen_xds_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use pb::http_connection_manager as inner;

const PRESERVE_CASE: &str =
    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";

use super::common::{
    bool_or, cidr, config_source, data_source_bytes, header_option, need, opt_duration, timeout,
    u32_of,
};
use super::{
    Collected, Needs, access_log, add_need, http_filter, origin, route, tracing, type_name, typed,
    written,
};
use crate::error::{At, Result, list, refuse, refuse_set};

fn seconds(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

pub(super) fn manager(
    m: &pb::HttpConnectionManager,
    c: &Collected<'_>,
) -> Result<HttpConnectionManager> {
    refuse_unknown(m)?;
    let common = m.common_http_protocol_options.unwrap_or_default();
    let log = m.access_log_options.unwrap_or_default();
    let flush = log
        .access_log_flush_interval
        .as_ref()
        .or(m.access_log_flush_interval.as_ref());
    let internal = m.internal_address_config.clone().unwrap_or_default();
    Ok(HttpConnectionManager {
        stat_prefix: if m.stat_prefix.is_empty() {
            return refuse("is required").at("stat_prefix");
        } else {
            m.stat_prefix.as_str().into()
        },
        codec: match inner::CodecType::try_from(m.codec_type) {
            Ok(inner::CodecType::Auto) => Codec::Auto,
            Ok(inner::CodecType::Http1) => Codec::Http1,
            Ok(inner::CodecType::Http2) => Codec::Http2,
            _ => return refuse("HTTP/3 is not implemented").at("codec_type"),
        },
        routes: routes(m, c)?,
        http_filters: http_filter::required(&m.http_filters, c)?,
        access_logs: access_log::loggers(&m.access_log, c.context)?,
        access_log_flush_interval: timeout(flush, "access_log_flush_interval", None)?,
        access_log_on_new_request: log.flush_access_log_on_new_request
            || m.flush_access_log_on_new_request,
        tracing: m
            .tracing
            .as_ref()
            .map(|t| tracing::tracing(t, c.context))
            .transpose()
            .at("tracing")?,
        http1: http1(m.http_protocol_options.as_ref(), true).at("http_protocol_options")?,
        http2: http2(m.http2_protocol_options.as_ref()).at("http2_protocol_options")?,
        idle_timeout: timeout(
            common.idle_timeout.as_ref(),
            "common_http_protocol_options.idle_timeout",
            seconds(3600),
        )?,
        max_connection_duration: timeout(
            common.max_connection_duration.as_ref(),
            "max_connection_duration",
            None,
        )?,
        max_stream_duration: timeout(
            common.max_stream_duration.as_ref(),
            "max_stream_duration",
            None,
        )?,
        max_requests_per_connection: u32_of(common.max_requests_per_connection.as_ref())
            .filter(|n| *n > 0),
        max_headers_count: u32_of(common.max_headers_count.as_ref()).unwrap_or(100),
        max_request_headers_kb: match u32_of(m.max_request_headers_kb.as_ref()) {
            Some(n @ 1..=8192) => n,
            Some(_) => return refuse("must be 1 to 8192").at("max_request_headers_kb"),
            None => 60,
        },
        underscores: underscores(&common),
        server_name: if m.server_name.is_empty() {
            "envoy".into()
        } else {
            written::value(&m.server_name).at("server_name")?
        },
        server_header: match inner::ServerHeaderTransformation::try_from(
            m.server_header_transformation,
        ) {
            Ok(inner::ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
            Ok(inner::ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
            _ => ServerHeader::Overwrite,
        },
        scheme_overwrite: scheme(m),
        scheme_of_upstream: m
            .scheme_header_transformation
            .as_ref()
            .is_some_and(|t| t.match_upstream),
        stream_idle_timeout: timeout(
            m.stream_idle_timeout.as_ref(),
            "stream_idle_timeout",
            seconds(300),
        )?,
        request_timeout: timeout(m.request_timeout.as_ref(), "request_timeout", None)?,
        request_headers_timeout: timeout(
            m.request_headers_timeout.as_ref(),
            "request_headers_timeout",
            None,
        )?,
        drain_timeout: opt_duration(m.drain_timeout.as_ref(), "drain_timeout")?
            .unwrap_or(Duration::from_secs(5)),
        delayed_close_timeout: timeout(
            m.delayed_close_timeout.as_ref(),
            "delayed_close_timeout",
            seconds(1),
        )?,
        use_remote_address: bool_or(m.use_remote_address.as_ref(), false),
        xff_num_trusted_hops: m.xff_num_trusted_hops,
        original_ip: origin::original_ip(m)?,
        early_edits: origin::early_edits(m)?,
        skip_xff_append: m.skip_xff_append,
        via: written::value(&m.via).at("via")?,
        internal_addresses: list(
            &internal.cidr_ranges,
            "internal_address_config.cidr_ranges",
            cidr,
        )?,
        internal_unix_sockets: internal.unix_sockets,
        generate_request_id: bool_or(m.generate_request_id.as_ref(), true),
        preserve_external_request_id: m.preserve_external_request_id,
        always_set_request_id_in_response: m.always_set_request_id_in_response,
        pack_trace_reason: pack_trace_reason(m).at("request_id_extension")?,
        forward_client_cert: forward_client_cert(m),
        client_cert_details: m.set_current_client_cert_details.as_ref().map_or_else(
            ClientCertDetails::default,
            |d| ClientCertDetails {
                subject: bool_or(d.subject.as_ref(), false),
                cert: d.cert,
                chain: d.chain,
                dns: d.dns,
                uri: d.uri,
            },
        ),
        proxy_100_continue: m.proxy_100_continue,
        upgrades: list(&m.upgrade_configs, "upgrade_configs", upgrade)?,
        path: path(m)?,
        strip_port: strip_port(m)?,
        strip_trailing_host_dot: m.strip_trailing_host_dot,
        local_reply: m
            .local_reply_config
            .as_ref()
            .map(|l| local_reply(l, c).map(Arc::new))
            .transpose()
            .at("local_reply_config")?,
        stream_error_on_invalid_http_message: bool_or(
            m.stream_error_on_invalid_http_message.as_ref(),
            false,
        ),
        append_x_forwarded_port: m.append_x_forwarded_port,
        append_local_overload: m.append_local_overload,
        add_user_agent: bool_or(m.add_user_agent.as_ref(), false),
        proxy_status: m.proxy_status_config.is_some(),
        sampled: None,
    })
}

/// What is accepted and has no effect here, with the reason: `drain_timeout` (HTTP/2 streams end
/// before their connection does, whatever time that takes).
fn refuse_unknown(m: &pb::HttpConnectionManager) -> Result<()> {
    let log = m.access_log_options.unwrap_or_default();
    let common = m.common_http_protocol_options.unwrap_or_default();
    let certificate = m.set_current_client_cert_details.unwrap_or_default();
    refuse_set(&[
        (
            common.max_connection_duration_jitter.is_some(),
            "common_http_protocol_options.max_connection_duration_jitter",
        ),
        (
            certificate.format != 0,
            "set_current_client_cert_details.format",
        ),
        (certificate.issuer, "set_current_client_cert_details.issuer"),
        (
            log.flush_log_on_tunnel_successfully_established,
            "access_log_options.flush_log_on_tunnel_successfully_established",
        ),
        (m.forward_proto_config.is_some(), "forward_proto_config"),
        (
            m.http1_safe_max_connection_duration,
            "http1_safe_max_connection_duration",
        ),
        (
            m.represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
        ),
        (m.stream_flush_timeout.is_some(), "stream_flush_timeout"),
        (
            m.typed_header_validation_config.is_some(),
            "typed_header_validation_config",
        ),
        (
            m.forward_client_cert_matcher.is_some(),
            "forward_client_cert_matcher",
        ),
        (
            m.path_normalization_options.is_some(),
            "path_normalization_options",
        ),
        (m.http3_protocol_options.is_some(), "http3_protocol_options"),
        (
            m.access_log_flush_interval.is_some(),
            "access_log_flush_interval",
        ),
        (
            log.access_log_flush_interval.is_some(),
            "access_log_options.access_log_flush_interval",
        ),
        (
            m.flush_access_log_on_new_request,
            "flush_access_log_on_new_request",
        ),
        (
            log.flush_access_log_on_new_request,
            "access_log_options.flush_access_log_on_new_request",
        ),
        (m.append_local_overload, "append_local_overload"),
        (m.proxy_status_config.is_some(), "proxy_status_config"),
        (
            bool_or(m.stream_error_on_invalid_http_message.as_ref(), false),
            "stream_error_on_invalid_http_message",
        ),
    ])
}

fn routes(m: &pb::HttpConnectionManager, c: &Collected<'_>) -> Result<RouteSource> {
    match m.route_specifier.as_ref() {
        Some(inner::RouteSpecifier::RouteConfig(r)) => Ok(RouteSource::Inline(Arc::new(
            route::configuration(r, c, true).at("route_config")?,
        ))),
        Some(inner::RouteSpecifier::Rds(r)) => {
            if r.route_config_name.is_empty() {
                return refuse("is required").at("rds.route_config_name");
            }
            let (source, fetch_timeout_ms) = config_source(r.config_source.as_ref(), c.context)
                .at("config_source")
                .at("rds")?;
            let name = source.key(&r.route_config_name);
            add_need(
                &c.routes,
                Needs {
                    name: name.clone(),
                    fetch_timeout_ms,
                    source,
                },
            );
            Ok(RouteSource::Rds(name))
        }
        Some(inner::RouteSpecifier::ScopedRoutes(_)) => {
            refuse("is not implemented").at("scoped_routes")
        }
        None => refuse("rds or route_config is required"),
    }
}

pub(super) fn http1(
    m: Option<&core::Http1ProtocolOptions>,
    listener: bool,
) -> Result<Http1Options> {
    let m = m.cloned().unwrap_or_default();
    refuse_set(&[
        (
            !m.ignore_http_11_upgrade.is_empty(),
            "ignore_http_11_upgrade",
        ),
        (m.send_fully_qualified_url, "send_fully_qualified_url"),
        (
            bool_or(
                m.override_stream_error_on_invalid_http_message.as_ref(),
                false,
            ),
            "override_stream_error_on_invalid_http_message",
        ),
    ])?;
    let header_case = header_case(m.header_key_format.as_ref()).at("header_key_format")?;
    Ok(Http1Options {
        allow_absolute_url: listener && bool_or(m.allow_absolute_url.as_ref(), true),
        accept_http_10: m.accept_http_10,
        default_host_for_http_10: m.default_host_for_http_10.as_str().into(),
        header_case,
        enable_trailers: m.enable_trailers,
        allow_chunked_length: m.allow_chunked_length,
        allow_custom_methods: m.allow_custom_methods,
        stream_error_on_invalid_message: bool_or(
            m.override_stream_error_on_invalid_http_message.as_ref(),
            false,
        ),
    })
}

fn header_case(m: Option<&core::http1_protocol_options::HeaderKeyFormat>) -> Result<HeaderCase> {
    use core::http1_protocol_options::header_key_format::HeaderFormat as F;
    let Some(m) = m else {
        return Ok(HeaderCase::Lower);
    };
    match &m.header_format {
        Some(F::ProperCaseWords(_)) => Ok(HeaderCase::ProperCase),
        Some(F::StatefulFormatter(f)) => preserve_case(f).at("stateful_formatter"),
        None => refuse("proper_case_words or stateful_formatter is required"),
    }
}

/// The one stateful formatter there is.
fn preserve_case(m: &core::TypedExtensionConfig) -> Result<HeaderCase> {
    let Some(any) = &m.typed_config else {
        return refuse("is required").at("typed_config");
    };
    let name = type_name(any)?;
    if name != PRESERVE_CASE {
        return refuse("is not implemented; preserve_case is").at("typed_config");
    }
    let config: PreserveCaseFormatterConfig = typed(any).at("typed_config")?;
    refuse_set(&[(config.forward_reason_phrase, "forward_reason_phrase")]).at("typed_config")?;
    match FormatterTypeOnEnvoyHeaders::try_from(config.formatter_type_on_envoy_headers) {
        Ok(kind) => Ok(HeaderCase::Preserve {
            capitals: kind == FormatterTypeOnEnvoyHeaders::ProperCase,
        }),
        Err(_) => refuse("is not known")
            .at("formatter_type_on_envoy_headers")
            .at("typed_config"),
    }
}

pub(super) fn http2(m: Option<&core::Http2ProtocolOptions>) -> Result<Http2Options> {
    let d = Http2Options::default();
    let Some(m) = m else { return Ok(d) };
    refuse_set(&[
        (m.allow_metadata, "allow_metadata"),
        (
            !m.custom_settings_parameters.is_empty(),
            "custom_settings_parameters",
        ),
        (
            bool_or(m.disallow_obs_text.as_ref(), false),
            "disallow_obs_text",
        ),
        (
            m.max_header_field_size_kb.is_some(),
            "max_header_field_size_kb",
        ),
        (m.stream_reset_burst.is_some(), "stream_reset_burst"),
        (m.stream_reset_rate.is_some(), "stream_reset_rate"),
    ])?;
    // A malformed message resets its stream only, as
    // `override_stream_error_on_invalid_http_message` asks for.
    let or = |v: Option<&_>, default| u32_of(v).unwrap_or(default);
    let window = |v: Option<&_>, default, field: &str| match or(v, default) {
        n @ 65_535..=0x7fff_ffff => Ok(n),
        _ => refuse("must be 65535 to 2147483647").at(field),
    };
    let positive = |v: Option<&_>, default, field: &str| match or(v, default) {
        0 => refuse("must be at least 1").at(field),
        n => Ok(n),
    };
    let keepalive = match &m.connection_keepalive {
        None => None,
        Some(k) => {
            refuse_set(&[(
                k.connection_idle_interval.is_some(),
                "connection_keepalive.connection_idle_interval",
            )])?;
            let interval = timeout(k.interval.as_ref(), "connection_keepalive.interval", None)?;
            let wait = timeout(k.timeout.as_ref(), "connection_keepalive.timeout", None)?;
            interval.map(|i| (i, wait.unwrap_or(Duration::from_secs(1))))
        }
    };
    Ok(Http2Options {
        hpack_table_size: or(m.hpack_table_size.as_ref(), d.hpack_table_size),
        max_concurrent_streams: match or(
            m.max_concurrent_streams.as_ref(),
            d.max_concurrent_streams,
        ) {
            n @ 1..=0x7fff_ffff => n,
            _ => return refuse("must be 1 to 2147483647").at("max_concurrent_streams"),
        },
        initial_stream_window_size: window(
            m.initial_stream_window_size.as_ref(),
            d.initial_stream_window_size,
            "initial_stream_window_size",
        )?,
        initial_connection_window_size: window(
            m.initial_connection_window_size.as_ref(),
            d.initial_connection_window_size,
            "initial_connection_window_size",
        )?,
        allow_connect: m.allow_connect,
        keepalive,
        stream_error_on_invalid_http_message: bool_or(
            m.override_stream_error_on_invalid_http_message.as_ref(),
            false,
        ),
        max_outbound_frames: positive(
            m.max_outbound_frames.as_ref(),
            d.max_outbound_frames,
            "max_outbound_frames",
        )?,
        max_outbound_control_frames: positive(
            m.max_outbound_control_frames.as_ref(),
            d.max_outbound_control_frames,
            "max_outbound_control_frames",
        )?,
        max_consecutive_inbound_frames_with_empty_payload: or(
            m.max_consecutive_inbound_frames_with_empty_payload.as_ref(),
            d.max_consecutive_inbound_frames_with_empty_payload,
        ),
        max_inbound_priority_frames_per_stream: or(
            m.max_inbound_priority_frames_per_stream.as_ref(),
            d.max_inbound_priority_frames_per_stream,
        ),
        max_inbound_window_update_frames_per_data_frame_sent: positive(
            m.max_inbound_window_update_frames_per_data_frame_sent
                .as_ref(),
            d.max_inbound_window_update_frames_per_data_frame_sent,
            "max_inbound_window_update_frames_per_data_frame_sent",
        )?,
    })
}

fn underscores(m: &core::HttpProtocolOptions) -> Underscores {
    use core::http_protocol_options::HeadersWithUnderscoresAction as A;
    match A::try_from(m.headers_with_underscores_action) {
        Ok(A::RejectRequest) => Underscores::Reject,
        Ok(A::DropHeader) => Underscores::Drop,
        _ => Underscores::Allow,
    }
}

fn scheme(m: &pb::HttpConnectionManager) -> Option<Name> {
    use core::scheme_header_transformation::Transformation as T;
    match m
        .scheme_header_transformation
        .as_ref()?
        .transformation
        .as_ref()?
    {
        T::SchemeToOverwrite(scheme) => Some(scheme.as_str().into()),
    }
}

fn pack_trace_reason(m: &pb::HttpConnectionManager) -> Result<bool> {
    let Some(any) = m
        .request_id_extension
        .as_ref()
        .and_then(|e| e.typed_config.as_ref())
    else {
        return Ok(true);
    };
    let config: UuidRequestIdConfig = typed(any).at("typed_config")?;
    refuse_set(&[(
        !bool_or(config.use_request_id_for_trace_sampling.as_ref(), true),
        "typed_config.use_request_id_for_trace_sampling",
    )])?;
    Ok(bool_or(config.pack_trace_reason.as_ref(), true))
}

fn forward_client_cert(m: &pb::HttpConnectionManager) -> ForwardClientCert {
    use inner::ForwardClientCertDetails as F;
    match F::try_from(m.forward_client_cert_details) {
        Ok(F::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Ok(F::AppendForward) => ForwardClientCert::AppendForward,
        Ok(F::SanitizeSet) => ForwardClientCert::SanitizeSet,
        Ok(F::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        _ => ForwardClientCert::Sanitize,
    }
}

fn upgrade(m: &inner::UpgradeConfig) -> Result<Upgrade> {
    if m.upgrade_type.is_empty() {
        return refuse("is required").at("upgrade_type");
    }
    if !m.filters.is_empty() {
        return refuse("is not implemented").at("filters");
    }
    Ok(Upgrade {
        protocol: m.upgrade_type.to_ascii_lowercase().into(),
        enabled: bool_or(m.enabled.as_ref(), true),
        connect_config: false,
    })
}

fn path(m: &pb::HttpConnectionManager) -> Result<PathNormalization> {
    use inner::PathWithEscapedSlashesAction as A;
    Ok(PathNormalization {
        normalize: bool_or(m.normalize_path.as_ref(), false),
        merge_slashes: m.merge_slashes,
        escaped_slashes: match A::try_from(m.path_with_escaped_slashes_action) {
            Ok(A::RejectRequest) => EscapedSlashes::Reject,
            Ok(A::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
            Ok(A::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
            _ => EscapedSlashes::Keep,
        },
    })
}

fn strip_port(m: &pb::HttpConnectionManager) -> Result<StripPort> {
    match (m.strip_matching_host_port, m.strip_port_mode.as_ref()) {
        (true, Some(inner::StripPortMode::StripAnyHostPort(true))) => {
            refuse("only one of strip_matching_host_port and strip_any_host_port may be set")
        }
        (_, Some(inner::StripPortMode::StripAnyHostPort(true))) => Ok(StripPort::Any),
        (true, _) => Ok(StripPort::Matching),
        (false, _) => Ok(StripPort::None),
    }
}

fn local_reply(m: &pb::LocalReplyConfig, c: &Collected<'_>) -> Result<LocalReplyConfig> {
    let mappers = list(&m.mappers, "mappers", |m| {
        Ok(ResponseMapper {
            filter: access_log::filter(need(m.filter.as_ref(), "filter")?).at("filter")?,
            status: match u32_of(m.status_code.as_ref()) {
                None => None,
                Some(s @ 200..=599) => u16::try_from(s).ok(),
                Some(_) => return refuse("must be 200 to 599").at("status_code"),
            },
            body: m
                .body
                .as_ref()
                .map(|b| data_source_bytes(Some(b), c.context))
                .transpose()
                .at("body")?,
            body_format: m
                .body_format_override
                .as_ref()
                .map(|f| access_log::body_format(f, c.context))
                .transpose()
                .at("body_format_override")?,
            headers: list(&m.headers_to_add, "headers_to_add", header_option)?,
        })
    })?;
    let body_format = m
        .body_format
        .as_ref()
        .map(|f| access_log::body_format(f, c.context))
        .transpose()
        .at("body_format")?;
    Ok(LocalReplyConfig {
        mappers,
        body_format,
    })
}
