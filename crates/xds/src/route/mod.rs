//! RDS: `sidecar` and `gateway` gather virtual hosts, `rule` turns a virtual service's HTTP
//! rules into routes with `matching` and `action`, `l4` does the same for TCP and TLS rules.

use std::sync::Arc;
use std::time::Duration;

use lateen_model::Protocol;
use lateen_xds_proto::envoy::config::route::v3::{
    Decorator, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
    route_action, route_match,
};

use crate::context::{Context, Serves};
use crate::fingerprint::resource;
use crate::names;
use crate::resource::Resource;
use crate::wire;

mod action;
mod domains;
mod gateway;
pub mod l4;
mod matching;
mod retry;
mod rule;
mod sidecar;

/// A direct response's body may be this long.
const MAX_DIRECT_BODY: u32 = 1024 * 1024;

/// Routes by name. An unknown name gets an empty configuration: a listener that asks in the
/// middle of a change must not wait.
pub fn by_name(cx: &Context<'_>, name: &str) -> Arc<Resource> {
    let hosts = if cx.is_gateway() {
        gateway::virtual_hosts(cx, name)
    } else {
        sidecar::virtual_hosts(cx, name)
    };
    resource(configuration(name, hosts))
}

fn configuration(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: wire::bool_value(false),
        ignore_port_in_host_matching: true,
        max_direct_response_body_size_bytes: wire::u32_value(MAX_DIRECT_BODY),
        ..RouteConfiguration::default()
    }
}

/// The routes of an inbound chain: everything to the own workload.
pub fn inbound(s: &Serves, protocol: Protocol) -> RouteConfiguration {
    let name = names::inbound(s.target_port);
    let operation = format!("{}:{}/*", s.service.hostname, s.port.number);
    let mut action = forward(&name);
    // A gRPC client sees a reset as a status of its own and retries by itself.
    if !matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb) {
        action.retry_policy = Some(retry::inbound());
    }
    let mut config = configuration(
        &name,
        vec![VirtualHost {
            name: format!("inbound|http|{}", s.port.number),
            domains: vec!["*".to_owned()],
            routes: vec![plain_route(action, &operation)],
            ..VirtualHost::default()
        }],
    );
    // These two settings are about routes from users; nothing here is.
    config.ignore_port_in_host_matching = false;
    config.max_direct_response_body_size_bytes = None;
    config
}

/// The routes of HTTP to ports that no service declares.
pub fn inbound_passthrough() -> RouteConfiguration {
    let action = forward(names::INBOUND_PASSTHROUGH);
    RouteConfiguration {
        name: names::INBOUND_PASSTHROUGH.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "inbound|http|0".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![plain_route(action, ":0/*")],
            ..VirtualHost::default()
        }],
        validate_clusters: wire::bool_value(false),
        ..RouteConfiguration::default()
    }
}

/// Forwards to a cluster without a time limit.
#[expect(
    deprecated,
    reason = "max_grpc_timeout is what Istio's tools read; Envoy still takes it"
)]
fn forward(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: wire::duration(Duration::ZERO),
        max_grpc_timeout: wire::duration(Duration::ZERO),
        ..RouteAction::default()
    }
}

/// The route named `default`: every path.
fn plain_route(action: RouteAction, operation: &str) -> Route {
    Route {
        name: "default".to_owned(),
        r#match: Some(any_path()),
        decorator: Some(Decorator {
            operation: operation.to_owned(),
            propagate: None,
        }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    }
}

fn any_path() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    }
}
