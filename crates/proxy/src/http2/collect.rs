//! Decoded fields to a head, straight into the form in which it is edited and
//! sent on, with the rules of RFC 9113 section 8 for each of them. Every
//! decoded byte counts towards the limits, whether it is kept or not.

use crate::http::head::Head;
use crate::http::known::Known;
use crate::http1::{content_length, is_authority};

/// Which part of a message a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request's head; with whether `:protocol` may be in it (RFC 8441).
    Request(bool),
    /// A response's head.
    Response,
    /// What follows a body.
    Trailers,
}

/// Why a block is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A rule is broken: the stream is reset with `PROTOCOL_ERROR`.
    Malformed(&'static str),
    /// The list is longer than the limit, or has more fields.
    TooLarge(&'static str),
}

impl Refusal {
    /// Why, in Envoy's words.
    pub fn details(self) -> &'static str {
        match self {
            Self::Malformed(details) | Self::TooLarge(details) => details,
        }
    }
}

/// A field that may not be there, or not with that value.
const FIELD: &str = "http2.invalid.header.field";
/// Fields that do not make a message.
pub(super) const MESSAGE: &str = "http2.violation.of.messaging.rule";

/// Pseudo-header fields seen, as bits.
mod pseudo {
    pub(super) const METHOD: u8 = 1;
    pub(super) const SCHEME: u8 = 2;
    pub(super) const PATH: u8 = 4;
    pub(super) const AUTHORITY: u8 = 8;
    pub(super) const PROTOCOL: u8 = 16;
    pub(super) const STATUS: u8 = 32;
}

/// Collects the fields of one block.
#[derive(Debug)]
pub(super) struct Collector {
    kind: Kind,
    /// What was collected.
    pub(super) head: Head,
    /// `:protocol` of an extended CONNECT; empty = none.
    pub(super) protocol: Vec<u8>,
    /// What `content-length` says.
    pub(super) length: Option<u64>,
    /// The client waits for a 100 before it sends its body.
    pub(super) expects: bool,
    refusal: Option<Refusal>,
    crumbs: Vec<u8>,
    /// Nothing is wanted of the block.
    skipping: bool,
    seen: u8,
    regular: bool,
    cookie: bool,
    host: bool,
    bytes: usize,
    count: usize,
    most_bytes: usize,
    most_count: usize,
}

impl Collector {
    pub(super) fn new(most_bytes: usize, most_count: usize) -> Self {
        Self {
            kind: Kind::Trailers,
            head: Head::new(),
            protocol: Vec::new(),
            length: None,
            expects: false,
            refusal: None,
            crumbs: Vec::new(),
            skipping: false,
            seen: 0,
            regular: false,
            cookie: false,
            host: false,
            bytes: 0,
            count: 0,
            most_bytes,
            most_count,
        }
    }

    /// Begins a block, whose fields go into `head`.
    pub(super) fn begin(&mut self, kind: Kind, head: Head) {
        self.kind = kind;
        self.head = head;
        self.head.clear();
        self.protocol.clear();
        self.length = None;
        self.expects = false;
        self.refusal = None;
        self.crumbs.clear();
        self.skipping = false;
        self.seen = 0;
        self.regular = false;
        self.cookie = false;
        self.host = false;
        self.bytes = 0;
        self.count = 0;
    }

    /// Begins a block of which nothing is kept.
    pub(super) fn ignore(&mut self) {
        self.begin(Kind::Trailers, Head::new());
        self.refusal = Some(Refusal::Malformed("not wanted"));
        self.skipping = true;
    }

