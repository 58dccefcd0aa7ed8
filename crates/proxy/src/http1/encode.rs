//! Heads and chunk frames to bytes.

use super::Framing;
use crate::http::head::Head;
use crate::http::known::Known;

/// Writes a request head. `Chunked` adds its header; a length is already a
/// line of the head.
pub fn write_request_head(head: &Head, framing: Framing, out: &mut Vec<u8>) {
    if !head.write_as_came(out) {
        out.extend_from_slice(head.method());
        out.push(b' ');
        if head.method() == b"CONNECT" {
            out.extend_from_slice(head.authority());
        } else {
            out.extend_from_slice(head.path());
        }
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(head.authority());
        out.extend_from_slice(b"\r\n");
        head.write_lines(out);
    }
    match framing {
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None if needs_zero_length(head) => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// A method that may have a body says that it has none (as Envoy does).
fn needs_zero_length(head: &Head) -> bool {
    let bodiless = matches!(
        head.method(),
        b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT"
    );
    !bodiless && !head.has(Known::ContentLength) && !head.has(Known::Upgrade)
}

/// What the head of an answer without a body says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// That it is empty.
    Zero,
    /// Nothing: its status has none.
    Silent,
    /// That the answer to a GET would have one of unknown length (HEAD).
    Unsaid,
}

/// Writes a response head. `close` adds `connection: close`, `http_10` answers
/// in that version; `Framing::None` writes what `empty` says where the
/// head has no length.
pub fn write_response_head(
    head: &Head,
    framing: Framing,
    empty: Empty,
    close: bool,
    http_10: bool,
    out: &mut Vec<u8>,
) {
    write_status_line(head.status, http_10, out);
    head.write_lines(out);
    // The connection line of a 101 is its own: what follows is no message.
    let message = head.status != 101;
    if message && close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if message && http_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    match framing {
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None if !head.has(Known::ContentLength) => match empty {
            Empty::Zero => out.extend_from_slice(b"content-length: 0\r\n"),
            Empty::Unsaid if !http_10 => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            Empty::Unsaid | Empty::Silent => {}
        },
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes `HTTP/1.1 200 OK\r\n` and the like.
pub fn write_status_line(status: u16, http_10: bool, out: &mut Vec<u8>) {
    if status == 200 && !http_10 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    let version: &[u8] = if http_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the size line of a chunk.
pub fn chunk_head(len: usize, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 16];
    let mut at = digits.len();
    let mut rest = len;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and trailers, if there are any.
pub fn write_last_chunk(trailers: Option<&Head>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_lines(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase of a status (RFC 9110 and the IANA registry).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        599 => "Last Unassigned Server Error Code",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_bytes() {
        let mut head = Head::new();
        head.set_method(b"POST");
        head.set_path(b"/a");
        head.set_authority(b"h");
        head.add(b"x", b"1");
        let mut out = Vec::new();
        write_request_head(&head, Framing::Chunked, &mut out);
        assert_eq!(
            out,
            b"POST /a HTTP/1.1\r\nhost: h\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        out.clear();
        write_request_head(&head, Framing::None, &mut out);
        assert!(out.ends_with(b"content-length: 0\r\n\r\n"));
    }

    #[test]
    fn chunk_sizes_are_hex() {
        for (len, text) in [(0, "0\r\n"), (10, "a\r\n"), (4096, "1000\r\n")] {
            let mut out = Vec::new();
            chunk_head(len, &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
