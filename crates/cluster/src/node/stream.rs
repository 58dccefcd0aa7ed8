//! What the streaming subresources ask for: exec, attach, logs, port-forward.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::agent::{Agent, ContainerEntry, PodEntry, locked};
use super::live::{Live, input_pipe, null, output_pipe};
use super::log::{self, Filter, Formatter, Log, LogReader, Source};
use super::process::sandbox::{Process, StartError, Stdio};
use super::process::terminal::Terminal;
use super::runtime::{
    AttachRequest, Duplex, ExecRequest, ExitStatus, LogOptions, LogStream, NodeRuntime, PodRef,
    RuntimeError, Session, SessionReader, SessionWriter,
};
use crate::network::netns;

/// Bytes between the log's subscribers and one attached client.
const ATTACH_BUFFER: usize = 64 << 10;

impl From<StartError> for RuntimeError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Refused { code, message } if code != 128 => Self::Start { code, message },
            StartError::Refused { message, .. } => Self::Internal(message),
            StartError::Gone => Self::BadRequest("container is not running".to_owned()),
            StartError::Io(error) => Self::Io(error),
        }
    }
}

/// The runtime over one agent.
#[derive(Debug)]
pub(super) struct Runtime {
    pub agent: Arc<Agent>,
}

impl Runtime {
    fn pod(&self, pod: &PodRef) -> Result<Arc<PodEntry>, RuntimeError> {
        let found = self.agent.pod(&pod.namespace, &pod.name);
        let found = found.filter(|entry| pod.uid.is_empty() || entry.uid == pod.uid);
        found.ok_or_else(|| {
            RuntimeError::NotFound(format!("pod {:?} not found on its node", pod.name))
        })
    }

    fn container(
        &self,
        pod: &PodRef,
        name: &str,
    ) -> Result<(Arc<PodEntry>, ContainerEntry), RuntimeError> {
        let entry = self.pod(pod)?;
        let container = locked(&entry.containers).get(name).cloned();
        match container {
            Some(container) => Ok((entry, container)),
            None => Err(RuntimeError::NotFound(format!(
                "container {name} is not valid for pod {}",
                pod.name
            ))),
        }
    }

    fn live(&self, pod: &PodRef, name: &str) -> Result<Arc<Live>, RuntimeError> {
        let (_, container) = self.container(pod, name)?;
        container
            .live
            .ok_or_else(|| RuntimeError::NotFound(format!("container not found (\"{name}\")")))
    }
}

impl Runtime {
    /// A session with what an interactive container said before it ended (nothing, where somebody
    /// has read its log), for the first client only: `kubectl run -i` of a short program attaches
    /// after its end.
    fn attach_late(&self, pod: &PodRef, name: &str, request: AttachRequest) -> Option<Session> {
        let entry = self.pod(pod).ok()?;
        let (status, log) = {
            let mut containers = locked(&entry.containers);
            containers.get_mut(name)?.ended.take()?
        };
        let (past, _) = log.attach(true);
        log.mark_shown(u64::MAX);
        let of = |source: Source| {
            let pieces = past.iter().filter(|(from, _)| *from == source);
            let bytes: Vec<u8> = pieces.flat_map(|(_, bytes)| bytes.to_vec()).collect();
            Some(Box::new(std::io::Cursor::new(bytes)) as SessionReader)
        };
        let (sender, exit) = oneshot::channel();
        // The receiver is right here.
        let _ = sender.send(status);
        Some(Session {
            stdin: request
                .stdin
                .then(|| Box::new(tokio::io::sink()) as SessionWriter),
            stdout: of(Source::Stdout).filter(|_| request.stdout),
            stderr: of(Source::Stderr).filter(|_| request.stderr && !request.tty),
            resize: resizer(None),
            exit,
        })
    }
}

fn resizer(terminal: Option<Terminal>) -> mpsc::Sender<(u16, u16)> {
    let (sender, mut sizes) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            if let Some(terminal) = &terminal
                && let Err(error) = terminal.resize(columns, rows)
            {
                tracing::debug!(%error, "terminal was not resized");
            }
        }
    });
    sender
}

