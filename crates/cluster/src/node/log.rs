//! Container logs: one file per started instance, a record per line with its time, rotated by
//! size; and readers that follow it.
//!
//! A record is `TIME STREAM TAG TEXT\n`; tag `F` ends a line, `P` is a part of one that goes on in
//! the next record of the same stream.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

/// A file is rotated when it is this long; one older part is kept.
const ROTATE_AT: u64 = 10 << 20;
/// Pieces of output that a slow attached client may lag behind.
const ATTACH_BACKLOG: usize = 256;
/// Output kept for a client that attaches to an interactive container just after its start.
const REPLAY: usize = 64 << 10;

/// Which output of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output as it was read.
pub type Piece = (Source, Bytes);

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Grows with every write.
    pub records: u64,
    /// Rotations so far.
    pub generation: u64,
    /// Nothing more will come.
    pub closed: bool,
}

#[derive(Debug)]
struct Inner {
    file: File,
    length: u64,
    /// The first output, each piece with the file's length behind it.
    replay: Vec<(u64, Piece)>,
    replay_length: usize,
    /// How much of the file somebody has been shown; who attaches later knows it.
    shown: u64,
}

/// The log of one instance of a container, with live subscribers.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    inner: Mutex<Inner>,
    progress: watch::Sender<Progress>,
    live: broadcast::Sender<(Source, Bytes)>,
}

impl Log {
    /// Makes the log file (and its directory).
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path,
            inner: Mutex::new(Inner {
                file,
                length,
                replay: Vec::new(),
                replay_length: 0,
                shown: 0,
            }),
            progress: watch::Sender::new(Progress::default()),
            live: broadcast::Sender::new(ATTACH_BACKLOG),
        })
    }

    /// The current file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For readers that follow.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds output as it was read.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, source: Source, data: &[u8], now: Timestamp) -> io::Result<()> {
        let mut records = Vec::with_capacity(data.len() + 64);
        for piece in data.split_inclusive(|b| *b == b'\n') {
            let (text, tag) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, 'F'),
                None => (piece, 'P'),
            };
            write!(records, "{now:.9} {} {tag} ", source.name())?;
            records.extend_from_slice(text);
            records.push(b'\n');
        }
        let bytes = Bytes::copy_from_slice(data);
        let mut inner = self.lock();
        let rotate = inner.length > ROTATE_AT;
        if rotate {
            std::fs::rename(&self.path, rotated(&self.path))?;
            inner.file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            inner.length = 0;
            // What is kept to be replayed lies far behind, in the older file.
            inner.replay.clear();
        }
        inner.file.write_all(&records)?;
        inner.length += u64::try_from(records.len()).unwrap_or(0);
        if inner.replay_length < REPLAY {
            inner.replay_length += bytes.len();
            let end = inner.length;
            inner.replay.push((end, (source, bytes.clone())));
        }
        // Without attached clients there is nobody to send to.
        let _ = self.live.send((source, bytes));
        drop(inner);
        self.progress.send_modify(|p| {
            p.records += 1;
            p.generation += u64::from(rotate);
        });
        Ok(())
    }

    /// Nothing more will be written.
    pub fn close(&self) {
        self.progress.send_modify(|p| p.closed = true);
    }

    /// Notes that a client has got the file's first `length` bytes.
    pub fn mark_shown(&self, length: u64) {
        let mut inner = self.lock();
        inner.shown = inner.shown.max(length);
    }

    /// Output from now on; with `replay` first what was written since the start (bounded) and
    /// shown to nobody yet.
    pub fn attach(&self, replay: bool) -> (Vec<Piece>, broadcast::Receiver<Piece>) {
        let inner = self.lock();
        let unseen = inner.replay.iter().filter(|(end, _)| *end > inner.shown);
        let past = unseen.map(|(_, piece)| piece.clone());
        let past = past.filter(|_| replay).collect();
        (past, self.live.subscribe())
    }
}

/// The older part of a rotated log.
pub fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// One record of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was read from the program.
    pub time: Timestamp,
    /// Ends a line.
    pub full: bool,
    /// The text, without newline.
    pub text: Vec<u8>,
}

