//! The proxy's brain: what to match, where to send, when to retry, what to log. Plain values and
//! functions; no sockets, no clock, no protobuf. Time and randomness are arguments.
pub mod access_log;
pub mod config;
pub mod dns;
pub mod drain;
pub mod filter_chain;
pub mod flags;
pub mod forwarding;
pub mod framing;
pub mod hash_policy;
pub mod headers;
pub mod internal_redirect;
pub mod json;
pub mod jwt;
pub mod known;
pub mod lb;
pub mod local_reply;
pub mod lru;
pub mod matcher;
pub mod outlier;
pub mod path;
pub mod query;
pub mod rate_limit;
pub mod rbac;
pub mod request_id;
pub mod retry;
pub mod rewrite;
pub mod router;
pub mod stats;
#[cfg(test)]
mod test_values;
pub mod token_bucket;
pub mod trace;
pub mod uri_template;
