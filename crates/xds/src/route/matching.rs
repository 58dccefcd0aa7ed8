//! Conditions of HTTP rules as route matches.

use lateen_model::route::{HttpMatch, NamedMatch, StringMatch};
use lateen_xds_proto::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};
use lateen_xds_proto::envoy::r#type::matcher::v3::{
    RegexMatcher, StringMatcher, string_matcher::MatchPattern,
};

use crate::wire;

/// A condition as a route match. Port, source and gateway were looked at before.
pub fn route_match(m: &HttpMatch) -> RouteMatch {
    let mut out = RouteMatch {
        path_specifier: Some(path(m.uri.as_ref())),
        query_parameters: m.query_params.iter().map(query).collect(),
        ..RouteMatch::default()
    };
    if m.ignore_uri_case {
        out.case_sensitive = wire::bool_value(false);
    }
    out.headers = m.headers.iter().map(header).collect();
    let pseudo = [
        (":method", &m.method),
        (":authority", &m.authority),
        (":scheme", &m.scheme),
    ];
    for (name, value) in pseudo {
        if let Some(value) = value {
            out.headers.push(header_value(name, value));
        }
    }
    out
}

fn path(uri: Option<&StringMatch>) -> PathSpecifier {
    match uri {
        None | Some(StringMatch::Present) => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(p)) => PathSpecifier::Path(p.to_string()),
        Some(StringMatch::Prefix(p)) => PathSpecifier::Prefix(p.to_string()),
        Some(StringMatch::Regex(r)) => PathSpecifier::SafeRegex(regex(r)),
    }
}

/// A regular expression over the whole text.
pub fn regex(r: &str) -> RegexMatcher {
    RegexMatcher {
        regex: r.to_owned(),
        ..RegexMatcher::default()
    }
}

/// A string condition; `None` for "there at all".
pub fn string(m: &StringMatch) -> Option<StringMatcher> {
    let pattern = match m {
        StringMatch::Exact(s) => MatchPattern::Exact(s.to_string()),
        StringMatch::Prefix(s) => MatchPattern::Prefix(s.to_string()),
        // Istio reads a regex `*` as "anything", which RE2 would refuse.
        StringMatch::Regex(r) if &**r == "*" => return None,
        StringMatch::Regex(r) => MatchPattern::SafeRegex(regex(r)),
        StringMatch::Present => return None,
    };
    Some(StringMatcher {
        match_pattern: Some(pattern),
        ..StringMatcher::default()
    })
}

fn header_value(name: &str, value: &StringMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(match string(value) {
            Some(m) => HeaderMatchSpecifier::StringMatch(m),
            None => HeaderMatchSpecifier::PresentMatch(true),
        }),
        ..HeaderMatcher::default()
    }
}

fn header(m: &NamedMatch) -> HeaderMatcher {
    let mut out = header_value(&m.name, &m.value);
    out.invert_match = m.invert;
    // "Without this value" holds for a request without the header, too.
    let by_value = matches!(
        out.header_match_specifier,
        Some(HeaderMatchSpecifier::StringMatch(_))
    );
    out.treat_missing_header_as_empty = m.invert && by_value;
    out
}

fn query(m: &NamedMatch) -> QueryParameterMatcher {
    QueryParameterMatcher {
        name: m.name.to_string(),
        query_parameter_match_specifier: Some(match string(&m.value) {
            Some(m) => QueryParameterMatchSpecifier::StringMatch(m),
            None => QueryParameterMatchSpecifier::PresentMatch(true),
        }),
    }
}
