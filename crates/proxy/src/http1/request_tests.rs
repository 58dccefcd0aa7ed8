//! The rows of Envoy's request validation, and the places where we are stricter.

use super::*;

fn parse(text: &[u8]) -> Result<Option<(RequestHead, Head)>, Reject> {
    let mut head = Head::new();
    Ok(parse_request(text, 0, &Limits::default(), &mut head)?.map(|r| (r, head)))
}

fn good(text: &[u8]) -> (RequestHead, Head) {
    parse(text)
        .unwrap_or_else(|e| panic!("{}: {e:?}", text.escape_ascii()))
        .expect("complete")
}

fn refused(text: &[u8]) -> (u16, &'static str) {
    match parse(text) {
        Err(reject) => (reject.status, reject.details),
        Ok(Some((request, _))) => {
            let reject = request.refused.expect("should be refused");
            (reject.status, reject.details)
        }
        Ok(None) => panic!("partial: {}", text.escape_ascii()),
    }
}

#[test]
fn a_plain_request() {
    let (request, head) = good(b"GET /a?b=c HTTP/1.1\r\nHost: x.y:80\r\nAccept: */*\r\n\r\nrest");
    assert_eq!(request.consumed, 50);
    assert_eq!(head.method(), b"GET");
    assert_eq!(head.path(), b"/a?b=c");
    assert_eq!(head.authority(), b"x.y:80");
    assert_eq!(head.first(b"accept"), Some(&b"*/*"[..]));
    assert_eq!(request.framing, Framing::None);
    assert!(request.keep_alive);
}

#[test]
fn partial_until_the_empty_line() {
    let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut head = Head::new();
    for end in 0..text.len() {
        for seen in [0, end.saturating_sub(1)] {
            let got = parse_request(&text[..end], seen, &Limits::default(), &mut head);
            assert!(got.unwrap().is_none(), "{end}");
        }
    }
    let got = parse_request(text, text.len() - 1, &Limits::default(), &mut head);
    assert!(got.unwrap().is_some());
}

#[test]
fn half_a_version_is_not_judged() {
    for half in [&b"GET / HTTP/2"[..], b"GET / HTTP/2.", b"GET / HTTP/1"] {
        assert!(parse(half).unwrap().is_none(), "{}", half.escape_ascii());
    }
    assert_eq!(refused(b"GET / HTTP/2.0"), (426, "low_version"));
    assert_eq!(refused(b"GET / HTTP/2x"), (400, "http1.codec_error"));
    assert_eq!(refused(b"GET / HTTPX"), (400, "http1.codec_error"));
}

#[test]
fn half_a_line_with_tabs_is_not_judged() {
    let whole = b"GET /\tHTTP/1.1\r\nHost: x\r\n\r\n";
    for end in 1..whole.len() {
        assert!(parse(&whole[..end]).unwrap().is_none(), "{end}");
    }
    assert!(parse(whole).unwrap().is_some());
    assert_eq!(refused(b"GET /\t\r\n\r\n"), (426, "low_version"));
    assert_eq!(refused(b"GET /\x01\t"), (400, "http1.invalid_characters"));
    // Any token may be a method where that is allowed.
    let custom = Limits {
        custom_methods: true,
        ..Limits::default()
    };
    let whole = b"`x`\t/ HTTP/1.1\t\r\nHost: x\r\n\r\n";
    for end in 1..whole.len() {
        let half = parse_request(&whole[..end], 0, &custom, &mut Head::new());
        assert!(half.unwrap().is_none(), "{end}");
    }
    let whole = parse_request(whole, 0, &custom, &mut Head::new());
    assert!(whole.unwrap().is_some());
}

