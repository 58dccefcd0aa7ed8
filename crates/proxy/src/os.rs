//! The socket options and system calls for which no safe wrapper exists. The
//! only file of the crate with unsafe code; every block passes an owned value
//! of the size the call asks for and a descriptor that is borrowed, hence open.
#![allow(unsafe_code, reason = "setsockopt of numbers the configuration gives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use lateen_proxy_core::config::address::{SocketOption, SocketOptionValue};

fn set_bytes(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and length are of one live slice, which the kernel
    // only reads; the descriptor is borrowed and so open during the call.
    let code = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if code == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

/// Sets a socket option as the configuration writes it.
pub fn set_socket_option(socket: &impl AsFd, option: &SocketOption) -> io::Result<()> {
    let fd = socket.as_fd();
    match &option.value {
        SocketOptionValue::Int(value) => set_int(fd, option.level, option.name, *value),
        SocketOptionValue::Bytes(bytes) => set_bytes(fd, option.level, option.name, bytes),
    }
}

/// IP_FREEBIND: binds to an address the machine does not hold.
pub fn set_freebind(socket: &impl AsFd, v4: bool) -> io::Result<()> {
    let (level, name) = if v4 {
        (libc::SOL_IP, libc::IP_FREEBIND)
    } else {
        (libc::SOL_IPV6, libc::IPV6_FREEBIND)
    };
    set_int(socket.as_fd(), level, name, 1)
}

/// IP_BIND_ADDRESS_NO_PORT: the source port is chosen at connect.
pub fn set_bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    set_int(
        socket.as_fd(),
        libc::SOL_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
        1,
    )
}

/// TCP_FASTOPEN on a listening socket.
pub fn set_fast_open(socket: &impl AsFd, queue: i32) -> io::Result<()> {
    set_int(socket.as_fd(), libc::SOL_TCP, libc::TCP_FASTOPEN, queue)
}

/// IPV6_TRANSPARENT: accepts connections to addresses of others (TPROXY).
pub fn set_transparent_v6(socket: &impl AsFd) -> io::Result<()> {
    set_int(socket.as_fd(), libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_socket() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        set_bind_address_no_port(&socket).unwrap();
        set_freebind(&socket, true).unwrap();
        // 203.0.113.1 is documentation space: only FREEBIND lets it bind.
        let addr: std::net::SocketAddr = "203.0.113.1:0".parse().unwrap();
        socket.bind(&addr.into()).unwrap();
        let bad = SocketOption {
            level: libc::SOL_SOCKET,
            name: 9999,
            value: SocketOptionValue::Int(1),
        };
        assert!(set_socket_option(&socket, &bad).is_err());
        let good = SocketOption {
            level: libc::SOL_SOCKET,
            name: libc::SO_KEEPALIVE,
            value: SocketOptionValue::Int(1),
        };
        set_socket_option(&socket, &good).unwrap();
        assert!(socket.keepalive().unwrap());
    }
}
