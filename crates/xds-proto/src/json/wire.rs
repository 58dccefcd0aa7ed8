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
const GROUP: u32 = 3;
const GROUP_END: u32 = 4;
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

/// Reads a tag off the front: field number and wire type.
fn tag(bytes: &mut &[u8]) -> Outcome<(u32, u32)> {
    let tag = varint(bytes)?;
    match u32::try_from(tag >> 3) {
        Ok(number @ 1..=0x1fff_ffff) => Ok((number, (tag & 7) as u32)),
        _ => fail(Problem::Wire("a field number is out of range")),
    }
}

fn item<'a>(bytes: &mut &'a [u8], wire_type: u32) -> Outcome<Item<'a>> {
    Ok(match wire_type {
        VARINT => Item::Varint(varint(bytes)?),
        FIXED64 => Item::Fixed64(fixed64(bytes)?),
        LENGTH => {
            let length = usize::try_from(varint(bytes)?).unwrap_or(usize::MAX);
            Item::Bytes(take(bytes, length)?)
        }
        FIXED32 => Item::Fixed32(fixed32(bytes)?),
        _ => {
            return fail(Problem::Wire(
                "no such wire type, or a group that ends unbegun",
            ));
        }
    })
}

/// Passes over a group whose start was read: no message here has one, so it is an unknown field,
/// which decoders pass over too.
fn skip_group(bytes: &mut &[u8], number: u32) -> Outcome<()> {
    let mut open = vec![number];
    while let Some(last) = open.last().copied() {
        match tag(bytes)? {
            (number, GROUP) => open.push(number),
            (number, GROUP_END) if number == last => {
                open.pop();
            }
            (_, wire_type) => {
                item(bytes, wire_type)?;
            }
        }
    }
    Ok(())
}

/// The occurrences of a message, in wire order.
pub(super) fn items(mut bytes: &[u8]) -> Outcome<Vec<(u32, Item<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        match tag(&mut bytes)? {
            (number, GROUP) => skip_group(&mut bytes, number)?,
            (number, wire_type) => found.push((number, item(&mut bytes, wire_type)?)),
        }
    }
    Ok(found)
}
