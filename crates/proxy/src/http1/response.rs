//! Response heads from an upstream: parsing (as of requests) and the checks that make a wrong
//! one a 502 rather than a smuggled message.

use std::mem::MaybeUninit;

use super::request::{MOST_LINES, NAME_BYTES};
use super::{Framing, content_length, each_token, head_end};
use crate::http::head::{Head, Place};
use crate::http::known::Known;

/// Largest response head in bytes.
const HEAD_BYTES: usize = 80 * 1024;
/// Most header lines of a response.
const HEADERS: usize = 100;

/// What the codec learned of a response beside its [`Head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Bytes of the input that were the head.
    pub consumed: usize,
    /// How the body ends.
    pub framing: Framing,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    /// `Connection` names `upgrade` (of meaning with status 101).
    pub upgrade: bool,
}

/// Parses one response head at the start of `input` into `head` (cleared
/// first). `to_head` says that the request was a HEAD. `None` asks for more
/// bytes; the error is a reason for people.
pub fn parse_response(
    input: &[u8],
    seen: usize,
    to_head: bool,
    head: &mut Head,
) -> Result<Option<ResponseHead>, &'static str> {
    if seen > 0 && !head_end(input, seen) {
        return short(input.len());
    }
    if let Some(response) = parse_plain(input, to_head, head) {
        return Ok(Some(response));
    }
    head.clear();
    parse_fully(input, to_head, head)
}

/// Parses a head that is as nearly all are; none where [`parse_fully`] is to say what it is.
fn parse_plain(input: &[u8], to_head: bool, head: &mut Head) -> Option<ResponseHead> {
    let mut plain = head.read_plain(input)?;
    plain.status_line()?;
    let mut fields = Fields::default();
    let mut left = HEADERS;
    let consumed = plain.lines(|known, value| {
        left = left.checked_sub(1)?;
        fields.take(known, value).ok()
    })?;
    if consumed > HEAD_BYTES {
        return None;
    }
    fields.finish(false, to_head, consumed, head).ok()
}

/// Parses any head.
fn parse_fully(
    input: &[u8],
    to_head: bool,
    head: &mut Head,
) -> Result<Option<ResponseHead>, &'static str> {
    let mut lines = [const { MaybeUninit::uninit() }; MOST_LINES];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_response_status_delimiters(true);
    let status = config.parse_response_with_uninit_headers(&mut parsed, input, &mut lines);
    let consumed = match status {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return short(input.len()),
        Err(_) => return Err("http1.codec_error"),
    };
    if consumed > HEAD_BYTES {
        return Err("http1.headers_too_large");
    }
    if parsed.headers.len() > HEADERS {
        return Err("http1.too_many_headers");
    }
    if parsed.headers.iter().any(|l| l.name.len() > NAME_BYTES) {
        return Err("http1.headers_too_large");
    }
    let code = parsed.code.unwrap_or_default();
    if !(100..=599).contains(&code) {
        return Err("http1.codec_error");
    }
    head.clear();
    head.status = code;
    let mut fields = Fields::default();
    let copied = head.copy(super::lines_of(input, parsed.headers, consumed));
    for line in parsed.headers.iter() {
        let (name, value) = (line.name.as_bytes(), line.value.trim_ascii());
        let known = head.classify(copied, name);
        match fields.take(known, value)? {
            Place::Line => head.keep(copied, known, name, value),
            Place::Authority | Place::Nowhere => {}
        }
    }
    fields
        .finish(parsed.version == Some(0), to_head, consumed, head)
        .map(Some)
}

fn short<T>(len: usize) -> Result<Option<T>, &'static str> {
    if len > HEAD_BYTES {
        return Err("http1.headers_too_large");
    }
    Ok(None)
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    nominated: bool,
}