/// Waits for the end of an exec'd program; a session that is dropped before hangs it up.
fn follow_exec(live: Arc<Live>, process: Process) -> oneshot::Receiver<ExitStatus> {
    let (mut sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            status = process.ended() => drop(sender.send(status)),
            () = sender.closed() => {
                for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGKILL] {
                    drop(live.sandbox.signal(&process, signal, true).await);
                    let wait = tokio::time::timeout(std::time::Duration::from_secs(2), process.ended());
                    if wait.await.is_ok() {
                        break;
                    }
                }
            }
        }
    });
    receiver
}

#[async_trait]
impl NodeRuntime for Runtime {
    async fn exec(
        &self,
        pod: &PodRef,
        container: &str,
        request: ExecRequest,
    ) -> Result<Session, RuntimeError> {
        let live = self.live(pod, container)?;
        if request.command.is_empty() {
            return Err(RuntimeError::BadRequest(
                "you must specify at least one command for the container".to_owned(),
            ));
        }
        if request.tty {
            let (process, terminal) = live.exec(request.command, Stdio::Terminal).await?;
            let output = terminal.clone();
            return Ok(Session {
                stdin: terminal
                    .clone()
                    .filter(|_| request.stdin)
                    .map(|t| Box::new(t) as SessionWriter),
                stdout: output
                    .filter(|_| request.stdout)
                    .map(|t| Box::new(t) as SessionReader),
                stderr: None,
                resize: resizer(terminal),
                exit: follow_exec(live, process),
            });
        }
        let owner = live.template.identity.uid;
        let (input, stdin) = if request.stdin {
            let (read, write) = input_pipe(owner)?;
            (read, Some(Box::new(write) as SessionWriter))
        } else {
            (null()?, None)
        };
        let (out, stdout) = output_pipe(owner)?;
        let (err, stderr) = output_pipe(owner)?;
        let (process, _) = live
            .exec(request.command, Stdio::Fds([input, stdout, stderr]))
            .await?;
        let keep = |wanted: bool, reader| {
            if wanted {
                return Some(Box::new(reader) as SessionReader);
            }
            // Nobody reads it, but the program must be able to write.
            let mut reader = reader;
            tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
            None
        };
        Ok(Session {
            stdin,
            stdout: keep(request.stdout, out),
            stderr: keep(request.stderr, err),
            resize: resizer(None),
            exit: follow_exec(live, process),
        })
    }

    async fn attach(
        &self,
        pod: &PodRef,
        container: &str,
        request: AttachRequest,
    ) -> Result<Session, RuntimeError> {
        let live = match self.live(pod, container) {
            Ok(live) => live,
            Err(missing) => return self.attach_late(pod, container, request).ok_or(missing),
        };
        let stdin: Option<SessionWriter> = match &live.terminal {
            _ if !request.stdin || !live.interactive => None,
            Some(terminal) => Some(Box::new(terminal.clone())),
            None if live.stdin_once => live
                .stdin
                .lock()
                .await
                .take()
                .map(|p| Box::new(p) as SessionWriter),
            None => Some(shared_input(&live)),
        };
        // The client of `kubectl run -i` comes a moment after the program's first words.
        let replay = live.interactive && live.first_attach();
        let (past, receiver) = live.log.attach(replay);
        let (out_reader, out) = tokio::io::duplex(ATTACH_BUFFER);
        let (err_reader, err) = tokio::io::duplex(ATTACH_BUFFER);
        let has_terminal = live.terminal.is_some();
        let stderr = (request.stderr && !has_terminal).then_some(err);
        tokio::spawn(copy_live(
            Arc::clone(&live),
            past,
            receiver,
            request.stdout.then_some(out),
            stderr,
        ));
        let (sender, exit) = oneshot::channel();
        let resize = resizer(live.terminal.clone());
        tokio::spawn(async move {
            let status = live.process.ended().await;
            drop(sender.send(status));
        });
        Ok(Session {
            stdin,
            stdout: request
                .stdout
                .then(|| Box::new(out_reader) as SessionReader),
            stderr: (request.stderr && !has_terminal)
                .then(|| Box::new(err_reader) as SessionReader),
            resize,
            exit,
        })
    }