/// Reads one record from a line without its newline; `None` when malformed (a torn write).
pub fn parse_record(line: &[u8]) -> Option<Record> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    fields.next()?;
    let full = match fields.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record {
        time,
        full,
        text: fields.next()?.to_vec(),
    })
}

/// Which part of a log a reader wants, and in what form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Only so many last lines.
    pub tail: Option<u64>,
    /// Prefix lines with their time.
    pub timestamps: bool,
}

/// Turns records into what a client sees; remembers whether it is inside a line.
#[derive(Debug, Default)]
pub struct Formatter {
    filter: Filter,
    inside_line: bool,
}

impl Formatter {
    /// A formatter for one reader.
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            inside_line: false,
        }
    }

    /// Adds a record's text to `out`.
    pub fn push(&mut self, record: &Record, out: &mut Vec<u8>) {
        if self.filter.since.is_some_and(|since| record.time < since) {
            return;
        }
        if self.filter.timestamps && !self.inside_line {
            // Writing to a vector cannot fail.
            let _ = write!(out, "{:.9} ", record.time);
        }
        out.extend_from_slice(&record.text);
        if record.full {
            out.push(b'\n');
        }
        self.inside_line = !record.full;
    }
}

/// The last `tail` lines of records (all without `tail`).
pub fn last_lines(records: &[Record], tail: Option<u64>) -> &[Record] {
    let Some(tail) = tail.and_then(|t| usize::try_from(t).ok()) else {
        return records;
    };
    if tail == 0 {
        return &[];
    }
    let mut lines = 0;
    for (n, record) in records.iter().enumerate().rev() {
        // A line ends here; an unfinished last line counts too.
        if record.full || n + 1 == records.len() {
            if lines == tail {
                return &records[n + 1..];
            }
            lines += 1;
        }
    }
    records
}

/// A reader of a log file that can go on where it stopped.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: BufReader<File>,
    /// Start of a record whose end was not yet written.
    torn: Vec<u8>,
}

impl LogReader {
    /// Opens the current file at its beginning.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::new(File::open(path)?),
            torn: Vec::new(),
        })
    }

    /// All records that are there and were not read yet.
    ///
    /// # Errors
    /// When reading fails.
    pub fn records(&mut self) -> io::Result<Vec<Record>> {
        let mut out = Vec::new();
        loop {
            if self.file.read_until(b'\n', &mut self.torn)? == 0 {
                return Ok(out);
            }
            if self.torn.last() != Some(&b'\n') {
                continue;
            }
            self.torn.pop();
            out.extend(parse_record(&self.torn));
            self.torn.clear();
        }
    }

    /// How many bytes of the file were read.
    ///
    /// # Errors
    /// When the file does not say.
    pub fn position(&mut self) -> io::Result<u64> {
        self.file.stream_position()
    }

    /// After a rotation: the rest of the old file, then the new file from its start.
    ///
    /// # Errors
    /// When reading fails.
    pub fn records_across_rotation(&mut self) -> io::Result<Vec<Record>> {
        let mut out = self.records()?;
        self.file = BufReader::new(File::open(&self.path)?);
        self.torn.clear();
        out.extend(self.records()?);
        Ok(out)
    }
}

