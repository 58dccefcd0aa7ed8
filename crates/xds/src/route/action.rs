//! What a route does: forwarding with weights, rewrites and mirrors, redirects, fixed
//! answers, header edits and the filters set per route.

use lateen_model::policy::{Algorithm, HashKey};
use lateen_model::route::{
    CorsPolicy, Destination, DirectResponse, Fault, FaultAbort, HeaderEdits, HeaderOperations,
    HttpMatch, HttpRoute, Mirror, Redirect, RedirectPort, StringMatch, WeightedDestination,
};
use lateen_model::{Service, Str};
use lateen_xds_proto::any::pack;
use lateen_xds_proto::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent, data_source,
    header_value_option::HeaderAppendAction,
};
use lateen_xds_proto::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, WeightedCluster, redirect_action,
    route_action::{self, HashPolicy, RequestMirrorPolicy, hash_policy},
    weighted_cluster::{ClusterWeight, cluster_weight},
};
use lateen_xds_proto::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use lateen_xds_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy as WireCors;
use lateen_xds_proto::envoy::extensions::filters::http::fault::v3::{
    FaultAbort as WireAbort, HttpFault, fault_abort,
};
use lateen_xds_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use lateen_xds_proto::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

use super::rule::Place;
use super::{forward, matching, retry};
use crate::context::Context;
use crate::names;
use crate::wire;

/// The cluster of a destination. Without a port: the service's only one, else the port
/// clients see. A cluster that does not exist answers 503, as it should.
pub fn cluster_name(cx: &Context<'_>, d: &Destination, listen: u16) -> String {
    let port = d
        .port
        .unwrap_or_else(|| match cx.service(&d.host).map(|s| s.ports.as_slice()) {
            Some([only]) => only.number,
            _ => listen,
        });
    names::outbound(port, d.subset.as_deref().unwrap_or_default(), &d.host)
}

/// Forwarding as a rule describes it.
#[expect(
    deprecated,
    reason = "max_grpc_timeout is what Istio's tools read; Envoy still takes it"
)]
pub fn forward_to(
    cx: &Context<'_>,
    http: &HttpRoute,
    to: &[WeightedDestination],
    m: Option<&HttpMatch>,
    place: &Place<'_>,
) -> RouteAction {
    let mut a = forward("");
    a.timeout = wire::duration(http.timeout.unwrap_or_default());
    a.max_grpc_timeout = a.timeout;
    destinations(cx, &mut a, to, place.port);
    for d in to {
        if let Some(service) = cx.service(&d.destination.host) {
            let port = d.destination.port.unwrap_or(place.port);
            balance(
                cx,
                &mut a,
                &service.clone(),
                d.destination.subset.as_deref(),
                port,
            );
        }
    }
    a.retry_policy = retry::outbound(cx, http.retries.as_ref(), !a.hash_policy.is_empty());
    rewrite(&mut a, http, m);
    a.request_mirror_policies = http
        .mirrors
        .iter()
        .filter(|m| m.percent > 0.0)
        .map(|m| mirror(cx, m, place.port))
        .collect();
    a
}

/// One destination is a plain cluster; of several those without weight drop out.
fn destinations(cx: &Context<'_>, a: &mut RouteAction, to: &[WeightedDestination], listen: u16) {
    let weighed: Vec<&WeightedDestination> = if to.len() > 1 {
        to.iter().filter(|d| d.weight > 0).collect()
    } else {
        to.iter().collect()
    };
    if let [only] = weighed[..]
        && only.headers == HeaderEdits::default()
    {
        let name = cluster_name(cx, &only.destination, listen);
        a.cluster_specifier = Some(route_action::ClusterSpecifier::Cluster(name));
        return;
    }
    let lone = weighed.len() == 1;
    let clusters = weighed.into_iter().map(|d| {
        let mut c = ClusterWeight {
            name: cluster_name(cx, &d.destination, listen),
            weight: wire::u32_value(if lone { 100 } else { d.weight }),
            ..ClusterWeight::default()
        };
        let (add, remove, host) = operations(&d.headers.request);
        c.request_headers_to_add = add;
        c.request_headers_to_remove = remove;
        c.host_rewrite_specifier =
            host.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral);
        let (add, remove, _) = operations(&d.headers.response);
        c.response_headers_to_add = add;
        c.response_headers_to_remove = remove;
        c
    });
    a.cluster_specifier = Some(route_action::ClusterSpecifier::WeightedClusters(
        WeightedCluster {
            clusters: clusters.collect(),
            ..WeightedCluster::default()
        },
    ));
}