    /// The block is over its limit, so that nothing more of it is kept.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.refusal, Some(Refusal::TooLarge(_)))
    }

    /// Takes one field.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.skipping {
            return;
        }
        self.bytes += name.len() + value.len();
        self.count += 1;
        if self.is_over() {
            return;
        }
        let over = match () {
            () if self.bytes > self.most_bytes => Some("http2.header_list_size_too_large"),
            () if self.count > self.most_count => Some("http2.too_many_headers"),
            () => None,
        };
        if let Some(details) = over {
            self.refusal = Some(Refusal::TooLarge(details));
            self.head.clear();
            self.crumbs = Vec::new();
            return;
        }
        if self.refusal.is_some() {
            return;
        }
        let taken = match name.first() {
            Some(b':') => self.pseudo(name, value),
            _ => self.line(name, value),
        };
        if let Err(why) = taken {
            self.refusal = Some(Refusal::Malformed(why));
        }
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let bit = match (self.kind, name) {
            (Kind::Request(_), b":method") => pseudo::METHOD,
            (Kind::Request(_), b":scheme") => pseudo::SCHEME,
            (Kind::Request(_), b":path") => pseudo::PATH,
            (Kind::Request(_), b":authority") => pseudo::AUTHORITY,
            (Kind::Request(true), b":protocol") => pseudo::PROTOCOL,
            (Kind::Response, b":status") => pseudo::STATUS,
            _ => return Err(FIELD),
        };
        if self.regular || self.seen & bit != 0 {
            return Err(FIELD);
        }
        self.seen |= bit;
        match bit {
            pseudo::METHOD if is_token(value) => self.head.set_method(value),
            pseudo::SCHEME if is_scheme(value) => self.head.set_scheme(value),
            pseudo::PATH if is_path(value) => self.head.set_path(value),
            pseudo::AUTHORITY if is_host(value) => self.head.set_authority(value),
            pseudo::PROTOCOL if is_token(value) => self.protocol.extend_from_slice(value),
            pseudo::STATUS => self.head.status = status(value).ok_or(FIELD)?,
            _ => return Err(FIELD),
        }
        Ok(())
    }

    fn line(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.regular = true;
        if !is_name(name) {
            return Err(FIELD);
        }
        if !is_value(value) {
            return Err(FIELD);
        }
        // What HTTP/1 would drop on the way (section 8.2.1).
        let value = value.trim_ascii();
        let known = Known::of(name);
        match known {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => return Err(FIELD),
            Known::Te if !value.eq_ignore_ascii_case(b"trailers") => return Err(FIELD),
            // A request's is passed on in lower case alone, as Envoy has it.
            Known::Te if value != b"trailers" && self.kind != Kind::Response => return Ok(()),
            Known::Host | Known::ContentLength if self.kind == Kind::Trailers => {
                return Err(FIELD);
            }
            Known::Host if self.kind != Kind::Response => return self.host(value),
            Known::ContentLength => {
                if self.length.is_some() {
                    return Err(FIELD);
                }
                self.length = Some(content_length(value).ok_or(FIELD)?);
            }
            Known::Cookie if self.kind != Kind::Response => {
                // Crumbs become one line again (section 8.2.3).
                if std::mem::replace(&mut self.cookie, true) {
                    self.crumbs.extend_from_slice(b"; ");
                }
                self.crumbs.extend_from_slice(value);
                return Ok(());
            }
            Known::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
                self.expects = true;
                return Ok(());
            }
            _ => {}
        }
        self.head.add_lower(known, name, value);
        Ok(())
    }

    /// `host` counts where there is no `:authority`.
    fn host(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if std::mem::replace(&mut self.host, true) || !is_host(value) {
            return Err(FIELD);
        }
        if !self.head.has_authority() {
            self.head.set_authority(value);
        }
        Ok(())
    }

    /// The block is whole: the head is, unless it is refused.
    pub(super) fn finish(&mut self) -> Option<Refusal> {
        if self.refusal.is_none() {
            if self.cookie {
                self.head.add_lower(Known::Cookie, b"cookie", &self.crumbs);
            }
            self.refusal = self.check().err().map(Refusal::Malformed);
        }
        // What one long request needed does not stay with the connection.
        self.crumbs.shrink_to(1024);
        self.refusal
    }

    fn check(&self) -> Result<(), &'static str> {
        let has = |bits: u8| self.seen & bits == bits;
        match self.kind {
            Kind::Trailers => Ok(()),
            Kind::Response if has(pseudo::STATUS) => Ok(()),
            Kind::Response => Err(MESSAGE),
            Kind::Request(_) if self.head.method() == b"CONNECT" => {
                let target = pseudo::SCHEME | pseudo::PATH;
                let fine = match has(pseudo::PROTOCOL) {
                    true => has(target) && self.head.has_authority(),
                    false => self.seen & target == 0 && has(pseudo::AUTHORITY),
                };
                fine.then_some(()).ok_or(MESSAGE)
            }
            Kind::Request(_) => {
                let all = has(pseudo::METHOD | pseudo::SCHEME | pseudo::PATH);
                if !all || has(pseudo::PROTOCOL) || !self.head.has_authority() {
                    return Err(MESSAGE);
                }
                let path = self.head.path();
                let fine =
                    path.first() == Some(&b'/') || path == b"*" && self.head.method() == b"OPTIONS";
                fine.then_some(()).ok_or(MESSAGE)
            }
        }
    }
}

