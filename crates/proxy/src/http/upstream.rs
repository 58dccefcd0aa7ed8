//! The receiving side of one upstream try: the head of the answer over HTTP/1
//! or HTTP/2, then its body.

use std::task::{Context, Poll, ready};

use lateen_proxy_core::framing::BodyLength;
use lateen_proxy_core::local_reply::ResetReason;

use super::head::Head;
use super::heads;
use super::known::Known;
use super::reader::{BodyReader, H1Reader, H2Reader};
use super::responder::Body;
use super::wire::StreamHandle;
use crate::http1::{Framing, case, parse_response};
use crate::http2::{Gone, Reason};
use crate::io::Io;

/// Why no answer came.
#[derive(Clone, Debug)]
pub struct UpstreamReset {
    /// The reason as replies word it.
    pub reason: ResetReason,
    /// More for the details; may be empty.
    pub text: String,
}

impl UpstreamReset {
    /// A reset without more to say.
    pub fn new(reason: ResetReason) -> Self {
        Self {
            reason,
            text: String::new(),
        }
    }

    /// What the end of an HTTP/2 stream means.
    pub fn from_gone(gone: Gone) -> Self {
        Self::new(match gone {
            Gone::Remote(reason) => reset_by(reason),
            // Fields over a limit are no fault of the protocol (RFC 9113 section 10.5.1).
            Gone::Local(Reason::INTERNAL_ERROR) => ResetReason::RemoteReset,
            Gone::Local(_) => ResetReason::ProtocolError,
            Gone::Connection => ResetReason::ConnectionTermination,
        })
    }
}

/// What came with a head.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// What follows.
    pub body: Body,
    /// The connection may serve another request (HTTP/1).
    pub keep_alive: bool,
}

/// The receiving side of a try.
#[derive(Debug)]
pub enum Receiver<'a> {
    /// Over HTTP/1.
    H1(H1Receiver<'a>),
    /// Over HTTP/2; with whether the request is an extended CONNECT.
    H2(&'a StreamHandle, bool),
}

/// The receiving side of a try over HTTP/1.
#[derive(Debug)]
pub struct H1Receiver<'a> {
    /// The connection.
    pub io: &'a Io,
    /// Its receiving half.
    pub reader: &'a mut H1Reader,
    /// The request was a HEAD.
    pub to_head: bool,
    /// The request asked to upgrade.
    pub upgrade: bool,
    /// Informational heads are given too.
    pub inform: bool,
    /// Bytes looked at before.
    pub seen: usize,
}

impl Receiver<'_> {
    /// Waits for the head of the final answer. Informational ones are swallowed unless they were
    /// asked for; then they come first.
    pub fn poll_head(
        &mut self,
        head: &mut Head,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answer, UpstreamReset>> {
        match self {
            Self::H1(receiver) => receiver.poll_head(head, cx),
            Self::H2(stream, extended) => match ready!(stream.poll_head(cx)) {
                Ok(came) => {
                    heads::give(std::mem::replace(head, came));
                    if *extended && head.status == 200 {
                        // Accepted, in HTTP/1.1's words (RFC 8441 section 5).
                        head.status = 101;
                    }
                    let told = BodyLength::told(head.known(Known::ContentLength));
                    let body = match told {
                        _ if stream.is_bare() => Body::None,
                        BodyLength::Known(length) => Body::Length(length),
                        _ => Body::Unknown,
                    };
                    Poll::Ready(Ok(Answer {
                        body,
                        keep_alive: true,
                    }))
                }
                Err(gone) => Poll::Ready(Err(UpstreamReset::from_gone(gone))),
            },
        }
    }

    /// The body that follows the head.
    pub fn body(&mut self) -> BodyReader<'_> {
        match self {
            Self::H1(receiver) => BodyReader::H1(receiver.io, receiver.reader),
            Self::H2(stream, _) => BodyReader::H2(H2Reader::new(stream)),
        }
    }
}

impl H1Receiver<'_> {
    /// Waits for the head of the final answer; informational ones are swallowed.
    pub fn poll_head(
        &mut self,
        head: &mut Head,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answer, UpstreamReset>> {
        loop {
            let data = self.reader.buf.data();
            if data.len() > self.seen {
                match parse_response(data, self.seen, self.to_head, head) {
                    Ok(Some(parsed)) => {
                        self.seen = 0;
                        head.set_names(case::kept(self.reader.case, &data[..parsed.consumed]));
                        self.reader.buf.consume(parsed.consumed);
                        let status = head.status;
                        if status == 101 && !(self.upgrade && parsed.upgrade) {
                            return Poll::Ready(Err(malformed("unasked 101")));
                        }
                        if status < 200 && status != 101 {
                            if self.inform && heads::is_special(status) {
                                // The first one alone, as Envoy does.
                                self.inform = false;
                                return Poll::Ready(Ok(Answer {
                                    body: Body::None,
                                    keep_alive: true,
                                }));
                            }
                            continue;
                        }
                        self.reader.begin(parsed.framing);
                        return Poll::Ready(Ok(Answer {
                            body: match parsed.framing {
                                Framing::None => Body::None,
                                Framing::Length(length) => Body::Length(length),
                                Framing::Chunked | Framing::Close => Body::Unknown,
                            },
                            keep_alive: parsed.keep_alive,
                        }));
                    }
                    Ok(None) => self.seen = data.len(),
                    Err(why) => return Poll::Ready(Err(malformed(why))),
                }
            }
            match ready!(self.reader.buf.poll_fill(self.io, cx)) {
                Ok(count) if count > 0 => {}
                // Half a head is a malformed answer, nothing is none.
                Ok(_) | Err(_) if !self.reader.buf.is_empty() => {
                    return Poll::Ready(Err(malformed("head ended early")));
                }
                Ok(_) | Err(_) => {
                    let reason = ResetReason::ConnectionTermination;
                    return Poll::Ready(Err(UpstreamReset::new(reason)));
                }
            }
        }
    }
}

/// What a reset by the upstream means.
pub fn reset_by(reason: Reason) -> ResetReason {
    match reason {
        Reason::REFUSED_STREAM => ResetReason::RemoteRefusedStreamReset,
        Reason::PROTOCOL_ERROR => ResetReason::ProtocolError,
        Reason::CONNECT_ERROR => ResetReason::RemoteConnectError,
        _ => ResetReason::RemoteReset,
    }
}

pub(super) fn malformed(_why: &str) -> UpstreamReset {
    UpstreamReset::new(ResetReason::ProtocolError)
}