impl Fields {
    fn take(&mut self, known: Known, value: &[u8]) -> Result<Place, &'static str> {
        match known {
            Known::ContentLength => {
                let length = content_length(value).ok_or("http1.codec_error")?;
                if self.length.replace(length).is_some() {
                    return Err("http1.codec_error");
                }
            }
            Known::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("http1.invalid_transfer_encoding");
                }
                self.chunked = true;
                return Ok(Place::Nowhere);
            }
            Known::Connection => each_token(value, |token| {
                if token.eq_ignore_ascii_case(b"close") {
                    self.close = true;
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep_alive = true;
                } else if token.eq_ignore_ascii_case(b"upgrade") {
                    self.upgrade = true;
                } else {
                    self.nominated = true;
                }
            }),
            Known::ProxyConnection => {
                each_token(value, |t| self.close |= t.eq_ignore_ascii_case(b"close"));
                return Ok(Place::Nowhere);
            }
            Known::KeepAlive => return Ok(Place::Nowhere),
            _ => {}
        }
        Ok(Place::Line)
    }

    fn finish(
        self,
        http_10: bool,
        to_head: bool,
        consumed: usize,
        head: &mut Head,
    ) -> Result<ResponseHead, &'static str> {
        if self.chunked && self.length.is_some() {
            return Err("http1.content_length_and_chunked_not_allowed");
        }
        if self.nominated {
            remove_nominated(head);
        }
        let status = head.status;
        if status != 101 {
            head.remove_known(Known::Connection);
            head.remove_known(Known::Upgrade);
        }
        let bodiless = status < 200 || status == 204;
        if bodiless && (self.chunked || self.length.is_some_and(|n| n > 0)) {
            return Err("http1.codec_error");
        }
        let framing = match (self.chunked, self.length) {
            _ if bodiless || to_head || status == 304 => Framing::None,
            (true, _) => Framing::Chunked,
            (false, Some(0)) => Framing::None,
            (false, Some(n)) => Framing::Length(n),
            (false, None) => Framing::Close,
        };
        let keep = !self.close && (!http_10 || self.keep_alive);
        Ok(ResponseHead {
            consumed,
            framing,
            keep_alive: keep && framing != Framing::Close,
            upgrade: self.upgrade,
        })
    }
}

fn remove_nominated(head: &mut Head) {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for value in head.all_known(Known::Connection) {
        each_token(value, |token| names.push(token.to_ascii_lowercase()));
    }
    for name in names {
        if !matches!(
            name.as_slice(),
            b"upgrade" | b"close" | b"keep-alive" | b"content-length"
        ) {
            head.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Option<(ResponseHead, Head)>, &'static str> {
        let mut head = Head::new();
        Ok(parse_response(text, 0, false, &mut head)?.map(|r| (r, head)))
    }

    #[test]
    fn framing_of_plain_answers() {
        let (r, head) = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(r.framing, Framing::Length(5));
        assert!(r.keep_alive);
        assert_eq!(head.first(b"x"), Some(&b"y"[..]));
        let (r, _) = parse(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap();
        assert_eq!(r.framing, Framing::Close);
        assert!(!r.keep_alive);
        assert!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n").unwrap().is_none());
    }

    #[test]
    fn a_name_longer_than_a_head_can_hold_is_refused() {
        let answer = |len: usize| {
            let name = "x".repeat(len);
            parse(format!("HTTP/1.1 200 OK\r\n{name}: 1\r\nb: 2\r\n\r\n").as_bytes())
        };
        let (_, head) = answer(NAME_BYTES).unwrap().unwrap();
        assert_eq!(head.first(b"b"), Some(&b"2"[..]));
        assert_eq!(
            answer(NAME_BYTES + 1).unwrap_err(),
            "http1.headers_too_large"
        );
    }

    #[test]
    fn malformed_answers_are_errors() {
        for bad in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 204 No\r\ncontent-length: 3\r\n\r\n",
            b"HTTP/1.1 99 x\r\n\r\n",
            b"HTTP/1.1 099 x\r\n\r\n",
            b"HTTP/1.1 600 x\r\n\r\n",
            b"HTTP/1.1 abc x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
            b"HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    /// Whatever is taken for a plain head is what the full parser reads.
    #[test]
    fn plain_heads_read_as_in_full() {
        let mut plain = 0;
        super::super::each_variant(
            &[
                b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nServer: x y\r\nContent-Length: 5\r\n\r\nhello",
                b"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade, X-Two\r\nX-Two: 2\r\n\r\n",
                b"HTTP/1.1 404 No\xc3\xa9\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            ],
            |text| {
                for to_head in [false, true] {
                    let (mut one, mut two) = (Head::new(), Head::new());
                    let Some(response) = parse_plain(text, to_head, &mut one) else {
                        continue;
                    };
                    plain += 1;
                    let full = parse_fully(text, to_head, &mut two);
                    assert_eq!(full, Ok(Some(response)), "{}", text.escape_ascii());
                    assert_eq!(one.parts(), two.parts(), "{}", text.escape_ascii());
                }
            },
        );
        assert!(plain > 1000, "{plain}");
    }
}
