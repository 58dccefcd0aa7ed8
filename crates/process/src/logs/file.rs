//! A log that goes to a file, which may be moved away and opened anew while it runs.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use super::outlet::Outlet;

/// A log file; clones write to the same one.
#[derive(Debug, Clone)]
pub struct LogFile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: Mutex<(File, Outlet)>,
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

impl LogFile {
    /// Opens the file, behind what it holds.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = Mutex::new((append(path)?, Outlet::default()));
        Ok(Self(Arc::new(Shared {
            path: path.to_owned(),
            file,
        })))
    }

    /// Opens the path again, which after a rotation is another file.
    ///
    /// # Errors
    /// The system's; the log goes on in the file that it has.
    pub fn reopen(&self) -> io::Result<()> {
        let file = append(&self.0.path)?;
        let mut kept = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (file, Outlet::default());
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, outlet) = &mut *kept;
        outlet.put(&*file, line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is held back
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_left_behind() {
        let folder = std::env::temp_dir().join(format!("lateen-logs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (path, old) = (folder.join("log"), folder.join("log.1"));
        let mut log = LogFile::open(&path).expect("open");
        log.write_all(b"one\n").expect("written");
        std::fs::rename(&path, &old).expect("moved");
        log.write_all(b"two\n").expect("written");
        log.reopen().expect("again");
        log.write_all(b"three\n").expect("written");
        let text = |path| std::fs::read_to_string(path).expect("a log");
        assert_eq!(
            (text(&old).as_str(), text(&path).as_str()),
            ("one\ntwo\n", "three\n")
        );
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
