//! Frames as bytes (RFC 9113 section 4.1 and 6): their heads, and whole control
//! frames.

use super::reason::Reason;

/// Length of a frame's head.
pub const HEAD: usize = 9;
/// Largest frame payload that both sides take without asking (section 4.2).
pub const PAYLOAD: usize = 16_384;
/// How a client begins (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest window and stream number.
pub const MOST: u32 = 0x7fff_ffff;

/// Kinds of frames.
#[expect(missing_docs, reason = "each is the frame type of that name")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[expect(missing_docs, reason = "each is the flag of that name")]
pub mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of payload.
    pub length: usize,
    /// One of [`kind`], or unknown.
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// Stream, 0 for the connection.
    pub stream: u32,
}

impl FrameHead {
    /// A head.
    pub const fn new(length: usize, kind: u8, flags: u8, stream: u32) -> Self {
        Self {
            length,
            kind,
            flags,
            stream,
        }
    }

    /// Reads the head at the front; none when it is not whole.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, s @ ..] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes(*s) & MOST,
        })
    }

    /// As bytes.
    pub fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [w, x, y, z] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, w, x, y, z]
    }

    /// Whether a flag is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame.
pub fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&FrameHead::new(payload.len(), kind, flags, stream).bytes());
    out.extend_from_slice(payload);
}

/// Appends RST_STREAM.
pub fn write_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    write(out, kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes());
}

/// Appends WINDOW_UPDATE.
pub fn write_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    write(
        out,
        kind::WINDOW_UPDATE,
        0,
        stream,
        &increment.to_be_bytes(),
    );
}

/// Appends PING.
pub fn write_ping(out: &mut Vec<u8>, ack: bool, data: &[u8]) {
    let flags = if ack { flag::ACK } else { 0 };
    write(out, kind::PING, flags, 0, data);
}

/// Appends GOAWAY.
pub fn write_goaway(out: &mut Vec<u8>, last: u32, reason: Reason) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&reason.0.to_be_bytes());
    write(out, kind::GOAWAY, 0, 0, &payload);
}

/// Appends SETTINGS.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let head = FrameHead::new(settings.len() * 6, kind::SETTINGS, 0, 0);
    out.extend_from_slice(&head.bytes());
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_as_it_was_written() {
        let head = FrameHead::new(0x01_02_03, kind::HEADERS, flag::PADDED, 0x7fff_fffe);
        assert_eq!(FrameHead::read(&head.bytes()), Some(head));
        assert_eq!(FrameHead::read(&head.bytes()[..8]), None);
        // The reserved bit is ignored.
        let mut bytes = head.bytes();
        bytes[5] |= 0x80;
        assert_eq!(FrameHead::read(&bytes), Some(head));
    }
}
