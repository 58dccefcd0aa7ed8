//! A running container instance: its process, its output and input, and programs run beside it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cgroup::Group;
use super::log::{Log, Source};
use super::process::sandbox::{Process, Sandbox, StartError, Stdio};
use super::process::spec::Launch;
use super::process::terminal::{Terminal, set_nonblocking};
use super::runtime::ExitStatus;

/// Most output kept of a probe or hook command.
const KEEP_OUTPUT: u64 = 10 << 10;
/// How long output may trickle in after a program's end.
const DRAIN: Duration = Duration::from_secs(1);

/// A running container.
#[derive(Debug)]
pub struct Live {
    /// The pod's sandbox.
    pub sandbox: Arc<Sandbox>,
    /// Its main process.
    pub process: Process,
    /// Its log.
    pub log: Arc<Log>,
    /// Its terminal, when it has one.
    pub terminal: Option<Terminal>,
    /// The open end of its standard input, when it has one without a terminal. Taken by the first
    /// attached client when input is for one client only.
    pub stdin: Mutex<Option<pipe::Sender>>,
    /// `stdin: true`.
    pub interactive: bool,
    /// `stdinOnce: true`.
    pub stdin_once: bool,
    /// Environment, identity and directory for further programs.
    pub template: Launch,
    /// Container id.
    pub id: String,
    /// Its control group, when its memory is limited.
    pub group: Option<Arc<Group>>,
    /// When it was started.
    pub started: Instant,
    /// The same by the clock on the wall.
    pub started_at: Timestamp,
    attached: AtomicBool,
}

/// The parts that [`Live::start`] needs.
#[derive(Debug)]
pub struct LiveSpec {
    /// The main program with its root.
    pub launch: Launch,
    /// `stdin: true`.
    pub interactive: bool,
    /// `stdinOnce: true`.
    pub stdin_once: bool,
    /// Container id.
    pub id: String,
    /// Its control group, when its memory is limited; removed after its end.
    pub group: Option<Group>,
    /// The program whose pid namespace it joins instead of having its own.
    pub beside: Option<Process>,
}

/// A pipe into the runtime: our end for reading, the program's end for writing.
pub(super) fn output_pipe(owner: u32) -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = io::pipe()?;
    // Programs may open /dev/stdout by name, as their own user.
    std::os::unix::fs::fchown(&write, Some(owner), None)?;
    let read = OwnedFd::from(read);
    set_nonblocking(&read)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write.into()))
}

/// A pipe out of the runtime: the program's end for reading, ours for writing.
pub(super) fn input_pipe(owner: u32) -> io::Result<(OwnedFd, pipe::Sender)> {
    let (read, write) = io::pipe()?;
    std::os::unix::fs::fchown(&read, Some(owner), None)?;
    let write = OwnedFd::from(write);
    set_nonblocking(&write)?;
    Ok((read.into(), pipe::Sender::from_owned_fd(write)?))
}

pub(super) fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

async fn pump(mut reader: impl AsyncRead + Unpin, source: Source, log: Arc<Log>) {
    let mut buf = vec![0; 16 << 10];
    let mut told = false;
    loop {
        match reader.read(&mut buf).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if let Err(error) = log.write(source, &buf[..n], Timestamp::now())
                    && !std::mem::replace(&mut told, true)
                {
                    // The program must not stand still because the disk is full.
                    tracing::warn!(%error, path = %log.path().display(), "log output is lost");
                }
            }
        }
    }
}

