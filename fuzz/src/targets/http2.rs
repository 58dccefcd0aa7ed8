//! HTTP/2 without a socket: heads from HTTP/1 to HTTP/2 and back come back the same, and frames
//! in any order and cut are read the same way, whatever they hold.

use std::task::{Context, Poll, Waker};

use lateen_proxy::http::head::Head;
use lateen_proxy::http::known::Known;
use lateen_proxy::http1::{Limits, parse_request, parse_response};
use lateen_proxy::http2::{Role, Session, Settings, frame};

use crate::Target;
use crate::bytes::{choice, seeds_after};

/// Heads as lines of text: `METHOD URI` or a status, then `name: value` lines; or a head of
/// HTTP/1 that is sent on over HTTP/2.
pub const HEAD: Target = Target {
    name: "http2_head",
    run: head,
    seeds: head_seeds,
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

/// The frames of a peer, to a server or to a client that has asked for something.
pub const FRAMES: Target = Target {
    name: "http2_frames",
    run: frames,
    seeds: frame_seeds,
    words: &[
        "\0\0\0\x04\0\0\0\0\0",
        "\0\0\0\x04\x01\0\0\0\0",
        "\0\0\x02\x09\x04\0\0\0\x01",
        "\0\0\x02\x01\x05\0\0\0\x01",
        "\0\x07:method\x03GET",
        "\0\x07:status\x03200",
        "\x01\x01a\x04\x01/",
        "\0\0\x08\x06\0\0\0\0\0aaaaaaaa",
        "\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
        "\0\0\x04\x08\0\0\0\0\0\x7f\0\0\0",
        "\0\0\x05\0\x09\0\0\0\x01\x01hel\0",
        "\x40\x01a\x01b",
        "\x20",
        "\x7e\x01b",
    ],
    rounds: 6000,
};

fn head_seeds() -> Vec<Vec<u8>> {
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
    let mut head = Head::new();
    match option & 3 {
        0 => {
            let mut lines = input.split(|byte| *byte == b'\n');
            let first = lines.next().unwrap_or_default();
            let space = first.iter().position(|byte| *byte == b' ');
            let (method, target) = first.split_at(space.unwrap_or(first.len()));
            head.set_method(method);
            head.set_scheme(b"http");
            let target = target.get(1..).unwrap_or_default();
            match target.strip_prefix(b"http://") {
                Some(rest) => {
                    let slash = rest.iter().position(|byte| *byte == b'/');
                    let (authority, path) = rest.split_at(slash.unwrap_or(rest.len()));
                    head.set_authority(authority);
                    head.set_path(path);
                }
                None => head.set_path(target),
            }
            fields(lines, &mut head);
            request_over_and_back(&head);
        }
        1 => {
            let mut lines = input.split(|byte| *byte == b'\n');
            let status = std::str::from_utf8(lines.next().unwrap_or_default());
            head.status = status.ok().and_then(|s| s.parse().ok()).unwrap_or(200);
            fields(lines, &mut head);
            response_over_and_back(&head);
        }
        2 => {
            if let Ok(Some(request)) = parse_request(input, 0, &Limits::default(), &mut head)
                && request.refused.is_none()
            {
                head.set_scheme(b"http");
                request_over_and_back(&head);
            }
        }
        _ => {
            if let Ok(Some(_)) = parse_response(input, 0, false, &mut head) {
                response_over_and_back(&head);
            }
        }
    }
}

/// Puts the lines `name: value` into a head; those that are none are passed over.
fn fields<'l>(lines: impl Iterator<Item = &'l [u8]>, head: &mut Head) {
    for line in lines {
        if let Some(end) = line.windows(2).position(|pair| pair == b": ") {
            head.add(&line[..end], &line[end + 2..]);
        }
    }
}

