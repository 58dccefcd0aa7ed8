//! The agent's handle to a pod's first process: spawn it, start programs in the pod, signal them,
//! learn how they end.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio as Redirect;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{oneshot, watch};

use super::entry::PAUSE;
use super::spec::{Launch, Report, Request, SandboxSpec};
use super::supervisor::MAX_MESSAGE;
use super::sys;
use super::terminal::Terminal;
use crate::node::runtime::ExitStatus;

/// How this program re-executes itself as a pod's first process.
#[derive(Debug, Clone)]
pub struct Helper {
    /// The program that answers to [`PAUSE`].
    pub program: PathBuf,
    /// The cluster's instance name, visible in `ps`.
    pub marker: String,
}

/// Why a sandbox or a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The helper refused; the code is what a shell would report.
    #[error("{message}")]
    Refused {
        /// 126, 127, or 128 when the preparation failed.
        code: i32,
        /// For people.
        message: String,
    },
    /// The pod's first process is gone.
    #[error("the pod's sandbox is gone")]
    Gone,
    /// A system call of the agent failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where a program's standard descriptors go.
#[derive(Debug)]
pub enum Stdio {
    /// Input, output, error; handed to the program.
    Fds([OwnedFd; 3]),
    /// A terminal made in the container.
    Terminal,
}

/// A running program of a pod.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its name in the sandbox protocol.
    pub id: u64,
    /// `Some` once it ended.
    pub exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Waits until the program ended. Safe to call again and to cancel.
    pub async fn ended(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|s| s.clone());
        status.unwrap_or(ExitStatus::Signal(libc::SIGKILL))
    }
}

enum Slot {
    Starting(
        oneshot::Sender<Result<(), StartError>>,
        watch::Sender<Option<ExitStatus>>,
    ),
    Running(watch::Sender<Option<ExitStatus>>),
}

#[derive(Default)]
struct Table {
    slots: HashMap<u64, Slot>,
    gone: bool,
}

