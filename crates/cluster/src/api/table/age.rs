//! Ages as tables print them: short, two units at most.

use crate::api::meta;

/// Time since an RFC 3339 text; `<unknown>` when there is none.
pub(crate) fn since(time: &str) -> String {
    match meta::parse_time(time) {
        Some(t) => short(meta::now_unix() - t),
        None => "<unknown>".to_owned(),
    }
}

/// A span of seconds.
pub(super) fn short(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let s = seconds.max(0);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match s {
        _ if s < 2 * MINUTE => format!("{s}s"),
        _ if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        _ if s < 3 * HOUR => format!("{}m", s / MINUTE),
        _ if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        _ if s < 2 * DAY => format!("{}h", s / HOUR),
        _ if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        _ if s < 2 * YEAR => format!("{}d", s / DAY),
        _ if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        _ => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn ages_are_short() {
        for (s, text) in [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (120, "2m"),
            (3600, "60m"),
            (11000, "3h3m"),
            (90000, "25h"),
            (200_000, "2d7h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(short(s), text);
        }
    }
}
