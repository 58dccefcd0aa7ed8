//! DNS messages of a stub resolver (RFC 1035): a question for addresses, and
//! what an answer says of it. Pure: the caller sends and receives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most addresses taken from one answer: no answer of 64 KiB has room for more.
const MOST_ADDRESSES: usize = 4096;
/// Most names followed from one to the next (CNAME).
const MOST_ALIASES: usize = 16;
/// Longest name, in bytes on the wire (RFC 1035 section 3.1).
const LONGEST_NAME: usize = 255;
const INTERNET: u16 = 1;
const ALIAS: u16 = 5;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 (A).
    V4,
    /// IPv6 (AAAA).
    V6,
}

impl Family {
    fn kind(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, each with the seconds that it may be kept; none = the name has
    /// none of this family.
    Addresses(Vec<(IpAddr, u32)>),
    /// There is no such name.
    NoName,
    /// It does not fit: ask over TCP.
    Truncated,
    /// The server cannot or will not answer; its code.
    Failed(u8),
}

/// Bytes that answer no question of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAnswer(&'static str);

impl std::fmt::Display for NotAnAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not an answer: {}", self.0)
    }
}

impl std::error::Error for NotAnAnswer {}

/// A question. `None` when the name is none (RFC 1035 section 2.3.4: labels of
/// 1 to 63 bytes, 255 in all).
#[must_use]
pub fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 18);
    out.extend_from_slice(&id.to_be_bytes());
    // Recursion desired; one question.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let start = out.len();
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    if out.len() - start > LONGEST_NAME {
        return None;
    }
    for half in [family.kind(), INTERNET] {
        out.extend_from_slice(&half.to_be_bytes());
    }
    Some(out)
}

/// Reads the answer to `question` (as [`question`] wrote it).
///
/// # Errors
/// When it is malformed or belongs to another question.
pub fn answer(question: &[u8], message: &[u8]) -> Result<Answer, NotAnAnswer> {
    let asked = Message(question);
    let message = Message(message);
    let bad = NotAnAnswer;
    let flags = message.half(2).ok_or(bad("too short"))?;
    if message.half(0) != asked.half(0) || flags & 0x8000 == 0 {
        return Err(bad("another message"));
    }
    let (name, at) = message.name(12).ok_or(bad("malformed name"))?;
    let (wanted, end) = asked.name(12).ok_or(bad("malformed name"))?;
    let same_kind =
        message.half(at) == asked.half(end) && message.half(at + 2) == asked.half(end + 2);
    if message.half(4) != Some(1) || name != wanted || !same_kind {
        return Err(bad("another question"));
    }
    match flags & 0xf {
        0 if flags & 0x200 != 0 => return Ok(Answer::Truncated),
        0 => {}
        3 => return Ok(Answer::NoName),
        code => return Ok(Answer::Failed(code as u8)),
    }
    let kind = asked.half(end).unwrap_or_default();
    let records = message.records(at + 4).ok_or(bad("malformed record"))?;
    Ok(Answer::Addresses(follow(&records, wanted, kind)))
}

/// The addresses of a name, or of what it is another name for.
fn follow(records: &[Record], mut name: Vec<u8>, kind: u16) -> Vec<(IpAddr, u32)> {
    let mut least = u32::MAX;
    for _ in 0..MOST_ALIASES {
        let of_name = || records.iter().filter(|r| r.name == name);
        let found = of_name().filter(|r| r.kind == kind);
        let found = found.filter_map(|r| Some((r.address()?, r.ttl.min(least))));
        let found: Vec<_> = found.take(MOST_ADDRESSES).collect();
        if !found.is_empty() {
            return found;
        }
        let Some(alias) = of_name().find(|r| r.kind == ALIAS) else {
            break;
        };
        least = least.min(alias.ttl);
        name = alias.data.clone();
    }
    Vec::new()
}

struct Record {
    name: Vec<u8>,
    kind: u16,
    ttl: u32,
    /// The bytes; of an alias its name, decompressed.
    data: Vec<u8>,
}

impl Record {
    fn address(&self) -> Option<IpAddr> {
        match self.kind {
            1 => <[u8; 4]>::try_from(&*self.data)
                .ok()
                .map(|b| Ipv4Addr::from(b).into()),
            _ => <[u8; 16]>::try_from(&*self.data)
                .ok()
                .map(|b| Ipv6Addr::from(b).into()),
        }
    }
}

struct Message<'a>(&'a [u8]);

