//! The request path: its parts, and normalisation in every mode of the connection manager.
//! The result is the one view of the path for the router and all policies.
use std::borrow::Cow;

use crate::config::http_connection_manager::{EscapedSlashes, PathNormalization};
use crate::scan::before_either;

/// The path without query and fragment.
#[must_use]
pub fn without_query(path: &[u8]) -> &[u8] {
    &path[..before_either(path, b'?', b'#')]
}

/// The path without query and fragment, and the query without `?`, if there is one.
#[must_use]
pub fn parts(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (bare, rest) = path.split_at(before_either(path, b'?', b'#'));
    let query = rest.strip_prefix(b"?");
    let query = query.map(|q| memchr::memchr(b'#', q).map_or(q, |end| &q[..end]));
    (bare, query)
}

/// The query without `?`, if there is one.
#[must_use]
pub fn query(path: &[u8]) -> Option<&[u8]> {
    parts(path).1
}

/// `%41` read as `A`; what is no escape stays, and a plus sign too.
#[must_use]
pub fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// A host without its port. IPv6 literals keep their brackets.
#[must_use]
pub fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(at)
            if host[at + 1..].iter().all(u8::is_ascii_digit)
                && (host[..at].ends_with(b"]") || !host[..at].contains(&b':')) =>
        {
            &host[..at]
        }
        _ => host,
    }
}

/// The port of a host, if it has a valid one.
#[must_use]
pub fn port(host: &[u8]) -> Option<u16> {
    let bare = without_port(host);
    let digits = host.get(bare.len() + 1..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The path with `;parameters` taken out of every segment.
#[must_use]
pub fn without_parameters(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for (i, segment) in path.split(|b| *b == b'/').enumerate() {
        if i > 0 {
            out.push(b'/');
        }
        let end = memchr::memchr(b';', segment).unwrap_or(segment.len());
        out.extend_from_slice(&segment[..end]);
    }
    out
}

/// The path as routes and policies see it: without its query and, where the
/// route table says so, without `;parameters`. One view for both, or a policy
/// would guard another path than the one that is routed.
#[must_use]
pub fn matched(path_and_query: &[u8], ignore_parameters: bool) -> Cow<'_, [u8]> {
    without_parameters_if(ignore_parameters, without_query(path_and_query))
}

/// [`matched`] of a path that has no query any more.
#[must_use]
pub fn without_parameters_if(ignored: bool, bare: &[u8]) -> Cow<'_, [u8]> {
    if ignored && memchr::memchr(b';', bare).is_some() {
        return Cow::Owned(without_parameters(bare));
    }
    Cow::Borrowed(bare)
}

/// What normalisation makes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    /// Goes on with this path and query.
    Path(Cow<'a, [u8]>),
    /// 400, `path_normalization_failed`.
    Reject,
    /// 307 to this path and query.
    Redirect(Vec<u8>),
}

/// Normalises a `:path`. Works on the path alone; the query is carried over untouched.
#[must_use]
pub fn normalize(path: &[u8], options: PathNormalization) -> Normalized<'_> {
    let bare = without_query(path);
    let rest = &path[bare.len()..];
    if !rest.is_empty() && memchr::memchr(b'#', rest).is_some() {
        return Normalized::Reject;
    }
    let mut current = Cow::Borrowed(bare);
    let mut unescaped = false;

    if options.escaped_slashes != EscapedSlashes::Keep && has_escaped_slash(&current) {
        if options.escaped_slashes == EscapedSlashes::Reject {
            return Normalized::Reject;
        }
        current = Cow::Owned(unescape_slashes(&current));
        unescaped = true;
    }
    if options.normalize && needs_canonical(&current) {
        match canonical(&current) {
            Some(path) => current = Cow::Owned(path),
            None => return Normalized::Reject,
        }
    }
    if options.merge_slashes && memchr::memmem::find(&current, b"//").is_some() {
        current = Cow::Owned(merge_slashes(&current));
    }
    match current {
        Cow::Borrowed(_) => Normalized::Path(Cow::Borrowed(path)),
        Cow::Owned(mut new) => {
            new.extend_from_slice(rest);
            if unescaped && options.escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
                Normalized::Redirect(new)
            } else {
                Normalized::Path(Cow::Owned(new))
            }
        }
    }
}

