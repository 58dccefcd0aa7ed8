//! What makes descriptors of rate limits: `rate_limits` of routes, virtual hosts and filters.
use std::sync::Arc;

use lateen_proxy_core::access_log::Template;
use lateen_proxy_core::config::rate_limit::{
    Hits, MetadataEntry, RateLimitAction, RateLimitRule, Read, Written,
};
use lateen_proxy_core::config::{CidrRange, Name};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::route::v3 as pb;
use lateen_xds_proto::envoy::r#type::metadata::v3 as metadata;
use lateen_xds_proto::{UInt32Value, envoy::r#type::matcher::v3 as matchers};
use pb::rate_limit::action;

use super::common::{bool_or, cidr, header_name, need};
use super::matcher;
use crate::error::{At, DecodeError, Result, list, refuse, refuse_set};

/// Highest stage.
const MOST_STAGE: u32 = 10;
/// Most tokens that one request takes.
const MOST_HITS: u64 = 1_000_000_000;

/// The rules of a route or virtual host.
pub(super) fn rules(all: &[pb::RateLimit]) -> Result<Vec<RateLimitRule>> {
    list(all, "rate_limits", rule)
}

fn rule(m: &pb::RateLimit) -> Result<RateLimitRule> {
    refuse_set(&[
        (!m.disable_key.is_empty(), "disable_key"),
        (m.limit.is_some(), "limit"),
        (m.x_ratelimit_option != 0, "x_ratelimit_option"),
        (m.apply_on_stream_done, "apply_on_stream_done"),
    ])?;
    let stage = m.stage.as_ref().map_or(0, |v| v.value);
    if stage > MOST_STAGE {
        return refuse(format!("must be at most {MOST_STAGE}")).at("stage");
    }
    if m.actions.is_empty() {
        return refuse("at least one is required").at("actions");
    }
    Ok(RateLimitRule {
        stage,
        actions: list(&m.actions, "actions", action)?,
        hits: m
            .hits_addend
            .as_ref()
            .map_or(Ok(Hits::Number(1)), |h| hits(h).at("hits_addend"))?,
    })
}

fn hits(m: &pb::rate_limit::HitsAddend) -> Result<Hits> {
    refuse_set(&[(m.is_negative_hits, "is_negative_hits")])?;
    if m.number.is_some() && !m.format.is_empty() {
        return refuse("only one of number and format may be set").at("format");
    }
    match &m.number {
        Some(number) if number.value > MOST_HITS => {
            refuse(format!("must be at most {MOST_HITS}")).at("number")
        }
        Some(number) => Ok(Hits::Number(number.value)),
        None if m.format.is_empty() => Ok(Hits::Number(1)),
        None => Ok(Hits::Format(template(&m.format).at("format")?)),
    }
}

fn template(text: &str) -> Result<Arc<Template>> {
    let template = Template::parse(text).map_err(DecodeError::from)?;
    Ok(Arc::new(template))
}

fn action(m: &pb::rate_limit::Action) -> Result<RateLimitAction> {
    use action::ActionSpecifier as S;
    let specifier = need(m.action_specifier.as_ref(), "an action")?;
    Ok(match specifier {
        S::SourceCluster(_) => RateLimitAction::SourceCluster,
        S::DestinationCluster(_) => RateLimitAction::DestinationCluster,
        S::RemoteAddress(_) => RateLimitAction::RemoteAddress,
        S::RequestHeaders(h) => RateLimitAction::RequestHeader(header(h).at("request_headers")?),
        S::QueryParameters(q) => {
            RateLimitAction::QueryParameter(parameter(q).at("query_parameters")?)
        }
        S::MaskedRemoteAddress(masks) => masked(masks).at("masked_remote_address")?,
        S::GenericKey(k) => RateLimitAction::GenericKey(
            written(
                "generic_key",
                &k.descriptor_key,
                &k.descriptor_value,
                &k.default_value,
            )
            .at("generic_key")?,
        ),
        S::HeaderValueMatch(h) => header_match(h).at("header_value_match")?,
        S::QueryParameterValueMatch(q) => query_match(q).at("query_parameter_value_match")?,
        S::RemoteAddressMatch(a) => address_match(a).at("remote_address_match")?,
        #[expect(deprecated, reason = "the older form of `metadata`")]
        S::DynamicMetadata(d) => {
            let key = metadata_entry(&d.descriptor_key, d.metadata_key.as_ref());
            RateLimitAction::Metadata(MetadataEntry {
                default: d.default_value.as_str().into(),
                ..key.at("dynamic_metadata")?
            })
        }
        S::Metadata(d) => RateLimitAction::Metadata(of_metadata(d).at("metadata")?),
        S::Extension(_) => return refuse("is not implemented").at("extension"),
    })
}

fn header(m: &action::RequestHeaders) -> Result<Read> {
    let name = header_name(&m.header_name).at("header_name")?;
    Ok(Read {
        // `Host` is kept as the authority.
        name: if &*name == "host" {
            ":authority".into()
        } else {
            name
        },
        key: required(&m.descriptor_key, "descriptor_key")?,
        skip_if_absent: m.skip_if_absent,
    })
}

fn parameter(m: &action::QueryParameters) -> Result<Read> {
    Ok(Read {
        name: required(&m.query_parameter_name, "query_parameter_name")?,
        key: required(&m.descriptor_key, "descriptor_key")?,
        skip_if_absent: m.skip_if_absent,
    })
}

fn required(text: &str, field: &str) -> Result<Name> {
    match text.is_empty() {
        true => refuse("is required").at(field),
        false => Ok(text.into()),
    }
}

fn masked(m: &action::MaskedRemoteAddress) -> Result<RateLimitAction> {
    let length = |v: Option<&UInt32Value>, most: u8, field: &str| {
        let Some(length) = v else { return Ok(most) };
        let fits = u8::try_from(length.value).ok().filter(|l| *l <= most);
        fits.map_or_else(|| refuse(format!("must be at most {most}")).at(field), Ok)
    };
    Ok(RateLimitAction::MaskedRemoteAddress {
        v4: length(m.v4_prefix_mask_len.as_ref(), 32, "v4_prefix_mask_len")?,
        v6: length(m.v6_prefix_mask_len.as_ref(), 128, "v6_prefix_mask_len")?,
    })
}

fn written(usual: &str, key: &str, value: &str, default: &str) -> Result<Written> {
    refuse_set(&[(!default.is_empty(), "default_value")])?;
    Ok(Written {
        key: if key.is_empty() { usual } else { key }.into(),
        value: required(value, "descriptor_value")?,
    })
}

fn header_match(m: &action::HeaderValueMatch) -> Result<RateLimitAction> {
    if m.headers.is_empty() {
        return refuse("at least one is required").at("headers");
    }
    Ok(RateLimitAction::HeaderMatch(
        written(
            "header_match",
            &m.descriptor_key,
            &m.descriptor_value,
            &m.default_value,
        )?,
        list(&m.headers, "headers", matcher::header)?,
        bool_or(m.expect_match.as_ref(), true),
    ))
}

fn query_match(m: &action::QueryParameterValueMatch) -> Result<RateLimitAction> {
    if m.query_parameters.is_empty() {
        return refuse("at least one is required").at("query_parameters");
    }
    Ok(RateLimitAction::QueryMatch(
        written(
            "query_match",
            &m.descriptor_key,
            &m.descriptor_value,
            &m.default_value,
        )?,
        list(&m.query_parameters, "query_parameters", matcher::query)?,
        bool_or(m.expect_match.as_ref(), true),
    ))
}

fn address_match(m: &action::RemoteAddressMatch) -> Result<RateLimitAction> {
    let addresses = need(m.address_matcher.as_ref(), "address_matcher")?;
    let ranges = ranges(addresses).at("address_matcher")?;
    Ok(RateLimitAction::AddressMatch(
        written(
            "remote_address_match",
            &m.descriptor_key,
            &m.descriptor_value,
            &m.default_value,
        )?,
        ranges,
        addresses.invert_match,
    ))
}

fn ranges(m: &matchers::AddressMatcher) -> Result<Vec<CidrRange>> {
    list(&m.ranges, "ranges", |range| {
        cidr(&core::CidrRange {
            address_prefix: range.address_prefix.clone(),
            prefix_len: range.prefix_len,
        })
    })
}

fn of_metadata(m: &action::MetaData) -> Result<MetadataEntry> {
    use action::meta_data::Source;
    let of_route = match Source::try_from(m.source) {
        Ok(Source::Dynamic) => false,
        Ok(Source::RouteEntry) => true,
        _ => return refuse("is not implemented").at("source"),
    };
    Ok(MetadataEntry {
        of_route,
        default: m.default_value.as_str().into(),
        skip_if_absent: m.skip_if_absent,
        ..metadata_entry(&m.descriptor_key, m.metadata_key.as_ref())?
    })
}

fn metadata_entry(key: &str, at: Option<&metadata::MetadataKey>) -> Result<MetadataEntry> {
    use metadata::metadata_key::path_segment::Segment;
    let at = need(at, "metadata_key")?;
    let path = list(&at.path, "path", |part| match &part.segment {
        Some(Segment::Key(key)) => Ok(Name::from(key.as_str())),
        _ => refuse("a key is required"),
    });
    Ok(MetadataEntry {
        key: required(key, "descriptor_key")?,
        of_route: false,
        namespace: required(&at.key, "key").at("metadata_key")?,
        path: path.at("metadata_key")?,
        default: Name::default(),
        skip_if_absent: false,
    })
}
