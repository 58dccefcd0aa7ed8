//! Bodies on the wire: by length, by chunks with trailers, or until the end of
//! the connection. The decoder names pieces of the caller's buffer and copies
//! nothing but trailers.

use super::Framing;

/// Longest chunk-size line and largest trailer block accepted.
const LINE_LIMIT: usize = 16 * 1024;
const TRAILER_LIMIT: usize = 60 * 1024;

/// A body that is not what its framing promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk-size line, chunk end or trailer is malformed.
    #[error("malformed chunked body")]
    Chunk,
    /// A line or the trailers are longer than the limit.
    #[error("chunk line or trailers too long")]
    TooLong,
    /// The connection ended inside the body.
    #[error("body ended early")]
    Truncated,
}

/// What is next in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `skip` bytes of framing, then `len` bytes of data; both are consumed.
    Data {
        /// Framing bytes before the data.
        skip: usize,
        /// Data bytes.
        len: usize,
    },
    /// These framing bytes are consumed; more input is needed.
    More(usize),
    /// These framing bytes are consumed and the body is over.
    End(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Close,
    Size { line: usize },
    Data(u64),
    DataEnd { cr: bool },
    Trailers,
    Done,
}

/// Finds the data in the bytes of one message's body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    size: Size,
    /// Trailer lines as received, each ended by CRLF.
    pub trailers: Vec<u8>,
}

/// The chunk-size line as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    value: u64,
    digits: u8,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Digits,
    Space,
    Extension,
    Quoted,
    Escaped,
    Cr,
}

impl BodyDecoder {
    /// A decoder for a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let mut decoder = Self {
            state: State::Done,
            size: Size::default(),
            trailers: Vec::new(),
        };
        decoder.restart(framing);
        decoder
    }

    /// Begins another body, memory kept.
    pub fn restart(&mut self, framing: Framing) {
        self.trailers.clear();
        self.size = Size::default();
        self.state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Size { line: 0 },
            Framing::Close => State::Close,
        };
    }

    /// Whether the whole body was seen.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::Close
    }

    /// The connection ended: fine only where that is the framing.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Close | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// What the next bytes are. The caller drops what the piece consumed and
    /// asks again until `More` or `End`.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, BodyError> {
        let mut skip = 0;
        loop {
            let rest = &input[skip..];
            match self.state {
                State::Done => return Ok(Piece::End(skip)),
                State::Length(0) => self.state = State::Done,
                State::Length(_) | State::Close if rest.is_empty() => return Ok(Piece::More(skip)),
                State::Length(left) => {
                    let len = (rest.len() as u64).min(left) as usize;
                    self.state = State::Length(left - len as u64);
                    if left == len as u64 {
                        self.state = State::Done;
                    }
                    return Ok(Piece::Data { skip, len });
                }
                State::Close => {
                    let len = rest.len();
                    return Ok(Piece::Data { skip, len });
                }
                State::Data(left) => {
                    if rest.is_empty() {
                        return Ok(Piece::More(skip));
                    }
                    let len = (rest.len() as u64).min(left) as usize;
                    self.state = match left - len as u64 {
                        0 => State::DataEnd { cr: false },
                        n => State::Data(n),
                    };
                    return Ok(Piece::Data { skip, len });
                }
                State::Size { line } => match self.size_line(rest, line)? {
                    Some(used) => skip += used,
                    None => return Ok(Piece::More(input.len())),
                },
                State::DataEnd { cr } => match rest.first() {
                    None => return Ok(Piece::More(skip)),
                    Some(b'\r') if !cr => {
                        skip += 1;
                        self.state = State::DataEnd { cr: true };
                    }
                    Some(b'\n') if cr => {
                        skip += 1;
                        self.state = State::Size { line: 0 };
                    }
                    Some(_) => return Err(BodyError::Chunk),
                },
                State::Trailers => match self.trailer(rest)? {
                    Some(used) => skip += used,
                    None => return Ok(Piece::More(input.len())),
                },
            }
        }
    }

    /// Reads the size line; `Some(bytes)` when it is complete.
    fn size_line(&mut self, rest: &[u8], line: usize) -> Result<Option<usize>, BodyError> {
        for (at, byte) in rest.iter().enumerate() {
            if self.size.step(*byte)? {
                self.state = match self.size.value {
                    0 => State::Trailers,
                    n => State::Data(n),
                };
                self.size = Size::default();
                return Ok(Some(at + 1));
            }
        }
        let line = line + rest.len();
        if line > LINE_LIMIT {
            return Err(BodyError::TooLong);
        }
        self.state = State::Size { line };
        Ok(None)
    }

    /// Collects trailer bytes; `Some(bytes)` when the empty line was met.
    fn trailer(&mut self, rest: &[u8]) -> Result<Option<usize>, BodyError> {
        let mut used = 0;
        for line in rest.split_inclusive(|b| *b == b'\n') {
            used += line.len();
            if self.trailers.len() + line.len() > TRAILER_LIMIT {
                return Err(BodyError::TooLong);
            }
            self.trailers.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                continue;
            }
            if !self.trailers.ends_with(b"\r\n") {
                return Err(BodyError::Chunk);
            }
            if self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n") {
                let len = self.trailers.len() - 2;
                self.trailers.truncate(len);
                self.check_trailers()?;
                self.state = State::Done;
                return Ok(Some(used));
            }
        }
        Ok(None)
    }

    /// Trailers must be header lines, and never framing or routing ones
    /// (RFC 9110 section 6.5.1).
    fn check_trailers(&self) -> Result<(), BodyError> {
        self.each_trailer(|name, _| {
            !matches!(
                name.to_ascii_lowercase().as_slice(),
                b"content-length" | b"transfer-encoding" | b"host"
            )
        })
    }

    /// Visits the trailer lines; `visit` says whether a line is acceptable.
    pub fn each_trailer(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), BodyError> {
        if self.trailers.is_empty() {
            return Ok(());
        }
        let mut lines = [httparse::EMPTY_HEADER; 100];
        let mut block = self.trailers.clone();
        block.extend_from_slice(b"\r\n");
        match httparse::parse_headers(&block, &mut lines) {
            Ok(httparse::Status::Complete((_, lines))) => {
                let fine = |l: &httparse::Header<'_>| visit(l.name.as_bytes(), l.value);
                lines.iter().all(fine).then_some(()).ok_or(BodyError::Chunk)
            }
            _ => Err(BodyError::Chunk),
        }
    }
}

