//! Request ids: version 4 UUIDs whose 15th character carries the trace decision.

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
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = random & !(0xf << 76) | 0x4 << 76;
    let bits = bits & !(0b11 << 62) | 0b10 << 62;
    // Where the two digits of each byte stand; dashes are between.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut id = [b'-'; 36];
    for (place, byte) in PLACES.into_iter().zip(bits.to_be_bytes()) {
        id[place] = HEX[usize::from(byte >> 4)];
        id[place + 1] = HEX[usize::from(byte & 0xf)];
    }
    id
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
    id.get(..8)?.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_form_and_reason() {
        let mut id = make(u128::MAX);
        assert_eq!(&id, b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&make(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(trace_reason(&id), Some(TraceReason::NotTraced));
        set_trace_reason(&mut id, TraceReason::Sampling);
        assert_eq!(&id, b"ffffffff-ffff-9fff-bfff-ffffffffffff");
        assert_eq!(trace_reason(&id), Some(TraceReason::Sampling));
        assert_eq!(trace_reason(b"short"), None);
        assert_eq!(number(&id), Some(0xffff_ffff));
    }
}
