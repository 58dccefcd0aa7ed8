//! Whole connections of the proxy: the bytes of an HTTP/1 or HTTP/2 client, in any order and cut,
//! and those of an upstream. Nothing panics, everything ends, what the proxy hands on and what it
//! answers is well formed.

mod door;
mod upstream;

use lateen_proxy::http::head::Head;
use lateen_proxy::http1::{BodyDecoder, Framing, Piece, parse_response};

pub use door::{Manner, Talk, talk};

use crate::Target;
use crate::bytes::{choice, seeds_after};
use crate::runtime::pieces;

/// The bytes of an HTTP/1 client.
pub const HTTP1: Target = Target {
    name: "proxy_http1",
    run: http1,
    seeds: http1_seeds,
    words: &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HEAD ",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n",
        "/direct",
        "/redirect",
        "/none",
        "/retry/5",
        "/rewrite/a",
        "/fault",
        "/early",
        "/cut",
        "/gone",
        "/close",
        "/large",
        "/continue",
        "%2f..%2F/",
        "Expect: 100-continue\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        "Connection: close\r\n",
        "Content-Length: 5\r\n",
        "X-A: \t\r\n",
        "x_b: 1\r\n",
        "Origin: http://a\r\n",
        "Content-Type: application/grpc\r\n",
        "grpc-timeout: 1n\r\n",
        "x-envoy-upstream-rq-timeout-ms: 0\r\n",
        "x-forwarded-for: 1.2.3.4, ::1\r\n",
        "0\r\n\r\n",
        "\r\n",
        " HTTP/1.0\r\n",
    ],
    rounds: 500,
};

/// The frames of an HTTP/2 client.
pub const HTTP2: Target = Target {
    name: "proxy_http2",
    run: http2,
    seeds: http2_seeds,
    words: &[
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0\0\0\x04\0\0\0\0\0",
        "\0\0\0\x04\x01\0\0\0\0",
        "\0\0\x08\x06\0\0\0\0\0aaaaaaaa",
        "\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
        "\0\0\x04\x08\0\0\0\0\0\x7f\0\0\0",
        "\0\0\x05\x02\0\0\0\0\x01\0\0\0\x03\x10",
        "\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "\0\0\x05\0\x01\0\0\0\x01hello",
        "\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0",
        "\x00\x07:method\x03GET",
        "\x00\x05:path\x01/",
        "\x00\x05:path\x06/large",
        "\x00\x0a:authority\x01a",
        "\x00\x07:scheme\x04http",
        "\x00\x09:protocol\x09websocket",
        "\x00\x06cookie\x01a",
        "\x00\x02te\x08trailers",
        "\x00\x0econtent-length\x015",
    ],
    rounds: 400,
};

/// The answer of an upstream to one request, asked for over HTTP/1 or HTTP/2.
pub const UPSTREAM: Target = Target {
    name: "proxy_upstream",
    run: answered,
    seeds: || {
        let mut list = seeds_after(
            0,
            &[
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\nHTTP/1.0 200 OK\r\n\r\nto the end",
                "HTTP/1.1 304 Same\r\ncontent-length: 9\r\n\r\n",
                "HTTP/1.1 101 No\r\nupgrade: x\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
            ],
        );
        list.extend(seeds_after(
            1,
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/grpc\r\n\r\n5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n"],
        ));
        list
    },
    words: &[
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Yes\r\n",
        "HTTP/1.1 204 None\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Connection: x-a\r\n",
        "Set-Cookie: a\r\n",
        "grpc-status: 1\r\n",
        "location: http://a/\r\n",
        "x-envoy-overloaded: true\r\n",
        "5\r\nhello\r\n",
        "0\r\n",
        "\r\n",
    ],
    rounds: 400,
};

/// How an HTTP/2 client begins (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn http1_seeds() -> Vec<Vec<u8>> {
    let requests = [
        "GET /direct HTTP/1.1\r\nHost: a\r\n\r\nGET /redirect?q HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhelloGET /chunks HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /retry/5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nbytes",
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nonly a part",
        "GET /rewrite/a/b HTTP/1.1\r\nHost: a:80\r\nx_b: 1\r\n\r\nGET /a/%2e%2e/cut HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /close HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /fault HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\nGET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\ngrpc-timeout: 1S\r\n\r\n",
    ];
    let mut list = seeds_after(0, &requests);
    list.extend(seeds_after(3, &requests));
    list.extend(seeds_after(12, &requests[..2]));
    list
}

