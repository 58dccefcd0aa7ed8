//! The WebSocket transports: exec and attach channels, the byte tunnel that carries SPDY for
//! port-forward, and port-forward channels.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::forward::connect;
use super::session::{Channel, Ending, Input, Output, parse_resize, read_chunk};
use crate::node::runtime::{NodeRuntime, PodRef};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// From protocol version 5: the second byte names the channel that is closed.
const CLOSE: u8 = 255;
/// The longest message taken.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Messages waiting in either direction.
const WAITING: usize = 16;
/// How long the peer may take to answer a close frame.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(5);

/// A WebSocket over an upgraded connection, server side.
pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(transport: T) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(32 * 1024)
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(transport, Role::Server, Some(config)).await
}

/// The remote command protocols, by what differs between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `channel.k8s.io` or none: the status channel carries plain text, on failure only.
    Text,
    /// `v4.channel.k8s.io`: the status channel carries a Status.
    V4,
    /// `v5.channel.k8s.io`: and channels can be closed.
    V5,
}

/// One message of a remote command client.
pub fn parse_input(message: &[u8], version: Version) -> Option<Input> {
    let (&channel, data) = message.split_first()?;
    match channel {
        STDIN if data.is_empty() => None,
        STDIN => Some(Input::Stdin(Bytes::copy_from_slice(data))),
        RESIZE => parse_resize(data).map(|(columns, rows)| Input::Resize(columns, rows)),
        CLOSE if version == Version::V5 && data.first() == Some(&STDIN) => Some(Input::StdinEnd),
        _ => None,
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(1 + data.len());
    bytes.put_u8(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.freeze())
}

fn ending_message(ending: &Ending, version: Version) -> Option<Message> {
    if version == Version::Text {
        let text = ending.text();
        return (!text.is_empty()).then(|| message(STATUS, text.as_bytes()));
    }
    Some(message(STATUS, ending.status().to_string().as_bytes()))
}

/// Joins a WebSocket with a session's channels; returns when both sides are done.
pub async fn remote_command<T>(
    socket: WebSocketStream<T>,
    version: Version,
    input: mpsc::Sender<Input>,
    mut output: mpsc::Receiver<Output>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, stream) = socket.split();
    let reading = tokio::spawn(read_input(stream, version, input));
    // An empty message tells the client that the session stands.
    let mut open = sink.send(message(STDOUT, &[])).await.is_ok();
    while let Some(next) = output.recv().await {
        let sent = match next {
            Output::Data(Channel::Stdout, data) => message(STDOUT, &data),
            Output::Data(Channel::Stderr, data) => message(STDERR, &data),
            Output::End(ending) => match ending_message(&ending, version) {
                Some(message) => message,
                None => continue,
            },
        };
        open = open && sink.send(sent).await.is_ok();
        if !open {
            break;
        }
    }
    close(&mut sink, reading).await;
}

async fn close<T: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<T>, Message>,
    reading: tokio::task::JoinHandle<()>,
) {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(frame))).await;
    let abort = reading.abort_handle();
    let _ = tokio::time::timeout(CLOSING, reading).await;
    abort.abort();
}

async fn read_input<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<T>>,
    version: Version,
    input: mpsc::Sender<Input>,
) {
    // After the session's end reading goes on, so that pings and the close frame are answered.
    while let Some(Ok(message)) = stream.next().await {
        let parsed = match &message {
            Message::Binary(data) => parse_input(data, version),
            Message::Text(text) => parse_input(text.as_bytes(), version),
            _ => None,
        };
        if let Some(event) = parsed {
            let _ = input.send(event).await;
        }
    }
}

/// A byte stream over binary messages: the other end carries SPDY.
pub fn tunnel<T>(socket: WebSocketStream<T>) -> DuplexStream
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (near, far) = tokio::io::duplex(256 * 1024);
    let (mut sink, mut stream) = socket.split();
    let (mut from_near, mut to_near) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Binary(data) = message
                && to_near.write_all(&data).await.is_err()
            {
                return;
            }
        }
        let _ = to_near.shutdown().await;
    });
    tokio::spawn(async move {
        while let Some(data) = read_chunk(&mut from_near).await {
            if sink.send(Message::Binary(data)).await.is_err() {
                return;
            }
        }
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = sink.send(Message::Close(Some(frame))).await;
    });
    near
}

