//! Request heads: parsing in one pass where a head is plain and with httparse where it is not, then
//! the checks of the request line, of the framing headers (against smuggling) and of the hop-by-hop
//! headers.

use std::mem::MaybeUninit;

use super::target::{self, Target};
use super::{Framing, content_length, each_token, head_end};
use crate::http::head::{Head, Place};
use crate::http::known::Known;

/// Most header lines a parse can hold, whatever the configured limit is.
pub(super) const MOST_LINES: usize = 256;

/// Longest header name: what a [`Head`] can hold, whatever the head's limit is.
pub(super) const NAME_BYTES: usize = u16::MAX as usize;

/// What a codec accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest head in bytes, request line included.
    pub head_bytes: usize,
    /// Most header lines.
    pub headers: usize,
    /// Whether HTTP/1.0 requests are served (`accept_http_10`).
    pub accept_http_10: bool,
    /// Whether `Content-Length` is dropped when chunked is also given instead
    /// of refusing (`allow_chunked_length`).
    pub allow_chunked_length: bool,
    /// Whether any token is a method, not only those of Envoy's list (`allow_custom_methods`).
    pub custom_methods: bool,
    /// Whether a target may be a URL (`allow_absolute_url`).
    pub absolute_urls: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            headers: 100,
            accept_http_10: false,
            allow_chunked_length: false,
            custom_methods: false,
            absolute_urls: true,
        }
    }
}

/// Who refuses: the codec (answers with the reason as body and flag DPE) or
/// the connection manager (empty body, no flag).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectKind {
    /// The bytes are not HTTP as we take it.
    Codec,
    /// The request is well-formed and not acceptable.
    Request,
}

/// A request that is answered by the codec's owner and not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Status of the answer.
    pub status: u16,
    /// Envoy's response code details.
    pub details: &'static str,
    /// Who refuses.
    pub kind: RejectKind,
}

impl Reject {
    pub(super) const fn codec(status: u16, details: &'static str) -> Self {
        let kind = RejectKind::Codec;
        Self {
            status,
            details,
            kind,
        }
    }

    pub(super) const fn request(status: u16, details: &'static str) -> Self {
        let kind = RejectKind::Request;
        Self {
            status,
            details,
            kind,
        }
    }
}

const BAD: Reject = Reject::codec(400, "http1.codec_error");
const BAD_CHARACTERS: Reject = Reject::codec(400, "http1.invalid_characters");
const TOO_LARGE: Reject = Reject::codec(431, "http1.headers_too_large");
const TOO_MANY: Reject = Reject::codec(431, "http1.too_many_headers");
const LOW_VERSION: Reject = Reject::codec(426, "low_version");
const BOTH_LENGTHS: Reject = Reject::codec(400, "http1.content_length_and_chunked_not_allowed");
const BAD_CODING: Reject = Reject::codec(501, "http1.invalid_transfer_encoding");
const BODY_DISALLOWED: Reject = Reject::codec(400, "http1.body_disallowed");
const BAD_AUTHORITY: Reject = Reject::codec(400, "http.invalid_authority");
const BAD_CONNECTION: Reject = Reject::codec(400, "http1.connection_header_rejected");
const BAD_URL: Reject = Reject::codec(400, "http1.invalid_url");

/// Most elements that `Connection` may have, empty ones included (Envoy's limit).
const MOST_NAMED: usize = 10;

/// What the codec learned of a request beside its [`Head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Bytes of the input that were the head.
    pub consumed: usize,
    /// How the body ends.
    pub framing: Framing,
    /// False after `Connection: close` or HTTP/1.0 without keep-alive.
    pub keep_alive: bool,
    /// The request line said HTTP/1.0.
    pub http_10: bool,
    /// `Connection` names `upgrade` and an `Upgrade` header is there.
    pub upgrade: bool,
    /// The client waits for a 100 before it sends the body.
    pub expect_continue: bool,
    /// A check that the connection manager, not the codec, answers for.
    pub refused: Option<Reject>,
}

impl RequestHead {
    fn new(consumed: usize, http_10: bool) -> Self {
        Self {
            consumed,
            framing: Framing::None,
            keep_alive: !http_10,
            http_10,
            upgrade: false,
            expect_continue: false,
            refused: None,
        }
    }
}

