//! The `configs` of `/config_dump` in Envoy's shape: bootstrap, clusters, listeners, routes, secrets
//! and, when asked for, endpoints. Keys are redacted.
use std::collections::BTreeMap;

use lateen_proxy_core::access_log::write_iso8601_ms;
use lateen_proxy_core::config::{Cluster, ClusterDiscovery, Name, Secret};
use lateen_xds_proto::type_url::message_name;
use lateen_xds_proto::{any, json};
use serde_json::{Map, Value, json};

use crate::ads::Handle;
use crate::decode::own_name;
use crate::kind::Kind;
use crate::world::{Held, Refused, World};

/// base64 of `[redacted]`.
const REDACTED_BYTES: &str = "W3JlZGFjdGVkXQ==";
const REDACTED: &str = "[redacted]";

impl Handle {
    /// The node as the management server sees it, for `/server_info`.
    #[must_use]
    pub fn node_json(&self) -> Value {
        json::from_message(&self.loaded.node).unwrap_or_else(|e| json!({ "error": e.to_string() }))
    }

    /// The `configs` list. `include_eds` adds the endpoints.
    #[must_use]
    pub fn config_dump(&self, include_eds: bool) -> Value {
        let world = self.world();
        let mut configs = vec![
            bootstrap(&self.loaded.wire(), world.started_ms()),
            clusters(&world),
        ];
        if include_eds {
            configs.push(endpoints(&world));
        }
        configs.push(listeners(&world));
        configs.push(json!({ "@type": admin_type("ScopedRoutesConfigDump") }));
        configs.push(routes(&world));
        configs.push(secrets(&world));
        configs.iter_mut().for_each(redact);
        Value::Array(configs)
    }
}

fn admin_type(name: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{name}")
}

fn time(unix_ms: u64) -> Value {
    let mut out = Vec::new();
    write_iso8601_ms(unix_ms.saturating_mul(1_000_000), &mut out);
    String::from_utf8_lossy(&out).into_owned().into()
}

/// A message as JSON with its `@type`.
fn message(type_url: &str, raw: &[u8]) -> Value {
    let any = any::pack_wire(message_name(type_url), raw.to_vec());
    json::from_any(&any, &json::PrintOptions::default())
        .unwrap_or_else(|e| json!({ "@type": type_url, "error": e.to_string() }))
}

/// An entry: `{version_info, <field>: {...}, last_updated}`.
fn entry<T>(field: &str, kind: Kind, held: &Held<T>) -> Value {
    let mut out = Map::new();
    if !held.version.is_empty() {
        out.insert("version_info".into(), held.version.to_string().into());
    }
    out.insert(field.into(), message(kind.type_url(), &held.raw));
    out.insert("last_updated".into(), time(held.updated_ms));
    Value::Object(out)
}

fn error_state(kind: Kind, refused: &Refused) -> Value {
    json!({
        "failed_configuration": message(kind.type_url(), &refused.raw),
        "last_update_attempt": time(refused.at_ms),
        "details": refused.error,
        "version_info": refused.version.to_string(),
    })
}

/// Leaves empty lists out, as protobuf's JSON does.
fn section(type_name: &str, version: Option<&str>, lists: Vec<(&str, Vec<Value>)>) -> Value {
    let mut out = Map::new();
    out.insert("@type".into(), admin_type(type_name).into());
    if let Some(version) = version.filter(|v| !v.is_empty()) {
        out.insert("version_info".into(), version.into());
    }
    for (name, list) in lists {
        if !list.is_empty() {
            out.insert(name.into(), Value::Array(list));
        }
    }
    Value::Object(out)
}

fn bootstrap(raw: &[u8], started_ms: u64) -> Value {
    let mut bootstrap = message(lateen_xds_proto::type_url::BOOTSTRAP, raw);
    if let Some(map) = bootstrap.as_object_mut() {
        map.remove("@type");
    }
    json!({
        "@type": admin_type("BootstrapConfigDump"),
        "bootstrap": bootstrap,
        "last_updated": time(started_ms),
    })
}

fn clusters(world: &World) -> Value {
    let set = &world.clusters;
    let fixed = set
        .fixed()
        .into_iter()
        .map(|(_, h)| entry("cluster", Kind::Cluster, h))
        .collect();
    let dynamic = |map: &BTreeMap<Name, Held<Cluster>>| -> Vec<Value> {
        map.iter()
            .filter(|(_, h)| !h.fixed)
            .map(|(_, h)| entry("cluster", Kind::Cluster, h))
            .collect()
    };
    let mut active = dynamic(&set.active);
    let warming = dynamic(&set.warming);
    // A refused cluster shows beside the one that serves on under its name.
    for ((kind, name), refused) in world
        .refused
        .iter()
        .filter(|((k, _), _)| *k == Kind::Cluster)
    {
        let state = error_state(*kind, refused);
        match active
            .iter_mut()
            .find(|e| e.pointer("/cluster/name").and_then(Value::as_str) == Some(name))
        {
            Some(entry) => entry["error_state"] = state,
            None => active.push(json!({ "error_state": state })),
        }
    }
    section(
        "ClustersConfigDump",
        world.version(Kind::Cluster),
        vec![
            ("static_clusters", fixed),
            ("dynamic_active_clusters", active),
            ("dynamic_warming_clusters", warming),
        ],
    )
}

