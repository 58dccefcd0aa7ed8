//! Routes of virtual services, resolved: hosts fully qualified, gateways as
//! `namespace/name` or `mesh`, delegates merged into their root.

use crate::{ExportTo, Labels, Origin, Str, Timestamp};
use std::time::Duration;

/// The gateway word that means all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

/// A virtual service after resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualService {
    /// Namespace.
    pub namespace: Str,
    /// Name.
    pub name: Str,
    /// The object.
    pub origin: Origin,
    /// Creation time: older wins a host on the mesh, orders merges at gateways.
    pub created: Timestamp,
    /// Hosts, fully qualified.
    pub hosts: Vec<Str>,
    /// `namespace/name` of gateways, and `mesh`.
    pub gateways: Vec<Str>,
    /// Who may see it.
    pub export_to: ExportTo,
    /// HTTP rules in order.
    pub http: Vec<HttpRoute>,
    /// TLS rules in order.
    pub tls: Vec<TlsRoute>,
    /// TCP rules in order.
    pub tcp: Vec<TcpRoute>,
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// The whole text.
    Exact(Str),
    /// The beginning.
    Prefix(Str),
    /// The whole text, RE2 syntax.
    Regex(Str),
    /// Anything, as long as it is there (an empty match).
    Present,
}

/// One header or query condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedMatch {
    /// Header (lower case) or query parameter name.
    pub name: Str,
    /// Condition on the value.
    pub value: StringMatch,
    /// `withoutHeaders`: the condition must not hold (a missing header passes).
    pub invert: bool,
}

/// A condition of an HTTP rule: all set parts must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpMatch {
    /// Match name, appended to the route name.
    pub name: Str,
    /// Path.
    pub uri: Option<StringMatch>,
    /// Compare the path without case.
    pub ignore_uri_case: bool,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Host header.
    pub authority: Option<StringMatch>,
    /// `headers`, then `withoutHeaders` (inverted), sorted by name.
    pub headers: Vec<NamedMatch>,
    /// Query parameters sorted by name.
    pub query_params: Vec<NamedMatch>,
    /// Listener port the request came to.
    pub port: Option<u16>,
    /// Labels of the client workload (evaluated when generating).
    pub source_labels: Labels,
    /// Namespace of the client workload.
    pub source_namespace: Option<Str>,
    /// Gateways this match is limited to; empty means those of the virtual service.
    pub gateways: Vec<Str>,
    /// Prefix for stats of this match.
    pub stat_prefix: Str,
    /// Where it was written.
    pub origin: Origin,
}

impl HttpMatch {
    /// True when it holds for every request that reaches the listener: no
    /// condition on the request itself (port, source and gateway are static).
    pub fn is_catch_all(&self) -> bool {
        let uri_all = match &self.uri {
            None => true,
            Some(StringMatch::Prefix(p)) => &**p == "/",
            Some(StringMatch::Regex(r)) => matches!(&**r, ".*" | "*" | "/.*"),
            Some(StringMatch::Present) => true,
            Some(StringMatch::Exact(_)) => false,
        };
        uri_all
            && self.headers.is_empty()
            && self.query_params.is_empty()
            && self.method.is_none()
            && self.authority.is_none()
            && self.scheme.is_none()
    }

    /// True when it applies to a client workload with these facts at this gateway.
    pub fn applies_to(&self, namespace: &str, labels: &Labels, gateway: &str) -> bool {
        (self.gateways.is_empty() || self.gateways.iter().any(|g| &**g == gateway))
            && self
                .source_namespace
                .as_deref()
                .is_none_or(|n| n.is_empty() || n == namespace)
            && self
                .source_labels
                .iter()
                .all(|(k, v)| labels.get(k) == Some(v))
    }
}

/// Where traffic goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Fully qualified host.
    pub host: Str,
    /// Subset name.
    pub subset: Option<Str>,
    /// Service port; `None` when the service has one port or the listener's port is meant.
    pub port: Option<u16>,
}

/// A destination with its share and header edits.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Share; a single destination counts as 100 whatever is written.
    pub weight: u32,
    /// Header edits for this destination only.
    pub headers: HeaderEdits,
    /// Where it was written.
    pub origin: Origin,
}

/// Header edits on requests and responses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// On requests.
    pub request: HeaderOperations,
    /// On responses.
    pub response: HeaderOperations,
}

/// Set, add and remove, in that order of kinds; pairs sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderOperations {
    /// Overwrite or add.
    pub set: Vec<(Str, Str)>,
    /// Append.
    pub add: Vec<(Str, Str)>,
    /// Remove.
    pub remove: Vec<Str>,
}

impl HeaderOperations {
    /// True when nothing is done.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// One HTTP rule.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// Route name.
    pub name: Str,
    /// Any may hold; empty means every request.
    pub matches: Vec<HttpMatch>,
    /// What is done.
    pub action: HttpAction,
    /// Path and authority rewrite.
    pub rewrite: Option<Rewrite>,
    /// Whole-request timeout; `None` or zero is none.
    pub timeout: Option<Duration>,
    /// Retry rule; `None` is the mesh default.
    pub retries: Option<RetryPolicy>,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// Copies sent elsewhere.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors: Option<CorsPolicy>,
    /// Header edits for all destinations.
    pub headers: HeaderEdits,
    /// Where it was written.
    pub origin: Origin,
}

