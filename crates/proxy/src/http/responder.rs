//! The way an answer goes back to the client, over HTTP/1 or HTTP/2.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::convert;
use super::head::Head;
use super::known::Known;
use super::writer::{BodyWriter, H1Writer, H2Writer};
use crate::http1::{Empty, Framing, write_response_head, write_status_line};
use crate::io::Io;

/// What follows a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// As many bytes as the head's `content-length` says.
    Length,
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
    H2(h2::server::SendResponse<Bytes>),
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

    /// Whether this is HTTP/2.
    pub fn is_h2(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// Sends the head (over HTTP/1 it waits for the first body bytes or the
    /// flush) and gives what the body is written to.
    pub fn begin(&mut self, head: &mut Head, body: Body) -> io::Result<BodyWriter<'_>> {
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
                    Body::Length => Framing::Length(1),
                    Body::Unknown if *http_10 => Framing::Close,
                    Body::Unknown => Framing::Chunked,
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
                writer.begin(framing == Framing::Chunked, |out| {
                    write_response_head(head, framing, empty, close, http_10, out);
                });
                Ok(BodyWriter::H1(io, writer))
            }
            Self::H2(respond) => {
                let response = convert::to_response(head).map_err(io::Error::other)?;
                let end = body == Body::None;
                let stream = respond
                    .send_response(response, end)
                    .map_err(io::Error::other)?;
                Ok(BodyWriter::H2(H2Writer::new(stream, end)))
            }
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
            Self::H2(respond) => {
                let mut response = http::Response::new(());
                *response.status_mut() = http::StatusCode::CONTINUE;
                respond
                    .send_informational(response)
                    .map_err(io::Error::other)
            }
        }
    }

    /// Ready when the client gave the stream up before its answer (HTTP/2).
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1 { .. } => Poll::Pending,
            Self::H2(respond) => respond.poll_reset(cx).map(|_| ()),
        }
    }

    /// Ends an answer before its end: over HTTP/1 the connection ends in order,
    /// so that what was sent arrives, and the framing shows that some is missing.
    pub fn cut(&mut self, reason: h2::Reason) {
        match self {
            Self::H1 { close, .. } => *close = true,
            Self::H2(respond) => respond.send_reset(reason),
        }
    }

    /// Breaks the exchange off without an answer.
    pub fn abort(&mut self, reason: h2::Reason) {
        match self {
            Self::H1 { io, close, .. } => {
                *close = true;
                io.reset_on_close();
            }
            Self::H2(respond) => respond.send_reset(reason),
        }
    }
}
