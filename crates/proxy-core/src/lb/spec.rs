//! What the balancer knows of a host, made from the configuration.
use std::collections::BTreeMap;

use crate::config::cluster::Cluster;
use crate::config::{ClusterLoadAssignment, Endpoint, Locality, Metadata, Value};

/// Namespace of endpoint metadata that balancing reads.
pub(super) const NAMESPACE: &str = "envoy.lb";

/// What the balancer knows of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    /// Priority, 0 is best.
    pub priority: u32,
    /// Place of its locality among those of its priority, in the order of region, zone, sub-zone.
    pub locality: u32,
    /// Weight of that locality; none = not given.
    pub locality_weight: Option<u32>,
    /// Weight, at least 1.
    pub weight: u32,
    /// What consistent hashing hashes: `ip:port`, the host name where so configured, or
    /// `hash_key` of the endpoint's metadata `envoy.lb`.
    pub hash_key: String,
    /// Metadata of the endpoint, for subsets.
    pub metadata: Metadata,
}

/// A host as discovery gave it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Where it is.
    pub locality: &'a Locality,
    /// Its priority.
    pub priority: u32,
    /// Its weight at this moment.
    pub weight: u32,
}

/// The specs of hosts, in their order; the weights of localities are the assignment's.
pub fn specs<'a>(
    cluster: &Cluster,
    assignment: Option<&ClusterLoadAssignment>,
    hosts: impl Iterator<Item = Place<'a>> + Clone,
) -> Vec<HostSpec> {
    let mut weights: BTreeMap<(u32, &Locality), Option<u32>> = BTreeMap::new();
    for place in hosts.clone() {
        weights.insert((place.priority, place.locality), None);
    }
    for group in assignment.into_iter().flat_map(|a| &a.localities) {
        weights.insert((group.priority, &group.locality), group.weight);
    }
    let numbers: BTreeMap<_, _> = (0..)
        .zip(weights.keys())
        .map(|(n, key)| (*key, n))
        .collect();
    hosts
        .map(|place| {
            let key = (place.priority, place.locality);
            HostSpec {
                priority: place.priority,
                locality: numbers.get(&key).copied().unwrap_or(0),
                locality_weight: weights.get(&key).copied().flatten(),
                weight: place.weight,
                hash_key: hash_key(cluster, place.endpoint),
                metadata: place.endpoint.metadata.clone(),
            }
        })
        .collect()
}

fn hash_key(cluster: &Cluster, endpoint: &Endpoint) -> String {
    let own = endpoint
        .metadata
        .get(NAMESPACE)
        .and_then(|m| m.path(["hash_key"]));
    if let Some(key) = own.and_then(Value::as_str).filter(|k| !k.is_empty()) {
        return key.to_owned();
    }
    if cluster.lb_common.use_hostname_for_hashing && !endpoint.hostname.is_empty() {
        return endpoint.hostname.to_string();
    }
    endpoint.address.to_string()
}
