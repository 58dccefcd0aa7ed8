//! The hidden subcommand behind every pod: the program that embeds this crate must call
//! [`pause`] before it starts any thread when its first argument is [`PAUSE`].

use std::convert::Infallible;

use super::spec::{Report, SandboxSpec};
use super::supervisor;
use super::sys;

/// The hidden subcommand's name: `lateen __pause MARKER NAMESPACE/POD`. Descriptor 0 is the
/// agent's socket. `MARKER` is the cluster's instance name, so that `ps` tells whose pod it is.
pub const PAUSE: &str = "__pause";

/// Makes the sandbox of a pod and stays as its first process until the agent goes away.
///
/// Call it from `main`, before any thread exists and before standard input is touched.
pub fn pause() -> ! {
    let socket = sys::take_stdin();
    let result: Result<Infallible, String> = supervisor::run(&socket);
    let Err(message) = result;
    // When the agent is gone too, there is nobody left to tell.
    let _ = supervisor::send(&socket, &Report::Broken { message });
    sys::exit_now(1)
}

/// The namespaces a sandbox gets.
pub(super) fn namespaces(spec: &SandboxSpec) -> nix::sched::CloneFlags {
    use nix::sched::CloneFlags;
    let mut flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if !spec.host_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    flags
}
