//! Flow control (RFC 9113 section 5.2 and 6.9): what may be sent, what the peer
//! may send, and when it is told that it may send more.

use super::frame::MOST;

/// What this side may send, in bytes. Below zero after the peer made its
/// initial window smaller.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) fn new(size: u32) -> Self {
        Self(i64::from(size))
    }

    /// False when it would be larger than a window may be (section 6.9.1).
    pub(super) fn grow(&mut self, by: i64) -> bool {
        self.0 += by;
        self.0 <= i64::from(MOST)
    }

    pub(super) fn room(self) -> usize {
        self.0.max(0) as usize
    }

    pub(super) fn take(&mut self, count: usize) {
        self.0 -= count as i64;
    }
}

/// What the peer may send, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecvWindow {
    size: u32,
    open: i64,
    used: u32,
}

impl RecvWindow {
    /// A window that is kept at `size`.
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            open: i64::from(size),
            used: 0,
        }
    }

    /// Counts what came. False when it is more than the peer was told.
    pub(super) fn take(&mut self, count: usize) -> bool {
        self.open -= count as i64;
        self.open >= 0
    }

    /// Counts what was used up. Gives what the peer is to be told: nothing until
    /// it is half a window.
    pub(super) fn release(&mut self, count: usize) -> Option<u32> {
        self.used += count as u32;
        if self.used < (self.size / 2).max(1) {
            return None;
        }
        self.open += i64::from(self.used);
        Some(std::mem::take(&mut self.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_come_at_half_a_window() {
        let mut window = RecvWindow::new(100);
        assert!(window.take(100));
        assert_eq!(window.release(49), None);
        assert_eq!(window.release(1), Some(50));
        assert_eq!(window.release(49), None);
        assert!(window.take(50));
        assert!(!window.take(1));
    }

    #[test]
    fn a_window_has_a_largest_size() {
        let mut window = SendWindow::new(10);
        window.take(10);
        assert!(window.grow(-5));
        assert_eq!(window.room(), 0);
        assert!(window.grow(i64::from(MOST)));
        assert_eq!(window.room(), MOST as usize - 5);
        assert!(!window.grow(6));
    }
}
