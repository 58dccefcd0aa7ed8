//! A request body that can be sent again: what was read is kept, up to a
//! limit, as long as another try is possible.

use std::future::poll_fn;
use std::task::{Context, Poll};

use lateen_proxy_core::framing::BodyLength;

use super::head::Head;
use super::reader::{BodyReader, ReadError};
use super::responder::Responder;
use super::writer::Source;

/// Bytes from which on a kept body grows by less than it is long.
const LARGE: usize = 64 * 1024;

/// A request body with what was read of it in front.
#[derive(Debug)]
pub struct RequestBody<'a> {
    /// What is still to come.
    pub reader: BodyReader<'a>,
    kept: Vec<u8>,
    at: usize,
    limit: usize,
    lost: bool,
    /// What the request said of its length when it came.
    pub length: BodyLength,
    /// Body bytes received from the client.
    pub received: u64,
    /// The whole request has arrived.
    pub complete: bool,
}

impl<'a> RequestBody<'a> {
    /// A body of which nothing is kept until [`RequestBody::keep`].
    pub fn new(reader: BodyReader<'a>) -> Self {
        Self {
            complete: reader.is_done(),
            reader,
            kept: Vec::new(),
            at: 0,
            limit: 0,
            lost: false,
            length: BodyLength::Unknown,
            received: 0,
        }
    }

    /// Keeps up to `limit` bytes for another try.
    pub fn keep(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether it can be sent from its beginning again.
    pub fn can_restart(&self) -> bool {
        !self.lost
    }

    /// The whole body, where it has arrived and was kept.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.complete && !self.lost).then_some(&self.kept)
    }

    /// Drops what was kept: it is sent without a body from now on. For bodies that are complete.
    pub fn forget(&mut self) {
        self.kept.clear();
        self.at = 0;
        self.received = 0;
    }

    /// Sends from the beginning again.
    pub fn restart(&mut self) {
        self.at = 0;
    }

    /// Whether there is no body at all.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.reader.is_done()
    }
}

/// What of a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// All of it.
    Whole,
    /// As much as was wanted, and more is to come.
    Partly,
    /// It broke off, or the client went away.
    Broken,
}

impl RequestBody<'_> {
    /// Reads up to `most` bytes and keeps them in front of the rest. With `partly` the end is not
    /// waited for once so much is there.
    pub async fn fill(&mut self, most: usize, partly: bool, out: &mut Responder<'_>) -> Filled {
        self.limit = self.limit.max(most);
        self.at = self.kept.len();
        let filled = poll_fn(|cx| {
            if out.poll_gone(cx).is_ready() {
                return Poll::Ready(Filled::Broken);
            }
            loop {
                match self.poll_ready(cx) {
                    Poll::Ready(Ok(false)) => return Poll::Ready(Filled::Whole),
                    Poll::Ready(Ok(true)) if self.kept.len() >= most => {
                        return Poll::Ready(Filled::Partly);
                    }
                    Poll::Ready(Ok(true)) => {
                        let count = self.data().len().min(most - self.kept.len());
                        if self.consume(count).is_err() {
                            return Poll::Ready(Filled::Broken);
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Filled::Broken),
                    Poll::Pending if partly && self.kept.len() >= most => {
                        return Poll::Ready(Filled::Partly);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let filled = filled.await;
        self.restart();
        filled
    }

    /// Takes in what has come, up to [`LARGE`] bytes, without waiting for more: where no
    /// connection was had nothing has looked at it yet.
    pub async fn take_in(&mut self) {
        if self.lost {
            return;
        }
        poll_fn(|cx| {
            self.take_what_came(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn take_what_came(&mut self, cx: &mut Context<'_>) {
        self.limit = self.limit.max(LARGE);
        self.at = self.kept.len();
        while self.kept.len() < LARGE
            && let Poll::Ready(Ok(true)) = self.poll_ready(cx)
        {
            let count = self.data().len().min(LARGE - self.kept.len());
            if self.consume(count).is_err() {
                break;
            }
        }
        self.restart();
    }

    /// How many bytes of it have come, as far as they have been looked at.
    pub fn come(&self) -> u64 {
        self.received + self.reader.data().len() as u64
    }

    /// Lends what was kept of the body, so that it need not be held twice. Nothing may be read
    /// before it is back.
    pub fn lend(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Takes back what was lent.
    pub fn take_back(&mut self, kept: Vec<u8>) {
        self.kept = kept;
    }

    /// Makes room for so many bytes more. A large body does not double what it holds.
    fn make_room(&mut self, count: usize) {
        let kept = &mut self.kept;
        if kept.len() >= LARGE && kept.capacity() - kept.len() < count {
            let left = self.limit.saturating_sub(kept.len());
            kept.reserve_exact((kept.len() / 8).min(left).max(count));
        }
    }
}

impl Source for RequestBody<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        if self.at < self.kept.len() {
            return Poll::Ready(Ok(true));
        }
        let ready = self.reader.poll_ready(cx);
        if matches!(ready, Poll::Ready(Ok(false))) {
            self.complete = true;
        }
        ready
    }

    fn data(&self) -> &[u8] {
        if self.at < self.kept.len() {
            return &self.kept[self.at..];
        }
        self.reader.data()
    }

    fn consume(&mut self, count: usize) -> Result<(), ReadError> {
        if self.at < self.kept.len() {
            self.at += count;
            return Ok(());
        }
        self.received += count as u64;
        if !self.lost {
            if self.kept.len() + count > self.limit {
                self.lost = true;
                self.kept = Vec::new();
                self.at = 0;
            } else {
                self.make_room(count);
                self.kept.extend_from_slice(&self.reader.data()[..count]);
                self.at = self.kept.len();
            }
        }
        self.reader.consume(count)
    }

    fn trailers(&self, into: &mut Head) -> bool {
        self.reader.trailers(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reader::H1Reader;
    use crate::http1::Framing;
    use std::task::Waker;

    #[test]
    fn a_kept_body_can_be_read_twice() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (one, _two) = tokio::net::UnixStream::pair().unwrap();
            let io = crate::io::Io::unix(one);
            let mut reader = H1Reader::default();
            reader.buf.put(b"hello");
            reader.begin(Framing::Length(5));
            let mut body = RequestBody::new(BodyReader::H1(&io, &mut reader));
            body.keep(10);
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..2 {
                assert!(matches!(body.poll_ready(&mut cx), Poll::Ready(Ok(true))));
                assert_eq!(body.data(), b"hello");
                body.consume(5).unwrap();
                assert!(matches!(body.poll_ready(&mut cx), Poll::Ready(Ok(false))));
                assert!(body.can_restart());
                body.restart();
            }
            assert_eq!(body.received, 5);
        });
    }
}
