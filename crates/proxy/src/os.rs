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

/// IP_TRANSPARENT: accepts connections to addresses of others, and may be bound
/// to one to connect from (TPROXY).
///
/// # Errors
/// EPERM without CAP_NET_ADMIN or CAP_NET_RAW; the text names the option.
pub fn set_transparent(socket: &impl AsFd, v4: bool) -> io::Result<()> {
    let (level, name, text) = if v4 {
        (libc::SOL_IP, libc::IP_TRANSPARENT, "IP_TRANSPARENT")
    } else {
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT, "IPV6_TRANSPARENT")
    };
    named(text, set_int(socket.as_fd(), level, name, 1))
}

/// SO_MARK: what firewall rules and policy routes know packets by.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN or CAP_NET_RAW; the text names the option.
pub fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    let set = set_bytes(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_MARK,
        &mark.to_ne_bytes(),
    );
    named("SO_MARK", set)
}

/// Says which option failed, and what a caller without the right lacks.
fn named(option: &str, set: io::Result<()>) -> io::Result<()> {
    set.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("{option}: {error}, it takes CAP_NET_ADMIN")
            }
            _ => format!("{option}: {error}"),
        };
        io::Error::new(error.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};

    /// Without the capability the thread must be told so, with the option's name.
    #[test]
    fn transparency_takes_a_capability() {
        if !nix::unistd::geteuid().is_root() {
            return assert_refused();
        }
        // IP_TRANSPARENT: an address that no interface holds can be a source.
        for (domain, address) in [
            (Domain::IPV4, "203.0.113.1:0"),
            (Domain::IPV6, "[2001:db8::1]:0"),
        ] {
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            let address: std::net::SocketAddr = address.parse().unwrap();
            assert!(socket.bind(&address.into()).is_err(), "not ours");
            set_transparent(&socket, address.is_ipv4()).unwrap();
            set_mark(&socket, 1337).unwrap();
            assert_eq!(socket.mark().unwrap(), 1337);
            socket.bind(&address.into()).unwrap();
        }
        // The effective user of one thread; setting it drops its capabilities.
        let without = std::thread::spawn(|| {
            let nobody = 65534;
            // SAFETY: takes three numbers and changes this thread alone (the
            // bare system call, not libc's that tells all threads).
            let code = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
            assert_eq!(code, 0);
            assert_refused();
        });
        without.join().unwrap();
    }

    fn assert_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let refused = set_transparent(&socket, true).unwrap_err();
        let want = "IP_TRANSPARENT: Operation not permitted (os error 1), it takes CAP_NET_ADMIN";
        assert_eq!(refused.to_string(), want);
        let refused = set_mark(&socket, 1).unwrap_err();
        assert!(refused.to_string().starts_with("SO_MARK: "), "{refused}");
    }

    #[test]
    fn options_reach_the_socket() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
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
