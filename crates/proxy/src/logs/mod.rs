//! Access log sinks. Lines gather in a buffer of the worker and go out in bulk: when a buffer is
//! full, or on the flush interval. What goes out is handed to the file's own thread, for a file
//! may be a pipe whose reader does not read, and a worker waits for nobody.

mod file;

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use lateen_proxy_core::access_log::{FilterInput, Record};
use lateen_proxy_core::config::{AccessLog, AccessLogSink};
use lateen_proxy_core::matcher::Headers;

use file::LogFile;
pub use file::LogFiles;

/// Bytes at which a buffer is handed over at once.
const FLUSH_AT: usize = 64 * 1024;

/// A worker's lines for a file.
#[derive(Debug)]
struct Sink {
    buffer: Vec<u8>,
    /// How many lines the buffer holds.
    lines: u64,
    file: Arc<LogFile>,
}

impl Sink {
    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            self.file.take(&mut self.buffer, self.lines);
            self.lines = 0;
        }
    }
}

/// The sinks of a worker.
#[derive(Debug)]
pub struct LogSinks {
    sinks: RefCell<HashMap<AccessLogSink, Sink>>,
    files: LogFiles,
}

impl LogSinks {
    /// Sinks that write to these files, none yet.
    #[must_use]
    pub fn new(files: LogFiles) -> Self {
        Self {
            sinks: RefCell::default(),
            files,
        }
    }

    /// Writes a record's lines to the loggers whose filter lets it pass.
    pub fn write<R: Record, H: Headers + ?Sized>(
        &self,
        loggers: &[AccessLog],
        record: &R,
        input: &FilterInput<'_, H>,
    ) {
        for logger in loggers {
            if logger.filter.as_ref().is_some_and(|f| !f.passes(input)) {
                continue;
            }
            let mut sinks = self.sinks.borrow_mut();
            let sink = sinks.entry_ref(&logger.sink).or_insert_with(|| Sink {
                buffer: Vec::new(),
                lines: 0,
                file: self.files.file(&logger.sink),
            });
            logger.format.write(record, &mut sink.buffer);
            sink.lines += 1;
            if sink.buffer.len() >= FLUSH_AT {
                sink.flush();
            }
        }
    }

    /// Hands over what waits.
    pub fn flush(&self) {
        for sink in self.sinks.borrow_mut().values_mut() {
            sink.flush();
        }
    }

    /// [`LogSinks::flush`] as the flush interval has it; `first` = of one worker of all, which
    /// counts the interval.
    pub fn flush_by_timer(&self, first: bool) {
        self.flush();
        if first {
            self.files.count_interval();
        }
    }
}
