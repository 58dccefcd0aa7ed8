//! Whole exec and port-forward sessions of a cluster: an upgrade request as kubectl sends it, then
//! any bytes over WebSocket or SPDY. The program and the pod's port are echoes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lateen_cluster::node::runtime::{
    AttachRequest, Duplex, ExecRequest, ExitStatus, LogOptions, LogStream, NodeRuntime, PodRef,
    RuntimeError, Session,
};
use lateen_cluster::stream::spdy::block::BlockWriter;
use lateen_cluster::stream::spdy::frame::{Decoder, Encoder};
use lateen_cluster::stream::{Subresource, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};

use crate::Target;
use crate::bytes::choice;
use crate::runtime::{pieces, run_paused, settle};

const SOCKET_WORDS: &[&str] = &[
    "\u{2}\0\0\0\0\0hi",
    "\0{\"Width\":80,\"Height\":24}",
    "\u{4}{\"Width\":",
    "\0\0\0\0\0\0",
    "hello",
];
const SPDY_WORDS: &[&str] = &[
    "\0\0\0\x03\0\0\0\x05hello",
    "\0\0\0\x03\x01\0\0\0",
    "\0\x06\0\0\0\x04\0\0\0\x01",
    "\0\x03\0\0\0\x08\0\0\0\x03\0\0\0\x05",
    "\0\x07\0\0\0\x08",
];

/// Exec over WebSocket, protocols 5, 4 and the oldest.
pub const EXEC_SOCKET: Target = Target {
    name: "exec_websocket",
    run: |data| run(data, Kind::ExecSocket),
    seeds: || socket_seeds(&[b"\0hello", b"\x04{\"Width\":80,\"Height\":24}", b"\xff\0"]),
    words: SOCKET_WORDS,
    rounds: 400,
};

/// Exec over SPDY.
pub const EXEC_SPDY: Target = Target {
    name: "exec_spdy",
    run: |data| run(data, Kind::ExecSpdy),
    seeds: || {
        let streams = ["error", "stdin", "stdout", "stderr", "resize"].map(|s| ("streamtype", s));
        let streams: Vec<_> = streams.iter().map(|pair| vec![*pair]).collect();
        let all = spdy(
            &streams,
            &[(3, b"hello"), (9, b"{\"Width\":1,\"Height\":2}\n")],
        );
        (0..4)
            .map(|option| [&[option], &all[..]].concat())
            .collect()
    },
    words: SPDY_WORDS,
    rounds: 400,
};

/// Port-forward over WebSocket: channels, or SPDY in a tunnel.
pub const FORWARD_SOCKET: Target = Target {
    name: "forward_websocket",
    run: |data| run(data, Kind::ForwardSocket),
    seeds: || {
        let mut list = socket_seeds(&[b"\0hello", b"\x02other", b"\x03error"]);
        let streams = forwarded();
        let tunnelled: Vec<&[u8]> = streams.chunks(100).collect();
        let last = socket_seeds(&tunnelled).pop().unwrap_or_default();
        list.push(last);
        list
    },
    words: SOCKET_WORDS,
    rounds: 400,
};

/// Port-forward over SPDY.
pub const FORWARD_SPDY: Target = Target {
    name: "forward_spdy",
    run: |data| run(data, Kind::ForwardSpdy),
    seeds: || {
        vec![
            [&[0], &forwarded()[..]].concat(),
            [&[8], &forwarded()[..]].concat(),
        ]
    },
    words: SPDY_WORDS,
    rounds: 400,
};

/// Binary messages of a client, masked with nothing, a few options before them.
fn socket_seeds(messages: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (opcode, message) in messages.iter().map(|m| (0x82, *m)).chain([
        (0x89, &b"ping"[..]),
        (0x81, b"\0text"),
        (0x02, b"\0first"),
        (0x80, b" last"),
        (0x88, b"\x03\xe8"),
    ]) {
        all.push(opcode);
        // The longest of them has 100 bytes.
        all.push(0x80 | u8::try_from(message.len()).unwrap_or(125));
        all.extend([0; 4]);
        all.extend_from_slice(message);
    }
    (0..4)
        .map(|option| [&[option], &all[..]].concat())
        .collect()
}

