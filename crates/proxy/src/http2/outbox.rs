//! Bytes to be sent, in two pieces: one that is on its way and one that grows,
//! so that nothing is moved when a write takes a part. Both give their memory
//! back when all is sent.

use std::io::IoSlice;

use super::frame::{FrameHead, HEAD, flag, kind};
use super::reason::ConnectionError;
use super::settings::Settings;
use crate::io::buffer;

/// Bytes beyond which no more of a body is taken.
pub(super) const FULL: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    frames: u32,
    control: u32,
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    going: Part,
    sent: usize,
    growing: Part,
    /// Stream and place of the last frame, when it is DATA without an end.
    last_data: Option<(u32, usize)>,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.going.bytes.len() - self.sent + self.growing.bytes.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Room for bodies.
    pub(super) fn room(&self) -> usize {
        FULL.saturating_sub(self.len())
    }

    fn grow(&mut self) -> &mut Vec<u8> {
        self.last_data = None;
        if self.growing.bytes.capacity() == 0 {
            self.growing.bytes = buffer::take_small();
        }
        self.growing.frames += 1;
        &mut self.growing.bytes
    }

    /// Where a frame with a message's part is appended.
    pub(super) fn message(&mut self) -> &mut Vec<u8> {
        self.grow()
    }

    /// Where a control frame is appended.
    pub(super) fn control(&mut self) -> &mut Vec<u8> {
        self.growing.control += 1;
        self.grow()
    }

    /// Appends a DATA frame.
    pub(super) fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        let flags = if end { flag::END_STREAM } else { 0 };
        let head = FrameHead::new(data.len(), kind::DATA, flags, stream);
        let out = self.grow();
        let place = out.len();
        out.extend_from_slice(&head.bytes());
        out.extend_from_slice(data);
        if !end {
            self.last_data = Some((stream, place));
        }
    }

    /// Ends a stream: in its last DATA frame where that is still the last.
    pub(super) fn end(&mut self, stream: u32) {
        match self.last_data.take() {
            Some((last, place)) if last == stream => {
                self.growing.bytes[place + 4] |= flag::END_STREAM;
            }
            _ => self.data(stream, &[], true),
        }
    }

    /// More waits than a peer that reads would leave.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), ConnectionError> {
        let control = self.going.control + self.growing.control;
        if control > settings.outbound_control {
            return Err(ConnectionError::calm("outbound control frames flood"));
        }
        if self.going.frames + self.growing.frames > settings.outbound_frames {
            return Err(ConnectionError::calm("outbound frames flood"));
        }
        Ok(())
    }

    /// What is to be written next.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 2] {
        [
            IoSlice::new(&self.going.bytes[self.sent..]),
            IoSlice::new(&self.growing.bytes),
        ]
    }

    /// So many bytes of [`Outbox::slices`] were written.
    pub(super) fn advance(&mut self, count: usize) {
        let left = self.going.bytes.len() - self.sent;
        if count < left {
            self.sent += count;
            return;
        }
        self.last_data = None;
        self.sent = count - left;
        let done = std::mem::replace(&mut self.going, std::mem::take(&mut self.growing));
        buffer::give_small(done.bytes);
        if self.sent == self.going.bytes.len() {
            buffer::give_small(std::mem::take(&mut self.going).bytes);
            self.sent = 0;
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        let count = self.len();
        self.advance(count);
    }

    /// Bytes that make up a frame's head, left free for [`close_head`].
    pub(super) fn open_head(out: &mut Vec<u8>) -> usize {
        out.extend_from_slice(&[0; HEAD]);
        out.len() - HEAD
    }
}

/// Fills in the head of a HEADERS frame whose block was written behind the
/// place, and cuts the block into frames that the peer takes. Returns how many
/// frames there are.
pub(super) fn close_head(
    out: &mut Vec<u8>,
    place: usize,
    stream: u32,
    end: bool,
    largest: usize,
) -> u32 {
    let end = if end { flag::END_STREAM } else { 0 };
    let length = out.len() - place - HEAD;
    if length <= largest {
        let head = FrameHead::new(length, kind::HEADERS, flag::END_HEADERS | end, stream);
        out[place..place + HEAD].copy_from_slice(&head.bytes());
        return 1;
    }
    let block = out.split_off(place + HEAD);
    out.truncate(place);
    let mut frames = 0;
    let mut rest = &block[..];
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(largest));
        let (kind, mut flags) = match frames {
            0 => (kind::HEADERS, end),
            _ => (kind::CONTINUATION, 0),
        };
        if more.is_empty() {
            flags |= flag::END_HEADERS;
        }
        super::frame::write(out, kind, flags, stream, piece);
        rest = more;
        frames += 1;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let joined: Vec<u8> = outbox.slices().iter().flat_map(|s| s.to_vec()).collect();
            let count = step.min(joined.len());
            all.extend_from_slice(&joined[..count]);
            outbox.advance(count);
        }
        all
    }

    #[test]
    fn bytes_leave_in_order_whatever_is_taken() {
        for step in [1, 7, 10_000] {
            let mut outbox = Outbox::default();
            outbox.data(1, b"one", false);
            outbox.advance(4);
            outbox.data(3, b"two", false);
            outbox.end(3);
            outbox.end(1);
            let all = sent(&mut outbox, step);
            let mut want = b"\0\0\0\0\x01one".to_vec();
            want.extend_from_slice(b"\0\0\x03\0\x01\0\0\0\x03two\0\0\0\0\x01\0\0\0\x01");
            assert_eq!(
                all.escape_ascii().to_string(),
                want.escape_ascii().to_string()
            );
            assert_eq!(outbox.going.bytes.capacity(), 0);
        }
    }

    #[test]
    fn a_large_block_is_cut() {
        let mut out = b"before".to_vec();
        let place = Outbox::open_head(&mut out);
        out.extend_from_slice(&[b'x'; 25]);
        assert_eq!(close_head(&mut out, place, 5, true, 10), 3);
        let heads = [(10, 1, 1), (10, 9, 0), (5, 9, flag::END_HEADERS)];
        let mut at = 6;
        for (length, kind, flags) in heads {
            let head = FrameHead::read(&out[at..]).unwrap();
            assert_eq!(head, FrameHead::new(length, kind, flags, 5));
            at += HEAD + length;
        }
        assert_eq!(at, out.len());
    }
}
