//! Work inside a pod's network namespace from the agent: a socket keeps the namespace it was made
//! in, so a short-lived thread makes it there and the runtime uses it from anywhere.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// Runs `work` on a thread of its own inside the namespace.
///
/// # Errors
/// When the namespace cannot be entered, and whatever `work` says.
pub async fn inside<T, F>(netns: &OwnedFd, work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let netns = netns.as_fd().try_clone_to_owned()?;
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            let result = setns(&netns, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| work());
            // A caller that gave up needs no answer.
            drop(sender.send(result));
        })?;
    receiver
        .await
        .map_err(|_| io::Error::other("the namespace thread ended early"))?
}

/// Opens a TCP connection from inside the namespace.
///
/// # Errors
/// Those of connect(2).
pub async fn connect(netns: &OwnedFd, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = inside(netns, move || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
    .await?;
    TcpSocket::from_std_stream(socket.into())
        .connect(address)
        .await
}
