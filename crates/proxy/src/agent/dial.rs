//! Connections of the agent to its own pod's application, past the redirection:
//! a connection to the pod's address would be caught and answered by the proxy's
//! own inbound port, whether the application lives or not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

/// The source addresses that the redirection lets through (Istio's rules,
/// `-o lo -s 127.0.0.6/32 -j RETURN`).
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// Connects to a port of the pod that has this address.
pub(super) async fn pod(address: &str, port: u16) -> io::Result<TcpStream> {
    let Ok(ip) = address.parse::<IpAddr>() else {
        return TcpStream::connect((address, port)).await;
    };
    let (socket, source) = match ip {
        IpAddr::V4(_) => (TcpSocket::new_v4()?, V4),
        IpAddr::V6(_) => (TcpSocket::new_v6()?, V6),
    };
    match socket.bind(SocketAddr::new(source, 0)) {
        // Where nothing gave the loopback device the IPv6 address, nothing is
        // redirected either.
        Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => return Err(error),
        _ => {}
    }
    socket.connect(SocketAddr::new(ip, port)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_source_is_the_one_that_is_let_through() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stream, accepted) = tokio::join!(pod("127.0.0.1", port), listener.accept());
        assert_eq!(stream.unwrap().peer_addr().unwrap().port(), port);
        assert_eq!(accepted.unwrap().1.ip(), V4);
        assert!(pod("localhost", port).await.is_ok(), "a name is resolved");
        drop(listener);
        assert!(pod("127.0.0.1", port).await.is_err());
    }
}
