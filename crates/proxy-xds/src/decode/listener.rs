//! Listeners, listener filters, filter chains.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::address::{SocketOption, SocketOptionValue};
use lateen_proxy_core::config::filter_chain::{FilterChain, FilterChainMatch, SourceType};
use lateen_proxy_core::config::listener::{
    Listener, ListenerFilter, ListenerFilterKind, ListenerFilterPredicate, ProxyVersions,
    TrafficDirection,
};
use lateen_proxy_core::config::{Address, DownstreamTls, Name};
use lateen_proxy_core::filter_chain::Matcher;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::listener::v3 as pb;
use lateen_xds_proto::envoy::extensions::filters::listener::{
    original_src::v3 as original_src, proxy_protocol::v3 as proxy_protocol,
    tls_inspector::v3 as tls_inspector,
};

use super::common::{
    self, bool_or, cidr, metadata, need, opt_duration, port, socket_option, timeout, u32_of,
};
use super::{Collected, access_log, network_filter, tls, type_name, typed};
use crate::error::{At, Result, list, refuse, refuse_set};

const MIB: u32 = 1 << 20;

pub(super) fn listener(m: &pb::Listener, c: &Collected<'_>) -> Result<Listener> {
    // `enable_reuse_port: false` and `max_connections_to_accept_per_socket_event` change how accepts
    // spread over workers, nothing that a client sees; every worker has its own socket here.
    refuse_set(&[
        (m.fcds_config.is_some(), "fcds_config"),
        (m.filter_chain_matcher.is_some(), "filter_chain_matcher"),
        (m.udp_listener_config.is_some(), "udp_listener_config"),
        (m.api_listener.is_some(), "api_listener"),
        (m.listener_specifier.is_some(), "internal_listener"),
        (m.enable_mptcp, "enable_mptcp"),
        (m.stats_matcher.is_some(), "stats_matcher"),
        (
            m.per_connection_buffer_high_watermark_timeout.is_some(),
            "per_connection_buffer_high_watermark_timeout",
        ),
        // Every worker has a socket of its own, which balances exactly.
        (
            m.connection_balance_config.as_ref().is_some_and(extended),
            "connection_balance_config.extend_balance",
        ),
    ])?;
    let (address, ipv4_compat) = own_address(need(m.address.as_ref(), "address")?).at("address")?;
    let filter_chains = list(&m.filter_chains, "filter_chains", |f| {
        chain(f, c).map(Arc::new)
    })?;
    no_twins(&filter_chains)?;
    let default_filter_chain = m
        .default_filter_chain
        .as_ref()
        .map(|f| chain(f, c).map(Arc::new))
        .transpose()
        .at("default_filter_chain")?;
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        return refuse("no filter chains specified").at("filter_chains");
    }
    let bind = m
        .deprecated_v1
        .as_ref()
        .and_then(|d| d.bind_to_port.as_ref())
        .or(m.bind_to_port.as_ref());
    let stat = if m.stat_prefix.is_empty() {
        address.to_string().replace(':', "_")
    } else {
        m.stat_prefix.clone()
    };
    let name = if m.name.is_empty() {
        address.to_string()
    } else {
        m.name.clone()
    };
    Ok(Listener {
        name: name.into(),
        stat_prefix: stat.into(),
        address,
        additional_addresses: list(&m.additional_addresses, "additional_addresses", |a| {
            refuse_set(&[
                (a.socket_options.is_some(), "socket_options"),
                (a.tcp_keepalive.is_some(), "tcp_keepalive"),
            ])?;
            can_be_opened(need(a.address.as_ref(), "address")?).at("address")
        })?,
        bind_to_port: bool_or(bind, true),
        use_original_dst: bool_or(m.use_original_dst.as_ref(), false),
        transparent: bool_or(m.transparent.as_ref(), false),
        drains_when_modified_only: m.drain_type == pb::listener::DrainType::ModifyOnly as i32,
        freebind: bool_or(m.freebind.as_ref(), false),
        backlog: u32_of(m.tcp_backlog_size.as_ref()),
        reuse_port: bool_or(m.enable_reuse_port.as_ref(), true),
        ipv4_compat,
        ignore_global_conn_limit: m.ignore_global_conn_limit || m.bypass_overload_manager,
        bypass_overload: m.bypass_overload_manager,
        socket_options: {
            let mut options = keepalive(m.tcp_keepalive.as_ref());
            options.extend(list(&m.socket_options, "socket_options", socket_option)?);
            options
        },
        listener_filters: list(&m.listener_filters, "listener_filters", listener_filter)?,
        listener_filters_timeout: opt_duration(
            m.listener_filters_timeout.as_ref(),
            "listener_filters_timeout",
        )?
        .unwrap_or(Duration::from_secs(15)),
        continue_on_listener_filters_timeout: m.continue_on_listener_filters_timeout,
        matcher: Matcher::new(&filter_chains),
        filter_chains,
        default_filter_chain,
        access_logs: access_log::loggers(&m.access_log, c.context)?,
        traffic_direction: match core::TrafficDirection::try_from(m.traffic_direction) {
            Ok(core::TrafficDirection::Inbound) => TrafficDirection::Inbound,
            Ok(core::TrafficDirection::Outbound) => TrafficDirection::Outbound,
            _ => TrafficDirection::Unspecified,
        },
        per_connection_buffer_limit: u32_of(m.per_connection_buffer_limit_bytes.as_ref())
            .unwrap_or(MIB),
        tcp_fast_open_queue_length: u32_of(m.tcp_fast_open_queue_length.as_ref()),
        max_connections_per_event: u32_of(m.max_connections_to_accept_per_socket_event.as_ref()),
        metadata: metadata(m.metadata.as_ref()),
    })
}

