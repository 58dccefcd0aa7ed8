//! Both sides of a connection against each other, and frames that break rules.

use std::task::{Context, Poll, Waker};

use super::frame::{self, FrameHead, HEAD, PREFACE, flag, kind};
use super::{ConnectionError, Gone, Reason, Role, Session, Settings};
use crate::http::head::Head;
use crate::http::known::Known;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What waits to be sent.
fn flush(session: &mut Session) -> Vec<u8> {
    let bytes: Vec<u8> = session.outgoing().iter().flat_map(|s| s.to_vec()).collect();
    session.wrote(bytes.len());
    bytes
}

/// A frame as kind, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut all = Vec::new();
    while let Some(head) = FrameHead::read(bytes) {
        let payload = bytes[HEAD..HEAD + head.length].to_vec();
        all.push((head.kind, head.flags, head.stream, payload));
        bytes = &bytes[HEAD + head.length..];
    }
    assert!(bytes.is_empty());
    all
}

/// A server that has been greeted.
fn server(settings: Settings) -> Session {
    let mut session = Session::new(Role::Server, settings);
    let mut hello = PREFACE.to_vec();
    frame::write_settings(&mut hello, &[]);
    assert_eq!(session.receive(&hello, 0), Ok(hello.len()));
    let sent = frames(&flush(&mut session));
    assert_eq!((sent[0].0, sent[0].1), (kind::SETTINGS, 0));
    session
}

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

/// `GET http://a/` by the static table, and more.
fn get(stream: u32, end: bool, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 1, b'a'];
    for (name, value) in more {
        super::hpack::write_field(&mut block, name.as_bytes(), value.as_bytes());
    }
    let end = if end { flag::END_STREAM } else { 0 };
    raw(kind::HEADERS, flag::END_HEADERS | end, stream, &block)
}

fn feed(session: &mut Session, bytes: &[u8]) -> Result<Vec<Frame>, ConnectionError> {
    assert_eq!(session.receive(bytes, 0)?, bytes.len());
    Ok(frames(&flush(session)))
}

/// Asserts that the stream was reset, alone.
fn assert_reset(sent: &[Frame], stream: u32, reason: Reason) {
    let want = (kind::RST_STREAM, 0, stream, reason.0.to_be_bytes().to_vec());
    assert_eq!(sent, [want]);
}

#[test]
fn a_request_and_its_answer() {
    let mut client = Session::new(Role::Client, Settings::default());
    let mut server = Session::new(Role::Server, Settings::default());
    let mut request = Head::new();
    request.set_method(b"POST");
    request.set_scheme(b"https");
    request.set_authority(b"a:1");
    request.set_path(b"/x?y");
    request.add(b"te", b"trailers");
    request.add(b"connection", b"close");
    request.add(b"content-length", b"5");
    let ours = client.open(&request, &[], false, 0).unwrap();
    assert!(matches!(
        client.poll_data(ours, b"hello", &cx()),
        Poll::Ready(Ok(5))
    ));
    client.finish(ours, None).unwrap();
    let bytes = flush(&mut client);
    // In pieces of every size the server sees the same.
    let mut held = Vec::new();
    for piece in bytes.chunks(7) {
        held.extend_from_slice(piece);
        let used = server.receive(&held, 0).unwrap();
        held.drain(..used);
    }
    let accepted = server.next_accepted().unwrap();
    assert_eq!(accepted.head.method(), b"POST");
    assert_eq!(accepted.head.path(), b"/x?y");
    assert_eq!(accepted.head.authority(), b"a:1");
    assert_eq!(accepted.head.scheme(), b"https");
    assert!(!accepted.head.has(Known::Connection));
    let mut body = Vec::new();
    while let Poll::Ready(Ok(Some(piece))) = server.poll_piece(accepted.slot, &cx()) {
        server.release(accepted.slot, piece.len());
        body.extend_from_slice(&piece);
    }
    assert_eq!(body, b"hello");
    assert!(!server.is_bare(accepted.slot));
    let mut answer = Head::new();
    answer.add(b"x", b"y");
    server
        .respond(accepted.slot, &Head::new(), 103, false)
        .unwrap();
    server.respond(accepted.slot, &answer, 200, false).unwrap();
    assert!(matches!(
        server.poll_data(accepted.slot, b"ok", &cx()),
        Poll::Ready(Ok(2))
    ));
    let mut trailers = Head::new();
    trailers.add(b"grpc-status", b"0");
    server.finish(accepted.slot, Some(&trailers)).unwrap();
    server.close(accepted.slot);
    assert_eq!(server.live(), 0);
    let bytes = flush(&mut server);
    assert_eq!(client.receive(&bytes, 0), Ok(bytes.len()));
    let Poll::Ready(Ok(head)) = client.poll_head(ours, &cx()) else {
        panic!("no answer");
    };
    assert_eq!((head.status, head.first(b"x")), (200, Some(&b"y"[..])));
    let Poll::Ready(Ok(Some(piece))) = client.poll_piece(ours, &cx()) else {
        panic!("no body");
    };
    assert_eq!(piece, b"ok");
    assert!(matches!(
        client.poll_piece(ours, &cx()),
        Poll::Ready(Ok(None))
    ));
    let mut got = Head::new();
    assert!(client.trailers(ours, &mut got));
    assert_eq!(got.first(b"grpc-status"), Some(&b"0"[..]));
    client.close(ours);
    assert!(
        frames(&flush(&mut client))
            .iter()
            .all(|f| f.0 != kind::RST_STREAM)
    );
}

