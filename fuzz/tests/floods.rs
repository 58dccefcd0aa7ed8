//! Clients of the proxy that never stop: four times as much of the same must not need more memory.
//! One test, so that nothing else moves the process's peak.

use lateen_fuzz::targets::connection::{Manner, PREFACE, frame, request, talk};

/// What a long connection may need beyond what a short one left to the allocator, in KiB: the tasks
/// of all the streams that may be open, when each waits for a client that does not read.
const SLACK: u64 = 8 * 1024;
/// Units that are sent at once. The short connections go beyond the 1024 streams that may be open.
const AT_ONCE: u32 = 50;

type Unit = fn(u32) -> Vec<u8>;

/// Name, how it begins, what follows for ever.
const HTTP2: &[(&str, Unit, Unit)] = &[
    ("pings", nothing, |_| frame(6, 0, 0, b"pingpong")),
    ("settings", nothing, |_| {
        frame(4, 0, 0, &[0, 4, 0, 0, 255, 255])
    }),
    ("priorities", nothing, |n| {
        frame(2, 0, 2 * n + 1, &[0, 0, 0, 0, 16])
    }),
    ("window updates", nothing, |_| frame(8, 0, 0, &[0, 0, 0, 0])),
    ("unknown frames", nothing, |_| frame(0x2a, 0, 0, &[0; 500])),
    ("empty data", post, |_| frame(0, 0, 1, b"")),
    ("data of an answered stream", early, |_| {
        frame(0, 0, 1, &[b'x'; 1000])
    }),
    ("continuations", begun, |_| frame(9, 0, 1, &[b'x'; 500])),
    ("trailers", post, |_| {
        frame(1, 4, 1, &request("GET", "/", &[]))
    }),
    ("requests", nothing, |n| {
        frame(1, 5, 2 * n + 1, &request("GET", "/direct", &[]))
    }),
    ("large answers", nothing, |n| {
        frame(1, 5, 2 * n + 1, &request("GET", "/large", &[]))
    }),
    ("resets", nothing, |n| {
        let ask = frame(1, 5, 2 * n + 1, &request("GET", "/", &[]));
        [ask, frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
    }),
    ("malformed requests", nothing, |n| {
        frame(1, 5, 2 * n + 1, &request("GET", "/", &[("Upper", "x")]))
    }),
];

const HTTP1: &[(&str, Unit, Unit)] = &[
    ("pipelined requests", nothing, |_| {
        b"GET /direct HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()
    }),
    ("pipelined large answers", nothing, |_| {
        b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()
    }),
    (
        "header lines",
        |_| b"GET / HTTP/1.1\r\n".to_vec(),
        |n| format!("x-{n}: {n}\r\n").into_bytes(),
    ),
    (
        "one header line",
        |_| b"GET / HTTP/1.1\r\nx: ".to_vec(),
        |_| vec![b'x'; 500],
    ),
    ("empty lines", nothing, |_| b"\r\n".repeat(200)),
    ("chunks", chunked, |_| b"1\r\nx\r\n".to_vec()),
    ("a chunk's extension", chunked, |n| {
        let begin: &[u8] = if n == 0 { b"1;a=" } else { b"" };
        [begin, &[b'x'; 500]].concat()
    }),
    ("trailer lines", chunked, |n| {
        let begin: &[u8] = if n == 0 { b"0\r\n" } else { b"" };
        [begin, b"x-t: value of a trailer\r\n"].concat()
    }),
    (
        "bytes of a tunnel",
        |_| {
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                .to_vec()
        },
        |_| vec![b'x'; 500],
    ),
];

fn nothing(_: u32) -> Vec<u8> {
    Vec::new()
}

fn post(_: u32) -> Vec<u8> {
    frame(1, 4, 1, &request("POST", "/", &[]))
}

fn early(_: u32) -> Vec<u8> {
    frame(1, 4, 1, &request("POST", "/direct", &[]))
}

fn begun(_: u32) -> Vec<u8> {
    frame(1, 0, 1, &request("GET", "/", &[]))
}

fn chunked(_: u32) -> Vec<u8> {
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
}

/// The process's largest resident size since the last reset, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a number")
}

/// The peak of one connection that says so many pieces.
fn flood(begin: &[u8], unit: Unit, (pieces, at_once): (u32, u32), manner: Manner) -> u64 {
    let all = (0..pieces).map(|piece| {
        let units = piece * at_once..(piece + 1) * at_once;
        units.flat_map(unit).collect::<Vec<u8>>()
    });
    let all: Vec<Vec<u8>> = std::iter::once(begin.to_vec()).chain(all).collect();
    // Proc(5): 5 resets the peak to what is resident now.
    std::fs::write("/proc/self/clear_refs", "5").expect("a process of our own");
    let before = peak();
    let _ = talk(&mut all.iter().map(Vec::as_slice), b"", manner);
    peak().saturating_sub(before)
}

#[test]
fn no_client_makes_the_proxy_grow_without_end() {
    for (http2, list) in [(true, HTTP2), (false, HTTP1)] {
        for (name, begin, unit) in list {
            for deaf in [false, true] {
                let manner = Manner {
                    http2,
                    deaf,
                    forgetful: true,
                    ..Manner::default()
                };
                let mut start = begin(0);
                if http2 {
                    start.splice(0..0, [PREFACE, &frame(4, 0, 0, &[])].concat());
                }
                // Answers of 40 kB take their time, where they are read.
                let at_once = if name.contains("pipelined large") {
                    5
                } else {
                    AT_ONCE
                };
                let short = flood(&start, *unit, (24, at_once), manner);
                let long = flood(&start, *unit, (96, at_once), manner);
                println!("{name}, deaf {deaf}: {short} KiB, {long} KiB");
                assert!(
                    long <= SLACK,
                    "{name}, deaf {deaf}: {short} KiB, then {long} KiB"
                );
            }
        }
    }
}
