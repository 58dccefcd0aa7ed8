//! The first process of a pod: makes the namespaces, then starts, signals and reaps the pod's
//! programs as the agent asks, until the agent's end of the socket closes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, send as send_bytes};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, sethostname};

use super::entry::namespaces;
use super::launch::{self, Failure, Stdio};
use super::spec::{Launch, Report, Request, SandboxSpec};
use super::sys;

/// Longest request or report, in bytes; launches travel in memory files, not in messages.
pub(super) const MAX_MESSAGE: usize = 8192;

/// Sends one report to the agent.
pub(super) fn send(socket: &OwnedFd, report: &Report) -> io::Result<()> {
    let mut report = report.clone();
    if let Report::Failed { message, .. } | Report::Broken { message } = &mut report {
        message.truncate(message.floor_char_boundary(2048));
    }
    let bytes = serde_json::to_vec(&report)?;
    send_bytes(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

fn context<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Makes the namespaces, forks the first process into them and, in that process, serves the
/// agent. The forking process itself exits when it has told the agent the pid.
pub(super) fn run(socket: &OwnedFd) -> Result<Infallible, String> {
    context("threads", sys::assert_single_threaded())?;
    let mut buf = [0; MAX_MESSAGE];
    let (length, fds) = context("receive", sys::receive(socket.as_fd(), &mut buf))?;
    if length == 0 {
        sys::exit_now(0);
    }
    let file = fds.into_iter().next().ok_or("no sandbox specification")?;
    let spec: SandboxSpec = read_json(file)?;
    context("unshare namespaces", unshare(namespaces(&spec)))?;
    // CLONE_PARENT: the agent itself becomes the parent, so it can reap the pod's first process.
    match context("fork", sys::fork_with(libc::CLONE_PARENT))? {
        Some(pid) => {
            context("report", send(socket, &Report::Ready { pid: pid.as_raw() }))?;
            sys::exit_now(0)
        }
        None => {
            prepare(&spec)?;
            serve(socket)
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(fd: OwnedFd) -> Result<T, String> {
    let mut file = File::from(fd);
    let mut bytes = Vec::new();
    context("rewind", file.seek(SeekFrom::Start(0)))?;
    context("read", file.read_to_end(&mut bytes))?;
    context("parse", serde_json::from_slice(&bytes))
}

fn prepare(spec: &SandboxSpec) -> Result<(), String> {
    // Slave, not private: an unmount on the host still lets go of the file system here.
    context(
        "make mounts slave",
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_SLAVE,
            None::<&str>,
        ),
    )?;
    for (path, options) in &spec.memory_mounts {
        context(
            path,
            mount(
                Some("tmpfs"),
                path.as_str(),
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                Some(options.as_str()),
            ),
        )?;
    }
    context("set host name", sethostname(&spec.hostname))?;
    // /proc here is the host's mount, but /proc/sys/net follows the reader's network namespace.
    for (key, value) in &spec.sysctls {
        let path = format!("/proc/sys/{key}");
        match std::fs::write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => context(&path, other)?,
        }
    }
    Ok(())
}

/// A program the agent started.
struct Program {
    id: u64,
    /// Carries the failure of a program that could not be executed; at its end the program runs.
    status: Option<File>,
}

struct Supervisor<'a> {
    socket: &'a OwnedFd,
    programs: BTreeMap<Pid, Program>,
}

fn serve(socket: &OwnedFd) -> Result<Infallible, String> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    context("block SIGCHLD", mask.thread_block())?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = context("signalfd", SignalFd::with_flags(&mask, flags))?;
    let mut supervisor = Supervisor {
        socket,
        programs: BTreeMap::new(),
    };
    loop {
        let ready = context("poll", supervisor.wait(signals.as_fd()))?;
        for pid in ready.finished {
            context("report", supervisor.launched(pid))?;
        }
        if ready.signal {
            while context("signal", signals.read_signal())?.is_some() {}
            context("reap", supervisor.reap())?;
        }
        if ready.request {
            context("request", supervisor.request())?;
        }
    }
}

struct Ready {
    request: bool,
    signal: bool,
    finished: Vec<Pid>,
}

impl Supervisor<'_> {
    fn wait(&self, signals: BorrowedFd<'_>) -> io::Result<Ready> {
        let starting: Vec<(Pid, BorrowedFd<'_>)> = self
            .programs
            .iter()
            .filter_map(|(pid, p)| Some((*pid, p.status.as_ref()?.as_fd())))
            .collect();
        let mut fds = vec![
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals, PollFlags::POLLIN),
        ];
        fds.extend(
            starting
                .iter()
                .map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)),
        );
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let hit = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        Ok(Ready {
            request: hit(&fds[0]),
            signal: hit(&fds[1]),
            finished: starting
                .iter()
                .zip(&fds[2..])
                .filter(|(_, fd)| hit(fd))
                .map(|((pid, _), _)| *pid)
                .collect(),
        })
    }

    /// Reads the status pipe of a starting program to its end and reports the outcome.
    fn launched(&mut self, pid: Pid) -> io::Result<()> {
        let Some(program) = self.programs.get_mut(&pid) else {
            return Ok(());
        };
        let Some(mut status) = program.status.take() else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        status.read_to_end(&mut bytes)?;
        let id = program.id;
        if bytes.is_empty() {
            return send(self.socket, &Report::Started { id });
        }
        self.programs.remove(&pid);
        let failure = Failure::from_bytes(&bytes);
        send(self.socket, &failure.report(id))
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Some(code), None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, None, Some(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            self.launched(pid)?;
            if let Some(program) = self.programs.remove(&pid) {
                let id = program.id;
                send(self.socket, &Report::Exited { id, code, signal })?;
            }
        }
    }

    fn request(&mut self) -> io::Result<()> {
        let mut buf = [0; MAX_MESSAGE];
        let (length, fds) = sys::receive(self.socket.as_fd(), &mut buf)?;
        if length == 0 {
            // The agent is gone: leaving takes every process of the pod along.
            sys::exit_now(0);
        }
        let request: Request = serde_json::from_slice(&buf[..length])?;
        match request {
            Request::Run { id, beside: None } => self.start(id, Place::Own, fds),
            Request::Run {
                id,
                beside: Some(other),
            } => match self.pid_of(other) {
                Some(pid) => self.start(id, Place::Beside(pid), fds),
                None => self.no_target(id),
            },
            Request::Exec { id, target } => match self.pid_of(target) {
                Some(pid) => self.start(id, Place::Inside(pid), fds),
                None => self.no_target(id),
            },
            Request::Signal { id, signal, group } => {
                self.signal(id, signal, group);
                Ok(())
            }
        }
    }

    fn no_target(&self, id: u64) -> io::Result<()> {
        let failure = Failure::preparing("container is not running");
        send(self.socket, &failure.report(id))
    }

    fn pid_of(&self, id: u64) -> Option<Pid> {
        self.programs
            .iter()
            .find(|(_, program)| program.id == id)
            .map(|(pid, _)| *pid)
    }

    fn signal(&self, id: u64, signal: i32, group: bool) {
        let (Some(pid), Ok(signal)) = (self.pid_of(id), Signal::try_from(signal)) else {
            return;
        };
        // A process that ended meanwhile is reported by the reaper; there is nothing to add.
        if !group || killpg(pid, signal).is_err() {
            let _ = kill(pid, signal);
        }
    }

    fn start(&mut self, id: u64, place: Place, fds: Vec<OwnedFd>) -> io::Result<()> {
        match start_program(place, fds) {
            Ok((pid, status)) => {
                let status = Some(File::from(status));
                self.programs.insert(pid, Program { id, status });
                Ok(())
            }
            Err(failure) => send(self.socket, &failure.report(id)),
        }
    }
}

