//! The PROXY protocol towards upstreams: a transport socket around another one.
use lateen_xds_proto::envoy::config::cluster::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use super::{type_name, typed};
use crate::error::{At, Result, refuse, refuse_set};

const UPSTREAM: &str =
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";

/// The version of the protocol that a cluster's endpoints are told in, and the transport below; none
/// where they are not.
pub(super) fn upstream(m: &pb::Cluster) -> Result<Option<(u8, Option<core::TransportSocket>)>> {
    use core::transport_socket::ConfigType;
    let socket = m.transport_socket.as_ref();
    let Some(ConfigType::TypedConfig(any)) = socket.and_then(|s| s.config_type.as_ref()) else {
        return Ok(None);
    };
    if type_name(any)? != UPSTREAM {
        return Ok(None);
    }
    if !m.transport_socket_matches.is_empty() {
        return refuse("is not implemented beside transport_socket_matches").at("typed_config");
    }
    let wrapped: ProxyProtocolUpstreamTransport = typed(any).at("typed_config")?;
    let version = version(&wrapped).at("typed_config")?;
    Ok(Some((version, wrapped.transport_socket)))
}

fn version(m: &ProxyProtocolUpstreamTransport) -> Result<u8> {
    use core::proxy_protocol_config::Version as V;
    let ProxyProtocolUpstreamTransport {
        config,
        transport_socket,
        allow_unspecified_address,
        tlv_as_pool_key,
    } = m;
    refuse_set(&[
        (*allow_unspecified_address, "allow_unspecified_address"),
        (*tlv_as_pool_key, "tlv_as_pool_key"),
    ])?;
    if transport_socket.is_none() {
        return refuse("is required").at("transport_socket");
    }
    let core::ProxyProtocolConfig {
        version,
        pass_through_tlvs,
        added_tlvs,
    } = config.clone().unwrap_or_default();
    refuse_set(&[
        (pass_through_tlvs.is_some(), "pass_through_tlvs"),
        (!added_tlvs.is_empty(), "added_tlvs"),
    ])
    .at("config")?;
    match V::try_from(version) {
        Ok(V::V1) => Ok(1),
        Ok(V::V2) => Ok(2),
        Err(_) => refuse("must be V1 or V2").at("config.version"),
    }
}
