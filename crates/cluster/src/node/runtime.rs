//! What the streaming subresources (log, exec, attach, port-forward) ask of a node agent.
//!
//! The trait is the only meeting point of `stream/` (which speaks WebSocket and SPDY to kubectl)
//! and the node agent (which owns processes and network namespaces). Nothing here does IO.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// Names one pod. `uid` is empty when the caller does not care which incarnation it meets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// `metadata.uid`, or empty.
    pub uid: String,
}

/// What `pods/exec` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Whether the caller will feed standard input.
    pub stdin: bool,
    /// Whether the caller wants standard output.
    pub stdout: bool,
    /// Whether the caller wants standard error (never together with `tty`).
    pub stderr: bool,
    /// Whether a pseudo terminal is allocated.
    pub tty: bool,
}

/// What `pods/attach` asks for; the tty choice is the container's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Whether the caller will feed standard input.
    pub stdin: bool,
    /// Whether the caller wants standard output.
    pub stdout: bool,
    /// Whether the caller wants standard error.
    pub stderr: bool,
    /// Whether the caller believes the container has a terminal.
    pub tty: bool,
}

/// What `pods/log` asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogOptions {
    /// Keep the stream open and send new lines until the container ends.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only lines not older than so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines at or after this time.
    pub since_time: Option<jiff::Timestamp>,
    /// Prefix each line with its RFC 3339 time (nanoseconds) and a space.
    pub timestamps: bool,
    /// The log of the last terminated instance of the container.
    pub previous: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// Ended by itself with this code (0 = success).
    Code(i32),
    /// Killed by this signal; reported to clients as code 128 + n.
    Signal(i32),
}

impl ExitStatus {
    /// The exit code as a shell reports it: the code, or 128 + signal number.
    pub fn code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A byte sink that a [`Session`] gives to its caller.
pub type SessionWriter = Box<dyn AsyncWrite + Send + Unpin>;
/// A byte source that a [`Session`] gives to its caller.
pub type SessionReader = Box<dyn AsyncRead + Send + Unpin>;
/// Log bytes as they are produced; an item need not be a whole line.
pub type LogStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Both directions of a port-forward connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> Duplex for T {}

/// One running exec or attach.
///
/// Dropping `stdin` closes the program's standard input. Dropping the whole session ends an exec'd
/// program (with a hang-up) but never an attached container.
pub struct Session {
    /// Present when stdin was asked for (attach: and the container has `stdin: true`).
    pub stdin: Option<SessionWriter>,
    /// Present when stdout was asked for; the terminal's output when there is a tty.
    pub stdout: Option<SessionReader>,
    /// Present when stderr was asked for and there is no tty.
    pub stderr: Option<SessionReader>,
    /// Terminal size as (columns, rows); values sent without a tty are ignored.
    pub resize: mpsc::Sender<(u16, u16)>,
    /// Resolves when the program ended. For attach: when the container ended. An error means the
    /// agent lost sight of it.
    pub exit: oneshot::Receiver<ExitStatus>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a node agent refuses. The text reaches the person at kubectl.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such pod or container here (404 to the client).
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense in the container's present state, such as a log of a container
    /// that waits to start (400 to the client).
    #[error("{0}")]
    BadRequest(String),
    /// The program could not be started: not found or not executable. `code` is what a shell would
    /// report (126 or 127).
    #[error("{message}")]
    Start {
        /// 126 (not executable) or 127 (not found).
        code: i32,
        /// For the person.
        message: String,
    },
    /// Anything else (500 to the client).
    #[error("{0}")]
    Internal(String),
    /// An operating system call failed (500 to the client).
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A node agent as seen by the streaming subresources.
///
/// One value may stand for all nodes of the machine: calls find the pod by its reference.
#[async_trait]
pub trait NodeRuntime: Send + Sync {
    /// Starts a program in a running container.
    async fn exec(
        &self,
        pod: &PodRef,
        container: &str,
        request: ExecRequest,
    ) -> Result<Session, RuntimeError>;

    /// Joins the main process of a container.
    async fn attach(
        &self,
        pod: &PodRef,
        container: &str,
        request: AttachRequest,
    ) -> Result<Session, RuntimeError>;

    /// The container's log. The error texts of a waiting or unknown previous container are the
    /// agent's: `container "c" in pod "p" is waiting to start: ContainerCreating`,
    /// `previous terminated container "c" in pod "p" not found`.
    async fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        options: LogOptions,
    ) -> Result<LogStream, RuntimeError>;

    /// Connects to 127.0.0.1:`port` inside the pod's network namespace.
    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn Duplex>, RuntimeError>;
}