/// In which namespaces a program runs.
#[derive(Clone, Copy)]
enum Place {
    /// A container of its own.
    Own,
    /// A container that sees the processes of this one.
    Beside(Pid),
    /// One more program of this process's container.
    Inside(Pid),
}

/// Forks a program. Returns its pid and the pipe that carries a failure.
fn start_program(place: Place, fds: Vec<OwnedFd>) -> Result<(Pid, OwnedFd), Failure> {
    let mut fds = fds.into_iter();
    let file = fds.next().ok_or_else(|| Failure::preparing("no launch"))?;
    let launch: Launch = read_json(file).map_err(|e| Failure::preparing(&e))?;
    let stdio = Stdio::from_fds(fds)?;
    let (status_read, status_write) =
        pipe2(OFlag::O_CLOEXEC).map_err(|e| Failure::preparing(&format!("pipe: {e}")))?;
    let pid_only = CloneFlags::CLONE_NEWPID;
    let both = CloneFlags::CLONE_NEWNS | pid_only;
    let pid = match place {
        Place::Own => {
            let flags = if launch.share_pid {
                0
            } else {
                libc::CLONE_NEWPID
            };
            fork_program(flags, &launch, stdio, status_write)?
        }
        Place::Beside(target) => join_program(target, pid_only, &launch, stdio, status_write)?,
        Place::Inside(target) => join_program(target, both, &launch, stdio, status_write)?,
    };
    Ok((pid, status_read))
}

fn fork_program(
    flags: libc::c_int,
    launch: &Launch,
    stdio: Stdio,
    status: OwnedFd,
) -> Result<Pid, Failure> {
    match sys::fork_with(flags) {
        Err(error) => Err(Failure::preparing(&format!("fork: {error}"))),
        Ok(Some(pid)) => Ok(pid),
        Ok(None) => {
            launch::join_group(launch, &status);
            launch::become_program(launch, stdio, &status)
        }
    }
}

/// Forks a process that enters these namespaces of `target` and forks the program from there (a pid
/// namespace is entered by children only); CLONE_PARENT makes the program our own child again.
fn join_program(
    target: Pid,
    entered: CloneFlags,
    launch: &Launch,
    stdio: Stdio,
    status: OwnedFd,
) -> Result<Pid, Failure> {
    let failed = |what: &str, error: io::Error| Failure::preparing(&format!("{what}: {error}"));
    let namespaces = sys::pidfd_open(target).map_err(|e| failed("open container", e))?;
    let (pid_read, pid_write) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("pipe", e.into()))?;
    if let Some(_joiner) = sys::fork_with(0).map_err(|e| failed("fork", e))? {
        drop(pid_write);
        let mut bytes = [0; 4];
        return match File::from(pid_read).read_exact(&mut bytes) {
            Ok(()) => Ok(Pid::from_raw(i32::from_ne_bytes(bytes))),
            // As a rule it has not come as far as to say why.
            Err(_) => Err(Failure::preparing("container is not running")),
        };
    }
    launch::join_group(launch, &status);
    if setns(&namespaces, entered).is_ok() {
        match sys::fork_with(libc::CLONE_PARENT) {
            Ok(None) => launch::become_program(launch, stdio, &status),
            Ok(Some(pid)) => {
                // A closed pipe means that the supervisor is gone, and with it this process.
                let _ = nix::unistd::write(&pid_write, &pid.as_raw().to_ne_bytes());
            }
            Err(_) => sys::exit_now(1),
        }
    }
    sys::exit_now(0)
}
