//! Bytes looked at eight at a time, in a word: what is short is looked through in less than a call
//! to something better would take.

/// A byte in all eight places of a word.
#[must_use]
pub const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The highest bit of each byte.
pub const HIGH: u64 = eight(0x80);

/// Marks bytes below a bound of at most 128 by their highest bit. The lowest mark is exact; those
/// above it may be wrong.
#[must_use]
pub const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(eight(bound)) & !word & HIGH
}

/// Marks bytes that are this one, as [`below`] does.
#[must_use]
pub const fn same(word: u64, byte: u8) -> u64 {
    below(word ^ eight(byte), 1)
}

/// Which byte of a word in little-endian order has the lowest mark.
#[must_use]
pub const fn first(marked: u64) -> usize {
    marked.trailing_zeros() as usize / 8
}

/// How many bytes come before the first that is one of the two; all, where none is. Neither may be
/// zero.
#[must_use]
pub fn before_either(bytes: &[u8], one: u8, two: u8) -> usize {
    let marks = |word| same(word, one) | same(word, two);
    let (words, rest) = bytes.as_chunks();
    let mut len = 0;
    for word in words {
        let marked = marks(u64::from_le_bytes(*word));
        if marked != 0 {
            return len + first(marked);
        }
        len += 8;
    }
    // What is left in one word, zeros behind it.
    let last = rest.iter().rev();
    let last = last.fold(0, |word, byte| word << 8 | u64::from(*byte));
    match marks(last) {
        0 => bytes.len(),
        marked => len + first(marked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_wherever_it_is() {
        for len in 0..20 {
            let plain: Vec<u8> = (0..len).map(|at| b'a' + at as u8).collect();
            assert_eq!(before_either(&plain, b'?', b'#'), len);
            for at in 0..len {
                for (first, second) in [(b'?', b'#'), (b'#', b'?'), (b'?', 0xff), (b'#', b'>')] {
                    let mut bytes = plain.clone();
                    bytes[at] = first;
                    bytes[(at + 1).min(len - 1)] = second;
                    let wanted = |byte: &u8| matches!(byte, b'?' | b'#');
                    let want = bytes.iter().position(wanted).unwrap_or(len);
                    assert_eq!(before_either(&bytes, b'?', b'#'), want, "{bytes:?}");
                }
            }
        }
    }
}
