//! Reading choices out of a fuzz input: a byte that picks options, places to cut, pieces.

/// The first byte (0 when there is none) and the rest.
#[must_use]
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// The input as text, if it is that.
#[must_use]
pub fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// A number that depends on every byte (FNV-1a).
#[must_use]
pub fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Lengths of prefixes at which an input may arrive: growing, ending with the whole, the same
/// for the same input. Short inputs are cut everywhere.
#[must_use]
pub fn arrivals(data: &[u8]) -> Vec<usize> {
    if data.len() <= 40 {
        return (1..=data.len().max(1)).collect();
    }
    let mut random = crate::mutate::Random::new(hash(data));
    let mut ends: Vec<usize> = (0..12).map(|_| 1 + random.below(data.len())).collect();
    // The end is where a parser changes its mind.
    ends.extend(data.len().saturating_sub(3)..=data.len());
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// Text inputs that nest as deep as a limit must stop: `open` and `close` around nothing.
#[must_use]
pub fn nested(open: &str, close: &str, times: usize) -> Vec<u8> {
    let mut out = open.repeat(times).into_bytes();
    out.extend_from_slice(close.repeat(times).as_bytes());
    out
}

/// Seeds from texts.
#[must_use]
pub fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Seeds from texts, each after the same options byte.
#[must_use]
pub fn seeds_after(option: u8, texts: &[&str]) -> Vec<Vec<u8>> {
    texts
        .iter()
        .map(|text| [&[option], text.as_bytes()].concat())
        .collect()
}
