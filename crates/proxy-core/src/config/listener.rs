//! Listeners: addresses, listener filters, filter chains.
use std::sync::Arc;
use std::time::Duration;

use super::address::SocketOption;
use super::{AccessLog, Address, FilterChain, Metadata, Name};

/// Which way traffic of a listener flows, as the control plane says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TrafficDirection {
    /// Not said.
    #[default]
    Unspecified,
    /// Into the workload.
    Inbound,
    /// Out of the workload.
    Outbound,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Resource name.
    pub name: Name,
    /// Prefix for statistics: `stat_prefix`, or the address with `_` for `:`.
    pub stat_prefix: Name,
    /// First address; every listener has one.
    pub address: Address,
    /// Further addresses served by the same listener.
    pub additional_addresses: Vec<Address>,
    /// Whether it opens a socket. If not, it is reached only by hand-off from a listener with
    /// [`Listener::use_original_dst`].
    pub bind_to_port: bool,
    /// Hands a connection to the listener that matches its original destination: exact `ip:port`,
    /// then any-address with the port, else it stays here.
    pub use_original_dst: bool,
    /// IP_TRANSPARENT on the listening socket (TPROXY).
    pub transparent: bool,
    /// Its clients are not asked to go when the health check is told to fail
    /// (`drain_type: MODIFY_ONLY`).
    pub drains_when_modified_only: bool,
    /// IP_FREEBIND on the listening socket.
    pub freebind: bool,
    /// Listen backlog; none = 128.
    pub backlog: Option<u32>,
    /// One socket per worker by SO_REUSEPORT (Envoy's default on Linux).
    pub reuse_port: bool,
    /// Whether an IPv6 address takes IPv4 connections too.
    pub ipv4_compat: bool,
    /// Whether connections are taken beyond the limit of the whole proxy.
    pub ignore_global_conn_limit: bool,
    /// Whether the overload manager's actions are not for it.
    pub bypass_overload: bool,
    /// Raw socket options set before bind.
    pub socket_options: Vec<SocketOption>,
    /// Listener filters in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// Time for all listener filters; zero = no limit. Default 15 s.
    pub listener_filters_timeout: Duration,
    /// When that time is over: go on (true) or close (false).
    pub continue_on_listener_filters_timeout: bool,
    /// Chains in configuration order; choose by [`crate::filter_chain::Matcher`].
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Used when no chain matches.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Compiled choice between the chains.
    pub matcher: crate::filter_chain::Matcher,
    /// Loggers of connections that reach no chain, and (with Envoy's rule) of the listener.
    pub access_logs: Vec<AccessLog>,
    /// Which way traffic flows.
    pub traffic_direction: TrafficDirection,
    /// Soft limit of each buffer of a connection, bytes. Default 1 MiB.
    pub per_connection_buffer_limit: u32,
    /// TCP Fast Open queue length; none = off.
    pub tcp_fast_open_queue_length: Option<u32>,
    /// Connections to accept per loop turn; none = no limit.
    pub max_connections_per_event: Option<u32>,
    /// Skips stat and log of accepted connections when load sheds, kept for admin dumps.
    pub metadata: Metadata,
}

/// A listener filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerFilter {
    /// What it does.
    pub kind: ListenerFilterKind,
    /// Where it does not run.
    pub disabled: Option<ListenerFilterPredicate>,
}

/// Versions of the PROXY protocol that a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyVersions {
    /// Version 1, a line of text.
    pub v1: bool,
    /// Version 2, binary.
    pub v2: bool,
}

/// What a listener filter does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// Reads SO_ORIGINAL_DST (or the local address under TPROXY).
    OriginalDst,
    /// Binds upstream connections to the client's address, without its port (IP_TRANSPARENT).
    OriginalSrc {
        /// SO_MARK of upstream sockets, 0 = none.
        mark: u32,
    },
    /// Finds SNI and ALPN in a ClientHello.
    TlsInspector {
        /// First read size in bytes; none = engine's choice.
        initial_read_buffer_size: Option<u32>,
        /// JA3 asked for.
        ja3: bool,
        /// JA4 asked for.
        ja4: bool,
    },
    /// Tells HTTP/1.0, HTTP/1.1 and h2c from other plain traffic.
    HttpInspector,
    /// PROXY protocol v1 and v2.
    ProxyProtocol {
        /// Connections without the header are let through.
        allow_requests_without_proxy_protocol: bool,
        /// Which versions may be.
        versions: ProxyVersions,
    },
}

/// Where a listener filter is switched off: a tree over destination ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerFilterPredicate {
    /// Always.
    Any,
    /// Destination port in `[start, end)`.
    DestinationPort {
        /// First port.
        start: u16,
        /// One past the last port (up to 65536).
        end: u32,
    },
    /// All hold.
    And(Vec<ListenerFilterPredicate>),
    /// One holds.
    Or(Vec<ListenerFilterPredicate>),
    /// Does not hold.
    Not(Box<ListenerFilterPredicate>),
}

impl ListenerFilterPredicate {
    /// Whether the predicate holds for this destination port.
    #[must_use]
    pub fn matches(&self, destination_port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::DestinationPort { start, end } => {
                destination_port >= *start && u32::from(destination_port) < *end
            }
            Self::And(rules) => rules.iter().all(|r| r.matches(destination_port)),
            Self::Or(rules) => rules.iter().any(|r| r.matches(destination_port)),
            Self::Not(rule) => !rule.matches(destination_port),
        }
    }
}

impl Listener {
    /// All addresses, the first one first.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(&self.address).chain(&self.additional_addresses)
    }

    /// The filter of this kind that runs for the destination port, if any.
    pub fn active_filters(
        &self,
        destination_port: u16,
    ) -> impl Iterator<Item = &ListenerFilterKind> {
        self.listener_filters
            .iter()
            .filter(move |f| {
                !f.disabled
                    .as_ref()
                    .is_some_and(|d| d.matches(destination_port))
            })
            .map(|f| &f.kind)
    }
}
