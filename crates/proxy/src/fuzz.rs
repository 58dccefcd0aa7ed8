//! Doors to the private parsers, for the fuzz targets. No part of the crate's interface: it
//! changes with what is behind it.

use std::collections::BTreeMap;

use lateen_proxy_core::config::{Name, Value};

pub use crate::admin::query::Query;
pub use crate::listener::hello::{Found, inspect as tls_hello};
pub use crate::listener::inspect::{ProxyHeader, http_protocol, proxy_header};
pub use crate::tls::peer_names;

/// Reads an `x-envoy-peer-metadata` header.
pub fn peer_metadata(value: &[u8]) -> Option<BTreeMap<Name, Value>> {
    crate::mesh::peer::decode(value)
}

/// Writes what [`peer_metadata`] reads, without base64.
pub fn peer_metadata_wire(metadata: &BTreeMap<Name, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    crate::mesh::peer::write_struct(metadata, &mut out);
    out
}
