//! Directories whose files configuration comes from: what is moved into them is told by the system's
//! inotify. A file that is written in place says nothing where that is not asked for, so that half a
//! file is never read.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lateen_proxy_core::config::bootstrap::WatchedFile;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// What is told of the files of a directory.
const TOLD: AddWatchFlags = AddWatchFlags::IN_MOVED_TO.union(AddWatchFlags::IN_CLOSE_WRITE);

/// Directories under watch.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Made with the first directory.
    inotify: Option<Inotify>,
    directories: BTreeMap<PathBuf, WatchDescriptor>,
}

/// What was moved into place since the last look.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// More than the system could remember: anything may have been.
    everything: bool,
    /// Directory, name, and whether it was written there.
    files: BTreeSet<(PathBuf, std::ffi::OsString, bool)>,
}

impl Watch {
    /// Whether anything is watched.
    pub(crate) fn any(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Watches what tells of a file from now on.
    ///
    /// # Errors
    /// When its directory cannot be watched.
    pub(crate) fn add(&mut self, file: &WatchedFile) -> Result<(), String> {
        let directory = directory(file);
        if self.directories.contains_key(&directory) {
            return Ok(());
        }
        let flags = TOLD | AddWatchFlags::IN_ONLYDIR;
        let inotify = match self.inotify.take() {
            Some(inotify) => Ok(inotify),
            None => Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC),
        };
        let inotify = inotify.map_err(|e| format!("cannot watch files: {}", e.desc()))?;
        let watched = self.inotify.insert(inotify).add_watch(&directory, flags);
        let watched =
            watched.map_err(|e| format!("cannot watch {}: {}", directory.display(), e.desc()))?;
        self.directories.insert(directory, watched);
        Ok(())
    }

    /// Ends the watch of directories that none of these files is told by.
    pub(crate) fn keep<'a>(&mut self, files: impl Iterator<Item = &'a WatchedFile>) {
        let wanted: BTreeSet<PathBuf> = files.map(directory).collect();
        let Some(inotify) = &self.inotify else {
            return;
        };
        self.directories.retain(|directory, watched| {
            let stays = wanted.contains(directory);
            if !stays {
                // A directory that was removed has lost its watch already.
                let _ = inotify.rm_watch(*watched);
            }
            stays
        });
    }

    /// What was moved since the last call.
    pub(crate) fn moved(&mut self) -> Moved {
        let mut out = Moved::default();
        let Some(inotify) = &self.inotify else {
            return out;
        };
        loop {
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                // EAGAIN: there are no more.
                Err(_) => return out,
            };
            for event in events {
                out.everything |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.directories.retain(|_, watched| *watched != event.wd);
                }
                let directory = self.directories.iter().find(|(_, wd)| **wd == event.wd);
                if let (Some(name), Some((directory, _))) = (event.name, directory)
                    && event.mask.intersects(TOLD)
                {
                    let written = event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE);
                    out.files.insert((directory.clone(), name, written));
                }
            }
        }
    }
}

impl Moved {
    /// Whether nothing was.
    pub(crate) fn is_empty(&self) -> bool {
        !self.everything && self.files.is_empty()
    }

    /// Whether a file is to be read again.
    pub(crate) fn concerns(&self, file: &WatchedFile) -> bool {
        let directory = directory(file);
        let name = Path::new(&*file.path).file_name();
        let told = |(into, moved, written): &(PathBuf, std::ffi::OsString, bool)| {
            *into == directory
                && (file.written || !written)
                && (file.directory.is_some() || Some(&**moved) == name)
        };
        self.everything || self.files.iter().any(told)
    }
}

/// The directory whose moves tell of a file.
fn directory(file: &WatchedFile) -> PathBuf {
    if let Some(directory) = &file.directory {
        return PathBuf::from(&**directory);
    }
    match Path::new(&*file.path).parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, directory: Option<&Path>) -> WatchedFile {
        let text = |path: &Path| path.to_str().unwrap().into();
        WatchedFile {
            path: text(path),
            directory: directory.map(text),
            written: false,
        }
    }

    #[test]
    fn only_what_is_moved_into_place_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let plain = file(&one, None);
        let by_directory = file(&two, Some(other.path()));
        let mut watch = Watch::default();
        watch.add(&plain).unwrap();
        watch.add(&by_directory).unwrap();
        let mut told = || {
            let moved = watch.moved();
            [&plain, &by_directory].map(|file| moved.concerns(file))
        };
        std::fs::write(&one, "written in place").unwrap();
        std::fs::write(folder.path().join("beside"), "").unwrap();
        assert_eq!(told(), [false, false]);
        std::fs::rename(folder.path().join("beside"), &one).unwrap();
        assert_eq!(told(), [true, false]);
        assert_eq!(told(), [false, false], "told once");
        std::fs::rename(&one, &two).unwrap();
        assert_eq!(told(), [false, false], "another file, another directory");
        std::fs::rename(&two, other.path().join("anything")).unwrap();
        assert_eq!(told(), [false, true]);
        let by_writing = WatchedFile {
            written: true,
            ..by_directory.clone()
        };
        std::fs::write(other.path().join("in place"), "whole").unwrap();
        let moved = watch.moved();
        assert!(moved.concerns(&by_writing) && !moved.concerns(&by_directory));
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_watched() {
        let mut watch = Watch::default();
        let absent = file(Path::new("/nonexistent/file"), None);
        let problem = watch.add(&absent).unwrap_err();
        assert!(
            problem.starts_with("cannot watch /nonexistent: "),
            "{problem}"
        );
        // Directories come and go with what is read from them.
        let folder = tempfile::tempdir().unwrap();
        let here = file(&folder.path().join("a"), None);
        watch.add(&here).unwrap();
        watch.keep([].into_iter());
        assert!(watch.directories.is_empty());
        watch.add(&here).unwrap();
        drop(folder);
        watch.moved();
        assert!(watch.directories.is_empty(), "it is gone");
    }
}
