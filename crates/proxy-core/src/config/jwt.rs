//! The `jwt_authn` filter: providers of tokens and which requests need whose.
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::route::RouteMatch;
use crate::jwt::JwkSet;
use crate::matcher::StringMatcher;

/// The filter.
#[derive(Clone, Debug, Default)]
pub struct JwtAuthentication {
    /// Providers, sorted by name.
    pub providers: Vec<Arc<JwtProvider>>,
    /// The first that matches says what a request needs; none = nothing.
    pub rules: Vec<(RouteMatch, JwtRequirement)>,
    /// Requirements that routes name, sorted by name.
    pub named: Vec<(Name, JwtRequirement)>,
    /// CORS preflights need nothing.
    pub bypass_cors_preflight: bool,
    /// Refusals say nothing.
    pub strip_failure_response: bool,
    /// Further prefix of statistics.
    pub stat_prefix: Name,
    /// Headers that only this filter may set: removed from every request, whatever it needs.
    pub own_headers: Vec<Name>,
}

/// Who issues tokens, and how they are checked and passed on.
#[derive(Clone, Debug)]
pub struct JwtProvider {
    /// Name within the filter.
    pub name: Name,
    /// What `iss` must be; empty = anything.
    pub issuer: Name,
    /// One of these must be in `aud`, without scheme and last slash; empty = anything.
    pub audiences: Vec<Name>,
    /// What `sub` must match.
    pub subjects: Option<StringMatcher>,
    /// `exp` must be there.
    pub require_expiration: bool,
    /// How far `exp` may lie in the future.
    pub max_lifetime: Option<Duration>,
    /// Keys.
    pub keys: KeySource,
    /// The token stays in the request.
    pub forward: bool,
    /// Where tokens are looked for.
    pub places: Vec<TokenPlace>,
    /// The payload goes upstream in this header; empty = it does not.
    pub payload_header: Name,
    /// Padded base64url there.
    pub pad_payload_header: bool,
    /// Metadata key of the payload; empty = not kept.
    pub payload_in_metadata: Name,
    /// Claims that are split at spaces there.
    pub space_delimited_claims: Vec<Name>,
    /// Metadata key of the token's header; empty = not kept.
    pub header_in_metadata: Name,
    /// Metadata key of a failure; empty = not kept.
    pub failed_status_in_metadata: Name,
    /// Clocks may differ by so much.
    pub clock_skew: Duration,
    /// Claims that go upstream: header and path of the claim.
    pub claim_headers: Vec<(Name, Vec<Name>)>,
    /// The route is chosen anew after a good token.
    pub clear_route_cache: bool,
}

/// Where a token may stand in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// In a header, behind a prefix (may be empty).
    Header(Name, Name),
    /// In a query parameter.
    Parameter(Name),
    /// In a cookie.
    Cookie(Name),
}

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Written in the configuration.
    Local(Arc<JwkSet>),
    /// Fetched.
    Remote(Arc<RemoteKeys>),
}

/// Keys that are fetched over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteKeys {
    /// From where.
    pub uri: HttpUri,
    /// How long fetched keys serve. Default 10 minutes.
    pub cache_duration: Duration,
    /// Fetched before they are asked for, and again this long after a failure.
    pub ahead: Option<Duration>,
    /// Further tries of a fetch, and the wait before the first of them.
    pub retries: (u32, Duration),
}

/// An address that the proxy itself calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUri {
    /// Cluster.
    pub cluster: Name,
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Host and port as written.
    pub authority: Name,
    /// Path and query.
    pub path: Name,
    /// Whole call.
    pub timeout: Duration,
}

impl HttpUri {
    /// Cuts a URI; one without scheme is taken for `http`.
    #[must_use]
    pub fn new(uri: &str, cluster: Name, timeout: Duration) -> Self {
        let (scheme, rest) = match uri.split_once("://") {
            Some(("https", rest)) => ("https", rest),
            Some((_, rest)) => ("http", rest),
            None => ("http", uri),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        Self {
            cluster,
            scheme,
            authority: authority.into(),
            path: path.into(),
            timeout,
        }
    }
}

/// What a request needs.
#[derive(Clone, Debug, Default)]
pub enum JwtRequirement {
    /// Nothing.
    #[default]
    Nothing,
    /// A good token of this provider; other audiences than its own where given.
    Provider(Arc<JwtProvider>, Option<Vec<Name>>),
    /// One of these; further, no token (`missing`) or a bad one (`failed`) may pass too.
    Any {
        /// Alternatives in order.
        of: Vec<JwtRequirement>,
        /// A request without token passes.
        missing: bool,
        /// So does one whose tokens are bad.
        failed: bool,
    },
    /// Each of these.
    All(Vec<JwtRequirement>),
    /// A good token of any provider, or none.
    AllowMissing,
    /// Anything; good tokens of any provider are still read.
    AllowMissingOrFailed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_cut() {
        let cut = |uri| {
            let uri = HttpUri::new(uri, "c".into(), Duration::from_secs(1));
            (uri.scheme, uri.authority.to_string(), uri.path.to_string())
        };
        let of = |a: &'static str, b: &str, c: &str| (a, b.to_owned(), c.to_owned());
        assert_eq!(cut("https://h:1/a?b"), of("https", "h:1", "/a?b"));
        assert_eq!(cut("http://h"), of("http", "h", "/"));
        assert_eq!(cut("h/x"), of("http", "h", "/x"));
    }
}