/// Port-forward over channels: 2i carries the bytes of port i, 2i+1 its error text. Each channel
/// begins with the port as two bytes, little endian.
pub async fn forward_channels<T>(
    socket: WebSocketStream<T>,
    ports: &[u16],
    pod: &PodRef,
    runtime: &dyn NodeRuntime,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut stream) = socket.split();
    let (outgoing, mut outbox) = mpsc::channel::<Message>(WAITING);
    let writing = tokio::spawn(async move {
        while let Some(message) = outbox.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = sink.send(Message::Close(Some(frame))).await;
    });
    let mut writers = Vec::new();
    let mut pumps = tokio::task::JoinSet::new();
    for (index, &port) in ports.iter().enumerate() {
        // At most 127 ports were let through, so both channels fit in a byte.
        let channel = u8::try_from(2 * index).unwrap_or(u8::MAX - 1);
        for channel in [channel, channel + 1] {
            let _ = outgoing.send(message(channel, &port.to_le_bytes())).await;
        }
        match connect(runtime, pod, port).await {
            Ok(connected) => {
                let (mut from_pod, to_pod) = tokio::io::split(connected);
                writers.push(Some(to_pod));
                let outgoing = outgoing.clone();
                pumps.spawn(async move {
                    while let Some(data) = read_chunk(&mut from_pod).await {
                        if outgoing.send(message(channel, &data)).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(why) => {
                writers.push(None);
                let _ = outgoing.send(message(channel + 1, why.as_bytes())).await;
            }
        }
    }
    drop(outgoing);
    let incoming = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Binary(data) = message else {
                continue;
            };
            let Some((&channel, data)) = data.split_first() else {
                continue;
            };
            let slot = usize::from(channel / 2);
            if channel % 2 == 0
                && let Some(Some(writer)) = writers.get_mut(slot)
                && writer.write_all(data).await.is_err()
            {
                writers[slot] = None;
            }
        }
    };
    // The forward ends when the client leaves, or when no pod connection is left.
    tokio::select! {
        () = incoming => {}
        () = async { while pumps.join_next().await.is_some() {} } => {}
    }
    pumps.shutdown().await;
    let _ = tokio::time::timeout(CLOSING, writing).await;
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::upper;
    use super::super::session::{Purpose, carry};
    use super::*;

    #[test]
    fn inputs_parse() {
        let v5 = |bytes: &[u8]| parse_input(bytes, Version::V5);
        assert_eq!(
            v5(b"\x00ls\n"),
            Some(Input::Stdin(Bytes::from_static(b"ls\n")))
        );
        assert_eq!(v5(&[255, 0]), Some(Input::StdinEnd));
        assert_eq!(parse_input(&[255, 0], Version::V4), None);
        assert_eq!(
            v5(b"\x04{\"Width\":80,\"Height\":24}\n"),
            Some(Input::Resize(80, 24))
        );
        for odd in [&b""[..], &[0], &[9, 1], &[255], &[4, b'x'], &[255, 7]] {
            assert_eq!(v5(odd), None);
        }
    }

    #[tokio::test]
    async fn a_command_runs_over_a_websocket() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let server = accept(far).await;
        let (to, input) = mpsc::channel(8);
        let (output, from) = mpsc::channel(8);
        tokio::spawn(carry(upper(3), Purpose::Exec, input, output));
        let serving = tokio::spawn(remote_command(server, Version::V5, to, from));
        client.send(message(0, b"abc")).await.expect("sent");
        client
            .send(Message::Ping(Bytes::from_static(b"p")))
            .await
            .expect("sent");
        client
            .send(Message::Binary(Bytes::from_static(&[255, 0])))
            .await
            .expect("sent");
        let (mut out, mut status, mut pong, mut closed) = (Vec::new(), String::new(), false, false);
        while let Some(Ok(next)) = client.next().await {
            match next {
                Message::Binary(data) if data[0] == STDOUT => out.extend_from_slice(&data[1..]),
                Message::Binary(data) if data[0] == STATUS => {
                    status = String::from_utf8_lossy(&data[1..]).into_owned();
                }
                Message::Pong(_) => pong = true,
                Message::Close(frame) => closed = frame.is_some_and(|f| u16::from(f.code) == 1000),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(out, b"ABC");
        assert!(
            status.contains("\"ExitCode\"") && pong && closed,
            "{status}"
        );
        serving.await.expect("no panic");
    }
}
