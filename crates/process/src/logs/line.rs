//! Log lines of another shape than the usual one: an event is told in plain values to a function
//! that writes its line.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

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

type Write = dyn Fn(&Told<'_>) -> String + Send + Sync;

/// Writes the line of an event, without its end.
pub struct Line(Box<Write>);

impl Line {
    /// Lines as `write` makes them.
    pub fn new(write: impl Fn(&Told<'_>) -> String + Send + Sync + 'static) -> Self {
        Self(Box::new(write))
    }
}

impl<S, N> FormatEvent<S, N> for Line
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
        writeln!(writer, "{}", (self.0)(&told))
    }
}

/// The system's number of this thread: the one that `ps -T` shows.
fn thread() -> u64 {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let name = link.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}
