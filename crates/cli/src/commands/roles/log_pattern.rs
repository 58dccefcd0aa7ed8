//! Log lines by a pattern of spdlog's, as Envoy's `--log-format` takes it (its wiki, "Custom
//! formatting"): `%` and a letter stand for a part of the event, the rest for itself. Times are in
//! UTC. A letter that has no meaning stays as it is written.

use std::fmt::Write as _;

use lateen_process::logs::{Level, Told};
use lateen_proxy_core::access_log::TimeFormat;

/// A pattern, read.
#[derive(Debug)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    /// Escape what C escapes in the message (`--log-format-escaped`).
    escaped: bool,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Flag(char, Option<Width>),
    Time(TimeFormat, Option<Width>),
}

/// `%-8l`, `%=8l`, `%8l`, `%3!l`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    columns: usize,
    side: Side,
    cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The text stands at the right.
    Right,
    Left,
    Middle,
}

/// Widest column, spdlog's limit.
const WIDEST: usize = 64;

impl Pattern {
    /// Reads a pattern; there is none that is wrong.
    pub(super) fn parse(text: &str, escaped: bool) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let side = match rest.peek() {
                Some('-') => Some(Side::Left),
                Some('=') => Some(Side::Middle),
                _ => None,
            };
            if side.is_some() {
                rest.next();
            }
            let mut columns = 0;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                columns = (columns * 10 + digit as usize).min(WIDEST);
                rest.next();
            }
            let cut = columns > 0 && rest.next_if_eq(&'!').is_some();
            let width = (columns > 0).then_some(Width {
                columns,
                side: side.unwrap_or(Side::Right),
                cut,
            });
            match rest.next() {
                Some('%') | None => plain.push('%'),
                Some(flag) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(match time(flag) {
                        Some(format) => Part::Time(format, width),
                        None => Part::Flag(flag, width),
                    });
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self { parts, escaped }
    }

    /// The line of one event, without its end.
    pub(super) fn line(&self, told: &Told<'_>) -> String {
        let mut line = String::new();
        let mut one = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Flag(flag, width) => {
                    one.clear();
                    self.flag(*flag, told, &mut one);
                    pad(&mut line, &one, *width);
                }
                Part::Time(format, width) => {
                    let nanos = u64::try_from(told.time.as_nanos()).unwrap_or(u64::MAX);
                    let mut text = Vec::new();
                    format.write(nanos, &mut text);
                    pad(&mut line, &String::from_utf8_lossy(&text), *width);
                }
            }
        }
        line
    }

    fn flag(&self, flag: char, told: &Told<'_>, to: &mut String) {
        let level = level(told.level);
        match flag {
            'v' if self.escaped => escape_c(told.message, to),
            'v' => to.push_str(told.message),
            // Envoy's own two: newlines escaped, JSON escaped.
            '_' => to.push_str(&told.message.replace('\n', "\\n")),
            'j' => escape_json(told.message, to),
            'l' => to.push_str(level),
            'L' => to.extend(level.chars().next().map(|c| c.to_ascii_uppercase())),
            'n' => to.push_str(told.target),
            't' => to.push_str(&told.thread.to_string()),
            'P' => to.push_str(&std::process::id().to_string()),
            'g' => to.push_str(told.file),
            's' => to.push_str(told.file.rsplit('/').next().unwrap_or_default()),
            '#' => to.push_str(&told.line.to_string()),
            '@' => to.push_str(&format!("{}:{}", told.file, told.line)),
            // A function's name is not known; colours are for terminals.
            '!' | '^' | '$' => {}
            other => to.extend(['%', other]),
        }
    }
}

/// Envoy's words for the levels.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn pad(line: &mut String, one: &str, width: Option<Width>) {
    let Some(width) = width else {
        line.push_str(one);
        return;
    };
    let long = one.chars().count();
    if width.cut && long > width.columns {
        line.extend(one.chars().take(width.columns));
        return;
    }
    let free = width.columns.saturating_sub(long);
    let before = match width.side {
        Side::Right => free,
        Side::Left => 0,
        Side::Middle => free / 2,
    };
    line.extend(std::iter::repeat_n(' ', before));
    line.push_str(one);
    line.extend(std::iter::repeat_n(' ', free - before));
}

