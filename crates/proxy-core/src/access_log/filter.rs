//! Which requests a logger writes.
use crate::config::access_log::{AccessLogFilter, Comparison};
use crate::flags::ResponseFlags;
use crate::matcher::Headers;

/// What the filters look at.
#[derive(Clone, Copy)]
pub struct FilterInput<'a, H: Headers + ?Sized> {
    /// Response code, 0 = none.
    pub code: u32,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Response flags.
    pub flags: ResponseFlags,
    /// Request headers.
    pub headers: &'a H,
    /// gRPC status, where there is one.
    pub grpc_status: Option<u32>,
    /// The request is a health check.
    pub health_check: bool,
    /// The request is traced.
    pub traced: bool,
    /// When in its life the stream is logged, as `%ACCESS_LOG_TYPE%` writes it.
    pub log_type: &'static str,
    /// A random number for shares.
    pub random: u64,
}

impl Comparison {
    fn holds(self, value: u64, than: u64) -> bool {
        match self {
            Self::Eq => value == than,
            Self::Ge => value >= than,
            Self::Le => value <= than,
            Self::Ne => value != than,
        }
    }
}

impl AccessLogFilter {
    /// Whether the line is written.
    #[must_use]
    pub fn passes<H: Headers + ?Sized>(&self, input: &FilterInput<'_, H>) -> bool {
        match self {
            Self::StatusCode(op, than) => op.holds(u64::from(input.code), u64::from(*than)),
            Self::Duration(op, than) => op.holds(input.duration_ms, u64::from(*than)),
            Self::NotHealthCheck => !input.health_check,
            Self::Traceable => input.traced,
            Self::Runtime(share) => share.hit(input.random),
            Self::And(list) => list.iter().all(|f| f.passes(input)),
            Self::Or(list) => list.iter().any(|f| f.passes(input)),
            Self::Header(matcher) => matcher.matches(input.headers),
            Self::ResponseFlag(flags) if flags.is_empty() => !input.flags.is_empty(),
            Self::ResponseFlag(flags) => input.flags.intersects(*flags),
            Self::LogType { types, exclude } => types.contains(&input.log_type) != *exclude,
            Self::GrpcStatus { statuses, exclude } => {
                input.grpc_status.is_some_and(|s| statuses.contains(&s)) != *exclude
            }
        }
    }
}