impl HttpRoute {
    /// The destinations, empty for redirects and direct responses.
    pub fn destinations(&self) -> &[WeightedDestination] {
        match &self.action {
            HttpAction::Forward(d) => d,
            _ => &[],
        }
    }
}

/// What an HTTP rule does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpAction {
    /// Send on.
    Forward(Vec<WeightedDestination>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer at once.
    Direct(DirectResponse),
}

/// Redirect answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redirect {
    /// New path.
    pub uri: Option<Str>,
    /// `uri` replaces only the matched prefix (written `%PREFIX()%...`).
    pub prefix_rewrite: Option<Str>,
    /// New host.
    pub authority: Option<Str>,
    /// New scheme.
    pub scheme: Option<Str>,
    /// New port.
    pub port: Option<RedirectPort>,
    /// Status; 301 when unset.
    pub code: Option<u16>,
}

/// How the port of a redirect is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// This port.
    Number(u16),
    /// Default of the scheme.
    FromProtocolDefault,
    /// The port of the request.
    FromRequestPort,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status.
    pub status: u16,
    /// Body, if any.
    pub body: Option<Vec<u8>>,
}

/// Path and authority rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// Replaces the matched prefix, or the whole path of an exact match.
    pub uri: Option<Str>,
    /// Regular expression and substitution over the path.
    pub uri_regex: Option<(Str, Str)>,
    /// New Host header.
    pub authority: Option<Str>,
}

/// Retry rule of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries after the first try; 0 turns retrying off.
    pub attempts: u32,
    /// Timeout of each try.
    pub per_try_timeout: Option<Duration>,
    /// `retryOn` words, verbatim (`5xx,503`); empty means Istio's default set.
    pub retry_on: Str,
    /// Try endpoints of other localities.
    pub retry_remote_localities: Option<bool>,
    /// Skip hosts already tried; default on.
    pub ignore_previous_hosts: Option<bool>,
    /// Base back-off.
    pub backoff: Option<Duration>,
}

/// Injected faults of a route.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fault {
    /// Delay before forwarding: share in percent and length.
    pub delay: Option<(f64, Duration)>,
    /// Answer instead of forwarding: share in percent and what.
    pub abort: Option<(f64, FaultAbort)>,
}

/// What an aborted request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultAbort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status number.
    Grpc(u32),
}

/// A mirror destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where copies go.
    pub destination: Destination,
    /// Share in percent.
    pub percent: f64,
}

/// Cross-origin policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CorsPolicy {
    /// Allowed origins.
    pub allow_origins: Vec<StringMatch>,
    /// Allowed methods.
    pub allow_methods: Vec<Str>,
    /// Allowed request headers.
    pub allow_headers: Vec<Str>,
    /// Headers a browser may read.
    pub expose_headers: Vec<Str>,
    /// How long a preflight answer may be cached.
    pub max_age: Option<Duration>,
    /// Cookies allowed.
    pub allow_credentials: Option<bool>,
    /// Preflights of other origins go upstream; default true.
    pub forward_unmatched_preflights: bool,
}

/// One TLS (SNI) rule.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsRoute {
    /// Any may hold.
    pub matches: Vec<L4Match>,
    /// Where to.
    pub destinations: Vec<WeightedDestination>,
    /// Where it was written.
    pub origin: Origin,
}

/// One TCP rule.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRoute {
    /// Any may hold; empty means every connection.
    pub matches: Vec<L4Match>,
    /// Where to.
    pub destinations: Vec<WeightedDestination>,
    /// Where it was written.
    pub origin: Origin,
}

/// A condition of a TCP or TLS rule: all set parts must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct L4Match {
    /// Server names (TLS rules only), exact or `*.`-prefixed.
    pub sni_hosts: Vec<Str>,
    /// Destination addresses or CIDR blocks, verbatim.
    pub destination_subnets: Vec<Str>,
    /// Listener port.
    pub port: Option<u16>,
    /// Labels of the client workload.
    pub source_labels: Labels,
    /// Namespace of the client workload.
    pub source_namespace: Option<Str>,
    /// Gateways this match is limited to; empty means those of the virtual service.
    pub gateways: Vec<Str>,
}

impl L4Match {
    /// True when it applies to a client workload with these facts at this gateway.
    pub fn applies_to(&self, namespace: &str, labels: &Labels, gateway: &str) -> bool {
        (self.gateways.is_empty() || self.gateways.iter().any(|g| &**g == gateway))
            && self
                .source_namespace
                .as_deref()
                .is_none_or(|n| n.is_empty() || n == namespace)
            && self
                .source_labels
                .iter()
                .all(|(k, v)| labels.get(k) == Some(v))
    }
}
