//! Where the bytes of a message body come from: an HTTP/1 connection or an
//! HTTP/2 stream, behind one polled face that shows what is there.

use std::io;
use std::task::{Context, Poll, ready};

use lateen_proxy_core::config::cluster::HeaderCase;

use super::head::Head;
use super::wire::StreamHandle;
use crate::http1::{BodyDecoder, BodyError, Framing, Piece};
use crate::http2::{Gone, Reason};
use crate::io::{Buf, Io, buffer};

/// Why a message stopped.
#[derive(Debug)]
pub enum ReadError {
    /// The connection failed.
    Closed(io::Error),
    /// The bytes are not what they should be, or end too early.
    Malformed(BodyError),
    /// The HTTP/2 stream was reset.
    Reset(Reason),
}

impl From<Gone> for ReadError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Remote(reason) => Self::Reset(reason),
            // As an answer whose head is over a limit.
            Gone::Local(Reason::INTERNAL_ERROR) => Self::Reset(Reason::INTERNAL_ERROR),
            Gone::Local(_) => Self::Malformed(BodyError::Truncated),
            Gone::Connection => Self::Closed(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

/// The receiving half of an HTTP/1 connection.
#[derive(Debug)]
pub struct H1Reader {
    /// Bytes received and not yet consumed.
    pub buf: Buf,
    decoder: BodyDecoder,
    piece: usize,
    /// Whether the letters of names are to be kept.
    pub case: HeaderCase,
}

impl Default for H1Reader {
    fn default() -> Self {
        Self {
            buf: Buf::new(),
            decoder: BodyDecoder::new(Framing::None),
            piece: 0,
            case: HeaderCase::Lower,
        }
    }
}

impl H1Reader {
    /// A reader that keeps the letters of names where that is asked for.
    pub fn new(case: HeaderCase) -> Self {
        Self {
            case,
            ..Self::default()
        }
    }

    /// Begins the body of a message whose head was consumed from `buf`.
    pub fn begin(&mut self, framing: Framing) {
        self.decoder.restart(framing);
        self.piece = 0;
    }

    /// Whether the whole body was handed out.
    pub fn is_done(&self) -> bool {
        self.piece == 0 && self.decoder.is_done()
    }

    fn poll_ready(&mut self, io: &Io, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        if self.piece > 0 {
            return Poll::Ready(Ok(true));
        }
        loop {
            match self
                .decoder
                .next(self.buf.data())
                .map_err(ReadError::Malformed)?
            {
                Piece::Data { skip, len } => {
                    self.buf.consume(skip);
                    self.piece = len;
                    return Poll::Ready(Ok(true));
                }
                Piece::End(skip) => {
                    self.buf.consume(skip);
                    return Poll::Ready(Ok(false));
                }
                Piece::More(skip) => self.buf.consume(skip),
            }
            match ready!(self.buf.poll_fill(io, cx)) {
                Ok(0) => {
                    return Poll::Ready(match self.decoder.finish() {
                        Ok(()) => Ok(false),
                        Err(error) => Err(ReadError::Malformed(error)),
                    });
                }
                Ok(_) => {}
                // A reset inside a framed body leaves it as short as an end does.
                Err(_) if !self.decoder.ends_with_connection() => {
                    return Poll::Ready(Err(ReadError::Malformed(BodyError::Truncated)));
                }
                Err(error) => return Poll::Ready(Err(ReadError::Closed(error))),
            }
        }
    }

    fn data(&self) -> &[u8] {
        &self.buf.data()[..self.piece]
    }

    fn consume(&mut self, count: usize) {
        self.piece -= count;
        self.buf.consume(count);
    }

    /// Copies the received trailers into a head; false when there are none.
    fn trailers(&self, into: &mut Head) -> bool {
        let done = self.decoder.each_trailer(|name, value| {
            into.add(name, value);
            true
        });
        done.is_ok() && !self.decoder.trailers.is_empty()
    }

    /// Sees whether the peer went away while nothing is read from it. Bytes that
    /// come meanwhile (a pipelined request) are kept, up to a buffer full.
    pub fn poll_gone(&mut self, io: &Io, cx: &mut Context<'_>) -> Poll<()> {
        while self.buf.len() < buffer::SIZE {
            match ready!(self.buf.poll_fill(io, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }
}

/// The receiving half of an HTTP/2 stream.
#[derive(Debug)]
pub struct H2Reader<'a> {
    stream: &'a StreamHandle,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> H2Reader<'a> {
    /// A reader of a stream.
    pub fn new(stream: &'a StreamHandle) -> Self {
        Self {
            stream,
            current: Vec::new(),
            at: 0,
            ended: stream.is_bare(),
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        if self.at < self.current.len() {
            return Poll::Ready(Ok(true));
        }
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        match ready!(self.stream.poll_piece(cx))? {
            Some(piece) => {
                self.current = piece;
                self.at = 0;
                Poll::Ready(Ok(true))
            }
            None => {
                self.ended = true;
                Poll::Ready(Ok(false))
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        self.stream.release(count);
        if self.at == self.current.len() {
            self.at = 0;
            buffer::give_small(std::mem::take(&mut self.current));
        }
    }

    fn is_done(&self) -> bool {
        self.ended
    }
}

/// A body being received.
#[derive(Debug)]
pub enum BodyReader<'a> {
    /// Nothing comes.
    Empty,
    /// From HTTP/1.
    H1(&'a Io, &'a mut H1Reader),
    /// From HTTP/2.
    H2(H2Reader<'a>),
}

impl BodyReader<'_> {
    /// Waits for data; true when [`BodyReader::data`] has some, false at the end.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        match self {
            Self::Empty => Poll::Ready(Ok(false)),
            Self::H1(io, reader) => reader.poll_ready(io, cx),
            Self::H2(reader) => reader.poll_ready(cx),
        }
    }

    /// What is there.
    pub fn data(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::H1(_, reader) => reader.data(),
            Self::H2(reader) => &reader.current[reader.at..],
        }
    }

    /// Drops what was used.
    pub fn consume(&mut self, count: usize) -> Result<(), ReadError> {
        match self {
            Self::Empty => Ok(()),
            Self::H1(_, reader) => {
                reader.consume(count);
                Ok(())
            }
            Self::H2(reader) => {
                reader.consume(count);
                Ok(())
            }
        }
    }

    /// Whether everything was handed out, as far as known without waiting.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::H1(_, reader) => reader.is_done(),
            Self::H2(reader) => reader.is_done(),
        }
    }

    /// Copies received trailers into a head; false when there are none.
    pub fn trailers(&self, into: &mut Head) -> bool {
        match self {
            Self::Empty => false,
            Self::H1(_, reader) => reader.trailers(into),
            Self::H2(reader) => reader.stream.trailers(into),
        }
    }

    /// Ready when the peer went away although nothing is expected from it.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Empty => Poll::Pending,
            Self::H1(io, reader) => reader.poll_gone(io, cx),
            Self::H2(reader) => reader.stream.poll_gone(cx).map(|_| ()),
        }
    }
}