/// Hash policies of a destination that is balanced by consistent hashing.
pub fn balance(
    cx: &Context<'_>,
    a: &mut RouteAction,
    service: &Service,
    subset: Option<&str>,
    port: u16,
) {
    let Some(rule) = cx.rule(service) else { return };
    let Some(lb) = rule.effective(subset, port).load_balancer else {
        return;
    };
    let Algorithm::ConsistentHash(h) = lb.algorithm else {
        return;
    };
    use hash_policy::PolicySpecifier as P;
    let specifier = match h.key {
        HashKey::Header(name) => P::Header(hash_policy::Header {
            header_name: name.to_string(),
            ..hash_policy::Header::default()
        }),
        HashKey::Cookie { name, path, ttl } => P::Cookie(hash_policy::Cookie {
            name: name.to_string(),
            path: path.to_string(),
            ttl: ttl.and_then(wire::duration),
            ..hash_policy::Cookie::default()
        }),
        HashKey::SourceIp => {
            P::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true })
        }
        HashKey::Query(name) => P::QueryParameter(hash_policy::QueryParameter {
            name: name.to_string(),
        }),
    };
    let policy = HashPolicy {
        policy_specifier: Some(specifier),
        terminal: false,
    };
    if !a.hash_policy.contains(&policy) {
        a.hash_policy.push(policy);
    }
}

fn rewrite(a: &mut RouteAction, http: &HttpRoute, m: Option<&HttpMatch>) {
    let host = |name: &Str| {
        Some(route_action::HostRewriteSpecifier::HostRewriteLiteral(
            name.to_string(),
        ))
    };
    if let Some((_, name)) = http.headers.request.set.iter().find(|(n, _)| is_host(n)) {
        a.host_rewrite_specifier = host(name);
    }
    let Some(r) = &http.rewrite else { return };
    if let Some(name) = &r.authority {
        a.host_rewrite_specifier = host(name);
    }
    if let Some((pattern, substitution)) = &r.uri_regex {
        a.regex_rewrite = substitute(pattern, substitution);
    } else if let Some(uri) = &r.uri {
        match m.and_then(|m| m.uri.as_ref()) {
            // Envoy has no prefix to replace when the match is a regex: the whole path goes.
            Some(StringMatch::Regex(_)) => a.regex_rewrite = substitute(".*", uri),
            _ => a.prefix_rewrite = uri.to_string(),
        }
    }
}

fn substitute(pattern: &str, substitution: &str) -> Option<RegexMatchAndSubstitute> {
    Some(RegexMatchAndSubstitute {
        pattern: Some(matching::regex(pattern)),
        substitution: substitution.to_owned(),
    })
}

fn mirror(cx: &Context<'_>, m: &Mirror, listen: u16) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: cluster_name(cx, &m.destination, listen),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(fraction(m.percent)),
            runtime_key: String::new(),
        }),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    }
}

