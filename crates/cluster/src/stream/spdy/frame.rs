//! SPDY/3.1 frames: bytes to frames and back (draft 3.1 section 2.2 and 2.6). Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::block::{BlockError, BlockReader, BlockWriter, Headers};

/// `RST_STREAM` status: the stream is malformed or out of order.
pub const PROTOCOL_ERROR: u32 = 1;
/// `RST_STREAM` status: no such stream.
pub const INVALID_STREAM: u32 = 2;
/// `RST_STREAM` status: refused before any processing.
pub const REFUSED_STREAM: u32 = 3;
/// `RST_STREAM` status: no longer needed.
pub const CANCEL: u32 = 5;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
/// The longest control frame taken; real ones have a few hundred bytes.
const MAX_CONTROL: usize = 128 * 1024;
/// The longest data frame taken; kubectl sends at most 32 KiB.
const MAX_DATA: usize = 1024 * 1024;

/// A frame from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    SynStream {
        /// Odd, growing.
        id: u32,
        /// The client will send no data on it.
        fin: bool,
        /// Names in lower case.
        headers: Headers,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        id: u32,
        /// The last of this direction.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// The abrupt end of a stream.
    Reset {
        /// The stream.
        id: u32,
    },
    /// Further headers (or a reply, which a client never sends); only `fin` matters here.
    Headers {
        /// The stream.
        id: u32,
        /// The last of this direction.
        fin: bool,
    },
    /// To be echoed.
    Ping {
        /// Odd from clients.
        id: u32,
    },
    /// The client opens no more streams.
    GoAway,
    /// SETTINGS, WINDOW_UPDATE, CREDENTIAL or a type unknown to the draft: nothing to do.
    Ignored,
}

/// Why the connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not version 3.
    #[error("SPDY version {0} is not spoken here")]
    Version(u16),
    /// Over the limits.
    #[error("SPDY frame of {0} bytes is too long")]
    TooLong(usize),
    /// Shorter than its type needs.
    #[error("SPDY frame of type {0} is too short")]
    TooShort(u16),
    /// A header block.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// Bytes to frames, for one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    blocks: BlockReader,
}

