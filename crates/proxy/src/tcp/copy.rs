//! Bytes both ways between two connections until both directions ended. Each
//! direction ends on its own: the end of one is passed on as the end of the
//! sending side, and the other goes on. Past the first 64 KiB in a direction,
//! plain TCP is spliced in the kernel.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::splice::Pipe;
use crate::io::timer::{self, NEVER};
use crate::io::{Buf, Io, Timer};

/// Bytes after which a direction is spliced.
const SPLICE_AFTER: u64 = 64 * 1024;

/// One of the two connections, with what was read of it already.
#[derive(Debug)]
pub struct Side<'a> {
    io: &'a Io,
    buf: &'a mut Buf,
}

impl<'a> Side<'a> {
    /// A side.
    pub fn new(io: &'a Io, buf: &'a mut Buf) -> Self {
        Self { io, buf }
    }
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both directions came to their end.
    Finished,
    /// The downstream connection broke.
    Downstream,
    /// The upstream connection broke.
    Upstream,
    /// Nothing moved for too long.
    Idle,
    /// The connection lived too long.
    TooOld,
}

/// What a copy moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Bytes from downstream to upstream.
    pub upward: u64,
    /// Bytes from upstream to downstream.
    pub downward: u64,
    /// How it ended.
    pub ended: Ended,
    /// Whose end of sending came first; none = nobody's did.
    pub first: Option<Peer>,
}

/// One of the two that a copy stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The client.
    Downstream,
    /// The upstream.
    Upstream,
}

/// How long a copy may last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// Until this moment of the timer's clock; 0 = for ever.
    pub until: u64,
}

enum Fault {
    Read,
    Write,
}

#[derive(Default)]
struct Direction {
    moved: u64,
    eof: bool,
    done: bool,
    pipe: Option<Pipe>,
}

impl Direction {
    fn poll(
        &mut self,
        from: &Io,
        buf: &mut Buf,
        to: &Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if !buf.is_empty() {
                let sent = ready!(to.poll_write(cx, &[IoSlice::new(buf.data())]));
                let count = sent.map_err(|_| Fault::Write)?;
                if count == 0 {
                    return Poll::Ready(Err(Fault::Write));
                }
                buf.consume(count);
                self.moved += count as u64;
                continue;
            }
            if self.eof {
                // A peer that is gone already needs no FIN.
                let _ = ready!(to.poll_shutdown(cx));
                self.done = true;
                continue;
            }
            if self.moved >= SPLICE_AFTER && from.is_plain_tcp() && to.is_plain_tcp() {
                ready!(self.poll_splice(from, to, cx))?;
                continue;
            }
            match buf.poll_fill(from, cx) {
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::Read)),
                Poll::Pending => {
                    ready!(to.poll_flush(cx)).map_err(|_| Fault::Write)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Moves one pipe's fill.
    fn poll_splice(&mut self, from: &Io, to: &Io, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.pipe.is_none() {
            self.pipe = Some(Pipe::take().map_err(|_| Fault::Read)?);
        }
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Err(Fault::Read));
        };
        if pipe.held == 0 {
            let Poll::Ready(filled) = pipe.poll_fill(from, cx) else {
                // Who waits holds no pipe: there may be many who do.
                self.pipe = None;
                return Poll::Pending;
            };
            match filled {
                Ok(0) => {
                    self.eof = true;
                    self.pipe = None;
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(Fault::Read)),
            }
        }
        let count = ready!(pipe.poll_drain(to, cx)).map_err(|_| Fault::Write)?;
        self.moved += count as u64;
        Poll::Ready(Ok(()))
    }
}

/// Moves bytes until both directions ended, one broke, or a limit passed.
pub async fn copy(
    down: Side<'_>,
    up: Side<'_>,
    timer: &Timer,
    limits: impl Into<Option<Limits>>,
) -> Moved {
    let limits = limits.into().unwrap_or_default();
    let (mut upward, mut downward) = (Direction::default(), Direction::default());
    let mut last = u64::MAX;
    let mut idle_at = NEVER;
    let mut first = None;
    let ended = poll_fn(|cx| {
        let one = upward.poll(down.io, down.buf, up.io, cx);
        if upward.eof {
            first.get_or_insert(Peer::Downstream);
        }
        if let Poll::Ready(Err(fault)) = one {
            return Poll::Ready(broken(fault, true));
        }
        let two = downward.poll(up.io, up.buf, down.io, cx);
        if downward.eof {
            first.get_or_insert(Peer::Upstream);
        }
        if let Poll::Ready(Err(fault)) = two {
            return Poll::Ready(broken(fault, false));
        }
        if upward.done && downward.done {
            return Poll::Ready(Ended::Finished);
        }
        let moved = upward.moved + downward.moved;
        if moved != last {
            last = moved;
            idle_at = timer::deadline(timer::now_ms(), limits.idle);
        }
        let until = if limits.until == 0 {
            NEVER
        } else {
            limits.until
        };
        timer.set(idle_at.min(until));
        timer.poll(cx).map(|()| {
            if idle_at <= until {
                Ended::Idle
            } else {
                Ended::TooOld
            }
        })
    })
    .await;
    timer.set(NEVER);
    Moved {
        upward: upward.moved,
        downward: downward.moved,
        ended,
        first,
    }
}

fn broken(fault: Fault, upward: bool) -> Ended {
    match (fault, upward) {
        (Fault::Read, true) | (Fault::Write, false) => Ended::Downstream,
        (Fault::Read, false) | (Fault::Write, true) => Ended::Upstream,
    }
}
