//! Retry policies: Istio's defaults and what a rule says over them.

use lateen_model::route::RetryPolicy;
use lateen_xds_proto::any::pack;
use lateen_xds_proto::envoy::config::route::v3::{
    RetryPolicy as WireRetry,
    retry_policy::{
        RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
    },
};
use lateen_xds_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use lateen_xds_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::context::Context;
use crate::wire;

/// Conditions under which a request is retried unless a rule says otherwise.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// How often another endpoint is drawn when one was tried already.
const HOST_ATTEMPTS: i64 = 5;

/// Towards the own workload: only what certainly never reached it.
pub fn inbound() -> WireRetry {
    WireRetry {
        retry_on: "reset-before-request".to_owned(),
        num_retries: wire::u32_value(2),
        ..WireRetry::default()
    }
}

/// The policy of a route; `None` when a rule turns retries off. With consistent hashing the
/// same endpoint is wanted again, so tried ones are not avoided.
pub fn outbound(cx: &Context<'_>, rule: Option<&RetryPolicy>, hashed: bool) -> Option<WireRetry> {
    let own = rule.or(cx.snapshot.mesh.default_http_retry.as_ref());
    let mut out = WireRetry {
        retry_on: RETRY_ON.to_owned(),
        num_retries: wire::u32_value(2),
        host_selection_retry_max_attempts: HOST_ATTEMPTS,
        retriable_status_codes: vec![503],
        ..WireRetry::default()
    };
    let avoid = own.and_then(|r| r.ignore_previous_hosts).unwrap_or(true);
    if avoid && !hashed {
        out.retry_host_predicate = vec![previous_hosts()];
    }
    let Some(rule) = own else { return Some(out) };
    if rule.attempts == 0 {
        return None;
    }
    out.num_retries = wire::u32_value(rule.attempts);
    out.per_try_timeout = rule.per_try_timeout.and_then(wire::duration);
    if !rule.retry_on.is_empty() {
        (out.retry_on, out.retriable_status_codes) = conditions(&rule.retry_on);
    }
    if let Some(base) = rule.backoff {
        out.retry_back_off = Some(RetryBackOff {
            base_interval: wire::duration(base),
            max_interval: None,
        });
    }
    if rule.retry_remote_localities == Some(true) {
        let config = PreviousPrioritiesConfig {
            update_frequency: 2,
        };
        out.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(pack(&config))),
        });
    }
    Some(out)
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
            &PreviousHostsPredicate::default(),
        ))),
    }
}

/// Splits `5xx,503` into words and status codes; codes need a word of their own.
fn conditions(text: &str) -> (String, Vec<u32>) {
    let mut words: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if (100..600).contains(&code) => codes.push(code),
            _ => words.push(part),
        }
    }
    if !codes.is_empty() && !words.contains(&"retriable-status-codes") {
        words.push("retriable-status-codes");
    }
    (words.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_status_codes() {
        let (words, codes) = conditions("5xx, 503,reset");
        assert_eq!(
            (words.as_str(), codes),
            ("5xx,reset,retriable-status-codes", vec![503])
        );
        assert_eq!(conditions("gateway-error").0, "gateway-error");
    }
}
