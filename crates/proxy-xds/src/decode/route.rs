//! Route tables.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::http_connection_manager::Upgrade;
use lateen_proxy_core::config::http_filter::PerFilter;
use lateen_proxy_core::config::route::{
    ClusterSpecifier, Decorator, DirectResponse, Forward, HashPolicy, HashSource, HostRewrite,
    MaxStreamDuration, Mirror, PathMatch, PathRewrite, Redirect, RedirectPath, RequireTls,
    Substitution, WeightedCluster, WeightedClusters,
};
use lateen_proxy_core::config::{
    FractionalPercent, Name, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use lateen_proxy_core::matcher::Regex;
use lateen_proxy_core::router::{RouteIndex, VirtualHostIndex};
use lateen_proxy_core::uri_template::{TemplateRewrite, UriTemplate};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::route::v3 as pb;
use lateen_xds_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use lateen_xds_proto::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use lateen_xds_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use lateen_xds_proto::{Any, UInt32Value, UInt64Value};

use super::common::{
    bool_or, data_source_bytes, header_mutations, header_name, header_names, metadata, need,
    opt_duration, runtime_fractional, timeout, u32_of,
};
use super::internal_redirect::internal_redirect;
use super::retry::retry_policy;
use super::shared::name;
use super::{
    Collected, access_log, http_filter, matcher, rate_limit_rules, subset, tracing, typed, written,
};
use crate::error::{At, DecodeError, Result, list, refuse, refuse_set};

/// `validates` is what holds where the table does not say whether its clusters
/// must be there: true inside a listener, false over RDS.
pub(super) fn configuration(
    m: &pb::RouteConfiguration,
    c: &Collected<'_>,
    validates: bool,
) -> Result<RouteConfiguration> {
    refuse_set(&[
        (m.vhds.is_some(), "vhds"),
        (
            !m.cluster_specifier_plugins.is_empty(),
            "cluster_specifier_plugins",
        ),
        (!m.vhost_header.is_empty(), "vhost_header"),
        (!m.internal_only_headers.is_empty(), "internal_only_headers"),
        (!m.route_specifiers.is_empty(), "route_specifiers"),
    ])?;
    let most_body = m
        .max_direct_response_body_size_bytes
        .as_ref()
        .map_or(4096, |v| v.value);
    let virtual_hosts = list(&m.virtual_hosts, "virtual_hosts", |v| {
        virtual_host(v, c, most_body).map(Arc::new)
    })?;
    let index = VirtualHostIndex::new(&virtual_hosts).map_err(|e| {
        DecodeError::new(format!(
            "only unique values for domains are permitted: duplicate entry of domain {}",
            e.0
        ))
        .within("virtual_hosts")
    })?;
    Ok(RouteConfiguration {
        name: m.name.as_str().into(),
        virtual_hosts,
        index,
        headers: header_mutations(
            &m.request_headers_to_add,
            &m.request_headers_to_remove,
            &m.response_headers_to_add,
            &m.response_headers_to_remove,
        )?
        .into(),
        internal_only_headers: header_names(&m.internal_only_headers, "internal_only_headers")?,
        most_specific_header_mutations_wins: m.most_specific_header_mutations_wins,
        validate_clusters: bool_or(m.validate_clusters.as_ref(), validates),
        ignore_port_in_host_matching: m.ignore_port_in_host_matching,
        ignore_path_parameters_in_path_matching: m.ignore_path_parameters_in_path_matching,
        max_direct_response_body_size: most_body,
        mirrors: mirrors(&m.request_mirror_policies)?.into(),
        per_filter: per_filter(&m.typed_per_filter_config)?.into(),
        metadata: metadata(m.metadata.as_ref()),
    })
}

fn virtual_host(m: &pb::VirtualHost, c: &Collected<'_>, most_body: u32) -> Result<VirtualHost> {
    if m.name.is_empty() {
        return refuse("is required").at("name");
    }
    if m.domains.is_empty() {
        return refuse("at least one domain is required").at("domains");
    }
    for (set, field) in [
        (m.matcher.is_some(), "matcher"),
        (!m.route_specifiers.is_empty(), "route_specifiers"),
        (!m.virtual_clusters.is_empty(), "virtual_clusters"),
        (
            m.include_is_timeout_retry_header,
            "include_is_timeout_retry_header",
        ),
        (m.hedge_policy.is_some(), "hedge_policy"),
        (
            m.retry_policy_typed_config.is_some(),
            "retry_policy_typed_config",
        ),
    ] {
        if set {
            return refuse("is not implemented").at(field);
        }
    }
    let domains = list(&m.domains, "domains", |d| domain(d))?;
    let routes = list(&m.routes, "routes", |r| {
        route(r, c, most_body).map(Arc::new)
    })?;
    Ok(VirtualHost {
        name: m.name.as_str().into(),
        domains,
        index: RouteIndex::new(&routes),
        routes,
        require_tls: match pb::virtual_host::TlsRequirementType::try_from(m.require_tls) {
            Ok(pb::virtual_host::TlsRequirementType::All) => RequireTls::All,
            Ok(pb::virtual_host::TlsRequirementType::ExternalOnly) => RequireTls::ExternalOnly,
            _ => RequireTls::None,
        },
        headers: header_mutations(
            &m.request_headers_to_add,
            &m.request_headers_to_remove,
            &m.response_headers_to_add,
            &m.response_headers_to_remove,
        )?
        .into(),
        include_request_attempt_count: m.include_request_attempt_count,
        include_attempt_count_in_response: m.include_attempt_count_in_response,
        retry_policy: m
            .retry_policy
            .as_ref()
            .map(|r| retry_policy(r).map(Arc::new))
            .transpose()
            .at("retry_policy")?,
        mirrors: mirrors(&m.request_mirror_policies)?.into(),
        per_filter: with_cors(per_filter(&m.typed_per_filter_config)?, m.cors.as_ref())?.into(),
        per_request_buffer_limit: buffer_limit(
            m.request_body_buffer_limit.as_ref(),
            m.per_request_buffer_limit_bytes.as_ref(),
        ),
        rate_limits: rate_limit_rules::rules(&m.rate_limits)?.into(),
        metadata: metadata(m.metadata.as_ref()),
    })
}

/// The newer of the two fields holds where both are given.
fn buffer_limit(newer: Option<&UInt64Value>, older: Option<&UInt32Value>) -> Option<u32> {
    let newer = newer.map(|v| u32::try_from(v.value).unwrap_or(u32::MAX));
    newer.or_else(|| u32_of(older))
}

fn domain(text: &str) -> Result<Name> {
    let stars = text.matches('*').count();
    // An empty one is the name of no host, as in Envoy.
    if stars > 1 || (stars == 1 && !text.starts_with('*') && !text.ends_with('*')) {
        return refuse(format!(
            "`{text}`: a domain is a name, `*.suffix`, `prefix.*` or `*`"
        ));
    }
    if text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return refuse(format!("`{text}` holds a space or control character"));
    }
    Ok(text.to_ascii_lowercase().into())
}