/// Streams with these headers, then data.
fn spdy(streams: &[Vec<(&str, &str)>], data: &[(u32, &[u8])]) -> Vec<u8> {
    let mut blocks = BlockWriter::default();
    let mut all = Vec::new();
    for (at, headers) in streams.iter().enumerate() {
        let block: Vec<u8> = blocks.write(headers).expect("a block");
        all.extend([0x80, 3, 0, 1, 0]);
        let length = 10 + u32::try_from(block.len()).expect("a short block");
        all.extend(&length.to_be_bytes()[1..]);
        all.extend((2 * at as u32 + 1).to_be_bytes());
        all.extend([0; 6]);
        all.extend(block);
    }
    let (mut out, encoder) = (BytesMut::new(), Encoder::default());
    for (id, bytes) in data {
        encoder.data(*id, bytes, false, &mut out);
    }
    encoder.ping(1, &mut out);
    for (id, _) in data {
        encoder.data(*id, b"", true, &mut out);
    }
    encoder.go_away(3, 0, &mut out);
    all.extend_from_slice(&out);
    all
}

fn forwarded() -> Vec<u8> {
    let stream = |kind, port, id| vec![("streamtype", kind), ("port", port), ("requestid", id)];
    let streams = [
        stream("error", "81", "0"),
        stream("data", "81", "0"),
        stream("data", "82", "1"),
        stream("error", "82", "1"),
        stream("error", "x", "2"),
    ];
    spdy(&streams, &[(3, b"hello"), (5, b"refused")])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ExecSocket,
    ExecSpdy,
    ForwardSocket,
    ForwardSpdy,
}

/// The upgrade request. Options: 3 = which protocol, 4 = with a terminal, 8 = in pieces.
fn head(kind: Kind, option: u8) -> String {
    let socket = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: ";
    let spdy = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ";
    let which = usize::from(option & 3);
    let commands = [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "channel.k8s.io",
        "v4.channel.k8s.io",
    ];
    let forwards = [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.channel.k8s.io",
        "SPDY/3.1+portforward.k8s.io",
    ];
    let query = match kind {
        Kind::ExecSocket | Kind::ExecSpdy if option & 4 != 0 => "command=x&stdin=1&stdout=1&tty=1",
        Kind::ExecSocket | Kind::ExecSpdy => "command=x&stdin=1&stdout=1&stderr=1",
        Kind::ForwardSocket => "ports=81,82",
        Kind::ForwardSpdy => "",
    };
    let (offer, protocol) = match kind {
        Kind::ExecSocket => (socket, commands[which]),
        Kind::ExecSpdy => (spdy, commands[which]),
        Kind::ForwardSocket => (socket, forwards[which]),
        Kind::ForwardSpdy => (spdy, "portforward.k8s.io"),
    };
    format!("GET /?{query} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{offer}{protocol}\r\n\r\n")
}

/// A node with one pod: programs echo their input, so do odd ports.
struct Echo;

/// Something that sends back what it is sent, to its end.
fn echo(then: impl FnOnce() + Send + 'static) -> DuplexStream {
    let (near, far) = duplex(4096);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
        then();
    });
    near
}

fn program(stdin: bool, stdout: bool, stderr: bool) -> Session {
    let (done, exit) = oneshot::channel();
    let (resize, mut sizes) = mpsc::channel(4);
    tokio::spawn(async move { while sizes.recv().await.is_some() {} });
    let all = echo(move || drop(done.send(ExitStatus::Code(3))));
    let (read, write) = tokio::io::split(all);
    Session {
        stdin: stdin.then(|| Box::new(write) as _),
        stdout: stdout.then(|| Box::new(read) as _),
        stderr: stderr.then(|| Box::new(&b"error"[..]) as _),
        resize,
        exit,
    }
}

#[async_trait]
impl NodeRuntime for Echo {
    async fn exec(&self, _: &PodRef, _: &str, ask: ExecRequest) -> Result<Session, RuntimeError> {
        Ok(program(ask.stdin, ask.stdout, ask.stderr))
    }

