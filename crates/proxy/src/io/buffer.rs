//! Read buffers that an idle connection does not hold: memory is taken from the
//! thread's pool when bytes arrive and given back when they are consumed, last
//! in, first out, so that the warmest memory is used next.

use std::cell::RefCell;
use std::task::{Context, Poll, ready};

use super::Io;

/// Size of a pooled buffer in bytes: one TLS record of plain text.
pub const SIZE: usize = 16 * 1024;
/// Most buffers a thread keeps when they are free.
const KEEP: usize = 64;

/// First size of a staging vector in bytes.
const STAGED: usize = 2048;

thread_local! {
    static SMALL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Takes a zeroed-once buffer of [`SIZE`] bytes.
pub fn take() -> Vec<u8> {
    let pooled = POOL.with(|pool| pool.borrow_mut().pop());
    pooled.unwrap_or_else(|| vec![0; SIZE])
}

/// Gives a buffer back; odd sizes are freed.
pub fn give(memory: Vec<u8>) {
    if memory.len() == SIZE {
        POOL.with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEEP {
                pool.push(memory);
            }
        });
    }
}

/// Takes an empty vector to stage a head in.
pub fn take_small() -> Vec<u8> {
    let pooled = SMALL.with(|pool| pool.borrow_mut().pop());
    pooled.unwrap_or_else(|| Vec::with_capacity(STAGED))
}

/// Gives a staging vector back; one that grew much is freed.
pub fn give_small(mut memory: Vec<u8>) {
    if memory.capacity() == 0 || memory.capacity() > 2 * SIZE {
        return;
    }
    memory.clear();
    SMALL.with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < KEEP {
            pool.push(memory);
        }
    });
}

/// Bytes read and not yet consumed.
#[derive(Debug, Default)]
pub struct Buf {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buf {
    /// A buffer without memory.
    pub const fn new() -> Self {
        Self {
            memory: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// What is there to be consumed.
    pub fn data(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Bytes there.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops bytes from the front; memory goes back with the last one.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.release();
        }
    }

    fn release(&mut self) {
        self.start = 0;
        self.end = 0;
        if !self.memory.is_empty() {
            give(std::mem::take(&mut self.memory));
        }
    }

    /// Puts bytes in as if they had been read.
    pub fn put(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.make_room(bytes.len());
        self.memory[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Makes sure that `least` bytes fit after the data.
    fn make_room(&mut self, least: usize) {
        if self.memory.is_empty() {
            self.memory = take();
        }
        if self.memory.len() - self.end >= least {
            return;
        }
        self.memory.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.memory.len() - self.end < least {
            let size = (self.memory.len() * 2).max(self.end + least);
            self.memory.resize(size, 0);
        }
    }

    /// Reads once; 0 is the end of the stream. A full buffer grows.
    pub fn poll_fill(&mut self, io: &Io, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.memory.is_empty() {
            ready!(io.poll_may_read(cx));
        }
        self.make_room(1);
        let result = io.poll_read(cx, &mut self.memory[self.end..]);
        if result.is_pending() && self.is_empty() {
            self.release();
        }
        let count = match ready!(result) {
            Ok(count) => count,
            Err(error) => return Poll::Ready(Err(error)),
        };
        self.end += count;
        if self.is_empty() {
            self.release();
        }
        Poll::Ready(Ok(count))
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_returns_when_empty() {
        let mut buf = Buf::new();
        buf.put(b"hello");
        assert_eq!(buf.data(), b"hello");
        buf.consume(2);
        assert_eq!(buf.data(), b"llo");
        buf.put(&[7; SIZE]);
        assert_eq!(buf.len(), SIZE + 3);
        buf.consume(SIZE + 3);
        assert!(buf.memory.is_empty());
    }
}