/// The old `cors` field of routes and virtual hosts is the cors filter's per-route setting.
fn with_cors(mut per_filter: PerFilter, cors: Option<&pb::CorsPolicy>) -> Result<PerFilter> {
    if let Some(cors) = cors {
        let config = http_filter::route_cors(cors).at("cors")?;
        per_filter.push(("envoy.filters.http.cors".into(), config));
    }
    Ok(per_filter)
}

fn per_filter(map: &HashMap<String, Any>) -> Result<PerFilter> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    let mut out = Vec::new();
    for (name, any) in entries {
        let place = format!("typed_per_filter_config[{name:?}]");
        if let Some(config) = http_filter::per_route(any).at(&place)? {
            out.push((Name::from(name.as_str()), config));
        }
    }
    Ok(out)
}

fn route(m: &pb::Route, c: &Collected<'_>, most_body: u32) -> Result<Route> {
    refuse_set(&[(!m.route_specifiers.is_empty(), "route_specifiers")])?;
    let matching = route_match(need(m.r#match.as_ref(), "match")?).at("match")?;
    let mut per_filter = per_filter(&m.typed_per_filter_config)?;
    let action = match m.action.as_ref() {
        Some(pb::route::Action::Route(r)) => {
            per_filter = with_cors(per_filter, r.cors.as_ref())?;
            RouteAction::Forward(Arc::new(forward(r, &matching).at("route")?))
        }
        Some(pb::route::Action::Redirect(r)) => {
            RouteAction::Redirect(Arc::new(redirect(r).at("redirect")?))
        }
        Some(pb::route::Action::DirectResponse(d)) => RouteAction::DirectResponse(Arc::new(
            direct_response(d, c, most_body).at("direct_response")?,
        )),
        Some(pb::route::Action::NonForwardingAction(_)) => RouteAction::NonForwarding,
        Some(pb::route::Action::FilterAction(_)) => {
            return refuse("is not implemented").at("filter_action");
        }
        None => return refuse("an action is required: route, redirect or direct_response"),
    };
    Ok(Route {
        name: name(&m.name),
        matching,
        action,
        headers: header_mutations(
            &m.request_headers_to_add,
            &m.request_headers_to_remove,
            &m.response_headers_to_add,
            &m.response_headers_to_remove,
        )?
        .into(),
        per_filter: per_filter.into(),
        metadata: metadata(m.metadata.as_ref()),
        decorator: match &m.decorator {
            Some(d) => Some(Arc::new(Decorator {
                operation: written::value(&d.operation).at("decorator.operation")?,
                propagate: bool_or(d.propagate.as_ref(), true),
            })),
            None => None,
        },
        tracing: m
            .tracing
            .as_ref()
            .map(|t| tracing::of_route(t, c.context).map(Arc::new))
            .transpose()
            .at("tracing")?,
        per_request_buffer_limit: buffer_limit(
            m.request_body_buffer_limit.as_ref(),
            m.per_request_buffer_limit_bytes.as_ref(),
        ),
        stat_prefix: name(&m.stat_prefix),
    })
}

pub(super) fn route_match(m: &pb::RouteMatch) -> Result<RouteMatch> {
    use pb::route_match::PathSpecifier as P;
    let path = match m.path_specifier.as_ref() {
        Some(P::Prefix(p)) => PathMatch::Prefix(name(p)),
        Some(P::Path(p)) => PathMatch::Exact(p.as_str().into()),
        Some(P::SafeRegex(r)) => PathMatch::Regex(Arc::new(matcher::regex(r).at("safe_regex")?)),
        Some(P::ConnectMatcher(_)) => PathMatch::Connect,
        Some(P::PathSeparatedPrefix(p)) => {
            let valid =
                p.starts_with('/') && p.len() > 1 && !p.ends_with('/') && !p.contains(['?', '#']);
            if !valid {
                return refuse("must start with `/`, not end in `/`, and hold no `?` or `#`")
                    .at("path_separated_prefix");
            }
            PathMatch::SeparatedPrefix(p.as_str().into())
        }
        Some(P::PathMatchPolicy(policy)) => {
            let any = need(policy.typed_config.as_ref(), "typed_config").at("path_match_policy")?;
            let template: UriTemplateMatchConfig =
                typed(any).at("path_match_policy.typed_config")?;
            let template = UriTemplate::parse(&template.path_template)
                .at("path_template")
                .at("path_match_policy.typed_config")?;
            PathMatch::Template(Arc::new(template))
        }
        None => return refuse("a path specifier is required: prefix, path, safe_regex, ..."),
    };
    refuse_set(&[(!m.filter_state.is_empty(), "filter_state")])?;
    let tls = m.tls_context.as_ref();
    Ok(RouteMatch {
        path,
        case_sensitive: bool_or(m.case_sensitive.as_ref(), true),
        headers: list(&m.headers, "headers", matcher::header)?.into(),
        query: list(&m.query_parameters, "query_parameters", matcher::query)?.into(),
        grpc: m.grpc.is_some(),
        fraction: m
            .runtime_fraction
            .as_ref()
            .map(runtime_fractional)
            .transpose()
            .at("runtime_fraction")?,
        tls_presented: tls.and_then(|t| t.presented.as_ref()).map(|v| v.value),
        tls_validated: tls.and_then(|t| t.validated.as_ref()).map(|v| v.value),
        dynamic_metadata: list(&m.dynamic_metadata, "dynamic_metadata", matcher::metadata)?.into(),
        cookies: list(&m.cookies, "cookies", matcher::cookie)?.into(),
    })
}

fn forward(m: &pb::RouteAction, matching: &RouteMatch) -> Result<Forward> {
    refuse_set(&[
        (!m.path_rewrite.is_empty(), "path_rewrite"),
        (m.hedge_policy.is_some(), "hedge_policy"),
        (m.early_data_policy.is_some(), "early_data_policy"),
        (m.flush_timeout.is_some(), "flush_timeout"),
        (
            m.retry_policy_typed_config.is_some(),
            "retry_policy_typed_config",
        ),
    ])?;
    for (i, upgrade) in m.upgrade_configs.iter().enumerate() {
        connect_config(upgrade).item("upgrade_configs", i)?;
    }
    let path_rewrite = path_rewrite(m, matching)?;
    use pb::route_action::ClusterNotFoundResponseCode as N;
    Ok(Forward {
        cluster: cluster_specifier(m)?,
        cluster_not_found_code: match N::try_from(m.cluster_not_found_response_code) {
            Ok(N::NotFound) => 404,
            Ok(N::InternalServerError) => 500,
            _ => 503,
        },
        metadata_match: subset::criteria(m.metadata_match.as_ref(), None),
        path_rewrite: path_rewrite.map(Arc::new),
        host_rewrite: host_rewrite(m)?.map(Arc::new),
        append_x_forwarded_host: m.append_x_forwarded_host,
        timeout: timeout(m.timeout.as_ref(), "timeout", Some(Duration::from_secs(15)))?,
        idle_timeout: opt_duration(m.idle_timeout.as_ref(), "idle_timeout")?,
        max_stream_duration: stream_duration(m)?.map(Arc::new),
        retry_policy: m
            .retry_policy
            .as_ref()
            .map(|r| retry_policy(r).map(Arc::new))
            .transpose()
            .at("retry_policy")?,
        mirrors: mirrors(&m.request_mirror_policies)?.into(),
        hash_policy: list(&m.hash_policy, "hash_policy", hash_policy)?.into(),
        high_priority: m.priority == core::RoutingPriority::High as i32,
        upgrades: m
            .upgrade_configs
            .iter()
            .map(|u| Upgrade {
                protocol: u.upgrade_type.to_ascii_lowercase().into(),
                enabled: bool_or(u.enabled.as_ref(), true),
                connect_config: u.connect_config.is_some(),
            })
            .collect(),
        internal_redirect: internal_redirect(m)?,
        rate_limits: rate_limit_rules::rules(&m.rate_limits)?.into(),
        include_vh_rate_limits: bool_or(m.include_vh_rate_limits.as_ref(), false),
    })
}

fn path_rewrite(m: &pb::RouteAction, matching: &RouteMatch) -> Result<Option<PathRewrite>> {
    let policy = m.path_rewrite_policy.as_ref();
    Ok(
        match (m.prefix_rewrite.as_str(), &m.regex_rewrite, policy) {
            ("", None, None) => None,
            (prefix, None, None) => {
                if matches!(matching.path, PathMatch::Regex(_)) {
                    return refuse("cannot be used with safe_regex").at("prefix_rewrite");
                }
                let prefix = written::target(prefix).at("prefix_rewrite")?;
                Some(PathRewrite::Prefix(prefix))
            }
            ("", Some(r), None) => {
                let (re, with) = target_substitute(r).at("regex_rewrite")?;
                Some(PathRewrite::Regex(re, with))
            }
            ("", None, Some(policy)) => {
                let rewrite = template_rewrite(policy, matching).at("path_rewrite_policy")?;
                Some(PathRewrite::Template(Arc::new(rewrite)))
            }
            _ => {
                return refuse(
                    "only one of prefix_rewrite, regex_rewrite and path_rewrite_policy may be set",
                );
            }
        },
    )
}

fn template_rewrite(
    m: &core::TypedExtensionConfig,
    matching: &RouteMatch,
) -> Result<TemplateRewrite> {
    let any = need(m.typed_config.as_ref(), "typed_config")?;
    let config: UriTemplateRewriteConfig = typed(any).at("typed_config")?;
    let PathMatch::Template(template) = &matching.path else {
        return refuse("needs a path_match_policy").at("typed_config");
    };
    TemplateRewrite::parse(&config.path_template_rewrite, template.clone())
        .at("path_template_rewrite")
        .at("typed_config")
}

/// A CONNECT may end here; nothing else may.
fn connect_config(m: &pb::route_action::UpgradeConfig) -> Result<()> {
    let Some(config) = &m.connect_config else {
        return Ok(());
    };
    if !m.upgrade_type.eq_ignore_ascii_case("connect") {
        return refuse(format!("is for CONNECT alone, not `{}`", m.upgrade_type))
            .at("connect_config");
    }
    refuse_set(&[
        (
            config.proxy_protocol_config.is_some(),
            "proxy_protocol_config",
        ),
        (config.allow_post, "allow_post"),
    ])
    .at("connect_config")
}

fn cluster_specifier(m: &pb::RouteAction) -> Result<ClusterSpecifier> {
    use pb::route_action::ClusterSpecifier as S;
    Ok(match m.cluster_specifier.as_ref() {
        Some(S::Cluster(name)) if name.is_empty() => {
            return refuse("must not be empty").at("cluster");
        }
        Some(S::Cluster(cluster)) => ClusterSpecifier::Named(name(cluster)),
        Some(S::ClusterHeader(name)) => {
            ClusterSpecifier::Header(header_name(name).at("cluster_header")?)
        }
        Some(S::WeightedClusters(w)) => ClusterSpecifier::Weighted(Arc::new(
            weighted(w, m.metadata_match.as_ref()).at("weighted_clusters")?,
        )),
        Some(S::ClusterSpecifierPlugin(_)) => {
            return refuse("is not implemented").at("cluster_specifier_plugin");
        }
        Some(S::InlineClusterSpecifierPlugin(_)) => {
            return refuse("is not implemented").at("inline_cluster_specifier_plugin");
        }
        None => {
            return refuse("a cluster is required: cluster, cluster_header or weighted_clusters");
        }
    })
}

fn weighted(
    m: &pb::WeightedCluster,
    of_route: Option<&core::Metadata>,
) -> Result<WeightedClusters> {
    use pb::weighted_cluster::{RandomValueSpecifier, cluster_weight::HostRewriteSpecifier};
    let clusters = list(&m.clusters, "clusters", |w| {
        if w.name.is_empty() == w.cluster_header.is_empty() {
            return refuse("one of name and cluster_header is required");
        }
        Ok(Arc::new(WeightedCluster {
            name: w.name.as_str().into(),
            cluster_header: w.cluster_header.to_ascii_lowercase().into(),
            weight: w.weight.as_ref().map_or(0, |v| v.value),
            headers: header_mutations(
                &w.request_headers_to_add,
                &w.request_headers_to_remove,
                &w.response_headers_to_add,
                &w.response_headers_to_remove,
            )?
            .into(),
            per_filter: per_filter(&w.typed_per_filter_config)?.into(),
            metadata_match: subset::criteria(of_route, w.metadata_match.as_ref()),
            host_rewrite: match &w.host_rewrite_specifier {
                Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                    Some(written::target(host).at("host_rewrite_literal")?)
                }
                None => None,
            },
        }))
    })?;
    let total: u64 = clusters.iter().map(|w| u64::from(w.weight)).sum();
    if total == 0 {
        return refuse("the sum of weights must be greater than 0").at("clusters");
    }
    if total > u64::from(u32::MAX) {
        return refuse("the sum of weights must be at most 4294967295").at("clusters");
    }
    let random_value_header = match &m.random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) => header_name(name).at("header_name")?,
        Some(RandomValueSpecifier::UseHashPolicy(_)) => Name::default(),
        None => Name::default(),
    };
    let by_hash = matches!(
        &m.random_value_specifier,
        Some(RandomValueSpecifier::UseHashPolicy(on)) if on.value
    );
    Ok(WeightedClusters {
        clusters,
        by_hash,
        total,
        random_value_header,
    })
}

