//! HTTP rules of a VirtualService.

use super::virtual_service::{destination, gateways, weights};
use super::{Findings, text};
use crate::istio::{
    CorsPolicy, Headers, HttpDirectResponse, HttpFaultInjection, HttpMatchRequest, HttpRedirect,
    HttpRetry, HttpRewrite, HttpRoute, StringMatch,
};
use crate::yaml::child;
use std::collections::BTreeMap;

/// Largest body of a direct response.
const MAX_BODY: usize = 1 << 20;

/// Checks an HTTP rule at `path`.
pub fn check(rule: &HttpRoute, path: &str, f: &mut Findings<'_>) {
    action(rule, path, f);
    for (i, m) in rule.matches.iter().enumerate() {
        condition(m, &format!("{path}.match[{i}]"), f);
    }
    for (i, d) in rule.route.iter().enumerate() {
        let path = format!("{path}.route[{i}]");
        destination(d.destination.as_ref(), &format!("{path}.destination"), f);
        headers(d.headers.as_ref(), &format!("{path}.headers"), f);
    }
    let all: Vec<i32> = rule.route.iter().map(|d| d.weight).collect();
    weights(&all, path, f);
    headers(rule.headers.as_ref(), &format!("{path}.headers"), f);
    f.duration(&format!("{path}.timeout"), rule.timeout);
    if let Some(r) = &rule.retries {
        retries(r, &format!("{path}.retries"), f);
    }
    if let Some(x) = &rule.fault {
        fault(x, &format!("{path}.fault"), f);
    }
    if let Some(c) = &rule.cors_policy {
        cors(c, &format!("{path}.corsPolicy"), f);
    }
    mirrors(rule, path, f);
}

/// What is done: one of route, redirect, directResponse and delegate.
fn action(rule: &HttpRoute, path: &str, f: &mut Findings<'_>) {
    let mut both = |a: &str, b: &str| {
        f.error(
            path,
            &format!("HTTP route cannot contain both {a} and {b}"),
            "keep one of them",
        );
    };
    let has_mirror = rule.mirror.is_some() || !rule.mirrors.is_empty();
    let extras = [
        ("route", !rule.route.is_empty()),
        ("rewrite", rule.rewrite.is_some()),
        ("fault", rule.fault.is_some()),
        ("mirror", has_mirror),
    ];
    if rule.redirect.is_some() {
        for (name, _) in extras.iter().filter(|(_, there)| *there) {
            both("redirect", name);
        }
        if rule.direct_response.is_some() {
            both("redirect", "directResponse");
        }
    }
    if rule.direct_response.is_some() {
        for (name, _) in extras.iter().filter(|(_, there)| *there) {
            both("directResponse", name);
        }
    }
    if rule.delegate.is_some() {
        let ends = [
            ("route", !rule.route.is_empty()),
            ("redirect", rule.redirect.is_some()),
            ("directResponse", rule.direct_response.is_some()),
        ];
        for (name, _) in ends.iter().filter(|(_, there)| *there) {
            both("delegate", name);
        }
    }
    if let Some(r) = &rule.redirect {
        redirect(r, &format!("{path}.redirect"), f);
    }
    if let Some(d) = &rule.direct_response {
        direct(d, &format!("{path}.directResponse"), f);
    }
    if let Some(d) = &rule.delegate {
        let field = format!("{path}.delegate");
        if !text::is_fqdn(&d.name) {
            f.error(
                &format!("{field}.name"),
                &format!("{:?} is no name", d.name),
                "use the name of a virtual service",
            );
        }
        if !d.namespace.is_empty() && !text::is_dns_label(&d.namespace) {
            f.error(
                &format!("{field}.namespace"),
                &format!("{:?} is no namespace", d.namespace),
                "use the name of a namespace",
            );
        }
    }
    if let Some(r) = &rule.rewrite {
        rewrite(r, &format!("{path}.rewrite"), f);
    }
    let nothing = rule.route.is_empty()
        && rule.redirect.is_none()
        && rule.direct_response.is_none()
        && rule.delegate.is_none();
    if nothing {
        f.error(
            path,
            "HTTP route, redirect or directResponse is required",
            "add route with a destination",
        );
    }
}

