//! The `ext_authz` filter: a service that says of each request whether it may pass.
use std::time::Duration;

use super::jwt::HttpUri;
use super::{FractionalPercent, Name};
use crate::matcher::{MetadataMatcher, StringMatcher};

/// The filter.
#[derive(Clone, Debug)]
pub struct ExtAuthz {
    /// Who is asked.
    pub service: AuthzService,
    /// A request passes where the service does not answer.
    pub failure_mode_allow: bool,
    /// Such a request says so upstream.
    pub failure_mode_allow_header: bool,
    /// How much of a body the service gets.
    pub body: Option<CheckedBody>,
    /// The route is chosen anew after the service changed the request.
    pub clear_route_cache: bool,
    /// An answer that cannot be written as it is refuses the request with 500.
    pub validate_mutations: bool,
    /// Answer where the service does not answer. Default 403.
    pub status_on_error: u16,
    /// Share of requests that are checked.
    pub enabled: FractionalPercent,
    /// Only requests with this metadata are checked.
    pub enabled_metadata: Option<MetadataMatcher>,
    /// Requests that are not checked are refused.
    pub deny_at_disable: bool,
    /// Further part of the names of statistics.
    pub stat_prefix: Name,
    /// Headers that the service gets; empty = all over gRPC, few over HTTP.
    pub allowed_headers: Vec<StringMatcher>,
    /// Headers that it does not get, whatever else says so.
    pub disallowed_headers: Vec<StringMatcher>,
    /// Namespaces of dynamic metadata that the service gets.
    pub metadata_namespaces: Vec<Name>,
    /// It gets the SNI.
    pub include_tls_session: bool,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub enum AuthzService {
    /// A gRPC service.
    Grpc(GrpcTarget),
    /// An HTTP server: 200 is yes.
    Http(HttpAuthz),
}

/// A gRPC service behind a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcTarget {
    /// Cluster.
    pub cluster: Name,
    /// `:authority`; the cluster's name where none is given.
    pub authority: Name,
    /// Whole call; zero = no limit.
    pub timeout: Duration,
    /// Headers of the call.
    pub metadata: Vec<(Name, Name)>,
}

/// An HTTP server that is asked.
#[derive(Clone, Debug)]
pub struct HttpAuthz {
    /// Where it is; its path is not looked at.
    pub uri: HttpUri,
    /// Put in front of the request's path.
    pub path_prefix: Name,
    /// The path in place of the request's; empty = it is the request's.
    pub path_override: Name,
    /// Headers of the check.
    pub headers_to_add: Vec<(Name, Name)>,
    /// Its headers that replace those of the request.
    pub upstream_headers: Vec<StringMatcher>,
    /// Its headers that are added to the request.
    pub upstream_headers_to_append: Vec<StringMatcher>,
    /// Its headers that a refused client gets; empty = all.
    pub client_headers: Vec<StringMatcher>,
    /// Its headers that the client of a request that passes gets.
    pub client_headers_on_success: Vec<StringMatcher>,
    /// Its headers that are kept as metadata.
    pub metadata_headers: Vec<StringMatcher>,
}

/// How much of a body the service gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedBody {
    /// So many bytes.
    pub most: usize,
    /// The beginning of a longer body, which is refused otherwise.
    pub partial: bool,
    /// As bytes, not as text (gRPC).
    pub as_bytes: bool,
}

/// What a route says of the filter.
#[derive(Clone, Debug, Default)]
pub struct ExtAuthzPerRoute {
    /// Told to the service.
    pub context_extensions: Vec<(Name, Name)>,
    /// The service does not get bodies here.
    pub without_body: bool,
    /// It gets so much here.
    pub body: Option<CheckedBody>,
}
