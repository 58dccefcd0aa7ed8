//! Whether a request is traced: by what its id says, what its client asks for, or by chance.
//! The order is that of Envoy's connection manager.

use crate::config::tracing::Sampling;
use crate::known::Known;
use crate::matcher::Headers;
use crate::request_id::{self, TraceReason};

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Why it is traced, or that it is not.
    pub reason: TraceReason,
    /// The reason is to be written into the request id.
    pub changed: bool,
}

/// Decides. `packed` = the request id carries decisions; `random` is a number of this request.
#[must_use]
pub fn decide<H: Headers + ?Sized>(
    sampling: &Sampling,
    headers: &H,
    packed: bool,
    random: u64,
) -> Decision {
    let id = headers.known(Known::XRequestId).unwrap_or_default();
    let none = TraceReason::NotTraced;
    let keep = |reason| Decision {
        reason,
        changed: false,
    };
    // Only an id of the usual form takes part, so that all hops agree.
    let Some(number) = request_id::number(id).filter(|_| id.len() == 36) else {
        return keep(none);
    };
    // Of shares in millionths too, as in Envoy.
    let number = number % 10_000;
    let told = match packed {
        true => request_id::trace_reason(id).unwrap_or(none),
        false => none,
    };
    let mut reason = told;
    if reason == none {
        if headers.known(Known::XClientTraceId).is_some() && sampling.client.hit(random) {
            reason = TraceReason::Client;
        } else if headers.known(Known::XEnvoyForceTrace).is_some() {
            reason = TraceReason::Forced;
        } else if sampling.random.hit(number) {
            reason = TraceReason::Sampling;
        }
    }
    let wished = reason;
    if reason != none && !sampling.overall.hit(number) {
        reason = none;
    }
    Decision {
        reason,
        changed: packed && (wished != told || reason != told),
    }
}
