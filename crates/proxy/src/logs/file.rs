//! Access log files of the process, each with a thread that alone opens and writes it. Workers hand
//! over filled buffers; what waits for a file has a limit, and what comes above it is dropped,
//! counted and said in the process's log. Order: buffers are written as they were handed over.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use lateen_proxy_core::config::AccessLogSink;
use lateen_proxy_core::stats::{Metric, MetricValue, Scope};
use tokio::sync::oneshot;

use super::FLUSH_AT;

/// Bytes that may wait for one file. A reader that pauses for a moment loses nothing; one that
/// stopped costs no more than this.
const WAITING: usize = 4 * 1024 * 1024;

/// Empty buffers kept for the workers, so that handing over allocates nothing in the steady state.
const SPARE: usize = 4;

/// Between two warnings of lines that a file loses.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// Longest wait of an order to write what waits.
const ORDER: Duration = Duration::from_secs(2);

/// Between two tries on a file that cannot be written at the moment (opened so by others).
const AGAIN: Duration = Duration::from_millis(10);

/// What is counted over all files.
#[derive(Debug, Default)]
struct Counts {
    intervals: AtomicU64,
    lines: AtomicU64,
    dropped: AtomicU64,
    writes: AtomicU64,
    failed: AtomicU64,
    reopen_failed: AtomicU64,
    waiting: AtomicU64,
}

fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

/// All access log files, shared by the workers. Files end, after what waits, with the last clone.
#[derive(Clone, Debug, Default)]
pub struct LogFiles(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<HashMap<AccessLogSink, Arc<LogFile>>>,
    counts: Arc<Counts>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for file in self.files().values() {
            file.queue().closed = true;
            file.more.notify_one();
        }
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, HashMap<AccessLogSink, Arc<LogFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogFiles {
    /// The file of a sink, which its thread opens.
    pub(super) fn file(&self, sink: &AccessLogSink) -> Arc<LogFile> {
        let mut files = self.0.files();
        let file = files
            .entry_ref(sink)
            .or_insert_with(|| LogFile::start(sink.clone(), self.0.counts.clone()));
        file.clone()
    }

    /// Waits until what was handed over is written, but no longer than 2 s: a reader that does not
    /// read must not hold up the process's end. With `reopen`, files are opened anew after it.
    pub async fn written(&self, reopen: bool) {
        let files: Vec<_> = self.0.files().values().cloned().collect();
        let orders: Vec<_> = files.iter().map(|file| file.order(reopen)).collect();
        let all = async {
            for order in orders {
                // A thread that is gone has written all it could.
                let _ = order.await;
            }
        };
        if tokio::time::timeout(ORDER, all).await.is_err() {
            tracing::warn!(target: crate::logger::FILE, "access logs are not written yet: a reader does not read");
        }
    }

    pub(super) fn count_interval(&self) {
        let files = self.0.files().len() as u64;
        add(&self.0.counts.intervals, files);
    }

    /// The statistics of all files, in Envoy's names, and `filesystem.write_dropped`: lines that
    /// found no place. `write_total_buffered` is what waits for the files, in bytes, without what
    /// the workers still gather.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let counts = &self.0.counts;
        let scope = Scope::group("filesystem");
        let metric = |stat: &str, count: &AtomicU64| {
            let n = count.load(Ordering::Relaxed);
            Metric {
                name: scope.stat(stat),
                value: match stat {
                    "write_total_buffered" => MetricValue::Gauge(n.cast_signed()),
                    _ => MetricValue::Counter(n),
                },
                used: n > 0,
            }
        };
        vec![
            metric("flushed_by_timer", &counts.intervals),
            metric("reopen_failed", &counts.reopen_failed),
            metric("write_buffered", &counts.lines),
            metric("write_completed", &counts.writes),
            metric("write_dropped", &counts.dropped),
            metric("write_failed", &counts.failed),
            metric("write_total_buffered", &counts.waiting),
        ]
    }
}

/// What a file's thread is to do next.
#[derive(Debug)]
enum Item {
    Lines(Vec<u8>),
    Reopen,
    /// Everything before it is written: say so.
    Tell(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Bytes of lines that are not written, with those that are being written.
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// Lines are being dropped.
    dropping: bool,
    warned: Option<Instant>,
    closed: bool,
}

impl Queue {
    /// Puts a buffer's lines behind the others and leaves an empty buffer.
    fn put(&mut self, buffer: &mut Vec<u8>) {
        self.dropping = false;
        self.bytes += buffer.len();
        // Small ones go together, so that a file's queue stays short as well.
        if let Some(Item::Lines(last)) = self.items.back_mut()
            && last.len() + buffer.len() <= FLUSH_AT
        {
            last.extend_from_slice(buffer);
            buffer.clear();
            return;
        }
        let empty = self.spare.pop().unwrap_or_default();
        self.items
            .push_back(Item::Lines(std::mem::replace(buffer, empty)));
    }