fn redirect(r: &HttpRedirect, path: &str, f: &mut Findings<'_>) {
    if r.uri.is_empty()
        && r.authority.is_empty()
        && r.scheme.is_empty()
        && r.port.is_none()
        && r.derive_port.is_none()
        && r.redirect_code.is_none()
    {
        f.error(
            path,
            "redirect must specify uri, authority, scheme, port or redirectCode",
            "use at least one of them, or route instead of redirect",
        );
    }
    if !r.scheme.is_empty() && r.scheme != "http" && r.scheme != "https" {
        f.error(
            &format!("{path}.scheme"),
            &format!("scheme {:?} is not valid", r.scheme),
            "use http or https",
        );
    }
    if let Some(port) = r.port {
        f.port(&format!("{path}.port"), port);
        if r.derive_port.is_some() {
            f.error(
                path,
                "port and derivePort exclude each other",
                "keep one of them",
            );
        }
    }
    if let Some(code) = r.redirect_code
        && !(300..=399).contains(&code)
    {
        f.error(
            &format!("{path}.redirectCode"),
            &format!("{code} is no redirect status"),
            "use 301, 302, 303, 307 or 308",
        );
    }
}

fn direct(d: &HttpDirectResponse, path: &str, f: &mut Findings<'_>) {
    if !(200..=599).contains(&d.status) {
        f.error(
            &format!("{path}.status"),
            &format!("status {} is not valid", d.status),
            "use 200 to 599",
        );
    }
    let Some(body) = &d.body else { return };
    let field = format!("{path}.body");
    match (&body.string, &body.bytes) {
        (Some(_), Some(_)) => f.error(
            &field,
            "string and bytes exclude each other",
            "keep one of them",
        ),
        (Some(s), None) if s.len() > MAX_BODY => {
            f.error(
                &field,
                "the body is larger than 1 MiB",
                "use a shorter body",
            );
        }
        (None, Some(b)) => match crate::proto::base64(b) {
            None => f.error(
                &format!("{field}.bytes"),
                "this is no base64",
                "use base64 with its padding",
            ),
            Some(b) if b.len() > MAX_BODY => f.error(
                &field,
                "the body is larger than 1 MiB",
                "use a shorter body",
            ),
            Some(_) => {}
        },
        _ => {}
    }
}

fn rewrite(r: &HttpRewrite, path: &str, f: &mut Findings<'_>) {
    if r.uri.is_empty() && r.authority.is_empty() && r.uri_regex_rewrite.is_none() {
        f.error(
            path,
            "rewrite must specify uri, uriRegexRewrite or authority",
            "use at least one of them, or leave rewrite out",
        );
    }
    let Some(x) = &r.uri_regex_rewrite else {
        return;
    };
    let field = format!("{path}.uriRegexRewrite");
    if !r.uri.is_empty() {
        f.error(
            path,
            "uri and uriRegexRewrite exclude each other",
            "keep one of them",
        );
    }
    if x.pattern.is_empty() || x.rewrite.is_empty() {
        f.error(
            &field,
            "match and rewrite are both required",
            "use match for the expression and rewrite for what takes its place",
        );
    }
    if let Some(problem) = text::regex_problem(&x.pattern) {
        f.error(&format!("{field}.match"), &problem, "use RE2 syntax");
    }
}

fn condition(m: &HttpMatchRequest, path: &str, f: &mut Findings<'_>) {
    let texts = [
        ("uri", &m.uri),
        ("scheme", &m.scheme),
        ("method", &m.method),
        ("authority", &m.authority),
    ];
    for (name, value) in texts {
        if let Some(s) = value {
            let field = format!("{path}.{name}");
            string_match(s, &field, f);
            let empty = |t: &Option<String>| t.as_deref() == Some("");
            if name == "uri" && (empty(&s.prefix) || empty(&s.exact)) {
                f.error(&field, "the path is empty", "use \"/\" for every path");
            }
        }
    }
    named(&m.headers, &format!("{path}.headers"), true, f);
    named(
        &m.without_headers,
        &format!("{path}.withoutHeaders"),
        true,
        f,
    );
    named(&m.query_params, &format!("{path}.queryParams"), false, f);
    if m.port != 0 {
        f.port(&format!("{path}.port"), m.port);
    }
    f.labels(&format!("{path}.sourceLabels"), &m.source_labels);
    gateways(&format!("{path}.gateways"), &m.gateways, f);
}

