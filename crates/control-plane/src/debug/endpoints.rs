//! `/debug/edsz` and `/debug/endpointShardz`.

use std::collections::BTreeMap;

use lateen_model::{EndpointAddress, ProxyKey, Resolution};
use lateen_xds::{Context, ResourceType, endpoint, names};
use lateen_xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds_proto::json::{PrintOptions, from_wire_with};
use lateen_xds_proto::{Message as _, Name as _};
use serde_json::{Map, Value, json};

use super::{DebugState, dump};
use crate::ads::{Names, View as _};
use crate::store::ProxyView;

/// Load assignments of every cluster of every service, each as its own namespace sees it.
pub fn all(s: &DebugState) -> Value {
    let c = s.store.current();
    let mut keys: BTreeMap<&str, ProxyKey> = BTreeMap::new();
    for service in c.snapshot.services() {
        keys.entry(&service.namespace).or_insert_with(|| ProxyKey {
            namespace: service.namespace.clone(),
            cluster_id: "Kubernetes".into(),
            ..ProxyKey::default()
        });
    }
    let contexts: BTreeMap<&str, Context<'_>> = keys
        .iter()
        .map(|(ns, key)| {
            (
                *ns,
                Context::new(&c.snapshot, &c.endpoints, key, s.store.features()),
            )
        })
        .collect();
    let mut out = Vec::new();
    for service in c
        .snapshot
        .services()
        .iter()
        .filter(|s| s.resolution == Resolution::Static)
    {
        let Some(cx) = contexts.get(&*service.namespace) else {
            continue;
        };
        let subsets = cx
            .rule(service)
            .map(|r| r.subsets.as_slice())
            .unwrap_or_default();
        for port in &service.ports {
            let all = std::iter::once(None).chain(subsets.iter().map(|s| Some(&*s.name)));
            for subset in all {
                let name =
                    names::outbound(port.number, subset.unwrap_or_default(), &service.hostname);
                let a = endpoint::assignment(cx, &name, service, port, subset);
                out.push(print(&a));
            }
        }
    }
    Value::Array(out)
}

fn print(a: &ClusterLoadAssignment) -> Value {
    let printed = from_wire_with(
        &ClusterLoadAssignment::full_name(),
        &a.encode_to_vec(),
        &PrintOptions::camel(),
    );
    printed.unwrap_or_else(|e| json!({"clusterName": a.cluster_name, "error": e.to_string()}))
}

/// Load assignments of one proxy.
pub fn of_view(view: &ProxyView) -> Value {
    let all = endpoint::all_names(&view.context());
    let names = Names {
        wildcard: false,
        names: all.into_iter().collect(),
    };
    let set = view.generate(ResourceType::Endpoint, &names);
    dump::bodies(&set)
        .map(|mut v| {
            if let Value::Object(map) = &mut v {
                map.shift_remove("@type");
            }
            v
        })
        .collect()
}

/// Endpoints by service host and namespace.
pub fn shards(s: &DebugState) -> Value {
    let c = s.store.current();
    let mut out = Map::new();
    for service in c.snapshot.services() {
        let mut list = Vec::new();
        for port in &service.ports {
            for e in c.endpoints.endpoints(&service.key(), port.number) {
                let address = match &e.address {
                    EndpointAddress::Ip(ip) => ip.to_string(),
                    EndpointAddress::Host(h) | EndpointAddress::Unix(h) => h.to_string(),
                };
                let labels: Map<String, Value> = e
                    .labels
                    .iter()
                    .map(|(k, v)| (k.to_string(), json!(&**v)))
                    .collect();
                list.push(json!({
                    "Addresses": [address],
                    "EndpointPort": e.port,
                    "ServicePortName": &*port.name,
                    "Labels": labels,
                    "ServiceAccount": &*e.service_account,
                    "WorkloadName": &*e.workload,
                    "Namespace": &*e.namespace,
                    "HealthStatus": format!("{:?}", e.health),
                    "NodeName": &*e.node,
                }));
            }
        }
        let by_namespace = out
            .entry(service.hostname.to_string())
            .or_insert_with(|| json!({}));
        by_namespace[&*service.namespace] = json!({"Shards": {"Kubernetes/Kubernetes": list}});
    }
    Value::Object(out)
}