    /// Notes that lines are dropped; true where that is to be said.
    fn drop_lines(&mut self) -> bool {
        let begins = !std::mem::replace(&mut self.dropping, true);
        let said = self.warned.is_some_and(|at| at.elapsed() < WARN_AGAIN);
        if begins && !said {
            self.warned = Some(Instant::now());
        }
        begins && !said
    }
}

/// One file and what waits for it.
#[derive(Debug)]
pub(super) struct LogFile {
    sink: AccessLogSink,
    queue: Mutex<Queue>,
    more: Condvar,
    counts: Arc<Counts>,
}

impl LogFile {
    fn start(sink: AccessLogSink, counts: Arc<Counts>) -> Arc<Self> {
        let file = Arc::new(Self {
            sink,
            queue: Mutex::default(),
            more: Condvar::new(),
            counts,
        });
        let own = file.clone();
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        if let Err(error) = thread.spawn(move || own.run()) {
            file.queue().closed = true;
            let name = file.name();
            tracing::error!(target: crate::logger::FILE, %error, "access log {name} has no thread; its lines are lost");
        }
        file
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> &str {
        match &self.sink {
            AccessLogSink::File(path) => path,
            AccessLogSink::Stdout => "on standard output",
            AccessLogSink::Stderr => "on standard error",
        }
    }

    /// Takes a buffer with so many lines over and leaves an empty one; never waits for the file.
    pub(super) fn take(&self, buffer: &mut Vec<u8>, lines: u64) {
        let mut queue = self.queue();
        let fits = queue.bytes == 0 || queue.bytes + buffer.len() <= WAITING;
        if fits && !queue.closed {
            add(&self.counts.waiting, buffer.len() as u64);
            add(&self.counts.lines, lines);
            queue.put(buffer);
            self.more.notify_one();
            return;
        }
        let say = queue.drop_lines();
        drop(queue);
        add(&self.counts.dropped, lines);
        buffer.clear();
        if say {
            let name = self.name();
            tracing::warn!(target: crate::logger::FILE, "access log {name} takes no more lines at the moment: {lines} were dropped, more may follow (filesystem.write_dropped)");
        }
    }

    fn order(&self, reopen: bool) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut queue = self.queue();
        // Orders that nobody waits for any more are as good as done; opening once is enough.
        queue
            .items
            .retain(|item| !matches!(item, Item::Tell(to) if to.is_closed()));
        if reopen && !matches!(queue.items.back(), Some(Item::Reopen)) {
            queue.items.push_back(Item::Reopen);
        }
        queue.items.push_back(Item::Tell(tell));
        self.more.notify_one();
        told
    }