#[test]
fn the_last_data_carries_the_end() {
    let mut session = server(Settings::default());
    feed(&mut session, &get(1, true, &[])).unwrap();
    let slot = session.next_accepted().unwrap().slot;
    session.respond(slot, &Head::new(), 200, false).unwrap();
    assert!(session.poll_data(slot, b"body", &cx()).is_ready());
    session.finish(slot, None).unwrap();
    let sent = frames(&flush(&mut session));
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1], (kind::DATA, flag::END_STREAM, 1, b"body".to_vec()));
    session.close(slot);
    assert!(flush(&mut session).is_empty());
}

#[test]
fn windows_hold_data_back() {
    let mut session = server(Settings::default());
    let mut small = Vec::new();
    frame::write_settings(&mut small, &[(4, 3)]);
    feed(&mut session, &small).unwrap();
    feed(&mut session, &get(1, true, &[])).unwrap();
    let slot = session.next_accepted().unwrap().slot;
    session.respond(slot, &Head::new(), 200, false).unwrap();
    assert!(matches!(
        session.poll_data(slot, b"hello", &cx()),
        Poll::Ready(Ok(3))
    ));
    assert!(session.poll_data(slot, b"lo", &cx()).is_pending());
    flush(&mut session);
    // Zero, then below it, then open again.
    let mut zero = Vec::new();
    frame::write_settings(&mut zero, &[(4, 0)]);
    feed(&mut session, &zero).unwrap();
    feed(&mut session, &raw(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 3])).unwrap();
    assert!(session.poll_data(slot, b"lo", &cx()).is_pending());
    feed(&mut session, &raw(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).unwrap();
    assert!(matches!(
        session.poll_data(slot, b"lo", &cx()),
        Poll::Ready(Ok(1))
    ));
}

#[test]
fn windows_are_kept_and_given_back() {
    let settings = Settings {
        stream_window: 65_535,
        connection_window: 65_535,
        ..Settings::default()
    };
    let mut session = server(settings.clone());
    feed(&mut session, &get(1, false, &[])).unwrap();
    let slot = session.next_accepted().unwrap().slot;
    let full = raw(kind::DATA, 0, 1, &[b'x'; 16_000]);
    for _ in 0..4 {
        assert!(feed(&mut session, &full).unwrap().is_empty());
    }
    let Poll::Ready(Ok(Some(piece))) = session.poll_piece(slot, &cx()) else {
        panic!("no data");
    };
    session.release(slot, piece.len());
    assert!(flush(&mut session).is_empty());
    let Poll::Ready(Ok(Some(piece))) = session.poll_piece(slot, &cx()) else {
        panic!("no data");
    };
    session.release(slot, piece.len());
    let sent = frames(&flush(&mut session));
    let kinds: Vec<_> = sent.iter().map(|f| (f.0, f.2)).collect();
    assert_eq!(kinds, [(kind::WINDOW_UPDATE, 0), (kind::WINDOW_UPDATE, 1)]);
    // What nobody takes is given back to the connection.
    let mut session = server(settings);
    feed(&mut session, &get(1, false, &[])).unwrap();
    let slot = session.next_accepted().unwrap().slot;
    for _ in 0..3 {
        feed(&mut session, &full).unwrap();
    }
    session.close(slot);
    let sent = frames(&flush(&mut session));
    assert_eq!(
        (sent[0].0, sent[1].0),
        (kind::RST_STREAM, kind::WINDOW_UPDATE)
    );
    // And so is what still comes.
    for _ in 0..20 {
        feed(&mut session, &full).unwrap();
    }
}