    async fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        options: LogOptions,
    ) -> Result<LogStream, RuntimeError> {
        let (entry, state) = self.container(pod, container)?;
        let instance = match (state.instance, options.previous) {
            (None, false) => {
                let reason = if state.waiting.is_empty() {
                    "ContainerCreating"
                } else {
                    &state.waiting
                };
                let name = &pod.name;
                let text = if matches!(
                    reason,
                    "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName"
                ) {
                    format!(
                        "container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image"
                    )
                } else {
                    format!("container {container:?} in pod {name:?} is waiting to start: {reason}")
                };
                return Err(RuntimeError::BadRequest(text));
            }
            (Some(present), false) => present,
            (present, true) => {
                let ended_now = state.live.is_none() && state.waiting == "CrashLoopBackOff";
                let previous = if ended_now {
                    present
                } else {
                    present.and_then(|n| n.checked_sub(1))
                };
                let missing = || {
                    RuntimeError::BadRequest(format!(
                        "previous terminated container {container:?} in pod {:?} not found",
                        pod.name
                    ))
                };
                previous.ok_or_else(missing)?
            }
        };
        let path = super::start::log_path(&entry, container, instance);
        let live_log = state.log.filter(|log| log.path() == path);
        let since = options.since_time.or_else(|| {
            let seconds = i64::try_from(options.since_seconds?).ok()?;
            Timestamp::now()
                .checked_sub(SignedDuration::from_secs(seconds))
                .ok()
        });
        let filter = Filter {
            since,
            tail: options.tail_lines,
            timestamps: options.timestamps,
        };
        let (sender, receiver) = mpsc::channel(8);
        let follow = options.follow && !options.previous;
        let job = LogJob {
            path,
            log: live_log,
            filter,
            limit: options.limit_bytes,
            follow,
        };
        tokio::spawn(async move {
            if let Err(error) = job.send(&sender).await {
                // A client that left needs no error.
                drop(sender.send(Err(error)).await);
            }
        });
        Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(
            receiver,
        )))
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let entry = self.pod(pod)?;
        let sandbox = locked(&entry.sandbox).clone();
        let sandbox = sandbox.ok_or_else(|| {
            RuntimeError::BadRequest(format!("pod {:?} is not running", pod.name))
        })?;
        let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = match netns::connect(sandbox.netns(), four).await {
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
                netns::connect(sandbox.netns(), six)
                    .await
                    .map_err(|_| error)?
            }
            other => other?,
        };
        Ok(Box::new(stream))
    }
}

/// Input for a container that takes several clients: whatever any of them writes, and no end.
fn shared_input(live: &Arc<Live>) -> SessionWriter {
    let (ours, theirs) = tokio::io::duplex(ATTACH_BUFFER);
    let live = Arc::clone(live);
    tokio::spawn(async move {
        let mut ours = ours;
        let mut buf = vec![0; 16 << 10];
        while let Ok(n @ 1..) = tokio::io::AsyncReadExt::read(&mut ours, &mut buf).await {
            let mut stdin = live.stdin.lock().await;
            let Some(pipe) = stdin.as_mut() else {
                return;
            };
            if pipe.write_all(&buf[..n]).await.is_err() {
                return;
            }
        }
    });
    Box::new(theirs)
}