fn escape_c(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            c if c.is_control() => _ = write!(to, "\\x{:02x}", u32::from(c)),
            c => to.push(c),
        }
    }
}

fn escape_json(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\\' | '"' => to.extend(['\\', c]),
            c if c.is_control() => _ = write!(to, "\\u{:04x}", u32::from(c)),
            c => to.push(c),
        }
    }
}

/// A part of the time in `strftime`'s words; none where the letter means none.
fn time(flag: char) -> Option<TimeFormat> {
    let format = match flag {
        'Y' => "%Y",
        'C' => "%y",
        'm' => "%m",
        'd' => "%d",
        'D' | 'x' => "%D",
        'H' => "%H",
        'I' => "%I",
        'M' => "%M",
        'S' => "%S",
        'T' | 'X' => "%T",
        'R' => "%R",
        'r' => "%I:%M:%S %p",
        'p' => "%p",
        'e' => "%3f",
        'f' => "%6f",
        'F' => "%9f",
        'E' => "%s",
        // With a colon, which strftime's has not; it is UTC anyway.
        'z' => "+00:00",
        'a' => "%a",
        'A' => "%A",
        'b' | 'h' => "%b",
        'B' => "%B",
        'c' => "%a %b %e %T %Y",
        _ => return None,
    };
    TimeFormat::parse(format).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(pattern: &str, escaped: bool, seconds: u64, message: &str) -> String {
        let told = Told {
            time: Duration::new(seconds, 7_089_001),
            level: Level::WARN,
            target: "upstream",
            file: "crates/a/b.rs",
            line: 12,
            thread: 34,
            message,
        };
        Pattern::parse(pattern, escaped).line(&told)
    }

    #[test]
    fn envoys_and_istios_formats_are_filled() {
        let at = 1_709_210_096; // a 29th of February
        let envoys = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";
        assert_eq!(
            line(envoys, false, at, "hello"),
            "[2024-02-29 12:34:56.007][34][warning][upstream] [crates/a/b.rs:12] hello"
        );
        let istios = "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t";
        assert_eq!(
            line(istios, false, at, "hello"),
            "2024-02-29T12:34:56.007089Z\twarning\tenvoy upstream crates/a/b.rs:12\thello\tthread=34"
        );
        assert_eq!(
            line("%a %A %b %B %c", false, at, ""),
            "Thu Thursday Feb February Thu Feb 29 12:34:56 2024"
        );
        assert_eq!(
            line("%I %p %r %D %C %z %E", false, at, ""),
            "12 PM 12:34:56 PM 02/29/24 24 +00:00 1709210096"
        );
    }

    #[test]
    fn dates_are_the_calendars() {
        let days = [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
        ];
        for (seconds, day) in days {
            assert_eq!(line("%Y-%m-%d", false, seconds, ""), day);
        }
    }

    #[test]
    fn columns_are_filled_or_cut() {
        assert_eq!(line("[%9l]", false, 0, ""), "[  warning]");
        assert_eq!(line("[%-9l]", false, 0, ""), "[warning  ]");
        assert_eq!(line("[%=9l]", false, 0, ""), "[ warning ]");
        assert_eq!(line("[%3!l]", false, 0, ""), "[war]");
        assert_eq!(line("[%3l]", false, 0, ""), "[warning]");
        assert_eq!(line("100%% %q %", false, 0, ""), "100% %q %");
    }

    #[test]
    fn a_message_can_be_kept_on_one_line() {
        let message = "a\"b\\\n\u{1}c";
        assert_eq!(line("%v", false, 0, message), message);
        assert_eq!(line("%v", true, 0, message), "a\\\"b\\\\\\n\\x01c");
        assert_eq!(line("%_", false, 0, message), "a\"b\\\\n\u{1}c");
        assert_eq!(line("%j", false, 0, message), "a\\\"b\\\\\\n\\u0001c");
    }
}
