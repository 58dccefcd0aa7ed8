//! The last steps of a forked child before it becomes the container's program: root file system,
//! terminal, identity, exec. Runs in the single-threaded helper's children only.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, execve, pivot_root, setgroups, setresgid, setresuid, setsid};
use serde::{Deserialize, Serialize};

use super::spec::{Identity, Launch, Mount, MountKind, Report, RootSpec};
use super::sys;

/// Where the host's root stays reachable while a container's root is put together.
const OLD_ROOT: &str = "/.lateen-host";

/// Most open files of a container's programs.
const OPEN_FILES: u64 = 1_048_576;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program could not be executed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    code: i32,
    message: String,
}

impl Failure {
    /// Something before the exec failed.
    pub(super) fn preparing(message: &str) -> Self {
        Self {
            code: 128,
            message: message.to_owned(),
        }
    }

    fn at<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::preparing(&format!("{what}: {error}"))
    }

    /// Reads what a child wrote to its status pipe.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Self::preparing(&String::from_utf8_lossy(bytes)))
    }

    pub(super) fn report(self, id: u64) -> Report {
        Report::Failed {
            id,
            code: self.code,
            message: self.message,
        }
    }
}

/// Where the program's standard descriptors come from.
pub(super) enum Stdio {
    /// Input, output, error.
    Fds([OwnedFd; 3]),
    /// A socket that wants the master side of a terminal made in the container.
    Console(OwnedFd),
}

impl Stdio {
    pub(super) fn from_fds(fds: impl Iterator<Item = OwnedFd>) -> Result<Self, Failure> {
        let mut fds: Vec<OwnedFd> = fds.collect();
        match fds.len() {
            1 => Ok(Self::Console(fds.remove(0))),
            3 => <[OwnedFd; 3]>::try_from(fds)
                .map(Self::Fds)
                .map_err(|_| Failure::preparing("three descriptors expected")),
            n => Err(Failure::preparing(&format!("{n} descriptors"))),
        }
    }
}

/// Turns the calling (forked) process into the program, or reports why not and exits.
pub(super) fn become_program(launch: &Launch, stdio: Stdio, status: &OwnedFd) -> ! {
    match execute(launch, stdio) {
        Err(failure) => give_up(&failure, status),
        Ok(never) => match never {},
    }
}

/// Makes the calling (forked) process, and so its children, a member of the program's control
/// group, while the host's files are still in sight; or reports why not and exits.
pub(super) fn join_group(launch: &Launch, status: &OwnedFd) {
    let Some(group) = &launch.group else {
        return;
    };
    if let Err(error) = fs::write(group, "0") {
        let failure = Failure::preparing(&format!("control group {group}: {error}"));
        give_up(&failure, status);
    }
}

fn give_up(failure: &Failure, status: &OwnedFd) -> ! {
    let bytes = serde_json::to_vec(failure).unwrap_or_default();
    // Up to PIPE_BUF bytes are written whole; a vanished reader needs no report.
    let _ = nix::unistd::write(status, &bytes[..bytes.len().min(4096)]);
    sys::exit_now(failure.code)
}

fn execute(launch: &Launch, stdio: Stdio) -> Result<std::convert::Infallible, Failure> {
    setsid().map_err(Failure::at("setsid"))?;
    umask(Mode::from_bits_truncate(0o022));
    if let Some(root) = &launch.root {
        build_root(root)?;
    }
    attach_stdio(launch, stdio)?;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let limit = hard.min(OPEN_FILES);
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).map_err(Failure::at("open files"))?;
    }
    if launch.root.is_some() && !Path::new(&launch.cwd).exists() {
        fs::create_dir_all(&launch.cwd).map_err(Failure::at(&launch.cwd))?;
    }
    sys::reset_signals().map_err(Failure::at("signals"))?;
    sys::close_others_on_exec().map_err(Failure::at("descriptors"))?;
    assume(&launch.identity)?;
    chdir(launch.cwd.as_str()).map_err(Failure::at(format!("chdir to {}", launch.cwd)))?;
    exec(launch)
}

