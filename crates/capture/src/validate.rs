//! Proof that capture works: a connection that must be captured is made, and must arrive at
//! the proxy's port with the destination that was dialled.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::socket::{getsockopt, sockopt::OriginalDst};

use crate::apply::ApplyError;
use crate::config::Config;

/// An address for documentation (RFC 5737): nobody answers there.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// A loopback address other than 127.0.0.1: what the proxy sends there comes in again.
const SELF: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// Dials the probe port. As the proxy's user the inbound rules are proved (its traffic to its
/// own pod comes in again), as any other user the outbound ones.
///
/// # Errors
/// The proxy's port is taken, or the connection did not come through it.
pub fn validate(config: &Config) -> Result<(), ApplyError> {
    let proxy = config.proxy_uids.contains(&nix::unistd::geteuid().as_raw());
    let (port, address) = if proxy {
        (config.inbound_capture_port, SELF)
    } else {
        (config.proxy_port, NOBODY)
    };
    let dialled = SocketAddr::new(IpAddr::V4(address), config.probe_port);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| failed(format!("port {port} is taken: {error}")))?;
    let client = TcpStream::connect_timeout(&dialled, config.probe_timeout).map_err(|error| {
        failed(format!(
            "a connection to {dialled} was not captured: {error}"
        ))
    })?;
    let from = client
        .local_addr()
        .map_err(|error| ApplyError::io("socket", error))?;
    let seen = accept(&listener, from, config)?;
    if seen != dialled {
        return Err(failed(format!("dialled {dialled}, captured as {seen}")));
    }
    tracing::info!(%dialled, port, "capture works");
    Ok(())
}

fn failed(message: String) -> ApplyError {
    ApplyError::Validation(message)
}

/// The original destination of the connection that `from` made.
fn accept(
    listener: &TcpListener,
    from: SocketAddr,
    config: &Config,
) -> Result<SocketAddr, ApplyError> {
    let problem = |error| ApplyError::io("socket", error);
    listener.set_nonblocking(true).map_err(problem)?;
    let end = Instant::now() + config.probe_timeout;
    while Instant::now() < end {
        match listener.accept() {
            Ok((stream, peer)) if peer == from => {
                let original = getsockopt(&stream.as_fd(), OriginalDst)
                    .map_err(|error| problem(error.into()))?;
                let address = Ipv4Addr::from(u32::from_be(original.sin_addr.s_addr));
                let port = u16::from_be(original.sin_port);
                return Ok(SocketAddr::new(address.into(), port));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => return Err(problem(error)),
        }
    }
    Err(failed(
        "the connection did not arrive at the proxy's port".to_owned(),
    ))
}