impl Decoder {
    /// Takes the next whole frame off the buffer; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]; the connection cannot go on after it.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(head) = buffer.first_chunk::<8>() else {
            return Ok(None);
        };
        let control = head[0] & 0x80 != 0;
        let flags = head[4];
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) & 0x7fff_ffff;
        if control && word >> 16 != u32::from(VERSION) {
            return Err(FrameError::Version((word >> 16) as u16));
        }
        if length > if control { MAX_CONTROL } else { MAX_DATA } {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < 8 + length {
            buffer.reserve(8 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(8);
        let body = buffer.split_to(length).freeze();
        let fin = flags & FLAG_FIN != 0;
        if control {
            self.control((word & 0xffff) as u16, fin, body).map(Some)
        } else {
            Ok(Some(Frame::Data {
                id: word,
                fin,
                data: body,
            }))
        }
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, FrameError> {
        let needed = match kind {
            1 => 10,
            2 | 6 | 8 => 4,
            3 | 7 => 8,
            _ => 0,
        };
        if body.len() < needed {
            return Err(FrameError::TooShort(kind));
        }
        match kind {
            1 => {
                let id = body.get_u32() & 0x7fff_ffff;
                body.advance(6); // associated stream, priority, credential slot
                let headers = self.blocks.read(&body)?;
                Ok(Frame::SynStream { id, fin, headers })
            }
            2 | 8 => {
                let id = body.get_u32() & 0x7fff_ffff;
                self.blocks.read(&body)?; // keeps the zlib state in step
                Ok(Frame::Headers { id, fin })
            }
            3 => Ok(Frame::Reset {
                id: body.get_u32() & 0x7fff_ffff,
            }),
            6 => Ok(Frame::Ping { id: body.get_u32() }),
            7 => Ok(Frame::GoAway),
            _ => Ok(Frame::Ignored),
        }
    }
}

/// Frames to bytes, for one connection.
#[derive(Debug, Default)]
pub struct Encoder {
    blocks: BlockWriter,
}

impl Encoder {
    /// Accepts a stream, with a reply without headers.
    ///
    /// # Errors
    /// [`BlockError::Compression`], should zlib refuse.
    pub fn reply(&mut self, id: u32, out: &mut BytesMut) -> Result<(), BlockError> {
        let block = self.blocks.write(&[])?;
        control(out, 2, 4 + block.len());
        out.put_u32(id);
        out.extend_from_slice(&block);
        Ok(())
    }

    /// Bytes of a stream; longer ones than a frame takes are split.
    pub fn data(&self, id: u32, mut data: &[u8], fin: bool, out: &mut BytesMut) {
        loop {
            let (now, rest) = data.split_at(data.len().min(MAX_DATA));
            let last = rest.is_empty();
            out.put_u32(id & 0x7fff_ffff);
            let flags = if fin && last { FLAG_FIN } else { 0 };
            out.put_u32(u32::from(flags) << 24 | now.len() as u32);
            out.extend_from_slice(now);
            if last {
                return;
            }
            data = rest;
        }
    }

    /// Ends a stream abruptly.
    pub fn reset(&self, id: u32, status: u32, out: &mut BytesMut) {
        control(out, 3, 8);
        out.put_u32(id);
        out.put_u32(status);
    }

    /// Echoes a ping.
    pub fn ping(&self, id: u32, out: &mut BytesMut) {
        control(out, 6, 4);
        out.put_u32(id);
    }

    /// Tells that received bytes were used, for clients that keep windows.
    pub fn window_update(&self, id: u32, by: u32, out: &mut BytesMut) {
        control(out, 9, 8);
        out.put_u32(id);
        out.put_u32(by & 0x7fff_ffff);
    }

    /// Ends the connection; `status` 0 = ok, 1 = protocol error.
    pub fn go_away(&self, last: u32, status: u32, out: &mut BytesMut) {
        control(out, 7, 8);
        out.put_u32(last);
        out.put_u32(status);
    }
}

fn control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(length as u32); // flags are zero, the length has 24 bits
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A client's `SYN_STREAM`.
    pub fn syn(blocks: &mut BlockWriter, id: u32, headers: &[(&str, &str)]) -> BytesMut {
        let block = blocks.write(headers).expect("a block");
        let mut out = BytesMut::new();
        control(&mut out, 1, 10 + block.len());
        out.put_u32(id);
        out.put_u32(0);
        out.put_u16(0);
        out.extend_from_slice(&block);
        out
    }

    fn one(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        Decoder::default().decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn a_stream_comes_in_pieces() {
        let (mut blocks, mut decoder) = (BlockWriter::default(), Decoder::default());
        let mut whole = syn(&mut blocks, 1, &[("streamtype", "error")]);
        whole.extend_from_slice(&syn(&mut blocks, 3, &[("streamtype", "stdin")]));
        Encoder::default().data(3, b"ls\n", true, &mut whole);
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in whole {
            buffer.put_u8(byte);
            frames.extend(decoder.decode(&mut buffer).expect("well formed"));
        }
        assert_eq!(frames.len(), 3);
        assert!(
            matches!(&frames[1], Frame::SynStream { id: 3, fin: false, headers }
            if headers[0].1 == "stdin")
        );
        let data = Bytes::from_static(b"ls\n");
        assert_eq!(
            frames[2],
            Frame::Data {
                id: 3,
                fin: true,
                data
            }
        );
    }

    #[test]
    fn control_frames_round() {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::default();
        encoder.ping(7, &mut out);
        encoder.reset(1, CANCEL, &mut out);
        encoder.window_update(1, 10, &mut out);
        encoder.go_away(1, 0, &mut out);
        encoder.reply(1, &mut out).expect("a reply");
        let mut decoder = Decoder::default();
        let mut next = || decoder.decode(&mut out).expect("well formed");
        assert_eq!(next(), Some(Frame::Ping { id: 7 }));
        assert_eq!(next(), Some(Frame::Reset { id: 1 }));
        assert_eq!(next(), Some(Frame::Ignored));
        assert_eq!(next(), Some(Frame::GoAway));
        assert_eq!(next(), Some(Frame::Headers { id: 1, fin: false }));
        assert_eq!(next(), None);
    }

    #[test]
    fn limits_and_versions_are_kept() {
        assert_eq!(
            one(&[0x80, 2, 0, 1, 0, 0, 0, 0]),
            Err(FrameError::Version(2))
        );
        assert_eq!(
            one(&[0x80, 3, 0, 1, 0, 0xff, 0, 0]),
            Err(FrameError::TooLong(0xff_0000))
        );
        assert_eq!(
            one(&[0, 0, 0, 1, 0, 0xff, 0, 0]),
            Err(FrameError::TooLong(0xff_0000))
        );
        assert_eq!(
            one(&[0x80, 3, 0, 3, 0, 0, 0, 1, 0]),
            Err(FrameError::TooShort(3))
        );
        assert_eq!(
            one(&[0x80, 3, 0, 77, 0, 0, 0, 1, 0]),
            Ok(Some(Frame::Ignored))
        );
        assert_eq!(one(b"GET / HT"), Err(FrameError::TooLong(0x20_4854)));
        assert_eq!(one(&[0x80]), Ok(None));
    }

    #[test]
    fn long_data_is_split() {
        let mut out = BytesMut::new();
        Encoder::default().data(1, &vec![0; MAX_DATA + 1], true, &mut out);
        let mut decoder = Decoder::default();
        let mut next = || decoder.decode(&mut out).expect("well formed");
        assert!(
            matches!(next(), Some(Frame::Data { fin: false, data, .. }) if data.len() == MAX_DATA)
        );
        assert!(matches!(next(), Some(Frame::Data { fin: true, data, .. }) if data.len() == 1));
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 1u32;
        let mut random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as u8
        };
        let mut valid = syn(&mut BlockWriter::default(), 1, &[("streamtype", "error")]);
        Encoder::default().data(1, b"hello", true, &mut valid);
        for round in 0..5000 {
            // Half of the rounds are noise, half are a valid stream with a few bytes changed.
            let mut bytes = if round % 2 == 0 {
                BytesMut::from_iter((0..64).map(|_| random()))
            } else {
                let mut bytes = valid.clone();
                for _ in 0..3 {
                    let at = usize::from(random()) % bytes.len();
                    bytes[at] = random();
                }
                bytes
            };
            let mut decoder = Decoder::default();
            let mut frames = 0;
            while let Ok(Some(_)) = decoder.decode(&mut bytes) {
                frames += 1;
            }
            assert!(frames <= 64, "every frame takes at least its head");
        }
    }
}
