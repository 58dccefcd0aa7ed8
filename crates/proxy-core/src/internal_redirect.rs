//! Redirects of upstreams that the proxy follows itself: where a `location` leads and whether the
//! route's policy lets it go there.
use crate::config::Name;
use crate::config::route::{InternalRedirect, RedirectPredicate};
use crate::path;

/// Where a `location` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `https` and not `http`.
    pub https: bool,
    /// Host, with its port where one is named.
    pub authority: &'a [u8],
    /// Path with query, without fragment; never empty.
    pub path: Vec<u8>,
}

/// Why a redirect is passed on to the client instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// Its `location` is missing, or no absolute URL of HTTP.
    BadLocation,
    /// It changes between `http` and `https`.
    UnsafeScheme,
    /// As many were followed as the route allows.
    TooMany,
    /// Nothing is routed there.
    NoRoute,
    /// A predicate says no.
    Predicate,
}

/// The redirects followed so far for one request of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    count: u32,
    /// The route that was redirected and the one it led to, for the routes that ask.
    visited: Vec<(Name, Name)>,
}

/// Takes a `location` apart.
#[must_use]
pub fn target(location: &[u8]) -> Option<Target<'_>> {
    let split = memchr::memmem::find(location, b"://")?;
    let (scheme, rest) = (&location[..split], &location[split + 3..]);
    let https = scheme.eq_ignore_ascii_case(b"https");
    if !https && !scheme.eq_ignore_ascii_case(b"http") {
        return None;
    }
    // What ends a request line must not get into one, and a URL is ASCII.
    if rest.iter().any(|b| *b <= b' ' || *b >= 0x7f) {
        return None;
    }
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let (authority, tail) = rest.split_at(end.unwrap_or(rest.len()));
    // As in Envoy, a query or fragment has a path before it.
    if matches!(tail.first(), Some(b'?' | b'#')) {
        return None;
    }
    let authority = match memchr::memrchr(b'@', authority) {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    if !is_authority(authority) {
        return None;
    }
    let tail = match memchr::memchr(b'#', tail) {
        Some(fragment) => &tail[..fragment],
        None => tail,
    };
    let mut path = Vec::with_capacity(tail.len() + 1);
    if !tail.starts_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(tail);
    Some(Target {
        https,
        authority,
        path,
    })
}

/// A host with at most one port, in the characters of host names (RFC 952) and addresses.
fn is_authority(text: &[u8]) -> bool {
    let host = path::without_port(text);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-.".contains(b);
    let name = match host.strip_prefix(b"[").and_then(|v6| v6.strip_suffix(b"]")) {
        Some(v6) => !v6.is_empty() && v6.iter().all(|b| *b == b':' || plain(b)),
        None => !host.is_empty() && host.iter().all(plain),
    };
    name && (host.len() == text.len() || path::port(text).is_some())
}

impl InternalRedirect {
    /// Whether answers with this status are followed.
    #[must_use]
    pub fn follows(&self, status: u16) -> bool {
        self.codes.contains(&status)
    }

    /// Where a redirect leads, as far as it can be judged without a route. `https`: the request
    /// came by it.
    ///
    /// # Errors
    /// Why it is passed on.
    pub fn leads<'a>(
        &self,
        location: &'a [u8],
        https: bool,
        hops: Option<&Hops>,
    ) -> Result<Target<'a>, Passed> {
        let target = target(location).ok_or(Passed::BadLocation)?;
        if !self.allow_cross_scheme && https != target.https {
            return Err(Passed::UnsafeScheme);
        }
        if hops.map_or(0, |hops| hops.count) >= self.max_internal_redirects {
            return Err(Passed::TooMany);
        }
        Ok(target)
    }

    /// Whether the route that it leads to is agreed to, and notes it then. `https` is of the
    /// request and of the target.
    pub fn agrees(&self, hops: &mut Hops, from: &Name, to: &Name, https: (bool, bool)) -> bool {
        let all = self.predicates.iter().all(|predicate| match predicate {
            RedirectPredicate::PreviousRoutes => {
                let step = (from.clone(), to.clone());
                let new = !hops.visited.contains(&step);
                // Noted though a later predicate may say no: so does Envoy.
                if new {
                    hops.visited.push(step);
                }
                new
            }
            RedirectPredicate::AllowListedRoutes(names) => names.contains(to),
            RedirectPredicate::SafeCrossScheme => https.0 || !https.1,
        });
        hops.count += u32::from(all);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(predicates: Vec<RedirectPredicate>) -> InternalRedirect {
        InternalRedirect {
            max_internal_redirects: 2,
            codes: vec![302],
            allow_cross_scheme: false,
            response_headers_to_copy: Vec::new(),
            predicates,
        }
    }

    #[test]
    fn locations() {
        let of = |text: &str| {
            target(text.as_bytes()).map(|t| {
                let authority = String::from_utf8_lossy(t.authority).into_owned();
                (t.https, authority, String::from_utf8(t.path).unwrap())
            })
        };
        let is = |https, authority: &str, path: &str| Some((https, authority.into(), path.into()));
        assert_eq!(of("http://a/b?c#d"), is(false, "a", "/b?c"));
        assert_eq!(of("HTTPS://u@a:81"), is(true, "a:81", "/"));
        assert_eq!(of("http://[::1]:80/x"), is(false, "[::1]:80", "/x"));
        for bad in [
            "",
            "/a",
            "//a/b",
            "a",
            "ftp://a/",
            "http://",
            "http:///a",
            "http://a b/",
            "http://a?b",
            "http://a#b",
            "http://a,b/",
            "http://a/\u{e9}",
            "http://a/ b",
            "http://a:x/",
            "http://a\r\nb: c",
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn hops_are_counted_and_schemes_kept() {
        let policy = policy(Vec::new());
        assert!(policy.follows(302) && !policy.follows(301));
        let leads = |location: &str, hops: Option<&Hops>| {
            policy.leads(location.as_bytes(), false, hops).err()
        };
        assert_eq!(leads("/a", None), Some(Passed::BadLocation));
        assert_eq!(leads("https://a/", None), Some(Passed::UnsafeScheme));
        let mut hops = Hops::default();
        for _ in 0..2 {
            assert_eq!(leads("http://a/", Some(&hops)), None);
            assert!(policy.agrees(&mut hops, &"x".into(), &"y".into(), (false, false)));
        }
        assert_eq!(leads("http://a/", Some(&hops)), Some(Passed::TooMany));
    }

    #[test]
    fn predicates() {
        let listed = RedirectPredicate::AllowListedRoutes(vec!["y".into()]);
        let policy = policy(vec![listed, RedirectPredicate::PreviousRoutes]);
        let mut hops = Hops::default();
        let mut go = |from: &str, to: &str| {
            policy.agrees(&mut hops, &from.into(), &to.into(), (false, false))
        };
        assert!(!go("x", "z"));
        assert!(go("x", "y"));
        assert!(!go("x", "y"));
        assert!(go("other", "y"));
        let safe = self::policy(vec![RedirectPredicate::SafeCrossScheme]);
        let go = |https| safe.agrees(&mut Hops::default(), &"a".into(), &"b".into(), https);
        assert!(go((true, false)) && go((true, true)) && go((false, false)));
        assert!(!go((false, true)));
    }
}
