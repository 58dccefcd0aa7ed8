//! Memory limits: a control group per limited container, of either version of the kernel's
//! interface. Where the host has none that may be written, limits are not enforced, and the log
//! says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where the host tells what is mounted.
const MOUNTS: &str = "/proc/self/mounts";
/// How often, and how long between, an ended container's group is tried to be removed: processes
/// that it left behind go with the pod.
const REMOVALS: u32 = 100;
const AGAIN: Duration = Duration::from_millis(100);

/// The kernel's two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The memory controller's folder from the text of [`MOUNTS`]; `controllers` reads a group folder's
/// `cgroup.controllers`.
fn find(mounts: &str, controllers: impl Fn(&Path) -> String) -> Option<(Version, PathBuf)> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let folder = PathBuf::from(fields.nth(1)?);
        let (kind, options) = (fields.next()?, fields.next()?);
        let has = |text: &str, separator| text.split(separator).any(|word| word == "memory");
        match kind {
            "cgroup" if has(options, ',') => Some((Version::One, folder)),
            "cgroup2" if has(controllers(&folder).trim(), ' ') => Some((Version::Two, folder)),
            _ => None,
        }
    })
}

/// The group of all containers of a cluster.
#[derive(Debug)]
pub struct Groups {
    version: Version,
    folder: PathBuf,
}

impl Groups {
    /// Makes the cluster's group.
    ///
    /// # Errors
    /// Why containers cannot have groups on this host.
    pub fn open(instance: &str) -> io::Result<Self> {
        let (version, root) = host()?;
        let groups = Self {
            version,
            folder: root.join(instance),
        };
        if version == Version::Two {
            delegate(&root)?;
        }
        make(&groups.folder)?;
        if version == Version::Two {
            delegate(&groups.folder)?;
        }
        Ok(groups)
    }

    /// Makes a group of `limit` bytes, without swap on top of it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limited(&self, id: &str, limit: u64) -> io::Result<Group> {
        let folder = self.folder.join(id);
        make(&folder)?;
        let group = Group {
            version: self.version,
            folder,
            killed: AtomicBool::new(false),
        };
        let limited = group.limit(limit);
        if limited.is_err() {
            // Nothing is in it yet.
            let _ = fs::remove_dir(&group.folder);
        }
        limited.map(|()| group)
    }
}

fn host() -> io::Result<(Version, PathBuf)> {
    // One that cannot be read offers nothing.
    let controllers =
        |folder: &Path| fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    find(&fs::read_to_string(MOUNTS)?, controllers)
        .ok_or_else(|| io::Error::other("the host has no control groups for memory"))
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Lets the groups below a folder have memory limits (version 2).
fn delegate(folder: &Path) -> io::Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let now = fs::read_to_string(&file)?;
    if now.split_whitespace().any(|word| word == "memory") {
        return Ok(());
    }
    fs::write(file, "+memory")
}

/// A container's group; removed by [`Group::remove`], or with its last owner when it is empty.
#[derive(Debug)]
pub struct Group {
    version: Version,
    folder: PathBuf,
    killed: AtomicBool,
}

impl Group {
    fn limit(&self, bytes: u64) -> io::Result<()> {
        let write = |name: &str, value: &str| fs::write(self.folder.join(name), value);
        // A host without accounting of swap has no such file.
        let write_if_there = |name: &str, value: &str| match write(name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        match self.version {
            Version::One => {
                write("memory.limit_in_bytes", &bytes.to_string())?;
                write_if_there("memory.memsw.limit_in_bytes", &bytes.to_string())
            }
            Version::Two => {
                write("memory.max", &bytes.to_string())?;
                write_if_there("memory.swap.max", "0")?;
                write_if_there("memory.oom.group", "1")
            }
        }
    }

    /// The file that a process joins the group by: it writes "0" there.
    pub fn entrance(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Whether the kernel has killed for the limit, as far as [`Group::look`] saw.
    pub fn killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Looks whether the kernel has killed a process of the group for its limit.
    pub fn look(&self) {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        match fs::read_to_string(self.folder.join(file)) {
            Ok(text) => self.killed.store(kills(&text) > 0, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "a container's group cannot be read"),
        }
    }

    /// Removes the group as soon as nothing is in it any more.
    pub async fn remove(&self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%error, "a container's group was left behind");
                    return;
                }
                _ => return,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // As a rule it is removed already.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The count of kills in `memory.oom_control` or `memory.events`.
fn kills(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Removes all groups of a cluster that is gone; a host without any is fine. Processes that were
/// killed just now are waited for, some seconds at most.
pub async fn clean_up(instance: &str) {
    let Ok((_, root)) = host() else {
        return;
    };
    let folder = root.join(instance);
    for _ in 0..REMOVALS {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // Whatever keeps one keeps the folder above too, which is tried again.
                let _ = fs::remove_dir(entry.path());
            }
        }
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %folder.display(), "a control group was left behind");
                return;
            }
            _ => return,
        }
        tokio::time::sleep(AGAIN).await;
    }
    tracing::warn!(path = %folder.display(), "a control group was left behind");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_is_found_in_either_version() {
        let none = |_: &Path| String::new();
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let memory = PathBuf::from("/sys/fs/cgroup/memory");
        assert_eq!(find(hybrid, none), Some((Version::One, memory)));
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let some = |folder: &Path| {
            assert_eq!(folder, Path::new("/sys/fs/cgroup"));
            "cpuset cpu io memory pids\n".to_owned()
        };
        let root = PathBuf::from("/sys/fs/cgroup");
        assert_eq!(find(unified, some), Some((Version::Two, root)));
        assert_eq!(find(unified, none), None);
        assert_eq!(find("", none), None);
    }

    /// Version 2's files, on a folder that stands for the kernel's.
    #[test]
    fn version_two_is_limited_by_its_own_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let control = dir.path().join("cgroup.subtree_control");
        fs::write(&control, "cpu\n").expect("written");
        delegate(dir.path()).expect("delegated");
        assert_eq!(fs::read_to_string(&control).expect("read"), "+memory");
        let groups = Groups {
            version: Version::Two,
            folder: dir.path().to_owned(),
        };
        let group = groups.limited("c", 1 << 20).expect("made");
        let read = |name: &str| fs::read_to_string(group.folder.join(name)).expect("read");
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("memory.oom.group"), "1");
        let events = group.folder.join("memory.events");
        fs::write(&events, "low 0\noom 3\noom_kill 0\noom_group_kill 0\n").expect("written");
        group.look();
        assert!(!group.killed());
        fs::write(&events, "oom 3\noom_kill 1\noom_group_kill 1\n").expect("written");
        group.look();
        assert!(group.killed());
        assert!(group.entrance().ends_with("c/cgroup.procs"));
    }
}