impl Live {
    /// Starts the program. The second value ends when it has ended and its output is in the log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(
        sandbox: Arc<Sandbox>,
        spec: LiveSpec,
        log: Arc<Log>,
    ) -> Result<(Arc<Self>, JoinHandle<ExitStatus>), StartError> {
        let LiveSpec {
            launch,
            interactive,
            stdin_once,
            id,
            group,
            beside,
        } = spec;
        let beside = beside.as_ref();
        let group = group.map(Arc::new);
        let mut pumps = Vec::new();
        let mut input = None;
        let (process, terminal) = if launch.tty {
            let (process, terminal) = sandbox.run_beside(beside, &launch, Stdio::Terminal).await?;
            if let Some(terminal) = &terminal {
                pumps.push(tokio::spawn(pump(
                    terminal.clone(),
                    Source::Stdout,
                    Arc::clone(&log),
                )));
            }
            (process, terminal)
        } else {
            let owner = launch.identity.uid;
            let (out, stdout) = output_pipe(owner)?;
            let (err, stderr) = output_pipe(owner)?;
            let stdin = if interactive {
                let (read, write) = input_pipe(owner)?;
                input = Some(write);
                read
            } else {
                null()?
            };
            let started = sandbox
                .run_beside(beside, &launch, Stdio::Fds([stdin, stdout, stderr]))
                .await?;
            pumps.push(tokio::spawn(pump(out, Source::Stdout, Arc::clone(&log))));
            pumps.push(tokio::spawn(pump(err, Source::Stderr, Arc::clone(&log))));
            started
        };
        let template = Launch {
            root: None,
            argv: Vec::new(),
            tty: false,
            ..launch
        };
        let live = Arc::new(Self {
            sandbox,
            process: process.clone(),
            log: Arc::clone(&log),
            terminal,
            stdin: Mutex::new(input),
            interactive,
            stdin_once,
            template,
            id,
            group: group.clone(),
            started: Instant::now(),
            started_at: Timestamp::now(),
            attached: AtomicBool::new(false),
        });
        let end = tokio::spawn(async move {
            let status = process.ended().await;
            for pump in pumps {
                let abort = pump.abort_handle();
                if timeout(DRAIN, pump).await.is_err() {
                    abort.abort();
                }
            }
            log.close();
            if let Some(group) = group {
                group.look();
                tokio::spawn(async move { group.remove().await });
            }
            status
        });
        Ok((live, end))
    }

    /// Starts a further program in the container.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn exec(
        &self,
        argv: Vec<String>,
        stdio: Stdio,
    ) -> Result<(Process, Option<Terminal>), StartError> {
        let tty = matches!(stdio, Stdio::Terminal);
        let mut launch = Launch {
            argv,
            tty,
            ..self.template.clone()
        };
        if tty && !launch.env.iter().any(|(k, _)| k == "TERM") {
            launch.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        self.sandbox.exec(&self.process, &launch, stdio).await
    }

    /// Runs a command to its end: exit code and output. On a timeout it is killed.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub async fn run(&self, argv: Vec<String>, limit: Duration) -> Result<(i32, String), String> {
        let pipe = output_pipe(self.template.identity.uid).map_err(|e| e.to_string())?;
        let (out, write) = pipe;
        let copy = write.try_clone().map_err(|e| e.to_string())?;
        let input = null().map_err(|e| e.to_string())?;
        let started = self.exec(argv, Stdio::Fds([input, copy, write])).await;
        let (process, _) = started.map_err(|e| e.to_string())?;
        let mut output = Vec::new();
        let work = async {
            let mut out = out.take(KEEP_OUTPUT);
            // What cannot be read is not shown; the exit code decides.
            let _ = out.read_to_end(&mut output).await;
            let mut rest = out.into_inner();
            let drain = async { tokio::io::copy(&mut rest, &mut tokio::io::sink()).await };
            let (status, _) = tokio::join!(process.ended(), timeout(DRAIN, drain));
            status
        };
        let status = timeout(limit, work).await;
        let Ok(status) = status else {
            let killed = self.sandbox.signal(&process, libc::SIGKILL, true).await;
            if let Err(error) = killed {
                tracing::debug!(%error, "a command that took too long could not be killed");
            }
            return Err(format!("command timed out after {}s", limit.as_secs()));
        };
        Ok((status.code(), String::from_utf8_lossy(&output).into_owned()))
    }

    /// Sends a signal to the main process.
    pub async fn signal(&self, signal: i32) {
        if let Err(error) = self.sandbox.signal(&self.process, signal, false).await {
            // The sandbox is gone, and with it the process.
            tracing::debug!(%error, "signal was not sent");
        }
    }

    /// Kills the main process and whatever it left in its process group.
    pub async fn kill(&self) {
        if let Err(error) = self
            .sandbox
            .signal(&self.process, libc::SIGKILL, true)
            .await
        {
            tracing::debug!(%error, "kill was not sent");
        }
    }

    /// Whether the kernel has killed in it because it used more memory than its limit; known once
    /// its end is told.
    pub fn out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.killed())
    }

    /// Whether a client has attached.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// Whether this is the first client to attach.
    pub fn first_attach(&self) -> bool {
        !self.attached.swap(true, Ordering::Relaxed)
    }
}