    /// The next thing to do, and the buffer that was written; none at the end.
    fn next(&self, written: Option<Vec<u8>>) -> Option<Item> {
        let mut queue = self.queue();
        if let Some(mut buffer) = written {
            queue.bytes -= buffer.len();
            self.counts
                .waiting
                .fetch_sub(buffer.len() as u64, Ordering::Relaxed);
            buffer.clear();
            // A worker's buffer has the size at which it is handed over, and a line.
            if queue.spare.len() < SPARE && buffer.capacity() <= 2 * FLUSH_AT {
                queue.spare.push(buffer);
            }
        }
        loop {
            if let Some(item) = queue.items.pop_front() {
                return Some(item);
            }
            if queue.closed {
                return None;
            }
            let waited = self.more.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The thread's work.
    fn run(&self) {
        let mut file = self.open();
        let mut failing = false;
        let mut written = None;
        while let Some(item) = self.next(written.take()) {
            match item {
                Item::Lines(buffer) => {
                    self.write(file.as_mut(), &buffer, &mut failing);
                    written = Some(buffer);
                }
                Item::Reopen => self.reopen(&mut file),
                // Who asked may have gone.
                Item::Tell(done) => drop(done.send(())),
            }
        }
    }

    fn open(&self) -> Option<File> {
        let opened = match &self.sink {
            AccessLogSink::File(path) => OpenOptions::new().create(true).append(true).open(&**path),
            // Handles of our own: the locks of the standard ones would be held by a write that
            // takes forever.
            AccessLogSink::Stdout => own_handle(&io::stdout()),
            AccessLogSink::Stderr => own_handle(&io::stderr()),
        };
        match opened {
            Ok(file) => Some(file),
            Err(error) => {
                let name = self.name();
                tracing::error!(target: crate::logger::FILE, %error, "access log {name} cannot be opened");
                None
            }
        }
    }

    /// Opens the file anew (it was rotated); where that fails, the log goes on in the old one.
    fn reopen(&self, file: &mut Option<File>) {
        if !matches!(self.sink, AccessLogSink::File(_)) {
            return;
        }
        match self.open() {
            Some(new) => *file = Some(new),
            None => add(&self.counts.reopen_failed, 1),
        }
    }

    fn write(&self, file: Option<&mut File>, bytes: &[u8], failing: &mut bool) {
        // A file that could not be opened was complained of already.
        let Some(file) = file else {
            return add(&self.counts.failed, 1);
        };
        match write_all(file, bytes) {
            Ok(()) => {
                *failing = false;
                add(&self.counts.writes, 1);
            }
            Err(error) => {
                add(&self.counts.failed, 1);
                if !std::mem::replace(failing, true) {
                    let name = self.name();
                    tracing::error!(target: crate::logger::FILE, %error, "access log {name} cannot be written; lines are lost");
                }
            }
        }
    }
}

fn own_handle(of: &impl AsFd) -> io::Result<File> {
    Ok(File::from(of.as_fd().try_clone_to_owned()?))
}

fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &std::path::Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn wait(files: &LogFiles, reopen: bool) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        runtime.block_on(files.written(reopen));
    }

    fn count(files: &LogFiles, stat: &str) -> MetricValue {
        let name = format!("filesystem.{stat}");
        let all = files.metrics();
        let found = all.iter().find(|m| *m.name.flat == *name);
        found.map(|m| m.value.clone()).unwrap()
    }

    #[test]
    fn a_rotated_file_is_opened_anew_and_a_lost_folder_keeps_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("in");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("log");
        let files = LogFiles::default();
        let file = files.file(&AccessLogSink::File(path.to_str().unwrap().into()));
        file.take(&mut b"one\n".to_vec(), 1);
        wait(&files, false);
        std::fs::rename(&path, inner.join("log.1")).unwrap();
        file.take(&mut b"two\n".to_vec(), 1);
        wait(&files, true);
        file.take(&mut b"three\n".to_vec(), 1);
        wait(&files, false);
        assert_eq!(read(&inner.join("log.1")), "one\ntwo\n");
        assert_eq!(read(&path), "three\n");
        let moved = folder.path().join("moved");
        std::fs::rename(&inner, &moved).unwrap();
        wait(&files, true);
        file.take(&mut b"four\n".to_vec(), 1);
        wait(&files, false);
        assert_eq!(read(&moved.join("log")), "three\nfour\n");
        for (stat, n) in [
            ("reopen_failed", 1),
            ("write_buffered", 4),
            ("write_completed", 4),
            ("write_dropped", 0),
            ("write_failed", 0),
        ] {
            assert_eq!(count(&files, stat), MetricValue::Counter(n), "{stat}");
        }
        assert_eq!(count(&files, "write_total_buffered"), MetricValue::Gauge(0));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let files = LogFiles::default();
        for path in ["/dev/full", "/no/such/folder/log"] {
            let file = files.file(&AccessLogSink::File(path.into()));
            file.take(&mut b"lost\n".to_vec(), 1);
        }
        wait(&files, false);
        assert_eq!(count(&files, "write_failed"), MetricValue::Counter(2));
        assert_eq!(count(&files, "write_completed"), MetricValue::Counter(0));
    }

    #[test]
    fn a_full_queue_is_said_once_a_spell_and_not_often() {
        let mut queue = Queue::default();
        assert!(queue.drop_lines());
        assert!(!queue.drop_lines(), "the same spell");
        queue.put(&mut b"a\n".to_vec());
        assert!(!queue.drop_lines(), "another, but soon");
        queue.put(&mut b"b\n".to_vec());
        queue.warned = queue.warned.and_then(|at| at.checked_sub(WARN_AGAIN));
        assert!(queue.drop_lines(), "another, later");
        let Some(Item::Lines(all)) = queue.items.front() else {
            panic!("no lines");
        };
        assert_eq!((&all[..], queue.items.len()), (&b"a\nb\n"[..], 1));
    }
}
