//! The embedded cluster's streams and packets: SPDY, channels, DNS, schedules, references.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use hickory_proto::op::{Message, MessageType};
use lateen_cluster::controllers::scheduler::quantity;
use lateen_cluster::fuzz::{Input, Schedule, channel_message, parse_resize};
use lateen_cluster::network::dns::forward::Forwarder;
use lateen_cluster::network::dns::server::Resolver;
use lateen_cluster::network::view::{EndpointView, Protocol, ServicePort, ServiceView, View};
use lateen_cluster::node::{env, image};
use lateen_cluster::stream::spdy::block::{BlockReader, BlockWriter};
use lateen_cluster::stream::spdy::frame::{Decoder, Encoder, Frame};

use crate::Target;
use crate::bytes::{arrivals, choice, seeds, text};

/// SPDY/3.1 frames of an exec or port-forward.
pub const SPDY: Target = Target {
    name: "spdy",
    run: spdy,
    seeds: spdy_seeds,
    words: &[
        "\u{80}\x03\0\x01",
        "\0\0\0\x01\x01\0\0\x04",
        "\0\0\0\x01\0\0\0\0",
        "\0\x06\0\0\0\x04",
        "\0\x07\0\0\0\x08",
        "\0\x03\0\0\0\x08",
        "\0\x08\0\0\0\x04",
    ],
    rounds: 1500,
};

/// Messages of the WebSocket channels of exec and attach.
pub const CHANNEL: Target = Target {
    name: "channel",
    run: channel,
    seeds: || {
        vec![
            b"\x02\0hello".to_vec(),
            b"\x02\x04{\"Width\":80,\"Height\":24}".to_vec(),
            b"\x02\xff\0".to_vec(),
            b"\0\x04{\"width\":80}".to_vec(),
        ]
    },
    words: &[
        "{\"Width\":",
        "\"Height\":",
        "65536",
        "-1",
        "}",
        "\u{4}",
        "\0",
        ",",
        "null",
        "1.5",
    ],
    rounds: 3000,
};

/// DNS questions, over UDP and TCP.
pub const DNS: Target = Target {
    name: "dns",
    run: dns,
    seeds: dns_seeds,
    words: &[
        "\x03svc\x07cluster\x05local\0",
        "\x07default",
        "\x07reviews",
        "\0\x01\0\x01",
        "\0\x21\0\x01",
        "\0\x0c\0\x01",
        "\u{c}",
        "\x07in-addr\x04arpa\0",
        "\0\0\x29\x10\0",
    ],
    rounds: 3000,
};

/// Cron schedules, quantities, image references and `$(VAR)` in commands.
pub const WORDS_OF_PODS: Target = Target {
    name: "pod_words",
    run: words,
    seeds: || {
        seeds(&[
            "\0*/5 0-6,8 1,15 jan-mar MON",
            "\0@daily",
            "\x000 0 29 2 *",
            "\x0059 23 31 12 7",
            "\x01100m",
            "\x01-1.5e3",
            "\x01128Mi",
            "\x011e400",
            "\x01.5",
            "\x02docker.io/a/b:1@sha256:00",
            "\x02localhost:5000/a",
            "\x02a",
            "\x03$(A) $$(B) $(C $( $",
            "\x03$$$$(A)",
        ])
    },
    words: &[
        "*",
        "/",
        "-",
        ",",
        "@hourly",
        "0",
        "60",
        "sun",
        "7",
        "e",
        "E",
        "Ki",
        "m",
        ".",
        "+",
        ":",
        "@",
        "$(",
        "$$",
        ")",
        "$(A)",
        "localhost/",
    ],
    rounds: 3000,
};

