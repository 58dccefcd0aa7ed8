//! Filter chains and what selects them.
use std::sync::Arc;
use std::time::Duration;

use super::{CidrRange, DownstreamTls, Metadata, Name, NetworkFilter};

/// A filter chain.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// Name, may be empty.
    pub name: Name,
    /// What selects the chain.
    pub matching: FilterChainMatch,
    /// TLS towards the client; none = plain.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Network filters in order, the last one terminal.
    pub filters: Vec<NetworkFilter>,
    /// Time for the transport handshake; none = no limit.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// Metadata for dumps and logs.
    pub metadata: Metadata,
}

/// Where the peer of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum SourceType {
    /// Does not matter.
    #[default]
    Any,
    /// The same address as the destination, or a loopback one.
    SameIpOrLoopback,
    /// Somewhere else.
    External,
}

/// What selects a chain. An empty list or `None` matches anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// Step 1: destination port.
    pub destination_port: Option<u16>,
    /// Step 2: destination address.
    pub prefix_ranges: Vec<CidrRange>,
    /// Step 3: SNI, lower-case; `*.` prefixes are wildcards.
    pub server_names: Vec<Name>,
    /// Step 4: `raw_buffer`, `tls`, or empty.
    pub transport_protocol: Name,
    /// Step 5: protocols from ALPN or the HTTP inspector.
    pub application_protocols: Vec<Name>,
    /// Step 6: directly connected source address.
    pub direct_source_prefix_ranges: Vec<CidrRange>,
    /// Step 7: kind of source.
    pub source_type: SourceType,
    /// Step 8: source address.
    pub source_prefix_ranges: Vec<CidrRange>,
    /// Step 9: source port.
    pub source_ports: Vec<u16>,
}
