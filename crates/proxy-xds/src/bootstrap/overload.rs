//! Of a bootstrap's overload manager the limit on downstream connections; other monitors and all
//! actions are refused.

use lateen_xds_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_xds_proto::envoy::config::overload::v3 as pb;
use lateen_xds_proto::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;

use crate::error::{At, Result, refuse, refuse_set};

/// The limit on connections, of the last monitor of them.
///
/// # Errors
/// Actions, load shed points and monitors of anything else.
pub(super) fn connections(m: &Bootstrap) -> Result<Option<u32>> {
    let Some(m) = &m.overload_manager else {
        return Ok(None);
    };
    refuse_set(&[
        (!m.actions.is_empty(), "actions"),
        (!m.loadshed_points.is_empty(), "loadshed_points"),
        (m.buffer_factory_config.is_some(), "buffer_factory_config"),
    ])?;
    let mut most = None;
    for (i, one) in m.resource_monitors.iter().enumerate() {
        most = Some(monitor(one).item("resource_monitors", i)?);
    }
    Ok(most)
}

fn monitor(m: &pb::ResourceMonitor) -> Result<u32> {
    let Some(pb::resource_monitor::ConfigType::TypedConfig(any)) = &m.config_type else {
        return refuse("is required").at("typed_config");
    };
    if !lateen_xds_proto::any::is::<DownstreamConnectionsConfig>(any) {
        return refuse(format!("resource monitor {} is not implemented", m.name))
            .at("typed_config");
    }
    let config: DownstreamConnectionsConfig =
        lateen_xds_proto::any::unpack(any).at("typed_config")?;
    match u32::try_from(config.max_active_downstream_connections) {
        Ok(most @ 1..) => Ok(most),
        Err(_) if config.max_active_downstream_connections > 0 => Ok(u32::MAX),
        _ => refuse("must be at least 1")
            .at("max_active_downstream_connections")
            .at("typed_config"),
    }
}