fn escaped(path: &[u8], at: usize) -> Option<u8> {
    if path.get(at) != Some(&b'%') {
        return None;
    }
    let hex = |b: Option<&u8>| {
        b.and_then(|b| (*b as char).to_digit(16))
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(hex(path.get(at + 1))? << 4 | hex(path.get(at + 2))?)
}

fn has_escaped_slash(path: &[u8]) -> bool {
    memchr::memchr_iter(b'%', path).any(|at| matches!(escaped(path, at), Some(b'/' | b'\\')))
}

fn unescape_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match escaped(path, at) {
            Some(slash @ (b'/' | b'\\')) => {
                out.push(slash);
                at += 3;
            }
            _ => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out
}

/// Characters that a URL path holds only escaped (measured on Envoy 1.40). Bytes beyond ASCII come
/// over HTTP/2 alone; a policy names them escaped.
const fn escapes(b: u8) -> bool {
    b >= 0x80 || matches!(b, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// By byte: whether a path with it may not be canonical.
static SUSPECT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    loop {
        table[byte as usize] = escapes(byte) || matches!(byte, b'%' | b'\\' | b'.');
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

fn needs_canonical(path: &[u8]) -> bool {
    path.iter().any(|b| SUSPECT[usize::from(*b)])
        && (path.iter().any(|b| *b != b'.' && SUSPECT[usize::from(*b)])
            || memchr::memmem::find(path, b"/.").is_some())
}

/// RFC 3986 unreserved characters.
fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Decodes unreserved escapes, escapes what must be, turns `\` to `/`, removes dot segments.
/// `None` for `%00`. What it gives is canonical: a second pass changes nothing.
fn canonical(path: &[u8]) -> Option<Vec<u8>> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut decoded = Vec::with_capacity(path.len());
    let mut loose = Vec::new();
    let mut at = 0;
    while at < path.len() {
        match escaped(path, at) {
            Some(0) => return None,
            None if path[at] == b'%' => {
                loose.push(decoded.len());
                decoded.push(b'%');
                at += 1;
            }
            Some(b) if unreserved(b) => {
                decoded.push(b);
                at += 3;
            }
            _ if escapes(path[at]) => {
                let b = path[at];
                decoded.extend_from_slice(&[
                    b'%',
                    HEX[usize::from(b >> 4)],
                    HEX[usize::from(b & 15)],
                ]);
                at += 1;
            }
            _ => {
                decoded.push(if path[at] == b'\\' { b'/' } else { path[at] });
                at += 1;
            }
        }
    }
    Some(remove_dot_segments(&guarded(decoded, loose)))
}

/// Writes those of the `loose` percent signs (their places, rising) that have become escapes as
/// `%25`: `%2%65` has become `%2e`, which the next reader would decode once more; Envoy makes
/// `%252e` of it (measured on 1.40). From the end, for what stands behind a sign decides; one pass,
/// for a path may be all signs.
fn guarded(decoded: Vec<u8>, mut loose: Vec<usize>) -> Vec<u8> {
    if loose.is_empty() {
        return decoded;
    }
    let mut reversed: Vec<u8> = Vec::with_capacity(decoded.len() + 2 * loose.len());
    for (at, byte) in decoded.iter().enumerate().rev() {
        if loose.pop_if(|percent| *percent == at).is_some()
            && let [.., low, high] = reversed[..]
            && low.is_ascii_hexdigit()
            && high.is_ascii_hexdigit()
        {
            reversed.extend_from_slice(b"52");
        }
        reversed.push(*byte);
    }
    reversed.reverse();
    reversed
}

fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let body = path.strip_prefix(b"/").unwrap_or(path);
    let mut segments = body.split(|b| *b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let name = &segment[..memchr::memchr(b';', segment).unwrap_or(segment.len())];
        match name {
            b"." => {}
            b".." => {
                let up = memchr::memrchr(b'/', &out).unwrap_or(0);
                out.truncate(up);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if last {
            out.push(b'/');
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for b in path {
        if *b != b'/' || out.last() != Some(&b'/') {
            out.push(*b);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: PathNormalization = PathNormalization {
        normalize: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
    };

    fn run(path: &str, options: PathNormalization) -> String {
        match normalize(path.as_bytes(), options) {
            Normalized::Path(p) => String::from_utf8_lossy(&p).into_owned(),
            Normalized::Reject => "400".into(),
            Normalized::Redirect(p) => format!("307 {}", String::from_utf8_lossy(&p)),
        }
    }

    #[test]
    fn base_normalisation() {
        for (path, want) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../x", "/x"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2E/b", "/b"),
            (r"/a\..\b", "/b"),
            ("/%61%7Eb", "/a~b"),
            ("/a/..;x/b", "/b"),
            ("/a/.;/b", "/a/b"),
            ("/a%00b", "400"),
            ("/a%zz", "/a%zz"),
            ("/%c0%ae/", "/%c0%ae/"),
            ("/a%2fb", "/a%2fb"),
            ("/a?x=/../b%2e", "/a?x=/../b%2e"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a#b", "400"),
            ("//a//b", "//a//b"),
            ("/", "/"),
            ("/a^b{c}|<\">`", "/a%5Eb%7Bc%7D%7C%3C%22%3E%60"),
            ("/a/%5C..", "/a/%5C.."),
            ("/a//../b", "/a/b"),
            ("/a;..;/b", "/a;..;/b"),
            ("/.hidden/..x", "/.hidden/..x"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%C3%A9", "/caf%C3%A9"),
            ("/a?\u{e9}", "/a?\u{e9}"),
        ] {
            assert_eq!(run(path, BASE), want, "{path}");
        }
    }

    #[test]
    fn slashes() {
        let with = |escaped_slashes, merge_slashes| PathNormalization {
            normalize: true,
            merge_slashes,
            escaped_slashes,
        };
        assert_eq!(
            run(
                "/a%2F..%2Fb?q",
                with(EscapedSlashes::UnescapeAndForward, false)
            ),
            "/b?q"
        );
        assert_eq!(
            run("/a%5cb", with(EscapedSlashes::UnescapeAndForward, false)),
            "/a/b"
        );
        assert_eq!(
            run("/a%2Fb?q", with(EscapedSlashes::UnescapeAndRedirect, false)),
            "307 /a/b?q"
        );
        assert_eq!(
            run("/a/b", with(EscapedSlashes::UnescapeAndRedirect, false)),
            "/a/b"
        );
        assert_eq!(run("/a%5Cb", with(EscapedSlashes::Reject, false)), "400");
        assert_eq!(
            run("/a//b///c?x=//", with(EscapedSlashes::Keep, true)),
            "/a/b/c?x=//"
        );
    }

    #[test]
    fn decoding_makes_no_new_escapes() {
        for (path, want) in [
            ("/%2%65%2%65/x", "/%252e%252e/x"),
            ("/x%2%66y", "/x%252fy"),
            ("/%%32%65/x", "/%252e/x"),
            ("/%%322e", "/%2522e"),
            ("/%2%32%65/", "/%2522e/"),
            ("/%%41", "/%A"),
            ("/%%2e", "/%."),
            ("/%2%2f", "/%2%2f"),
            ("/%%%2525", "/%%%2525"),
            ("/%zz%", "/%zz%"),
        ] {
            assert_eq!(run(path, BASE), want, "{path}");
        }
    }

    #[test]
    fn a_path_of_nothing_but_signs_takes_one_pass() {
        // With a shift of the rest for each sign this would be 100 GB of copies.
        let path = "/".to_owned() + &"%2%65".repeat(200_000);
        let want = "/".to_owned() + &"%252e".repeat(200_000);
        assert!(run(&path, BASE) == want);
    }

    #[test]
    fn parts() {
        assert_eq!(query(b"/a?b=c#d"), Some(&b"b=c"[..]));
        assert_eq!(query(b"/a#d?b"), None);
        assert_eq!(without_port(b"ex.com:80"), b"ex.com");
        assert_eq!(without_port(b"[::1]:80"), b"[::1]");
        assert_eq!(without_port(b"[::1]"), b"[::1]");
        assert_eq!(port(b"ex.com:80"), Some(80));
        assert_eq!(port(b"ex.com"), None);
        assert_eq!(without_parameters(b"/p;z/x;y"), b"/p/x");
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/[a-c./%;25eE\\\\-]{0,24}", merge: bool) {
            let options = PathNormalization { normalize: true, merge_slashes: merge, escaped_slashes: EscapedSlashes::Keep };
            if let Normalized::Path(once) = normalize(path.as_bytes(), options) {
                prop_assert!(once.starts_with(b"/"));
                prop_assert!(!without_query(&once).split(|b| *b == b'/').any(|s| s == b".." || s == b"."));
                prop_assert!(!once.contains(&b'\\'));
            }
        }

        #[test]
        fn never_panics(path in proptest::collection::vec(any::<u8>(), 0..64), mode in 0..4_u8) {
            let escaped_slashes = [EscapedSlashes::Keep, EscapedSlashes::Reject,
                EscapedSlashes::UnescapeAndRedirect, EscapedSlashes::UnescapeAndForward][usize::from(mode)];
            let _ = normalize(&path, PathNormalization { normalize: true, merge_slashes: true, escaped_slashes });
        }
    }
}