fn named(list: &BTreeMap<String, StringMatch>, path: &str, header: bool, f: &mut Findings<'_>) {
    for (name, value) in list {
        let field = child(path, name);
        // Routing by token claims is written as a header with this prefix.
        let claim = name.starts_with("@request.auth.claims");
        let pseudo = matches!(
            name.as_str(),
            ":authority" | ":method" | ":path" | ":scheme"
        );
        if name.is_empty() {
            f.error(
                path,
                "a name is empty",
                "use the name of a header or a parameter",
            );
        } else if header && !claim && !pseudo && !text::is_header_name(name) {
            f.error(
                &field,
                &format!("{name:?} is no header name"),
                "use letters, digits and dashes",
            );
        }
        string_match(value, &field, f);
    }
}

/// At most one of exact, prefix and regex, and a valid expression.
fn string_match(s: &StringMatch, field: &str, f: &mut Findings<'_>) {
    let set = [&s.exact, &s.prefix, &s.regex]
        .iter()
        .filter(|t| t.is_some())
        .count();
    if set > 1 {
        f.error(
            field,
            "exact, prefix and regex exclude each other",
            "keep one of them",
        );
    }
    // A lone star is read as "any value" (the header must be there).
    if let Some(r) = s.regex.as_ref().filter(|r| *r != "*") {
        let problem = text::regex_problem(r);
        if let Some(problem) = problem {
            f.error(&format!("{field}.regex"), &problem, "use RE2 syntax");
        } else if r.is_empty() {
            f.error(
                &format!("{field}.regex"),
                "the expression is empty",
                "use an expression such as \".*\"",
            );
        }
    }
}

fn headers(h: Option<&Headers>, path: &str, f: &mut Findings<'_>) {
    let Some(h) = h else { return };
    for (direction, operations) in [("request", &h.request), ("response", &h.response)] {
        let Some(o) = operations else { continue };
        let path = format!("{path}.{direction}");
        for (kind, pairs) in [("set", &o.set), ("add", &o.add)] {
            for (name, value) in pairs {
                let field = child(&format!("{path}.{kind}"), name);
                header_name(name, &field, f);
                if let Some(problem) = text::header_value_problem(value) {
                    f.error(&field, problem, "write a literal percent sign as \"%%\"");
                }
            }
        }
        for (i, name) in o.remove.iter().enumerate() {
            header_name(name, &format!("{path}.remove[{i}]"), f);
        }
    }
}

fn header_name(name: &str, field: &str, f: &mut Findings<'_>) {
    if name == ":authority" {
        return;
    }
    if name.starts_with(':') {
        f.error(
            field,
            &format!("header {name:?} is reserved"),
            "use rewrite for the path and the authority",
        );
    } else if !text::is_header_name(name) {
        f.error(
            field,
            &format!("{name:?} is no header name"),
            "use letters, digits and dashes",
        );
    }
}

fn retries(r: &HttpRetry, path: &str, f: &mut Findings<'_>) {
    if r.attempts < 0 {
        f.error(
            &format!("{path}.attempts"),
            "attempts is below 0",
            "use 0 to turn retries off",
        );
    }
    if r.attempts == 0 && (r.per_try_timeout.is_some() || !r.retry_on.is_empty()) {
        f.error(
            path,
            "http retry policy configured when attempts are set to 0 (disabled)",
            "set attempts",
        );
    }
    f.duration(&format!("{path}.perTryTimeout"), r.per_try_timeout);
    f.duration(&format!("{path}.backoff"), r.backoff);
    for word in r
        .retry_on
        .split(',')
        .map(str::trim)
        .filter(|w| !w.is_empty())
    {
        let code = word.parse::<u16>().is_ok_and(|c| (100..=599).contains(&c));
        if !code && !RETRY_ON.contains(&word) {
            f.error(
                &format!("{path}.retryOn"),
                &format!("{word:?} is no retry condition"),
                "use words such as 5xx, connect-failure, refused-stream, reset, or a status",
            );
        }
    }
}