fn spdy_seeds() -> Vec<Vec<u8>> {
    let mut blocks = BlockWriter::default();
    let mut all = Vec::new();
    for (id, kind) in [(1_u32, "error"), (3, "stdin"), (5, "stdout")] {
        let block: Vec<u8> = blocks
            .write(&[("streamtype", kind), ("port", "80")])
            .expect("a block");
        all.extend([0x80, 3, 0, 1, 0]);
        let length = 10 + u32::try_from(block.len()).expect("a short block");
        all.extend(&length.to_be_bytes()[1..]);
        all.extend(id.to_be_bytes());
        all.extend([0; 6]);
        all.extend(block);
    }
    let mut out = BytesMut::new();
    let encoder = Encoder::default();
    encoder.data(3, b"hello", true, &mut out);
    encoder.ping(1, &mut out);
    encoder.reset(5, 5, &mut out);
    encoder.window_update(3, 100, &mut out);
    encoder.go_away(3, 0, &mut out);
    all.extend_from_slice(&out);
    vec![all, out.to_vec(), vec![0x80, 2, 0, 1, 0, 0, 0, 0]]
}

fn frames(data: &[u8], ends: &[usize]) -> (Vec<Frame>, bool) {
    let (mut decoder, mut buffer, mut all, mut at) =
        (Decoder::default(), BytesMut::new(), Vec::new(), 0);
    for end in ends {
        buffer.extend_from_slice(&data[at..*end]);
        at = *end;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => all.push(frame),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

fn spdy(data: &[u8]) {
    let mut ends = arrivals(data);
    ends.iter_mut()
        .for_each(|end| *end = (*end).min(data.len()));
    let whole = frames(data, &[data.len()]);
    assert_eq!(frames(data, &ends), whole, "the cut changes the frames");
    let (mut out, encoder) = (BytesMut::new(), Encoder::default());
    for frame in whole.0 {
        match frame {
            Frame::SynStream { headers, .. } => {
                let pairs: Vec<(&str, &str)> = headers
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_str()))
                    .collect();
                let block = BlockWriter::default().write(&pairs).expect("a block");
                assert_eq!(BlockReader::default().read(&block).as_ref(), Ok(&headers));
            }
            Frame::Data { id, fin, data } => {
                out.clear();
                encoder.data(id, &data, fin, &mut out);
                let again = frames(&out, &[out.len()]);
                assert_eq!(again, (vec![Frame::Data { id, fin, data }], false));
            }
            _ => {}
        }
    }
}

fn channel(data: &[u8]) {
    let (version, message) = choice(data);
    match channel_message(message, version % 3) {
        Some(Input::Stdin(bytes)) => assert_eq!(bytes, &message[1..]),
        Some(Input::Resize(columns, rows)) => {
            let again = format!("{{\"Width\":{columns},\"Height\":{rows}}}");
            assert_eq!(parse_resize(again.as_bytes()), Some((columns, rows)));
        }
        Some(Input::StdinEnd) => assert_eq!(version % 3, 2),
        None => {}
    }
}

fn view() -> View {
    let key = |name: &str| ("default".to_owned(), name.to_owned());
    let port = ServicePort {
        name: "http".to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    };
    let endpoint = |last: u8| EndpointView {
        address: Ipv4Addr::new(10, 244, 0, last),
        ports: vec![("http".to_owned(), Protocol::Tcp, 8080)],
        ready: last.is_multiple_of(2),
        serving: true,
        terminating: false,
        node: None,
        hostname: (last == 2).then(|| "web-0".to_owned()),
    };
    let mut services = BTreeMap::new();
    let plain = ServiceView {
        cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 5)],
        ports: vec![port.clone()],
        ..ServiceView::default()
    };
    services.insert(key("reviews"), plain);
    let headless = ServiceView {
        headless: true,
        ports: vec![port],
        publish_not_ready: true,
        ..ServiceView::default()
    };
    services.insert(key("web"), headless);
    for (name, target) in [
        ("out", "example.com"),
        ("loop", "loop.default.svc.cluster.local"),
        ("bad", ".."),
    ] {
        let alias = ServiceView {
            external_name: Some(target.to_owned()),
            ..ServiceView::default()
        };
        services.insert(key(name), alias);
    }
    // More than fits in a packet.
    let many = (0..200).map(endpoint).collect();
    let slices = BTreeMap::from([(key("web-a"), (key("web"), many))]);
    View { services, slices }
}

