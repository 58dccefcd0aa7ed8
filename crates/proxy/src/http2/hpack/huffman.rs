//! The Huffman code of RFC 7541 appendix B. It is canonical: the lengths of the
//! codes say the codes. Short codes are found in one table, longer ones by
//! their length.

/// Length in bits of the code of every byte, and of the end of the string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Symbols: the bytes and the end of the string.
const SYMBOLS: usize = 257;
/// Longest code in bits.
const LONGEST: usize = 30;
/// Codes up to so many bits are found at once.
const SHORT: u32 = 10;

struct Tables {
    /// By the next [`SHORT`] bits: symbol and length; length 0 = a longer code.
    short: [(u8, u8); 1 << SHORT],
    /// Symbols ordered by code.
    ordered: [u16; SYMBOLS],
    /// For every length: its first code, where its symbols begin, how many.
    first: [(u32, u16, u16); LONGEST + 1],
    /// The code of every symbol.
    codes: [u32; SYMBOLS],
}

static TABLES: Tables = build();

const fn build() -> Tables {
    let mut tables = Tables {
        short: [(0, 0); 1 << SHORT],
        ordered: [0; SYMBOLS],
        first: [(0, 0, 0); LONGEST + 1],
        codes: [0; SYMBOLS],
    };
    let (mut code, mut at, mut length) = (0_u32, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        let begin = at;
        tables.first[length] = (code, begin as u16, 0);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                tables.ordered[at] = symbol as u16;
                tables.codes[symbol] = code;
                if length <= SHORT as usize {
                    let spare = SHORT as usize - length;
                    let mut fill = 0;
                    while fill < 1 << spare {
                        let index = ((code as usize) << spare) | fill;
                        tables.short[index] = (symbol as u8, length as u8);
                        fill += 1;
                    }
                }
                at += 1;
                code += 1;
            }
            symbol += 1;
        }
        tables.first[length].2 = (at - begin) as u16;
        length += 1;
    }
    tables
}

/// Appends the decoded string. False when it is none: the end symbol inside it,
/// or padding that is longer than seven bits or not all ones (section 5.2).
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let mut input = bytes.iter();
    // The next bits, from the top.
    let (mut bits, mut held) = (0_u64, 0_u32);
    loop {
        while held <= 56 {
            let Some(byte) = input.next() else { break };
            bits |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        let (symbol, length) = TABLES.short[(bits >> (64 - SHORT)) as usize];
        let length = u32::from(length);
        if length != 0 && length <= held {
            out.push(symbol);
            bits <<= length;
            held -= length;
            continue;
        }
        match long(bits, held) {
            Some((symbol, length)) => {
                out.push(symbol);
                bits <<= length;
                held -= length;
            }
            // What is left must be a beginning of the end symbol: ones.
            None => return held < 8 && bits.leading_ones() >= held,
        }
    }
}

/// The symbol whose code is longer than the table's.
fn long(bits: u64, held: u32) -> Option<(u8, u32)> {
    let most = held.min(LONGEST as u32);
    for length in SHORT + 1..=most {
        let code = (bits >> (64 - length)) as u32;
        let (first, begin, count) = TABLES.first[length as usize];
        let at = code.wrapping_sub(first);
        if at < u32::from(count) {
            let symbol = TABLES.ordered[usize::from(begin) + at as usize];
            return u8::try_from(symbol).ok().map(|symbol| (symbol, length));
        }
    }
    None
}

/// Bytes that the string takes when encoded.
#[cfg(test)]
pub(super) fn encoded_len(bytes: &[u8]) -> usize {
    let bits: usize = bytes
        .iter()
        .map(|b| usize::from(LENGTHS[usize::from(*b)]))
        .sum();
    bits.div_ceil(8)
}

/// Appends the encoded string.
#[cfg(test)]
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0_u64, 0_u32);
    for byte in bytes {
        let length = u32::from(LENGTHS[usize::from(*byte)]);
        bits = (bits << length) | u64::from(TABLES.codes[usize::from(*byte)]);
        held += length;
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        let spare = 8 - held;
        out.push(((bits << spare) | ((1 << spare) - 1)) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_complete() {
        let sum: u64 = LENGTHS
            .iter()
            .map(|l| 1_u64 << (LONGEST - usize::from(*l)))
            .sum();
        assert_eq!(sum, 1 << LONGEST);
        // Codes that the RFC names: '0', 'a', '&', 0x7f, LF, the end.
        for (symbol, code) in [
            (48, 0x0),
            (97, 0x3),
            (38, 0xf8),
            (0x7f, 0xfff_fffc),
            (10, 0x3fff_fffc),
            (256, 0x3fff_ffff),
        ] {
            assert_eq!(TABLES.codes[symbol], code, "{symbol}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        for one in 0..=255 {
            for two in 0..=255 {
                let (mut coded, mut back) = (Vec::new(), Vec::new());
                let text = [one, two, one];
                encode(&text, &mut coded);
                assert_eq!(coded.len(), encoded_len(&text));
                assert!(decode(&coded, &mut back), "{text:?}");
                assert_eq!(back, text);
            }
        }
    }

    #[test]
    fn bad_padding_is_no_string() {
        let fine = |bytes: &[u8]| decode(bytes, &mut Vec::new());
        assert!(fine(b""));
        assert!(fine(&[0b0001_1111])); // 'a' and three ones
        assert!(!fine(&[0b0001_1110])); // a zero in the padding
        assert!(!fine(&[0b0001_1111, 0xff])); // eleven bits of padding
        assert!(!fine(&[0xff])); // eight
        assert!(!fine(&[0xff, 0xff, 0xff, 0xff])); // the end symbol
        assert!(!fine(&[0xff, 0xff, 0xff, 0xfc])); // the end symbol, then zeros
    }
}
