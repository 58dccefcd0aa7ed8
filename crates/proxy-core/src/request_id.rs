//! Request ids: version 4 UUIDs whose 15th character carries the trace decision.

use crate::scan::eight;

/// Why a request is traced, as the id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceReason {
    /// Not traced.
    NotTraced,
    /// By random sampling.
    Sampling,
    /// Forced by the service.
    Forced,
    /// Forced by the client.
    Client,
}

/// Where the decision stands.
const AT: usize = 14;

/// Makes an id from 128 random bits.
#[must_use]
pub fn make(random: u128) -> [u8; 36] {
    let bits = random & !(0xf << 76) | 0x4 << 76;
    let bits = bits & !(0b11 << 62) | 0b10 << 62;
    let digits = |shift: u32| hex((bits >> shift) as u32);
    let (two, three) = (digits(64), digits(32));
    let mut id = [b'-'; 36];
    id[..8].copy_from_slice(&digits(96));
    id[9..13].copy_from_slice(&two[..4]);
    id[14..18].copy_from_slice(&two[4..]);
    id[19..23].copy_from_slice(&three[..4]);
    id[24..28].copy_from_slice(&three[4..]);
    id[28..].copy_from_slice(&digits(0));
    id
}

/// The eight digits of a number, made all at once.
fn hex(number: u32) -> [u8; 8] {
    // Each digit into a byte of its own.
    let number = u64::from(number);
    let number = (number | number << 16) & 0x0000_ffff_0000_ffff;
    let number = (number | number << 8) & 0x00ff_00ff_00ff_00ff;
    let number = (number | number << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (number + eight(6)) >> 4 & eight(1);
    let text = number + eight(b'0') + letters * u64::from(b'a' - b'0' - 10);
    text.to_be_bytes()
}

/// What an id says of tracing; `None` when it is no UUID of ours.
#[must_use]
pub fn trace_reason(id: &[u8]) -> Option<TraceReason> {
    if id.len() < 36 {
        return None;
    }
    Some(match id[AT] {
        b'9' => TraceReason::Sampling,
        b'a' => TraceReason::Forced,
        b'b' => TraceReason::Client,
        _ => TraceReason::NotTraced,
    })
}

/// Writes a decision into an id; ids that are no UUIDs stay.
pub fn set_trace_reason(id: &mut [u8], reason: TraceReason) {
    if id.len() >= 36 {
        id[AT] = match reason {
            TraceReason::NotTraced => b'4',
            TraceReason::Sampling => b'9',
            TraceReason::Forced => b'a',
            TraceReason::Client => b'b',
        };
    }
}

/// A number from the id, stable for all proxies of a request; for sampling by id.
#[must_use]
pub fn number(id: &[u8]) -> Option<u64> {
    let digits = id.get(..8)?.iter();
    let digits = digits.map(|digit| u64::from(DIGITS[usize::from(*digit)]));
    let add = |(number, seen), digit| (number << 4 | digit & 0xf, seen | digit);
    let (number, seen) = digits.fold((0, 0), add);
    (seen < 16).then_some(number)
}

/// By byte: the value of a hexadecimal digit; more than 15 for what is none.
static DIGITS: [u8; 256] = {
    let mut table = [16; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value as usize];
        table[digit as usize] = value;
        table[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_form_and_reason() {
        let mut id = make(u128::MAX);
        assert_eq!(&id, b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&make(0), b"00000000-0000-4000-8000-000000000000");
        let random = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
        assert_eq!(&make(random), b"01234567-89ab-4def-bedc-ba9876543210");
        assert_eq!(trace_reason(&id), Some(TraceReason::NotTraced));
        set_trace_reason(&mut id, TraceReason::Sampling);
        assert_eq!(&id, b"ffffffff-ffff-9fff-bfff-ffffffffffff");
        assert_eq!(trace_reason(&id), Some(TraceReason::Sampling));
        assert_eq!(trace_reason(b"short"), None);
        assert_eq!(number(&id), Some(0xffff_ffff));
        assert_eq!(number(b"01aBcDeF-"), Some(0x01ab_cdef));
        for bad in [
            &b"0123456"[..],
            b"0123456g",
            b"\xff1234567",
            b"",
            b"-1234567",
        ] {
            assert_eq!(number(bad), None);
        }
    }
}
