//! The node as the admin pages show it; the dump itself is the protobuf door's.

use lateen_proxy_core::config::Value as Metadata;
use lateen_proxy_xds::ads;
use serde_json::{Map, Value, json};

fn json_of(value: &Metadata) -> Value {
    match value {
        Metadata::Null => Value::Null,
        Metadata::Bool(b) => Value::Bool(*b),
        Metadata::Number(n) => json!(n),
        Metadata::String(s) => Value::String(s.to_string()),
        Metadata::List(list) => list.iter().map(json_of).collect(),
        Metadata::Struct(fields) => {
            let pairs = fields.iter().map(|(k, v)| (k.to_string(), json_of(v)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

/// The node as it is sent to the management server.
pub(super) fn node(xds: &ads::Handle) -> Value {
    let node = &xds.loaded.bootstrap.node;
    let metadata: Map<_, _> = node
        .metadata
        .iter()
        .map(|(k, v)| (k.to_string(), json_of(v)))
        .collect();
    json!({
        "id": &*node.id,
        "cluster": &*node.cluster,
        "metadata": metadata,
        "locality": {
            "region": &*node.locality.region,
            "zone": &*node.locality.zone,
            "sub_zone": &*node.locality.sub_zone,
        },
        "user_agent_name": "envoy",
    })
}

/// The configuration dump.
pub(super) fn config(xds: &ads::Handle, include_endpoints: bool) -> Value {
    xds.config_dump(include_endpoints)
}
