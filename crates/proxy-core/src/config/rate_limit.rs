//! Limits of requests in time that need no service: a bucket of tokens for all workers.
use super::{FractionalPercent, HeaderMutation, Name};
use crate::token_bucket::TokenBucket;

/// The `local_ratelimit` filter. The bucket is part of it, so that an unchanged resource keeps
/// what is left in it.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// Prefix of statistics.
    pub stat_prefix: Name,
    /// Answer of a refusal. Default 429.
    pub status: u16,
    /// The bucket; none = no limit.
    pub bucket: Option<TokenBucket>,
    /// Share of requests that are counted.
    pub enabled: FractionalPercent,
    /// Share of those over the limit that are refused.
    pub enforced: FractionalPercent,
    /// Written into requests over the limit that are let through.
    pub request_headers: Vec<HeaderMutation>,
    /// Written into refusals.
    pub response_headers: Vec<HeaderMutation>,
    /// `x-ratelimit-limit`, `-remaining`, `-reset` on answers.
    pub limit_headers: bool,
    /// gRPC clients see RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
}
