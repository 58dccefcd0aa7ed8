//! Pipes that carry bytes between two sockets inside the kernel (splice(2)).
//! Empty pipes are kept per thread.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use nix::fcntl::{OFlag, SpliceFFlags, splice};
use tokio::io::Interest;

use crate::io::Io;

/// Bytes asked for at once; a pipe's usual capacity.
const FILL: usize = 64 * 1024;
/// Most empty pipes a thread keeps.
const KEEP: usize = 64;

thread_local! {
    static EMPTY: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
}

/// A pipe in use.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: Option<(OwnedFd, OwnedFd)>,
    /// Bytes inside.
    pub(super) held: usize,
}

impl Pipe {
    /// Takes an empty pipe.
    pub(super) fn take() -> io::Result<Self> {
        let kept = EMPTY.with(|pool| pool.borrow_mut().pop());
        let ends = match kept {
            Some(ends) => ends,
            None => nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?,
        };
        Ok(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Takes from the socket; 0 is its end. The pipe is empty before, so that
    /// "would block" speaks of the socket.
    pub(super) fn poll_fill(&mut self, from: &Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((_, write)) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(from.poll_readable(cx))?;
            let moved = from.try_tcp(Interest::READABLE, |stream| {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
                Ok(splice(stream, None, write, None, FILL, flags)?)
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
        let Some((read, _)) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            ready!(to.poll_writable(cx))?;
            let held = self.held;
            let moved = to.try_tcp(Interest::WRITABLE, |stream| {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
                Ok(splice(read, None, stream, None, held, flags)?)
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
                    pool.push(ends);
                }
            });
        }
    }
}
