//! Heads as nearly every peer writes them, read in one pass: copied once into the buffer of the
//! [`Head`] they become, looked at eight bytes at a time, names lowered and numbered on the way.
//! A head with anything unusual in it is left to the full parser, which alone says what is refused
//! and why; what is taken here that parser takes too, and reads the same.

use lateen_proxy_core::scan::{HIGH, below, eight, first, same};

use super::{Field, Head, Span};
use crate::http::known::Known;

/// Bytes that are copied before it is known where the head ends.
const FIRST: usize = 1024;

/// What becomes of a line that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the head.
    Line,
    /// The head's authority.
    Authority,
    /// Nothing: what it says is known now.
    Nowhere,
}

/// A message whose head is being read into a [`Head`].
#[derive(Debug)]
pub struct Plain<'h> {
    head: &'h mut Head,
    /// How far it was read.
    at: usize,
}

impl Head {
    /// Begins to read the head at the start of `input` in place of what is here. None where its end
    /// is not there.
    pub fn read_plain(&mut self, input: &[u8]) -> Option<Plain<'_>> {
        self.clear();
        let block = match input.len() {
            0..=FIRST => input,
            _ => match memchr::memmem::find(input, b"\r\n\r\n") {
                Some(end) => &input[..end + 4],
                None => return None,
            },
        };
        self.buf.reserve(block.len() + 8);
        self.buf.extend_from_slice(block);
        // Eight bytes can be looked at wherever one is; these end whatever goes on so far.
        self.buf.extend_from_slice(&[0; 8]);
        Some(Plain { head: self, at: 0 })
    }
}

impl Plain<'_> {
    /// Reads `METHOD /path HTTP/1.1` and returns the method.
    pub fn request_line(&mut self) -> Option<&[u8]> {
        let buf = &self.head.buf;
        let method = word_len(buf);
        let path = method + 1;
        let path_len = word_len(buf.get(path..)?);
        let end = path + path_len;
        if buf[method] != b' ' || buf[path] != b'/' || !buf[end..].starts_with(b" HTTP/1.1\r\n") {
            return None;
        }
        self.at = end + b" HTTP/1.1\r\n".len();
        self.head.method = span(0, method);
        self.head.path = span(path, path_len);
        self.head.came[0] = span(0, self.at);
        Some(&buf[..method])
    }

    /// Reads `HTTP/1.1 200 OK`.
    pub fn status_line(&mut self) -> Option<()> {
        let rest = self.head.buf.strip_prefix(b"HTTP/1.1 ")?;
        let [
            a @ b'1'..=b'5',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            b' ',
            reason @ ..,
        ] = rest
        else {
            return None;
        };
        let digit = |byte: &u8| u16::from(byte - b'0');
        let status = digit(a) * 100 + digit(b) * 10 + digit(c);
        let reason_len = text_len(reason);
        if !reason[reason_len..].starts_with(b"\r\n") {
            return None;
        }
        self.at = b"HTTP/1.1 200 ".len() + reason_len + 2;
        self.head.status = status;
        Some(())
    }

    /// Reads the header lines to the empty one; `take` says of each what becomes of it, none for
    /// one that it does not understand. Returns how long the whole head is.
    pub fn lines(self, mut take: impl FnMut(Known, &[u8]) -> Option<Place>) -> Option<usize> {
        let mut at = self.at;
        let head = self.head;
        let buf = head.buf.as_mut_slice();
        loop {
            if *buf.get(at)? == b'\r' {
                break;
            }
            let name_len = lower_name(&mut buf[at..])?;
            let name = &buf[at..at + name_len];
            let known = Known::of(name);
            if known == Known::Other && !is_token(name) {
                return None;
            }
            let value_at = at + name_len + 2;
            let value_len = text_len(buf.get(value_at..)?);
            let (value, rest) = buf[value_at..].split_at(value_len);
            // One space before the value, none behind it, so that it goes out as it came.
            let plain = buf[value_at - 1] == b' '
                && value.first().is_some_and(|byte| *byte != b' ')
                && value.last() != Some(&b' ')
                && rest.starts_with(b"\r\n");
            if !plain {
                return None;
            }
            match take(known, value)? {
                Place::Line => {
                    head.present |= known.bit();
                    head.fields.push(Field {
                        start: at as u32,
                        name_len: u16::try_from(name_len).ok()?,
                        known,
                        live: true,
                        value_len: value_len as u32,
                    });
                }
                Place::Authority => {
                    head.authority = span(value_at, value_len);
                    head.came[1] = span(at, name_len + value_len + 4);
                    head.has_authority = true;
                }
                Place::Nowhere => {}
            }
            at = value_at + value_len + 2;
        }
        if buf[at + 1] != b'\n' {
            return None;
        }
        at += 2;
        head.buf.truncate(at);
        Some(at)
    }
}

fn span(start: usize, len: usize) -> Span {
    Span {
        start: start as u32,
        len: len as u32,
    }
}

