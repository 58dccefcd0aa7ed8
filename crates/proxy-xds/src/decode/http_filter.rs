//! HTTP filters and their per-route settings.
use std::sync::Arc;

use lateen_proxy_core::config::FractionalPercent;
use lateen_proxy_core::config::http_filter::{
    AbortCode, Cors, Fault, FaultAbort, FaultDelay, FaultValue, GrpcStats, HeaderEdit,
    HeaderMutationFilter, HttpFilter, HttpFilterConfig, PerFilterConfig, Router,
};
use lateen_xds_proto::Any;
use lateen_xds_proto::envoy::config::common::mutation_rules::v3 as rules_pb;
use lateen_xds_proto::envoy::config::route::v3 as route;
use lateen_xds_proto::envoy::extensions::filters::common::fault::v3 as common_fault;
use lateen_xds_proto::envoy::extensions::filters::http::{
    cors::v3 as cors_pb, fault::v3 as fault_pb, grpc_stats::v3 as grpc_stats_pb,
    header_mutation::v3 as mutation_pb, rbac::v3 as rbac_pb, router::v3 as router_pb,
};
use lateen_xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_xds_proto::envoy::r#type::matcher::v3::StringMatcher;

use super::common::{
    bool_or, duration, fractional, header_name, header_names, header_option, need,
    runtime_fractional, u32_of,
};
use super::{
    Collected, access_log, ext_authz, istio, jwt, matcher, rate_limit, rbac, type_name, typed,
    written,
};
use crate::error::{At, Result, list, refuse, refuse_set};

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const CORS_POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const GRPC_STATS: &str = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const RBAC_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const MUTATION_ROUTE: &str =
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
const ROUTE_FILTER: &str = "envoy.config.route.v3.FilterConfig";

pub(super) fn filters(filters: &[hcm::HttpFilter], c: &Collected<'_>) -> Result<Vec<HttpFilter>> {
    let mut out = Vec::with_capacity(filters.len());
    for (i, f) in filters.iter().enumerate() {
        if let Some(filter) = filter(f, c).item("http_filters", i)? {
            out.push(filter);
        }
    }
    let routers = out
        .iter()
        .filter(|f| matches!(f.config, HttpFilterConfig::Router(_)))
        .count();
    match out.last() {
        Some(last) if routers == 1 && matches!(last.config, HttpFilterConfig::Router(_)) => Ok(out),
        _ => refuse("the last filter must be the router, and only the last").at("http_filters"),
    }
}

/// A filter; none for an optional one that is not implemented.
fn filter(m: &hcm::HttpFilter, c: &Collected<'_>) -> Result<Option<HttpFilter>> {
    let any = match m.config_type.as_ref() {
        Some(hcm::http_filter::ConfigType::TypedConfig(any)) => any,
        Some(hcm::http_filter::ConfigType::ConfigDiscovery(_)) => {
            return refuse(format!("filter {}: ECDS is not implemented", m.name))
                .at("config_discovery");
        }
        None => return refuse("is required").at("typed_config"),
    };
    let name = type_name(any)?;
    let config = match config(&name, any, c).at("typed_config")? {
        Some(config) => config,
        None if m.is_optional => return Ok(None),
        None => {
            return refuse(format!(
                "HTTP filter {name} ({}) is not implemented",
                m.name
            ))
            .at("typed_config");
        }
    };
    Ok(Some(HttpFilter {
        name: m.name.as_str().into(),
        disabled: m.disabled,
        config,
    }))
}

