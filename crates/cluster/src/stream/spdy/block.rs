//! SPDY/3 header blocks: name/value pairs in one zlib stream per direction with the fixed
//! dictionary of the SPDY/3 draft (section 2.6.10.1). Pure.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Names and values of one block.
pub type Headers = Vec<(String, String)>;

/// The most bytes a block may decompress to.
const MAX_BLOCK: usize = 64 * 1024;
/// The most pairs in a block.
const MAX_PAIRS: usize = 256;

/// Why a header block is refused; the connection cannot go on, as the zlib state is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not zlib, or not with the dictionary.
    #[error("malformed compressed header block")]
    Compression,
    /// Lengths do not add up.
    #[error("malformed header block")]
    Malformed,
    /// Over the limits.
    #[error("header block too large")]
    TooLarge,
}

/// Words of the dictionary, each preceded by its length as 32 bits.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match \
    if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status";
/// Further words; one holds a space.
const MORE_WORDS: [&str; 8] = [
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// The end of the dictionary, without lengths.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415\
    416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently\
    400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error\
    501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
    00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,\
    image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public\
    privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary: 1423 bytes.
fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS.split_ascii_whitespace().chain(MORE_WORDS) {
        put_text(&mut dictionary, word);
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Texts come from this file and from bounded blocks, far below 2^32.
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads the blocks of one direction, in order.
#[derive(Debug)]
pub struct BlockReader {
    zlib: Decompress,
}

impl Default for BlockReader {
    fn default() -> Self {
        Self {
            zlib: Decompress::new(true),
        }
    }
}

impl BlockReader {
    /// Decompresses and parses the next block.
    ///
    /// # Errors
    /// [`BlockError`]; the reader is of no use after it.
    pub fn read(&mut self, compressed: &[u8]) -> Result<Headers, BlockError> {
        let plain = self.inflate(compressed)?;
        parse(&plain)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, BlockError> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            let (before_in, before_out) = (self.zlib.total_in(), plain.len());
            let result = self
                .zlib
                .decompress_vec(input, &mut plain, FlushDecompress::Sync);
            let used = (self.zlib.total_in() - before_in) as usize;
            input = input.get(used..).unwrap_or(&[]);
            match result {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib
                        .set_dictionary(&dictionary())
                        .map_err(|_| BlockError::Compression)?;
                    continue;
                }
                Err(_) => return Err(BlockError::Compression),
            }
            if plain.len() > MAX_BLOCK {
                return Err(BlockError::TooLarge);
            }
            if plain.len() == plain.capacity() {
                plain.reserve(4096);
            } else if input.is_empty() || (used == 0 && plain.len() == before_out) {
                break;
            }
        }
        if input.is_empty() {
            Ok(plain)
        } else {
            Err(BlockError::Compression)
        }
    }
}

fn parse(mut plain: &[u8]) -> Result<Headers, BlockError> {
    let count = take_length(&mut plain)?;
    if count > MAX_PAIRS {
        return Err(BlockError::TooLarge);
    }
    let mut headers = Headers::with_capacity(count);
    for _ in 0..count {
        let name = take_text(&mut plain)?;
        headers.push((name, take_text(&mut plain)?));
    }
    if plain.is_empty() {
        Ok(headers)
    } else {
        Err(BlockError::Malformed)
    }
}

fn take_length(plain: &mut &[u8]) -> Result<usize, BlockError> {
    let (length, rest) = plain
        .split_first_chunk::<4>()
        .ok_or(BlockError::Malformed)?;
    *plain = rest;
    usize::try_from(u32::from_be_bytes(*length)).map_err(|_| BlockError::TooLarge)
}

fn take_text(plain: &mut &[u8]) -> Result<String, BlockError> {
    let length = take_length(plain)?;
    let (text, rest) = plain
        .split_at_checked(length)
        .ok_or(BlockError::Malformed)?;
    *plain = rest;
    String::from_utf8(text.to_vec()).map_err(|_| BlockError::Malformed)
}

/// Writes the blocks of one direction, in order.
#[derive(Debug)]
pub struct BlockWriter {
    zlib: Compress,
    started: bool,
}

impl Default for BlockWriter {
    fn default() -> Self {
        Self {
            zlib: Compress::new(Compression::default(), true),
            started: false,
        }
    }
}

impl BlockWriter {
    /// Compresses the next block, flushed so that the peer can read it at once.
    ///
    /// # Errors
    /// [`BlockError::Compression`], should zlib refuse.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, BlockError> {
        if !self.started {
            self.zlib
                .set_dictionary(&dictionary())
                .map_err(|_| BlockError::Compression)?;
            self.started = true;
        }
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for (name, value) in headers {
            put_text(&mut plain, name);
            put_text(&mut plain, value);
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut input = plain.as_slice();
        loop {
            let before = self.zlib.total_in();
            self.zlib
                .compress_vec(input, &mut out, FlushCompress::Sync)
                .map_err(|_| BlockError::Compression)?;
            input = input
                .get((self.zlib.total_in() - before) as usize..)
                .unwrap_or(&[]);
            // With room left in the output everything was taken and flushed.
            if out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_published_one() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        // Adler-32 as zlib streams name it (RFC 1950, DICTID).
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_one_stream_depend_on_each_other() {
        let (mut writer, mut reader) = (BlockWriter::default(), BlockReader::default());
        let long = "x".repeat(5000);
        for (name, value) in [
            ("streamtype", "error"),
            ("port", "8080"),
            ("long", long.as_str()),
        ] {
            let block = writer
                .write(&[(name, value), ("requestid", "0")])
                .expect("a block");
            let headers = reader.read(&block).expect("headers");
            assert_eq!(headers[0], (name.to_owned(), value.to_owned()));
        }
        let empty = writer.write(&[]).expect("a block");
        assert_eq!(reader.read(&empty), Ok(vec![]));
    }

    #[test]
    fn bad_blocks_are_errors() {
        assert_eq!(
            BlockReader::default().read(b"nonsense"),
            Err(BlockError::Compression)
        );
        assert_eq!(BlockReader::default().read(b""), Err(BlockError::Malformed));
        let mut writer = BlockWriter::default();
        let big = "y".repeat(MAX_BLOCK);
        let block = writer.write(&[("n", &big)]).expect("a block");
        assert_eq!(
            BlockReader::default().read(&block),
            Err(BlockError::TooLarge)
        );
        for plain in [
            &[0, 0, 0, 1][..],
            &[0, 0, 0, 1, 255, 255, 255, 255],
            &[0, 0, 0, 0, 1],
        ] {
            assert_eq!(parse(plain), Err(BlockError::Malformed));
        }
        assert_eq!(parse(&[0, 0, 255, 255]), Err(BlockError::TooLarge));
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 7u32;
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            assert!(BlockReader::default().read(&bytes).is_err());
            assert!(parse(&bytes).is_err() || bytes.len() < 4 || bytes[..4] == [0; 4]);
        }
    }
}