/// All records of a log with its older part, and a reader that stands behind them.
///
/// # Errors
/// When the log does not exist.
pub fn read_all(path: &Path) -> io::Result<(Vec<Record>, LogReader)> {
    let mut reader = LogReader::open(path)?;
    let mut records = match LogReader::open(&rotated(path)) {
        Ok(mut older) => older.records()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    records.extend(reader.records()?);
    Ok((records, reader))
}

/// The end of a log as a termination message: at most 80 lines and 2048 bytes.
pub fn tail_text(path: &Path) -> String {
    let Ok((records, _)) = read_all(path) else {
        return String::new();
    };
    let mut formatter = Formatter::default();
    let mut out = Vec::new();
    for record in last_lines(&records, Some(80)) {
        formatter.push(record, &mut out);
    }
    let start = out.len().saturating_sub(2048);
    String::from_utf8_lossy(&out[start..]).into_owned()
}

/// A termination message file: at most 4096 bytes.
pub fn message_text(path: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut text));
    // A container may remove or hide its message file; then there is no message.
    read.map(|_| String::from_utf8_lossy(&text).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(records: &[Record], filter: Filter) -> String {
        let mut formatter = Formatter::new(filter);
        let mut out = Vec::new();
        for record in last_lines(records, filter.tail) {
            formatter.push(record, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_parts_times_and_tails() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path().join("c/0.log")).unwrap();
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        log.write(Source::Stdout, b"one\ntwo ", at(10)).unwrap();
        log.write(Source::Stdout, b"more\n", at(20)).unwrap();
        log.write(Source::Stderr, b"three\n", at(30)).unwrap();
        let (records, mut reader) = read_all(log.path()).unwrap();
        assert_eq!(text(&records, Filter::default()), "one\ntwo more\nthree\n");
        let last = Filter {
            tail: Some(2),
            ..Filter::default()
        };
        assert_eq!(text(&records, last), "two more\nthree\n");
        assert_eq!(
            text(
                &records,
                Filter {
                    tail: Some(0),
                    ..last
                }
            ),
            ""
        );
        assert_eq!(
            text(
                &records,
                Filter {
                    tail: Some(9),
                    ..last
                }
            ),
            "one\ntwo more\nthree\n"
        );
        let late = Filter {
            since: Some(at(25)),
            timestamps: true,
            ..Filter::default()
        };
        assert_eq!(
            text(&records, late),
            "1970-01-01T00:00:30.000000000Z three\n"
        );
        assert!(reader.records().unwrap().is_empty());
        log.write(Source::Stdout, b"four\n", at(40)).unwrap();
        assert_eq!(reader.records().unwrap()[0].text, b"four");
        assert_eq!(tail_text(log.path()), "one\ntwo more\nthree\nfour\n");
    }

    #[test]
    fn rotation_keeps_one_older_part() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path().join("0.log")).unwrap();
        let big = vec![b'x'; 6 << 20];
        let mut reader = LogReader::open(log.path()).unwrap();
        for _ in 0..3 {
            log.write(Source::Stdout, &big, Timestamp::UNIX_EPOCH)
                .unwrap();
        }
        log.write(Source::Stdout, b"end\n", Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(log.progress().borrow().generation, 1);
        assert!(rotated(log.path()).exists());
        assert_eq!(reader.records_across_rotation().unwrap().len(), 4);
        assert_eq!(read_all(log.path()).unwrap().0.len(), 4);
    }

    #[test]
    fn torn_and_foreign_lines_are_passed_over() {
        assert_eq!(parse_record(b"garbage"), None);
        assert_eq!(parse_record(b"2026-01-01T00:00:00Z stdout X a"), None);
        assert!(parse_record(b"2026-01-01T00:00:00Z stdout F ").is_some());
    }

    #[tokio::test]
    async fn attached_clients_get_the_past_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path().join("0.log")).unwrap();
        log.write(Source::Stdout, b"a", Timestamp::UNIX_EPOCH)
            .unwrap();
        let (past, mut live) = log.attach(true);
        log.write(Source::Stderr, b"b", Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(past, [(Source::Stdout, Bytes::from_static(b"a"))]);
        assert_eq!(
            live.recv().await.unwrap(),
            (Source::Stderr, Bytes::from_static(b"b"))
        );
        assert!(log.attach(false).0.is_empty());
        // What came after a client had read the log is new to it.
        let (_, mut reader) = read_all(log.path()).unwrap();
        log.write(Source::Stdout, b"c", Timestamp::UNIX_EPOCH)
            .unwrap();
        log.mark_shown(reader.position().unwrap());
        let unseen = [(Source::Stdout, Bytes::from_static(b"c"))];
        assert_eq!(log.attach(true).0, unseen);
        log.mark_shown(u64::MAX);
        assert!(log.attach(true).0.is_empty());
    }
}