/// Parses one request head at the start of `input` into `head` (cleared
/// first). `seen` is how much of `input` an earlier call already looked at.
/// `None` asks for more bytes.
pub fn parse_request(
    input: &[u8],
    seen: usize,
    limits: &Limits,
    head: &mut Head,
) -> Result<Option<RequestHead>, Reject> {
    if seen > 0 && !head_end(input, seen) {
        return too_large(input.len(), limits);
    }
    if let Some(request) = parse_plain(input, limits, head) {
        return Ok(Some(request));
    }
    head.clear();
    parse_fully(input, limits, head)
}

/// Parses a head that is as nearly all are; none where [`parse_fully`] is to say what it is.
fn parse_plain(input: &[u8], limits: &Limits, head: &mut Head) -> Option<RequestHead> {
    let mut plain = head.read_plain(input)?;
    let method = plain.request_line()?;
    if !is_method(method) || method == b"CONNECT" {
        return None;
    }
    let mut request = RequestHead::new(0, false);
    let mut fields = Fields::default();
    let mut left = limits.headers.min(MOST_LINES);
    request.consumed = plain.lines(|known, value| {
        left = left.checked_sub(1)?;
        fields.take(known, value, &mut request, false).ok()
    })?;
    if request.consumed > limits.head_bytes {
        return None;
    }
    fields.finish(head, &mut request, limits).ok()?;
    Some(request)
}

/// Parses any head.
fn parse_fully(
    input: &[u8],
    limits: &Limits,
    head: &mut Head,
) -> Result<Option<RequestHead>, Reject> {
    let mut lines = [const { MaybeUninit::uninit() }; MOST_LINES];
    let mut parsed = httparse::Request::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    let status = config.parse_request_with_uninit_headers(&mut parsed, input, &mut lines);
    let consumed = match status {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return too_large(input.len(), limits),
        Err(error) => match plain_spaces(input) {
            Some(spaced) => return parse_fully(&spaced, limits, head),
            None if version_begun(input) || tab_begun(input, limits) => {
                return too_large(input.len(), limits);
            }
            None => return Err(refusal(error, input)),
        },
    };
    if consumed > limits.head_bytes {
        return Err(TOO_LARGE);
    }
    if parsed.headers.len() > limits.headers {
        return Err(TOO_MANY);
    }
    if parsed.headers.iter().any(|l| l.name.len() > NAME_BYTES) {
        return Err(TOO_LARGE);
    }
    let http_10 = parsed.version == Some(0);
    if http_10 && !limits.accept_http_10 {
        return Err(LOW_VERSION);
    }
    let method = parsed.method.unwrap_or_default().as_bytes();
    if !(is_method(method) || limits.custom_methods) {
        return Err(BAD);
    }
    head.clear();
    head.set_method(method);
    let mut request = RequestHead::new(consumed, http_10);
    let path = parsed.path.unwrap_or_default();
    let absolute = if !limits.absolute_urls && is_url(method, path) {
        // It stands for the path, as it came, and the connection manager refuses it.
        head.set_path(path.as_bytes());
        request.refused = Some(Reject::request(404, "absolute_path_rejected"));
        false
    } else {
        set_target(method, path, head, &mut request)?
    };
    let mut fields = Fields::default();
    let copied = head.copy(super::lines_of(input, parsed.headers, consumed));
    for line in parsed.headers.iter() {
        let (name, value) = (line.name.as_bytes(), line.value.trim_ascii());
        let known = head.classify(copied, name);
        match fields.take(known, value, &mut request, absolute)? {
            Place::Line => head.keep(copied, known, name, value),
            Place::Authority => head.set_authority(value),
            Place::Nowhere => {}
        }
    }
    fields.finish(head, &mut request, limits)?;
    Ok(Some(request))
}

fn too_large<T>(len: usize, limits: &Limits) -> Result<Option<T>, Reject> {
    if len > limits.head_bytes {
        return Err(TOO_LARGE);
    }
    Ok(None)
}

fn refusal(error: httparse::Error, input: &[u8]) -> Reject {
    match error {
        _ if !begins_with_method(input) => BAD,
        _ if has_control(input) => BAD_CHARACTERS,
        httparse::Error::HeaderValue => BAD_CHARACTERS,
        httparse::Error::TooManyHeaders => TOO_MANY,
        httparse::Error::Version | httparse::Error::Token => bad_request_line(input),
        _ => BAD,
    }
}