/// A pod's namespaces and first process. Dropping it ends every process of the pod.
pub struct Sandbox {
    pid: Pid,
    netns: OwnedFd,
    socket: Arc<UnixDatagram>,
    next: AtomicU64,
    table: Arc<Mutex<Table>>,
    gone: watch::Receiver<bool>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

fn locked(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // A panic while holding the lock leaves the table as consistent as any single statement does.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn memory_file<T: Serialize>(value: &T) -> io::Result<OwnedFd> {
    let fd = memfd_create("lateen", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(&serde_json::to_vec(value)?)?;
    Ok(file.into())
}

async fn send(socket: &UnixDatagram, message: &[u8], fds: &[&OwnedFd]) -> io::Result<()> {
    let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    socket
        .async_io(Interest::WRITABLE, || {
            let control = [ControlMessage::ScmRights(&raw)];
            let control = if raw.is_empty() {
                &[][..]
            } else {
                &control[..]
            };
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let fd = socket.as_raw_fd();
            sendmsg::<()>(fd, &[IoSlice::new(message)], control, flags, None)?;
            Ok(())
        })
        .await
}

fn socket_pair() -> io::Result<(UnixDatagram, OwnedFd)> {
    // Sequenced packets keep message bounds, carry descriptors and, unlike datagrams, have an end.
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let ours = std::os::unix::net::UnixDatagram::from(ours);
    ours.set_nonblocking(true)?;
    Ok((UnixDatagram::from_std(ours)?, theirs))
}

async fn receive(socket: &UnixDatagram) -> io::Result<Option<Report>> {
    let mut buf = [0; MAX_MESSAGE];
    match socket.recv(&mut buf).await? {
        0 => Ok(None),
        n => Ok(Some(serde_json::from_slice(&buf[..n])?)),
    }
}

impl Sandbox {
    /// Starts a pod's first process with its namespaces. `name` (`namespace/pod`) shows in `ps`.
    ///
    /// # Errors
    /// When the helper cannot be executed or the kernel refuses the namespaces.
    pub async fn spawn(
        helper: &Helper,
        name: &str,
        spec: &SandboxSpec,
    ) -> Result<Self, StartError> {
        let (socket, theirs) = socket_pair()?;
        let arguments: [OsString; 3] = [PAUSE.into(), helper.marker.clone().into(), name.into()];
        let mut child = tokio::process::Command::new(&helper.program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Redirect::from(theirs))
            .stdout(Redirect::null())
            .stderr(Redirect::null())
            .spawn()?;
        let file = memory_file(spec)?;
        send(&socket, b"{}", &[&file]).await?;
        let first = receive(&socket).await;
        child.wait().await?;
        let pid = match first? {
            Some(Report::Ready { pid }) => Pid::from_raw(pid),
            Some(Report::Broken { message }) => {
                return Err(StartError::Refused { code: 128, message });
            }
            _ => return Err(StartError::Gone),
        };
        let netns = File::open(format!("/proc/{pid}/ns/net"))?.into();
        let socket = Arc::new(socket);
        let table = Arc::new(Mutex::new(Table::default()));
        let (gone_tx, gone) = watch::channel(false);
        tokio::spawn(follow(
            Arc::clone(&socket),
            Arc::clone(&table),
            pid,
            gone_tx,
        ));
        Ok(Self {
            pid,
            netns,
            socket,
            next: AtomicU64::new(1),
            table,
            gone,
        })
    }

    /// The pod's first process, in the agent's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The pod's network namespace.
    pub fn netns(&self) -> &OwnedFd {
        &self.netns
    }

    /// Starts a container's main process. The terminal is given when `stdio` asked for one.
    ///
    /// # Errors
    /// When the root cannot be built or the program cannot be executed.
    pub async fn run(
        &self,
        launch: &Launch,
        stdio: Stdio,
    ) -> Result<(Process, Option<Terminal>), StartError> {
        self.run_beside(None, launch, stdio).await
    }

    /// The same, in the pid namespace of a running program where one is given.
    ///
    /// # Errors
    /// As [`Sandbox::run`]; and when that program is gone.
    pub async fn run_beside(
        &self,
        beside: Option<&Process>,
        launch: &Launch,
        stdio: Stdio,
    ) -> Result<(Process, Option<Terminal>), StartError> {
        let beside = beside.map(|process| process.id);
        let request = |id| Request::Run { id, beside };
        self.start(request, launch, stdio).await
    }

    /// Starts a program in the namespaces of another.
    ///
    /// # Errors
    /// When that one is gone, or the program cannot be executed.
    pub async fn exec(
        &self,
        target: &Process,
        launch: &Launch,
        stdio: Stdio,
    ) -> Result<(Process, Option<Terminal>), StartError> {
        let target = target.id;
        let request = |id| Request::Exec { id, target };
        self.start(request, launch, stdio).await
    }

    async fn start(
        &self,
        request: impl FnOnce(u64) -> Request,
        launch: &Launch,
        stdio: Stdio,
    ) -> Result<(Process, Option<Terminal>), StartError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = request(id);
        let (started_tx, started) = oneshot::channel();
        let (exit_tx, exit) = watch::channel(None);
        {
            let mut table = locked(&self.table);
            if table.gone {
                return Err(StartError::Gone);
            }
            table.slots.insert(id, Slot::Starting(started_tx, exit_tx));
        }
        let console = self.request_start(&request, launch, stdio).await?;
        started.await.map_err(|_| StartError::Gone)??;
        let terminal = match console {
            None => None,
            Some(console) => {
                let mut byte = [0; 8];
                let (_, fds) = sys::receive(console.as_fd(), &mut byte)?;
                let master = fds.into_iter().next();
                let master = master.ok_or_else(|| io::Error::other("no terminal was sent"))?;
                Some(Terminal::new(master)?)
            }
        };
        Ok((Process { id, exit }, terminal))
    }

    /// Sends the request; for a terminal, returns our end of the socket it will come over.
    async fn request_start(
        &self,
        request: &Request,
        launch: &Launch,
        stdio: Stdio,
    ) -> Result<Option<OwnedFd>, StartError> {
        let message = serde_json::to_vec(request).map_err(io::Error::from)?;
        let file = memory_file(launch)?;
        match stdio {
            Stdio::Fds([input, output, error]) => {
                send(&self.socket, &message, &[&file, &input, &output, &error]).await?;
                Ok(None)
            }
            Stdio::Terminal => {
                let (ours, theirs) = socketpair(
                    AddressFamily::Unix,
                    SockType::SeqPacket,
                    None,
                    SockFlag::SOCK_CLOEXEC,
                )
                .map_err(io::Error::from)?;
                send(&self.socket, &message, &[&file, &theirs]).await?;
                Ok(Some(ours))
            }
        }
    }

    /// Sends a signal to a program; one that ended already is left alone.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub async fn signal(&self, process: &Process, signal: i32, group: bool) -> io::Result<()> {
        let request = Request::Signal {
            id: process.id,
            signal,
            group,
        };
        send(&self.socket, &serde_json::to_vec(&request)?, &[]).await
    }