fn config(name: &str, any: &Any, c: &Collected<'_>) -> Result<Option<HttpFilterConfig>> {
    Ok(Some(match name {
        ROUTER => HttpFilterConfig::Router(router(&typed(any)?, c)?),
        FAULT => HttpFilterConfig::Fault(Arc::new(fault(&typed(any)?)?)),
        CORS => HttpFilterConfig::Cors,
        GRPC_STATS => HttpFilterConfig::GrpcStats(grpc_stats(&typed(any)?)?),
        RBAC => HttpFilterConfig::Rbac(Arc::new(rbac::http(&typed(any)?)?)),
        MUTATION => {
            let m: mutation_pb::HeaderMutation = typed(any)?;
            HttpFilterConfig::HeaderMutation(Arc::new(HeaderMutationFilter {
                most_specific_wins: m.most_specific_header_mutations_wins,
                ..mutations(m.mutations.as_ref()).at("mutations")?
            }))
        }
        jwt::FILTER => HttpFilterConfig::Jwt(Arc::new(jwt::filter(&typed(any)?, c)?)),
        ext_authz::FILTER => HttpFilterConfig::ExtAuthz(Arc::new(ext_authz::filter(&typed(any)?)?)),
        rate_limit::FILTER => {
            HttpFilterConfig::RateLimit(Arc::new(rate_limit::filter(&typed(any)?)?))
        }
        istio::STATS => HttpFilterConfig::IstioStats(Arc::new(istio::stats(any)?)),
        istio::ALPN => HttpFilterConfig::IstioAlpn(Arc::new(istio::alpn(any)?)),
        istio::PEER_METADATA => {
            HttpFilterConfig::PeerMetadata(Arc::new(istio::peer_metadata(any)?))
        }
        _ => return Ok(None),
    }))
}

fn router(m: &router_pb::Router, c: &Collected<'_>) -> Result<Router> {
    // `dynamic_stats` only takes series away.
    refuse_set(&[
        (!m.upstream_http_filters.is_empty(), "upstream_http_filters"),
        (!m.upstream_log.is_empty(), "upstream_log"),
        (
            bool_or(m.reject_connect_request_early_data.as_ref(), false),
            "reject_connect_request_early_data",
        ),
        (m.start_child_span, "start_child_span"),
        (!m.strict_check_headers.is_empty(), "strict_check_headers"),
        (
            m.suppress_grpc_request_failure_code_stats,
            "suppress_grpc_request_failure_code_stats",
        ),
    ])?;
    Ok(Router {
        suppress_envoy_headers: m.suppress_envoy_headers,
        start_child_span: m.start_child_span,
        suppress_grpc_request_failure_code_stats: m.suppress_grpc_request_failure_code_stats,
        no_dynamic_stats: !bool_or(m.dynamic_stats.as_ref(), true),
        upstream_logs: access_log::loggers(&m.upstream_log, c.context).at("upstream_log")?,
        strict_check_headers: header_names(&m.strict_check_headers, "strict_check_headers")?,
        respect_expected_rq_timeout: m.respect_expected_rq_timeout,
    })
}

/// Istio always sends this filter with `emit_filter_state`, which feeds log fields that no default
/// format has.
fn grpc_stats(m: &grpc_stats_pb::FilterConfig) -> Result<GrpcStats> {
    use grpc_stats_pb::filter_config::PerMethodStatSpecifier as P;
    refuse_set(&[
        (m.enable_upstream_stats, "enable_upstream_stats"),
        (
            m.replace_dots_in_grpc_service_name,
            "replace_dots_in_grpc_service_name",
        ),
    ])?;
    let methods = match &m.per_method_stat_specifier {
        Some(P::IndividualMethodStatsAllowlist(list)) => list
            .services
            .iter()
            .map(|service| {
                let methods = service.method_names.iter().map(|m| m.as_str().into());
                (service.name.as_str().into(), methods.collect())
            })
            .collect(),
        _ => Vec::new(),
    };
    Ok(GrpcStats {
        emit_filter_state: m.emit_filter_state,
        stats_for_all_methods: matches!(
            &m.per_method_stat_specifier,
            Some(P::StatsForAllMethods(v)) if v.value
        ),
        enable_upstream_stats: m.enable_upstream_stats,
        methods,
    })
}

