//! Cron schedules: five fields (minute, hour, day of month, month, day of week) or a macro such as
//! `@daily`. Pure.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

/// Why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Neither a macro nor five fields.
    #[error("expected exactly 5 fields, found {0}")]
    Fields(usize),
    /// A field that is no list of numbers, names, ranges and steps within its bounds.
    #[error("{0:?} is not valid in field {1:?}")]
    Field(String, &'static str),
}

/// A parsed schedule: the allowed values as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both days fields are restricted: a day needs to be in one of them only.
    either_day: bool,
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// How far the next time is searched: a 29 February is at most 8 years away.
const YEARS: i64 = 9;

impl Schedule {
    /// Parses a schedule.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::Fields(fields.len()));
        };
        let mut weekdays = field(weekday, "day of week", 0, 7, &WEEKDAYS, 0)?;
        // Sunday is 0 and 7.
        weekdays |= weekdays >> 7 & 1;
        let any = |text: &str| text.starts_with('*') || text.starts_with('?');
        Ok(Self {
            minutes: field(minute, "minute", 0, 59, &[], 0)?,
            hours: field(hour, "hour", 0, 23, &[], 0)?,
            days: field(day, "day of month", 1, 31, &[], 0)?,
            months: field(month, "month", 1, 12, &MONTHS, 1)?,
            weekdays,
            either_day: !any(day) && !any(weekday),
        })
    }

    fn has_day(&self, date: Date) -> bool {
        let in_month = self.months >> date.month() & 1 == 1;
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        in_month
            && if self.either_day {
                day || weekday
            } else {
                day && weekday
            }
    }

    /// The first time after `after`, by the clock of a time zone; `None` for a date that never
    /// comes, such as 30 February.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = zone.to_datetime(after);
        let first = local.date();
        let mut date = first;
        let last = first.checked_add(Span::new().years(YEARS)).ok()?;
        while date <= last {
            if self.has_day(date) {
                let found = self.times(date).find_map(|time| {
                    // A time that a clock change skips is taken an hour later.
                    let at = zone.to_timestamp(time).ok()?;
                    (at > after).then_some(at)
                });
                if found.is_some() {
                    return found;
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn times(&self, date: Date) -> impl Iterator<Item = DateTime> {
        let (hours, minutes) = (self.hours, self.minutes);
        (0..24_i8)
            .filter(move |hour| hours >> hour & 1 == 1)
            .flat_map(move |hour| (0..60_i8).map(move |minute| (hour, minute)))
            .filter(move |(_, minute)| minutes >> minute & 1 == 1)
            .map(move |(hour, minute)| date.at(hour, minute, 0, 0))
    }

    /// The last time in (`after`, `until`], if any.
    pub fn last(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // Growing windows back from the end: a dense schedule is found in the first one.
        for hours in [2_i64, 48, 24 * 32, 24 * 366, 24 * 366 * 9] {
            let from = until.checked_sub(hours.hours()).unwrap_or(after).max(after);
            let mut found = None;
            let mut at = from;
            while let Some(next) = self.next(at, zone).filter(|next| *next <= until) {
                found = Some(next);
                at = next;
            }
            if found.is_some() || from == after {
                return found;
            }
        }
        None
    }
}

/// Bits of a comma-separated list of `*`, `n`, `a-b`, each with an optional `/step`.
fn field(
    text: &str,
    kind: &'static str,
    least: u32,
    most: u32,
    names: &[&str],
    first_name: u32,
) -> Result<u64, ScheduleError> {
    let bad = || ScheduleError::Field(text.to_owned(), kind);
    let number = |word: &str| -> Option<u32> {
        let lower = word.to_ascii_lowercase();
        if let Some(at) = names.iter().position(|name| *name == lower) {
            return u32::try_from(at).ok().map(|at| at + first_name);
        }
        word.parse().ok().filter(|n| (least..=most).contains(n))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                Some(
                    step.parse::<u32>()
                        .ok()
                        .filter(|s| *s > 0)
                        .ok_or_else(bad)?,
                ),
            ),
            None => (part, None),
        };
        let (from, to) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((from, to)) => (number(from).ok_or_else(bad)?, number(to).ok_or_else(bad)?),
                None => {
                    let from = number(range).ok_or_else(bad)?;
                    // `5/10` means from 5 on.
                    (from, if step.is_some() { most } else { from })
                }
            },
        };
        if from > to {
            return Err(bad());
        }
        let step = usize::try_from(step.unwrap_or(1)).map_err(|_| bad())?;
        for value in (from..=to).step_by(step) {
            bits |= 1 << value;
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        schedule
            .next(at(after), &TimeZone::UTC)
            .map_or("never".to_owned(), |at| at.to_string())
    }

    #[test]
    fn the_next_time_is_found() {
        assert_eq!(
            next("* * * * *", "2026-01-01T00:00:00Z"),
            "2026-01-01T00:01:00Z"
        );
        assert_eq!(
            next("*/15 3-5 * * *", "2026-01-01T05:45:00Z"),
            "2026-01-02T03:00:00Z"
        );
        assert_eq!(
            next("0 0 29 2 *", "2026-01-01T00:00:00Z"),
            "2028-02-29T00:00:00Z"
        );
        assert_eq!(
            next("30 4 * jan mon", "2026-01-01T00:00:00Z"),
            "2026-01-05T04:30:00Z"
        );
        assert_eq!(
            next("0 0 * * 7", "2026-01-01T00:00:00Z"),
            "2026-01-04T00:00:00Z"
        );
        assert_eq!(
            next("5/20 * * * *", "2026-01-01T00:26:00Z"),
            "2026-01-01T00:45:00Z"
        );
        assert_eq!(
            next("@hourly", "2026-01-01T00:26:00Z"),
            "2026-01-01T01:00:00Z"
        );
        assert_eq!(next("0 0 30 2 *", "2026-01-01T00:00:00Z"), "never");
        // Both day fields: either matches (13th, or a Friday).
        assert_eq!(
            next("0 0 13 * fri", "2026-01-03T00:00:00Z"),
            "2026-01-09T00:00:00Z"
        );
        assert_eq!(
            next("0 0 13 * fri", "2026-01-09T00:00:00Z"),
            "2026-01-13T00:00:00Z"
        );
    }

    #[test]
    fn the_last_time_is_found_however_long_ago() {
        let last = |schedule: &str, after: &str, until: &str| {
            let schedule = Schedule::parse(schedule).expect("a schedule");
            schedule
                .last(at(after), at(until), &TimeZone::UTC)
                .map(|at| at.to_string())
        };
        let (new_year, march) = ("2026-01-01T00:00:00Z", "2026-03-01T00:00:30Z");
        assert_eq!(
            last("* * * * *", new_year, march).as_deref(),
            Some("2026-03-01T00:00:00Z")
        );
        assert_eq!(
            last("0 9 2 1 *", new_year, march).as_deref(),
            Some("2026-01-02T09:00:00Z")
        );
        assert_eq!(last("0 9 2 6 *", new_year, march), None);
        assert_eq!(last("0 0 1 3 *", "2026-03-01T00:00:00Z", march), None);
    }

    #[test]
    fn bad_schedules_are_refused() {
        for bad in [
            "60 * * * *",
            "* * * *",
            "a * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "* * 0 * *",
            "@x",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }
}