/// What HTTP/2 carries of a head: names and values, sorted by name.
fn carried(head: &Head) -> Vec<(Vec<u8>, Vec<u8>)> {
    let of_connection = |name: &[u8]| {
        matches!(
            name,
            b"connection" | b"upgrade" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
        )
    };
    let mut lines: Vec<_> = head
        .lines()
        .filter(|(name, value)| {
            !of_connection(name) && (*name != b"te" || value.eq_ignore_ascii_case(b"trailers"))
        })
        .map(|(name, value)| (name.to_vec(), value.trim_ascii().to_vec()))
        .collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

/// Both sides of a connection; the client has the server's settings.
fn both() -> (Session, Session) {
    let settings = Settings {
        header_list: 1 << 20,
        headers: 1000,
        ..Settings::default()
    };
    let client = Session::new(Role::Client, settings.clone());
    (client, Session::new(Role::Server, settings))
}

/// Hands over what one side has to say. False when the other side refuses it.
fn carry(from: &mut Session, to: &mut Session) -> bool {
    let bytes: Vec<u8> = from.outgoing().iter().flat_map(|s| s.to_vec()).collect();
    from.wrote(bytes.len());
    match to.receive(&bytes, 0) {
        Ok(used) => used == bytes.len(),
        Err(error) => panic!("frames of ours: {error}"),
    }
}

/// A request head that HTTP/2 can carry comes back as it was.
fn request_over_and_back(head: &Head) {
    let (mut client, mut server) = both();
    let Some(_) = client.open(head, &[], true, 0) else {
        panic!("a new connection takes a stream");
    };
    assert!(carry(&mut client, &mut server));
    let Some(accepted) = server.next_accepted() else {
        return;
    };
    let back = accepted.head;
    assert_eq!(back.method(), head.method());
    if head.has_authority() && !head.authority().is_empty() {
        assert_eq!(back.authority(), head.authority());
    }
    if head.method() != b"CONNECT" {
        assert_eq!(back.path(), head.path(), "the path changes on the way");
    }
    assert_eq!(back.first(b"host"), back.first(b":authority"));
    assert!(back.all_known(Known::Cookie).count() <= 1);
    let mut want = carried(head);
    let cookies = want.iter().filter(|(name, _)| name == b"cookie").count();
    want.retain(|(name, value)| {
        let kept_back = name == b"expect" && value.eq_ignore_ascii_case(b"100-continue");
        !kept_back && name != b"host"
    });
    if cookies <= 1 {
        assert_eq!(carried(&back), want, "the lines change on the way");
    }
}

fn response_over_and_back(head: &Head) {
    let (mut client, mut server) = both();
    let mut ask = Head::new();
    ask.set_method(b"HEAD");
    ask.set_authority(b"a");
    ask.set_path(b"/");
    let Some(slot) = client.open(&ask, &[], true, 0) else {
        panic!("a new connection takes a stream");
    };
    assert!(carry(&mut client, &mut server));
    let accepted = server.next_accepted().expect("a good request");
    let answered = server.respond(accepted.slot, head, head.status, true);
    assert!(answered.is_ok());
    assert!(carry(&mut server, &mut client));
    let cx = Context::from_waker(Waker::noop());
    if let Poll::Ready(Ok(back)) = client.poll_head(slot, &cx) {
        assert_eq!(back.status, head.status);
        assert_eq!(carried(&back), carried(head));
    }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds_after(0, &["\0\0\0\x04\0\0\0\0\0"]);
    let requests: &[&[u8]] = &[
        b"\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x01\x01a",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x0a\x01\0\0\0\0\x01\x83\x86\x84\x41\x01a\x40\x01b\x01\0\0\x02\x09\x04\0\0\0\x01c\xbe\0\0\x05\0\x01\0\0\0\x01hello",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x04\0\0\0\x01\x83\x86\x84\x01\x01a\0\0\x05\0\x09\0\0\0\x01\x02he\0\0",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x10\x01\x25\0\0\0\x01\0\0\0\0\x10\x82\x86\x84\x41\x85\xf1\xe3\xc2\xe5\xf2\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    ];
    let answers: &[&[u8]] = &[
        b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x02\0\x01\0\0\0\x01ok",
        b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x05\0\0\x05\x01\x04\0\0\0\x01\x08\x03103\0\0\x01\x01\x05\0\0\0\x01\x89",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ];
    let with = |option: u8| move |bytes: &&[u8]| [&[option], *bytes].concat();
    seeds.extend(requests.iter().map(with(0)));
    seeds.extend(answers.iter().map(with(1)));
    seeds
}

/// A session with what it said and what it was asked or answered.
struct Side {
    session: Session,
    said: Vec<u8>,
    seen: Vec<Vec<u8>>,
    slots: Vec<u32>,
}

impl Side {
    fn new(client: bool) -> Self {
        let settings = Settings {
            connect_protocol: true,
            header_list: 400,
            headers: 12,
            stream_window: 65_535,
            connection_window: 65_535,
            ..Settings::default()
        };
        let mut side = Self {
            session: Session::new(if client { Role::Client } else { Role::Server }, settings),
            said: Vec::new(),
            seen: Vec::new(),
            slots: Vec::new(),
        };
        if client {
            let mut head = Head::new();
            head.set_method(b"GET");
            head.set_authority(b"a");
            head.set_path(b"/");
            side.slots.extend(side.session.open(&head, &[], true, 0));
            side.slots.extend(side.session.open(&head, &[], false, 0));
        } else {
            let used = side.session.receive(frame::PREFACE, 0);
            assert_eq!(used.ok(), Some(frame::PREFACE.len()));
        }
        side
    }

    /// Reads on; true when the connection is over.
    fn read(&mut self, held: &mut Vec<u8>) -> bool {
        let over = match self.session.receive(held, 0) {
            Ok(used) => {
                held.drain(..used);
                false
            }
            Err(error) => {
                self.session.fail(error);
                true
            }
        };
        while let Some(accepted) = self.session.next_accepted() {
            assert!(!accepted.head.method().is_empty());
            let line = |(name, value): (&[u8], &[u8])| [name, b": ", value].concat();
            self.seen.push(accepted.head.path().to_vec());
            self.seen.extend(accepted.head.lines().map(line));
            self.slots.push(accepted.slot);
        }
        over
    }

    /// Takes all that came and lets go.
    fn finish(mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let cx = Context::from_waker(Waker::noop());
        for slot in std::mem::take(&mut self.slots) {
            let mut body = Vec::new();
            while let Poll::Ready(Ok(Some(piece))) = self.session.poll_piece(slot, &cx) {
                self.session.release(slot, piece.len());
                body.extend_from_slice(&piece);
            }
            if let Poll::Ready(Ok(head)) = self.session.poll_head(slot, &cx) {
                body.extend_from_slice(&head.status.to_be_bytes());
            }
            self.seen.push(body);
            self.session.close(slot);
        }
        assert_eq!(self.session.live(), 0, "streams that nobody holds");
        for part in self.session.outgoing() {
            self.said.extend_from_slice(&part);
        }
        (self.said, self.seen)
    }
}

fn frames(data: &[u8]) {
    let (option, input) = choice(data);
    let client = option & 1 != 0;
    let mut whole = Side::new(client);
    whole.read(&mut input.to_vec());
    let mut cut = Side::new(client);
    let mut held = Vec::new();
    for piece in input.chunks(1 + usize::from(option >> 4)) {
        held.extend_from_slice(piece);
        if cut.read(&mut held) {
            break;
        }
    }
    assert_eq!(whole.finish(), cut.finish(), "the cut matters");
}