fn extended(m: &pb::listener::ConnectionBalanceConfig) -> bool {
    use pb::listener::connection_balance_config::BalanceType as B;
    matches!(m.balance_type, Some(B::ExtendBalance(_)))
}

/// An address that a listener of ours can stand on; other kinds are refused whatever they hold.
fn can_be_opened(m: &core::Address) -> Result<Address> {
    use core::address::Address as A;
    match &m.address {
        Some(A::Pipe(_)) => {
            return refuse(
                "a listener on a Unix socket is not implemented; a port on 127.0.0.1 is",
            )
            .at("pipe");
        }
        Some(A::EnvoyInternalAddress(_)) => {
            return refuse(
                "a listener has no internal address; internal_listener is not implemented",
            )
            .at("envoy_internal_address");
        }
        Some(A::SocketAddress(_)) | None => {}
    }
    let address = common::address(m)?;
    match &address {
        Address::Host { host, .. } => {
            refuse(format!("`{host}` is no IP address")).at("socket_address.address")
        }
        _ => Ok(address),
    }
}

/// The address to listen on, and whether an IPv6 one takes IPv4 connections too.
fn own_address(m: &core::Address) -> Result<(Address, bool)> {
    let mut plain = m.clone();
    let Some(core::address::Address::SocketAddress(socket)) = &mut plain.address else {
        return Ok((can_be_opened(m)?, false));
    };
    let compat = std::mem::take(&mut socket.ipv4_compat);
    let address = can_be_opened(&plain)?;
    match address {
        Address::Socket(SocketAddr::V6(_)) => Ok((address, compat)),
        _ if compat => refuse("needs an IPv6 address").at("socket_address.ipv4_compat"),
        _ => Ok((address, false)),
    }
}

/// Probes of idle connections as options of the listening socket; accepted ones inherit them.
fn keepalive(m: Option<&core::TcpKeepalive>) -> Vec<SocketOption> {
    // Linux: SOL_SOCKET and SO_KEEPALIVE; IPPROTO_TCP and its three options.
    const SOCKET: i32 = 1;
    const ON: i32 = 9;
    const TCP: i32 = 6;
    const IDLE: i32 = 4;
    const INTERVAL: i32 = 5;
    const COUNT: i32 = 6;
    let Some(m) = m else { return Vec::new() };
    let option = |level, name, value: u32| SocketOption {
        level,
        name,
        value: SocketOptionValue::Int(i32::try_from(value).unwrap_or(i32::MAX)),
    };
    let given = |value: Option<&_>, name| u32_of(value).map(|v| option(TCP, name, v));
    let on = std::iter::once(option(SOCKET, ON, 1));
    on.chain(given(m.keepalive_probes.as_ref(), COUNT))
        .chain(given(m.keepalive_time.as_ref(), IDLE))
        .chain(given(m.keepalive_interval.as_ref(), INTERVAL))
        .collect()
}

