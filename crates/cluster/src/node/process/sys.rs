//! The system calls that neither std nor nix offers as safe functions: forks with namespace flags,
//! capability sets, terminal control and descriptors that arrive over a socket.
//!
//! The only file of the node agent with `unsafe`. The forking functions are for the
//! single-threaded helper process alone, which [`assert_single_threaded`] checks.
#![allow(
    unsafe_code,
    reason = "raw system calls; each block says why it is sound"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

/// Most descriptors that one message of the sandbox protocol carries.
pub const MAX_FDS: usize = 4;

/// Fails unless the calling process has exactly one thread.
///
/// # Errors
/// When there are more, or `/proc` cannot be read.
pub fn assert_single_threaded() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the sandbox helper must be single-threaded, but has {threads} threads"
        )))
    }
}

/// Forks with the given `CLONE_*` namespace or parent flags: `None` in the child, its pid (in the
/// caller's pid namespace) in the parent.
///
/// # Errors
/// Those of clone(2).
pub fn fork_with(flags: libc::c_int) -> io::Result<Option<Pid>> {
    // SAFETY: with a null stack and no CLONE_VM this is fork(2) with extra flags: the child runs
    // on a copy of this stack and memory. The caller is single-threaded (checked once at the
    // helper's start, it never makes threads), so no lock can be held by another thread in the
    // child's copy of the heap. The unused pointer arguments are null.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags | libc::SIGCHLD),
            0_usize,
            0_usize,
            0_usize,
            0_usize,
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(
            i32::try_from(pid).map_err(io::Error::other)?,
        ))),
    }
}

/// Ends the process at once, without running destructors or exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes any code and does not return; skipping exit handlers is the aim in a
    // forked child, whose copies of buffers belong to the parent.
    unsafe { libc::_exit(code) }
}

/// A descriptor that refers to a process of the caller's pid namespace.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers; the result is checked before it is owned.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    owned(fd)
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor to us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers an exclusively owned descriptor with the runtime.
///
/// # Errors
/// When it cannot be polled.
pub fn register(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is valid and always returns the same descriptor, and AsyncFd owns it
    // until it is deregistered, so it cannot be closed or replaced under the registration.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(fd) }?)
}

/// Receives one datagram with the descriptors that came along (close-on-exec set).
///
/// # Errors
/// Those of recvmsg(2). A length of 0 is the end of the stream.
pub fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [io::IoSliceMut::new(buf)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: SCM_RIGHTS makes fresh descriptors in this process, which only this message
            // names; each is wrapped exactly once.
            fds.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok((message.bytes, fds))
}

/// Takes over descriptor 0, which the parent handed to this helper as its socket.
pub fn take_stdin() -> OwnedFd {
    // SAFETY: descriptor 0 is open (the agent always passes a socket there) and std's `Stdin` is
    // never used in the helper, so this is its only owner.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Gives all signals their default action and empties the mask, as a fresh program expects.
///
/// # Errors
/// Those of sigprocmask(2).
pub fn reset_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: SIG_DFL installs no code of ours, so no handler can run in a bad context.
        unsafe { sigaction(signal, &default) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Makes the terminal the controlling one of the calling session leader.
///
/// # Errors
/// Those of `TIOCSCTTY`.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument and touches no memory.
    let rc = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets a terminal's size.
///
/// # Errors
/// Those of `TIOCSWINSZ`.
pub fn set_window_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let rc = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Removes a capability (by number) from the bounding set; unknown numbers are ignored.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn drop_bounding(capability: u8) -> io::Result<()> {
    // SAFETY: prctl with integer arguments only.
    let rc = unsafe {
        libc::prctl(
            libc::PR_CAPBSET_DROP,
            libc::c_ulong::from(capability),
            0,
            0,
            0,
        )
    };
    if rc == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) {
        Ok(())
    } else {
        Err(error)
    }
}

/// Header of capset(2), version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// One half of the capability sets of capset(2).
#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// Sets the effective and permitted sets of the calling thread to the bits of `set` (bit n =
/// capability n) and empties the inheritable set.
///
/// # Errors
/// `EPERM` when `set` is not within the permitted set.
pub fn set_capabilities(set: u64) -> io::Result<()> {
    let header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let half = |bits: u64| {
        let bits = u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX);
        CapData {
            effective: bits,
            permitted: bits,
            inheritable: 0,
        }
    };
    let data = [half(set), half(set >> 32)];
    // SAFETY: both pointers refer to initialised values of the layout that version 3 asks for
    // (one header, two data structs), which outlive the call; the kernel only reads them.
    let rc = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Marks every descriptor from 3 on close-on-exec.
///
/// # Errors
/// Those of close_range(2) (Linux 5.11).
pub fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: only flags of descriptors change; nothing is closed under an owner.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes `fd` the standard descriptor `number` (0, 1 or 2), without close-on-exec.
///
/// # Errors
/// Those of dup2(2).
pub fn place_fd(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        nix::fcntl::fcntl(
            fd,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )?;
        return Ok(());
    }
    // SAFETY: dup2 onto a standard descriptor of a forked child that is about to exec; nothing in
    // the child holds an owning handle of descriptors 0 to 2 (std's handles do not own them).
    let rc = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{
        AddressFamily, ControlMessage, SockFlag, SockType, sendmsg, socketpair,
    };
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_over_a_socket() {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        let raw = [write.as_raw_fd()];
        sendmsg::<()>(
            a.as_raw_fd(),
            &[io::IoSlice::new(b"hello")],
            &[ControlMessage::ScmRights(&raw)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        drop(write);
        let mut buf = [0; 64];
        let (n, fds) = receive(b.as_fd(), &mut buf).unwrap();
        assert_eq!(&buf[..n], b"hello");
        assert_eq!(fds.len(), 1);
        nix::unistd::write(&fds[0], b"x").unwrap();
        drop(fds);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut buf).unwrap().0, 0);
    }

    #[test]
    fn a_pidfd_names_a_live_process_only() {
        assert!(pidfd_open(nix::unistd::getpid()).is_ok());
        assert!(pidfd_open(Pid::from_raw(i32::MAX)).is_err());
    }

    #[test]
    fn window_size_of_a_pty_is_set() {
        let pty = nix::pty::openpty(None, None).unwrap();
        set_window_size(pty.master.as_fd(), 101, 33).unwrap();
        assert!(set_window_size(std::fs::File::open("/dev/null").unwrap().as_fd(), 1, 1).is_err());
    }
}
