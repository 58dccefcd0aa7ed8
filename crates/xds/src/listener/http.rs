//! The connection manager of every HTTP chain.

use std::time::Duration;

use lateen_xds_proto::any::pack;
use lateen_xds_proto::envoy::config::core::v3::Http1ProtocolOptions;
use lateen_xds_proto::envoy::config::listener::v3::Filter;
use lateen_xds_proto::envoy::config::route::v3::RouteConfiguration;
use lateen_xds_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, RequestIdExtension, http_connection_manager as hcm,
};
use lateen_xds_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use lateen_xds_proto::envoy::r#type::v3::Percent;

use crate::access_log;
use crate::context::Context;
use crate::filters::{self, Side};
use crate::wire;

/// Where routes come from.
pub enum Routes {
    /// Asked for by name over the same stream.
    Named(String),
    /// Given here.
    Inline(Box<RouteConfiguration>),
}

/// The filters of an HTTP chain.
pub fn chain_filters(
    cx: &Context<'_>,
    side: Side,
    stat_prefix: &str,
    routes: Routes,
) -> Vec<Filter> {
    let mut out = filters::before_http(cx, side);
    out.push(filters::network(
        "envoy.filters.network.http_connection_manager",
        &manager(cx, side, stat_prefix, routes),
    ));
    out
}

fn manager(
    cx: &Context<'_>,
    side: Side,
    stat_prefix: &str,
    routes: Routes,
) -> HttpConnectionManager {
    let specifier = match routes {
        Routes::Named(name) => hcm::RouteSpecifier::Rds(Rds {
            config_source: Some(wire::ads()),
            route_config_name: name,
        }),
        Routes::Inline(config) => hcm::RouteSpecifier::RouteConfig(*config),
    };
    let mut m = HttpConnectionManager {
        codec_type: hcm::CodecType::Auto as i32,
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(specifier),
        http_filters: filters::http(cx, side),
        access_log: access_log::access_logs(cx),
        use_remote_address: wire::bool_value(side == Side::Gateway),
        normalize_path: wire::bool_value(true),
        stream_idle_timeout: wire::duration(Duration::ZERO),
        proxy_100_continue: true,
        upgrade_configs: vec![hcm::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..hcm::UpgradeConfig::default()
        }],
        tracing: tracing(cx),
        request_id_extension: cx.key.supports("envoy.request_id.uuid").then(|| {
            let config = UuidRequestIdConfig {
                use_request_id_for_trace_sampling: wire::bool_value(true),
                ..UuidRequestIdConfig::default()
            };
            RequestIdExtension {
                typed_config: Some(pack(&config)),
            }
        }),
        ..HttpConnectionManager::default()
    };
    if cx.key.http10 {
        m.http_protocol_options = Some(Http1ProtocolOptions {
            accept_http_10: true,
            ..Http1ProtocolOptions::default()
        });
    }
    if side != Side::Outbound {
        m.server_name = "istio-envoy".to_owned();
        certificate_details(&mut m, side);
    }
    m
}

/// What is told to the workload about the client's certificate: added to what the chain
/// before says inside the mesh, replaced at the edge.
fn certificate_details(m: &mut HttpConnectionManager, side: Side) {
    let forward = match side {
        Side::Gateway => hcm::ForwardClientCertDetails::SanitizeSet,
        _ => hcm::ForwardClientCertDetails::AppendForward,
    };
    m.forward_client_cert_details = forward as i32;
    m.set_current_client_cert_details = Some(hcm::SetCurrentClientCertDetails {
        subject: wire::bool_value(true),
        cert: side == Side::Gateway,
        dns: true,
        uri: true,
        ..hcm::SetCurrentClientCertDetails::default()
    });
}

fn tracing(cx: &Context<'_>) -> Option<hcm::Tracing> {
    let mesh = &cx.snapshot.mesh;
    let percent = |value: f64| Some(Percent { value });
    mesh.enable_tracing.then(|| hcm::Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(mesh.default_config.sampling.unwrap_or(1.0)),
        overall_sampling: percent(100.0),
        ..hcm::Tracing::default()
    })
}