/// How many bytes come before the first that `marks` marks. All, where none does before the last
/// seven or fewer.
fn len_before(bytes: &[u8], marks: impl Fn(u64) -> u64) -> usize {
    let mut len = 0;
    for chunk in bytes.as_chunks().0 {
        let marked = marks(u64::from_le_bytes(*chunk));
        if marked != 0 {
            return len + first(marked);
        }
        len += 8;
    }
    bytes.len()
}

/// How long the text is: up to the first control character.
fn text_len(bytes: &[u8]) -> usize {
    len_before(bytes, |word| below(word, b' ') | same(word, 0x7f))
}

/// How long the word of a request line is: up to white space, a control character, one beyond
/// ASCII, or the `#` that no target may have.
fn word_len(bytes: &[u8]) -> usize {
    len_before(bytes, |word| {
        below(word, b'!') | same(word, 0x7f) | same(word, b'#') | word & HIGH
    })
}

/// Lowers the letters before the first colon and tells how many bytes they are.
fn lower_name(bytes: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    for chunk in bytes.as_chunks_mut().0 {
        let word = u64::from_le_bytes(*chunk);
        let colon = same(word, b':');
        // Bits of what is before the colon; of all, where there is none.
        let before = (colon & colon.wrapping_neg()).wrapping_sub(1);
        let low = word & !HIGH;
        let from_a = low + eight(0x80 - b'A');
        let beyond_z = low + eight(0x7f - b'Z');
        let capital = from_a & !beyond_z & !word & HIGH & before;
        *chunk = (word | capital >> 2).to_le_bytes();
        if colon != 0 {
            return Some(len + first(colon));
        }
        len += 8;
    }
    None
}

/// By byte: what names are made of (`tchar` of RFC 9110 section 5.6.2), capitals apart.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

fn is_token(name: &[u8]) -> bool {
    let fine = |fine: bool, byte: &u8| fine & TOKEN[usize::from(*byte)];
    !name.is_empty() && name.iter().fold(true, fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight bytes at a time find what one at a time finds, wherever it is.
    #[test]
    fn lengths_are_exact() {
        type Len = fn(&[u8]) -> usize;
        let control = |byte: u8| byte < b' ' || byte == 0x7f;
        let ends_word = |byte: u8| byte <= b' ' || byte >= 0x7f || byte == b'#';
        let cases: [(Len, &dyn Fn(u8) -> bool); 2] = [(text_len, &control), (word_len, &ends_word)];
        for (len, ends) in cases {
            for first in 0..=255_u8 {
                for second in [0, b' ', b'#', b'a', 0x1f, 0x7e, 0x7f, 0x80, 0xff] {
                    for at in 0..10 {
                        let mut bytes = vec![b'a'; 24];
                        (bytes[at], bytes[at + 1]) = (first, second);
                        bytes[16..].fill(0);
                        let want = bytes.iter().position(|byte| ends(*byte));
                        assert_eq!(Some(len(&bytes)), want, "{bytes:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_lowered_to_the_colon_and_no_further() {
        for at in 0..20 {
            for byte in (0..=255_u8).filter(|byte| *byte != b':') {
                let mut bytes = [byte; 32];
                bytes[at] = b':';
                let mut want = bytes;
                want[..at].make_ascii_lowercase();
                assert_eq!(lower_name(&mut bytes), Some(at));
                assert_eq!(bytes, want);
            }
        }
        assert_eq!(lower_name(&mut [b'a'; 24]), None);
    }

    #[test]
    fn only_what_is_plain_is_read() {
        let mut head = Head::new();
        let mut read = |text: &str| {
            let mut plain = head.read_plain(text.as_bytes())?;
            plain.request_line()?;
            let all = plain.lines(|known, _| {
                Some(match known {
                    Known::Host => Place::Authority,
                    Known::Expect => Place::Nowhere,
                    _ => Place::Line,
                })
            });
            let mut lines = Vec::new();
            head.write_lines(&mut lines);
            let lines = String::from_utf8(lines).unwrap();
            all.map(|len| {
                (
                    len,
                    [head.method(), head.path(), head.authority()].concat(),
                    lines,
                )
            })
        };
        let text =
            "GET /a?b HTTP/1.1\r\nHost: h:1\r\nX-One: 1 2\r\nExpect: x\r\nAccept: \u{e9}\r\n\r\n";
        let (len, words, lines) = read(&format!("{text}more")).unwrap();
        assert_eq!(
            (len, &words[..], &lines[..]),
            (
                text.len(),
                &b"GET/a?bh:1"[..],
                "x-one: 1 2\r\naccept: \u{e9}\r\n"
            )
        );
        for strange in [
            "GET / HTTP/1.1\r\nA: b\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\r",
            "GET / HTTP/1.1\r\nA: b\r\n\rx",
            "GET / HTTP/1.1\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\n\r\n",
            "GET / HTTP/1.1\r\nA:b\r\n\r\n",
            "GET / HTTP/1.1\r\nA:  b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b \r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\tc\r\n\r\n",
            "GET / HTTP/1.1\r\nA: \r\n\r\n",
            "GET / HTTP/1.1\r\nA:\r\n\r\n",
            "GET / HTTP/1.1\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /# HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\n\r\n",
            "GET",
            "",
        ] {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
