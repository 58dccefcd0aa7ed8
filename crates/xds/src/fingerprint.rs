//! Content versions of resources. Equal content gives equal versions, whatever order the
//! generated maps happen to iterate in: metadata and per-filter maps are taken out, hashed
//! in key order and put back.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use lateen_xds_proto::any::pack;
use lateen_xds_proto::envoy::config::cluster::v3::Cluster;
use lateen_xds_proto::envoy::config::core::v3::Metadata;
use lateen_xds_proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use lateen_xds_proto::envoy::config::listener::v3::Listener;
use lateen_xds_proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_xds_proto::google::protobuf::value::Kind;
use lateen_xds_proto::istio::nds::NameTable;
use lateen_xds_proto::{Any, Message, Name, Struct, Value};

use crate::resource::Resource;

/// A message with maps that have to leave before its bytes can be compared.
pub trait Fingerprint: Message + Name + Clone {
    /// Hashes the maps in key order and leaves them empty.
    fn drain_maps(&mut self, hash: &mut DefaultHasher);

    /// The resource's name.
    fn resource_name(&self) -> &str;
}

/// Packs a message with its version.
pub fn resource<T: Fingerprint>(message: T) -> Arc<Resource> {
    let body = pack(&message);
    let name = message.resource_name().to_owned();
    let mut hash = DefaultHasher::new();
    let mut bare = message;
    bare.drain_maps(&mut hash);
    hash.write(&bare.encode_to_vec());
    Arc::new(Resource {
        name,
        version: hash.finish().max(1),
        body,
    })
}

fn put(text: &str, hash: &mut DefaultHasher) {
    hash.write_usize(text.len());
    hash.write(text.as_bytes());
}

fn sorted<V>(map: &HashMap<String, V>) -> Vec<(&String, &V)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(k, _)| *k);
    entries
}

fn hash_struct(s: &Struct, hash: &mut DefaultHasher) {
    for (key, value) in sorted(&s.fields) {
        put(key, hash);
        hash_value(value, hash);
    }
    hash.write_u8(0);
}

fn hash_value(value: &Value, hash: &mut DefaultHasher) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => hash.write_u8(1),
        Some(Kind::NumberValue(n)) => hash.write_u64(n.to_bits()),
        Some(Kind::StringValue(s)) => put(s, hash),
        Some(Kind::BoolValue(b)) => hash.write_u8(2 + u8::from(*b)),
        Some(Kind::StructValue(s)) => hash_struct(s, hash),
        Some(Kind::ListValue(l)) => {
            hash.write_usize(l.values.len());
            l.values.iter().for_each(|v| hash_value(v, hash));
        }
    }
}

fn drain_metadata(metadata: &mut Option<Metadata>, hash: &mut DefaultHasher) {
    for (namespace, s) in sorted(&metadata.take().unwrap_or_default().filter_metadata) {
        put(namespace, hash);
        hash_struct(s, hash);
    }
    hash.write_u8(0);
}

fn drain_any_map(map: &mut HashMap<String, Any>, hash: &mut DefaultHasher) {
    for (key, any) in sorted(&std::mem::take(map)) {
        put(key, hash);
        put(&any.type_url, hash);
        hash.write_usize(any.value.len());
        hash.write(&any.value);
    }
    hash.write_u8(0);
}

fn drain_endpoint(e: &mut LbEndpoint, hash: &mut DefaultHasher) {
    drain_metadata(&mut e.metadata, hash);
}

fn drain_virtual_host(v: &mut VirtualHost, hash: &mut DefaultHasher) {
    drain_any_map(&mut v.typed_per_filter_config, hash);
    drain_metadata(&mut v.metadata, hash);
    for r in &mut v.routes {
        drain_metadata(&mut r.metadata, hash);
        drain_any_map(&mut r.typed_per_filter_config, hash);
    }
}

impl Fingerprint for Cluster {
    fn drain_maps(&mut self, hash: &mut DefaultHasher) {
        drain_metadata(&mut self.metadata, hash);
        drain_any_map(&mut self.typed_extension_protocol_options, hash);
        for locality in self
            .load_assignment
            .iter_mut()
            .flat_map(|a| &mut a.endpoints)
        {
            locality
                .lb_endpoints
                .iter_mut()
                .for_each(|e| drain_endpoint(e, hash));
        }
    }

    fn resource_name(&self) -> &str {
        &self.name
    }
}

impl Fingerprint for ClusterLoadAssignment {
    fn drain_maps(&mut self, hash: &mut DefaultHasher) {
        for locality in &mut self.endpoints {
            locality
                .lb_endpoints
                .iter_mut()
                .for_each(|e| drain_endpoint(e, hash));
        }
    }

    fn resource_name(&self) -> &str {
        &self.cluster_name
    }
}

impl Fingerprint for Listener {
    fn drain_maps(&mut self, hash: &mut DefaultHasher) {
        drain_metadata(&mut self.metadata, hash);
        for chain in self
            .filter_chains
            .iter_mut()
            .chain(&mut self.default_filter_chain)
        {
            drain_metadata(&mut chain.metadata, hash);
        }
    }

    fn resource_name(&self) -> &str {
        &self.name
    }
}

impl Fingerprint for RouteConfiguration {
    fn drain_maps(&mut self, hash: &mut DefaultHasher) {
        drain_any_map(&mut self.typed_per_filter_config, hash);
        self.virtual_hosts
            .iter_mut()
            .for_each(|v| drain_virtual_host(v, hash));
    }

    fn resource_name(&self) -> &str {
        &self.name
    }
}

impl Fingerprint for Secret {
    fn drain_maps(&mut self, _: &mut DefaultHasher) {}

    fn resource_name(&self) -> &str {
        &self.name
    }
}

impl Fingerprint for NameTable {
    // Its maps are ordered.
    fn drain_maps(&mut self, _: &mut DefaultHasher) {}

    fn resource_name(&self) -> &str {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn map_order_does_not_matter_but_content_does() {
        let make = |z: &str| {
            let fields =
                (0..20).map(|i| (format!("k{i}"), wire::text(if i == 7 { z } else { "v" })));
            let mut m = Metadata::default();
            m.filter_metadata.insert(
                "istio".into(),
                Struct {
                    fields: fields.collect(),
                },
            );
            Cluster {
                name: "c".into(),
                metadata: Some(m),
                ..Cluster::default()
            }
        };
        let versions: Vec<u64> = (0..8).map(|_| resource(make("v")).version).collect();
        assert!(versions.windows(2).all(|w| w[0] == w[1]));
        assert_ne!(resource(make("other")).version, versions[0]);
    }
}