fn fault(m: &fault_pb::HttpFault) -> Result<Fault> {
    use common_fault::fault_delay::FaultDelaySecifier as D;
    use fault_pb::fault_abort::ErrorType as E;
    refuse_set(&[
        (!m.upstream_cluster.is_empty(), "upstream_cluster"),
        (!m.downstream_nodes.is_empty(), "downstream_nodes"),
        (m.max_active_faults.is_some(), "max_active_faults"),
        (m.response_rate_limit.is_some(), "response_rate_limit"),
        (m.filter_metadata.is_some(), "filter_metadata"),
    ])?;
    let share = |p: Option<&lateen_xds_proto::envoy::r#type::v3::FractionalPercent>| {
        p.map_or(Ok(FractionalPercent::NONE), |p| {
            fractional(p).at("percentage")
        })
    };
    let delay = m.delay.as_ref().map(|d| {
        let delay = match d.fault_delay_secifier.as_ref() {
            Some(D::FixedDelay(t)) => FaultValue::Fixed(duration(t).at("fixed_delay")?),
            Some(D::HeaderDelay(_)) => FaultValue::Header,
            None => return refuse("fixed_delay or header_delay is required"),
        };
        Ok(FaultDelay {
            delay,
            percentage: share(d.percentage.as_ref())?,
        })
    });
    let abort = m.abort.as_ref().map(|a| {
        refuse_set(&[(!a.response_body.is_empty(), "response_body")])?;
        let abort = match a.error_type.as_ref() {
            Some(E::HttpStatus(s)) => match u16::try_from(*s) {
                Ok(s @ 200..=599) => FaultValue::Fixed(AbortCode::Http(s)),
                _ => return refuse("must be 200 to 599").at("http_status"),
            },
            Some(E::GrpcStatus(s)) => FaultValue::Fixed(AbortCode::Grpc(*s)),
            Some(E::HeaderAbort(_)) => FaultValue::Header,
            None => return refuse("http_status, grpc_status or header_abort is required"),
        };
        Ok(FaultAbort {
            abort,
            percentage: share(a.percentage.as_ref())?,
        })
    });
    let rate_limit = m.response_rate_limit.as_ref().map(|r| match &r.limit_type {
        Some(common_fault::fault_rate_limit::LimitType::FixedLimit(l)) => {
            Ok((l.limit_kbps, share(r.percentage.as_ref())?))
        }
        _ => refuse("fixed_limit is required"),
    });
    Ok(Fault {
        delay: delay.transpose().at("delay")?,
        abort: abort.transpose().at("abort")?,
        upstream_cluster: m.upstream_cluster.as_str().into(),
        downstream_nodes: m
            .downstream_nodes
            .iter()
            .map(|n| n.as_str().into())
            .collect(),
        headers: list(&m.headers, "headers", matcher::header)?,
        max_active_faults: u32_of(m.max_active_faults.as_ref()),
        response_rate_limit: rate_limit.transpose().at("response_rate_limit")?,
    })
}

fn mutations(m: Option<&mutation_pb::Mutations>) -> Result<HeaderMutationFilter> {
    let Some(m) = m else {
        return Ok(HeaderMutationFilter::default());
    };
    for (set, field) in [
        (
            !m.query_parameter_mutations.is_empty(),
            "query_parameter_mutations",
        ),
        (
            !m.request_trailers_mutations.is_empty(),
            "request_trailers_mutations",
        ),
        (
            !m.response_trailers_mutations.is_empty(),
            "response_trailers_mutations",
        ),
    ] {
        if set {
            return refuse("is not implemented").at(field);
        }
    }
    Ok(HeaderMutationFilter {
        most_specific_wins: false,
        request: list(&m.request_mutations, "request_mutations", header_edit)?,
        response: list(&m.response_mutations, "response_mutations", header_edit)?,
    })
}

/// One edit of a head.
pub(super) fn header_edit(m: &rules_pb::HeaderMutation) -> Result<HeaderEdit> {
    use rules_pb::header_mutation::Action as A;
    match m.action.as_ref() {
        Some(A::Remove(name)) => Ok(HeaderEdit::Remove(header_name(name).at("remove")?)),
        Some(A::Append(option)) => Ok(HeaderEdit::Write(header_option(option).at("append")?)),
        Some(A::RemoveOnMatch(m)) => {
            let names = need(m.key_matcher.as_ref(), "key_matcher")
                .and_then(|m| matcher::string(m).at("key_matcher"));
            Ok(HeaderEdit::RemoveMatching(names.at("remove_on_match")?))
        }
        None => refuse("an action is required"),
    }
}

fn origins(list_: &[StringMatcher]) -> Result<Vec<lateen_proxy_core::matcher::StringMatcher>> {
    list(list_, "allow_origin_string_match", matcher::string)
}

