//! The request target in its four forms (RFC 9112 section 3.2) and the
//! characters an authority may have.

use super::request::Reject;

const BAD: Reject = Reject::codec(400, "http1.codec_error");
const BAD_CHARACTERS: Reject = Reject::codec(400, "http1.invalid_characters");
const BAD_URL: Reject = Reject::codec(400, "http1.invalid_url");
const BAD_SCHEME: Reject = Reject::codec(400, "http1.invalid_scheme");

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
    // Without a stop at the first one, so that many bytes are looked at together.
    let control = |found: bool, b: &u8| found | (*b <= b' ') | (*b == 0x7f);
    if target.iter().fold(false, control) {
        return Err(BAD_CHARACTERS);
    }
    if !target.is_ascii() {
        return Err(BAD);
    }
    if method == b"CONNECT" {
        let fine = is_host_and_port(target) && memchr::memchr(b':', target).is_some();
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
    let rest = &target[colon + 3..];
    if rest.first().is_none_or(|b| *b == b'/') {
        return Err(BAD_URL);
    }
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(BAD_SCHEME);
    }
    absolute(rest)
}

fn absolute(rest: &[u8]) -> Result<Target<'_>, Reject> {
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    let authority = match memchr::memchr(b'@', authority) {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    if authority.contains(&b'\\') {
        return Err(BAD);
    }
    if !is_host_and_port(authority) {
        return Err(BAD_URL);
    }
    if path.starts_with(b"#") {
        return Err(BAD);
    }
    Ok(Target::Absolute { authority, path })
}

/// Whether this is a host with at most one port, as a request line may have it.
fn is_host_and_port(value: &[u8]) -> bool {
    let (host, port) = match (value.first(), memchr::memchr(b']', value)) {
        (Some(b'['), Some(end)) => value.split_at(end + 1),
        (Some(b'['), None) => return false,
        _ => match memchr::memchr(b':', value) {
            Some(colon) => value.split_at(colon),
            None => (value, &b""[..]),
        },
    };
    let port_fits = match port.strip_prefix(b":") {
        None => port.is_empty(),
        Some(digits) => std::str::from_utf8(digits)
            .is_ok_and(|d| !d.starts_with('+') && d.parse::<u16>().is_ok()),
    };
    let plain = |b: &u8| !matches!(b, b'@' | b'%');
    !host.is_empty() && port_fits && host.iter().all(plain) && is_authority(host)
}

/// By byte: the characters of RFC 3986's authority.
static AUTHORITY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b".-_:[]@~%!$&'()*+,;=";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

/// Whether these are characters of RFC 3986's authority.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let fine = |fine: bool, b: &u8| fine & AUTHORITY[usize::from(*b)];
    value.iter().fold(true, fine)
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
        for bad in [
            "http:///x",
            "http://",
            "file:///x",
            "http://a:/",
            "http://a:99999/",
        ] {
            assert_eq!(parse(b"GET", bad.as_bytes()), Err(BAD_URL), "{bad}");
        }
        for bad in [
            "http://[::1/",
            "http://a%20/",
            "http://a@b@c/",
            "http://:80/",
        ] {
            assert_eq!(parse(b"GET", bad.as_bytes()), Err(BAD_URL), "{bad}");
        }
        assert!(parse(b"GET", b"http://[::1]:80/").is_ok());
        for bad in ["zz:", "u@zz:80", ":80", "zz:99999", "zz:+80"] {
            assert_eq!(parse(b"CONNECT", bad.as_bytes()), Err(BAD_URL), "{bad}");
        }
    }
}