impl Message<'_> {
    fn half(&self, at: usize) -> Option<u16> {
        let bytes = self.0.get(at..at.checked_add(2)?)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// The name at a place in lower case with its lengths, and where it ends.
    fn name(&self, mut at: usize) -> Option<(Vec<u8>, usize)> {
        let (mut name, mut end) = (Vec::new(), None);
        loop {
            let length = usize::from(*self.0.get(at)?);
            match length {
                0 => return Some((name, end.unwrap_or(at + 1))),
                1..=63 => {
                    let label = self.0.get(at..at + 1 + length)?;
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += 1 + length;
                }
                // A pointer goes back only, so that it ends.
                192.. => {
                    let target = usize::from(self.half(at)? & 0x3fff);
                    end.get_or_insert(at + 2);
                    if target >= at {
                        return None;
                    }
                    at = target;
                }
                _ => return None,
            }
            if name.len() > LONGEST_NAME {
                return None;
            }
        }
    }

    /// The records of the answer section, which begins there.
    fn records(&self, mut at: usize) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..self.half(6)? {
            let (name, end) = self.name(at)?;
            let (kind, class) = (self.half(end)?, self.half(end + 2)?);
            let ttl = (u32::from(self.half(end + 4)?) << 16) | u32::from(self.half(end + 6)?);
            let start = end + 10;
            at = start + usize::from(self.half(end + 8)?);
            let data = self.0.get(start..at)?;
            if class != INTERNET || !matches!(kind, 1 | 28 | ALIAS) {
                continue;
            }
            let data = match kind {
                ALIAS => self.name(start)?.0,
                _ => data.to_vec(),
            };
            // A TTL with its highest bit set counts as zero (RFC 2181 section 8).
            let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
            records.push(Record {
                name,
                kind,
                ttl,
                data,
            });
        }
        Some(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: u16, name: &str, code: u8, records: &[(&str, u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = question(id, name, Family::V4).unwrap();
        out[2] = 0x81;
        out[3] = code;
        out[7] = u8::try_from(records.len()).unwrap();
        for (name, kind, ttl, data) in records {
            match *name {
                "" => out.extend_from_slice(&[0xc0, 12]),
                name => {
                    let own = question(0, name, Family::V4).unwrap();
                    out.extend_from_slice(&own[12..own.len() - 4]);
                }
            }
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&ttl.to_be_bytes());
            out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    #[test]
    fn addresses_and_aliases() {
        let asked = question(7, "A.example.", Family::V4).unwrap();
        let v4 = |last| IpAddr::from([10, 0, 0, last]);
        let direct = reply(
            7,
            "a.EXAMPLE",
            0,
            &[("", 1, 30, &[10, 0, 0, 1]), ("", 1, 20, &[10, 0, 0, 2])],
        );
        let want = Answer::Addresses(vec![(v4(1), 30), (v4(2), 20)]);
        assert_eq!(answer(&asked, &direct), Ok(want));
        let alias = [
            ("", ALIAS, 5, &b"\x01b\xc0\x0e"[..]),
            ("b.example", 1, 30, &[10, 0, 0, 3]),
            ("c.example", 1, 30, &[10, 0, 0, 4]),
        ];
        let want = Answer::Addresses(vec![(v4(3), 5)]);
        assert_eq!(answer(&asked, &reply(7, "a.example", 0, &alias)), Ok(want));
        let circle = [("", ALIAS, 5, &b"\xc0\x0c"[..])];
        assert_eq!(
            answer(&asked, &reply(7, "a.example", 0, &circle)),
            Ok(Answer::Addresses(vec![]))
        );
        assert_eq!(
            answer(&asked, &reply(7, "a.example", 3, &[])),
            Ok(Answer::NoName)
        );
        assert_eq!(
            answer(&asked, &reply(7, "a.example", 2, &[])),
            Ok(Answer::Failed(2))
        );
    }

    #[test]
    fn what_is_no_answer() {
        let asked = question(7, "a.example", Family::V4).unwrap();
        let good = reply(7, "a.example", 0, &[("", 1, 30, &[10, 0, 0, 1])]);
        assert!(answer(&asked, &reply(8, "a.example", 0, &[])).is_err());
        assert!(answer(&asked, &reply(7, "b.example", 0, &[])).is_err());
        assert!(answer(&asked, &asked).is_err(), "a question");
        for end in 0..good.len() {
            assert!(answer(&asked, &good[..end]).is_err(), "cut at {end}");
        }
        let mut forward = good.clone();
        let at = asked.len();
        forward[at..at + 2].copy_from_slice(&[0xc0, at as u8]);
        assert!(answer(&asked, &forward).is_err(), "a pointer to itself");
        for bad in ["", "a..b", &"x".repeat(64), &"abc.".repeat(64)] {
            assert_eq!(question(1, bad, Family::V4), None, "{bad}");
        }
    }
}