/// A frame of HTTP/2 (RFC 9113 4.1).
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = length.to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block of literals without indexing (RFC 7541 6.2.2).
#[must_use]
pub fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in lines {
        out.push(0);
        for text in [name, value] {
            // A prefix of seven bits holds up to 126.
            out.push(u8::try_from(text.len().min(126)).unwrap_or(126));
            out.extend(text.bytes().take(126));
        }
    }
    out
}

/// A request head as a block.
#[must_use]
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut lines = vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ];
    lines.extend_from_slice(more);
    block(&lines)
}

fn http2_seeds() -> Vec<Vec<u8>> {
    let get = |path| request("GET", path, &[]);
    let post = request(
        "POST",
        "/retry/5",
        &[("content-length", "5"), ("cookie", "a=1")],
    );
    let settings = frame(4, 0, 0, &[]);
    let conversations = [
        [
            frame(1, 5, 1, &get("/direct")),
            frame(1, 5, 3, &get("/redirect?q")),
            frame(1, 5, 5, &get("/large")),
            frame(8, 0, 0, &[0, 0, 255, 255]),
        ]
        .concat(),
        [
            frame(1, 4, 1, &post),
            frame(0, 0, 1, b"he"),
            frame(6, 0, 0, b"pingpong"),
            frame(0, 1, 1, b"llo"),
            frame(4, 0, 0, &[0, 4, 0, 0, 0, 1, 0, 5, 0, 0, 64, 0]),
        ]
        .concat(),
        [
            frame(1, 0, 1, &post[..10]),
            frame(9, 0, 1, &post[10..20]),
            frame(9, 4, 1, &post[20..]),
            frame(1, 5, 1, &block(&[("x-t", "1")])),
            frame(1, 5, 3, &get("/none")),
            frame(3, 0, 3, &[0, 0, 0, 8]),
            frame(2, 0, 5, &[0, 0, 0, 3, 16]),
            frame(7, 0, 0, &[0; 8]),
        ]
        .concat(),
        [
            frame(
                1,
                4,
                1,
                &request("CONNECT", "/ws", &[(":protocol", "websocket")]),
            ),
            frame(0, 0, 1, b"bytes"),
            frame(0, 1, 1, b""),
            frame(
                1,
                4,
                3,
                &block(&[(":method", "CONNECT"), (":authority", "a:1")]),
            ),
            frame(0, 9, 3, b"\x03abc\0\0\0"),
        ]
        .concat(),
        [
            frame(
                1,
                4,
                1,
                &request("POST", "/early", &[("expect", "100-continue")]),
            ),
            frame(0, 0, 1, &[b'x'; 300]),
            frame(1, 5, 3, &request("GET", "/cut", &[("te", "trailers")])),
            frame(1, 0x25, 5, &[&[0, 0, 0, 1, 5][..], &get("/fault")].concat()),
        ]
        .concat(),
    ];
    let mut list = Vec::new();
    for option in [0, 3, 12] {
        for conversation in &conversations {
            list.push([&[option], &settings[..], conversation].concat());
        }
    }
    list
}

/// Options of an input: 1 = the strict configuration, 2 = in pieces, 4 = a client that does not
/// read, 8 = one that leaves abruptly.
fn manner(option: u8, http2: bool) -> Manner {
    Manner {
        http2,
        strict: option & 1 != 0,
        deaf: option & 4 != 0,
        abrupt: option & 8 != 0,
        forgetful: false,
    }
}

/// More than any answer to so many bytes comes to: each request takes some bytes to ask.
fn assert_bounded(sent: usize, received: usize) {
    assert!(
        received <= (64 << 10) + sent * 4096,
        "{received} bytes in answer to {sent}"
    );
}

fn http1(data: &[u8]) {
    let (option, input) = choice(data);
    let mut all = pieces(input, option & 2 != 0).into_iter();
    let talk = talk(&mut all, b"", manner(option, false));
    assert_bounded(input.len(), talk.received.len());
    // These have answers whose length only their request tells.
    let holds = |word: &[u8]| input.windows(word.len()).any(|part| part == word);
    if !holds(b"HEAD") && !holds(b"CONNECT") {
        answers(&talk.received);
    }
}

/// Reads answers one after another; gives how many are final. The last one may be cut.
fn answers(mut bytes: &[u8]) -> usize {
    let mut head = Head::new();
    let mut count = 0;
    while !bytes.is_empty() {
        let answer = match parse_response(bytes, 0, false, &mut head) {
            Ok(Some(answer)) => answer,
            Ok(None) => return count,
            Err(error) => panic!("an answer of ours: {error:?}\n{}", bytes.escape_ascii()),
        };
        bytes = &bytes[answer.consumed..];
        if head.status == 101 {
            return count + 1;
        }
        count += usize::from(head.status >= 200);
        match body(answer.framing, bytes) {
            Some(used) => bytes = &bytes[used..],
            None => return count,
        }
    }
    count
}