    async fn attach(
        &self,
        _: &PodRef,
        _: &str,
        ask: AttachRequest,
    ) -> Result<Session, RuntimeError> {
        Ok(program(ask.stdin, ask.stdout, ask.stderr))
    }

    async fn logs(&self, _: &PodRef, _: &str, _: LogOptions) -> Result<LogStream, RuntimeError> {
        Err(RuntimeError::NotFound("no log".to_owned()))
    }

    async fn port_forward(&self, _: &PodRef, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        match port % 2 {
            1 => Ok(Box::new(echo(|| {}))),
            _ => Err(RuntimeError::Internal("refused".to_owned())),
        }
    }
}

fn run(data: &[u8], kind: Kind) {
    let (option, input) = choice(data);
    let answer = run_paused(session(input, kind, option));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.expect("an answer") + 4;
    assert!(
        answer.starts_with(b"HTTP/1.1 101 "),
        "{}",
        answer.escape_ascii()
    );
    let rest = &answer[end..];
    // What is said comes back at most, with its frames; a session has its own few.
    assert!(
        rest.len() <= 4096 + input.len() * 40,
        "{} bytes",
        rest.len()
    );
    match kind {
        Kind::ExecSocket => commands(rest),
        Kind::ForwardSocket => messages(rest, |_| {}),
        Kind::ExecSpdy | Kind::ForwardSpdy => {
            let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(rest));
            while decoder
                .decode(&mut buffer)
                .expect("a frame of ours")
                .is_some()
            {}
        }
    }
}

async fn session(input: &[u8], kind: Kind, option: u8) -> Vec<u8> {
    let (near, far) = duplex(16 * 1024);
    let resource = match kind {
        Kind::ExecSocket | Kind::ExecSpdy if option & 16 != 0 => Subresource::Attach,
        Kind::ExecSocket | Kind::ExecSpdy => Subresource::Exec,
        _ => Subresource::PortForward,
    };
    let answer = service_fn(move |request| async move {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "x", "containers": [{"name": "c"}]}});
        let answer = serve(request, &pod, resource, Arc::new(Echo)).await;
        Ok::<_, std::convert::Infallible>(answer)
    });
    let server = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(far), answer)
        .with_upgrades();
    let serving = tokio::spawn(server);
    let (mut read, mut write) = tokio::io::split(near);
    let reading = tokio::spawn(async move {
        let mut out = Vec::new();
        let _ = read.read_to_end(&mut out).await;
        out
    });
    let head = head(kind, option);
    // A session may end before all was said.
    let mut open = write.write_all(head.as_bytes()).await.is_ok();
    settle().await;
    for piece in pieces(input, option & 8 != 0) {
        open = open && write.write_all(piece).await.is_ok();
        settle().await;
    }
    let _ = write.shutdown().await;
    let patience = Duration::from_secs(3600);
    let answer = tokio::time::timeout(patience, reading).await;
    let answer = answer.expect("the session does not end").expect("no panic");
    let served = tokio::time::timeout(patience, serving).await;
    // What HTTP says of a client that leaves is no matter here.
    let _ = served
        .expect("the connection does not end")
        .expect("no panic");
    answer
}

/// Reads the messages of a server. The last one may be cut.
fn messages(mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let mut closed = false;
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        assert!(!closed, "more after the close frame");
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(*a) << 8 | usize::from(*b), rest),
            (127, [_, _, _, _, _, a, b, c, rest @ ..]) => (
                usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
                rest,
            ),
            (126 | 127, _) => return,
            (short, rest) => (usize::from(short), rest),
        };
        let Some((message, rest)) = rest.split_at_checked(length) else {
            return;
        };
        match first {
            0x82 => each(message),
            0x88 => closed = true,
            0x8a => {}
            other => panic!("a frame that begins with {other:x}"),
        }
        bytes = rest;
    }
}

/// The channels of a command: 1 and 2 its output, 3 how it ended, then nothing.
fn commands(bytes: &[u8]) {
    let mut over = false;
    messages(bytes, |message| {
        let channel = message.first().expect("a channel");
        assert!((1..=3).contains(channel), "channel {channel}");
        assert!(!over, "output after the end");
        over = *channel == 3;
    });
}
