//! Integers with a prefix (RFC 7541 section 5.1).

/// Largest integer taken: enough for every length and index there is use for.
const MOST: u64 = u32::MAX as u64;

/// An integer that is too large, or not whole yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntegerError {
    TooLarge,
    NeedMore,
}

/// Reads an integer whose prefix has `bits` bits in the first byte. Returns it
/// and how many bytes it took.
pub(super) fn read(bytes: &[u8], bits: u8) -> Result<(usize, usize), IntegerError> {
    let first = *bytes.first().ok_or(IntegerError::NeedMore)?;
    let mask = u8::MAX >> (8 - bits);
    let prefix = first & mask;
    if prefix < mask {
        return Ok((usize::from(prefix), 1));
    }
    let mut value = u64::from(prefix);
    for (at, byte) in bytes[1..].iter().enumerate() {
        // Five bytes hold 35 bits; more are zeros that nobody needs to send.
        if at == 5 {
            return Err(IntegerError::TooLarge);
        }
        value += u64::from(byte & 0x7f) << (7 * at);
        if value > MOST {
            return Err(IntegerError::TooLarge);
        }
        if byte & 0x80 == 0 {
            return Ok((value as usize, at + 2));
        }
    }
    match bytes.len() {
        0..6 => Err(IntegerError::NeedMore),
        _ => Err(IntegerError::TooLarge),
    }
}

/// Appends an integer behind the bits of `first` that are not the prefix.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, first: u8, bits: u8, value: usize) {
    let mask = u8::MAX >> (8 - bits);
    if value < usize::from(mask) {
        return out.push(first | value as u8);
    }
    write_long(out, first, mask, value);
}

/// One that does not fit its prefix.
fn write_long(out: &mut Vec<u8>, first: u8, mask: u8, value: usize) {
    out.push(first | mask);
    let mut rest = value - usize::from(mask);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.1.
    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(read(&[0b0000_1010], 5), Ok((10, 1)));
        assert_eq!(
            read(&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5),
            Ok((1337, 3))
        );
        assert_eq!(read(&[42], 8), Ok((42, 1)));
        let mut out = Vec::new();
        write(&mut out, 0, 5, 1337);
        assert_eq!(out, [31, 154, 10]);
    }

    #[test]
    fn limits() {
        assert_eq!(read(&[], 5), Err(IntegerError::NeedMore));
        assert_eq!(read(&[0x7f, 0x80], 7), Err(IntegerError::NeedMore));
        assert_eq!(
            read(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], 7),
            Err(IntegerError::TooLarge)
        );
        let zeros = [0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80];
        assert_eq!(read(&zeros, 7), Err(IntegerError::TooLarge));
        for value in [
            0,
            1,
            30,
            31,
            127,
            128,
            255,
            256,
            16_383,
            16_384,
            u32::MAX as usize - 9,
        ] {
            for bits in 4..=8 {
                let mut out = Vec::new();
                write(&mut out, 0, bits, value);
                assert_eq!(read(&out, bits), Ok((value, out.len())));
                for cut in 0..out.len() {
                    assert_eq!(read(&out[..cut], bits), Err(IntegerError::NeedMore));
                }
            }
        }
    }
}
