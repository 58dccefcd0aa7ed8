//! What the agent tells the sandbox helper: a program, its root file system as a list of plain
//! steps, and its identity. Values only; made by the agent, carried out by [`super::launch`].

use serde::{Deserialize, Serialize};

/// A request over the sandbox socket. Descriptors travel beside it: the memory file with the
/// [`Launch`] in JSON, then either the three standard descriptors or one console socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Starts a container's main process.
    Run {
        /// Chosen by the agent; names the process from now on.
        id: u64,
        /// The process whose pid namespace it joins instead of having its own.
        beside: Option<u64>,
    },
    /// Starts a program in the namespaces of a running process.
    Exec {
        /// Names the new process.
        id: u64,
        /// The process whose namespaces it joins.
        target: u64,
    },
    /// Sends a signal.
    Signal {
        /// Which process.
        id: u64,
        /// Signal number.
        signal: i32,
        /// To the whole process group of the process.
        group: bool,
    },
}

/// What the helper reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// The sandbox exists; its first process has this pid (of the agent's pid namespace).
    Ready {
        /// Process id.
        pid: i32,
    },
    /// The sandbox could not be made.
    Broken {
        /// For people.
        message: String,
    },
    /// The program was executed.
    Started {
        /// Which process.
        id: u64,
    },
    /// The program could not be executed.
    Failed {
        /// Which process.
        id: u64,
        /// What a shell would report: 126, 127, or 128 for a failed preparation.
        code: i32,
        /// For people.
        message: String,
    },
    /// The process ended.
    Exited {
        /// Which process.
        id: u64,
        /// Exit code when it ended by itself.
        code: Option<i32>,
        /// Signal number when it was killed.
        signal: Option<i32>,
    },
}

/// The sandbox of a pod: what its first process sets up before any container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Host name inside the pod.
    pub hostname: String,
    /// Stay in the host's network namespace.
    pub host_network: bool,
    /// Memory file systems shared by the pod's containers: directory (made by the agent), mount
    /// options.
    pub memory_mounts: Vec<(String, String)>,
    /// Kernel settings of the pod's network namespace: path below `/proc/sys`, value.
    pub sysctls: Vec<(String, String)>,
}

/// A program to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Root file system to build; `None` for a program in an existing container.
    pub root: Option<RootSpec>,
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Environment in order.
    pub env: Vec<(String, String)>,
    /// Working directory; made when missing.
    pub cwd: String,
    /// Who it runs as.
    pub identity: Identity,
    /// Allocate a terminal in the container and send its master side over the console socket.
    pub tty: bool,
    /// The host's file through which it joins its control group; `None`: it has none.
    pub group: Option<String>,
    /// Share the pod's pid namespace instead of having its own.
    pub share_pid: bool,
}

/// User, groups and privileges of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities by bit number: the bounding set, and what uid 0 has.
    pub capabilities: u64,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
}

/// How a container's root is put together on a fresh memory file system. Paths of `dirs`, `files`,
/// `links` and mount targets are absolute paths inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootSpec {
    /// Empty directory of the host that the new root is mounted on (privately).
    pub mountpoint: String,
    /// Directories with their modes, parents first.
    pub dirs: Vec<(String, u32)>,
    /// Symbolic links: path, target.
    pub links: Vec<(String, String)>,
    /// Files: path, content, mode.
    pub files: Vec<(String, String, u32)>,
    /// Mounts in order.
    pub mounts: Vec<Mount>,
    /// Paths hidden behind `/dev/null` or an empty directory.
    pub masked: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Make the root itself read-only.
    pub readonly: bool,
}

/// One mount of a container's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Read-only.
    pub readonly: bool,
}

/// What can be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or directory of the host, with everything mounted below it.
    Bind(String),
    /// A memory file system with these options.
    Tmpfs(String),
    /// The container's processes.
    Proc,
    /// Devices as seen from the pod's network namespace.
    Sysfs,
    /// A terminal file system of its own.
    Devpts,
    /// Message queues.
    Mqueue,
}