#[test]
fn codec_refusals() {
    let line = |text: &str| format!("{text}\r\nHost: x\r\n\r\n").into_bytes();
    let header = |text: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{text}\r\n\r\n").into_bytes();
    let codec = (400, "http1.codec_error");
    let characters = (400, "http1.invalid_characters");
    let both = (400, "http1.content_length_and_chunked_not_allowed");
    let coding = (501, "http1.invalid_transfer_encoding");
    let cases = [
        (line("GET / HTTP/1.0"), (426, "low_version")),
        (line("GET / HTTP/1.2"), (426, "low_version")),
        (line("GET / HTTP/2.0"), (426, "low_version")),
        (line("GET / HTTP/0.9"), (426, "low_version")),
        (line("GET / HTTP/3.0"), (426, "low_version")),
        (line("GET /"), (426, "low_version")),
        (line("GET / HTTP/2"), codec),
        (line("GET / HTTP/1"), codec),
        (line("GET / HTTP/1.x"), codec),
        (line("GET / HTTP/1.10"), codec),
        (line("GET / http/1.1"), codec),
        (line("GET / ICE/1.0"), codec),
        (line("GET /\u{1} HTTP/1.1"), characters),
        (line("GET /\u{7f} HTTP/1.1"), characters),
        (line("GET /\u{e9} HTTP/1.1"), codec),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), codec),
        (line("GET\t/a\tb HTTP/1.1"), codec),
        (line("GET * HTTP/1.1"), (400, "http1.invalid_url")),
        (line("CONNECT x HTTP/1.1"), (400, "http1.invalid_url")),
        (line("CONNECT / HTTP/1.1"), (400, "http1.invalid_url")),
        (line("GET http://zz#x HTTP/1.1"), codec),
        (
            line("GET http://zz?x=1 HTTP/1.1"),
            (404, "absolute_path_rejected"),
        ),
        (
            line("QUERY / HTTP/1.1"),
            (400, "query_missing_content_type"),
        ),
        (
            line("QUERY / HTTP/1.1\r\nContent-Type:"),
            (400, "query_missing_content_type"),
        ),
        (
            line("CONNECT x:1 HTTP/1.1\r\nContent-Length: 1"),
            (400, "http1.body_disallowed"),
        ),
        (line("get / HTTP/1.1"), codec),
        (line("FOO / HTTP/1.1"), codec),
        (line("GET x HTTP/1.1"), codec),
        (line("GET /a b HTTP/1.1"), codec),
        (line("GET ftp://a/ HTTP/1.1"), (400, "http1.invalid_scheme")),
        (
            line("GET /a#b HTTP/1.1"),
            (400, "path_normalization_failed"),
        ),
        (line("OPTIONS * HTTP/1.1"), (404, "absolute_path_rejected")),
        (
            b"GET / HTTP/1.1\r\nA: b\r\n\r\n".to_vec(),
            (400, "missing_host_header"),
        ),
        (header("Host: y"), (400, "http.invalid_authority")),
        (
            header("Content-Length: 1\r\nTransfer-Encoding: chunked"),
            both,
        ),
        (
            header("Transfer-Encoding: chunked\r\nContent-Length: 1"),
            both,
        ),
        (header("Content-Length: 1\r\nContent-Length: 1"), codec),
        (header("Content-Length: 1,1"), codec),
        (header("Content-Length: +5"), codec),
        (header("Content-Length: -5"), codec),
        (header("Content-Length: 0x5"), codec),
        (header("Content-Length:"), codec),
        (header("Content-Length: 99999999999999999999"), codec),
        (header("Transfer-Encoding: gzip"), coding),
        (header("Transfer-Encoding: gzip, chunked"), coding),
        (
            header("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            coding,
        ),
        (header("Transfer-Encoding: identity"), coding),
        (header("Transfer-Encoding: xchunked"), coding),
        (header("TE : x"), codec),
        (header("a b: x"), codec),
        (header("a(b: x"), codec),
        (header(": x"), codec),
        (header("nocolon"), codec),
        (header("a: b\0c"), characters),
        (header("a: b\rc"), characters),
    ];
    for (text, want) in cases {
        assert_eq!(refused(&text), want, "{}", text.escape_ascii());
    }
}

#[test]
fn sizes() {
    let many: String = (0..101).map(|i| format!("h{i}: v\r\n")).collect();
    let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    assert_eq!(refused(text.as_bytes()), (431, "http1.too_many_headers"));
    let long = "a".repeat(61 * 1024);
    let text = format!("GET / HTTP/1.1\r\nHost: x\r\nh: {long}\r\n\r\n");
    assert_eq!(refused(text.as_bytes()), (431, "http1.headers_too_large"));
    let partial = &text.as_bytes()[..text.len() - 4];
    assert_eq!(refused(partial), (431, "http1.headers_too_large"));
}

