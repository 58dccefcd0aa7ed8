//! Times in log lines: ISO 8601 by default, `strftime` with fractions by format. Always UTC.
use crate::config::Name;

/// How a time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-11-21T07:57:09.623Z`.
    Iso8601Ms,
    /// `strftime` pieces.
    Strftime(Vec<TimePiece>),
}

/// A piece of a time format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimePiece {
    /// Text.
    Literal(Name),
    /// A conversion letter.
    Part(char),
    /// Fraction of a second with so many digits.
    Fraction(u8),
    /// Seconds with so many digits of fraction (`%E3S`); 255 = as many as needed.
    Seconds(u8),
}

struct Civil {
    year: i64,
    month: u32,
    day: u32,
    weekday: u32,
    day_of_year: u32,
    hour: u64,
    minute: u64,
    second: u64,
    nanos: u64,
    unix: u64,
}

const NANOS: u64 = 1_000_000_000;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl Civil {
    /// From nanoseconds since the epoch; days-from-civil arithmetic of the proleptic Gregorian
    /// calendar, years counted from March.
    fn new(nanos: u64) -> Self {
        let unix = nanos / NANOS;
        let days = (unix / 86_400).cast_signed();
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let doe = shifted.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        let day = small(doy - (153 * mp + 2) / 5 + 1);
        let month = small(if mp < 10 { mp + 3 } else { mp - 9 });
        let year = yoe + era * 400 + i64::from(month <= 2);
        let leap = u32::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let day_of_year = before[month as usize - 1] + day + if month > 2 { leap } else { 0 };
        let seconds = unix % 86_400;
        Self {
            year,
            month,
            day,
            weekday: small((days + 4).rem_euclid(7)),
            day_of_year,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            nanos: nanos % NANOS,
            unix,
        }
    }
}

fn pad(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits.as_bytes());
}

/// Writes `2026-11-21T07:57:09.623Z`.
pub fn write_iso8601_ms(nanos: u64, out: &mut Vec<u8>) {
    let c = Civil::new(nanos);
    pad(out, c.year.unsigned_abs(), 4);
    for (sep, n) in [
        (b'-', u64::from(c.month)),
        (b'-', u64::from(c.day)),
        (b'T', c.hour),
        (b':', c.minute),
        (b':', c.second),
    ] {
        out.push(sep);
        pad(out, n, 2);
    }
    out.push(b'.');
    pad(out, c.nanos / 1_000_000, 3);
    out.push(b'Z');
}

/// Writes an HTTP date, `Sat, 21 Nov 2026 07:57:09 GMT`.
pub fn write_date(unix_seconds: u64, out: &mut Vec<u8>) {
    let c = Civil::new(unix_seconds.saturating_mul(NANOS));
    out.extend_from_slice(&DAYS[c.weekday as usize].as_bytes()[..3]);
    out.extend_from_slice(b", ");
    pad(out, u64::from(c.day), 2);
    out.push(b' ');
    out.extend_from_slice(&MONTHS[c.month as usize - 1].as_bytes()[..3]);
    out.push(b' ');
    pad(out, c.year.unsigned_abs(), 4);
    for (sep, n) in [(b' ', c.hour), (b':', c.minute), (b':', c.second)] {
        out.push(sep);
        pad(out, n, 2);
    }
    out.extend_from_slice(b" GMT");
}

