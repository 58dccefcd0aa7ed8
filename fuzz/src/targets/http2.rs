//! Heads between HTTP/1, HTTP/2 and ours: what is carried over comes back the same.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use lateen_proxy::http::convert;
use lateen_proxy::http::head::Head;
use lateen_proxy::http1::{Limits, parse_request, parse_response};

use crate::Target;
use crate::bytes::{choice, seeds_after};

/// Heads as lines of text: `METHOD URI` or a status, then `name: value` lines; or a head of
/// HTTP/1 that is sent on over HTTP/2.
pub const HEAD: Target = Target {
    name: "http2_head",
    run: head,
    seeds,
    words: &[
        "GET ",
        "http://",
        "https://a:1/",
        "*",
        "cookie: ",
        "host: ",
        "\n",
        ": ",
        "te: trailers",
        "connection: close",
        "transfer-encoding: chunked",
        "CONNECT ",
        "%",
        "?",
        "#",
        "[::1]",
    ],
    rounds: 6000,
};

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds_after(
        0,
        &[
            "GET http://h:80/a?b\nx: 1\ncookie: a=1\ncookie: b=2\nhost: other\n",
            "CONNECT h:443\n",
            "OPTIONS *\nhost: h\n",
            "POST /p\nx-a: \u{e9}\n",
        ],
    );
    seeds.extend(seeds_after(
        1,
        &["200\nserver: x\nset-cookie: a\nset-cookie: b\n"],
    ));
    seeds.extend(seeds_after(
        2,
        &["GET /a?b HTTP/1.1\r\nHost: h:1\r\nCookie: a\r\nX: 1\r\nTE: trailers\r\n\r\n"],
    ));
    seeds.extend(seeds_after(3, &["HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"]));
    seeds
}

fn head(data: &[u8]) {
    let (option, input) = choice(data);
    match option & 3 {
        0 => from_http2_request(input),
        1 => from_http2_response(input),
        2 => from_http1_request(input),
        _ => from_http1_response(input),
    }
}

/// Puts the lines `name: value` into a head; those that are none are passed over.
fn fields<'l>(lines: impl Iterator<Item = &'l [u8]>, head: Option<&mut HeaderMap>) {
    let Some(head) = head else {
        return;
    };
    for line in lines {
        let Some(end) = line.windows(2).position(|pair| pair == b": ") else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..end]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[end + 2..])) {
            head.append(name, value);
        }
    }
}

/// Names and values, cookies joined as `HTTP/1` wants them.
fn sorted(head: &Head) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut lines: Vec<_> = head
        .lines()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

fn from_http2_request(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let (method, uri) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut builder = Request::builder().method(method).uri(uri);
    fields(lines, builder.headers_mut());
    let Ok(request) = builder.body(()) else {
        return;
    };
    let parts = request.into_parts().0;
    let mut head = Head::new();
    let named = convert::from_request(&parts, &mut head);
    assert_eq!(named, head.has_authority());
    assert_eq!(head.first(b"host"), head.first(b":authority"));
    assert!(
        head.all_known(lateen_proxy::http::known::Known::Cookie)
            .count()
            <= 1
    );
    over_and_back(&head);
}

/// A request head that HTTP/2 can carry comes back as it was.
fn over_and_back(head: &Head) {
    let Ok(request) = convert::to_request(head) else {
        return;
    };
    let parts = request.into_parts().0;
    let mut back = Head::new();
    assert!(convert::from_request(&parts, &mut back));
    assert_eq!(back.method(), head.method());
    assert_eq!(back.authority(), head.authority());
    if head.method() != b"CONNECT" {
        assert_eq!(back.path(), head.path(), "the path changes on the way");
    }
    let mut want = sorted(head);
    want.retain(|(name, _)| {
        !matches!(
            name.as_slice(),
            b"connection" | b"upgrade" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
        )
    });
    let cookies = want.iter().filter(|(name, _)| name == b"cookie").count();
    if cookies <= 1 {
        assert_eq!(sorted(&back), want, "the lines change on the way");
    }
}

fn from_http2_response(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let status = lines.next().unwrap_or_default();
    let mut builder = Response::builder().status(status);
    fields(lines, builder.headers_mut());
    let Ok(response) = builder.body(()) else {
        return;
    };
    let mut head = Head::new();
    convert::from_response(&response.into_parts().0, &mut head);
    response_over_and_back(&head);
}

fn response_over_and_back(head: &Head) {
    let response = convert::to_response(head).expect("a status from a response");
    let mut back = Head::new();
    convert::from_response(&response.into_parts().0, &mut back);
    assert_eq!(back.status, head.status);
    for (name, value) in back.lines() {
        let mut found = false;
        head.each(name, &mut |other| {
            found |= other == value;
            !found
        });
        assert!(found, "a line that nobody sent");
    }
}

fn from_http1_request(input: &[u8]) {
    let mut head = Head::new();
    if let Ok(Some(request)) = parse_request(input, 0, &Limits::default(), &mut head)
        && request.refused.is_none()
    {
        head.set_scheme(b"http");
        over_and_back(&head);
    }
}

fn from_http1_response(input: &[u8]) {
    let mut head = Head::new();
    if let Ok(Some(_)) = parse_response(input, 0, false, &mut head) {
        response_over_and_back(&head);
    }
}
