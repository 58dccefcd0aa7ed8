//! Where the bytes of a message go: an HTTP/1 connection or an HTTP/2 stream.
//! A head waits in a buffer until the first body bytes or the flush, so that
//! head and body leave in one system call.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use lateen_proxy_core::config::cluster::HeaderCase;

use super::grpc_stats::Frames;
use super::head::Head;
use super::reader::{BodyReader, ReadError};
use super::wire::StreamHandle;
use crate::http1::case::{self, Names};
use crate::http1::{chunk_head, write_last_chunk, write_status_line};
use crate::http2::{Gone, Reason};
use crate::io::{Io, buffer};

/// Staged bytes at which a chunked body is flushed.
const FLUSH_AT: usize = 16 * 1024;

/// Bytes of data in the largest chunk that is made.
const LARGEST_CHUNK: usize = 64 * 1024;

/// The sending half of an HTTP/1 connection.
#[derive(Debug, Default)]
pub struct H1Writer {
    staged: Vec<u8>,
    sent: usize,
    chunked: bool,
    ended: bool,
    /// How names are written that have no letters of their own.
    case: HeaderCase,
}

impl H1Writer {
    /// A writer of names in these letters.
    pub fn new(case: HeaderCase) -> Self {
        Self {
            case,
            ..Self::default()
        }
    }

    /// Begins a message: `write` puts the head into the staged bytes; `names` = how its sender
    /// wrote them, where that is to be kept.
    pub fn begin(
        &mut self,
        chunked: bool,
        names: Option<&Names>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.staged.capacity() == 0 {
            self.staged = buffer::take_small();
        }
        let from = self.staged.len();
        write(&mut self.staged);
        self.rewrite(from, names);
        self.chunked = chunked;
        self.ended = false;
    }

    /// Has the names of what was written last in the letters that are asked for.
    fn rewrite(&mut self, from: usize, names: Option<&Names>) {
        if names.is_some() || self.case == HeaderCase::ProperCase {
            case::rewrite(&mut self.staged[from..], names, self.case);
        }
    }

    /// Puts an informational head in line.
    pub fn inform(&mut self, head: &Head) {
        let from = self.staged.len();
        write_status_line(head.status, false, &mut self.staged);
        head.write_lines(&mut self.staged);
        self.staged.extend_from_slice(b"\r\n");
        self.rewrite(from, head.names());
    }

    /// Puts bytes in line as they are.
    pub fn stage(&mut self, bytes: &[u8]) {
        self.staged.extend_from_slice(bytes);
    }

    /// Whether nothing waits.
    pub fn is_flushed(&self) -> bool {
        self.sent == self.staged.len()
    }

    /// Everything is sent: the memory goes back to the thread's pool.
    fn finish_staged(&mut self) {
        self.sent = 0;
        buffer::give_small(std::mem::take(&mut self.staged));
    }