fn host_rewrite(m: &pb::RouteAction) -> Result<Option<HostRewrite>> {
    use pb::route_action::HostRewriteSpecifier as H;
    Ok(match m.host_rewrite_specifier.as_ref() {
        None => None,
        Some(H::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(
            written::target(host).at("host_rewrite_literal")?,
        )),
        Some(H::AutoHostRewrite(on)) => on.value.then_some(HostRewrite::Auto),
        Some(H::HostRewriteHeader(name)) => Some(HostRewrite::Header(
            header_name(name).at("host_rewrite_header")?,
        )),
        Some(H::HostRewritePathRegex(r)) => {
            let (re, with) = target_substitute(r).at("host_rewrite_path_regex")?;
            Some(HostRewrite::PathRegex(re, with))
        }
        Some(H::HostRewrite(_)) => return refuse("is not implemented").at("host_rewrite"),
    })
}

/// `max_grpc_timeout` says of whole requests what `grpc_timeout_header_max` says of streams.
fn stream_duration(m: &pb::RouteAction) -> Result<Option<MaxStreamDuration>> {
    if let Some(d) = &m.max_stream_duration {
        return Ok(Some(MaxStreamDuration {
            of_request: false,
            max: opt_duration(
                d.max_stream_duration.as_ref(),
                "max_stream_duration.max_stream_duration",
            )?,
            grpc_timeout_header_max: opt_duration(
                d.grpc_timeout_header_max.as_ref(),
                "max_stream_duration.grpc_timeout_header_max",
            )?,
            grpc_timeout_header_offset: opt_duration(
                d.grpc_timeout_header_offset.as_ref(),
                "max_stream_duration.grpc_timeout_header_offset",
            )?,
        }));
    }
    let max = opt_duration(m.max_grpc_timeout.as_ref(), "max_grpc_timeout")?;
    let offset = opt_duration(m.grpc_timeout_offset.as_ref(), "grpc_timeout_offset")?;
    Ok(max.map(|max| MaxStreamDuration {
        of_request: true,
        max: None,
        grpc_timeout_header_max: Some(max),
        grpc_timeout_header_offset: offset,
    }))
}

