//! Access loggers: where a line goes, in which format, for which requests.
use std::sync::Arc;

use super::{FractionalPercent, Name};
use crate::access_log::Format;
use crate::matcher::HeaderMatcher;

/// One access logger.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: AccessLogSink,
    /// Compiled line format; text formats carry their own line end.
    pub format: Arc<Format>,
    /// Which requests are logged; none = all.
    pub filter: Option<AccessLogFilter>,
}

/// Where lines of a logger go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessLogSink {
    /// Appends to a file.
    File(Name),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Comparison of a number in a log filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Less or equal.
    Le,
    /// Not equal.
    Ne,
}

/// Which requests are logged.
#[derive(Clone, Debug)]
pub enum AccessLogFilter {
    /// Compares the response code.
    StatusCode(Comparison, u32),
    /// Compares the duration in milliseconds.
    Duration(Comparison, u32),
    /// Everything that is not a health check request.
    NotHealthCheck,
    /// Requests that are traced.
    Traceable,
    /// A share of requests.
    Runtime(FractionalPercent),
    /// All hold.
    And(Vec<AccessLogFilter>),
    /// One holds.
    Or(Vec<AccessLogFilter>),
    /// A request header matches.
    Header(Box<HeaderMatcher>),
    /// One of these response flags is set; an empty set means any flag.
    ResponseFlag(crate::flags::ResponseFlags),
    /// `%ACCESS_LOG_TYPE%` is (not) in the list.
    LogType {
        /// Names as the operator writes them.
        types: Vec<&'static str>,
        /// Turns the answer round.
        exclude: bool,
    },
    /// gRPC status is (not) in the list.
    GrpcStatus {
        /// gRPC codes.
        statuses: Vec<u32>,
        /// Turns the answer round.
        exclude: bool,
    },
}
