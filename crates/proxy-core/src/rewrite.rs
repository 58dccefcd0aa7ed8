//! Path and host rewrites, and redirect locations.
use std::borrow::Cow;

use crate::config::http_connection_manager::HttpConnectionManager;
use crate::config::route::{
    Forward, HostRewrite, PathMatch, PathRewrite, Redirect, RedirectPath, RequireTls, RouteMatch,
    VirtualHost,
};
use crate::matcher::Headers;
use crate::path;

/// The rewritten `:path`, or `None` when the route does not rewrite. The query is kept.
#[must_use]
pub fn path(
    rewrite: Option<&PathRewrite>,
    matching: &RouteMatch,
    path_and_query: &[u8],
) -> Option<Vec<u8>> {
    let bare = path::without_query(path_and_query);
    let rest = &path_and_query[bare.len()..];
    let mut new = match rewrite? {
        PathRewrite::Prefix(prefix) => replace_prefix(matching, bare, prefix.as_bytes()),
        PathRewrite::Regex(regex, with) => regex.replace_all(bare, with),
        PathRewrite::Template(rewrite) => rewrite.path(bare)?,
    };
    new.extend_from_slice(rest);
    Some(new)
}

/// Replaces the part of the path that the route matched: the prefix, or the whole path of the
/// other kinds.
fn replace_prefix(matching: &RouteMatch, bare: &[u8], with: &[u8]) -> Vec<u8> {
    let matched = match &matching.path {
        PathMatch::Prefix(p) | PathMatch::SeparatedPrefix(p) | PathMatch::Exact(p) => {
            p.len().min(bare.len())
        }
        _ => bare.len(),
    };
    let mut new = with.to_vec();
    new.extend_from_slice(&bare[matched..]);
    new
}

/// The rewritten `:authority`. `endpoint` is the chosen endpoint's host name (auto rewrite).
#[must_use]
pub fn host<H: Headers + ?Sized>(
    forward: &Forward,
    headers: &H,
    endpoint: &str,
) -> Option<Vec<u8>> {
    match forward.host_rewrite.as_deref()? {
        HostRewrite::Literal(host) => Some(host.as_bytes().to_vec()),
        HostRewrite::Auto => (!endpoint.is_empty()).then(|| endpoint.as_bytes().to_vec()),
        HostRewrite::Header(name) => headers
            .first(name)
            .filter(|v| !v.is_empty())
            .map(<[u8]>::to_vec),
        HostRewrite::PathRegex(regex, with) => {
            let bare = path::without_query(headers.first(":path")?);
            Some(regex.replace_all(bare, with))
        }
    }
}

/// What a redirect starts from.
#[derive(Clone, Copy, Debug)]
pub struct RedirectInput<'a> {
    /// `x-forwarded-proto`, or the connection's scheme.
    pub scheme: &'a [u8],
    /// `:authority`.
    pub authority: &'a [u8],
    /// `:path`, with query.
    pub path: &'a [u8],
}

/// The `location` of a redirect.
#[must_use]
pub fn location(redirect: &Redirect, matching: &RouteMatch, input: RedirectInput<'_>) -> Vec<u8> {
    let scheme = redirect
        .scheme
        .as_ref()
        .map_or(input.scheme, |s| s.as_bytes());
    let mut out = scheme.to_vec();
    out.extend_from_slice(b"://");
    if redirect.host.is_empty() {
        out.extend_from_slice(request_host(input, scheme, redirect.port.is_some()));
    } else {
        out.extend_from_slice(redirect.host.as_bytes());
    }
    if let Some(port) = redirect.port {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    let bare = path::without_query(input.path);
    let query = if redirect.strip_query {
        &b""[..]
    } else {
        &input.path[bare.len()..]
    };
    match &redirect.path {
        RedirectPath::Keep => out.extend_from_slice(bare),
        RedirectPath::Path(path) if path.contains('?') => {
            // Its own query takes the place of the request's, stripped or not.
            out.extend_from_slice(path.as_bytes());
            return out;
        }
        RedirectPath::Path(path) => out.extend_from_slice(path.as_bytes()),
        RedirectPath::Prefix(prefix) => {
            out.extend_from_slice(&replace_prefix(matching, bare, prefix.as_bytes()));
        }
        RedirectPath::Regex(regex, with) => {
            let path = regex.replace_all(bare, with);
            let path = if path.is_empty() { bare } else { &path };
            // Else it would go on with the host's name.
            if !path.starts_with(b"/") {
                out.push(b'/');
            }
            out.extend_from_slice(path);
        }
    }
    out.extend_from_slice(query);
    out
}

/// The request's host; its port goes when the redirect sets one, or when it is the default port of
/// the scheme that is being left.
fn request_host<'a>(input: RedirectInput<'a>, scheme: &[u8], new_port: bool) -> &'a [u8] {
    let bare = path::without_port(input.authority);
    let port = path::port(input.authority);
    let left = scheme != input.scheme
        && matches!(
            (input.scheme, port),
            (b"https", Some(443)) | (b"http", Some(80))
        );
    if new_port || left {
        bare
    } else {
        input.authority
    }
}