fn mirrors(list_: &[pb::route_action::RequestMirrorPolicy]) -> Result<Vec<Mirror>> {
    list(list_, "request_mirror_policies", |m| {
        if m.cluster.is_empty() == m.cluster_header.is_empty() {
            return refuse("one of cluster and cluster_header is required");
        }
        if !m.request_headers_mutations.is_empty() {
            return refuse("is not implemented").at("request_headers_mutations");
        }
        Ok(Mirror {
            cluster: m.cluster.as_str().into(),
            cluster_header: m.cluster_header.to_ascii_lowercase().into(),
            fraction: m
                .runtime_fraction
                .as_ref()
                .map_or(Ok(FractionalPercent::ALL), |f| {
                    runtime_fractional(f).at("runtime_fraction")
                })?,
            disable_shadow_host_suffix: m.disable_shadow_host_suffix_append,
            trace_sampled: m.trace_sampled.as_ref().map(|v| v.value),
            host_rewrite: written::target(&m.host_rewrite_literal).at("host_rewrite_literal")?,
        })
    })
}

fn hash_policy(m: &pb::route_action::HashPolicy) -> Result<HashPolicy> {
    use pb::route_action::hash_policy::PolicySpecifier as P;
    let source = match m.policy_specifier.as_ref() {
        Some(P::Header(h)) => {
            let rewrite = h
                .regex_rewrite
                .as_ref()
                .map(matcher::substitute)
                .transpose()
                .at("header.regex_rewrite")?;
            HashSource::Header(
                header_name(&h.header_name).at("header.header_name")?,
                rewrite,
            )
        }
        Some(P::Cookie(k)) if k.name.is_empty() => return refuse("is required").at("cookie.name"),
        Some(P::Cookie(k)) => HashSource::Cookie {
            name: written::value(&k.name).at("cookie.name")?,
            ttl: opt_duration(k.ttl.as_ref(), "cookie.ttl")?,
            path: written::value(&k.path).at("cookie.path")?,
            attributes: list(&k.attributes, "cookie.attributes", |a| {
                let value = written::value(&a.value).at("value")?;
                Ok((written::value(&a.name).at("name")?, value))
            })?,
        },
        Some(P::ConnectionProperties(p)) if p.source_ip => HashSource::SourceIp,
        Some(P::ConnectionProperties(_)) => {
            return refuse("source_ip must be true").at("connection_properties");
        }
        Some(P::QueryParameter(q)) => HashSource::QueryParameter(q.name.as_str().into()),
        Some(P::FilterState(_)) => return refuse("is not implemented").at("filter_state"),
        None => return refuse("a policy is required"),
    };
    Ok(HashPolicy {
        source,
        terminal: m.terminal,
    })
}