/// Where the request line stands: after empty lines, up to its line feed.
fn request_line(input: &[u8]) -> std::ops::Range<usize> {
    let is_text = |b: &u8| !matches!(b, b'\r' | b'\n');
    let start = input.iter().position(is_text).unwrap_or(input.len());
    let len = memchr::memchr(b'\n', &input[start..]).unwrap_or(input.len() - start);
    start..start + len
}

/// Whether the request line begins with a letter, as every method does.
fn begins_with_method(input: &[u8]) -> bool {
    input[request_line(input)]
        .first()
        .is_some_and(u8::is_ascii_alphabetic)
}

/// Whether the head, as far as it is here, has a control character other than
/// tab and line ends.
fn has_control(input: &[u8]) -> bool {
    let end = memchr::memmem::find(input, b"\r\n\r\n").unwrap_or(input.len());
    let control = |b: &u8| b.is_ascii_control() && !matches!(b, b'\t' | b'\r' | b'\n');
    input[..end].iter().any(control)
}

/// The input with a request line whose white space the parser takes, where that
/// has tabs or ends in white space (RFC 9112 section 3 lets a recipient take
/// both). The length stays: what is too much goes behind the method.
fn plain_spaces(input: &[u8]) -> Option<Vec<u8>> {
    let line = request_line(input);
    let text = &input[line.clone()];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let strange = memchr::memchr(b'\t', text).is_some() || text.last().is_some_and(is_space);
    if !strange || text.first().is_some_and(is_space) {
        return None;
    }
    let mut words = text.split(is_space).filter(|w| !w.is_empty());
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let spaces = text.len() - method.len() - path.len() - version.len() - 1;
    let mut spaced = Vec::with_capacity(input.len());
    spaced.extend_from_slice(&input[..line.start]);
    spaced.extend_from_slice(method);
    spaced.resize(spaced.len() + spaces, b' ');
    spaced.extend_from_slice(path);
    spaced.push(b' ');
    spaced.extend_from_slice(version);
    spaced.extend_from_slice(&input[line.start + text.len()..]);
    Some(spaced)
}

/// Why a request line was refused: another version of HTTP (`GET /` and nothing
/// else is HTTP/0.9), a byte that no target may have, or anything else.
fn bad_request_line(input: &[u8]) -> Reject {
    let line = input[request_line(input)].trim_ascii_end();
    if line
        .strip_prefix(b"CONNECT ")
        .is_some_and(|rest| rest.trim_ascii() == b"HTTP/1.1")
    {
        return BAD_URL;
    }
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let mut words = line.split(is_space).filter(|w| !w.is_empty());
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return BAD;
    };
    if !is_method(method) {
        return BAD;
    }
    if path.iter().any(u8::is_ascii_control) {
        return BAD_CHARACTERS;
    }
    let (version, more) = (words.next(), words.next());
    let fine = path.starts_with(b"/") && path.is_ascii() && more.is_none();
    match version {
        None if fine => LOW_VERSION,
        Some(version) if fine && version.len() == VERSION.len() && begins_version(version) => {
            LOW_VERSION
        }
        _ => BAD,
    }
}

/// The form of a version, zero for any digit.
const VERSION: &[u8] = b"HTTP/0.0";

fn begins_version(version: &[u8]) -> bool {
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    version.iter().zip(VERSION).all(fits)
}

/// Whether the input ends inside the version: only the rest tells whether it is
/// another one (426) or none (400).
fn version_begun(input: &[u8]) -> bool {
    let line = request_line(input);
    let whole = line.end < input.len();
    let last = input[line].rsplit(|b| *b == b' ').next();
    let begun = |last: &[u8]| last.len() < VERSION.len() && begins_version(last);
    !whole && last.is_some_and(|last| last.starts_with(b"HTTP/") && begun(last))
}

/// Whether the input ends inside a request line with tabs: only its end tells whether they stand
/// between its words, as [`plain_spaces`] takes them.
fn tab_begun(input: &[u8], limits: &Limits) -> bool {
    let line = request_line(input);
    let whole = line.end < input.len();
    let tab = memchr::memchr(b'\t', &input[line]).is_some();
    let method = limits.custom_methods || begins_with_method(input);
    !whole && tab && method && !has_control(input)
}