#[test]
fn more_than_a_window_is_an_error() {
    let settings = Settings {
        stream_window: 65_535,
        connection_window: 65_535,
        ..Settings::default()
    };
    let mut session = server(settings);
    feed(&mut session, &get(1, false, &[])).unwrap();
    let full = raw(kind::DATA, 0, 1, &[b'x'; 16_000]);
    for _ in 0..4 {
        feed(&mut session, &full).unwrap();
    }
    let error = feed(&mut session, &full).unwrap_err();
    assert_eq!(error.reason, Reason::FLOW_CONTROL_ERROR);
}

#[test]
fn padding_counts_towards_windows_and_is_given_back() {
    let settings = Settings {
        stream_window: 65_535,
        connection_window: 65_535,
        ..Settings::default()
    };
    let mut session = server(settings);
    feed(&mut session, &get(1, false, &[])).unwrap();
    let mut padded = vec![255, b'x'];
    padded.extend_from_slice(&[0; 255]);
    let padded = raw(kind::DATA, flag::PADDED, 1, &padded);
    let updates: usize = (0..1000)
        .map(|_| {
            let sent = feed(&mut session, &padded).unwrap();
            sent.iter().filter(|f| f.0 == kind::WINDOW_UPDATE).count()
        })
        .sum();
    assert!(updates >= 14, "{updates}");
}

