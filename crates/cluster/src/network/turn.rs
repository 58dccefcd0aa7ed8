//! What clusters of one machine share: the turn to choose address ranges and make interfaces, and
//! the note that the first of them found packet forwarding off.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::time::{Instant, sleep};

/// The folder of both files; it does not outlive the machine's boot.
pub const SHARED: &str = "/run/lateen";
const LOCK: &str = "network.lock";
const NOTE: &str = "forwarding-was-off";
/// Another cluster's turn takes some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(20);

/// The turn; ends when dropped, also by the end of the process.
#[derive(Debug)]
pub struct Turn {
    _file: Flock<File>,
}

/// Waits until no other cluster of the machine chooses ranges or makes its network.
///
/// # Errors
/// When the file cannot be made, or another cluster does not get on.
pub async fn take(shared: &Path) -> io::Result<Turn> {
    std::fs::create_dir_all(shared)?;
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(shared.join(LOCK))?;
    let limit = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Turn { _file: held }),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < limit => {
                file = back;
                sleep(AGAIN).await;
            }
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// A cluster leaves. Whether forwarding must go off now: the last one turns it off, when this one
/// or one before found it off.
///
/// # Errors
/// When the note cannot be written or removed.
pub fn leave(shared: &Path, found_off: bool, others: bool) -> io::Result<bool> {
    let note = shared.join(NOTE);
    let noted = note.exists();
    if others {
        if found_off && !noted {
            std::fs::create_dir_all(shared)?;
            std::fs::write(&note, "")?;
        }
        return Ok(false);
    }
    if noted {
        std::fs::remove_file(&note)?;
    }
    Ok(found_off || noted)
}

/// Whether the machine has a network of another cluster than `instance`.
///
/// # Errors
/// When the interfaces cannot be read.
pub fn others(instance: &str) -> io::Result<bool> {
    let prefix = "lateen";
    for entry in std::fs::read_dir("/sys/class/net")? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name != instance {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_follow_each_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = take(dir.path()).await.expect("free");
        let second = take(dir.path());
        tokio::pin!(second);
        let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
        assert!(early.is_err(), "two at a time");
        drop(first);
        second.await.expect("free again");
    }

    #[test]
    fn the_last_to_leave_turns_forwarding_off() {
        let dir = tempfile::tempdir().expect("a folder");
        let leave = |found_off, others| leave(dir.path(), found_off, others).expect("leaves");
        // Alone.
        assert!(leave(true, false));
        assert!(!leave(false, false));
        // The first finds it off and leaves first; the third is the last.
        assert!(!leave(true, true));
        assert!(!leave(false, true));
        assert!(leave(false, false));
        // Then all is as before.
        assert!(!leave(false, false));
    }
}
