//! Host names as routing uses them: wildcards, specificity, short names.

use crate::Str;
use std::cmp::Ordering;

/// True for `*` and `*.something`.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// True when `pattern` (an exact host or `*`-prefixed) covers `host` (exact or
/// wildcard). `*.a.com` covers `b.a.com` and `*.b.a.com`, not `a.com`.
pub fn covers(pattern: &str, host: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            let host = host.strip_prefix('*').unwrap_or(host);
            host.len() >= suffix.len()
                && host.ends_with(suffix)
                && (host.len() > suffix.len() || pattern == format!("*{host}"))
        }
        None => pattern == host,
    }
}

/// True when some concrete host is covered by both.
pub fn overlaps(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// Most specific first: exact hosts, then longer wildcards, `*` last; then by text.
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    let rank = |h: &str| (is_wildcard(h), usize::MAX - h.len());
    rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
}

/// Completes a short name (no dot, not a wildcard) with the namespace and the
/// cluster domain: `reviews` in `default` is `reviews.default.svc.cluster.local`.
/// Names with a dot are fully qualified already (Istio's rule).
pub fn resolve_short_name(host: &str, namespace: &str, domain: &str) -> Str {
    if host.contains('.') || is_wildcard(host) || host.is_empty() {
        host.into()
    } else {
        format!("{host}.{namespace}.svc.{domain}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        assert!(covers("*", "a"));
        assert!(covers("*.a.com", "b.a.com"));
        assert!(covers("*.a.com", "*.b.a.com"));
        assert!(covers("*.a.com", "*.a.com"));
        assert!(!covers("*.a.com", "a.com"));
        assert!(!covers("*.a.com", "*.com"));
        assert!(!covers("*.a.com", "ba.com"));
        assert!(covers("a.com", "a.com"));
        assert!(overlaps("*.com", "*.a.com") && overlaps("*.a.com", "*.com"));
    }

    #[test]
    fn order() {
        let mut v = ["*", "*.com", "*.a.com", "b.com", "a.com"];
        v.sort_by(|a, b| by_specificity(a, b));
        assert_eq!(v, ["a.com", "b.com", "*.a.com", "*.com", "*"]);
    }

    #[test]
    fn short() {
        assert_eq!(
            &*resolve_short_name("reviews", "default", "cluster.local"),
            "reviews.default.svc.cluster.local"
        );
        assert_eq!(
            &*resolve_short_name("a.b", "default", "cluster.local"),
            "a.b"
        );
        assert_eq!(&*resolve_short_name("*", "default", "cluster.local"), "*");
    }
}