/// The redirect of a virtual host that insists on TLS, if this request needs one.
#[must_use]
pub fn require_tls<'a>(
    host: &VirtualHost,
    input: impl FnOnce() -> RedirectInput<'a>,
    internal: bool,
) -> Option<Vec<u8>> {
    let needed = match host.require_tls {
        RequireTls::None => false,
        RequireTls::ExternalOnly => !internal,
        RequireTls::All => true,
    };
    if !needed {
        return None;
    }
    let input = input();
    if input.scheme == b"https" {
        return None;
    }
    let mut out = b"https://".to_vec();
    out.extend_from_slice(input.authority);
    out.extend_from_slice(input.path);
    Some(out)
}

/// The authority with its port stripped as the listener says, and a trailing dot.
#[must_use]
pub fn strip_host<'a>(
    hcm: &HttpConnectionManager,
    authority: &'a [u8],
    listener_port: Option<u16>,
) -> Cow<'a, [u8]> {
    use crate::config::http_connection_manager::StripPort;
    if hcm.strip_port == StripPort::None && !hcm.strip_trailing_host_dot {
        return Cow::Borrowed(authority);
    }
    let port = path::port(authority);
    let strip = match hcm.strip_port {
        StripPort::None => false,
        StripPort::Any => port.is_some(),
        StripPort::Matching => port.is_some() && port == listener_port,
    };
    let host = path::without_port(authority);
    let dotless = match hcm.strip_trailing_host_dot {
        true => host.strip_suffix(b".").unwrap_or(host),
        false => host,
    };
    if strip || host.len() == authority.len() {
        return Cow::Borrowed(dotless);
    }
    if dotless.len() == host.len() {
        return Cow::Borrowed(authority);
    }
    Cow::Owned([dotless, &authority[host.len()..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::route::Substitution;
    use crate::matcher::Regex;

    fn matching(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            case_sensitive: true,
            headers: Default::default(),
            query: Default::default(),
            grpc: false,
            fraction: None,
            tls_presented: None,
            tls_validated: None,
            dynamic_metadata: Default::default(),
            cookies: Default::default(),
        }
    }

    fn text(v: Option<Vec<u8>>) -> String {
        v.map_or_else(|| "none".into(), |v| String::from_utf8(v).unwrap())
    }

    #[test]
    fn paths() {
        let prefix = |p: &str| Some(PathRewrite::Prefix(p.into()));
        let m = matching(PathMatch::Prefix("/a".into()));
        assert_eq!(
            text(path(prefix("/b").as_ref(), &m, b"/a/x?q=1")),
            "/b/x?q=1"
        );
        assert_eq!(text(path(prefix("/").as_ref(), &m, b"/a/x")), "//x");
        assert_eq!(text(path(None, &m, b"/a")), "none");
        let m = matching(PathMatch::Exact("/a".into()));
        assert_eq!(text(path(prefix("/b").as_ref(), &m, b"/a?q")), "/b?q");
        let re = Regex::new("^/(.)(.*)$").unwrap();
        let with = Substitution::parse(r"\2/\1", re.groups()).unwrap();
        assert_eq!(
            text(path(Some(&PathRewrite::Regex(re, with)), &m, b"/a/x?a")),
            "/x/a?a"
        );
    }

    #[test]
    fn locations() {
        let m = matching(PathMatch::Prefix("/old".into()));
        let base = Redirect {
            code: 301,
            scheme: None,
            host: "".into(),
            port: None,
            path: RedirectPath::Keep,
            strip_query: false,
        };
        let go = |r: &Redirect, scheme: &str, host: &str, p: &str| {
            let input = RedirectInput {
                scheme: scheme.as_bytes(),
                authority: host.as_bytes(),
                path: p.as_bytes(),
            };
            String::from_utf8(location(r, &m, input)).unwrap()
        };
        let https = Redirect {
            scheme: Some("https".into()),
            ..base.clone()
        };
        assert_eq!(
            go(&https, "http", "ex.com:80", "/old/x?q"),
            "https://ex.com/old/x?q"
        );
        assert_eq!(
            go(&https, "http", "ex.com:8080", "/old"),
            "https://ex.com:8080/old"
        );
        let port = Redirect {
            port: Some(8443),
            ..https.clone()
        };
        assert_eq!(
            go(&port, "http", "ex.com:8080", "/"),
            "https://ex.com:8443/"
        );
        let host = Redirect {
            host: "new.com".into(),
            ..base.clone()
        };
        assert_eq!(
            go(&host, "http", "ex.com:8080", "/old?a"),
            "http://new.com/old?a"
        );
        let strip = Redirect {
            path: RedirectPath::Path("/p".into()),
            strip_query: true,
            ..base.clone()
        };
        assert_eq!(go(&strip, "http", "e", "/old?a"), "http://e/p");
        let own = Redirect {
            path: RedirectPath::Path("/p?z=1".into()),
            strip_query: true,
            ..base.clone()
        };
        assert_eq!(go(&own, "http", "e", "/old?a"), "http://e/p?z=1");
        let prefix = Redirect {
            path: RedirectPath::Prefix("/new".into()),
            ..base
        };
        assert_eq!(go(&prefix, "http", "e", "/old/x?a"), "http://e/new/x?a");
    }
}
