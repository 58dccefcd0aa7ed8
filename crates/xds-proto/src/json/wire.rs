//! Protobuf's wire format: tags, varints, lengths.

use super::{Outcome, Problem, fail};

/// One field occurrence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const FIXED32: u32 = 5;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, LENGTH);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a varint off the front.
pub(super) fn varint(bytes: &mut &[u8]) -> Outcome<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else {
            return fail(Problem::Wire("a varint is cut off"));
        };
        *bytes = rest;
        // The tenth byte has room for one bit only.
        if shift == 63 && byte > 1 {
            return fail(Problem::Wire("a varint is too long"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    fail(Problem::Wire("a varint is too long"))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Outcome<&'a [u8]> {
    if length > bytes.len() {
        return fail(Problem::Wire("a field is cut off"));
    }
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(taken)
}

pub(super) fn fixed32(bytes: &mut &[u8]) -> Outcome<u32> {
    let mut word = [0; 4];
    word.copy_from_slice(take(bytes, 4)?);
    Ok(u32::from_le_bytes(word))
}

pub(super) fn fixed64(bytes: &mut &[u8]) -> Outcome<u64> {
    let mut word = [0; 8];
    word.copy_from_slice(take(bytes, 8)?);
    Ok(u64::from_le_bytes(word))
}

/// The occurrences of a message, in wire order.
pub(super) fn items(mut bytes: &[u8]) -> Outcome<Vec<(u32, Item<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let Ok(number @ 1..=0x1fff_ffff) = u32::try_from(tag >> 3) else {
            return fail(Problem::Wire("a field number is out of range"));
        };
        let item = match (tag & 7) as u32 {
            VARINT => Item::Varint(varint(&mut bytes)?),
            FIXED64 => Item::Fixed64(fixed64(&mut bytes)?),
            LENGTH => {
                let length = usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX);
                Item::Bytes(take(&mut bytes, length)?)
            }
            FIXED32 => Item::Fixed32(fixed32(&mut bytes)?),
            _ => return fail(Problem::Wire("groups are not read")),
        };
        found.push((number, item));
    }
    Ok(found)
}