#[test]
fn wrong_frames_end_the_connection() {
    let settings = |list: &[(u16, u32)]| {
        let mut out = Vec::new();
        frame::write_settings(&mut out, list);
        out
    };
    let protocol = Reason::PROTOCOL_ERROR;
    let size = Reason::FRAME_SIZE_ERROR;
    let flow = Reason::FLOW_CONTROL_ERROR;
    let closed = Reason::STREAM_CLOSED;
    let block = |flags| raw(kind::HEADERS, flags, 1, &[0x82, 0x86]);
    for (what, bytes, reason) in [
        ("DATA on 0", raw(kind::DATA, 0, 0, b"x"), protocol),
        ("DATA on idle", raw(kind::DATA, 0, 1, b"x"), protocol),
        ("HEADERS on 0", raw(kind::HEADERS, 4, 0, &[0x82]), protocol),
        ("even", get(2, true, &[]), protocol),
        (
            "no index",
            raw(kind::HEADERS, 4, 1, &[0x80]),
            Reason::COMPRESSION_ERROR,
        ),
        (
            "cut field",
            raw(kind::HEADERS, 4, 1, &[0x00, 5]),
            Reason::COMPRESSION_ERROR,
        ),
        ("padding", raw(kind::HEADERS, 0xc, 1, &[5, 0x82]), protocol),
        ("data padding", raw(kind::DATA, 8, 1, &[5, 1]), protocol),
        ("RST on 0", raw(kind::RST_STREAM, 0, 0, &[0; 4]), protocol),
        (
            "RST on idle",
            raw(kind::RST_STREAM, 0, 1, &[0; 4]),
            protocol,
        ),
        ("RST size", raw(kind::RST_STREAM, 0, 1, &[0; 3]), size),
        ("SETTINGS on 1", raw(kind::SETTINGS, 0, 1, &[]), protocol),
        ("SETTINGS size", raw(kind::SETTINGS, 0, 0, &[0; 5]), size),
        ("full ACK", raw(kind::SETTINGS, 1, 0, &[0; 6]), size),
        ("push 2", settings(&[(2, 2)]), protocol),
        ("window", settings(&[(4, 1 << 31)]), flow),
        ("small frames", settings(&[(5, 16_383)]), protocol),
        ("large frames", settings(&[(5, 1 << 24)]), protocol),
        ("connect 2", settings(&[(8, 2)]), protocol),
        (
            "PUSH_PROMISE",
            raw(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82]),
            protocol,
        ),
        ("PING on 1", raw(kind::PING, 0, 1, &[0; 8]), protocol),
        ("PING size", raw(kind::PING, 0, 0, &[0; 7]), size),
        ("GOAWAY on 1", raw(kind::GOAWAY, 0, 1, &[0; 8]), protocol),
        ("GOAWAY size", raw(kind::GOAWAY, 0, 0, &[0; 7]), size),
        (
            "WINDOW_UPDATE size",
            raw(kind::WINDOW_UPDATE, 0, 0, &[0; 3]),
            size,
        ),
        (
            "WINDOW_UPDATE 0",
            raw(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
            protocol,
        ),
        (
            "idle WINDOW_UPDATE",
            raw(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            protocol,
        ),
        (
            "WINDOW_UPDATE most",
            raw(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
            flow,
        ),
        (
            "CONTINUATION",
            raw(kind::CONTINUATION, 4, 1, &[0x82]),
            protocol,
        ),
        (
            "interrupted",
            [block(0), raw(kind::PING, 0, 0, &[0; 8])].concat(),
            protocol,
        ),
        (
            "other stream",
            [block(0), raw(kind::CONTINUATION, 4, 3, &[0x84])].concat(),
            protocol,
        ),
        (
            "lower",
            [get(5, true, &[]), get(3, true, &[])].concat(),
            protocol,
        ),
        (
            "DATA on skipped",
            [get(5, true, &[]), raw(kind::DATA, 0, 3, b"x")].concat(),
            protocol,
        ),
        (
            "PRIORITY on 0",
            raw(kind::PRIORITY, 0, 0, &[0; 5]),
            protocol,
        ),
        ("PRIORITY size", raw(kind::PRIORITY, 0, 1, &[0; 4]), size),
        (
            "DATA after its end",
            [get(1, true, &[]), raw(kind::DATA, 0, 1, b"x")].concat(),
            closed,
        ),
        (
            "HEADERS after RST",
            [
                get(1, false, &[]),
                raw(kind::RST_STREAM, 0, 1, &[0; 4]),
                get(1, true, &[]),
            ]
            .concat(),
            closed,
        ),
        (
            "DATA after RST",
            [
                get(1, false, &[]),
                raw(kind::RST_STREAM, 0, 1, &[0; 4]),
                raw(kind::DATA, 0, 1, b""),
            ]
            .concat(),
            closed,
        ),
    ] {
        let mut session = server(Settings::default());
        let error = session.receive(&bytes, 0).expect_err(what);
        assert_eq!(error.reason, reason, "{what}: {error}");
        session.fail(error);
        let sent = frames(&flush(&mut session));
        let (kind, _, stream, payload) = sent.last().unwrap();
        assert_eq!((*kind, *stream), (kind::GOAWAY, 0), "{what}");
        assert_eq!(payload[4..], reason.0.to_be_bytes(), "{what}");
    }
    let mut session = server(Settings::default());
    let large = FrameHead::new(16_385, kind::DATA, 0, 1).bytes();
    assert_eq!(session.receive(&large, 0).unwrap_err().reason, size);
    let mut session = Session::new(Role::Server, Settings::default());
    assert!(session.receive(b"GET / HTTP/1.1\r\n", 0).is_err());
    let mut session = Session::new(Role::Server, Settings::default());
    let first = [PREFACE, &raw(kind::PING, 0, 0, &[0; 8])].concat();
    assert_eq!(session.receive(&first, 0).unwrap_err().reason, protocol);
}

#[test]
fn wrong_messages_reset_their_stream() {
    let protocol = Reason::PROTOCOL_ERROR;
    let data = |length, end| raw(kind::DATA, u8::from(end), 1, &vec![b'x'; length]);
    let length = [("content-length", "5")];
    for (what, bytes, reason) in [
        ("malformed", get(1, true, &[("Upper", "x")]), protocol),
        ("no body", get(1, true, &length), protocol),
        (
            "short",
            [get(1, false, &length), data(4, true)].concat(),
            protocol,
        ),
        (
            "long",
            [get(1, false, &length), data(6, false)].concat(),
            protocol,
        ),
        (
            "ended twice",
            [get(1, true, &[]), get(1, true, &[])].concat(),
            Reason::STREAM_CLOSED,
        ),
        (
            "trailers go on",
            [get(1, false, &[]), get(1, false, &[])].concat(),
            protocol,
        ),
        (
            "pseudo trailers",
            [get(1, false, &[]), get(1, true, &[])].concat(),
            protocol,
        ),
        (
            "short with trailers",
            [get(1, false, &length), raw(kind::HEADERS, 5, 1, &[])].concat(),
            protocol,
        ),
        (
            "large",
            get(1, true, &[("x", &*"y".repeat(9000)); 7]),
            Reason::INTERNAL_ERROR,
        ),
        (
            "many",
            get(1, true, &[("x", "y"); 97]),
            Reason::INTERNAL_ERROR,
        ),
        (
            "no window",
            [get(1, false, &[]), raw(kind::WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            protocol,
        ),
        (
            "large window",
            [
                get(1, false, &[]),
                raw(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]),
            ]
            .concat(),
            Reason::FLOW_CONTROL_ERROR,
        ),
        (
            "depends on itself",
            raw(
                kind::HEADERS,
                0x25,
                1,
                &[0, 0, 0, 1, 5, 0x82, 0x86, 0x84, 1, 1, b'a'],
            ),
            protocol,
        ),
    ] {
        let mut session = server(Settings::default());
        // A block that is too large for a frame goes in several.
        let bytes = match what {
            "large" => split(&bytes),
            _ => bytes,
        };
        let sent = feed(&mut session, &bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_reset(&sent, 1, reason);
        let next = feed(&mut session, &get(3, true, &[])).unwrap();
        assert!(next.is_empty(), "{what}");
        let served = std::iter::from_fn(|| session.next_accepted());
        assert_eq!(served.last().unwrap().head.path(), b"/", "{what}");
    }
}

/// A HEADERS frame in pieces of 1000 bytes.
fn split(bytes: &[u8]) -> Vec<u8> {
    let head = FrameHead::read(bytes).unwrap();
    let pieces: Vec<_> = bytes[HEAD..].chunks(1000).collect();
    let mut out = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let (kind, mut flags) = match at {
            0 => (kind::HEADERS, head.flags & flag::END_STREAM),
            _ => (kind::CONTINUATION, 0),
        };
        if at + 1 == pieces.len() {
            flags |= flag::END_HEADERS;
        }
        frame::write(&mut out, kind, flags, head.stream, piece);
    }
    out
}

#[test]
fn a_block_in_pieces_is_one() {
    let whole = get(1, true, &[("x-name", "value"), ("cookie", "a")]);
    let head = FrameHead::read(&whole).unwrap();
    for size in 1..head.length {
        let mut bytes = Vec::new();
        let pieces: Vec<_> = whole[HEAD..].chunks(size).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let (kind, mut flags) = match at {
                0 => (kind::HEADERS, flag::END_STREAM),
                _ => (kind::CONTINUATION, 0),
            };
            if at + 1 == pieces.len() {
                flags |= flag::END_HEADERS;
            }
            frame::write(&mut bytes, kind, flags, 1, piece);
        }
        let mut session = server(Settings::default());
        feed(&mut session, &bytes).unwrap();
        let accepted = session.next_accepted().unwrap();
        assert_eq!(accepted.head.first(b"x-name"), Some(&b"value"[..]));
        assert_eq!(accepted.head.first(b"cookie"), Some(&b"a"[..]));
    }
}

#[test]
fn a_block_without_end_is_cut_off() {
    let mut session = server(Settings::default());
    session
        .receive(&raw(kind::HEADERS, 0, 1, &[0x82, 0x86, 0x84]), 0)
        .unwrap();
    // One reset, then patience, then none.
    let line = raw(kind::CONTINUATION, 0, 1, &[0x85; 1000]);
    let mut resets = 0;
    let error = loop {
        match session.receive(&line, 0) {
            Ok(_) => {
                let sent = frames(&flush(&mut session));
                resets += sent.iter().filter(|f| f.0 == kind::RST_STREAM).count();
            }
            Err(error) => break error,
        }
    };
    assert_eq!((resets, error.reason), (1, Reason::ENHANCE_YOUR_CALM));
    // A single field that does not end.
    let mut session = server(Settings::default());
    let begin = [0x00, 1, b'x', 0x7f, 0x80, 0xff, 0xff, 0x7f];
    session
        .receive(&raw(kind::HEADERS, 0, 1, &begin), 0)
        .unwrap();
    let more = raw(kind::CONTINUATION, 0, 1, &[b'x'; 10_000]);
    let error = (0..100)
        .find_map(|_| session.receive(&more, 0).err())
        .unwrap();
    assert_eq!(error.reason, Reason::ENHANCE_YOUR_CALM);
}

#[test]
fn streams_over_the_limit_are_refused() {
    let settings = Settings {
        max_streams: 2,
        ..Settings::default()
    };
    let mut session = server(settings);
    feed(
        &mut session,
        &[get(1, true, &[]), get(3, true, &[])].concat(),
    )
    .unwrap();
    assert_reset(
        &feed(&mut session, &get(5, true, &[])).unwrap(),
        5,
        Reason::REFUSED_STREAM,
    );
    let first = session.next_accepted().unwrap().slot;
    session.respond(first, &Head::new(), 200, true).unwrap();
    flush(&mut session);
    assert!(feed(&mut session, &get(7, true, &[])).unwrap().is_empty());
}

#[test]
fn floods_end_the_connection() {
    let calm = |mut unit: Box<dyn FnMut(u32) -> Vec<u8>>, begin: &[u8], read: bool| {
        let mut session = server(Settings::default());
        session.receive(begin, 0).unwrap();
        for n in 0..20_000 {
            if let Err(error) = session.receive(&unit(n), 0) {
                assert_eq!(error.reason, Reason::ENHANCE_YOUR_CALM);
                return n;
            }
            if read {
                flush(&mut session);
            }
            while let Some(accepted) = session.next_accepted() {
                session.close(accepted.slot);
            }
        }
        panic!("no end");
    };
    let post = get(1, false, &[]);
    let empty = calm(Box::new(|_| raw(kind::DATA, 0, 1, &[])), &post, true);
    assert_eq!(empty, 1);
    let ping = calm(Box::new(|_| raw(kind::PING, 0, 0, &[0; 8])), &[], false);
    assert!((900..=1000).contains(&ping), "{ping}");
    let settings = calm(Box::new(|_| raw(kind::SETTINGS, 0, 0, &[])), &[], false);
    assert!((900..=1000).contains(&settings), "{settings}");
    let priority = calm(
        Box::new(|_| raw(kind::PRIORITY, 0, 3, &[0; 5])),
        &post,
        true,
    );
    assert_eq!(priority, 200);
    let update = raw(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    assert_eq!(calm(Box::new(move |_| update.clone()), &post, true), 7);
    let reset = |n: u32| {
        let id = 2 * n + 1;
        [
            get(id, true, &[]),
            raw(kind::RST_STREAM, 0, id, &[0, 0, 0, 8]),
        ]
        .concat()
    };
    assert_eq!(calm(Box::new(reset), &[], true), 249);
}

#[test]
fn an_answered_stream_may_be_reset_at_will() {
    let mut session = server(Settings::default());
    for n in 0..2000 {
        let id = 2 * n + 1;
        feed(&mut session, &get(id, false, &[])).unwrap();
        let slot = session.next_accepted().unwrap().slot;
        session.respond(slot, &Head::new(), 200, false).unwrap();
        feed(&mut session, &raw(kind::RST_STREAM, 0, id, &[0, 0, 0, 8])).unwrap();
        let Poll::Ready(gone) = session.poll_gone(slot, &cx()) else {
            panic!("not gone");
        };
        assert_eq!(gone, Gone::Remote(Reason::CANCEL));
        session.close(slot);
    }
    assert_eq!(session.live(), 0);
}

#[test]
fn leaving_in_two_steps() {
    let mut session = server(Settings::default());
    feed(&mut session, &get(1, true, &[])).unwrap();
    session.leave();
    let sent = frames(&flush(&mut session));
    assert_eq!(sent[0].3, [0x7f, 255, 255, 255, 0, 0, 0, 0]);
    feed(&mut session, &get(3, true, &[])).unwrap();
    session.leave_now();
    let sent = frames(&flush(&mut session));
    assert_eq!(sent[0].3, [0, 0, 0, 3, 0, 0, 0, 0]);
    assert!(feed(&mut session, &get(5, true, &[])).unwrap().is_empty());
    assert!(
        feed(&mut session, &raw(kind::DATA, 0, 5, b"x"))
            .unwrap()
            .is_empty()
    );
    assert_eq!(std::iter::from_fn(|| session.next_accepted()).count(), 2);
}

#[test]
fn a_client_meets_wrong_answers() {
    let ask = || {
        let mut client = Session::new(Role::Client, Settings::default());
        let mut hello = Vec::new();
        frame::write_settings(&mut hello, &[]);
        client.receive(&hello, 0).unwrap();
        let mut head = Head::new();
        head.set_method(b"GET");
        head.set_authority(b"a");
        head.set_path(b"/");
        let slot = client.open(&head, &[], true, 0).unwrap();
        flush(&mut client);
        (client, slot)
    };
    let answer = |flags, block: &[u8]| raw(kind::HEADERS, flags, 1, block);
    for (what, bytes) in [
        ("no status", answer(5, &[0x84])),
        ("data first", raw(kind::DATA, 0, 1, b"x")),
        ("informational end", answer(5, &[0x08, 3, b'1', b'0', b'0'])),
        ("upgrade", answer(4, &[0x08, 3, b'1', b'0', b'1'])),
        ("length", answer(5, &[0x88, 0x0f, 0x0d, 1, b'5'])),
    ] {
        let (mut client, slot) = ask();
        assert_reset(
            &feed(&mut client, &bytes).unwrap(),
            1,
            Reason::PROTOCOL_ERROR,
        );
        let head = client.poll_head(slot, &cx());
        let gone = matches!(head, Poll::Ready(Err(Gone::Local(Reason::PROTOCOL_ERROR))));
        assert!(gone, "{what}: {head:?}");
    }
    let (mut client, _) = ask();
    assert!(client.receive(&get(2, true, &[]), 0).is_err());
    let (mut client, slot) = ask();
    let away = raw(kind::GOAWAY, 0, 0, &[0; 8]);
    client.receive(&away, 0).unwrap();
    let refused = Gone::Remote(Reason::REFUSED_STREAM);
    let head = client.poll_head(slot, &cx());
    assert!(matches!(head, Poll::Ready(Err(gone)) if gone == refused));
    assert!(!client.can_open());
}

proptest::proptest! {
    /// Any bytes after the preface, cut anywhere: nothing panics, and both ways of
    /// reading them come to the same.
    #[test]
    fn any_frames_in_any_cut(
        parts in proptest::collection::vec(
            (0_u8..12, proptest::num::u8::ANY, 0_u32..7,
             proptest::collection::vec(proptest::num::u8::ANY, 0..40)), 0..12),
        step in 1_usize..50,
    ) {
        let bytes: Vec<u8> = parts.iter().flat_map(|(k, f, s, p)| raw(*k, *f, *s, p)).collect();
        let mut whole = server(Settings::default());
        let outcome = whole.receive(&bytes, 0);
        let mut cut = server(Settings::default());
        let (mut held, mut other) = (Vec::new(), Ok(0));
        for piece in bytes.chunks(step) {
            held.extend_from_slice(piece);
            other = cut.receive(&held, 0);
            match other {
                Ok(used) => drop(held.drain(..used)),
                Err(_) => break,
            }
        }
        proptest::prop_assert_eq!(outcome.err(), other.err());
        proptest::prop_assert_eq!(flush(&mut whole), flush(&mut cut));
        let served = |s: &mut Session| std::iter::from_fn(|| s.next_accepted()).count();
        proptest::prop_assert_eq!(served(&mut whole), served(&mut cut));
    }
}
