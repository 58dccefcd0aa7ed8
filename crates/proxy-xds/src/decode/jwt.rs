//! The `jwt_authn` filter: providers, requirements, rules. Key sets are read here, so that a bad
//! one is refused with its path.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::jwt::{
    HttpUri, JwtAuthentication, JwtProvider, JwtRequirement, KeySource, RemoteKeys, TokenPlace,
};
use lateen_proxy_core::jwt::{JwkSet, audience};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::filters::http::jwt_authn::v3 as pb;

use super::common::{data_source, duration, header_name, need, opt_duration};
use super::{Collected, matcher, route};
use crate::error::{At, Result, list, refuse, refuse_set};

pub(super) const FILTER: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
pub(super) const PER_ROUTE: &str = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";

/// `clock_skew_seconds` and `cache_duration` where they are not given.
const CLOCK_SKEW: u64 = 60;
const CACHE: Duration = Duration::from_secs(600);

type Providers = HashMap<Name, Arc<JwtProvider>>;

pub(super) fn filter(m: &pb::JwtAuthentication, c: &Collected<'_>) -> Result<JwtAuthentication> {
    refuse_set(&[(m.filter_state_rules.is_some(), "filter_state_rules")])?;
    let mut providers = Vec::with_capacity(m.providers.len());
    for (name, p) in &m.providers {
        let place = format!("providers[{name:?}]");
        providers.push(Arc::new(provider(name, p, c).at(&place)?));
    }
    providers.sort_by(|a, b| a.name.cmp(&b.name));
    let by_name = providers.iter().map(|p| (p.name.clone(), p.clone()));
    let by_name: Providers = by_name.collect();
    let mut named = Vec::with_capacity(m.requirement_map.len());
    for (name, r) in &m.requirement_map {
        let place = format!("requirement_map[{name:?}]");
        named.push((
            Name::from(name.as_str()),
            requirement(r, &by_name).at(&place)?,
        ));
    }
    named.sort_by(|a: &(Name, JwtRequirement), b| a.0.cmp(&b.0));
    let rules = list(&m.rules, "rules", |rule| {
        let matching = route::route_match(need(rule.r#match.as_ref(), "match")?).at("match")?;
        let needed = match rule.requirement_type.as_ref() {
            None => JwtRequirement::Nothing,
            Some(pb::requirement_rule::RequirementType::Requires(r)) => {
                requirement(r, &by_name).at("requires")?
            }
            Some(pb::requirement_rule::RequirementType::RequirementName(wanted)) => {
                match named.iter().find(|(name, _)| **name == **wanted) {
                    Some((_, needed)) => needed.clone(),
                    None => {
                        return refuse(format!("{wanted:?} is not in requirement_map"))
                            .at("requirement_name");
                    }
                }
            }
        };
        Ok((matching, needed))
    })?;
    let mut own_headers: Vec<Name> = Vec::new();
    for p in &providers {
        let payload = Some(&p.payload_header).filter(|h| !h.is_empty());
        let own = payload
            .into_iter()
            .chain(p.claim_headers.iter().map(|(h, _)| h));
        own_headers.extend(own.cloned());
    }
    own_headers.sort();
    own_headers.dedup();
    Ok(JwtAuthentication {
        providers,
        rules,
        named,
        bypass_cors_preflight: m.bypass_cors_preflight,
        strip_failure_response: m.strip_failure_response,
        stat_prefix: m.stat_prefix.as_str().into(),
        own_headers,
    })
}

/// A route's own requirement; none switches the filter off there.
pub(super) fn per_route(m: &pb::PerRouteConfig) -> Result<Option<Name>> {
    use pb::per_route_config::RequirementSpecifier as S;
    match m.requirement_specifier.as_ref() {
        Some(S::Disabled(true)) => Ok(None),
        Some(S::Disabled(false)) => refuse("must be true").at("disabled"),
        Some(S::RequirementName(name)) if name.is_empty() => {
            refuse("must not be empty").at("requirement_name")
        }
        Some(S::RequirementName(name)) => Ok(Some(name.as_str().into())),
        None => refuse("disabled or requirement_name is required"),
    }
}

fn requirement(m: &pb::JwtRequirement, providers: &Providers) -> Result<JwtRequirement> {
    use pb::jwt_requirement::RequiresType as R;
    let of = |name: &str| match providers.get(name) {
        Some(provider) => Ok(provider.clone()),
        None => refuse(format!("{name:?} is not in providers")).at("provider_name"),
    };
    Ok(match m.requires_type.as_ref() {
        None => JwtRequirement::Nothing,
        Some(R::ProviderName(name)) => JwtRequirement::Provider(of(name)?, None),
        Some(R::ProviderAndAudiences(p)) => {
            let audiences = p.audiences.iter().map(|a| audience(a).into()).collect();
            let provider = of(&p.provider_name).at("provider_and_audiences")?;
            JwtRequirement::Provider(provider, Some(audiences))
        }
        Some(R::RequiresAny(any)) => {
            if any.requirements.len() < 2 {
                return refuse("at least two are needed").at("requires_any.requirements");
            }
            alternatives(
                list(&any.requirements, "requirements", |r| {
                    requirement(r, providers)
                })
                .at("requires_any")?,
            )
        }
        Some(R::RequiresAll(all)) => {
            if all.requirements.len() < 2 {
                return refuse("at least two are needed").at("requires_all.requirements");
            }
            let all = list(&all.requirements, "requirements", |r| {
                requirement(r, providers)
            });
            JwtRequirement::All(all.at("requires_all")?)
        }
        Some(R::AllowMissing(_)) => JwtRequirement::AllowMissing,
        Some(R::AllowMissingOrFailed(_)) => JwtRequirement::AllowMissingOrFailed,
        Some(R::ExtractOnlyWithoutValidation(_)) => {
            return refuse("is not implemented").at("extract_only_without_validation");
        }
    })
}

/// Among alternatives the two lenient ones say what becomes of a request that met no other.
fn alternatives(all: Vec<JwtRequirement>) -> JwtRequirement {
    let (mut missing, mut failed) = (false, false);
    let mut of = Vec::new();
    for one in all {
        match one {
            JwtRequirement::AllowMissing => missing = true,
            JwtRequirement::AllowMissingOrFailed => failed = true,
            one => of.push(one),
        }
    }
    match (of.is_empty(), failed) {
        (true, true) => JwtRequirement::AllowMissingOrFailed,
        (true, false) => JwtRequirement::AllowMissing,
        (false, _) => JwtRequirement::Any {
            of,
            missing,
            failed,
        },
    }
}

fn provider(name: &str, m: &pb::JwtProvider, c: &Collected<'_>) -> Result<JwtProvider> {
    refuse_set(&[(m.jwt_cache_config.is_some(), "jwt_cache_config")])?;
    let names = |all: &[String]| {
        all.iter()
            .map(|n| Name::from(n.as_str()))
            .collect::<Vec<_>>()
    };
    let payload_header = match m.forward_payload_header.as_str() {
        "" => Name::from(""),
        name => header_name(name).at("forward_payload_header")?,
    };
    let claim_headers = list(&m.claim_to_headers, "claim_to_headers", |h| {
        let header = header_name(&h.header_name).at("header_name")?;
        let path: Vec<Name> = match (h.claim_name.as_str(), h.claim_path.as_slice()) {
            ("", []) => return refuse("is required").at("claim_name"),
            (name, []) => name.split('.').map(Name::from).collect(),
            ("", path) => path.iter().map(|s| s.key.as_str().into()).collect(),
            _ => return refuse("claim_name and claim_path exclude each other"),
        };
        Ok((header, path))
    })?;
    let skew = match m.clock_skew_seconds {
        0 => CLOCK_SKEW,
        seconds => seconds.into(),
    };
    let normalize = m.normalize_payload_in_metadata.as_ref();
    Ok(JwtProvider {
        name: name.into(),
        issuer: m.issuer.as_str().into(),
        audiences: m.audiences.iter().map(|a| audience(a).into()).collect(),
        subjects: m
            .subjects
            .as_ref()
            .map(matcher::string)
            .transpose()
            .at("subjects")?,
        require_expiration: m.require_expiration,
        max_lifetime: opt_duration(m.max_lifetime.as_ref(), "max_lifetime")?,
        keys: keys(m, c)?,
        forward: m.forward,
        places: places(m)?,
        payload_header,
        pad_payload_header: m.pad_forward_payload_header,
        payload_in_metadata: m.payload_in_metadata.as_str().into(),
        space_delimited_claims: normalize.map_or(Vec::new(), |n| names(&n.space_delimited_claims)),
        header_in_metadata: m.header_in_metadata.as_str().into(),
        failed_status_in_metadata: m.failed_status_in_metadata.as_str().into(),
        clock_skew: Duration::from_secs(skew),
        claim_headers,
        clear_route_cache: m.clear_route_cache,
    })
}

/// The places of tokens in Envoy's order: headers by name, then parameters, then cookies.
fn places(m: &pb::JwtProvider) -> Result<Vec<TokenPlace>> {
    let mut places = list(&m.from_headers, "from_headers", |h| {
        let name = header_name(&h.name).at("name")?;
        Ok(TokenPlace::Header(name, h.value_prefix.as_str().into()))
    })?;
    places.sort_by_key(|place| match place {
        TokenPlace::Header(name, prefix) => (name.clone(), prefix.clone()),
        TokenPlace::Parameter(name) | TokenPlace::Cookie(name) => (name.clone(), name.clone()),
    });
    let mut params = m.from_params.clone();
    params.sort();
    places.extend(
        params
            .iter()
            .map(|p| TokenPlace::Parameter(p.as_str().into())),
    );
    let mut cookies = m.from_cookies.clone();
    cookies.sort();
    places.extend(
        cookies
            .iter()
            .map(|p| TokenPlace::Cookie(p.as_str().into())),
    );
    if places.is_empty() {
        places.push(TokenPlace::Header("authorization".into(), "Bearer ".into()));
        places.push(TokenPlace::Parameter("access_token".into()));
    }
    places.dedup();
    Ok(places)
}

fn keys(m: &pb::JwtProvider, c: &Collected<'_>) -> Result<KeySource> {
    use pb::jwt_provider::JwksSourceSpecifier as S;
    match m.jwks_source_specifier.as_ref() {
        None => refuse("local_jwks or remote_jwks is required"),
        Some(S::LocalJwks(source)) => {
            let (text, _) = data_source(source, c.context).at("local_jwks")?;
            let set = JwkSet::parse(&text).at("local_jwks")?;
            Ok(KeySource::Local(Arc::new(set)))
        }
        Some(S::RemoteJwks(remote)) => Ok(KeySource::Remote(Arc::new(
            remote_keys(remote).at("remote_jwks")?,
        ))),
    }
}

fn remote_keys(m: &pb::RemoteJwks) -> Result<RemoteKeys> {
    let uri = http_uri(need(m.http_uri.as_ref(), "http_uri")?).at("http_uri")?;
    let ahead = match m.async_fetch.as_ref() {
        None => None,
        Some(fetch) => {
            let wait = opt_duration(
                fetch.failed_refetch_duration.as_ref(),
                "failed_refetch_duration",
            )
            .at("async_fetch")?;
            Some(wait.unwrap_or(Duration::from_secs(1)))
        }
    };
    let retries = m.retry_policy.as_ref().map(retries).transpose();
    Ok(RemoteKeys {
        uri,
        cache_duration: opt_duration(m.cache_duration.as_ref(), "cache_duration")?.unwrap_or(CACHE),
        ahead,
        retries: retries.at("retry_policy")?.unwrap_or_default(),
    })
}

fn retries(m: &core::RetryPolicy) -> Result<(u32, Duration)> {
    refuse_set(&[
        (!m.retry_on.is_empty(), "retry_on"),
        (m.retry_priority.is_some(), "retry_priority"),
        (!m.retry_host_predicate.is_empty(), "retry_host_predicate"),
        (
            m.host_selection_retry_max_attempts != 0,
            "host_selection_retry_max_attempts",
        ),
    ])?;
    let base = match m.retry_back_off.as_ref() {
        None => Duration::from_secs(1),
        Some(back_off) => {
            refuse_set(&[(back_off.max_interval.is_some(), "max_interval")])
                .at("retry_back_off")?;
            let base = need(back_off.base_interval.as_ref(), "base_interval");
            duration(base.at("retry_back_off")?).at("retry_back_off.base_interval")?
        }
    };
    Ok((m.num_retries.as_ref().map_or(1, |n| n.value), base))
}

/// A URI and the cluster that serves it.
pub(super) fn http_uri(m: &core::HttpUri) -> Result<HttpUri> {
    if m.uri.is_empty() {
        return refuse("is required").at("uri");
    }
    let plain = |b: u8| (0x21..0x7f).contains(&b);
    if !m.uri.bytes().all(plain) {
        return refuse("must not hold spaces or characters outside ASCII").at("uri");
    }
    let cluster = match m.http_upstream_type.as_ref() {
        Some(core::http_uri::HttpUpstreamType::Cluster(name)) if !name.is_empty() => name,
        _ => return refuse("is required").at("cluster"),
    };
    let timeout = duration(need(m.timeout.as_ref(), "timeout")?).at("timeout")?;
    Ok(HttpUri::new(&m.uri, cluster.as_str().into(), timeout))
}
