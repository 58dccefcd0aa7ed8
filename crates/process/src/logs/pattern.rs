//! Log lines by a pattern of spdlog's, as Envoy's `--log-format` takes it (its wiki, "Custom
//! formatting"): `%` and a letter stand for a part of the event, the rest for itself. Times are in
//! UTC. A letter that has no meaning stays as it is written.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A pattern, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    /// Escape what C escapes in the message (`--log-format-escaped`).
    escaped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Flag(char, Option<Width>),
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
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
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

impl Pattern {
    /// Reads a pattern; there is none that is wrong.
    #[must_use]
    pub fn parse(text: &str, escaped: bool) -> Self {
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
                    parts.push(Part::Flag(flag, width));
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self { parts, escaped }
    }

    /// The line of one event, without its end.
    #[must_use]
    pub fn line(&self, told: &Told<'_>) -> String {
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
            _ if date(flag, told.time, to) => {}
            other => to.extend(['%', other]),
        }
    }
}

/// What is told of an event.
#[derive(Debug)]
pub struct Told<'a> {
    /// Since 1970.
    pub time: Duration,
    /// Its level.
    pub level: Level,
    /// The logger.
    pub target: &'a str,
    /// The source file, as the compiler was given it.
    pub file: &'a str,
    /// Its line.
    pub line: u32,
    /// The thread's number.
    pub thread: u64,
    /// What happened, with its fields.
    pub message: &'a str,
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

/// A part of the time; false where the letter means none.
fn date(flag: char, time: Duration, to: &mut String) -> bool {
    let seconds = time.as_secs();
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let (year, month, day) = civil(days);
    let weekday = usize::try_from((days + 4) % 7).unwrap_or(0);
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let half = if hour < 12 { "AM" } else { "PM" };
    let short = |names: &[&'static str], at: usize| names.get(at).map_or("", |name| &name[..3]);
    // Writing to a string cannot fail.
    _ = match flag {
        'Y' => write!(to, "{year}"),
        'C' => write!(to, "{:02}", year % 100),
        'm' => write!(to, "{month:02}"),
        'd' => write!(to, "{day:02}"),
        'D' | 'x' => write!(to, "{month:02}/{day:02}/{:02}", year % 100),
        'H' => write!(to, "{hour:02}"),
        'I' => write!(to, "{twelve:02}"),
        'M' => write!(to, "{minute:02}"),
        'S' => write!(to, "{second:02}"),
        'T' | 'X' => write!(to, "{hour:02}:{minute:02}:{second:02}"),
        'R' => write!(to, "{hour:02}:{minute:02}"),
        'r' => write!(to, "{twelve:02}:{minute:02}:{second:02} {half}"),
        'p' => write!(to, "{half}"),
        'e' => write!(to, "{:03}", time.subsec_millis()),
        'f' => write!(to, "{:06}", time.subsec_micros()),
        'F' => write!(to, "{:09}", time.subsec_nanos()),
        'E' => write!(to, "{seconds}"),
        'z' => write!(to, "+00:00"),
        'a' => write!(to, "{}", short(&DAYS, weekday)),
        'A' => write!(to, "{}", DAYS[weekday]),
        'b' | 'h' => write!(to, "{}", short(&MONTHS, month - 1)),
        'B' => write!(to, "{}", MONTHS.get(month - 1).unwrap_or(&"")),
        'c' => write!(
            to,
            "{} {} {day} {hour:02}:{minute:02}:{second:02} {year}",
            short(&DAYS, weekday),
            short(&MONTHS, month - 1),
        ),
        _ => return false,
    };
    true
}

/// Year, month (from 1) and day of the month of a day since 1970, by counting from a 1st of March:
/// the leap day is then a year's last.
fn civil(days: u64) -> (u64, usize, u64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01; an era is 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

impl<S, N> FormatEvent<S, N> for Pattern
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        context.format_fields(Writer::new(&mut message), event)?;
        let about = event.metadata();
        let told = Told {
            time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            level: *about.level(),
            target: about.target(),
            file: about.file().unwrap_or_default(),
            line: about.line().unwrap_or_default(),
            thread: thread(),
            message: &message,
        };
        writeln!(writer, "{}", self.line(&told))
    }
}

/// The system's number of this thread: the one that `ps -T` shows.
fn thread() -> u64 {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let name = link.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
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
