//! Lines to what may be a pipe whose reader does not read: a thread that serves others must not wait
//! for it. A line waits a moment for room; what finds none is dropped, counted, and told before the
//! next line that finds some.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for room, milliseconds: a reader that is only busy loses nothing.
const PATIENCE: u16 = 250;

/// How long after a lost line none waits.
const NO_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that do not block where any room is told (PIPE_BUF of Linux).
const ROOM: usize = 4096;

/// What was lost on the way to one reader.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    lost: u64,
    lost_at: Option<Instant>,
    /// The last line was cut.
    torn: bool,
}

impl Outlet {
    /// Writes a line, or drops it where there is no room for it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn put(&mut self, mut to: impl Write + AsFd, line: &[u8]) -> io::Result<()> {
        let hurried = self.lost_at.is_some_and(|at| at.elapsed() < NO_PATIENCE);
        let patience = if hurried { 0 } else { PATIENCE };
        if self.lost > 0 {
            let begin = if self.torn { "\n" } else { "" };
            let notice = format!(
                "{begin}{} log lines were lost: nobody read them\n",
                self.lost
            );
            if put_all(&mut to, notice.as_bytes(), patience)?.is_some() {
                return self.lose(false);
            }
            (self.lost, self.torn) = (0, false);
        }
        match put_all(&mut to, line, patience)? {
            None => Ok(()),
            Some(left) => self.lose(left < line.len()),
        }
    }

    fn lose(&mut self, torn: bool) -> io::Result<()> {
        self.lost += 1;
        self.lost_at = Some(Instant::now());
        self.torn |= torn;
        Ok(())
    }
}

/// Writes as long as there is room; how much is left, none = nothing.
fn put_all(to: &mut (impl Write + AsFd), bytes: &[u8], patience: u16) -> io::Result<Option<usize>> {
    let mut left = bytes;
    while !left.is_empty() {
        if !has_room(to, patience) {
            return Ok(Some(left.len()));
        }
        match to.write(&left[..left.len().min(ROOM)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => left = &left[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Others made it so; there was room and is none.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(left.len())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether a write goes through at once. What cannot be asked is written to: it says why.
fn has_room(to: &impl AsFd, patience: u16) -> bool {
    let mut asked = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::from(patience)) != Ok(0)
}

/// Standard error.
#[derive(Debug, Default)]
pub(super) struct StandardError(Mutex<Outlet>);

impl<'a> MakeWriter<'a> for StandardError {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut outlet = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outlet.put(io::stderr(), line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is held back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut outlet = Outlet::default();
        let line = |n: usize| format!("{n} {}\n", "x".repeat(5000));
        for n in 0..100 {
            outlet.put(&writer, line(n).as_bytes()).expect("put");
        }
        assert!(outlet.lost > 80, "{}", outlet.lost);
        let lost = outlet.lost;
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        // Until it has read, lines may be lost still.
        while outlet.lost > 0 {
            outlet.put(&writer, b"again\n").expect("put");
        }
        outlet.put(&writer, b"last\n").expect("put");
        drop(writer);
        let text = reading.join().expect("read").expect("text");
        let first = format!("{}{}", line(0), line(1));
        assert!(text.starts_with(&first), "{text:.60}");
        assert!(text.ends_with("log lines were lost: nobody read them\nagain\nlast\n"));
        let told = text.lines().find_map(|l| l.split_once(" log lines"));
        let told: u64 = told.expect("a notice").0.parse().expect("a number");
        assert!(told >= lost, "{told} of {lost}");
    }
}
