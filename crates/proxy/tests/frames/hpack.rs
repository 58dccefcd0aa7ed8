//! HPACK (RFC 7541): encodes every field as a literal that no table keeps,
//! decodes all forms.

use std::collections::{HashMap, VecDeque};

use super::table::{LENGTHS, STATIC};

/// A header field as it stands on the wire.
pub type Field = (Vec<u8>, Vec<u8>);

/// A literal field without indexing (section 6.2.2), no Huffman code.
pub fn literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        integer(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}

/// An integer with a prefix of so many bits (section 5.1); `first` holds the
/// bits above it.
pub fn integer(value: usize, bits: u8, first: u8, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(first | u8::try_from(value).unwrap());
        return;
    }
    out.push(first | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        out.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// Reads the blocks of one connection.
pub struct Decoder {
    entries: VecDeque<Field>,
    size: usize,
    limit: usize,
    codes: HashMap<(u8, u32), u16>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            limit: 4096,
            codes: codes(),
        }
    }
}

/// The canonical code: in the order of lengths, then of symbols.
fn codes() -> HashMap<(u8, u32), u16> {
    let mut symbols: Vec<u16> = (0..257).collect();
    symbols.sort_by_key(|s| (LENGTHS[usize::from(*s)], *s));
    let (mut code, mut length) = (0_u32, LENGTHS[usize::from(symbols[0])]);
    let mut all = HashMap::new();
    for symbol in symbols {
        let own = LENGTHS[usize::from(symbol)];
        code <<= own - length;
        length = own;
        all.insert((length, code), symbol);
        code += 1;
    }
    all
}

impl Decoder {
    /// The fields of a block, or what is wrong with it.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, String> {
        let mut rest = block;
        let mut fields = Vec::new();
        while let Some(first) = rest.first() {
            match first {
                0x80.. => {
                    let at = take(&mut rest, 7)?;
                    fields.push(self.at(at)?);
                }
                0x40..0x80 => {
                    let field = self.literal(&mut rest, 6)?;
                    self.keep(field.clone());
                    fields.push(field);
                }
                0x20..0x40 => {
                    self.limit = take(&mut rest, 5)?;
                    self.shrink();
                }
                _ => fields.push(self.literal(&mut rest, 4)?),
            }
        }
        Ok(fields)
    }

    fn literal(&self, rest: &mut &[u8], bits: u8) -> Result<Field, String> {
        let at = take(rest, bits)?;
        let name = match at {
            0 => self.text(rest)?,
            at => self.at(at)?.0,
        };
        Ok((name, self.text(rest)?))
    }

    fn at(&self, index: usize) -> Result<Field, String> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|at| STATIC.get(at)) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        let found = index.checked_sub(62).and_then(|at| self.entries.get(at));
        found.cloned().ok_or(format!("no entry {index}"))
    }

    fn keep(&mut self, field: Field) {
        self.size += field.0.len() + field.1.len() + 32;
        self.entries.push_front(field);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.size > self.limit {
            let Some((name, value)) = self.entries.pop_back() else {
                return;
            };
            self.size -= name.len() + value.len() + 32;
        }
    }

    fn text(&self, rest: &mut &[u8]) -> Result<Vec<u8>, String> {
        let coded = rest.first().is_some_and(|first| *first >= 0x80);
        let length = take(rest, 7)?;
        let (text, after) = rest.split_at_checked(length).ok_or("a string is cut off")?;
        *rest = after;
        if coded {
            self.huffman(text)
        } else {
            Ok(text.to_vec())
        }
    }

    fn huffman(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let (mut out, mut code, mut length) = (Vec::new(), 0_u32, 0_u8);
        for bit in text
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        {
            (code, length) = (code << 1 | u32::from(bit), length + 1);
            if let Some(symbol) = self.codes.get(&(length, code)) {
                out.push(u8::try_from(*symbol).map_err(|_| "end of string inside a string")?);
                (code, length) = (0, 0);
            }
            if length > 30 {
                return Err("no such code".to_owned());
            }
        }
        let padding = length < 8 && code == (1 << length) - 1;
        padding.then_some(out).ok_or("bad padding".to_owned())
    }
}

fn take(rest: &mut &[u8], bits: u8) -> Result<usize, String> {
    let cut = || "an integer is cut off".to_owned();
    let (first, after) = rest.split_first().ok_or_else(cut)?;
    *rest = after;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Ok(value);
    }
    for shift in (0..28).step_by(7) {
        let (next, after) = rest.split_first().ok_or_else(cut)?;
        *rest = after;
        value += usize::from(next & 0x7f) << shift;
        if *next < 0x80 {
            return Ok(value);
        }
    }
    Err("an integer is too long".to_owned())
}

#[test]
fn reads_what_rfc_7541_shows() {
    // Appendix C.4.1 and C.4.2: Huffman codes and the dynamic table.
    let hex = |text: &str| super::script::hex(text);
    let mut decoder = Decoder::default();
    let first = decoder
        .decode(&hex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))
        .unwrap();
    assert_eq!(
        first[3],
        (b":authority".to_vec(), b"www.example.com".to_vec())
    );
    let second = decoder.decode(&hex("828684be5886a8eb10649cbf")).unwrap();
    assert_eq!(second[3].1, b"www.example.com");
    assert_eq!(second[4], (b"cache-control".to_vec(), b"no-cache".to_vec()));
    assert!(decoder.decode(&hex("ff00")).is_err());
}