    fn poll_send(&mut self, io: &Io, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.chunked {
            if self.staged.len() >= FLUSH_AT {
                ready!(self.poll_flush(io, cx))?;
            }
            // What is staged is a copy: of a large kept body only so much at a time.
            let data = &data[..data.len().min(LARGEST_CHUNK)];
            chunk_head(data.len(), &mut self.staged);
            self.staged.extend_from_slice(data);
            self.staged.extend_from_slice(b"\r\n");
            return Poll::Ready(Ok(data.len()));
        }
        loop {
            let waiting = &self.staged[self.sent..];
            let count = ready!(io.poll_write(cx, &[IoSlice::new(waiting), IoSlice::new(data)]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let head = count.min(waiting.len());
            self.sent += head;
            if self.is_flushed() {
                self.finish_staged();
            }
            if count > head {
                return Poll::Ready(Ok(count - head));
            }
        }
    }

    /// Writes what waits.
    pub fn poll_flush(&mut self, io: &Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let waiting = &self.staged[self.sent..];
            let count = ready!(io.poll_write(cx, &[IoSlice::new(waiting)]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.finish_staged();
        io.poll_flush(cx)
    }

    fn end(&mut self, trailers: Option<&Head>) {
        if self.chunked && !self.ended {
            write_last_chunk(trailers, &mut self.staged);
        }
        self.ended = true;
    }
}

/// The sending half of an HTTP/2 stream.
#[derive(Debug)]
pub struct H2Writer<'a> {
    stream: &'a StreamHandle,
    ended: bool,
}

impl<'a> H2Writer<'a> {
    /// A writer over a stream whose headers went out.
    pub fn new(stream: &'a StreamHandle, ended: bool) -> Self {
        Self { stream, ended }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_data(data, cx).map_err(broken)
    }

    fn end(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.stream.finish(trailers).map_err(broken)
    }
}

fn broken(gone: Gone) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, format!("stream gone: {gone:?}"))
}

/// A message being sent.
#[derive(Debug)]
pub enum BodyWriter<'a> {
    /// Over HTTP/1.
    H1(&'a Io, &'a mut H1Writer),
    /// Over HTTP/2.
    H2(H2Writer<'a>),
    /// Not begun, or nobody listens: data is dropped.
    Nowhere,
}

impl BodyWriter<'_> {
    /// Sends from `data`; returns how much was taken.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::H1(io, writer) => writer.poll_send(io, cx, data),
            Self::H2(writer) => writer.poll_send(cx, data),
            Self::Nowhere => Poll::Ready(Ok(data.len())),
        }
    }

    /// Waits until what was taken is on its way.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(io, writer) => writer.poll_flush(io, cx),
            Self::H2(_) | Self::Nowhere => Poll::Ready(Ok(())),
        }
    }

    /// Ends the sending side of a tunnel whose bytes are all written.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            // A peer that is gone already needs no FIN.
            Self::H1(io, _) => io.poll_shutdown(cx).map(|_| ()),
            Self::H2(_) | Self::Nowhere => Poll::Ready(()),
        }
    }

    /// Puts the end of the message in line.
    pub fn end(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        match self {
            Self::H1(_, writer) => {
                writer.end(trailers);
                Ok(())
            }
            Self::H2(writer) => writer.end(trailers),
            Self::Nowhere => Ok(()),
        }
    }

    /// Whether trailers can be carried, where both sides let them pass.
    pub fn takes_trailers(&self, passing: bool) -> bool {
        match self {
            Self::H1(_, writer) => writer.chunked && passing,
            Self::H2(_) => passing,
            Self::Nowhere => false,
        }
    }

    /// Ready when the receiving peer gave the stream up (HTTP/2).
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self {
            Self::H2(writer) => writer.stream.poll_gone(cx),
            _ => Poll::Pending,
        }
    }

    /// Breaks the message off so that the peer sees it is not complete.
    pub fn abort(&mut self, reason: Reason) {
        match self {
            Self::H1(io, _) => io.reset_on_close(),
            Self::H2(writer) => writer.stream.reset(reason),
            Self::Nowhere => {}
        }
    }
}

/// Which side of a transfer failed.
#[derive(Debug)]
pub enum PumpError {
    /// The side that is read.
    Source(ReadError),
    /// The side that is written.
    Sink(io::Error),
}

/// What a transfer moved since it was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// Body bytes moved in all.
    pub bytes: u64,
    /// Set by every step, cleared by who watches for idleness.
    pub moved: bool,
    /// Counts gRPC messages, where that is wanted.
    pub frames: Option<Frames>,
    ended: bool,
}

/// Something that gives a body: a reader, or a reader with bytes in front.
pub trait Source {
    /// See [`BodyReader::poll_ready`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>>;
    /// See [`BodyReader::data`].
    fn data(&self) -> &[u8];
    /// See [`BodyReader::consume`].
    fn consume(&mut self, count: usize) -> Result<(), ReadError>;
    /// See [`BodyReader::trailers`].
    fn trailers(&self, into: &mut Head) -> bool;
}

impl Source for BodyReader<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        BodyReader::poll_ready(self, cx)
    }

    fn data(&self) -> &[u8] {
        BodyReader::data(self)
    }

    fn consume(&mut self, count: usize) -> Result<(), ReadError> {
        BodyReader::consume(self, count)
    }

    fn trailers(&self, into: &mut Head) -> bool {
        BodyReader::trailers(self, into)
    }
}

/// Moves a body from source to sink until its end is flushed. Trailers are left
/// in `trailers`; `http1_trailers` lets them into HTTP/1.
pub fn poll_pump(
    source: &mut impl Source,
    sink: &mut BodyWriter<'_>,
    meter: &mut Meter,
    trailers: &mut Head,
    passing: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), PumpError>> {
    while !meter.ended {
        match source.poll_ready(cx) {
            Poll::Pending => {
                ready!(sink.poll_flush(cx)).map_err(PumpError::Sink)?;
                return Poll::Pending;
            }
            Poll::Ready(Ok(true)) => {
                let sent = ready!(sink.poll_send(cx, source.data()));
                let count = sent.map_err(PumpError::Sink)?;
                if let Some(frames) = &mut meter.frames {
                    frames.feed(&source.data()[..count]);
                }
                source.consume(count).map_err(PumpError::Source)?;
                meter.bytes += count as u64;
                meter.moved = true;
            }
            Poll::Ready(Ok(false)) => {
                let some = source.trailers(trailers) && sink.takes_trailers(passing);
                sink.end(some.then_some(&*trailers))
                    .map_err(PumpError::Sink)?;
                meter.ended = true;
                meter.moved = true;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(PumpError::Source(error))),
        }
    }
    sink.poll_flush(cx).map_err(PumpError::Sink)
}
