//! Base64 as the usual decoder reads it: standard alphabet with padding, line breaks allowed, the
//! unused bits of the last character ignored; and where it stops at what it cannot read.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The same bytes in canonical form.
///
/// # Errors
/// Offset of the first byte that does not fit.
pub(super) fn canonical(text: &str) -> Result<String, usize> {
    if let Some(at) = corrupt_at(text.as_bytes()) {
        return Err(at);
    }
    let whole: String = text.chars().filter(|c| !is_break(*c as u32)).collect();
    let bytes = LENIENT.decode(whole).map_err(|_| text.len())?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn is_break(c: u32) -> bool {
    c == u32::from(b'\n') || c == u32::from(b'\r')
}

/// Where decoding stops: at a foreign character, at padding that comes too early, after padding,
/// or at the start of a last group that is not whole.
fn corrupt_at(text: &[u8]) -> Option<usize> {
    let mut rest = text
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, b)| !is_break(u32::from(*b)));
    let mut filled = 0;
    while let Some((at, byte)) = rest.next() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => filled = (filled + 1) % 4,
            b'=' if filled == 2 => {
                match rest.next() {
                    None => return Some(text.len()),
                    Some((_, b'=')) => {}
                    Some((second, _)) => return Some(second - 1),
                }
                return rest.next().map(|(after, _)| after);
            }
            b'=' if filled == 3 => return rest.next().map(|(after, _)| after),
            _ => return Some(at),
        }
    }
    (filled > 0).then(|| text.len() - filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_byte_where_decoding_stops() {
        for (text, at) in [
            ("not base64!", 3),
            ("YQ", 0),
            ("YWJjY", 4),
            ("YQ=", 3),
            ("Y===", 1),
            ("YQ=a", 2),
            ("YQ==YQ==", 4),
            ("YWJj=", 4),
            ("YWI=x", 4),
            ("%%%", 0),
        ] {
            assert_eq!(canonical(text), Err(at), "{text}");
        }
    }

    #[test]
    fn what_can_be_read_becomes_canonical() {
        for (text, same) in [
            ("", ""),
            ("YQ==", "YQ=="),
            ("YR==", "YQ=="),
            ("YWJj\r\nZA=\n=\n", "YWJjZA=="),
            ("+/+/", "+/+/"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(same), "{text}");
        }
    }
}