/// RFC 9110 section 5.6.2.
const fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Bytes of a token.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = token(byte as u8);
        byte += 1;
    }
    table
};

/// Whether all bytes are of a kind. Without a stop at the first that is not, for nearly all are.
fn all(bytes: &[u8], fine: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & fine(*byte))
}

/// Bytes of a field name, which has no capitals (section 8.2.1).
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = token(byte as u8) && !(byte as u8).is_ascii_uppercase();
        byte += 1;
    }
    table
};

/// Bytes of a field value: no control character but the tab.
static VALUE: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = byte == 9;
        byte += 1;
    }
    table[0x7f] = false;
    table
};

fn is_name(name: &[u8]) -> bool {
    let short = name.len() <= usize::from(u16::MAX);
    short && !name.is_empty() && all(name, |b| NAME[usize::from(b)])
}

fn is_value(value: &[u8]) -> bool {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last()) && all(value, |b| VALUE[usize::from(b)])
}

fn is_token(value: &[u8]) -> bool {
    !value.is_empty() && all(value, |b| TOKEN[usize::from(b)])
}

/// RFC 3986 section 3.1.
fn is_scheme(value: &[u8]) -> bool {
    let rest = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    value.first().is_some_and(u8::is_ascii_alphabetic) && value.iter().all(rest)
}

fn is_path(value: &[u8]) -> bool {
    !value.is_empty() && all(value, |b| (b > b' ') & (b != 0x7f))
}

/// An authority without user information (section 8.3.1).
fn is_host(value: &[u8]) -> bool {
    !value.is_empty() && is_authority(value) && memchr::memchr(b'@', value).is_none()
}

