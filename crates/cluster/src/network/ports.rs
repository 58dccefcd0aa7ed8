//! Node ports on the host. Traffic to them is turned round by kernel rules, which nobody sees who
//! looks for a free port; so each is held by a socket that takes no connections. Another cluster of
//! the machine, and every other program, then finds the port taken.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Socket, Type};

use super::view::{Protocol, View};

/// Whether neither TCP nor UDP of the port is in use on this host.
pub fn is_free(port: u16) -> bool {
    [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .all(|protocol| !matches!(hold(protocol, port), Err(error) if is_taken(&error)))
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Takes the port without serving it.
fn hold(protocol: Protocol, port: u16) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::Udp => Type::DGRAM,
        // No rule translates SCTP but by its port number, which TCP's stands for.
        Protocol::Tcp | Protocol::Sctp => Type::STREAM,
    };
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    if protocol == Protocol::Udp {
        // With a peer it takes nobody's datagrams: while there is no endpoint, senders are told
        // so, as without this socket. The discard port of this host sends nothing.
        socket.connect(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9).into())?;
    }
    Ok(socket)
}

/// The node ports of a cluster's Services.
#[derive(Debug, Default)]
pub struct Ports {
    /// `None`: in use by another program.
    held: BTreeMap<(Protocol, u16), Option<Socket>>,
}

impl Ports {
    /// Holds the node ports of all Services and lets go of the others. One that another program
    /// has is tried again at every call; it is told of once.
    pub fn follow(&mut self, view: &View) {
        let ports = view.services.values().flat_map(|service| &service.ports);
        let wanted: BTreeSet<(Protocol, u16)> = ports
            .filter_map(|port| Some((port.protocol, port.node_port?)))
            .collect();
        self.held.retain(|key, _| wanted.contains(key));
        for (protocol, port) in wanted {
            let entry = self.held.entry((protocol, port));
            let known = matches!(entry, std::collections::btree_map::Entry::Occupied(_));
            let slot = entry.or_default();
            if slot.is_some() {
                continue;
            }
            match hold(protocol, port) {
                Ok(socket) => *slot = Some(socket),
                Err(_) if known => {}
                Err(error) => {
                    let protocol = protocol.name();
                    tracing::warn!(%error, port, protocol, "a node port is in use by another program of this machine");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::view::{ServicePort, ServiceView};

    fn view(ports: &[(Protocol, u16)]) -> View {
        let ports = ports.iter().map(|(protocol, port)| ServicePort {
            name: String::new(),
            protocol: *protocol,
            port: 80,
            node_port: Some(*port),
        });
        let service = ServiceView {
            ports: ports.collect(),
            ..ServiceView::default()
        };
        let mut view = View::default();
        view.services.insert(("n".into(), "s".into()), service);
        view
    }

    /// A port that nobody else of this machine gets while the socket lives.
    fn own_port() -> (Socket, u16) {
        let socket = hold(Protocol::Tcp, 0).expect("a port");
        let address = socket.local_addr().expect("an address");
        (socket, address.as_socket_ipv4().expect("IPv4").port())
    }

    #[test]
    fn held_ports_are_not_free_and_take_no_connections() {
        let (own, port) = own_port();
        assert!(!is_free(port));
        let mut ports = Ports::default();
        let both = view(&[(Protocol::Tcp, port), (Protocol::Udp, port)]);
        // TCP's is in use, and is taken over as soon as it is not.
        ports.follow(&both);
        drop(own);
        assert!(!is_free(port), "UDP's is held");
        ports.follow(&both);
        let refused = std::net::TcpStream::connect(("127.0.0.1", port)).expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let listens = std::net::TcpListener::bind(("127.0.0.1", port)).expect_err("held");
        assert_eq!(listens.kind(), io::ErrorKind::AddrInUse);
        let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.connect(("127.0.0.1", port)).expect("an address");
        client.send(b"x").expect("sent");
        let refused = client.recv(&mut [0; 8]).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        ports.follow(&View::default());
        assert!(is_free(port));
    }
}
