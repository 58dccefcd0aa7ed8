//! Tracing: which requests are traced, what a span says, and where spans go.

use std::time::Duration;

use super::{FractionalPercent, Name};

/// Tracing of a connection manager.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Which requests are traced, where their route says nothing.
    pub sampling: Sampling,
    /// Longest path in `http.url`, bytes. Default 256.
    pub max_path_tag_length: u32,
    /// Tags of every span: name and value.
    pub custom_tags: Vec<(Name, CustomTag)>,
    /// Each try has a span of its own.
    pub spawn_upstream_span: bool,
    /// Where spans go; none = requests are marked, no span is made.
    pub provider: Option<std::sync::Arc<Provider>>,
}

/// Which requests are traced. All shares are whole by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Of requests with `x-client-trace-id`.
    pub client: FractionalPercent,
    /// By chance.
    pub random: FractionalPercent,
    /// Upper bound.
    pub overall: FractionalPercent,
}

/// What a route says of the traces of its requests.
#[derive(Clone, Debug)]
pub struct RouteTracing {
    /// In place of the connection manager's.
    pub sampling: Sampling,
    /// Before the connection manager's; of two of one name the route's holds.
    pub custom_tags: Vec<(Name, CustomTag)>,
}

/// Value of a custom tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomTag {
    /// Fixed text (values of the environment too).
    Literal(Name),
    /// Request header with default; nothing when both are empty.
    Header(Name, Name),
}

/// Where spans go, and how the trace is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Zipkin's JSON over HTTP, version 2; B3 headers.
    Zipkin(Zipkin),
    /// OTLP; W3C headers.
    OpenTelemetry(OpenTelemetry),
}

/// `envoy.config.trace.v3.ZipkinConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zipkin {
    /// Cluster of the collector.
    pub cluster: Name,
    /// Path to POST to.
    pub path: Name,
    /// `Host` of the request; the cluster's name where none is configured.
    pub host: Name,
    /// New trace ids have 128 bits.
    pub trace_id_128bit: bool,
    /// Client and server share one span id. Default true.
    pub shared_span_context: bool,
    /// W3C headers are read and written beside B3.
    pub with_w3c: bool,
}

/// `envoy.config.trace.v3.OpenTelemetryConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTelemetry {
    /// Cluster of the collector.
    pub cluster: Name,
    /// Path to POST to.
    pub path: Name,
    /// `Host` of the request.
    pub host: Name,
    /// Over gRPC, not HTTP.
    pub grpc: bool,
    /// Longest time one report may take.
    pub timeout: Duration,
    /// Further headers of a report.
    pub headers: Vec<(Name, Name)>,
    /// `service.name`.
    pub service_name: Name,
}

impl Provider {
    /// Cluster of the collector.
    #[must_use]
    pub fn cluster(&self) -> &Name {
        match self {
            Self::Zipkin(z) => &z.cluster,
            Self::OpenTelemetry(o) => &o.cluster,
        }
    }
}