fn status(value: &[u8]) -> Option<u16> {
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = value else {
        return None;
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    // There are no upgrades in HTTP/2 (section 8.6).
    Some(digit(a) * 100 + digit(b) * 10 + digit(c)).filter(|status| *status != 101)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(kind: Kind, fields: &[(&str, &str)]) -> (Collector, Option<Refusal>) {
        let mut collector = Collector::new(1000, 20);
        collector.begin(kind, Head::new());
        for (name, value) in fields {
            collector.field(name.as_bytes(), value.as_bytes());
        }
        let refusal = collector.finish();
        (collector, refusal)
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a:1"),
        (":path", "/p?q"),
    ];

    fn with(more: &[(&str, &str)]) -> (Collector, Option<Refusal>) {
        collect(Kind::Request(false), &[&GET[..], more].concat())
    }

    #[test]
    fn a_request() {
        let (got, refusal) = with(&[
            ("cookie", "a=1"),
            ("x", "y"),
            ("te", "trailers"),
            ("cookie", "b=2"),
            ("host", "other"),
            ("content-length", "5"),
            ("expect", "100-continue"),
        ]);
        assert_eq!(refusal, None);
        let head = &got.head;
        let target = (head.method(), head.scheme(), head.authority(), head.path());
        assert_eq!(
            target,
            (&b"GET"[..], &b"http"[..], &b"a:1"[..], &b"/p?q"[..])
        );
        let names: Vec<_> = head.lines().map(|(n, _)| n).collect();
        assert_eq!(names, [&b"x"[..], b"te", b"content-length", b"cookie"]);
        assert_eq!(head.first(b"cookie"), Some(&b"a=1; b=2"[..]));
        assert_eq!((got.length, got.expects), (Some(5), true));
    }

    #[test]
    fn a_host_stands_in_for_the_authority() {
        let fields = [GET[0], GET[1], GET[3], ("host", "h:2")];
        let (got, refusal) = collect(Kind::Request(false), &fields);
        assert_eq!((got.head.authority(), refusal), (&b"h:2"[..], None));
        let (got, refusal) = collect(Kind::Request(false), &[GET[0], GET[1], GET[3]]);
        assert_eq!(refusal, Some(Refusal::Malformed(MESSAGE)));
        assert!(!got.head.has_authority());
    }

    #[test]
    fn malformed_requests() {
        for bad in [
            ("Upper", "x"),
            ("", "x"),
            ("a b", "x"),
            ("x", "a\r\nb"),
            ("x", "a\0"),
            ("x", "a\x7f"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("content-length", "+5"),
            ("content-length", ""),
            ("host", "u@h"),
            ("host", "a b"),
            (":method", "GET"),
            (":status", "200"),
            (":protocol", "websocket"),
            (":unknown", "x"),
        ] {
            let (_, refusal) = with(&[bad]);
            assert!(matches!(refusal, Some(Refusal::Malformed(_))), "{bad:?}");
        }
        for twice in [("content-length", "5"), ("host", "a")] {
            let (_, refusal) = with(&[twice, twice]);
            assert!(matches!(refusal, Some(Refusal::Malformed(_))), "{twice:?}");
        }
        for (place, value) in [
            (0, ""),
            (0, "G T"),
            (1, ""),
            (1, "1http"),
            (2, "u@a"),
            (2, "a/b"),
            (2, ""),
            (3, ""),
            (3, "p"),
            (3, "/a b"),
            (3, "*"),
            (3, "/\x7f"),
        ] {
            let mut fields = GET;
            fields[place].1 = value;
            let (_, refusal) = collect(Kind::Request(false), &fields);
            assert!(matches!(refusal, Some(Refusal::Malformed(_))), "{fields:?}");
        }
        for missing in [0, 1, 3] {
            let mut fields = GET.to_vec();
            fields.remove(missing);
            let (_, refusal) = collect(Kind::Request(false), &fields);
            assert!(matches!(refusal, Some(Refusal::Malformed(_))), "{fields:?}");
        }
        let late = [GET[0], GET[1], ("x", "y"), GET[3]];
        let (_, refusal) = collect(Kind::Request(false), &late);
        assert!(matches!(refusal, Some(Refusal::Malformed(_))));
    }

    #[test]
    fn connect_and_its_extension() {
        let fine =
            |allowed, fields: &[(&str, &str)]| collect(Kind::Request(allowed), fields).1.is_none();
        let connect = (":method", "CONNECT");
        let to = (":authority", "a:1");
        assert!(fine(false, &[connect, to]));
        assert!(!fine(false, &[connect]));
        assert!(!fine(false, &[connect, to, (":path", "/")]));
        let extended = [
            connect,
            to,
            (":scheme", "http"),
            (":path", "/"),
            (":protocol", "x"),
        ];
        assert!(fine(true, &extended));
        assert!(!fine(false, &extended));
        assert!(!fine(true, &extended[..4]));
        assert!(!fine(true, &[connect, to, (":protocol", "x")]));
        assert!(!fine(true, &[&GET[..], &[(":protocol", "x")]].concat()));
    }

    #[test]
    fn responses_and_trailers() {
        let of = |kind, fields: &[(&str, &str)]| collect(kind, fields).1.is_none();
        assert!(of(Kind::Response, &[(":status", "200"), ("host", "x")]));
        for bad in ["", "20", "2000", "099", "600", "101", "+20"] {
            assert!(!of(Kind::Response, &[(":status", bad)]), "{bad}");
        }
        assert!(!of(Kind::Response, &[("x", "y")]));
        assert!(!of(Kind::Response, &[(":status", "200"), (":path", "/")]));
        assert!(of(Kind::Trailers, &[("grpc-status", "0")]));
        for bad in [":path", ":status", "host", "content-length", "connection"] {
            assert!(!of(Kind::Trailers, &[(bad, "1")]), "{bad}");
        }
    }

    #[test]
    fn every_byte_counts_kept_or_not() {
        let long = "x".repeat(200);
        for name in ["cookie", "x", "host", "expect", "Upper", ":authority"] {
            let (got, refusal) = with(&[(name, &*long); 5]);
            assert!(matches!(refusal, Some(Refusal::TooLarge(_))), "{name}");
            assert!(got.head.is_empty());
            let (_, refusal) = with(&vec![(name, ""); 17]);
            assert!(matches!(refusal, Some(Refusal::TooLarge(_))), "{name}");
        }
    }
}