impl TimeFormat {
    /// Reads a `strftime` format; empty = ISO 8601.
    ///
    /// # Errors
    /// A text naming the conversion that is not known.
    pub fn parse(format: &str) -> Result<Self, String> {
        if format.is_empty() {
            return Ok(Self::Iso8601Ms);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let piece = match chars.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some(d @ '1'..='9') if chars.next_if_eq(&'f').is_some() => {
                    TimePiece::Fraction(u8::try_from(d as u32 - '0' as u32).unwrap_or(9))
                }
                Some('f') => TimePiece::Fraction(9),
                Some('E') => match (chars.next(), chars.next()) {
                    (Some('*'), Some('S')) => TimePiece::Seconds(255),
                    (Some(d), Some('S')) if d.is_ascii_digit() => {
                        TimePiece::Seconds(u8::try_from(d as u32 - '0' as u32).unwrap_or(0))
                    }
                    _ => return Err("`%E` is followed by a digit or `*`, and `S`".into()),
                },
                Some(c) if "YmdHMSszZTFDebBaAhjpIyRnt".contains(c) => TimePiece::Part(c),
                Some(c) => return Err(format!("`%{c}` is not a known time conversion")),
                None => return Err("a time format must not end in `%`".into()),
            };
            if !literal.is_empty() {
                pieces.push(TimePiece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(TimePiece::Literal(literal.into()));
        }
        Ok(Self::Strftime(pieces))
    }

    /// Writes a time given in nanoseconds since the epoch.
    pub fn write(&self, nanos: u64, out: &mut Vec<u8>) {
        let Self::Strftime(pieces) = self else {
            return write_iso8601_ms(nanos, out);
        };
        let c = Civil::new(nanos);
        for piece in pieces {
            match piece {
                TimePiece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                TimePiece::Part(letter) => part(*letter, &c, out),
                TimePiece::Fraction(digits) => fraction(*digits, c.nanos, out),
                TimePiece::Seconds(digits) => {
                    pad(out, c.second, 2);
                    if *digits == 255 {
                        if c.nanos > 0 {
                            out.push(b'.');
                            fraction(9, c.nanos, out);
                            while out.last() == Some(&b'0') {
                                out.pop();
                            }
                        }
                    } else if *digits > 0 {
                        out.push(b'.');
                        fraction(*digits, c.nanos, out);
                    }
                }
            }
        }
    }
}

fn fraction(digits: u8, nanos: u64, out: &mut Vec<u8>) {
    let scale = 10_u64.pow(9 - u32::from(digits.min(9)));
    pad(out, nanos / scale, usize::from(digits));
}

fn part(letter: char, c: &Civil, out: &mut Vec<u8>) {
    let year = c.year.unsigned_abs();
    let (month, day) = (u64::from(c.month), u64::from(c.day));
    let joined = |out: &mut Vec<u8>, parts: &[(u64, usize)], sep: u8| {
        for (i, (n, width)) in parts.iter().enumerate() {
            if i > 0 {
                out.push(sep);
            }
            pad(out, *n, *width);
        }
    };
    match letter {
        'Y' => pad(out, year, 4),
        'y' => pad(out, year % 100, 2),
        'm' => pad(out, month, 2),
        'd' => pad(out, day, 2),
        'e' => {
            if day < 10 {
                out.push(b' ');
            }
            pad(out, day, 1);
        }
        'H' => pad(out, c.hour, 2),
        'I' => pad(out, (c.hour + 11) % 12 + 1, 2),
        'M' => pad(out, c.minute, 2),
        'S' => pad(out, c.second, 2),
        's' => pad(out, c.unix, 1),
        'j' => pad(out, u64::from(c.day_of_year), 3),
        'p' => out.extend_from_slice(if c.hour < 12 { b"AM" } else { b"PM" }),
        'z' => out.extend_from_slice(b"+0000"),
        'Z' => out.extend_from_slice(b"UTC"),
        'T' => joined(out, &[(c.hour, 2), (c.minute, 2), (c.second, 2)], b':'),
        'R' => joined(out, &[(c.hour, 2), (c.minute, 2)], b':'),
        'F' => joined(out, &[(year, 4), (month, 2), (day, 2)], b'-'),
        'D' => joined(out, &[(month, 2), (day, 2), (year % 100, 2)], b'/'),
        'b' | 'h' => out.extend_from_slice(&MONTHS[c.month as usize - 1].as_bytes()[..3]),
        'B' => out.extend_from_slice(MONTHS[c.month as usize - 1].as_bytes()),
        'a' => out.extend_from_slice(&DAYS[c.weekday as usize].as_bytes()[..3]),
        'A' => out.extend_from_slice(DAYS[c.weekday as usize].as_bytes()),
        'n' => out.push(b'\n'),
        't' => out.push(b'\t'),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_795_247_829_623_456_789; // 2026-11-21T07:57:09.623456789Z, a Saturday

    fn show(format: &str) -> String {
        let mut out = Vec::new();
        TimeFormat::parse(format).unwrap().write(T, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn formats() {
        assert_eq!(show(""), "2026-11-21T07:57:09.623Z");
        assert_eq!(
            show("%Y/%m/%dT%H:%M:%S%z %s.%3f %6f %9f"),
            "2026/11/21T07:57:09+0000 1795247829.623 623456 623456789"
        );
        assert_eq!(
            show("%a %A %b %B %j %e %D %T %F %p %I"),
            "Sat Saturday Nov November 325 21 11/21/26 07:57:09 2026-11-21 AM 07"
        );
        assert_eq!(show("%E3S %E*S %%"), "09.623 09.623456789 %");
        assert!(TimeFormat::parse("%Q").is_err());
        let mut out = Vec::new();
        write_date(T / NANOS, &mut out);
        assert_eq!(out, b"Sat, 21 Nov 2026 07:57:09 GMT");
        let mut out = Vec::new();
        write_iso8601_ms(951_827_696 * NANOS, &mut out);
        assert_eq!(out, b"2000-02-29T12:34:56.000Z");
        let mut out = Vec::new();
        write_iso8601_ms(0, &mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
    }
}
