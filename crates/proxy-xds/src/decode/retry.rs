//! Retry policies.
use std::time::Duration;

use lateen_proxy_core::config::route::{RateLimitedBackOff, RetryOn, RetryPolicy};
use lateen_xds_proto::envoy::config::route::v3 as pb;
use lateen_xds_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::common::{duration, header_name, need, timeout};
use super::{matcher, type_name, typed};
use crate::error::{At, Result, list, refuse, refuse_set};

const BASE: Duration = Duration::from_millis(25);
const TOLD_MAX: Duration = Duration::from_secs(300);

pub(super) fn retry_policy(m: &pb::RetryPolicy) -> Result<RetryPolicy> {
    refuse_set(&[
        (
            !m.retry_options_predicates.is_empty(),
            "retry_options_predicates",
        ),
        (m.refresh_cluster_on_retry, "refresh_cluster_on_retry"),
    ])?;
    let (base_interval, max_interval) = back_off(m.retry_back_off.as_ref()).at("retry_back_off")?;
    let codes = list(&m.retriable_status_codes, "retriable_status_codes", |c| {
        u16::try_from(*c).or_else(|_| refuse(format!("{c} is no status")))
    })?;
    // Words that are not known are passed over, as Envoy does: newer control planes send newer words.
    let (on, _) = RetryOn::parse(&m.retry_on);
    Ok(RetryPolicy {
        on,
        num_retries: m.num_retries.as_ref().map_or(1, |v| v.value),
        per_try_timeout: timeout(m.per_try_timeout.as_ref(), "per_try_timeout", None)?,
        per_try_idle_timeout: timeout(
            m.per_try_idle_timeout.as_ref(),
            "per_try_idle_timeout",
            None,
        )?,
        retriable_status_codes: codes,
        retriable_headers: list(&m.retriable_headers, "retriable_headers", matcher::header)?,
        retriable_request_headers: list(
            &m.retriable_request_headers,
            "retriable_request_headers",
            matcher::header,
        )?,
        base_interval,
        max_interval,
        rate_limited_back_off: m
            .rate_limited_retry_back_off
            .as_ref()
            .map(told)
            .transpose()
            .at("rate_limited_retry_back_off")?,
        previous_hosts: previous_hosts(m)?,
        host_selection_max_attempts: u32::try_from(m.host_selection_retry_max_attempts.max(1))
            .unwrap_or(u32::MAX),
        previous_priorities: previous_priorities(m).at("retry_priority")?,
    })
}

fn back_off(m: Option<&pb::retry_policy::RetryBackOff>) -> Result<(Duration, Duration)> {
    let Some(m) = m else {
        return Ok((BASE, BASE * 10));
    };
    let base = duration(need(m.base_interval.as_ref(), "base_interval")?).at("base_interval")?;
    if base.is_zero() {
        return refuse("must be greater than 0s").at("base_interval");
    }
    let base = base.max(Duration::from_millis(1));
    let max = match &m.max_interval {
        Some(d) => duration(d).at("max_interval")?,
        None => base * 10,
    };
    if max < base {
        return refuse("must not be less than base_interval").at("max_interval");
    }
    Ok((base, max))
}

fn told(m: &pb::retry_policy::RateLimitedRetryBackOff) -> Result<RateLimitedBackOff> {
    let reset_headers = list(&m.reset_headers, "reset_headers", |h| {
        let unix = h.format == pb::retry_policy::ResetHeaderFormat::UnixTimestamp as i32;
        Ok((header_name(&h.name).at("name")?, unix))
    })?;
    if reset_headers.is_empty() {
        return refuse("at least one header is required").at("reset_headers");
    }
    let max_interval =
        timeout(m.max_interval.as_ref(), "max_interval", Some(TOLD_MAX))?.unwrap_or(TOLD_MAX);
    Ok(RateLimitedBackOff {
        reset_headers,
        max_interval,
    })
}

fn previous_hosts(m: &pb::RetryPolicy) -> Result<bool> {
    const PREVIOUS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    for (i, predicate) in m.retry_host_predicate.iter().enumerate() {
        let name = match &predicate.config_type {
            Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)) => {
                type_name(any)?
            }
            None if predicate.name == "envoy.retry_host_predicates.previous_hosts" => {
                PREVIOUS.to_owned()
            }
            None => predicate.name.clone(),
        };
        if name != PREVIOUS {
            return refuse(format!("retry host predicate {name} is not implemented"))
                .item("retry_host_predicate", i);
        }
    }
    Ok(!m.retry_host_predicate.is_empty())
}

fn previous_priorities(m: &pb::RetryPolicy) -> Result<Option<u32>> {
    let Some(priority) = &m.retry_priority else {
        return Ok(None);
    };
    let Some(pb::retry_policy::retry_priority::ConfigType::TypedConfig(any)) =
        &priority.config_type
    else {
        return refuse(format!(
            "retry priority {} is not implemented",
            priority.name
        ));
    };
    let config: PreviousPrioritiesConfig = typed(any).at("typed_config")?;
    u32::try_from(config.update_frequency)
        .map(Some)
        .or_else(|_| refuse("must not be negative").at("update_frequency"))
}