    /// Kills the pod's first process and with it every process of the pod, and waits for the end.
    pub async fn destroy(&self) {
        {
            // Under the lock the pid cannot have been reaped, so it is still ours.
            let table = locked(&self.table);
            if !table.gone {
                let _ = kill(self.pid, Signal::SIGKILL);
            }
        }
        self.gone().await;
    }

    /// Whether the pod's first process is gone (and with it every other).
    pub fn is_gone(&self) -> bool {
        locked(&self.table).gone
    }

    /// Waits until the pod's first process is gone.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // An error means that the follower ended, which is the same news.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let table = locked(&self.table);
        if !table.gone {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// Takes the helper's reports until its end, then settles everything and reaps it.
async fn follow(
    socket: Arc<UnixDatagram>,
    table: Arc<Mutex<Table>>,
    pid: Pid,
    gone: watch::Sender<bool>,
) {
    loop {
        match receive(&socket).await {
            Ok(Some(report)) => settle(&table, report),
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%pid, %error, "sandbox socket failed");
                break;
            }
        }
    }
    {
        let mut table = locked(&table);
        table.gone = true;
        let _ = kill(pid, Signal::SIGKILL);
        for (_, slot) in table.slots.drain() {
            match slot {
                Slot::Starting(started, _) => drop(started.send(Err(StartError::Gone))),
                Slot::Running(exit) => {
                    exit.send_replace(Some(ExitStatus::Signal(libc::SIGKILL)));
                }
            }
        }
    }
    let reaped = tokio::task::spawn_blocking(move || nix::sys::wait::waitpid(pid, None)).await;
    if let Ok(Err(error)) = reaped {
        tracing::debug!(%pid, %error, "sandbox could not be reaped");
    }
    gone.send_replace(true);
}

fn settle(table: &Mutex<Table>, report: Report) {
    let mut table = locked(table);
    match report {
        Report::Started { id } => {
            if let Some(Slot::Starting(started, exit)) = table.slots.remove(&id) {
                // A caller that went away leaves the program to the exit channel's other holders.
                let _ = started.send(Ok(()));
                table.slots.insert(id, Slot::Running(exit));
            }
        }
        Report::Failed { id, code, message } => {
            if let Some(Slot::Starting(started, _)) = table.slots.remove(&id) {
                let _ = started.send(Err(StartError::Refused { code, message }));
            }
        }
        Report::Exited { id, code, signal } => {
            if let Some(Slot::Running(exit)) = table.slots.remove(&id) {
                let status = match (code, signal) {
                    (Some(code), _) => ExitStatus::Code(code),
                    (None, Some(signal)) => ExitStatus::Signal(signal),
                    (None, None) => ExitStatus::Signal(libc::SIGKILL),
                };
                exit.send_replace(Some(status));
            }
        }
        Report::Ready { .. } | Report::Broken { .. } => {}
    }
}