fn cors(m: &cors_pb::CorsPolicy) -> Result<Cors> {
    let enabled = |p: Option<&_>, default| p.map_or(Ok(default), runtime_fractional);
    Ok(Cors {
        allow_origins: origins(&m.allow_origin_string_match)?,
        allow_methods: written::value(&m.allow_methods).at("allow_methods")?,
        allow_headers: written::value(&m.allow_headers).at("allow_headers")?,
        expose_headers: written::value(&m.expose_headers).at("expose_headers")?,
        max_age: written::value(&m.max_age).at("max_age")?,
        allow_credentials: bool_or(m.allow_credentials.as_ref(), false),
        allow_private_network_access: bool_or(m.allow_private_network_access.as_ref(), false),
        enabled: enabled(m.filter_enabled.as_ref(), FractionalPercent::ALL).at("filter_enabled")?,
        shadow_enabled: enabled(m.shadow_enabled.as_ref(), FractionalPercent::NONE)
            .at("shadow_enabled")?,
        forward_not_matching_preflights: bool_or(m.forward_not_matching_preflights.as_ref(), true),
    })
}

/// The old `cors` field of a route or virtual host.
pub(super) fn route_cors(m: &route::CorsPolicy) -> Result<PerFilterConfig> {
    let enabled = m
        .enabled_specifier
        .clone()
        .map(|route::cors_policy::EnabledSpecifier::FilterEnabled(p)| p);
    let policy = cors_pb::CorsPolicy {
        allow_origin_string_match: m.allow_origin_string_match.clone(),
        allow_methods: m.allow_methods.clone(),
        allow_headers: m.allow_headers.clone(),
        expose_headers: m.expose_headers.clone(),
        max_age: m.max_age.clone(),
        allow_credentials: m.allow_credentials,
        filter_enabled: enabled,
        shadow_enabled: m.shadow_enabled.clone(),
        allow_private_network_access: m.allow_private_network_access,
        forward_not_matching_preflights: m.forward_not_matching_preflights,
    };
    Ok(PerFilterConfig::Cors(Arc::new(cors(&policy)?)))
}

/// A per-route setting; none for an optional one that is not implemented.
pub(super) fn per_route(any: &Any) -> Result<Option<PerFilterConfig>> {
    let name = type_name(any)?;
    Ok(Some(match name.as_str() {
        ROUTE_FILTER => {
            let wrapper: route::FilterConfig = typed(any)?;
            if wrapper.disabled {
                return Ok(Some(PerFilterConfig::Disabled));
            }
            let Some(inner) = &wrapper.config else {
                return Ok(Some(PerFilterConfig::Enabled));
            };
            // Each level is a message of its own, so that no decoder limits the depth.
            if type_name(inner)? == ROUTE_FILTER {
                return refuse("a FilterConfig must not stand inside another").at("config");
            }
            return match per_route(inner) {
                Err(_) if wrapper.is_optional => Ok(None),
                other => other.at("config"),
            };
        }
        FAULT => PerFilterConfig::Fault(Arc::new(fault(&typed(any)?)?)),
        CORS_POLICY => PerFilterConfig::Cors(Arc::new(cors(&typed(any)?)?)),
        RBAC_ROUTE => {
            let m: rbac_pb::RbacPerRoute = typed(any)?;
            PerFilterConfig::Rbac(
                m.rbac
                    .as_ref()
                    .map(|r| rbac::http(r).map(Arc::new))
                    .transpose()
                    .at("rbac")?,
            )
        }
        ext_authz::PER_ROUTE => ext_authz::per_route(&typed(any)?)?,
        rate_limit::FILTER => {
            PerFilterConfig::RateLimit(Arc::new(rate_limit::filter(&typed(any)?)?))
        }
        jwt::PER_ROUTE => PerFilterConfig::Jwt(jwt::per_route(&typed(any)?)?),
        MUTATION_ROUTE => {
            let m: mutation_pb::HeaderMutationPerRoute = typed(any)?;
            PerFilterConfig::HeaderMutation(Arc::new(
                mutations(m.mutations.as_ref()).at("mutations")?,
            ))
        }
        other => return refuse(format!("per-route setting {other} is not implemented")),
    }))
}

/// Used by the connection manager: a filter list must be there.
pub(super) fn required(filters_: &[hcm::HttpFilter], c: &Collected<'_>) -> Result<Vec<HttpFilter>> {
    need(filters_.first(), "http_filters")?;
    filters(filters_, c)
}