/// Percent as parts per million.
fn fraction(percent: f64) -> FractionalPercent {
    FractionalPercent {
        numerator: (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32,
        denominator: DenominatorType::Million as i32,
    }
}

/// A redirect. 80 and 443 are left out where the scheme says as much.
pub fn redirect(r: &Redirect, listen: u16) -> RedirectAction {
    use redirect_action::{PathRewriteSpecifier as P, RedirectResponseCode as C};
    let code = match r.code {
        Some(302) => C::Found,
        Some(303) => C::SeeOther,
        Some(307) => C::TemporaryRedirect,
        Some(308) => C::PermanentRedirect,
        _ => C::MovedPermanently,
    };
    let path = match (&r.prefix_rewrite, &r.uri) {
        (Some(p), _) => Some(P::PrefixRewrite(p.to_string())),
        (None, Some(u)) if !u.is_empty() => Some(P::PathRedirect(u.to_string())),
        _ => None,
    };
    let scheme = r.scheme.as_deref().unwrap_or_default();
    let port = match r.port {
        Some(RedirectPort::Number(n)) => n,
        Some(RedirectPort::FromProtocolDefault) => match scheme {
            "https" => 443,
            "http" => 80,
            _ => 0,
        },
        Some(RedirectPort::FromRequestPort) => listen,
        None => 0,
    };
    let implied = matches!((scheme, port), ("http", 80) | ("https", 443));
    RedirectAction {
        host_redirect: r.authority.as_deref().unwrap_or_default().to_owned(),
        port_redirect: if implied { 0 } else { u32::from(port) },
        response_code: code as i32,
        scheme_rewrite_specifier: (!scheme.is_empty())
            .then(|| redirect_action::SchemeRewriteSpecifier::SchemeRedirect(scheme.to_owned())),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    }
}

/// A fixed answer.
pub fn direct(d: &DirectResponse) -> DirectResponseAction {
    let specifier = |body: &Vec<u8>| match String::from_utf8(body.clone()) {
        Ok(text) => data_source::Specifier::InlineString(text),
        Err(e) => data_source::Specifier::InlineBytes(e.into_bytes()),
    };
    DirectResponseAction {
        status: u32::from(d.status),
        body: d.body.as_ref().map(|b| DataSource {
            specifier: Some(specifier(b)),
            ..DataSource::default()
        }),
        ..DirectResponseAction::default()
    }
}

/// Header edits of a whole rule.
pub fn headers(r: &mut Route, edits: &HeaderEdits) {
    // A new Host is not a header edit: `rewrite` sets it.
    let (add, remove, _) = operations(&edits.request);
    r.request_headers_to_add = add;
    r.request_headers_to_remove = remove;
    let (add, remove, _) = operations(&edits.response);
    r.response_headers_to_add = add;
    r.response_headers_to_remove = remove;
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

/// Additions, removals and a new Host, if one is set.
fn operations(o: &HeaderOperations) -> (Vec<HeaderValueOption>, Vec<String>, Option<String>) {
    let option = |name: &Str, value: &Str, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_string(),
            value: value.to_string(),
            ..HeaderValue::default()
        }),
        append_action: action as i32,
        ..HeaderValueOption::default()
    };
    let host = o
        .set
        .iter()
        .find(|(n, _)| is_host(n))
        .map(|(_, v)| v.to_string());
    let mut add: Vec<HeaderValueOption> = o
        .set
        .iter()
        .filter(|(n, _)| !is_host(n))
        .map(|(n, v)| option(n, v, HeaderAppendAction::OverwriteIfExistsOrAdd))
        .collect();
    add.extend(
        o.add
            .iter()
            .map(|(n, v)| option(n, v, HeaderAppendAction::AppendIfExistsOrAdd)),
    );
    (add, o.remove.iter().map(Str::to_string).collect(), host)
}

/// Faults and cross-origin rules, which are filters with settings per route.
pub fn per_route_filters(cx: &Context<'_>, r: &mut Route, http: &HttpRoute) {
    let (fault_filter, cors_filter) = ("envoy.filters.http.fault", "envoy.filters.http.cors");
    if let Some(f) = http
        .fault
        .as_ref()
        .filter(|_| cx.key.supports(fault_filter))
    {
        r.typed_per_filter_config
            .insert(fault_filter.to_owned(), pack(&fault(f)));
    }
    if let Some(c) = http.cors.as_ref().filter(|_| cx.key.supports(cors_filter)) {
        r.typed_per_filter_config
            .insert(cors_filter.to_owned(), pack(&cors(c)));
    }
}

fn fault(f: &Fault) -> HttpFault {
    HttpFault {
        delay: f.delay.map(|(percent, length)| FaultDelay {
            percentage: Some(fraction(percent)),
            fault_delay_secifier: wire::duration(length)
                .map(fault_delay::FaultDelaySecifier::FixedDelay),
        }),
        abort: f.abort.as_ref().map(|(percent, what)| WireAbort {
            percentage: Some(fraction(*percent)),
            error_type: Some(match what {
                FaultAbort::Http(code) => fault_abort::ErrorType::HttpStatus(u32::from(*code)),
                FaultAbort::Grpc(code) => fault_abort::ErrorType::GrpcStatus(*code),
            }),
            ..WireAbort::default()
        }),
        ..HttpFault::default()
    }
}

fn cors(c: &CorsPolicy) -> WireCors {
    let join = |l: &[Str]| l.iter().map(|s| &**s).collect::<Vec<_>>().join(",");
    // "Any origin" is a prefix of nothing, not the absence of a matcher.
    let origin = |m: &StringMatch| {
        matching::string(m).or_else(|| matching::string(&StringMatch::Regex(".*".into())))
    };
    WireCors {
        allow_origin_string_match: c.allow_origins.iter().filter_map(origin).collect(),
        allow_methods: join(&c.allow_methods),
        allow_headers: join(&c.allow_headers),
        expose_headers: join(&c.expose_headers),
        max_age: c
            .max_age
            .map(|d| d.as_secs().to_string())
            .unwrap_or_default(),
        allow_credentials: c.allow_credentials.and_then(wire::bool_value),
        forward_not_matching_preflights: wire::bool_value(c.forward_unmatched_preflights),
        ..WireCors::default()
    }
}
