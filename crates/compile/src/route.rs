//! Rules of virtual services to routes.

use crate::{Pairs, name};
use lateen_model::route::{
    CorsPolicy, Destination, DirectResponse, Fault, FaultAbort, HeaderEdits, HeaderOperations,
    HttpAction, HttpMatch, HttpRoute, L4Match, Mirror, NamedMatch, Redirect, RedirectPort,
    RetryPolicy, Rewrite, StringMatch, TcpRoute, TlsRoute, WeightedDestination,
};
use lateen_model::{Origin, Str};
use lateen_resources::istio;
use std::collections::BTreeMap;

/// What rules of one object share.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Namespace of the object: short names are completed with it.
    pub namespace: &'a str,
    /// Cluster domain.
    pub domain: &'a str,
    /// The object.
    pub origin: &'a Origin,
}

/// Words that stand for the part of the path after the matched prefix.
const PREFIX_WORD: &str = "%PREFIX()%";

impl Scope<'_> {
    /// One HTTP rule; a delegating rule forwards nowhere yet.
    pub fn http(&self, rule: &istio::HttpRoute, path: &str) -> HttpRoute {
        let action = match (&rule.redirect, &rule.direct_response) {
            (Some(r), _) => HttpAction::Redirect(redirect(r)),
            (None, Some(d)) => HttpAction::Direct(direct(d)),
            (None, None) => HttpAction::Forward(
                rule.route
                    .iter()
                    .enumerate()
                    .map(|(i, d)| self.weighted(d, &format!("{path}.route[{i}]")))
                    .collect(),
            ),
        };
        HttpRoute {
            name: rule.name.as_str().into(),
            matches: rule
                .matches
                .iter()
                .enumerate()
                .map(|(i, m)| self.http_match(m, &format!("{path}.match[{i}]")))
                .collect(),
            action,
            rewrite: rule.rewrite.as_ref().map(rewrite),
            timeout: rule.timeout.map(|t| t.to_std()).filter(|t| !t.is_zero()),
            retries: rule.retries.as_ref().map(retry),
            fault: rule.fault.as_ref().map(fault),
            mirrors: self.mirrors(rule),
            cors: rule.cors_policy.as_ref().map(cors),
            headers: headers(rule.headers.as_ref()),
            origin: self.origin.at(path),
        }
    }

    fn destination(&self, d: &istio::Destination) -> Destination {
        Destination {
            host: name::full_host(&d.host, self.namespace, self.domain),
            subset: name::optional(&d.subset),
            port: d.port.as_ref().and_then(|p| port(p.number)),
        }
    }

    fn weighted(&self, d: &istio::HttpRouteDestination, path: &str) -> WeightedDestination {
        WeightedDestination {
            destination: self.destination(&d.destination.clone().unwrap_or_default()),
            weight: d.weight.max(0).unsigned_abs(),
            headers: headers(d.headers.as_ref()),
            origin: self.origin.at(path),
        }
    }

    fn mirrors(&self, rule: &istio::HttpRoute) -> Vec<Mirror> {
        if let Some(d) = &rule.mirror {
            let percent = match (&rule.mirror_percentage, rule.mirror_percent) {
                (Some(p), _) => p.value,
                (None, Some(p)) => f64::from(p),
                (None, None) => 100.0,
            };
            return vec![Mirror {
                destination: self.destination(d),
                percent,
            }];
        }
        rule.mirrors
            .iter()
            .filter_map(|m| {
                Some(Mirror {
                    destination: self.destination(m.destination.as_ref()?),
                    percent: m.percentage.as_ref().map_or(100.0, |p| p.value),
                })
            })
            .collect()
    }

    fn http_match(&self, m: &istio::HttpMatchRequest, path: &str) -> HttpMatch {
        let mut conditions = named(&m.headers, false, true);
        conditions.extend(named(&m.without_headers, true, true));
        HttpMatch {
            name: m.name.as_str().into(),
            uri: m.uri.as_ref().map(text),
            ignore_uri_case: m.ignore_uri_case,
            scheme: m.scheme.as_ref().map(text),
            method: m.method.as_ref().map(text),
            authority: m.authority.as_ref().map(text),
            headers: conditions,
            query_params: named(&m.query_params, false, false),
            port: port(m.port),
            source_labels: name::labels(&m.source_labels),
            source_namespace: name::optional(&m.source_namespace),
            gateways: self.gateways(&m.gateways),
            stat_prefix: m.stat_prefix.as_str().into(),
            origin: self.origin.at(path),
        }
    }

    fn gateways(&self, written: &[String]) -> Vec<Str> {
        written
            .iter()
            .map(|g| name::full_gateway(g, self.namespace))
            .collect()
    }

    fn l4_destinations(
        &self,
        route: &[istio::RouteDestination],
        path: &str,
    ) -> Vec<WeightedDestination> {
        route
            .iter()
            .enumerate()
            .map(|(i, d)| WeightedDestination {
                destination: self.destination(&d.destination.clone().unwrap_or_default()),
                weight: d.weight.max(0).unsigned_abs(),
                headers: HeaderEdits::default(),
                origin: self.origin.at(format!("{path}.route[{i}]")),
            })
            .collect()
    }

    /// One TLS rule.
    pub fn tls(&self, rule: &istio::TlsRoute, path: &str) -> TlsRoute {
        let condition = |m: &istio::TlsMatchAttributes| L4Match {
            sni_hosts: name::list(&m.sni_hosts),
            destination_subnets: name::list(&m.destination_subnets),
            port: port(m.port),
            source_labels: name::labels(&m.source_labels),
            source_namespace: name::optional(&m.source_namespace),
            gateways: self.gateways(&m.gateways),
        };
        TlsRoute {
            matches: rule.matches.iter().map(condition).collect(),
            destinations: self.l4_destinations(&rule.route, path),
            origin: self.origin.at(path),
        }
    }

    /// One TCP rule.
    pub fn tcp(&self, rule: &istio::TcpRoute, path: &str) -> TcpRoute {
        let condition = |m: &istio::L4MatchAttributes| L4Match {
            sni_hosts: Vec::new(),
            destination_subnets: name::list(&m.destination_subnets),
            port: port(m.port),
            source_labels: name::labels(&m.source_labels),
            source_namespace: name::optional(&m.source_namespace),
            gateways: self.gateways(&m.gateways),
        };
        TcpRoute {
            matches: rule.matches.iter().map(condition).collect(),
            destinations: self.l4_destinations(&rule.route, path),
            origin: self.origin.at(path),
        }
    }
}

