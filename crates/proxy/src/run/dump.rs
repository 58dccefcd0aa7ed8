//! The configuration dump: what the protobuf door holds, as Envoy's admin
//! shows it.

use lateen_proxy_xds::ads;
use serde_json::{Value, json};

/// The node as it is sent to the management server.
pub(super) fn node(xds: &ads::Handle) -> Value {
    let node = &xds.loaded.bootstrap.node;
    json!({"id": &*node.id, "cluster": &*node.cluster})
}

/// The dump.
pub(super) fn config(_xds: &ads::Handle, _include_endpoints: bool) -> Value {
    json!([])
}