fn attach_stdio(launch: &Launch, stdio: Stdio) -> Result<(), Failure> {
    let at = Failure::at::<io::Error>;
    match stdio {
        Stdio::Fds(fds) => {
            for (number, fd) in (0..).zip(&fds) {
                sys::place_fd(fd.as_fd(), number).map_err(at("standard descriptors"))?;
            }
        }
        Stdio::Console(socket) => {
            let slave = open_terminal(&socket, launch.identity.uid).map_err(at("terminal"))?;
            sys::set_controlling_terminal(slave.as_fd()).map_err(at("controlling terminal"))?;
            for number in 0..3 {
                sys::place_fd(slave.as_fd(), number).map_err(at("standard descriptors"))?;
            }
        }
    }
    Ok(())
}

/// Makes a terminal in the container's own terminal file system and sends its master side away.
fn open_terminal(socket: &OwnedFd, owner: u32) -> io::Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags)?;
    nix::pty::grantpt(&master)?;
    nix::pty::unlockpt(&master)?;
    let name = nix::pty::ptsname_r(&master)?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(name)?;
    std::os::unix::fs::fchown(&slave, Some(owner), None)?;
    let fds = [master.as_raw_fd()];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[io::IoSlice::new(b"t")],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(slave)
}

/// Takes on user, groups and capabilities. The bounding set is cut first, while that is allowed;
/// leaving uid 0 clears the other sets by itself.
fn assume(identity: &Identity) -> Result<(), Failure> {
    for capability in 0..64 {
        if identity.capabilities & (1 << capability) == 0 {
            sys::drop_bounding(capability).map_err(Failure::at("bounding set"))?;
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    setgroups(&groups).map_err(Failure::at("setgroups"))?;
    let gid = Gid::from_raw(identity.gid);
    setresgid(gid, gid, gid).map_err(Failure::at("setgid"))?;
    let uid = Uid::from_raw(identity.uid);
    setresuid(uid, uid, uid).map_err(Failure::at("setuid"))?;
    if identity.uid == 0 {
        sys::set_capabilities(identity.capabilities & permitted())
            .map_err(Failure::at("capabilities"))?;
    }
    if identity.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(Failure::at("no_new_privs"))?;
    }
    Ok(())
}

/// The permitted capabilities of this process: what a caller may keep, since no more can be had
/// (the machine itself may withhold some).
fn permitted() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn exec(launch: &Launch) -> Result<std::convert::Infallible, Failure> {
    let c = |s: &str| CString::new(s).map_err(Failure::at("NUL byte in argument or environment"));
    let argv = launch
        .argv
        .iter()
        .map(|a| c(a))
        .collect::<Result<Vec<_>, _>>()?;
    let env = launch
        .env
        .iter()
        .map(|(k, v)| c(&format!("{k}={v}")))
        .collect::<Result<Vec<_>, _>>()?;
    let program = launch
        .argv
        .first()
        .ok_or_else(|| Failure::preparing("no command specified"))?;
    if program.contains('/') {
        let Err(errno) = execve(c(program)?.as_c_str(), &argv, &env);
        return Err(refused(program, errno));
    }
    let path = launch
        .env
        .iter()
        .rev()
        .find(|(k, _)| k == "PATH")
        .map_or(DEFAULT_PATH, |(_, v)| v.as_str());
    let mut denied = None;
    for dir in path.split(':').filter(|d| !d.is_empty()) {
        let Err(errno) = execve(c(&format!("{dir}/{program}"))?.as_c_str(), &argv, &env);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            errno => denied = Some(errno),
        }
    }
    Err(match denied {
        Some(errno) => refused(program, errno),
        None => Failure {
            code: 127,
            message: format!("exec: {program:?}: executable file not found in $PATH"),
        },
    })
}

fn refused(program: &str, errno: Errno) -> Failure {
    let (code, why) = match errno {
        Errno::ENOENT => (127, "no such file or directory"),
        Errno::EACCES => (126, "permission denied"),
        Errno::ENOEXEC => (126, "exec format error"),
        other => (126, other.desc()),
    };
    Failure {
        code,
        message: format!("exec: {program:?}: {why}"),
    }
}

// --- root file system ---

