//! The HTTP/1 codec: heads and bodies in any cut give one answer, and what we would send on
//! reads back as what we read.

use lateen_proxy::http::head::Head;
use lateen_proxy::http::known::Known;
use lateen_proxy::http1::{
    BodyDecoder, BodyError, Empty, Framing, Limits, Piece, Reject, RequestHead, ResponseHead,
    chunk_head, parse_request, parse_response, write_last_chunk, write_request_head,
    write_response_head,
};

use crate::Target;
use crate::bytes::{arrivals, choice, seeds_after};

const WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "CONNECT ",
    "OPTIONS * ",
    "PRI * HTTP/2.0\r\n\r\n",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "HTTP/1.1 ",
    " HTTP/0.9\r\n",
    "Host: ",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: ",
    "close",
    "keep-alive",
    "upgrade",
    "Upgrade: websocket\r\n",
    "Upgrade: h2c\r\n",
    "TE: trailers\r\n",
    "Expect: 100-continue\r\n",
    "Proxy-Connection: close\r\n",
    "http://a@b:80",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\t",
    ":",
    "0\r\n\r\n",
    ";a=\"b\"",
    "ffffffffffffffff\r\n",
];

/// Request heads.
pub const REQUEST: Target = Target {
    name: "http1_request",
    run: request,
    seeds: request_seeds,
    words: WORDS,
    rounds: 6000,
};

/// Response heads.
pub const RESPONSE: Target = Target {
    name: "http1_response",
    run: response,
    seeds: response_seeds,
    words: WORDS,
    rounds: 6000,
};

/// Bodies.
pub const BODY: Target = Target {
    name: "http1_body",
    run: body,
    seeds: body_seeds,
    words: WORDS,
    rounds: 6000,
};