/// How long the body is; `None` when it is cut.
fn body(framing: Framing, bytes: &[u8]) -> Option<usize> {
    let mut decoder = BodyDecoder::new(framing);
    let mut at = 0;
    loop {
        match decoder.next(&bytes[at..]) {
            Ok(Piece::Data { skip, len }) => at += skip + len,
            Ok(Piece::More(_)) => return None,
            Ok(Piece::End(skip)) => return Some(at + skip),
            Err(error) => panic!("a body of ours: {error:?}\n{}", bytes.escape_ascii()),
        }
    }
}

fn http2(data: &[u8]) {
    let (option, input) = choice(data);
    // Inputs begin after the preface, which mutation would only break, unless they ask for it.
    let mut bytes = match option & 16 {
        0 => PREFACE.to_vec(),
        _ => Vec::new(),
    };
    bytes.extend_from_slice(input);
    let mut all = pieces(&bytes, option & 2 != 0).into_iter();
    let talk = talk(&mut all, b"", manner(option, true));
    assert_bounded(bytes.len(), talk.received.len());
    frames(&talk.received);
}

/// Reads frames as a client does; gives how many streams were answered.
fn frames(mut bytes: &[u8]) -> usize {
    let mut answered = 0;
    let mut first = true;
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        assert_eq!(first, kind == 4 && flags == 0, "settings come first, once");
        let of_stream = stream % 2 == 1;
        match kind {
            // DATA, HEADERS, RST_STREAM, CONTINUATION
            0 | 1 | 3 | 9 => assert!(of_stream, "frame {kind} on stream {stream}"),
            // SETTINGS, PING, GOAWAY
            4 | 6 | 7 => assert_eq!(stream, 0, "frame {kind}"),
            8 => assert!(of_stream || stream == 0),
            _ => panic!("no frame of a server: {kind}"),
        }
        answered += usize::from(kind == 1);
        first = false;
        // A connection may be cut anywhere.
        bytes = rest.get(length..).unwrap_or_default();
    }
    answered
}

fn answered(data: &[u8]) {
    let (option, raw) = choice(data);
    let manner = manner(option & !4, option & 16 != 0);
    if manner.http2 {
        let asks = [
            PREFACE,
            &frame(4, 0, 0, &[]),
            &frame(1, 5, 1, &request("GET", "/raw", &[])),
        ];
        let asks = asks.concat();
        let talk = talk(&mut std::iter::once(&asks[..]), raw, manner);
        assert_bounded(raw.len(), talk.received.len());
        frames(&talk.received);
        return;
    }
    let asks = b"GET /raw HTTP/1.1\r\nHost: a\r\n\r\n";
    let talk = talk(&mut std::iter::once(&asks[..]), raw, manner);
    assert_bounded(raw.len(), talk.received.len());
    // However many the upstream sent.
    assert!(
        answers(&talk.received) <= 1,
        "several answers to one request"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(data: &[u8], manner: Manner) -> Vec<u8> {
        talk(
            &mut std::iter::once(data),
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nraw",
            manner,
        )
        .received
    }

    #[test]
    fn requests_reach_the_upstream_and_come_back() {
        let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let asks: String = ["/direct", "/", "/raw", "/chunks", "/none", "/fault"]
            .map(ask)
            .concat();
        let answer = received(asks.as_bytes(), Manner::default());
        assert_eq!(answers(&answer), 6, "{}", answer.escape_ascii());
        let text = String::from_utf8_lossy(&answer);
        for wanted in ["direct", "ok", "raw", "503", "418"] {
            assert!(text.contains(wanted), "no {wanted}: {text}");
        }
        let tunnel =
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes";
        let answer = received(tunnel.as_bytes(), Manner::default());
        assert!(
            answer.ends_with(b"\r\n\r\nbytes"),
            "{}",
            answer.escape_ascii()
        );
        let http2 = Manner {
            http2: true,
            ..Manner::default()
        };
        let asks = [
            PREFACE,
            &frame(4, 0, 0, &[]),
            &frame(1, 5, 1, &request("GET", "/raw", &[])),
            &frame(1, 5, 3, &request("GET", "/direct", &[])),
        ];
        let answer = received(&asks.concat(), http2);
        assert_eq!(frames(&answer), 2, "{}", answer.escape_ascii());
        assert!(answer.windows(6).any(|part| part == b"direct"));
    }
}