fn question(name: &str, kind: u8, flags: u8) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.extend([0, 0, kind, 0, 1]);
    out
}

fn dns_seeds() -> Vec<Vec<u8>> {
    let mut list: Vec<Vec<u8>> = [
        ("reviews.default.svc.cluster.local", 1),
        ("web.default.svc.cluster.local", 1),
        ("_http._tcp.web.default.svc.cluster.local", 33),
        ("web-0.web.default.svc.cluster.local", 1),
        ("10-244-0-2.default.pod.cluster.local", 1),
        ("5.0.96.10.in-addr.arpa", 12),
        ("out.default.svc.cluster.local", 28),
        ("loop.default.svc.cluster.local", 1),
        ("bad.default.svc.cluster.local", 1),
        ("nope.cluster.local", 255),
        ("example.com", 1),
    ]
    .into_iter()
    .map(|(name, kind)| [&[0][..], &question(name, kind, 1)].concat())
    .collect();
    let mut extended = question("web.default.svc.cluster.local", 1, 1);
    extended[11] = 1;
    extended.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    list.push([&[0][..], &extended].concat());
    list.push(
        [
            &[1][..],
            &question("web.default.svc.cluster.local", 1, 0x80),
        ]
        .concat(),
    );
    list
}

fn dns(data: &[u8]) {
    let (option, packet) = choice(data);
    let tcp = option & 1 != 0;
    thread_local! {
        static RESOLVER: Resolver = Resolver::new(
            Arc::new(arc_swap::ArcSwap::from_pointee(view())),
            "cluster.local".to_owned(),
            "10.244.0.0/16".parse().expect("a range"),
            "10.96.0.0/16".parse().expect("a range"),
            Forwarder::new(Vec::new()),
        );
    }
    let answer = RESOLVER.with(|resolver| {
        let mut work = std::pin::pin!(resolver.respond(packet, tcp));
        // Nobody else is asked, so nothing is waited for.
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("waits without a resolver to wait for"),
        }
    });
    let Some(answer) = answer else {
        return;
    };
    assert_eq!(answer.get(..2), packet.get(..2), "another id");
    let read = Message::from_vec(&answer).expect("our answer is a message");
    assert_eq!(read.metadata.message_type, MessageType::Response);
    if !tcp {
        let asked = Message::from_vec(packet).map_or(512, |query| query.max_payload().max(512));
        assert!(
            answer.len() <= usize::from(asked),
            "{} bytes for {asked}",
            answer.len()
        );
    }
}

fn words(data: &[u8]) {
    let (option, rest) = choice(data);
    let Some(text) = text(rest) else {
        return;
    };
    match option & 3 {
        0 => {
            if let Ok(schedule) = Schedule::parse(text) {
                assert_eq!(Schedule::parse(&format!(" {text} ")), Ok(schedule));
            }
        }
        1 => {
            if let Some(number) = quantity::parse(&text.into()) {
                assert!(number.is_finite());
            }
        }
        2 => {
            let full = image::normalized(text);
            assert!(
                full.ends_with(text) || full.ends_with(&format!("{text}:latest")),
                "{full}"
            );
            assert_eq!(image::normalized(&full), full, "normalised twice");
        }
        _ => {
            let known = BTreeMap::from([("A".to_owned(), "$(A)$".to_owned())]);
            let expanded = env::expand(text, &known);
            if !text.contains('$') {
                assert_eq!(expanded, text);
            }
            // Each name of four bytes is at most five.
            assert!(expanded.len() <= text.len() * 2);
        }
    }
}