/// A port; 0 and numbers out of range are none.
fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n > 0)
}

/// A condition on text. No condition, and the regex `*`, mean presence.
pub fn text(m: &istio::StringMatch) -> StringMatch {
    match (&m.exact, &m.prefix, &m.regex) {
        (Some(e), ..) => StringMatch::Exact(e.as_str().into()),
        (None, Some(p), _) => StringMatch::Prefix(p.as_str().into()),
        (None, None, Some(r)) if r != "*" => StringMatch::Regex(r.as_str().into()),
        _ => StringMatch::Present,
    }
}

fn named(
    written: &BTreeMap<String, istio::StringMatch>,
    invert: bool,
    header: bool,
) -> Vec<NamedMatch> {
    let one = |(k, v): (&String, &istio::StringMatch)| NamedMatch {
        name: if header {
            k.to_lowercase().into()
        } else {
            k.as_str().into()
        },
        value: text(v),
        invert,
    };
    written.iter().map(one).collect()
}

fn headers(h: Option<&istio::Headers>) -> HeaderEdits {
    let operations = |o: &Option<istio::HeaderOperations>| {
        o.as_ref()
            .map_or_else(HeaderOperations::default, |o| HeaderOperations {
                set: pairs(&o.set),
                add: pairs(&o.add),
                remove: name::list(&o.remove),
            })
    };
    h.map_or_else(HeaderEdits::default, |h| HeaderEdits {
        request: operations(&h.request),
        response: operations(&h.response),
    })
}

fn pairs(p: &Pairs) -> Vec<(Str, Str)> {
    p.iter()
        .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
        .collect()
}