fn no_twins(chains: &[Arc<FilterChain>]) -> Result<()> {
    for (i, a) in chains.iter().enumerate() {
        for b in &chains[..i] {
            if a.matching == b.matching {
                return refuse(format!(
                    "filter chain '{}' has the same matching rules defined as '{}'",
                    a.name, b.name
                ))
                .item("filter_chains", i);
            }
        }
    }
    Ok(())
}

fn chain(m: &pb::FilterChain, c: &Collected<'_>) -> Result<FilterChain> {
    if bool_or(m.use_proxy_proto.as_ref(), false) {
        return refuse("is not implemented; use the proxy_protocol listener filter")
            .at("use_proxy_proto");
    }
    Ok(FilterChain {
        name: m.name.as_str().into(),
        matching: m
            .filter_chain_match
            .as_ref()
            .map_or(Ok(FilterChainMatch::default()), chain_match)
            .at("filter_chain_match")?,
        tls: downstream_transport(m.transport_socket.as_ref(), c).at("transport_socket")?,
        filters: network_filter::filters(&m.filters, c)?,
        transport_socket_connect_timeout: timeout(
            m.transport_socket_connect_timeout.as_ref(),
            "transport_socket_connect_timeout",
            None,
        )?,
        metadata: metadata(m.metadata.as_ref()),
    })
}

fn chain_match(m: &pb::FilterChainMatch) -> Result<FilterChainMatch> {
    refuse_set(&[
        (!m.address_suffix.is_empty(), "address_suffix"),
        (m.suffix_len.is_some(), "suffix_len"),
    ])?;
    let server_names = list(&m.server_names, "server_names", |n| {
        let star = n.matches('*').count();
        if n.is_empty() || star > 1 || (star == 1 && !n.starts_with("*.") && n != "*") {
            return refuse(format!(
                "`{n}`: partial wildcards are not supported in server names"
            ));
        }
        Ok(Name::from(n.to_ascii_lowercase()))
    })?;
    Ok(FilterChainMatch {
        destination_port: m
            .destination_port
            .as_ref()
            .map(|p| match p.value {
                0 => refuse("must be 1 to 65535"),
                value => port(value),
            })
            .transpose()
            .at("destination_port")?,
        prefix_ranges: list(&m.prefix_ranges, "prefix_ranges", cidr)?,
        server_names,
        transport_protocol: m.transport_protocol.as_str().into(),
        application_protocols: m
            .application_protocols
            .iter()
            .map(|p| p.as_str().into())
            .collect(),
        direct_source_prefix_ranges: list(
            &m.direct_source_prefix_ranges,
            "direct_source_prefix_ranges",
            cidr,
        )?,
        source_type: match pb::filter_chain_match::ConnectionSourceType::try_from(m.source_type) {
            Ok(pb::filter_chain_match::ConnectionSourceType::SameIpOrLoopback) => {
                SourceType::SameIpOrLoopback
            }
            Ok(pb::filter_chain_match::ConnectionSourceType::External) => SourceType::External,
            _ => SourceType::Any,
        },
        source_prefix_ranges: list(&m.source_prefix_ranges, "source_prefix_ranges", cidr)?,
        source_ports: list(&m.source_ports, "source_ports", |p| port(*p))?,
    })
}

fn downstream_transport(
    m: Option<&core::TransportSocket>,
    c: &Collected<'_>,
) -> Result<Option<Arc<DownstreamTls>>> {
    let Some(m) = m else { return Ok(None) };
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = &m.config_type else {
        return match m.name.as_str() {
            "envoy.transport_sockets.raw_buffer" | "raw_buffer" => Ok(None),
            name => refuse(format!("transport socket {name} needs a typed_config")),
        };
    };
    match type_name(any)?.as_str() {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(None),
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            let tls = typed(any)
                .and_then(|t| tls::downstream(&t, c))
                .at("typed_config")?;
            Ok(Some(Arc::new(tls)))
        }
        other => refuse(format!(
            "transport socket {other} ({}) is not implemented",
            m.name
        ))
        .at("typed_config"),
    }
}

