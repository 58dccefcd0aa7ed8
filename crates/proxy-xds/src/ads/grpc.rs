//! gRPC messages in HTTP/2 data: a flag byte, a length, the message.
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest message taken from the management server, bytes.
const MAX_MESSAGE: usize = 256 << 20;

/// Why a stream of messages cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is compressed; none was offered.
    #[error("the server sent a compressed message")]
    Compressed,
    /// The message is longer than this client takes.
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
}

/// Puts a message into its frame.
#[must_use]
pub fn frame(message: &impl lateen_xds_proto::Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(len + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    // Encoding into a buffer that grows cannot fail.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// Takes messages out of data as it arrives.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: BytesMut,
}

impl Deframer {
    /// Adds data.
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// When the stream cannot be read on.
    #[expect(
        clippy::should_implement_trait,
        reason = "more bytes can follow a `None`, which ends an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.buffer.len() < 5 {
            return Ok(None);
        }
        if self.buffer[0] != 0 {
            return Err(FrameError::Compressed);
        }
        let len = u32::from_be_bytes([
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
            self.buffer[4],
        ]) as usize;
        if len > MAX_MESSAGE {
            return Err(FrameError::TooLarge(len));
        }
        if self.buffer.len() < 5 + len {
            self.buffer.reserve(5 + len - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_any_pieces() {
        let one = frame(&lateen_xds_proto::StringValue {
            value: "hello".into(),
        });
        let mut all = one.to_vec();
        all.extend_from_slice(&one);
        for step in 1..all.len() {
            let mut d = Deframer::default();
            let mut seen = 0;
            for piece in all.chunks(step) {
                d.push(piece);
                while let Some(m) = d.next().unwrap() {
                    assert_eq!(&m[..], &one[5..]);
                    seen += 1;
                }
            }
            assert_eq!(seen, 2);
        }
        let mut d = Deframer::default();
        d.push(&[1, 0, 0, 0, 0]);
        assert_eq!(d.next(), Err(FrameError::Compressed));
        let mut d = Deframer::default();
        d.push(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(d.next(), Err(FrameError::TooLarge(_))));
    }
}
