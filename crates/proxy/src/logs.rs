//! Access log sinks. Lines gather in a buffer of the worker and go out in bulk:
//! when a buffer is full, or on the flush interval. Files are opened for
//! appending by each worker, so that lines never interleave within one write.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use hashbrown::HashMap;
use lateen_proxy_core::access_log::{FilterInput, Record};
use lateen_proxy_core::config::{AccessLog, AccessLogSink};
use lateen_proxy_core::matcher::Headers;

/// Bytes at which a buffer is written at once.
const FLUSH_AT: usize = 64 * 1024;

#[derive(Debug)]
struct Sink {
    buffer: Vec<u8>,
    target: Target,
    failed: bool,
}

#[derive(Debug)]
enum Target {
    File(File),
    Stdout,
    Stderr,
    Nowhere,
}

impl Sink {
    fn open(which: &AccessLogSink) -> Self {
        let target = match which {
            AccessLogSink::Stdout => Target::Stdout,
            AccessLogSink::Stderr => Target::Stderr,
            AccessLogSink::File(path) => {
                match OpenOptions::new().create(true).append(true).open(&**path) {
                    Ok(file) => Target::File(file),
                    Err(error) => {
                        tracing::error!(target: crate::logger::FILE, %path, %error, "access log cannot be opened");
                        Target::Nowhere
                    }
                }
            }
        };
        Self {
            buffer: Vec::new(),
            target,
            failed: false,
        }
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = match &mut self.target {
            Target::File(file) => file.write_all(&self.buffer),
            Target::Stdout => io::stdout()
                .write_all(&self.buffer)
                .and_then(|()| io::stdout().flush()),
            Target::Stderr => io::stderr().write_all(&self.buffer),
            Target::Nowhere => Ok(()),
        };
        self.buffer.clear();
        match written {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::error!(target: crate::logger::FILE, %error, "access log cannot be written; lines are lost");
            }
            Err(_) => {}
        }
    }
}

/// The sinks of a worker.
#[derive(Debug, Default)]
pub struct LogSinks(RefCell<HashMap<AccessLogSink, Sink>>);

impl LogSinks {
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
            let mut sinks = self.0.borrow_mut();
            let sink = sinks
                .entry_ref(&logger.sink)
                .or_insert_with(|| Sink::open(&logger.sink));
            logger.format.write(record, &mut sink.buffer);
            if sink.buffer.len() >= FLUSH_AT {
                sink.flush();
            }
        }
    }

    /// Writes what waits.
    pub fn flush(&self) {
        for sink in self.0.borrow_mut().values_mut() {
            sink.flush();
        }
    }

    /// Opens the files anew (they were rotated).
    pub fn reopen(&self) {
        self.flush();
        self.0.borrow_mut().clear();
    }
}