fn listener_filter(m: &pb::ListenerFilter) -> Result<ListenerFilter> {
    let any = match &m.config_type {
        Some(pb::listener_filter::ConfigType::TypedConfig(any)) => any,
        Some(pb::listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return refuse(format!("filter {}: ECDS is not implemented", m.name))
                .at("config_discovery");
        }
        None => return refuse("is required").at("typed_config"),
    };
    let name = type_name(any)?;
    let kind = match name.as_str() {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            ListenerFilterKind::OriginalDst
        }
        "envoy.extensions.filters.listener.original_src.v3.OriginalSrc" => {
            let t: original_src::OriginalSrc = typed(any).at("typed_config")?;
            // Envoy reads the field and binds no port either.
            refuse_set(&[(t.bind_port, "bind_port")]).at("typed_config")?;
            ListenerFilterKind::OriginalSrc { mark: t.mark }
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            ListenerFilterKind::HttpInspector
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let t: tls_inspector::TlsInspector = typed(any).at("typed_config")?;
            refuse_set(&[
                (
                    bool_or(t.enable_ja3_fingerprinting.as_ref(), false),
                    "enable_ja3_fingerprinting",
                ),
                (
                    bool_or(t.enable_ja4_fingerprinting.as_ref(), false),
                    "enable_ja4_fingerprinting",
                ),
                (
                    t.close_connection_on_client_hello_parsing_errors,
                    "close_connection_on_client_hello_parsing_errors",
                ),
                (t.max_client_hello_size.is_some(), "max_client_hello_size"),
            ])
            .at("typed_config")?;
            ListenerFilterKind::TlsInspector {
                initial_read_buffer_size: u32_of(t.initial_read_buffer_size.as_ref()),
                ja3: bool_or(t.enable_ja3_fingerprinting.as_ref(), false),
                ja4: bool_or(t.enable_ja4_fingerprinting.as_ref(), false),
            }
        }
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
            let p: proxy_protocol::ProxyProtocol = typed(any).at("typed_config")?;
            if !p.rules.is_empty() {
                return refuse("is not implemented").at("rules").at("typed_config");
            }
            // TLVs to pass through reach an upstream by a PROXY header of our own alone.
            refuse_set(&[(p.pass_through_tlvs.is_some(), "pass_through_tlvs")])
                .at("typed_config")?;
            let lacks = |version: i32| !p.disallowed_versions.contains(&version);
            ListenerFilterKind::ProxyProtocol {
                allow_requests_without_proxy_protocol: p.allow_requests_without_proxy_protocol,
                versions: ProxyVersions {
                    v1: lacks(0),
                    v2: lacks(1),
                },
            }
        }
        other => {
            return refuse(format!(
                "listener filter {other} ({}) is not implemented",
                m.name
            ))
            .at("typed_config");
        }
    };
    let disabled = m
        .filter_disabled
        .as_ref()
        .map(predicate)
        .transpose()
        .at("filter_disabled")?;
    Ok(ListenerFilter { kind, disabled })
}

fn predicate(m: &pb::ListenerFilterChainMatchPredicate) -> Result<ListenerFilterPredicate> {
    use pb::listener_filter_chain_match_predicate::Rule as R;
    Ok(match m.rule.as_ref() {
        Some(R::OrMatch(set)) => {
            ListenerFilterPredicate::Or(list(&set.rules, "or_match.rules", predicate)?)
        }
        Some(R::AndMatch(set)) => {
            ListenerFilterPredicate::And(list(&set.rules, "and_match.rules", predicate)?)
        }
        Some(R::NotMatch(rule)) => {
            ListenerFilterPredicate::Not(Box::new(predicate(rule).at("not_match")?))
        }
        Some(R::AnyMatch(true)) => ListenerFilterPredicate::Any,
        Some(R::AnyMatch(false)) => return refuse("must be true").at("any_match"),
        Some(R::DestinationPortRange(r)) => {
            let start = u16::try_from(r.start).ok();
            let end = u32::try_from(r.end).ok().filter(|e| *e <= 65536);
            match (start, end) {
                (Some(start), Some(end)) => ListenerFilterPredicate::DestinationPort { start, end },
                _ => {
                    return refuse("ports are 0 to 65535, the end is exclusive")
                        .at("destination_port_range");
                }
            }
        }
        None => return refuse("a rule is required"),
    })
}
