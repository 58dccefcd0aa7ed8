//! The processes of a pod: a small single-threaded helper per pod (the sandbox's first process,
//! made by re-executing this program) and the agent's handle to it.
//!
//! The helper lives as PID 1 of the pod's pid namespace and forks the containers, each with a
//! mount and a pid namespace of its own below the pod's. Its end of a socket pair is a lifeline:
//! when the agent dies, even by SIGKILL, the helper exits and the kernel takes the whole pod
//! (processes, mounts, network namespace, interfaces) with it.

pub mod entry;
mod launch;
pub mod sandbox;
pub mod spec;
mod supervisor;
pub mod sys;
pub mod terminal;
