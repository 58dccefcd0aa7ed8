//! Limits of requests in time that need no service: buckets of tokens for all workers, and the
//! actions of routes that say which bucket a request is for.
use std::sync::Arc;

use super::{CidrRange, FractionalPercent, HeaderMutation, Name};
use crate::access_log::Template;
use crate::matcher::{HeaderMatcher, QueryMatcher};
use crate::rate_limit::Descriptors;
use crate::token_bucket::TokenBucket;

/// The `local_ratelimit` filter. The buckets are part of it, so that an unchanged resource keeps
/// what is left in them.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// Prefix of statistics.
    pub stat_prefix: Name,
    /// Answer of a refusal. Default 429.
    pub status: u16,
    /// The bucket of requests without a descriptor of their own; none = no limit for them.
    pub bucket: Option<Arc<TokenBucket>>,
    /// Buckets by descriptor.
    pub descriptors: Descriptors,
    /// What makes descriptors, in place of the route's rules; none = the route's.
    pub rules: Vec<RateLimitRule>,
    /// Rules of this stage are the filter's.
    pub stage: u32,
    /// What becomes of the virtual host's rules.
    pub virtual_host_rules: VirtualHostRules,
    /// A request with a descriptor of its own takes from `bucket` too. Default true.
    pub always_consume_default: bool,
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

/// When the rules of the virtual host hold beside the route's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VirtualHostRules {
    /// Where the route has none.
    #[default]
    Override,
    /// Always.
    Include,
    /// Never.
    Ignore,
}

/// A rule that makes one descriptor of a request: an entry for each action.
#[derive(Clone, Debug)]
pub struct RateLimitRule {
    /// Filters of this stage look at it.
    pub stage: u32,
    /// One entry each; without one of them there is no descriptor.
    pub actions: Vec<RateLimitAction>,
    /// How many tokens a request takes.
    pub hits: Hits,
}

/// How many tokens a request takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Hits {
    /// So many.
    Number(u64),
    /// What is written here; one where that is no number.
    Format(Arc<Template>),
}

/// An entry of a descriptor.
#[derive(Clone, Debug)]
pub enum RateLimitAction {
    /// `source_cluster`: the node's own cluster.
    SourceCluster,
    /// `destination_cluster`: the one that the route leads to.
    DestinationCluster,
    /// The value of a header.
    RequestHeader(Read),
    /// The value of a query parameter, its escapes read.
    QueryParameter(Read),
    /// `remote_address`: the client's.
    RemoteAddress,
    /// `masked_remote_address`: the client's network.
    MaskedRemoteAddress {
        /// Length of the prefix of IPv4 addresses.
        v4: u8,
        /// Length of the prefix of IPv6 addresses.
        v6: u8,
    },
    /// A fixed text.
    GenericKey(Written),
    /// A text where all headers match, or where they do not.
    HeaderMatch(Written, Vec<HeaderMatcher>, bool),
    /// A text where all query parameters match, or where they do not.
    QueryMatch(Written, Vec<QueryMatcher>, bool),
    /// A text where the client's address is in one of the ranges; turned round with `true`.
    AddressMatch(Written, Vec<CidrRange>, bool),
    /// A string of metadata.
    Metadata(MetadataEntry),
}

/// An entry that is read from a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Name of the header (lower-case) or parameter.
    pub name: Name,
    /// Key of the entry.
    pub key: Name,
    /// Where it is absent the entry is left out, not the whole descriptor.
    pub skip_if_absent: bool,
}

/// An entry that the configuration writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Key of the entry.
    pub key: Name,
    /// Its value, as it is: Envoy reads operators in it behind a runtime guard that is off.
    pub value: Name,
}

/// An entry from metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataEntry {
    /// Key of the entry.
    pub key: Name,
    /// Of the route, not of the request.
    pub of_route: bool,
    /// Namespace.
    pub namespace: Name,
    /// Keys to follow in it.
    pub path: Vec<Name>,
    /// In place of an empty value.
    pub default: Name,
    /// Where it is absent the entry is left out, not the whole descriptor.
    pub skip_if_absent: bool,
}