/// Envoy's fixed list (`allow_custom_methods` off).
fn is_method(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"POST"
            | b"PUT"
            | b"HEAD"
            | b"DELETE"
            | b"OPTIONS"
            | b"PATCH"
            | b"CONNECT"
            | b"TRACE"
            | b"ACL"
            | b"BIND"
            | b"CHECKOUT"
            | b"COPY"
            | b"LINK"
            | b"LOCK"
            | b"MERGE"
            | b"MKACTIVITY"
            | b"MKCALENDAR"
            | b"MKCOL"
            | b"MOVE"
            | b"NOTIFY"
            | b"PROPFIND"
            | b"PROPPATCH"
            | b"PURGE"
            | b"REBIND"
            | b"QUERY"
            | b"REPORT"
            | b"SEARCH"
            | b"SOURCE"
            | b"SUBSCRIBE"
            | b"UNBIND"
            | b"UNLINK"
            | b"UNLOCK"
            | b"UNSUBSCRIBE"
    )
}

/// Whether a target is neither a path nor an authority, nor the `*` of OPTIONS.
fn is_url(method: &[u8], target: &str) -> bool {
    let plain = target.bytes().all(|b| b.is_ascii_graphic());
    let url = !target.starts_with('/') && target.contains("://");
    match method {
        b"CONNECT" => false,
        b"OPTIONS" => url && plain,
        _ => (url || target == "*") && plain,
    }
}

/// Puts path and, for absolute forms, authority into the head. True when the
/// authority came from the request line and `Host` is to be ignored.
fn set_target(
    method: &[u8],
    target: &str,
    head: &mut Head,
    request: &mut RequestHead,
) -> Result<bool, Reject> {
    match target::parse(method, target.as_bytes())? {
        Target::Origin(path) => {
            if memchr::memchr(b'#', path).is_some() {
                request.refused = Some(Reject::request(400, "path_normalization_failed"));
            }
            head.set_path(path);
            Ok(false)
        }
        Target::Asterisk => {
            request.refused = Some(Reject::request(404, "absolute_path_rejected"));
            head.set_path(b"*");
            Ok(false)
        }
        Target::Absolute { authority, path } => {
            head.set_authority(authority);
            if path.starts_with(b"?") {
                request.refused = Some(Reject::request(404, "absolute_path_rejected"));
            } else if memchr::memchr(b'#', path).is_some() {
                request.refused = Some(Reject::request(400, "path_normalization_failed"));
            }
            head.set_path(if path.is_empty() { b"/" } else { path });
            Ok(true)
        }
        Target::Authority(authority) => {
            head.set_authority(authority);
            Ok(true)
        }
    }
}

/// The framing and hop-by-hop headers met while the lines are walked.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    other_coding: bool,
    host: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    named: usize,
    nominated: bool,
    bad_nomination: bool,
}

