//! The `local_ratelimit` filter.
use lateen_proxy_core::config::FractionalPercent;
use lateen_proxy_core::config::rate_limit::{LocalRateLimit, VirtualHostRules};
use lateen_proxy_core::rate_limit::{Descriptors, Filling};
use lateen_xds_proto::envoy::extensions::common::ratelimit::v3 as common;
use lateen_xds_proto::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use lateen_xds_proto::envoy::r#type::v3 as envoy_type;

use super::common::{bool_or, duration, header_option, need, runtime_fractional, u32_of};
use super::rate_limit_rules;
use crate::error::{At, Result, list, refuse, refuse_set};

pub(super) const FILTER: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// Shortest `fill_interval`, milliseconds, as Envoy has it.
const SHORTEST_FILL: u128 = 50;
/// Most headers of one kind.
const MOST_HEADERS: usize = 10;

pub(super) fn filter(m: &pb::LocalRateLimit) -> Result<LocalRateLimit> {
    use common::XRateLimitHeadersRfcVersion as Headers;
    if m.stat_prefix.is_empty() {
        return refuse("is required").at("stat_prefix");
    }
    refuse_set(&[
        (m.enable_retry_after_header, "enable_retry_after_header"),
        (
            m.local_rate_limit_per_downstream_connection,
            "local_rate_limit_per_downstream_connection",
        ),
        (
            m.local_cluster_rate_limit.is_some(),
            "local_cluster_rate_limit",
        ),
    ])?;
    let rules = rate_limit_rules::rules(&m.rate_limits)?;
    if let Some(place) = m.rate_limits.iter().position(|r| r.stage.is_some()) {
        return refuse("is for the rules of routes")
            .at("stage")
            .item("rate_limits", place);
    }
    if m.stage > MOST_STAGE {
        return refuse(format!("must be at most {MOST_STAGE}")).at("stage");
    }
    let limit_headers = match Headers::try_from(m.enable_x_ratelimit_headers) {
        Ok(Headers::Off) => false,
        Ok(Headers::DraftVersion03) => true,
        _ => return refuse("is no known version").at("enable_x_ratelimit_headers"),
    };
    for (headers, field) in [
        (
            &m.request_headers_to_add_when_not_enforced,
            "request_headers_to_add_when_not_enforced",
        ),
        (&m.response_headers_to_add, "response_headers_to_add"),
    ] {
        if headers.len() > MOST_HEADERS {
            return refuse(format!("at most {MOST_HEADERS} are allowed")).at(field);
        }
    }
    let share = |p: Option<&_>| p.map_or(Ok(FractionalPercent::NONE), runtime_fractional);
    // Below 400 is no refusal: Envoy answers with 429 then.
    let status = m.status.as_ref().map_or(429, |s| s.code);
    Ok(LocalRateLimit {
        stat_prefix: m.stat_prefix.as_str().into(),
        status: u16::try_from(status)
            .ok()
            .filter(|s| (400..600).contains(s))
            .unwrap_or(429),
        bucket: m
            .token_bucket
            .as_ref()
            .map(|m| filling(m).map(|filling| filling.bucket()))
            .transpose()
            .at("token_bucket")?,
        descriptors: descriptors(m)?,
        // Rules of the filter's own know no stage.
        stage: if rules.is_empty() { m.stage } else { 0 },
        rules,
        virtual_host_rules: match common::VhRateLimitsOptions::try_from(m.vh_rate_limits) {
            Ok(common::VhRateLimitsOptions::Override) => VirtualHostRules::Override,
            Ok(common::VhRateLimitsOptions::Include) => VirtualHostRules::Include,
            Ok(common::VhRateLimitsOptions::Ignore) => VirtualHostRules::Ignore,
            Err(_) => return refuse("is no known option").at("vh_rate_limits"),
        },
        always_consume_default: bool_or(m.always_consume_default_token_bucket.as_ref(), true),
        enabled: share(m.filter_enabled.as_ref()).at("filter_enabled")?,
        enforced: share(m.filter_enforced.as_ref()).at("filter_enforced")?,
        request_headers: list(
            &m.request_headers_to_add_when_not_enforced,
            "request_headers_to_add_when_not_enforced",
            header_option,
        )?,
        response_headers: list(
            &m.response_headers_to_add,
            "response_headers_to_add",
            header_option,
        )?,
        limit_headers,
        resource_exhausted: m.rate_limited_as_resource_exhausted,
    })
}

/// Buckets of a descriptor that is for all values, where the filter does not say.
const MOST_VALUES: u32 = 20;
/// Highest stage.
const MOST_STAGE: u32 = 10;

fn descriptors(m: &pb::LocalRateLimit) -> Result<Descriptors> {
    let most_values = u32_of(m.max_dynamic_descriptors.as_ref()).unwrap_or(MOST_VALUES);
    if most_values == 0 {
        return refuse("must be at least 1").at("max_dynamic_descriptors");
    }
    let mut all = Descriptors::default();
    for (place, descriptor) in m.descriptors.iter().enumerate() {
        add(&mut all, descriptor, most_values).item("descriptors", place)?;
    }
    Ok(all)
}

fn add(
    all: &mut Descriptors,
    m: &common::LocalRateLimitDescriptor,
    most_values: u32,
) -> Result<()> {
    if m.entries.is_empty() {
        return refuse("at least one is required").at("entries");
    }
    let entries = list(&m.entries, "entries", |entry| match entry.key.is_empty() {
        true => refuse("is required").at("key"),
        false => Ok((entry.key.as_str().into(), entry.value.as_str().into())),
    })?;
    let bucket = need(m.token_bucket.as_ref(), "token_bucket")?;
    let filling = filling(bucket).at("token_bucket")?;
    match all.add(entries, filling, m.shadow_mode, most_values) {
        true => Ok(()),
        false => refuse("is there already"),
    }
}

fn filling(m: &envoy_type::TokenBucket) -> Result<Filling> {
    let interval =
        duration(need(m.fill_interval.as_ref(), "fill_interval")?).at("fill_interval")?;
    if interval.as_millis() < SHORTEST_FILL {
        return refuse(format!("must be at least {SHORTEST_FILL} ms")).at("fill_interval");
    }
    if m.max_tokens == 0 {
        return refuse("must be at least 1").at("max_tokens");
    }
    let per_fill = u32_of(m.tokens_per_fill.as_ref()).unwrap_or(1);
    if per_fill == 0 {
        return refuse("must be at least 1").at("tokens_per_fill");
    }
    Ok(Filling {
        most: m.max_tokens,
        per_fill,
        interval,
    })
}
