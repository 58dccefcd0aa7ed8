//! The server side of a SPDY connection: one task reads, one writes, streams are handed out.
//!
//! Send windows are not enforced: the Go SPDY library of kubectl never opens them, so a server
//! that waited would hang after 64 KiB. The transport's own back-pressure holds instead. What is
//! received goes through bounded queues; a stream whose user is slow stalls the reading.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::block::Headers;
use super::frame::{
    CANCEL, Decoder, Encoder, Frame, FrameError, INVALID_STREAM, PROTOCOL_ERROR, REFUSED_STREAM,
};

/// Streams open at the same time.
const MAX_STREAMS: usize = 1024;
/// Data frames waiting for the user of a stream.
const INBOX: usize = 32;
/// Frames waiting to be written.
const OUTBOX: usize = 32;
/// New streams waiting to be taken.
const ACCEPT: usize = 64;

/// A stream opened by the client. Both halves must be kept or dropped: a dropped reader discards
/// what comes, a dropped writer that was not finished resets the stream.
#[derive(Debug)]
pub struct IncomingStream {
    /// Names in lower case.
    pub headers: Headers,
    /// The client's bytes.
    pub reader: StreamReader,
    /// Bytes to the client.
    pub writer: StreamWriter,
}

impl IncomingStream {
    /// A header's value, or `""`.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value)
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct StreamReader {
    id: u32,
    inbox: mpsc::Receiver<Bytes>,
    outbox: mpsc::Sender<Outgoing>,
}

impl StreamReader {
    /// The next bytes; `None` after FIN, a reset or the end of the connection.
    pub async fn read(&mut self) -> Option<Bytes> {
        let data = self.inbox.recv().await?;
        let by = u32::try_from(data.len()).unwrap_or(0);
        if by > 0 {
            // A full outbox is no reason to wait: the update is only for clients with windows.
            let _ = self
                .outbox
                .try_send(Outgoing::WindowUpdate { id: self.id, by });
        }
        Some(data)
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct StreamWriter {
    id: u32,
    finished: bool,
    outbox: mpsc::Sender<Outgoing>,
}

impl StreamWriter {
    /// Sends bytes; false when the connection is gone.
    pub async fn write(&mut self, data: Bytes) -> bool {
        let id = self.id;
        self.outbox
            .send(Outgoing::Data {
                id,
                data,
                fin: false,
            })
            .await
            .is_ok()
    }

    /// Sends FIN.
    pub async fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            let (id, data) = (self.id, Bytes::new());
            let _ = self
                .outbox
                .send(Outgoing::Data {
                    id,
                    data,
                    fin: true,
                })
                .await;
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.outbox.try_send(Outgoing::Reset {
                id: self.id,
                status: CANCEL,
            });
        }
    }
}

#[derive(Debug)]
enum Outgoing {
    Reply { id: u32 },
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Ping { id: u32 },
    WindowUpdate { id: u32, by: u32 },
    GoAway { last: u32, status: u32 },
}

/// A SPDY connection; dropping it closes the transport.
#[derive(Debug)]
pub struct Connection {
    accept: mpsc::Receiver<IncomingStream>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

impl Connection {
    /// Starts to speak SPDY on a byte stream.
    pub fn start<T: AsyncRead + AsyncWrite + Send + 'static>(transport: T) -> Self {
        let (read_half, write_half) = tokio::io::split(transport);
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let (accepted, accept) = mpsc::channel(ACCEPT);
        let reader = Reader {
            streams: HashMap::new(),
            last: 0,
            accepted,
            outbox,
        };
        Self {
            accept,
            reader: tokio::spawn(reader.run(read_half)),
            writer: tokio::spawn(write_all(write_half, outgoing)),
        }
    }

    /// The next stream that the client opens; `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<IncomingStream> {
        self.accept.recv().await
    }

    /// Waits for the client to close the connection; streams it still opens are refused.
    pub async fn closed(&mut self) {
        while let Some(stream) = self.accept.recv().await {
            drop(stream);
        }
    }
}

