//! Addresses as Envoy's configuration names them: sockets, unix sockets, host names, CIDR ranges.
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Name;

/// A configured address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A host name and port, to be resolved by a DNS cluster.
    Host {
        /// DNS name as configured.
        host: Name,
        /// Port, 1 to 65535 (0 where the cluster supplies it).
        port: u16,
    },
    /// A unix domain socket; a leading `@` means the abstract namespace.
    Pipe(Name),
    /// An internal listener of this process.
    Internal(Name),
}

impl Address {
    /// The socket address, where this is one.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(addr) => Some(*addr),
            _ => None,
        }
    }

    /// The port, where the kind has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Socket(addr) => Some(addr.port()),
            Self::Host { port, .. } => Some(*port),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => write!(f, "{addr}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Pipe(path) => f.write_str(path),
            Self::Internal(name) => write!(f, "envoy://{name}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Socket(addr)
    }
}

/// An address range; the host bits of the address are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CidrRange(pub ipnet::IpNet);

impl CidrRange {
    /// Whether the range holds the address. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }

    /// Length of the prefix in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }
}

/// How upstream connections of a cluster are bound before connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindConfig {
    /// Source addresses, the first of the family of the target is used; port 0 = any.
    pub source_addresses: Vec<SocketAddr>,
    /// IP_FREEBIND: allows an address the machine does not hold.
    pub freebind: bool,
    /// Raw socket options to set before connect: (level, name, value).
    pub socket_options: Vec<SocketOption>,
}

/// One raw socket option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// `SOL_*` number.
    pub level: i32,
    /// Option number.
    pub name: i32,
    /// Value to set.
    pub value: SocketOptionValue,
}

/// Value of a raw socket option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketOptionValue {
    /// A C int.
    Int(i32),
    /// Raw bytes.
    Bytes(Vec<u8>),
}
