//! Traces: whether a request is traced, how the trace goes from hop to hop, and what its spans say
//! in the form of a collector. Everything here is a plain function; ids and times are given.

pub mod decision;
pub mod otlp;
pub mod propagation;
pub mod zipkin;

use std::borrow::Cow;

pub use decision::{Decision, decide};
pub use propagation::{Form, Incoming, extract, inject};

/// Who this is in a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanContext {
    /// Trace; 16 hex digits where `narrow`, else 32.
    pub trace_id: u128,
    /// The trace id has 64 bits.
    pub narrow: bool,
    /// Span; never 0 in a context of ours.
    pub span_id: u64,
    /// Parent span; 0 = none.
    pub parent_id: u64,
    /// Spans are reported.
    pub sampled: bool,
    /// `tracestate` as it came.
    pub state: String,
    /// The parent is of another process.
    pub remote_parent: bool,
}

impl SpanContext {
    /// The trace id in lower-case hex.
    #[must_use]
    pub fn trace_text(&self) -> String {
        match self.narrow {
            true => format!("{:016x}", self.trace_id),
            false => format!("{:032x}", self.trace_id),
        }
    }

    /// A span under this one.
    #[must_use]
    pub fn child(&self, span_id: u64) -> Self {
        Self {
            span_id,
            parent_id: self.span_id,
            remote_parent: false,
            ..self.clone()
        }
    }
}

/// What a span is for its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request was received.
    Server,
    /// A request was sent.
    Client,
}

/// A finished span.
#[derive(Clone, Debug)]
pub struct Span {
    /// Who it is.
    pub context: SpanContext,
    /// Operation.
    pub name: String,
    /// What it is for its service.
    pub kind: Kind,
    /// The same span is also told of by the other side (Zipkin).
    pub shared: bool,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    /// Nanoseconds since the Unix epoch.
    pub end: u64,
    /// It ended in an error (OTLP status 2).
    pub failed: bool,
    /// Names and values in the order they were set.
    pub tags: Vec<(Cow<'static, str>, String)>,
}

/// Who reports.
#[derive(Clone, Debug, Default)]
pub struct Reporter {
    /// Zipkin's `serviceName`: the node's cluster.
    pub service: String,
    /// Address of this node.
    pub ip: Option<std::net::IpAddr>,
}

#[cfg(test)]
mod tests;