#[test]
fn leniencies_kept() {
    good(b"GET / HTTP/1.1\nHost: x\n\n");
    good(b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    good(b"GET  /  HTTP/1.1\r\nHost: x\r\n\r\n");
    let (request, head) = good(b"GET\t/x \tHTTP/1.1\r\nHost: x\r\nA: b\tc\r\n\r\nrest");
    assert_eq!((head.method(), head.path()), (&b"GET"[..], &b"/x"[..]));
    assert_eq!(head.first(b"a"), Some(&b"b\tc"[..]));
    assert_eq!(request.consumed, 37);
    let (request, head) = good(b"QUERY / HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\n\r\n");
    assert_eq!(head.method(), b"QUERY");
    assert!(request.refused.is_none());
    let (_, head) = good(b"GET http://zz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.authority(), head.path()), (&b"zz"[..], &b"/"[..]));
    let (request, head) = good(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 05 \r\n\r\n");
    assert_eq!(request.framing, Framing::Length(5));
    assert_eq!(head.first(b"content-length"), Some(&b"05"[..]));
    let (_, head) = good(b"GET http://u@zz/abc HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(head.authority(), b"zz");
    assert_eq!(head.path(), b"/abc");
    let (_, head) = good("GET / HTTP/1.1\r\nHost: x\r\na: \u{e9}\r\n\r\n".as_bytes());
    assert_eq!(head.first(b"a"), Some("\u{e9}".as_bytes()));
}

#[test]
fn hop_headers_go() {
    let (request, head) = good(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x-foo, close\r\nX-Foo: 1\r\nTE: gzip, trailers\r\n\
          Keep-Alive: 5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\nX-Bar: 2\r\n\r\n",
    );
    assert!(!request.keep_alive);
    assert!(!request.upgrade);
    let mut out = Vec::new();
    head.write_lines(&mut out);
    assert_eq!(out, b"te: trailers\r\nx-bar: 2\r\n");
}

#[test]
fn upgrades_and_expect() {
    let (request, head) =
        good(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(request.upgrade);
    assert_eq!(head.known(Known::Upgrade), Some(&b"websocket"[..]));
    let (request, head) =
        good(b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n");
    assert!(request.expect_continue);
    assert!(!head.has(Known::Expect));
}

/// Pieces from which both good and bad heads are put together.
const PIECES: &[&str] = &[
    "GET ",
    "POST ",
    "/",
    "/a?b",
    "*",
    " HTTP/1.1",
    " HTTP/1.0",
    "\r\n",
    "\n",
    "\r",
    "Host: x",
    "Host:",
    "Content-Length: 5",
    "Content-Length: 6",
    "Transfer-Encoding: chunked",
    "transfer-encoding: gzip",
    "Connection: close, x",
    "Upgrade: websocket",
    "a: b",
    ": ",
    " ",
    "\t",
    "\0",
    "\u{e9}",
    "http://u@h/",
    "#",
    "TE: trailers",
    "Expect: 100-continue",
];

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_head_or_refused(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..24),
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..8),
        at in 0_usize..64,
    ) {
        let mut bytes = pieces.concat().into_bytes();
        let at = at.min(bytes.len());
        bytes.splice(at..at, noise);
        bytes.extend_from_slice(b"\r\n\r\n");
        let whole = parse(&bytes);
        // In two reads the answer is the same as in one.
        let mut head = Head::new();
        let limits = Limits::default();
        for cut in [bytes.len() / 2, bytes.len() - 1] {
            let first = parse_request(&bytes[..cut], 0, &limits, &mut head);
            if let Ok(None) = first {
                let second = parse_request(&bytes, cut, &limits, &mut head);
                match (&whole, second) {
                    (Ok(Some((one, _))), Ok(Some(two))) => {
                        proptest::prop_assert_eq!(one.consumed, two.consumed);
                        proptest::prop_assert_eq!(one.framing, two.framing);
                    }
                    (Ok(None), Ok(None)) => {}
                    (Err(one), Err(two)) => proptest::prop_assert_eq!(*one, two),
                    (one, two) => proptest::prop_assert!(false, "{:?} and {:?}", one.is_ok(), two),
                }
            }
        }
        if let Ok(Some((request, head))) = whole {
            // Nothing that could end a line goes out in one.
            for (name, value) in head.lines() {
                let bad = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
                proptest::prop_assert!(!name.iter().any(bad) && !value.iter().any(bad));
            }
            proptest::prop_assert!(request.consumed <= bytes.len());
        }
    }
}

#[test]
fn a_name_longer_than_a_head_can_hold_is_refused() {
    let limits = Limits {
        head_bytes: 200_000,
        ..Limits::default()
    };
    let mut head = Head::new();
    let mut parse = |len: usize| {
        let text = format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}: 1\r\n\r\n",
            "n".repeat(len)
        );
        parse_request(text.as_bytes(), 0, &limits, &mut head).map(|head| head.is_some())
    };
    assert_eq!(parse(NAME_BYTES), Ok(true));
    assert_eq!(
        parse(NAME_BYTES + 1).map_err(|reject| reject.status),
        Err(431)
    );
}

/// Whatever is taken for a plain head is what the full parser reads.
#[test]
fn plain_heads_read_as_in_full() {
    let limits = Limits {
        headers: 6,
        ..Limits::default()
    };
    let mut plain = 0;
    super::super::each_variant(
        &[
            b"GET /a?b=c HTTP/1.1\r\nHost: x.y:80\r\nUser-Agent: a/1 (b)\r\nAccept: */*\r\n\r\nrest",
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: X-Two, close\r\nX-Two: 2\r\n\r\n",
            b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHOST: x\r\nExpect: 100-continue\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTE: trailers\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\nX_A.b~: \xc3\xa9\r\nProxy-Connection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\ne: 5\r\n\r\n",
        ],
        |text| {
            let (mut one, mut two) = (Head::new(), Head::new());
            let Some(request) = parse_plain(text, &limits, &mut one) else {
                return;
            };
            plain += 1;
            let full = parse_fully(text, &limits, &mut two);
            assert_eq!(full, Ok(Some(request)), "{}", text.escape_ascii());
            assert_eq!(one.parts(), two.parts(), "{}", text.escape_ascii());
        },
    );
    assert!(plain > 1000, "{plain}");
}
