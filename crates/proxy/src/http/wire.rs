//! An HTTP/2 connection between its socket and its streams: one task reads and
//! writes, the tasks of the streams put frames in line and have it write them,
//! all of a turn of the loop at once.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::head::Head;
use crate::http2::{ConnectionError, Gone, Reason, Session};
use crate::io::{Buf, Io, timer};

/// Bytes that may wait to be sent before nothing more is read: whoever does not
/// read is not listened to.
const DEAF: usize = 256 * 1024;

/// A connection's session with the task that moves its bytes.
#[derive(Debug)]
pub struct Wire {
    session: RefCell<Session>,
    task: RefCell<Option<Waker>>,
    kicked: Cell<bool>,
    /// Nothing is read until what waits is sent.
    deaf: Cell<bool>,
}

/// Why nothing more is read.
#[derive(Debug)]
pub enum ReadEnd {
    /// The peer closed the connection, or it broke.
    Closed,
    /// The peer broke the protocol.
    Error(ConnectionError),
}

impl Wire {
    /// A connection.
    pub fn new(session: Session) -> Rc<Self> {
        Rc::new(Self {
            session: RefCell::new(session),
            task: RefCell::default(),
            kicked: Cell::new(true),
            deaf: Cell::new(false),
        })
    }

    /// Works on the session, in the connection's own task.
    pub fn with<T>(&self, work: impl FnOnce(&mut Session) -> T) -> T {
        work(&mut self.session.borrow_mut())
    }

    /// Works on the session; what that leaves to be sent is sent in this turn.
    pub fn act<T>(&self, work: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.session.borrow_mut();
        let done = work(&mut session);
        if session.waiting() > 0 {
            self.kick();
        }
        done
    }

    /// Has the connection's task look at it.
    pub fn kick(&self) {
        if !self.kicked.replace(true)
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }

    /// Begins a turn of the connection's task.
    pub fn begin_turn(&self, cx: &Context<'_>) {
        self.kicked.set(false);
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|t| t.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Reads once and has the session take it.
    pub fn poll_read(
        &self,
        io: &Io,
        buf: &mut Buf,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadEnd>> {
        let mut session = self.session.borrow_mut();
        if session.waiting() > DEAF {
            self.deaf.set(true);
            return Poll::Pending;
        }
        if !matches!(ready!(buf.poll_fill(io, cx)), Ok(1..)) {
            return Poll::Ready(Err(ReadEnd::Closed));
        }
        match session.receive(buf.data(), timer::now_ms()) {
            Ok(used) => {
                buf.consume(used);
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(ReadEnd::Error(error))),
        }
    }

    /// Writes what waits; ready when all is written.
    pub fn poll_write(&self, io: &Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.borrow_mut();
        let mut wrote = false;
        while session.waiting() > 0 {
            let count = ready!(io.poll_write(cx, &session.outgoing()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            session.wrote(count);
            wrote = true;
        }
        if self.deaf.take() {
            cx.waker().wake_by_ref();
        }
        if wrote || io.is_tls() {
            return io.poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }
}

/// One stream, held by who owns it; what is open of it is reset on drop.
#[derive(Debug)]
pub struct StreamHandle {
    wire: Rc<Wire>,
    slot: u32,
}

impl StreamHandle {
    /// A stream of the session.
    pub fn new(wire: Rc<Wire>, slot: u32) -> Self {
        Self { wire, slot }
    }

    /// Sends the head of an answer.
    pub fn respond(&self, head: &Head, status: u16, end: bool) -> Result<(), Gone> {
        self.wire.act(|s| s.respond(self.slot, head, status, end))
    }

    /// Sends a piece of a body.
    pub fn poll_data(&self, data: &[u8], cx: &Context<'_>) -> Poll<Result<usize, Gone>> {
        self.wire.act(|s| s.poll_data(self.slot, data, cx))
    }

    /// Ends the message.
    pub fn finish(&self, trailers: Option<&Head>) -> Result<(), Gone> {
        self.wire.act(|s| s.finish(self.slot, trailers))
    }

    /// Resets the stream.
    pub fn reset(&self, reason: Reason) {
        self.wire.act(|s| s.reset(self.slot, reason));
    }

    /// Takes a piece of the received body; `None` at its end.
    pub fn poll_piece(&self, cx: &Context<'_>) -> Poll<Result<Option<Vec<u8>>, Gone>> {
        self.wire.session.borrow_mut().poll_piece(self.slot, cx)
    }

    /// Takes the head of the answer.
    pub fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Head, Gone>> {
        self.wire.session.borrow_mut().poll_head(self.slot, cx)
    }

    /// Has informational heads of the answer given too.
    pub fn ask_informational(&self) {
        self.wire.session.borrow_mut().ask_informational(self.slot);
    }

    /// So many bytes of the body were used up.
    pub fn release(&self, count: usize) {
        self.wire.act(|s| s.release(self.slot, count));
    }

    /// Copies the received trailers; false when there are none.
    pub fn trailers(&self, into: &mut Head) -> bool {
        self.wire.session.borrow().trailers(self.slot, into)
    }

    /// Whether the message that came ended with its head.
    pub fn is_bare(&self) -> bool {
        self.wire.session.borrow().is_bare(self.slot)
    }

    /// What was wrong with the peer's message, where something was.
    pub fn broken(&self) -> Option<&'static str> {
        self.wire.session.borrow().broken(self.slot)
    }

    /// The code with which the peer reset the stream, where it did.
    pub fn reset_by_peer(&self) -> Option<Reason> {
        self.wire.session.borrow().reset_by_peer(self.slot)
    }

    /// Ready when the stream is no more.
    pub fn poll_gone(&self, cx: &Context<'_>) -> Poll<Gone> {
        self.wire.session.borrow_mut().poll_gone(self.slot, cx)
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.wire.act(|s| s.close(self.slot));
        // Whoever waits for the last stream to end is told.
        self.wire.kick();
    }
}