fn request_seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds_after(
        0,
        &[
            "GET /a?b=c HTTP/1.1\r\nHost: reviews:9080\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "GET http://u:p@h:80/x?y HTTP/1.1\r\nHost: other\r\n\r\n",
            "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, x-a\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\nTE: gzip, trailers\nExpect: 100-continue\n\n",
            "GET /\r\n\r\n",
        ],
    );
    seeds.extend(seeds_after(
        7,
        &["GET / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ));
    seeds
}

fn response_seeds() -> Vec<Vec<u8>> {
    seeds_after(
        0,
        &[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close, x-b\r\nX-B: 1\r\n\r\n",
            "HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 304 \r\nETag: \"a\"\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ],
    )
}

fn body_seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds_after(
        0,
        &[
            "5\r\nhello\r\n6 ;a=\"b;\\\"c\"\r\n world\r\n0\r\nX-T: 1\r\n\r\nGET ",
            "0\r\n\r\n",
            "a\r\n0123456789\r\n0\r\ncontent-length: 3\r\n\r\n",
            "fffffffffffffff\r\nabc",
        ],
    );
    seeds.extend(seeds_after(1, &["hello world"]));
    seeds.extend(seeds_after(0x80, &["hello"]));
    seeds
}

/// No line of a head may end early or hide another one.
fn assert_lines_are_clean(head: &Head) {
    let ends = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    for (name, value) in head.lines() {
        assert!(!name.is_empty(), "a nameless line");
        assert!(!name.iter().any(|b| ends(b) || *b == b':' || *b <= b' '));
        assert!(!value.iter().any(ends), "a line within a line");
        assert!(!name.iter().any(u8::is_ascii_uppercase));
    }
    for text in [head.method(), head.path(), head.authority()] {
        assert!(!text.iter().any(|b| ends(b) || *b == b' '));
    }
}

/// What belongs to one connection must not be handed on.
fn assert_no_hop_lines(head: &Head, upgrade: bool) {
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
    ] {
        // What an upgrade says of its connection is the next one's as well.
        let may = upgrade && name == "connection";
        assert!(
            may || head.first(name.as_bytes()).is_none(),
            "{name} is handed on"
        );
    }
    assert!(upgrade || !head.has(Known::Upgrade), "upgrade is handed on");
}

fn assert_length_line(head: &Head, framing: Framing) {
    let lengths: Vec<&[u8]> = head.all_known(Known::ContentLength).collect();
    match framing {
        Framing::Length(n) => {
            let text = std::str::from_utf8(lengths[0]).expect("digits");
            assert_eq!(text.parse(), Ok(n));
            assert_eq!(lengths.len(), 1);
        }
        Framing::Chunked => assert_eq!(lengths.len(), 0, "two framings"),
        Framing::None | Framing::Close => assert!(lengths.len() <= 1),
    }
}

fn lines(head: &Head) -> Vec<(Vec<u8>, Vec<u8>)> {
    head.lines()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// Parses as bytes arrive. Gives the answer and how much was there by then.
fn arriving<T, E>(
    input: &[u8],
    mut parse: impl FnMut(&[u8], usize) -> Result<Option<T>, E>,
) -> (Result<Option<T>, E>, usize) {
    let mut seen = 0;
    for end in arrivals(input) {
        let end = end.min(input.len());
        match parse(&input[..end], seen) {
            Ok(None) => seen = end,
            answer => return (answer, end),
        }
    }
    (Ok(None), input.len())
}

/// Whether an empty line is in sight, so that nothing more can be waited for.
fn has_empty_line(input: &[u8]) -> bool {
    // Empty lines before the first one are passed over.
    let start = input.iter().position(|b| !matches!(b, b'\r' | b'\n'));
    let input = &input[start.unwrap_or(input.len())..];
    let after = |at: usize| &input[at + 1..];
    (0..input.len())
        .filter(|at| input[*at] == b'\n')
        .any(|at| after(at).starts_with(b"\n") || after(at).starts_with(b"\r\n"))
}

fn request(data: &[u8]) {
    let (option, input) = choice(data);
    let limits = Limits {
        head_bytes: if option & 8 == 0 { 60 * 1024 } else { 200 },
        headers: if option & 16 == 0 { 100 } else { 4 },
        accept_http_10: option & 1 != 0,
        allow_chunked_length: option & 2 != 0,
        custom_methods: option & 4 != 0,
        absolute_urls: option & 32 == 0,
    };
    let mut head = Head::new();
    let whole = parse_request(input, 0, &limits, &mut head);
    let mut other = Head::new();
    let (parts, have) = arriving(input, |bytes, seen| {
        parse_request(bytes, seen, &limits, &mut other)
    });
    match (&whole, &parts) {
        (Ok(Some(one)), Ok(Some(two))) => {
            assert_eq!(format!("{one:?}"), format!("{two:?}"));
            assert_eq!(lines(&head), lines(&other));
            assert_eq!(head.path(), other.path());
            assert_eq!(head.authority(), other.authority());
        }
        (Ok(None), Ok(None)) => {}
        // A refusal may come later where the head is not over yet, and sooner by its size.
        (Ok(None), Err(_)) => {
            let ended = [input, b"\r\n\r\n"].concat();
            let late = parse_request(&ended, 0, &limits, &mut other);
            assert!(late.is_err(), "refused in several pieces, {late:?} in one");
        }
        (Err(_), Ok(None)) => assert!(!has_empty_line(input), "a refusal in one cut only"),
        (Err(one), Err(two)) => assert!(same_refusal(one, two), "{one:?} and {two:?} at {have}"),
        (one, two) => panic!("{one:?} in one piece, {two:?} in several, at {have}"),
    }
    if let Ok(Some(request)) = whole {
        accepted(&request, &head, &limits, input.len());
    }
}

/// Which of several faults is met first may depend on the cut; who refuses may not.
fn same_refusal(one: &Reject, two: &Reject) -> bool {
    one.kind == two.kind && (400..=599).contains(&two.status)
}

fn accepted(request: &RequestHead, head: &Head, limits: &Limits, len: usize) {
    assert!(request.consumed <= len && request.consumed <= limits.head_bytes);
    assert!(head.len() <= limits.headers);
    assert_lines_are_clean(head);
    assert_no_hop_lines(head, request.upgrade);
    assert_length_line(head, request.framing);
    assert_ne!(request.framing, Framing::Close, "a request has an end");
    if request.refused.is_some() {
        return;
    }
    assert!(head.has_authority() && !head.method().is_empty());
    let mut sent = Vec::new();
    write_request_head(head, request.framing, &mut sent);
    let mut back = Head::new();
    let wide = Limits {
        head_bytes: usize::MAX,
        headers: 250,
        custom_methods: limits.custom_methods,
        ..Limits::default()
    };
    let again = parse_request(&sent, 0, &wide, &mut back);
    let again = again.expect("what we send is accepted").expect("whole");
    assert_eq!(again.consumed, sent.len());
    assert_eq!(again.framing, request.framing);
    assert_eq!(again.refused, None);
    assert_eq!(
        (back.method(), back.path(), back.authority()),
        (head.method(), head.path(), head.authority())
    );
    let ours = |line: &(Vec<u8>, Vec<u8>)| line.0 != b"content-length" && line.0 != b"upgrade";
    let (mut one, mut two) = (lines(head), lines(&back));
    one.retain(ours);
    two.retain(ours);
    assert_eq!(one, two, "what we send is what we read");
}

fn response(data: &[u8]) {
    let (option, input) = choice(data);
    let to_head = option & 1 != 0;
    let (mut head, mut other) = (Head::new(), Head::new());
    let whole = parse_response(input, 0, to_head, &mut head);
    let (parts, _) = arriving(input, |bytes, seen| {
        parse_response(bytes, seen, to_head, &mut other)
    });
    match (&whole, &parts) {
        (Ok(Some(one)), Ok(Some(two))) => {
            assert_eq!(format!("{one:?}"), format!("{two:?}"));
            assert_eq!(lines(&head), lines(&other));
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        (Err(_), Ok(None)) => assert!(!has_empty_line(input), "a refusal in one cut only"),
        (one, two) => panic!("{one:?} in one piece, {two:?} in several"),
    }
    if let Ok(Some(response)) = whole {
        answered(&response, &head, input.len());
    }
}

fn answered(response: &ResponseHead, head: &Head, len: usize) {
    assert!(response.consumed <= len);
    assert!((100..=599).contains(&head.status));
    assert_lines_are_clean(head);
    assert_no_hop_lines(head, head.status == 101);
    if matches!(response.framing, Framing::Length(_) | Framing::Chunked) {
        assert_length_line(head, response.framing);
    }
    assert!(!(response.keep_alive && response.framing == Framing::Close));
    // With the two lines that we may add, it would be over what is read of an answer: 100.
    if head.len() > 98 {
        return;
    }
    let mut sent = Vec::new();
    let close = !response.keep_alive;
    write_response_head(
        head,
        response.framing,
        Empty::Silent,
        close,
        false,
        &mut sent,
    );
    let mut back = Head::new();
    let again = parse_response(&sent, 0, false, &mut back);
    let again = again.expect("what we send is accepted").expect("whole");
    assert_eq!((again.consumed, back.status), (sent.len(), head.status));
    assert_eq!(lines(&back), lines(head), "what we send is what we read");
    if matches!(response.framing, Framing::Length(_) | Framing::Chunked) {
        assert_eq!(again.framing, response.framing);
    }
}

/// A body as decoded: its data, its trailers, the bytes used; or why not.
type Decoded = Result<(Vec<u8>, Vec<u8>, usize), BodyError>;

fn decode(framing: Framing, input: &[u8], ends: &[usize]) -> Decoded {
    let mut decoder = BodyDecoder::new(framing);
    let (mut data, mut at) = (Vec::new(), 0);
    for end in ends {
        loop {
            let rest = &input[at..*end];
            match decoder.next(rest)? {
                Piece::Data { skip, len } => {
                    assert!(len > 0, "a piece without data");
                    data.extend_from_slice(&rest[skip..skip + len]);
                    at += skip + len;
                }
                Piece::More(skip) => {
                    at += skip;
                    break;
                }
                Piece::End(skip) => {
                    assert!(decoder.is_done());
                    return Ok((data, decoder.trailers, at + skip));
                }
            }
        }
    }
    decoder.finish()?;
    Ok((data, decoder.trailers, at))
}

fn body(data: &[u8]) {
    let (option, input) = choice(data);
    let framing = match option {
        0 => Framing::Chunked,
        1 => Framing::Close,
        2 => Framing::None,
        n => Framing::Length(u64::from(n & 0x7f)),
    };
    let whole = decode(framing, input, &[input.len()]);
    let mut ends = arrivals(input);
    ends.iter_mut()
        .for_each(|end| *end = (*end).min(input.len()));
    let parts = decode(framing, input, &ends);
    match (&whole, &parts) {
        // Which of two faults is met first may depend on the cut.
        (Err(_), Err(_)) => {}
        (one, two) => assert_eq!(one, two, "the cut changes the body"),
    }
    let Ok((found, trailers, used)) = whole else {
        return;
    };
    assert!(found.len() <= used && used <= input.len());
    match framing {
        Framing::Length(n) => assert_eq!(found.len() as u64, n),
        Framing::Close => assert_eq!(found, input),
        Framing::None => assert!(found.is_empty()),
        Framing::Chunked => {
            let mut sent = Vec::new();
            for piece in found.chunks(7) {
                chunk_head(piece.len(), &mut sent);
                sent.extend_from_slice(piece);
                sent.extend_from_slice(b"\r\n");
            }
            write_last_chunk(None, &mut sent);
            let at = sent.len() - 2;
            sent.splice(at..at, trailers.iter().copied());
            let again = decode(framing, &sent, &[sent.len()]);
            assert_eq!(again, Ok((found, trailers, sent.len())));
        }
    }
}