/// A rewrite whose result is a path or a host.
fn target_substitute(m: &RegexMatchAndSubstitute) -> Result<(Regex, Substitution)> {
    written::target(&m.substitution).at("substitution")?;
    matcher::substitute(m)
}

fn redirect(m: &pb::RedirectAction) -> Result<Redirect> {
    use pb::redirect_action::{
        PathRewriteSpecifier as P, RedirectResponseCode as C, SchemeRewriteSpecifier as S,
    };
    let path = match m.path_rewrite_specifier.as_ref() {
        None => RedirectPath::Keep,
        Some(P::PathRedirect(p)) if p.is_empty() => RedirectPath::Keep,
        Some(P::PathRedirect(p)) => RedirectPath::Path(written::target(p).at("path_redirect")?),
        Some(P::PrefixRewrite(p)) => RedirectPath::Prefix(written::target(p).at("prefix_rewrite")?),
        Some(P::RegexRewrite(r)) => {
            let (re, with) = target_substitute(r).at("regex_rewrite")?;
            RedirectPath::Regex(re, with)
        }
        Some(P::PathRewrite(_)) => return refuse("is not implemented").at("path_rewrite"),
    };
    Ok(Redirect {
        code: match C::try_from(m.response_code) {
            Ok(C::MovedPermanently) => 301,
            Ok(C::Found) => 302,
            Ok(C::SeeOther) => 303,
            Ok(C::TemporaryRedirect) => 307,
            Ok(C::PermanentRedirect) => 308,
            Err(_) => return refuse("is no known redirect code").at("response_code"),
        },
        scheme: match m.scheme_rewrite_specifier.as_ref() {
            Some(S::HttpsRedirect(true)) => Some("https".into()),
            Some(S::SchemeRedirect(s)) => Some(written::target(s).at("scheme_redirect")?),
            _ => None,
        },
        host: written::target(&m.host_redirect).at("host_redirect")?,
        port: if m.port_redirect == 0 {
            None
        } else {
            Some(super::common::port(m.port_redirect).at("port_redirect")?)
        },
        path,
        strip_query: m.strip_query,
    })
}

fn direct_response(
    m: &pb::DirectResponseAction,
    c: &Collected<'_>,
    most_body: u32,
) -> Result<DirectResponse> {
    let status = u16::try_from(m.status)
        .ok()
        .filter(|s| (200..600).contains(s));
    let Some(status) = status else {
        return refuse("must be 200 to 599").at("status");
    };
    let body = data_source_bytes(m.body.as_ref(), c.context).at("body")?;
    if body.len() > most_body as usize {
        return refuse(format!(
            "is {} bytes; at most {most_body} are allowed",
            body.len()
        ))
        .at("body");
    }
    Ok(DirectResponse {
        status,
        body,
        format: m
            .body_format
            .as_ref()
            .map(|f| access_log::body_format(f, c.context))
            .transpose()
            .at("body_format")?,
    })
}
