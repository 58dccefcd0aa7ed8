//! The `local_ratelimit` filter.
use lateen_proxy_core::config::FractionalPercent;
use lateen_proxy_core::config::rate_limit::LocalRateLimit;
use lateen_proxy_core::token_bucket::TokenBucket;
use lateen_xds_proto::envoy::extensions::common::ratelimit::v3 as common;
use lateen_xds_proto::envoy::extensions::filters::http::local_ratelimit::v3 as pb;
use lateen_xds_proto::envoy::r#type::v3 as envoy_type;

use super::common::{duration, header_option, need, runtime_fractional, u32_of};
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
        (!m.descriptors.is_empty(), "descriptors"),
        (!m.rate_limits.is_empty(), "rate_limits"),
        (m.stage != 0, "stage"),
        (m.enable_retry_after_header, "enable_retry_after_header"),
        (
            m.local_rate_limit_per_downstream_connection,
            "local_rate_limit_per_downstream_connection",
        ),
        (
            m.local_cluster_rate_limit.is_some(),
            "local_cluster_rate_limit",
        ),
        (
            m.max_dynamic_descriptors.is_some(),
            "max_dynamic_descriptors",
        ),
    ])?;
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
            .map(bucket)
            .transpose()
            .at("token_bucket")?,
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

fn bucket(m: &envoy_type::TokenBucket) -> Result<TokenBucket> {
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
    Ok(TokenBucket::new(m.max_tokens, per_fill, interval))
}
