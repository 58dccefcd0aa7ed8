//! The request target in its four forms (RFC 9112 section 3.2) and the
//! characters an authority may have.

use super::request::Reject;

const BAD: Reject = Reject::codec(400, "http1.codec_error");
const BAD_CHARACTERS: Reject = Reject::codec(400, "http1.invalid_characters");
const BAD_URL: Reject = Reject::codec(400, "http1.invalid_url");
const BAD_SCHEME: Reject = Reject::codec(400, "http1.invalid_scheme");
const BAD_AUTHORITY: Reject = Reject::codec(400, "http.invalid_authority");

/// A request target taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// `/path?query`
    Origin(&'a [u8]),
    /// `*`
    Asterisk,
    /// `http://authority/path?query`, user information stripped
    Absolute { authority: &'a [u8], path: &'a [u8] },
    /// `host:port` of a CONNECT
    Authority(&'a [u8]),
}

/// Takes a request target apart.
pub(super) fn parse<'a>(method: &[u8], target: &'a [u8]) -> Result<Target<'a>, Reject> {
    if target.iter().any(|b| *b <= b' ' || *b == 0x7f) {
        return Err(BAD_CHARACTERS);
    }
    if !target.is_ascii() {
        return Err(BAD);
    }
    if method == b"CONNECT" {
        let fine = is_authority(target) && memchr::memchr(b':', target).is_some();
        return fine.then_some(Target::Authority(target)).ok_or(BAD_URL);
    }
    if target.first() == Some(&b'/') {
        return Ok(Target::Origin(target));
    }
    if target == b"*" {
        let options = method == b"OPTIONS";
        return options.then_some(Target::Asterisk).ok_or(BAD_URL);
    }
    let Some(colon) = memchr::memmem::find(target, b"://") else {
        return Err(BAD);
    };
    let scheme = &target[..colon];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(BAD_SCHEME);
    }
    absolute(&target[colon + 3..])
}

fn absolute(rest: &[u8]) -> Result<Target<'_>, Reject> {
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    let authority = match memchr::memrchr(b'@', authority) {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    if authority.is_empty() || !is_authority(authority) {
        return Err(BAD_AUTHORITY);
    }
    if path.starts_with(b"#") {
        return Err(BAD);
    }
    Ok(Target::Absolute { authority, path })
}

/// Whether these are characters of RFC 3986's authority.
pub(super) fn is_authority(value: &[u8]) -> bool {
    value.iter().all(|b| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'.' | b'-'
                    | b'_'
                    | b':'
                    | b'['
                    | b']'
                    | b'@'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse(b"GET", b"/a?b"), Ok(Target::Origin(b"/a?b")));
        assert_eq!(parse(b"OPTIONS", b"*"), Ok(Target::Asterisk));
        assert_eq!(parse(b"GET", b"*"), Err(BAD_URL));
        assert_eq!(
            parse(b"GET", b"http://u:p@zz:80/abc?d"),
            Ok(Target::Absolute {
                authority: b"zz:80",
                path: b"/abc?d"
            })
        );
        assert_eq!(parse(b"GET", b"ftp://zz/"), Err(BAD_SCHEME));
        assert_eq!(
            parse(b"CONNECT", b"zz:443"),
            Ok(Target::Authority(b"zz:443"))
        );
        assert_eq!(parse(b"CONNECT", b"zz"), Err(BAD_URL));
        assert_eq!(parse(b"CONNECT", b"/"), Err(BAD_URL));
        assert_eq!(parse(b"GET", b"nope"), Err(BAD));
        assert_eq!(parse(b"GET", "/é".as_bytes()), Err(BAD));
        assert_eq!(parse(b"GET", b"/\x7f"), Err(BAD_CHARACTERS));
        assert_eq!(parse(b"GET", b"http://zz#x"), Err(BAD));
        assert_eq!(parse(b"GET", b"http:///x"), Err(BAD_AUTHORITY));
    }
}