fn listeners(world: &World) -> Value {
    let set = &world.listeners;
    let fixed = set
        .fixed()
        .into_iter()
        .map(|(_, h)| entry("listener", Kind::Listener, h))
        .collect();
    let refused = world
        .refused
        .iter()
        .filter(|((k, _), _)| *k == Kind::Listener);
    let mut names: Vec<_> = set
        .active
        .keys()
        .chain(set.warming.keys())
        .chain(refused.map(|((_, n), _)| n))
        .filter(|n| !set.is_fixed(n))
        .collect();
    names.sort();
    names.dedup();
    let dynamic = names
        .into_iter()
        .map(|name| {
            let mut out = Map::new();
            out.insert("name".into(), name.to_string().into());
            if let Some(held) = set.active.get(name) {
                out.insert(
                    "active_state".into(),
                    entry("listener", Kind::Listener, held),
                );
            }
            if let Some(held) = set.warming.get(name) {
                out.insert(
                    "warming_state".into(),
                    entry("listener", Kind::Listener, held),
                );
            }
            if let Some(refused) = world.refused.get(&(Kind::Listener, name.clone())) {
                out.insert("error_state".into(), error_state(Kind::Listener, refused));
            }
            Value::Object(out)
        })
        .collect();
    section(
        "ListenersConfigDump",
        world.version(Kind::Listener),
        vec![("static_listeners", fixed), ("dynamic_listeners", dynamic)],
    )
}

fn routes(world: &World) -> Value {
    let dynamic = world
        .routes
        .values()
        .map(|h| entry("route_config", Kind::Routes, h))
        .collect();
    // Tables inside connection managers count as static ones.
    let mut fixed = Vec::new();
    for held in world.listeners.active.values() {
        let mut found = Vec::new();
        inline_routes(&message(Kind::Listener.type_url(), &held.raw), &mut found);
        for table in found {
            fixed.push(json!({ "route_config": table, "last_updated": time(held.updated_ms) }));
        }
    }
    section(
        "RoutesConfigDump",
        None,
        vec![
            ("static_route_configs", fixed),
            ("dynamic_route_configs", dynamic),
        ],
    )
}

fn inline_routes(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(table)) = map.get("route_config") {
                let mut typed = Map::new();
                typed.insert("@type".into(), Kind::Routes.type_url().into());
                typed.extend(table.clone());
                found.push(Value::Object(typed));
            }
            map.values().for_each(|v| inline_routes(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| inline_routes(v, found)),
        _ => {}
    }
}

fn secrets(world: &World) -> Value {
    let list = |map: &BTreeMap<Name, Held<Secret>>| -> Vec<Value> {
        map.iter()
            .map(|(name, held)| {
                let mut out = json!({ "name": own_name(name) });
                if let (Some(out), Value::Object(rest)) =
                    (out.as_object_mut(), entry("secret", Kind::Secret, held))
                {
                    out.extend(rest);
                }
                out
            })
            .collect()
    };
    section(
        "SecretsConfigDump",
        None,
        vec![
            ("static_secrets", list(&world.secrets.fixed)),
            ("dynamic_active_secrets", list(&world.secrets.active)),
        ],
    )
}

fn endpoints(world: &World) -> Value {
    let mut fixed = Vec::new();
    let mut dynamic = Vec::new();
    for (name, held) in &world.clusters.active {
        match &held.value.discovery {
            ClusterDiscovery::Eds { service_name } => {
                if let Some(e) = world.endpoints.get(service_name) {
                    dynamic.push(endpoint_entry(
                        &e.value.cluster_name,
                        message(Kind::Endpoints.type_url(), &e.raw),
                        e,
                    ));
                }
            }
            _ if held.value.load_assignment.is_some() => {
                let cluster = message(Kind::Cluster.type_url(), &held.raw);
                let assignment = cluster.get("load_assignment").cloned().unwrap_or_default();
                fixed.push(endpoint_entry(name, assignment, held));
            }
            _ => {}
        }
    }
    section(
        "EndpointsConfigDump",
        None,
        vec![
            ("static_endpoint_configs", fixed),
            ("dynamic_endpoint_configs", dynamic),
        ],
    )
}

