//! `/debug/config_dump`: what a proxy should hold, in the shape of Envoy's own dump, so that
//! the same tools read both. Keys of certificates are left out.

use lateen_xds::{ResourceSet, ResourceType};
use lateen_xds_proto::json::{PrintOptions, from_any};
use serde_json::{Value, json};

use crate::ads::{Names, View as _};
use crate::store::ProxyView;

/// The prefix of the messages of Envoy's dump.
const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// All of a proxy's configuration.
pub fn config_dump(view: &ProxyView) -> Value {
    let (cx, everything) = (view.context(), wildcard());
    let named = |names: Vec<String>| Names {
        wildcard: false,
        names: names.into_iter().collect(),
    };
    let clusters = view.generate(ResourceType::Cluster, &everything);
    let listeners = view.generate(ResourceType::Listener, &everything);
    let routes = view.generate(
        ResourceType::Route,
        &named(lateen_xds::listener::route_names(&cx)),
    );
    let eds = named(lateen_xds::endpoint::all_names(&cx));
    let endpoints = view.generate(ResourceType::Endpoint, &eds);
    let version = &view.configuration.version;
    let listed = |set: &ResourceSet, key: &str| -> Vec<Value> {
        bodies(set)
            .map(|body| json!({"versionInfo": version, key: body}))
            .collect()
    };
    let listeners: Vec<Value> = listeners
        .iter()
        .map(|l| {
            let state = json!({"versionInfo": version, "listener": body(l)});
            json!({"name": l.name, "activeState": state})
        })
        .collect();
    json!({"configs": [
        {
            "@type": format!("{ADMIN}ClustersConfigDump"),
            "versionInfo": version,
            "dynamicActiveClusters": listed(&clusters, "cluster"),
        },
        {
            "@type": format!("{ADMIN}ListenersConfigDump"),
            "versionInfo": version,
            "dynamicListeners": listeners,
        },
        {
            "@type": format!("{ADMIN}RoutesConfigDump"),
            "dynamicRouteConfigs": listed(&routes, "routeConfig"),
        },
        {
            "@type": format!("{ADMIN}EndpointsConfigDump"),
            "dynamicEndpointConfigs": listed(&endpoints, "endpointConfig"),
        },
    ]})
}

/// The name table of a proxy.
pub fn name_table(view: &ProxyView) -> Value {
    let set = view.generate(ResourceType::NameTable, &wildcard());
    bodies(&set).next().unwrap_or_else(|| json!({}))
}

/// Extension configurations of a proxy by name. Nothing this control plane generates refers
/// to one, so the list is empty until something does.
pub fn extensions(view: &ProxyView) -> Value {
    let set = view.generate(ResourceType::Extension, &wildcard());
    set.iter()
        .map(|r| json!({"name": r.name, "version": r.version_text(), "resource": body(r)}))
        .collect()
}

fn wildcard() -> Names {
    Names {
        wildcard: true,
        ..Names::default()
    }
}

fn body(r: &lateen_xds::Resource) -> Value {
    // What we packed ourselves prints; should it not, the page says so in its place.
    from_any(&r.body, &PrintOptions::camel())
        .unwrap_or_else(|e| json!({"name": r.name, "error": e.to_string()}))
}

/// The resources of a set as JSON, `@type` first.
pub fn bodies(set: &ResourceSet) -> impl Iterator<Item = Value> {
    set.iter().map(|r| body(r))
}