struct Reader {
    /// Where the data of open streams goes; `None` once the client has sent FIN.
    streams: HashMap<u32, Option<mpsc::Sender<Bytes>>>,
    last: u32,
    accepted: mpsc::Sender<IncomingStream>,
    outbox: mpsc::Sender<Outgoing>,
}

impl Reader {
    async fn run(mut self, mut transport: impl AsyncRead + Unpin) {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::with_capacity(32 * 1024);
        loop {
            match self.take_all(&mut decoder, &mut buffer).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!("SPDY connection refused: {error}");
                    let goodbye = Outgoing::GoAway {
                        last: self.last,
                        status: 1,
                    };
                    let _ = self.outbox.send(goodbye).await;
                    return;
                }
            }
            if !matches!(transport.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                return;
            }
        }
    }

    /// Handles the frames in the buffer; false when the connection is over.
    async fn take_all(
        &mut self,
        decoder: &mut Decoder,
        buffer: &mut BytesMut,
    ) -> Result<bool, FrameError> {
        while let Some(frame) = decoder.decode(buffer)? {
            if !self.take(frame).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn send(&self, out: Outgoing) -> bool {
        self.outbox.send(out).await.is_ok()
    }

    async fn take(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::SynStream { id, fin, headers } => self.open(id, fin, headers).await,
            Frame::Data { id, fin, data } => self.data(id, fin, data).await,
            Frame::Headers { id, fin } => self.data(id, fin, Bytes::new()).await,
            Frame::Reset { id } => {
                self.streams.remove(&id);
                true
            }
            Frame::Ping { id } => self.send(Outgoing::Ping { id }).await,
            Frame::GoAway => false,
            Frame::Ignored => true,
        }
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> bool {
        if id <= self.last || id.is_multiple_of(2) {
            return self
                .send(Outgoing::Reset {
                    id,
                    status: PROTOCOL_ERROR,
                })
                .await;
        }
        self.last = id;
        // Streams that both sides have left are forgotten only now, when room is wanted.
        if self.streams.len() >= MAX_STREAMS {
            self.streams
                .retain(|_, inbox| inbox.as_ref().is_some_and(|i| !i.is_closed()));
        }
        if self.streams.len() >= MAX_STREAMS {
            return self
                .send(Outgoing::Reset {
                    id,
                    status: REFUSED_STREAM,
                })
                .await;
        }
        let (sender, inbox) = mpsc::channel(INBOX);
        self.streams.insert(id, (!fin).then_some(sender));
        let stream = IncomingStream {
            headers,
            reader: StreamReader {
                id,
                inbox,
                outbox: self.outbox.clone(),
            },
            writer: StreamWriter {
                id,
                finished: false,
                outbox: self.outbox.clone(),
            },
        };
        self.send(Outgoing::Reply { id }).await && self.accepted.send(stream).await.is_ok()
    }

    async fn data(&mut self, id: u32, fin: bool, data: Bytes) -> bool {
        let Some(inbox) = self.streams.get_mut(&id) else {
            return data.is_empty()
                || self
                    .send(Outgoing::Reset {
                        id,
                        status: INVALID_STREAM,
                    })
                    .await;
        };
        if let Some(sender) = inbox
            && !data.is_empty()
        {
            // A user that dropped its reader discards what comes.
            let _ = sender.send(data).await;
        }
        if fin {
            *inbox = None;
        }
        true
    }
}

async fn write_all(mut transport: impl AsyncWrite + Unpin, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut encoder = Encoder::default();
    let mut bytes = BytesMut::new();
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some(out) = next {
            if let Err(error) = encode(&mut encoder, out, &mut bytes) {
                tracing::debug!("SPDY header compression failed: {error}");
                return;
            }
            next = if bytes.len() < 64 * 1024 {
                outgoing.try_recv().ok()
            } else {
                None
            };
        }
        if transport.write_all(&bytes).await.is_err() || transport.flush().await.is_err() {
            return;
        }
        bytes.clear();
    }
    let _ = transport.shutdown().await;
}