impl Size {
    /// Takes one byte of a chunk-size line; true at its end.
    fn step(&mut self, byte: u8) -> Result<bool, BodyError> {
        self.place = match (self.place, byte) {
            (Place::Digits, b) if b.is_ascii_hexdigit() => {
                if self.digits == 15 {
                    return Err(BodyError::Chunk);
                }
                self.digits += 1;
                self.value = self.value << 4 | u64::from((b as char).to_digit(16).unwrap_or(0));
                Place::Digits
            }
            _ if self.digits == 0 => return Err(BodyError::Chunk),
            (Place::Digits | Place::Space, b' ' | b'\t') => Place::Space,
            (Place::Digits | Place::Space, b';') => Place::Extension,
            (Place::Digits | Place::Space | Place::Extension, b'\r') => Place::Cr,
            (Place::Cr, b'\n') => return Ok(true),
            (Place::Extension, b'"') => Place::Quoted,
            (Place::Quoted, b'\\') => Place::Escaped,
            (Place::Quoted, b'"') => Place::Extension,
            (_, b) if b == 0x7f || (b < b' ' && b != b'\t') => return Err(BodyError::Chunk),
            (Place::Extension, _) => Place::Extension,
            (Place::Quoted | Place::Escaped, _) => Place::Quoted,
            _ => return Err(BodyError::Chunk),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the input in pieces of `step` bytes.
    fn decode(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, usize), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut data, mut at, mut have) = (Vec::new(), 0, 0);
        loop {
            match decoder.next(&input[at..have])? {
                Piece::Data { skip, len } => {
                    data.extend_from_slice(&input[at + skip..at + skip + len]);
                    at += skip + len;
                }
                Piece::End(skip) => return Ok((data, at + skip)),
                Piece::More(skip) => {
                    at += skip;
                    if have == input.len() {
                        decoder.finish()?;
                        return Ok((data, at));
                    }
                    have = (have + step).min(input.len());
                }
            }
        }
    }

    #[test]
    fn chunks_in_any_cut() {
        let text = b"5;x=\"a;\\\"b\"\r\nhello\r\n6 \r\n world\r\n0\r\nX-T: 1\r\n\r\nNEXT";
        for step in 1..text.len() {
            let (data, used) = decode(Framing::Chunked, text, step).unwrap();
            assert_eq!(data, b"hello world");
            assert_eq!(used, text.len() - 4, "step {step}");
        }
    }

    #[test]
    fn bad_chunks() {
        for bad in [
            &b"0x5\r\nhello\r\n0\r\n\r\n"[..],
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"\r\nhello",
            b"ffffffffffffffffff\r\n",
            b"5;a=\"\nb\"\r\nhello\r\n0\r\n\r\n",
            b"0\r\ncontent-length: 3\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nx: y\n\r\n",
        ] {
            for step in [1, bad.len()] {
                let result = decode(Framing::Chunked, bad, step);
                assert_eq!(result, Err(BodyError::Chunk), "{}", bad.escape_ascii());
            }
        }
        let cut = decode(Framing::Chunked, b"5\r\nhel", 7);
        assert_eq!(cut, Err(BodyError::Truncated));
    }

    #[test]
    fn length_and_close() {
        assert_eq!(
            decode(Framing::Length(3), b"abcdef", 6),
            Ok((b"abc".to_vec(), 3))
        );
        assert_eq!(
            decode(Framing::Close, b"abcdef", 2),
            Ok((b"abcdef".to_vec(), 6))
        );
        assert_eq!(
            decode(Framing::Length(9), b"abcdef", 2),
            Err(BodyError::Truncated)
        );
    }

    proptest::proptest! {
        #[test]
        fn every_cut_gives_the_same_body(
            bodies in proptest::collection::vec(
                proptest::collection::vec(proptest::prelude::any::<u8>(), 1..40), 0..6),
            step in 1_usize..20,
            noise in proptest::option::of((0_usize..200, proptest::prelude::any::<u8>())),
        ) {
            let mut wire = Vec::new();
            for body in &bodies {
                wire.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                wire.extend_from_slice(body);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            match noise {
                None => {
                    let (data, used) = decode(Framing::Chunked, &wire, step).unwrap();
                    proptest::prop_assert_eq!(data, bodies.concat());
                    proptest::prop_assert_eq!(used, wire.len());
                }
                Some((at, byte)) => {
                    let at = at % wire.len();
                    wire[at] = byte;
                    let cut = decode(Framing::Chunked, &wire, step);
                    let whole = decode(Framing::Chunked, &wire, wire.len());
                    proptest::prop_assert_eq!(cut.is_ok(), whole.is_ok());
                    if let (Ok(cut), Ok(whole)) = (cut, whole) {
                        proptest::prop_assert_eq!(cut, whole);
                    }
                }
            }
        }
    }
}
