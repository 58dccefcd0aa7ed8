//! The retry state of one request: the decision is `proxy-core`'s, this keeps
//! the breaker's permission and what was spent.

use std::rc::Rc;
use std::time::Duration;

use lateen_proxy_core::config::route::RetryPolicy;
use lateen_proxy_core::local_reply::ResetReason;
use lateen_proxy_core::retry::{Outcome, Retry};

use super::head::Head;
use super::record::now_ns;
use crate::stats::ClusterStats;
use crate::upstream::Permit;

/// Retry state of one request.
#[derive(Debug)]
pub(super) struct Retries<'p> {
    retry: Retry<'p>,
    policy: Option<&'p RetryPolicy>,
    done: u32,
    exhausted: bool,
    /// No more tries, whatever happens.
    over: bool,
    /// How long the answer that is tried again said to wait.
    told: Option<Duration>,
    permit: Option<Permit>,
    stats: Rc<ClusterStats>,
}

impl<'p> Retries<'p> {
    /// The policy with what the headers of a trusted request add.
    pub(super) fn new(
        policy: Option<&'p RetryPolicy>,
        request: &Head,
        stats: &Rc<ClusterStats>,
    ) -> Self {
        Self {
            retry: Retry::new(policy, request, true),
            policy,
            done: 0,
            exhausted: false,
            over: false,
            told: None,
            permit: None,
            stats: stats.clone(),
        }
    }

    /// Whether another try may happen at all.
    pub(super) fn possible(&self) -> bool {
        self.retry.enabled()
    }

    /// Tries so far beyond the first.
    pub(super) fn count(&self) -> u32 {
        self.done
    }

    /// Whether a retry was called for and none was left.
    pub(super) fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// Whether hosts tried before are avoided, and how often to choose anew.
    pub(super) fn avoidance(&self) -> Option<u32> {
        let policy = self.policy.filter(|p| p.previous_hosts && self.done > 0)?;
        Some(policy.host_selection_max_attempts.max(1))
    }

    /// Keeps the breaker's permission while the retry is in flight.
    pub(super) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// What the client has heard of this try binds it: there is no other.
    pub(super) fn stop(&mut self) {
        self.over = true;
    }

    fn spend(&mut self, wanted: bool) -> bool {
        self.told = None;
        if !wanted || self.over {
            if self.done > 0 {
                self.stats.cells.upstream_rq_retry_success.inc();
            }
            return false;
        }
        if !self.retry.take() {
            self.exhausted = true;
            return false;
        }
        self.done += 1;
        true
    }

    /// An answer came: is another try made instead?
    pub(super) fn on_response(&mut self, response: &Head) -> bool {
        let wanted = self.retry.wanted(&Outcome::Response {
            status: response.status,
            headers: response,
        });
        let again = self.spend(wanted);
        if again {
            let (now, random) = (now_ns() / 1_000_000_000, fastrand::u64(..));
            self.told = self.retry.told_back_off(response, now, random);
        }
        again
    }

    /// No answer came: is another try made?
    pub(super) fn on_reset(&mut self, reason: ResetReason, request_started: bool) -> bool {
        let wanted = self.retry.wanted::<Head>(&Outcome::Reset {
            reason,
            request_started,
        });
        self.spend(wanted)
    }

    /// The try took too long: is another one made?
    pub(super) fn on_per_try_timeout(&mut self) -> bool {
        let wanted = self.retry.wanted::<Head>(&Outcome::PerTryTimeout);
        self.spend(wanted)
    }

    /// How long to wait before the next try: what the upstream said, where the
    /// policy listens to it, else by the policy's own back-off.
    pub(super) fn back_off(&mut self, random: u64) -> Duration {
        let cells = &self.stats.cells;
        if let Some(told) = self.told.take() {
            cells.upstream_rq_retry_backoff_ratelimited.inc();
            return told;
        }
        cells.upstream_rq_retry_backoff_exponential.inc();
        self.retry.back_off(random)
    }
}
