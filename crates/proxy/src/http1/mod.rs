//! The HTTP/1.1 codec. It knows no IO: bytes in, heads and body pieces out, and
//! heads to bytes. Where Envoy is lax in a way that lets two parsers disagree
//! (two Hosts, bare CR, folded lines, unasked 101) it is stricter.

mod body;
pub mod case;
mod encode;
mod request;
mod response;
mod target;

pub use body::{BodyDecoder, BodyError, Piece};
pub use encode::{
    Empty, chunk_head, reason, write_last_chunk, write_request_head, write_response_head,
    write_status_line,
};
pub use request::{Limits, Reject, RejectKind, RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub(crate) use target::is_authority;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes follow.
    Length(u64),
    /// Chunks, then optional trailers.
    Chunked,
    /// Everything until the connection ends (responses only).
    Close,
}

/// Parses a `Content-Length` value: digits only, as RFC 9110 section 8.6 says.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |sum: u64, b: &u8| sum * 10 + u64::from(b - b'0');
    Some(value.iter().fold(0, digit))
}

/// Calls `visit` with every trimmed, non-empty element of a comma list.
pub fn each_token(value: &[u8], mut visit: impl FnMut(&[u8])) {
    for token in value.split(|b| *b == b',') {
        let token = token.trim_ascii();
        if !token.is_empty() {
            visit(token);
        }
    }
}

/// The header lines of a head of `length` bytes at the start of `input`, with the empty one.
fn lines_of<'i>(input: &'i [u8], lines: &[httparse::Header<'_>], length: usize) -> &'i [u8] {
    let Some(first) = lines.first() else {
        return &[];
    };
    let at = first
        .name
        .as_ptr()
        .addr()
        .wrapping_sub(input.as_ptr().addr());
    input.get(at..length).unwrap_or_default()
}

/// Where the pieces that a parser borrowed from `input` begin.
fn head_end(input: &[u8], from: usize) -> bool {
    let start = from.saturating_sub(3);
    memchr::memchr_iter(b'\n', &input[start..]).any(|at| {
        let rest = &input[start + at + 1..];
        rest.first() == Some(&b'\n') || rest.starts_with(b"\r\n")
    })
}

/// Calls `check` with each text and with what becomes of it by one byte changed, taken out or put in.
#[cfg(test)]
fn each_variant(texts: &[&[u8]], mut check: impl FnMut(&[u8])) {
    let bytes = b"\0\t\n\r \"#,/:019@AZ[az~\x7f\x80\xff";
    for text in texts {
        check(text);
        for at in 0..text.len() {
            let (before, after) = text.split_at(at);
            check(before);
            check(&[before, &after[1..]].concat());
            for byte in bytes {
                check(&[before, &[*byte], after].concat());
                check(&[before, &[*byte], &after[1..]].concat());
            }
        }
    }
}