/// Endpoints as Envoy prints them: with the health status and the over-provisioning factor.
fn endpoint_entry<T>(cluster: &str, mut assignment: Value, held: &Held<T>) -> Value {
    if let Some(map) = assignment.as_object_mut() {
        map.insert("@type".into(), Kind::Endpoints.type_url().into());
        map.entry("cluster_name").or_insert_with(|| cluster.into());
        let policy = map.entry("policy").or_insert_with(|| json!({}));
        if policy.get("overprovisioning_factor").is_none() {
            policy["overprovisioning_factor"] = 140.into();
        }
    }
    let hosts = assignment
        .get_mut("endpoints")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(|l| l.get_mut("lb_endpoints")?.as_array_mut())
        .flatten();
    for host in hosts {
        if let Some(map) = host.as_object_mut() {
            map.entry("health_status")
                .or_insert_with(|| "HEALTHY".into());
            map.entry("load_balancing_weight")
                .or_insert_with(|| 1.into());
        }
    }
    json!({ "endpoint_config": assignment, "last_updated": time(held.updated_ms) })
}

/// Hides keys, passwords, ticket keys and generic secrets wherever they stand.
fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match key.as_str() {
                    "private_key" | "password" | "pkcs12" | "secret" | "secrets" | "keys"
                        if hides(inner) => {}
                    _ => redact(inner),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Replaces the inline content of a data source, or of each in a list or map; false where the value
/// is none.
fn hides(value: &mut Value) -> bool {
    match value {
        Value::Object(map)
            if ["inline_bytes", "inline_string", "filename"]
                .iter()
                .any(|source| map.contains_key(*source)) =>
        {
            if let Some(name) = map.get_mut("filename") {
                *name = REDACTED.into();
            }
            if let Some(bytes) = map.get_mut("inline_bytes") {
                *bytes = REDACTED_BYTES.into();
            }
            if let Some(text) = map.get_mut("inline_string") {
                *text = REDACTED.into();
            }
            true
        }
        Value::Array(list) => !list.is_empty() && list.iter_mut().all(hides),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ads::{Options, start};
    use crate::bootstrap::{Overrides, Source, load};
    use crate::decode::Context;

    const BOOTSTRAP: &str = r#"
node: { id: n, cluster: c }
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 15000 } } }
static_resources:
  secrets:
  - name: s
    generic_secret: { secret: { inline_string: TOPSECRET } }
  clusters:
  - name: local
    type: STATIC
    load_assignment:
      cluster_name: local
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 1 } } } }] }]
  listeners:
  - name: l
    address: { socket_address: { address: 0.0.0.0, port_value: 80 } }
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          route_config:
            name: inline
            virtual_hosts: [{ name: v, domains: ["*"], routes: [{ match: { prefix: / }, route: { cluster: local } }] }]
          http_filters:
          - name: router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
"#;

    #[test]
    fn sections_in_envoys_shape() {
        let loaded = load(
            &[Source {
                name: "b.yaml",
                text: BOOTSTRAP,
            }],
            &Overrides::default(),
        )
        .unwrap();
        let (handle, _client) = start(loaded, Context::empty(), Options::default()).unwrap();
        let snapshot = handle.snapshots.borrow().clone();
        assert!(snapshot.initialized);
        assert!(snapshot.listeners.contains_key("l") && snapshot.secrets.contains_key("s"));
        let dump = handle.config_dump(true);
        let types: Vec<_> = dump
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["@type"].as_str().unwrap().rsplit('.').next().unwrap())
            .collect();
        assert_eq!(
            types,
            [
                "BootstrapConfigDump",
                "ClustersConfigDump",
                "EndpointsConfigDump",
                "ListenersConfigDump",
                "ScopedRoutesConfigDump",
                "RoutesConfigDump",
                "SecretsConfigDump"
            ]
        );
        let fixed = &dump[0]["bootstrap"]["static_resources"];
        assert_eq!(fixed["clusters"][0]["name"], "local");
        assert_eq!(fixed["listeners"][0]["name"], "l");
        assert_eq!(fixed["secrets"][0]["name"], "s");
        assert_eq!(dump[1]["static_clusters"][0]["cluster"]["name"], "local");
        assert_eq!(
            dump[1]["static_clusters"][0]["cluster"]["@type"],
            Kind::Cluster.type_url()
        );
        let host = &dump[2]["static_endpoint_configs"][0]["endpoint_config"]["endpoints"][0]["lb_endpoints"]
            [0];
        assert_eq!(host["health_status"], "HEALTHY");
        assert_eq!(dump[3]["static_listeners"][0]["listener"]["name"], "l");
        assert_eq!(
            dump[5]["static_route_configs"][0]["route_config"]["name"],
            "inline"
        );
        assert_eq!(dump[6]["static_secrets"][0]["name"], "s");
        assert_eq!(handle.node_json()["id"], "n");
        assert!(!dump.to_string().contains("TOPSECRET"));
        assert!(dump.to_string().contains(REDACTED));
    }
}
