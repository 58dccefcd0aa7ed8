//! Mutation without coverage, for plain test runs: from the same seed always the same inputs.

/// Longest input that is made.
pub const LONGEST: usize = 8 * 1024;

/// A small generator of random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; zero is as good as any.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from((self.number() >> 16) % limit).unwrap_or(0)
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Numbers at the edges of what fields hold.
const EDGES: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "1e999",
];

/// A new input from `seeds`: one of them, changed a few times.
#[must_use]
pub fn input(random: &mut Random, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut data = random.pick(seeds).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        step(random, &mut data, seeds, words);
    }
    data.truncate(LONGEST);
    data
}

fn range(random: &mut Random, len: usize) -> std::ops::Range<usize> {
    let start = random.below(len + 1);
    let end = start + random.below((len - start).min(64) + 1);
    start..end
}

fn step(random: &mut Random, data: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str]) {
    let at = random.below(data.len() + 1);
    match random.below(10) {
        0 => {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = data.get_mut(at) {
                *byte = random.number().to_le_bytes()[3];
            }
        }
        2 => {
            let cut = range(random, data.len());
            data.drain(cut);
        }
        3 => {
            let piece = range(random, data.len());
            let piece = data[piece].to_vec();
            data.splice(at..at, piece);
        }
        4 => {
            let other = random.pick(seeds).cloned().unwrap_or_default();
            let piece = range(random, other.len());
            data.splice(at..at, other[piece].iter().copied());
        }
        5 => data.truncate(at),
        6 => {
            let piece = range(random, data.len());
            let piece = data[piece].repeat(1 + random.below(40));
            data.splice(at..at, piece);
        }
        7 => replace_number(random, data),
        _ => {
            let word = random.pick(words).copied().unwrap_or("");
            let end = if random.below(2) == 0 {
                at
            } else {
                (at + word.len()).min(data.len())
            };
            data.splice(at..end, word.bytes());
        }
    }
    data.truncate(2 * LONGEST);
}

/// Puts an edge where a number stands.
fn replace_number(random: &mut Random, data: &mut Vec<u8>) {
    let from = random.below(data.len() + 1);
    let digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = data[from..].iter().position(digit).map(|at| from + at) else {
        return;
    };
    let end = data[start..]
        .iter()
        .position(|byte| !digit(byte))
        .map_or(data.len(), |len| start + len);
    let edge = random.pick(&EDGES).copied().unwrap_or("0");
    data.splice(start..end, edge.bytes());
}