/// Copies a container's output to one client until the container's log is closed.
async fn copy_live(
    live: Arc<Live>,
    past: Vec<(Source, Bytes)>,
    mut receiver: broadcast::Receiver<(Source, Bytes)>,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) {
    let has_terminal = live.terminal.is_some();
    let mut progress = live.log.progress();
    let mut past = past.into_iter();
    loop {
        let piece = match past.next() {
            Some(piece) => piece,
            None => tokio::select! {
                biased;
                piece = receiver.recv() => match piece {
                    Ok(piece) => piece,
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                closed = progress.wait_for(|p| p.closed) => {
                    drop(closed);
                    // The last words may have come between the two looks.
                    match receiver.try_recv() {
                        Ok(piece) => piece,
                        Err(broadcast::error::TryRecvError::Lagged(_)) => continue,
                        Err(_) => return,
                    }
                }
            },
        };
        let target = match piece.0 {
            Source::Stderr if !has_terminal => &mut stderr,
            _ => &mut stdout,
        };
        if let Some(writer) = target
            && writer.write_all(&piece.1).await.is_err()
        {
            *target = None;
        }
        if stdout.is_none() && stderr.is_none() {
            return;
        }
    }
}

/// One log request.
struct LogJob {
    path: PathBuf,
    log: Option<Arc<Log>>,
    filter: Filter,
    limit: Option<u64>,
    follow: bool,
}

type LogSender = mpsc::Sender<std::io::Result<Bytes>>;

impl LogJob {
    fn mark_shown(&self, reader: &mut LogReader) -> std::io::Result<()> {
        if let Some(log) = &self.log {
            log.mark_shown(reader.position()?);
        }
        Ok(())
    }

    async fn send(&self, sender: &LogSender) -> std::io::Result<()> {
        let mut progress = self.log.as_ref().map(|log| log.progress());
        let mut seen = progress
            .as_mut()
            .map(|p| *p.borrow_and_update())
            .unwrap_or_default();
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || log::read_all(&path)).await;
        let (records, mut reader) = read.map_err(std::io::Error::other)??;
        // kubectl's newest reads the log before it attaches: what is written between the two is
        // replayed to it.
        self.mark_shown(&mut reader)?;
        let mut formatter = Formatter::new(self.filter);
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut out = Vec::new();
        let chosen: Vec<log::Record> = match self.filter.since {
            Some(since) => records.into_iter().filter(|r| r.time >= since).collect(),
            None => records,
        };
        for record in log::last_lines(&chosen, self.filter.tail) {
            formatter.push(record, &mut out);
            if out.len() > 64 << 10 && !pass_on(sender, &mut out, &mut left).await {
                return Ok(());
            }
        }
        if !pass_on(sender, &mut out, &mut left).await {
            return Ok(());
        }
        let Some(mut progress) = progress.filter(|_| self.follow) else {
            return Ok(());
        };
        loop {
            let closed = seen.closed;
            let records = next_records(&mut reader, seen.generation, progress.borrow().generation)?;
            self.mark_shown(&mut reader)?;
            records
                .iter()
                .for_each(|record| formatter.push(record, &mut out));
            if !pass_on(sender, &mut out, &mut left).await || closed {
                return Ok(());
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { seen.closed = true; continue },
                () = sender.closed() => return Ok(()),
            }
            let now = *progress.borrow_and_update();
            if now.generation != seen.generation {
                let records = reader.records_across_rotation()?;
                records
                    .iter()
                    .for_each(|record| formatter.push(record, &mut out));
            }
            seen = now;
        }
    }
}

fn next_records(
    reader: &mut LogReader,
    before: u64,
    now: u64,
) -> std::io::Result<Vec<log::Record>> {
    if before == now {
        reader.records()
    } else {
        Ok(Vec::new())
    }
}

/// Sends what was gathered, within the limit; `false` ends the request.
async fn pass_on(sender: &LogSender, out: &mut Vec<u8>, left: &mut u64) -> bool {
    if out.is_empty() {
        return *left > 0;
    }
    let mut bytes = std::mem::take(out);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > *left {
        bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
    }
    *left = left.saturating_sub(length);
    sender.send(Ok(bytes.into())).await.is_ok() && *left > 0
}
