//! Pipes that carry bytes between two sockets inside the kernel (splice(2)).
//! Empty pipes are kept per thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use tokio::io::Interest;

use crate::io::Io;

/// A pipe's usual capacity, in bytes.
const USUAL: usize = 64 * 1024;
/// Capacity that the first pipes of a thread are asked to have: segments that are not full take a
/// page each, so that the usual one holds less than it says.
const WIDE: usize = 256 * 1024;
/// Most wide pipes of a thread: a user's pipes are limited in sum, and past that limit new ones hold
/// next to nothing (pipe(7), pipe-user-pages-soft: 256 wide ones).
const MOST_WIDE: usize = 8;
/// Most empty pipes a thread keeps.
const KEEP: usize = 64;

thread_local! {
    /// Wide ones last, where the next is taken.
    static EMPTY: RefCell<VecDeque<Ends>> = const { RefCell::new(VecDeque::new()) };
    static WIDE_ONES: Cell<usize> = const { Cell::new(0) };
}

/// Both ends of a pipe.
#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let mut ends = Self {
            read,
            write,
            capacity: USUAL,
        };
        if WIDE_ONES.get() < MOST_WIDE {
            ends.widen();
        }
        Ok(ends)
    }

    fn widen(&mut self) {
        let size = i32::try_from(WIDE).unwrap_or(i32::MAX);
        match fcntl(&self.write, FcntlArg::F_SETPIPE_SZ(size)) {
            Ok(_) => {
                self.capacity = WIDE;
                WIDE_ONES.set(WIDE_ONES.get() + 1);
            }
            Err(error) => tracing::trace!(%error, "a pipe stays narrow"),
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.capacity == WIDE {
            // The thread may be at its end.
            let _ = WIDE_ONES.try_with(|ones| ones.set(ones.get().saturating_sub(1)));
        }
    }
}

/// A pipe in use.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: Option<Ends>,
    /// Bytes inside.
    pub(super) held: usize,
}

impl Pipe {
    /// Takes an empty pipe.
    pub(super) fn take() -> io::Result<Self> {
        let kept = EMPTY.with(|pool| pool.borrow_mut().pop_back());
        Ok(Self {
            ends: Some(kept.map_or_else(Ends::new, Ok)?),
            held: 0,
        })
    }

    /// Takes from the socket; 0 is its end. The pipe is empty before, so that
    /// "would block" speaks of the socket.
    pub(super) fn poll_fill(&mut self, from: &Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(from.poll_readable(cx))?;
            let moved = from.try_tcp(Interest::READABLE, |stream| {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
                Ok(splice(
                    stream,
                    None,
                    &ends.write,
                    None,
                    ends.capacity,
                    flags,
                )?)
            });
            match moved {
                Ok(count) => {
                    self.held = count;
                    if count == 0 {
                        from.end();
                    }
                    from.count(count as u64, 0);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives to the socket.
    pub(super) fn poll_drain(&mut self, to: &Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(to.poll_writable(cx))?;
            let held = self.held;
            let moved = to.try_tcp(Interest::WRITABLE, |stream| {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
                Ok(splice(&ends.read, None, stream, None, held, flags)?)
            });
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held -= count;
                    to.count(0, count as u64);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // A pipe with bytes inside belongs to this connection alone.
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0) {
            let _ = EMPTY.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < KEEP {
                    match ends.capacity {
                        WIDE => pool.push_back(ends),
                        _ => pool.push_front(ends),
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_few_wide_pipes_and_uses_them_first() {
        let capacity = |pipe: &Pipe| pipe.ends.as_ref().map(|ends| ends.capacity);
        let mut pipes: Vec<Pipe> = (0..=MOST_WIDE).map(|_| Pipe::take().unwrap()).collect();
        assert_eq!(
            pipes.iter().filter(|p| capacity(p) == Some(WIDE)).count(),
            MOST_WIDE
        );
        assert_eq!(capacity(&pipes[MOST_WIDE]), Some(USUAL));
        // The narrow one was given back last and is not taken next.
        pipes.truncate(1);
        drop(pipes);
        assert_eq!(capacity(&Pipe::take().unwrap()), Some(WIDE));
        // One with bytes inside is closed, and its place is free.
        let mut full = Pipe::take().unwrap();
        full.held = 1;
        let before = WIDE_ONES.get();
        drop(full);
        assert_eq!(WIDE_ONES.get(), before - 1);
    }
}