fn redirect(r: &istio::HttpRedirect) -> Redirect {
    let prefix = r.uri.strip_prefix(PREFIX_WORD);
    Redirect {
        uri: if prefix.is_some() {
            None
        } else {
            name::optional(&r.uri)
        },
        prefix_rewrite: prefix.map(Into::into),
        authority: name::optional(&r.authority),
        scheme: name::optional(&r.scheme),
        port: match (r.port.and_then(port), r.derive_port) {
            (Some(n), _) => Some(RedirectPort::Number(n)),
            (None, Some(istio::RedirectPortSelection::FromProtocolDefault)) => {
                Some(RedirectPort::FromProtocolDefault)
            }
            (None, Some(istio::RedirectPortSelection::FromRequestPort)) => {
                Some(RedirectPort::FromRequestPort)
            }
            (None, None) => None,
        },
        code: r
            .redirect_code
            .and_then(|c| u16::try_from(c).ok())
            .filter(|c| *c != 0),
    }
}

fn direct(d: &istio::HttpDirectResponse) -> DirectResponse {
    let body = d.body.as_ref().and_then(|b| match (&b.string, &b.bytes) {
        (Some(s), _) => Some(s.clone().into_bytes()),
        (None, Some(b)) => lateen_resources::proto::base64(b),
        (None, None) => None,
    });
    DirectResponse {
        status: u16::try_from(d.status).unwrap_or(500),
        body,
    }
}

fn rewrite(r: &istio::HttpRewrite) -> Rewrite {
    Rewrite {
        uri: name::optional(&r.uri),
        uri_regex: r
            .uri_regex_rewrite
            .as_ref()
            .map(|x| (x.pattern.as_str().into(), x.rewrite.as_str().into())),
        authority: name::optional(&r.authority),
    }
}

/// A retry rule.
pub fn retry(r: &istio::HttpRetry) -> RetryPolicy {
    RetryPolicy {
        attempts: r.attempts.max(0).unsigned_abs(),
        per_try_timeout: r
            .per_try_timeout
            .map(|t| t.to_std())
            .filter(|t| !t.is_zero()),
        retry_on: r.retry_on.as_str().into(),
        retry_remote_localities: r.retry_remote_localities,
        ignore_previous_hosts: r.retry_ignore_previous_hosts,
        backoff: r.backoff.map(|t| t.to_std()).filter(|t| !t.is_zero()),
    }
}

/// Shares left out are 0: nothing is injected (Istio's documented rule).
fn fault(f: &istio::HttpFaultInjection) -> Fault {
    let delay = f.delay.as_ref().and_then(|d| {
        let percent = d
            .percentage
            .as_ref()
            .map_or(f64::from(d.percent), |p| p.value);
        Some((percent, d.fixed_delay?.to_std()))
    });
    let abort = f.abort.as_ref().and_then(|a| {
        let percent = a.percentage.as_ref().map_or(0.0, |p| p.value);
        let status = match (a.http_status, &a.grpc_status) {
            (Some(s), _) => FaultAbort::Http(u16::try_from(s).ok()?),
            (None, Some(s)) => FaultAbort::Grpc(grpc_status(s)?),
            (None, None) => return None,
        };
        Some((percent, status))
    });
    Fault { delay, abort }
}

/// A gRPC status by number or name.
pub fn grpc_status(word: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    if let Ok(n) = word.parse() {
        return (n <= 16).then_some(n);
    }
    NAMES.iter().position(|n| *n == word).map(|n| n as u32)
}

fn cors(c: &istio::CorsPolicy) -> CorsPolicy {
    let mut allow_origins: Vec<StringMatch> = c.allow_origins.iter().map(text).collect();
    if allow_origins.is_empty() {
        let old = |o: &String| match o.as_str() {
            "*" => StringMatch::Regex(".*".into()),
            o => StringMatch::Exact(o.into()),
        };
        allow_origins = c.allow_origin.iter().map(old).collect();
    }
    CorsPolicy {
        allow_origins,
        allow_methods: name::list(&c.allow_methods),
        allow_headers: name::list(&c.allow_headers),
        expose_headers: name::list(&c.expose_headers),
        max_age: c.max_age.map(|t| t.to_std()),
        allow_credentials: c.allow_credentials,
        forward_unmatched_preflights: c.unmatched_preflights
            != Some(istio::UnmatchedPreflights::Ignore),
    }
}
