//! The text forms of durations, timestamps and field masks, as protobuf's JSON mapping has them.

use std::fmt::Write;

const MAX_DURATION_SECONDS: i64 = 315_576_000_000;
const MIN_TIMESTAMP: i64 = -62_135_596_800;
const MAX_TIMESTAMP: i64 = 253_402_300_799;

/// `12.500s`: none, three, six or nine digits after the point. None when out of range.
pub(super) fn print_duration(seconds: i64, nanos: i32) -> Option<String> {
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if mixed || seconds.abs() > MAX_DURATION_SECONDS || nanos.abs() > 999_999_999 {
        return None;
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let mut out = format!("{sign}{}", seconds.unsigned_abs());
    push_fraction(&mut out, nanos.unsigned_abs());
    out.push('s');
    Some(out)
}

/// Seconds and nanoseconds, of one sign.
pub(super) fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let body = text.strip_suffix('s')?;
    let (negative, body) = match body.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, body),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let seconds = if whole.is_empty() { 0 } else { digits(whole)? };
    let nanos = parse_fraction(fraction)?;
    if seconds > MAX_DURATION_SECONDS {
        return None;
    }
    Some(if negative {
        (-seconds, -nanos)
    } else {
        (seconds, nanos)
    })
}

/// RFC 3339 in UTC with a `Z`. None when out of range.
pub(super) fn print_timestamp(seconds: i64, nanos: i32) -> Option<String> {
    if !(MIN_TIMESTAMP..=MAX_TIMESTAMP).contains(&seconds) || !(0..=999_999_999).contains(&nanos) {
        return None;
    }
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    push_fraction(&mut out, nanos.unsigned_abs());
    out.push('Z');
    Some(out)
}

/// Seconds and nanoseconds since 1970 of an RFC 3339 text with `Z` or an offset.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let part = |from: usize, to: usize| text.get(from..to).and_then(digits);
    let fixed = |at: usize, allowed: &str| {
        text.get(at..=at)
            .filter(|found| allowed.contains(found))
            .map(|_| ())
    };
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    for (at, allowed) in [(4, "-"), (7, "-"), (10, "Tt"), (13, ":"), (16, ":")] {
        fixed(at, allowed)?;
    }
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let rest = text.get(19..)?;
    let end = rest
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let fraction = rest[..end].strip_prefix('.').unwrap_or(&rest[..end]);
    if !rest[..end].is_empty() && (fraction.is_empty() || fraction.len() == end) {
        return None;
    }
    let nanos = parse_fraction(fraction)?;
    let clock = hour * 3600 + minute * 60 + second;
    let seconds = days_from_civil(year, month, day) * 86_400 + clock - offset(&rest[end..])?;
    (MIN_TIMESTAMP..=MAX_TIMESTAMP)
        .contains(&seconds)
        .then_some((seconds, nanos))
}

/// Seconds east of UTC.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hour, minute) = text[1..].split_once(':')?;
    if hour.len() != 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    (hour < 24 && minute < 60).then_some(sign * (hour * 3600 + minute * 60))
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn parse_fraction(text: &str) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    if text.len() > 9 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{text:0<9}").parse().ok()
}

fn push_fraction(out: &mut String, nanos: u32) {
    let result = match nanos {
        0 => Ok(()),
        n if n % 1_000_000 == 0 => write!(out, ".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => write!(out, ".{:06}", n / 1_000),
        n => write!(out, ".{n:09}"),
    };
    debug_assert!(result.is_ok(), "writing to a String does not fail");
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. The year is counted from March, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day number; the inverse of [`days_from_civil`].
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `a_b.c` to `aB.c`. None when a name does not survive the way there and back.
pub(super) fn mask_to_camel(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut upper = false;
    for letter in path.chars() {
        match letter {
            '_' if upper => return None,
            '_' => upper = true,
            'A'..='Z' => return None,
            'a'..='z' if upper => {
                out.push(letter.to_ascii_uppercase());
                upper = false;
            }
            _ if upper => return None,
            _ => out.push(letter),
        }
    }
    (!upper).then_some(out)
}

/// `aB.c` to `a_b.c`. None for a path with underscores.
pub(super) fn mask_to_snake(path: &str) -> Option<String> {
    let mut out = String::new();
    for letter in path.chars() {
        match letter {
            '_' => return None,
            'A'..='Z' => {
                out.push('_');
                out.push(letter.to_ascii_lowercase());
            }
            _ => out.push(letter),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, value, printed) in [
            ("0s", (0, 0), "0s"),
            ("1.5s", (1, 500_000_000), "1.500s"),
            ("-0.000001s", (0, -1000), "-0.000001s"),
            ("3.000000001s", (3, 1), "3.000000001s"),
            ("-2.25s", (-2, -250_000_000), "-2.250s"),
        ] {
            assert_eq!(parse_duration(text), Some(value), "{text}");
            assert_eq!(print_duration(value.0, value.1).as_deref(), Some(printed));
        }
        for text in [
            "",
            "s",
            "5",
            "1.s1",
            "+1s",
            "1.0000000001s",
            "315576000001s",
            "1 s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(print_duration(1, -1), None);
    }

    #[test]
    fn timestamps() {
        for (text, value, printed) in [
            ("1970-01-01T00:00:00Z", (0, 0), "1970-01-01T00:00:00Z"),
            (
                "2024-02-29T12:30:15.250Z",
                (1_709_209_815, 250_000_000),
                "2024-02-29T12:30:15.250Z",
            ),
            (
                "2000-03-01T01:00:00+01:00",
                (951_868_800, 0),
                "2000-03-01T00:00:00Z",
            ),
            (
                "0001-01-01T00:00:00Z",
                (MIN_TIMESTAMP, 0),
                "0001-01-01T00:00:00Z",
            ),
            (
                "9999-12-31T23:59:59Z",
                (MAX_TIMESTAMP, 0),
                "9999-12-31T23:59:59Z",
            ),
        ] {
            assert_eq!(parse_timestamp(text), Some(value), "{text}");
            assert_eq!(print_timestamp(value.0, value.1).as_deref(), Some(printed));
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:005Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_comes_back() {
        for day in (-719_162..=2_932_896).step_by(97) {
            let (year, month, date) = civil(day);
            assert_eq!(days_from_civil(year, month, date), day);
        }
    }
}