fn encode(
    encoder: &mut Encoder,
    out: Outgoing,
    bytes: &mut BytesMut,
) -> Result<(), super::block::BlockError> {
    match out {
        Outgoing::Reply { id } => return encoder.reply(id, bytes),
        Outgoing::Data { id, data, fin } => encoder.data(id, &data, fin, bytes),
        Outgoing::Reset { id, status } => encoder.reset(id, status, bytes),
        Outgoing::Ping { id } => encoder.ping(id, bytes),
        Outgoing::WindowUpdate { id, by } => encoder.window_update(id, by, bytes),
        Outgoing::GoAway { last, status } => encoder.go_away(last, status, bytes),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockWriter;
    use super::super::frame::tests::syn;
    use super::*;

    async fn next(
        client: &mut (impl AsyncRead + Unpin),
        decoder: &mut Decoder,
        buffer: &mut BytesMut,
    ) -> Frame {
        loop {
            if let Some(frame) = decoder.decode(buffer).expect("well formed") {
                return frame;
            }
            assert!(client.read_buf(buffer).await.expect("bytes") > 0, "closed");
        }
    }

    #[tokio::test]
    async fn streams_echo_pings_and_fins() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let mut connection = Connection::start(server);
        let (mut blocks, encoder) = (BlockWriter::default(), Encoder::default());
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let mut out = syn(&mut blocks, 1, &[("streamtype", "stdin")]);
        encoder.ping(1, &mut out);
        encoder.data(1, b"hello", true, &mut out);
        client.write_all(&out).await.expect("written");
        let mut stream = connection.accept().await.expect("a stream");
        assert_eq!(stream.header("streamtype"), "stdin");
        assert_eq!(stream.reader.read().await.as_deref(), Some(&b"hello"[..]));
        assert_eq!(stream.reader.read().await, None);
        assert!(stream.writer.write(Bytes::from_static(b"back")).await);
        stream.writer.finish().await;
        let mut seen = Vec::new();
        while seen.len() < 5 {
            seen.push(next(&mut client, &mut decoder, &mut buffer).await);
        }
        assert_eq!(seen[0], Frame::Headers { id: 1, fin: false });
        assert_eq!(seen[1], Frame::Ping { id: 1 });
        let back = Frame::Data {
            id: 1,
            fin: false,
            data: Bytes::from_static(b"back"),
        };
        assert!(seen.contains(&back));
        assert!(seen.contains(&Frame::Data {
            id: 1,
            fin: true,
            data: Bytes::new()
        }));
        drop(client);
        assert!(connection.accept().await.is_none());
    }

    #[tokio::test]
    async fn a_dropped_stream_is_reset_and_garbage_ends_the_connection() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let mut connection = Connection::start(server);
        let mut blocks = BlockWriter::default();
        client
            .write_all(&syn(&mut blocks, 1, &[]))
            .await
            .expect("written");
        drop(connection.accept().await.expect("a stream"));
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        assert!(matches!(
            next(&mut client, &mut decoder, &mut buffer).await,
            Frame::Headers { .. }
        ));
        assert_eq!(
            next(&mut client, &mut decoder, &mut buffer).await,
            Frame::Reset { id: 1 }
        );
        // The same id again is refused, another version is the end.
        client
            .write_all(&syn(&mut blocks, 1, &[]))
            .await
            .expect("written");
        assert_eq!(
            next(&mut client, &mut decoder, &mut buffer).await,
            Frame::Reset { id: 1 }
        );
        client
            .write_all(&[0x80, 9, 0, 1, 0, 0, 0, 0])
            .await
            .expect("written");
        assert_eq!(
            next(&mut client, &mut decoder, &mut buffer).await,
            Frame::GoAway
        );
        connection.closed().await;
    }
}