/// Envoy's retry conditions for HTTP and gRPC.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn fault(x: &HttpFaultInjection, path: &str, f: &mut Findings<'_>) {
    if x.delay.is_none() && x.abort.is_none() {
        f.error(
            path,
            "HTTP fault injection must have an abort and/or a delay",
            "use delay, abort or both, or leave fault out",
        );
    }
    if let Some(d) = &x.delay {
        let path = format!("{path}.delay");
        if d.exponential_delay.is_some() {
            f.error(
                &format!("{path}.exponentialDelay"),
                "exponentialDelay is not supported yet",
                "use fixedDelay",
            );
        } else if d.fixed_delay.is_none() {
            f.error(&path, "fixedDelay is required", "use a duration such as 5s");
        }
        f.duration(&format!("{path}.fixedDelay"), d.fixed_delay);
        f.percent(&format!("{path}.percent"), f64::from(d.percent));
        if let Some(p) = &d.percentage {
            f.percent(&format!("{path}.percentage.value"), p.value);
        }
        if d.percent != 0 {
            f.warn(
                &format!("{path}.percent"),
                "percent is deprecated",
                "use percentage.value",
            );
        }
    }
    if let Some(a) = &x.abort {
        let path = format!("{path}.abort");
        match (a.http_status, &a.grpc_status) {
            (Some(s), None) if !(200..=599).contains(&s) => {
                f.error(
                    &format!("{path}.httpStatus"),
                    &format!("status {s} is not valid"),
                    "use 200 to 599",
                );
            }
            (None, Some(s)) if !is_grpc_status(s) => {
                f.error(
                    &format!("{path}.grpcStatus"),
                    &format!("{s:?} is no gRPC status"),
                    "use a name such as UNAVAILABLE",
                );
            }
            (Some(_), Some(_)) => f.error(
                &path,
                "httpStatus and grpcStatus exclude each other",
                "keep one of them",
            ),
            (None, None) => f.error(
                &path,
                "a status is required",
                "set httpStatus or grpcStatus",
            ),
            _ => {}
        }
        if a.http2_error.is_some() {
            f.error(
                &format!("{path}.http2Error"),
                "HTTP/2 abort fault injection is not supported yet",
                "use httpStatus",
            );
        }
        if let Some(p) = &a.percentage {
            f.percent(&format!("{path}.percentage.value"), p.value);
        }
    }
}

fn is_grpc_status(s: &str) -> bool {
    s.parse::<u32>().map_or_else(
        |_| s.len() > 1 && s.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
        |n| n <= 16,
    )
}

fn cors(c: &CorsPolicy, path: &str, f: &mut Findings<'_>) {
    for (i, origin) in c.allow_origins.iter().enumerate() {
        string_match(origin, &format!("{path}.allowOrigins[{i}]"), f);
    }
    for (i, method) in c.allow_methods.iter().enumerate() {
        if method != "*" && !text::is_method(method) {
            f.error(
                &format!("{path}.allowMethods[{i}]"),
                &format!("{method:?} is no HTTP method"),
                "use a method such as GET, or \"*\"",
            );
        }
    }
    for (name, list) in [
        ("allowHeaders", &c.allow_headers),
        ("exposeHeaders", &c.expose_headers),
    ] {
        for (i, header) in list.iter().enumerate() {
            if header != "*" && !text::is_header_name(header) {
                f.error(
                    &format!("{path}.{name}[{i}]"),
                    &format!("{header:?} is no header name"),
                    "use letters, digits and dashes",
                );
            }
        }
    }
    let field = format!("{path}.maxAge");
    f.duration(&field, c.max_age);
    if c.max_age.is_some_and(|a| a.nanos % 1_000_000_000 != 0) {
        f.error(
            &field,
            "maxAge is counted in whole seconds",
            "use a duration such as 24h or 90s",
        );
    }
}

fn mirrors(rule: &HttpRoute, path: &str, f: &mut Findings<'_>) {
    if rule.mirror.is_some() && !rule.mirrors.is_empty() {
        f.error(
            path,
            "HTTP route cannot contain both mirror and mirrors",
            "keep one of them",
        );
    }
    if rule.mirror.is_some() {
        destination(rule.mirror.as_ref(), &format!("{path}.mirror"), f);
    }
    for (i, m) in rule.mirrors.iter().enumerate() {
        let path = format!("{path}.mirrors[{i}]");
        destination(m.destination.as_ref(), &format!("{path}.destination"), f);
        if let Some(p) = &m.percentage {
            f.percent(&format!("{path}.percentage.value"), p.value);
        }
    }
    if let Some(p) = &rule.mirror_percentage {
        f.percent(&format!("{path}.mirrorPercentage.value"), p.value);
    }
    if let Some(p) = rule.mirror_percent {
        f.percent(&format!("{path}.mirrorPercent"), f64::from(p));
        f.warn(
            &format!("{path}.mirrorPercent"),
            "mirrorPercent is deprecated",
            "use mirrorPercentage.value",
        );
    }
}
