//! Header blocks to fields. A block may come in pieces: what is decoded is
//! handed on at once, so that a limit is met before the block is whole.

use super::huffman;
use super::integer::{self, IntegerError};
use super::table::Table;

/// A block that leaves the compression's state unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// An integer that is too large.
    #[error("hpack: integer too large")]
    Integer,
    /// No field has that index.
    #[error("hpack: no such index")]
    Index,
    /// A string that is no Huffman code.
    #[error("hpack: bad Huffman code")]
    Huffman,
    /// A table size that is over the limit, or not at the block's beginning.
    #[error("hpack: bad table size")]
    Size,
    /// The block ends inside a field.
    #[error("hpack: block ends early")]
    Truncated,
}

impl From<IntegerError> for HpackError {
    fn from(error: IntegerError) -> Self {
        match error {
            IntegerError::TooLarge => Self::Integer,
            IntegerError::NeedMore => Self::Truncated,
        }
    }
}

/// The receiving side's state, one per connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// What the peer may set the table to.
    limit: usize,
    /// A size update is allowed: no field of this block was seen yet.
    begun: bool,
    /// Strings of one field, decoded.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A string on the wire.
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    coded: bool,
}

impl Decoder {
    /// A decoder whose table holds up to so many bytes, as section 4.1 counts.
    pub fn new(limit: usize) -> Self {
        Self {
            table: Table::new(limit),
            limit,
            begun: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Decodes what is whole of a piece of a block and hands every field to
    /// `field`. Returns how many bytes were used; with `last` all must be.
    pub fn decode(
        &mut self,
        block: &[u8],
        last: bool,
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<usize, HpackError> {
        let mut at = 0;
        let outcome = loop {
            if at == block.len() {
                break Ok(());
            }
            match self.one(&block[at..], &mut field) {
                Ok(used) => at += used,
                Err(error) => break Err(error),
            }
        };
        match outcome {
            Err(HpackError::Truncated) if !last => {}
            other => other?,
        }
        if last {
            self.begun = false;
        }
        Ok(at)
    }

    /// Gives memory back that only decoding needs.
    pub fn rest(&mut self) {
        self.name = Vec::new();
        self.value = Vec::new();
    }

    fn one(
        &mut self,
        bytes: &[u8],
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<usize, HpackError> {
        let first = bytes[0];
        if first & 0xe0 == 0x20 {
            let (size, used) = integer::read(bytes, 5)?;
            if self.begun || size > self.limit {
                return Err(HpackError::Size);
            }
            self.table.resize(size);
            return Ok(used);
        }
        let used = match first {
            0x80.. => {
                let (index, used) = integer::read(bytes, 7)?;
                let (name, value) = self.table.get(index).ok_or(HpackError::Index)?;
                field(name, value);
                used
            }
            0x40.. => self.literal(bytes, 6, true, field)?,
            _ => self.literal(bytes, 4, false, field)?,
        };
        self.begun = true;
        Ok(used)
    }

    fn literal(
        &mut self,
        bytes: &[u8],
        bits: u8,
        keep: bool,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<usize, HpackError> {
        let (index, mut used) = integer::read(bytes, bits)?;
        let mut name = None;
        if index == 0 {
            let (text, length) = string(&bytes[used..])?;
            used += length;
            name = Some(text);
        }
        let (value, length) = string(&bytes[used..])?;
        used += length;
        let value = decoded(value, &mut self.value)?;
        match name {
            Some(name) => {
                let name = decoded(name, &mut self.name)?;
                field(name, value);
                if keep {
                    self.table.insert(name, value);
                }
            }
            None => {
                let (name, _) = self.table.get(index).ok_or(HpackError::Index)?;
                field(name, value);
                if keep {
                    self.table.insert_named(index, value);
                }
            }
        }
        Ok(used)
    }

    /// Size of the dynamic table as section 4.1 counts it.
    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }
}

/// The string at the front, and the bytes it takes.
fn string(bytes: &[u8]) -> Result<(Text<'_>, usize), HpackError> {
    let (length, used) = integer::read(bytes, 7)?;
    let text = bytes[used..].get(..length).ok_or(HpackError::Truncated)?;
    let coded = bytes[0] & 0x80 != 0;
    Ok((Text { bytes: text, coded }, used + length))
}

fn decoded<'a>(text: Text<'a>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], HpackError> {
    if !text.coded {
        return Ok(text.bytes);
    }
    scratch.clear();
    match huffman::decode(text.bytes, scratch) {
        true => Ok(scratch),
        false => Err(HpackError::Huffman),
    }
}
