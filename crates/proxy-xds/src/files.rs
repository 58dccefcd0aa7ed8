//! Files that a configuration names. Who writes a configuration over the network may name any file
//! of this machine, so every one is read through here: regular files only, never waiting, never more
//! than a bound.
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Most bytes of a file that a resource names: certificates, keys, revocation lists, bodies.
pub const MOST_RESOURCE: u64 = 16 << 20;
/// Most bytes of a bootstrap.
pub const MOST_BOOTSTRAP: u64 = 64 << 20;

/// Reads a file that a resource names, at most [`MOST_RESOURCE`] bytes.
///
/// # Errors
/// When it cannot be read, is larger, or is no regular file nor a link to one: a FIFO would wait for
/// its writer, a device has no end.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    let regular = |meta: &std::fs::Metadata| match meta.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is no regular file",
        )),
    };
    // Opening a device may already do something, so the name is looked at first; what was opened
    // is looked at again, for the name may mean something else by then.
    regular(&std::fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    regular(&file.metadata()?)?;
    bounded(file, MOST_RESOURCE)
}

/// [`read`] as text.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    text(read(path)?)
}

/// Reads a bootstrap, at most [`MOST_BOOTSTRAP`] bytes. It is named by who starts the program, so it
/// may be a pipe, as shells make them for `<(command)`.
///
/// # Errors
/// When it cannot be read, is larger, or is not UTF-8.
pub fn read_bootstrap(path: impl AsRef<Path>) -> io::Result<String> {
    text(bounded(std::fs::File::open(path)?, MOST_BOOTSTRAP)?)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8"))
}

/// Sizes that files tell are not asked: those of `/proc` say 0, and files grow.
fn bounded(file: impl io::Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let problem = format!("is larger than {} MiB", most >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(path: &Path) -> String {
        read(path).unwrap_err().to_string()
    }

    #[test]
    fn only_regular_files_within_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good"), "text").unwrap();
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();
        assert_eq!(read(path("link")).unwrap(), b"text");
        assert_eq!(read_text(path("good")).unwrap(), "text");
        for endless in ["/dev/zero", "/dev/urandom", "/dev/tty", "/", "/proc/self"] {
            if let Ok(meta) = std::fs::metadata(endless) {
                assert!(!meta.is_file());
                assert_eq!(why(Path::new(endless)), "is no regular file", "{endless}");
            }
        }
        std::os::unix::fs::symlink("/dev/zero", path("to-zero")).unwrap();
        assert_eq!(why(&path("to-zero")), "is no regular file");
        let socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(why(&path("socket")), "is no regular file");
        drop(socket);
        // A file of holes: large without taking room.
        let holes = std::fs::File::create(path("large")).unwrap();
        holes.set_len(MOST_RESOURCE).unwrap();
        assert_eq!(read(path("large")).unwrap().len() as u64, MOST_RESOURCE);
        holes.set_len(MOST_RESOURCE + 1).unwrap();
        assert_eq!(why(&path("large")), "is larger than 16 MiB");
        assert_eq!(
            read(path("absent")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_fifo_makes_nobody_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert_eq!(why(&path), "is no regular file");
    }

    #[test]
    fn a_bootstrap_may_come_through_a_pipe_but_ends() {
        let (reader, mut writer) = io::pipe().unwrap();
        let fed = std::thread::spawn(move || io::Write::write_all(&mut writer, b"{}"));
        assert_eq!(bounded(reader, MOST_BOOTSTRAP).unwrap(), b"{}");
        fed.join().unwrap().unwrap();
        let error = bounded(io::repeat(b' '), 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "is larger than 1 MiB");
    }
}