impl Fields {
    fn take(
        &mut self,
        known: Known,
        value: &[u8],
        request: &mut RequestHead,
        absolute: bool,
    ) -> Result<Place, Reject> {
        match known {
            Known::Host => return self.host(value, absolute),
            Known::ContentLength => {
                if self.length.is_some() {
                    return Err(BAD);
                }
                self.length = Some(content_length(value).ok_or(BAD)?);
            }
            Known::TransferEncoding => {
                self.other_coding |= self.chunked || !value.eq_ignore_ascii_case(b"chunked");
                self.chunked = true;
                return Ok(Place::Nowhere);
            }
            Known::Connection => self.connection(value),
            Known::ProxyConnection => {
                each_token(value, |t| self.close |= t.eq_ignore_ascii_case(b"close"));
                return Ok(Place::Nowhere);
            }
            Known::KeepAlive => return Ok(Place::Nowhere),
            Known::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
                request.expect_continue = true;
                return Ok(Place::Nowhere);
            }
            _ => {}
        }
        Ok(Place::Line)
    }

    fn host(&mut self, value: &[u8], absolute: bool) -> Result<Place, Reject> {
        if self.host {
            // Two Hosts let two proxies route one request differently.
            return Err(BAD_AUTHORITY);
        }
        self.host = true;
        if absolute {
            return Ok(Place::Nowhere);
        }
        if !target::is_authority(value) {
            return Err(BAD_AUTHORITY);
        }
        Ok(Place::Authority)
    }

    fn connection(&mut self, value: &[u8]) {
        self.named += 1 + memchr::memchr_iter(b',', value).count();
        each_token(value, |token| {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else {
                self.nominated = true;
                self.bad_nomination |= never_nominated(token);
            }
        });
    }

    fn finish(
        self,
        head: &mut Head,
        request: &mut RequestHead,
        limits: &Limits,
    ) -> Result<(), Reject> {
        if self.bad_nomination || self.named > MOST_NAMED {
            return Err(BAD_CONNECTION);
        }
        request.framing = match (self.chunked, self.length) {
            (true, Some(_)) if self.other_coding => return Err(BOTH_LENGTHS),
            (true, None) if self.other_coding => return Err(BAD_CODING),
            (true, Some(_)) if !limits.allow_chunked_length => return Err(BOTH_LENGTHS),
            (true, length) => {
                if length.is_some() {
                    head.remove_known(Known::ContentLength);
                }
                if request.http_10 {
                    return Err(BAD_CODING);
                }
                Framing::Chunked
            }
            (false, Some(0)) | (false, None) => Framing::None,
            (false, Some(n)) => Framing::Length(n),
        };
        if self.keep_alive && request.http_10 {
            request.keep_alive = true;
        }
        if self.close {
            request.keep_alive = false;
        }
        if self.nominated {
            remove_nominated(head);
        }
        request.upgrade = self.connection_upgrade && head.has(Known::Upgrade);
        if request.upgrade {
            join_upgrades(head);
        }
        if head
            .known(Known::Upgrade)
            .is_some_and(|v| v.eq_ignore_ascii_case(b"h2c"))
        {
            request.upgrade = false;
            head.remove_known(Known::Http2Settings);
        }
        if !request.upgrade {
            head.remove_known(Known::Upgrade);
            head.remove_known(Known::Connection);
        } else if !head
            .known(Known::Connection)
            .is_some_and(|v| v.eq_ignore_ascii_case(b"upgrade"))
        {
            head.set_known(Known::Connection, b"upgrade");
        }
        if head.known(Known::Te).is_some_and(|v| !v.is_empty()) {
            keep_te_trailers(head, |t| t == b"trailers");
        }
        if head.method() == b"CONNECT" {
            match request.framing {
                Framing::None => {}
                Framing::Chunked => return Err(BAD_CODING),
                _ => return Err(BODY_DISALLOWED),
            }
        }
        let typed = head
            .known(Known::ContentType)
            .is_some_and(|v| !v.is_empty());
        if head.method() == b"QUERY" && !typed && request.refused.is_none() {
            request.refused = Some(Reject::request(400, "query_missing_content_type"));
        }
        if request.refused.is_none() && !head.has_authority() {
            request.refused = Some(Reject::request(400, "missing_host_header"));
        }
        Ok(())
    }
}

/// What says where a request came from or goes to is not for one hop alone.
fn never_nominated(token: &[u8]) -> bool {
    let names: [&[u8]; 3] = [
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    ];
    token.starts_with(b":") || names.iter().any(|n| token.eq_ignore_ascii_case(n))
}

/// Makes one line of several: who decides by the first of them would let the others through.
fn join_upgrades(head: &mut Head) {
    if head.all_known(Known::Upgrade).nth(1).is_none() {
        return;
    }
    let lines = head.all_known(Known::Upgrade);
    let named: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    let joined = named.join(&b","[..]);
    head.remove_known(Known::Upgrade);
    head.set_known(Known::Upgrade, &joined);
}

/// Removes the headers that `Connection` names (RFC 9110 section 7.6.1), other
/// than those this parser reads itself.
fn remove_nominated(head: &mut Head) {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for value in head.all_known(Known::Connection) {
        each_token(value, |token| names.push(token.to_ascii_lowercase()));
    }
    for name in names {
        let keep = [
            &b"upgrade"[..],
            b"te",
            b"content-length",
            b"close",
            b"keep-alive",
            b"http2-settings",
        ];
        if name == b"host" {
            head.remove_authority();
        } else if name == b"te" {
            keep_te_trailers(head, |t| t.eq_ignore_ascii_case(b"trailers"));
        } else if !keep.contains(&name.as_slice()) {
            head.remove(&name);
        }
    }
}

/// Leaves `te: trailers` where one of the codings is that, as Envoy has it: in any case where
/// `Connection` names `te`, else in lower case alone.
fn keep_te_trailers(head: &mut Head, is_trailers: impl Fn(&[u8]) -> bool) {
    let mut trailers = false;
    for value in head.all_known(Known::Te) {
        each_token(value, |t| trailers |= is_trailers(t));
    }
    if trailers {
        head.set_known(Known::Te, b"trailers");
    } else {
        head.remove_known(Known::Te);
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