/// Builds the container's root on a fresh memory file system and makes it this process's root.
/// The switch comes first: from then on every target path resolves inside the container, whatever
/// links it meets; the host stays reachable below [`OLD_ROOT`] until the end.
fn build_root(root: &RootSpec) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(Failure::at("mount namespace"))?;
    let base = root.mountpoint.as_str();
    mount(
        Some("tmpfs"),
        base,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .map_err(Failure::at("root file system"))?;
    let old = format!("{base}{OLD_ROOT}");
    fs::create_dir(&old).map_err(Failure::at("root file system"))?;
    pivot_root(base, old.as_str()).map_err(Failure::at("pivot_root"))?;
    chdir("/").map_err(Failure::at("chdir"))?;
    for (path, mode) in &root.dirs {
        make_dir(path, *mode).map_err(Failure::at(path))?;
    }
    for (path, target) in &root.links {
        symlink(target, path).map_err(Failure::at(path))?;
    }
    for (path, content, mode) in &root.files {
        write_file(path, content, *mode).map_err(Failure::at(path))?;
    }
    for step in &root.mounts {
        mount_one(step).map_err(Failure::at(format!("mount {}", step.target)))?;
    }
    for path in &root.readonly_paths {
        if Path::new(path).exists() {
            bind(path, path, true).map_err(Failure::at(path))?;
        }
    }
    for path in &root.masked {
        mask(path).map_err(Failure::at(path))?;
    }
    umount2(OLD_ROOT, MntFlags::MNT_DETACH).map_err(Failure::at("leave the host's root"))?;
    fs::remove_dir(OLD_ROOT).map_err(Failure::at(OLD_ROOT))?;
    if root.readonly {
        remount_readonly("/").map_err(Failure::at("read-only root"))?;
    }
    Ok(())
}

fn make_dir(path: &str, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn write_file(path: &str, content: &str, mode: u32) -> io::Result<()> {
    if let Some(parent) = Path::new(path).parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn mount_one(step: &Mount) -> io::Result<()> {
    let target = step.target.as_str();
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match &step.kind {
        MountKind::Bind(source) => {
            let source = format!("{OLD_ROOT}{source}");
            make_target(&source, target)?;
            return bind(&source, target, step.readonly);
        }
        MountKind::Tmpfs(options) => {
            fs::create_dir_all(target)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(
                Some("tmpfs"),
                target,
                Some("tmpfs"),
                flags,
                Some(options.as_str()),
            )?;
        }
        MountKind::Proc => {
            fs::create_dir_all(target)?;
            mount(Some("proc"), target, Some("proc"), quiet, None::<&str>)?;
        }
        MountKind::Sysfs => {
            fs::create_dir_all(target)?;
            mount(Some("sysfs"), target, Some("sysfs"), quiet, None::<&str>)?;
        }
        MountKind::Devpts => {
            fs::create_dir_all(target)?;
            let options = "newinstance,ptmxmode=0666,mode=0620";
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
            mount(Some("devpts"), target, Some("devpts"), flags, Some(options))?;
        }
        MountKind::Mqueue => {
            fs::create_dir_all(target)?;
            mount(Some("mqueue"), target, Some("mqueue"), quiet, None::<&str>)?;
        }
    }
    if step.readonly {
        remount_readonly(target)?;
    }
    Ok(())
}

/// A bind mount needs a target of the source's kind.
fn make_target(source: &str, target: &str) -> io::Result<()> {
    if fs::metadata(source)?.is_dir() {
        return fs::create_dir_all(target);
    }
    if Path::new(target).exists() {
        return Ok(());
    }
    if let Some(parent) = Path::new(target).parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(target).map(drop)
}

fn bind(source: &str, target: &str, readonly: bool) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>)?;
    if readonly {
        remount_readonly(target)?;
    }
    Ok(())
}

fn remount_readonly(target: &str) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    Ok(mount(
        None::<&str>,
        target,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

fn mask(path: &str) -> io::Result<()> {
    match fs::metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            Ok(mount(
                Some("tmpfs"),
                path,
                Some("tmpfs"),
                flags,
                Some("size=0"),
            )?)
        }
        Ok(_) => bind("/dev/null", path, false),
    }
}
