//! Matchers over strings, headers, query parameters and metadata.
use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::route::Substitution;
use lateen_proxy_core::matcher::{
    CookieMatcher, HeaderMatcher, HeaderRule, MetadataMatcher, QueryMatcher, Regex, StringMatcher,
    StringRule, ValueMatcher,
};
use lateen_xds_proto::envoy::config::route::v3 as route;
use lateen_xds_proto::envoy::r#type::matcher::v3 as pb;

use super::common::{header_name, need};
use super::written;
use crate::error::{At, DecodeError, Result, list, refuse};

pub(super) fn regex(m: &pb::RegexMatcher) -> Result<Regex> {
    if m.regex.is_empty() {
        return refuse("is required").at("regex");
    }
    Regex::new(&m.regex).map_err(DecodeError::from).at("regex")
}

pub(super) fn substitute(m: &pb::RegexMatchAndSubstitute) -> Result<(Regex, Substitution)> {
    let re = regex(need(m.pattern.as_ref(), "pattern")?).at("pattern")?;
    let prepared = re.prepare_to_replace().map_err(DecodeError::from);
    prepared.at("regex").at("pattern")?;
    written::value(&m.substitution).at("substitution")?;
    let with = Substitution::parse(&m.substitution, re.groups()).at("substitution")?;
    Ok((re, with))
}

pub(crate) fn string(m: &pb::StringMatcher) -> Result<StringMatcher> {
    use pb::string_matcher::MatchPattern as P;
    let text = |s: &str, field: &str| -> Result<Name> {
        if s.is_empty() {
            refuse("must not be empty").at(field)
        } else {
            Ok(s.into())
        }
    };
    let rule = match m.match_pattern.as_ref() {
        Some(P::Exact(s)) => StringRule::Exact(s.as_str().into()),
        Some(P::Prefix(s)) => StringRule::Prefix(text(s, "prefix")?),
        Some(P::Suffix(s)) => StringRule::Suffix(text(s, "suffix")?),
        Some(P::Contains(s)) => StringRule::Contains(text(s, "contains")?),
        Some(P::SafeRegex(r)) => StringRule::Regex(regex(r).at("safe_regex")?),
        Some(P::Custom(_)) => return refuse("is not implemented").at("custom"),
        None => return refuse("a match pattern is required"),
    };
    Ok(StringMatcher {
        rule,
        ignore_case: m.ignore_case,
    })
}

pub(super) fn header(m: &route::HeaderMatcher) -> Result<HeaderMatcher> {
    use route::header_matcher::HeaderMatchSpecifier as S;
    let plain = |rule| {
        HeaderRule::String(StringMatcher {
            rule,
            ignore_case: false,
        })
    };
    let rule = match m.header_match_specifier.as_ref() {
        None => HeaderRule::Present(true),
        Some(S::PresentMatch(b)) => HeaderRule::Present(*b),
        Some(S::ExactMatch(s)) => plain(StringRule::Exact(s.as_str().into())),
        Some(S::PrefixMatch(s)) => plain(StringRule::Prefix(s.as_str().into())),
        Some(S::SuffixMatch(s)) => plain(StringRule::Suffix(s.as_str().into())),
        Some(S::ContainsMatch(s)) => plain(StringRule::Contains(s.as_str().into())),
        Some(S::SafeRegexMatch(r)) => plain(StringRule::Regex(regex(r).at("safe_regex_match")?)),
        Some(S::StringMatch(s)) => HeaderRule::String(string(s).at("string_match")?),
        Some(S::RangeMatch(r)) => HeaderRule::Range(r.start, r.end),
    };
    // `Host` is kept as the authority.
    let name = header_name(&m.name).at("name")?;
    let name = if &*name == "host" {
        ":authority".into()
    } else {
        name
    };
    Ok(HeaderMatcher {
        name,
        rule,
        invert: m.invert_match,
        missing_as_empty: m.treat_missing_header_as_empty,
    })
}

pub(super) fn query(m: &route::QueryParameterMatcher) -> Result<QueryMatcher> {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier as S;
    if m.name.is_empty() {
        return refuse("is required").at("name");
    }
    let (value, present) = match m.query_parameter_match_specifier.as_ref() {
        None => (None, None),
        Some(S::StringMatch(s)) => (Some(string(s).at("string_match")?), None),
        Some(S::PresentMatch(b)) => (None, Some(*b)),
    };
    Ok(QueryMatcher {
        name: m.name.as_str().into(),
        value,
        present,
    })
}

pub(super) fn cookie(m: &route::CookieMatcher) -> Result<CookieMatcher> {
    if m.name.is_empty() {
        return refuse("is required").at("name");
    }
    let value = need(m.string_match.as_ref(), "string_match")?;
    Ok(CookieMatcher {
        name: m.name.as_str().into(),
        value: string(value).at("string_match")?,
        invert: m.invert_match,
    })
}

pub(super) fn metadata(m: &pb::MetadataMatcher) -> Result<MetadataMatcher> {
    use pb::metadata_matcher::path_segment::Segment;
    let path = list(&m.path, "path", |p| match &p.segment {
        Some(Segment::Key(key)) => Ok(Name::from(key.as_str())),
        None => refuse("a key is required"),
    })?;
    let value = value(need(m.value.as_ref(), "value")?).at("value")?;
    Ok(MetadataMatcher {
        filter: m.filter.as_str().into(),
        path,
        value,
        invert: m.invert,
    })
}

pub(super) fn value(m: &pb::ValueMatcher) -> Result<ValueMatcher> {
    use pb::value_matcher::MatchPattern as P;
    Ok(match m.match_pattern.as_ref() {
        Some(P::NullMatch(_)) => ValueMatcher::Null,
        Some(P::DoubleMatch(d)) => match &d.match_pattern {
            Some(pb::double_matcher::MatchPattern::Exact(n)) => ValueMatcher::Double(*n),
            Some(pb::double_matcher::MatchPattern::Range(r)) => {
                ValueMatcher::DoubleRange(r.start, r.end)
            }
            None => return refuse("a match pattern is required").at("double_match"),
        },
        Some(P::StringMatch(s)) => ValueMatcher::String(string(s).at("string_match")?),
        Some(P::BoolMatch(b)) => ValueMatcher::Bool(*b),
        Some(P::PresentMatch(b)) => ValueMatcher::Present(*b),
        Some(P::ListMatch(l)) => match &l.match_pattern {
            Some(pb::list_matcher::MatchPattern::OneOf(inner)) => {
                ValueMatcher::ListAny(Box::new(value(inner).at("one_of").at("list_match")?))
            }
            None => return refuse("one_of is required").at("list_match"),
        },
        Some(P::OrMatch(o)) => ValueMatcher::Or(list(&o.value_matchers, "value_matchers", value)?),
        None => return refuse("a match pattern is required"),
    })
}
