//! The way an answer goes back to the client, over HTTP/1 or HTTP/2.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use lateen_proxy_core::framing::BodyLength;

use super::head::Head;
use super::known::Known;
use super::wire::StreamHandle;
use super::writer::{BodyWriter, H1Writer, H2Writer};
use crate::http1::{Empty, Framing, write_response_head, write_status_line};
use crate::http2::Reason;
use crate::io::Io;

/// What follows a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// So many bytes.
    Length(u64),
    /// As many as come.
    Unknown,
    /// No message at all: both sides have left HTTP.
    Tunnel,
}

/// Where the answer goes.
#[derive(Debug)]
pub enum Responder<'a> {
    /// Over HTTP/1.
    H1 {
        /// The connection.
        io: &'a Io,
        /// Its sending half.
        writer: &'a mut H1Writer,
        /// The request was HTTP/1.0.
        http_10: bool,
        /// The request was a HEAD.
        to_head: bool,
        /// The connection ends with this answer.
        close: bool,
    },
    /// Over HTTP/2.
    H2 {
        /// The stream.
        stream: &'a StreamHandle,
        /// The request was an extended CONNECT (RFC 8441).
        extended: bool,
        /// The request was a HEAD.
        to_head: bool,
    },
}

impl Responder<'_> {
    /// Has the connection end with this answer.
    pub fn set_close(&mut self) {
        if let Self::H1 { close, .. } = self {
            *close = true;
        }
    }

    /// Whether the connection ends with this answer.
    pub fn closes(&self) -> bool {
        matches!(self, Self::H1 { close: true, .. })
    }

    /// Whether the client asked for a head alone, whatever became of its method.
    pub fn to_head(&self) -> bool {
        matches!(
            self,
            Self::H1 { to_head: true, .. } | Self::H2 { to_head: true, .. }
        )
    }

    /// Whether this is HTTP/2.
    pub fn is_h2(&self) -> bool {
        matches!(self, Self::H2 { .. })
    }

    /// Sends the head (over HTTP/1 it waits for the first body bytes or the
    /// flush) and gives what the body is written to.
    pub fn begin(&mut self, head: &mut Head, body: Body) -> io::Result<BodyWriter<'_>> {
        let length = match body {
            Body::Length(length) => BodyLength::Known(length),
            Body::Unknown => BodyLength::Unknown,
            Body::None if head.status == 304 || self.to_head() => BodyLength::Elsewhere,
            Body::None | Body::Tunnel => BodyLength::Empty,
        };
        length.settle_response(head, body == Body::Tunnel);
        match self {
            Self::H1 {
                io,
                writer,
                http_10,
                to_head,
                close,
            } => {
                let framing = match body {
                    Body::None | Body::Tunnel => Framing::None,
                    // Edits may have taken the line that would tell where the body ends.
                    Body::Length(length) if head.has(Known::ContentLength) => {
                        Framing::Length(length)
                    }
                    Body::Length(_) | Body::Unknown if *http_10 => Framing::Close,
                    Body::Length(_) | Body::Unknown => Framing::Chunked,
                };
                *close |= framing == Framing::Close;
                let empty = match head.status {
                    _ if body == Body::Tunnel => Empty::Silent,
                    100..=199 | 204 | 304 => Empty::Silent,
                    _ if *to_head => Empty::Unsaid,
                    _ => Empty::Zero,
                };
                if head.status == 204 {
                    head.remove_known(Known::ContentLength);
                }
                let (close, http_10) = (*close, *http_10);
                writer.begin(framing == Framing::Chunked, head.names(), |out| {
                    write_response_head(head, framing, empty, close, http_10, out);
                });
                Ok(BodyWriter::H1(io, writer))
            }
            Self::H2 {
                stream, extended, ..
            } => {
                let end = body == Body::None;
                // An accepted upgrade is a success here (RFC 8441 section 5).
                let status = match head.status {
                    101 if *extended => 200,
                    status => status,
                };
                let begun = stream.respond(head, status, end);
                begun.map_err(|_| io::ErrorKind::BrokenPipe)?;
                Ok(BodyWriter::H2(H2Writer::new(stream, end)))
            }
        }
    }

    /// What more of a message that was begun is written to.
    pub fn writer(&mut self) -> BodyWriter<'_> {
        match self {
            Self::H1 { io, writer, .. } => BodyWriter::H1(io, writer),
            Self::H2 { stream, .. } => BodyWriter::H2(H2Writer::new(stream, false)),
        }
    }

    /// Sends `100 Continue` now.
    pub async fn send_continue(&mut self) -> io::Result<()> {
        match self {
            Self::H1 { io, writer, .. } => {
                let mut text = Vec::new();
                write_status_line(100, false, &mut text);
                text.extend_from_slice(b"\r\n");
                writer.stage(&text);
                poll_fn(|cx| writer.poll_flush(io, cx)).await
            }
            Self::H2 { stream, .. } => {
                let sent = stream.respond(&Head::new(), 100, false);
                sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// Passes an informational head on; clients of HTTP/1.0 know none (RFC 9110 section 15.2).
    pub fn inform(&mut self, head: &Head) {
        match self {
            Self::H1 { http_10: true, .. } => {}
            Self::H1 { writer, .. } => writer.inform(head),
            // That the stream is gone shows where it is waited for.
            Self::H2 { stream, .. } => drop(stream.respond(head, head.status, false)),
        }
    }

    /// Ready when the client gave the stream up before its answer (HTTP/2).
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1 { .. } => Poll::Pending,
            Self::H2 { stream, .. } => stream.poll_gone(cx).map(|_| ()),
        }
    }

    /// Ends an answer before its end: over HTTP/1 the connection ends in order,
    /// so that what was sent arrives, and the framing shows that some is missing.
    pub fn cut(&mut self, reason: Reason) {
        match self {
            Self::H1 { close, .. } => *close = true,
            Self::H2 { stream, .. } => stream.reset(reason),
        }
    }

    /// Breaks the exchange off without an answer.
    pub fn abort(&mut self, reason: Reason) {
        match self {
            Self::H1 { io, close, .. } => {
                *close = true;
                io.reset_on_close();
            }
            Self::H2 { stream, .. } => stream.reset(reason),
        }
    }
}
