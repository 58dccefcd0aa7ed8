//! Protobuf's JSON forms that the API uses: durations and bytes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A signed span of time, written `1.5s` (protobuf) or `1h2m3.5s`, `20ms` (Go):
/// Istio's documents use both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration {
    /// Nanoseconds.
    pub nanos: i64,
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid duration {0:?}: use a number with a unit, such as \"10s\", \"500ms\" or \"1h30m\""
)]
pub struct DurationError(pub String);

impl Duration {
    /// One millisecond, the least that most fields admit.
    pub const MILLISECOND: Duration = Duration { nanos: 1_000_000 };

    /// Reads Go's duration syntax, of which protobuf's `1.5s` is a part.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        parse_nanos(text)
            .map(|nanos| Self { nanos })
            .ok_or_else(|| DurationError(text.into()))
    }

    /// As an unsigned standard duration; negative spans become zero.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.nanos.max(0).unsigned_abs())
    }
}

fn parse_nanos(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1i128, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 18 || fraction.len() > 18 {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let mut part = whole * unit;
        if !fraction.is_empty() {
            let digits: i128 = fraction.parse().ok()?;
            part += digits * unit / 10i128.pow(fraction.len() as u32);
        }
        total += part;
        rest = tail;
    }
    i64::try_from(sign * total).ok()
}

impl fmt::Display for Duration {
    /// Protobuf's form: seconds with up to nine decimals and an `s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let n = self.nanos.unsigned_abs();
        let (s, frac) = (n / 1_000_000_000, n % 1_000_000_000);
        if frac == 0 {
            write!(f, "{sign}{s}s")
        } else {
            let frac = format!("{frac:09}");
            write!(f, "{sign}{s}.{}s", frac.trim_end_matches('0'))
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(d)?;
        Duration::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "duration"})
    }
}

/// Reads base64 (standard or URL alphabet, padded or not), as protobuf's JSON
/// form of bytes has it; `None` when it is none.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ok = |t: &str| Duration::parse(t).unwrap().nanos;
        assert_eq!(ok("1.5s"), 1_500_000_000);
        assert_eq!(ok("5m"), 300_000_000_000);
        assert_eq!(ok("1h2m3s"), 3_723_000_000_000);
        assert_eq!(ok("20ms"), 20_000_000);
        assert_eq!(ok("-1s"), -1_000_000_000);
        assert_eq!(ok("0"), 0);
        for bad in [
            "",
            "1",
            "s",
            "1x",
            ".s",
            "1s2",
            "99999999999999999999s",
            "300000h1h9999999h",
        ] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Duration::parse("1500ms").unwrap().to_string(), "1.5s");
    }

    #[test]
    fn bytes() {
        assert_eq!(base64("aGVsbG8=").unwrap(), b"hello");
        assert_eq!(base64("aGVsbG8").unwrap(), b"hello");
        assert_eq!(base64("__8=").unwrap(), [255, 255]);
        assert_eq!(base64("a"), None);
        assert_eq!(base64("a b="), None);
    }
}
