//! The older Endpoints objects: made from a Service's pods, and mirrored to slices where a person
//! made them for a Service without selector. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::backends::{Backend, headless};
use super::slices::{Group, HEADLESS, address_type};
use crate::controllers::object::{
    canonical_text, flag, label, list, map, name, namespace, pruned, text,
};

/// Label of Endpoints that must not be mirrored to slices.
pub const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Label that names who keeps an Endpoints object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const KEEPER: &str = "endpoint-controller";

/// The Endpoints object of a Service with a selector.
pub fn endpoints(service: &Value, backends: &[Backend]) -> Value {
    let mut labels = map(service, "/metadata/labels")
        .cloned()
        .unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), json!(KEEPER));
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name(service), "namespace": namespace(service), "labels": labels},
        "subsets": subsets(service, backends),
    })
}

/// The parts of one subset.
#[derive(Debug, Default)]
struct Subset {
    ports: Vec<Value>,
    ready: Vec<Value>,
    not_ready: Vec<Value>,
}

impl Subset {
    fn into_json(self) -> Value {
        let mut subset = json!({});
        for (field, mut addresses) in [
            ("addresses", self.ready),
            ("notReadyAddresses", self.not_ready),
        ] {
            addresses.sort_by_cached_key(|a| text(a, "/ip").parse::<IpAddr>().ok());
            if !addresses.is_empty() {
                subset[field] = json!(addresses);
            }
        }
        if !self.ports.is_empty() {
            subset["ports"] = json!(self.ports);
        }
        subset
    }
}

fn subsets(service: &Value, backends: &[Backend]) -> Vec<Value> {
    let publish = flag(service, "/spec/publishNotReadyAddresses");
    let portless = list(service, "/spec/ports").is_empty();
    let mut subsets: BTreeMap<String, Subset> = BTreeMap::new();
    for backend in backends.iter().filter(|b| !b.terminating || publish) {
        if backend.ports.is_empty() && !(portless && headless(service)) {
            continue; // No port of the Service leads to this pod.
        }
        let mut address = json!({"ip": backend.ips[0].to_string()});
        if let Some(hostname) = &backend.hostname {
            address["hostname"] = json!(hostname);
        }
        if !backend.node.is_empty() {
            address["nodeName"] = json!(backend.node);
        }
        address["targetRef"] = backend.target.clone();
        let mut key = String::new();
        canonical_text(&json!(backend.ports), &mut key);
        let subset = subsets.entry(key).or_default();
        subset.ports = backend.ports.iter().map(legacy_port).collect();
        if backend.ready {
            subset.ready.push(address);
        } else {
            subset.not_ready.push(address);
        }
    }
    subsets.into_values().map(Subset::into_json).collect()
}

/// A port without an empty name, which Endpoints leave out.
fn legacy_port(port: &Value) -> Value {
    let mut port = port.clone();
    if text(&port, "/name").is_empty()
        && let Some(fields) = port.as_object_mut()
    {
        fields.shift_remove("name");
    }
    port
}

/// Whether two Endpoints objects say the same (labels and subsets).
pub fn same(a: &Value, b: &Value) -> bool {
    pruned(&a["subsets"]) == pruned(&b["subsets"])
        && pruned(&a["metadata"]["labels"]) == pruned(&b["metadata"]["labels"])
}

/// Whether the Endpoints are kept by the endpoints controller (and not by a person).
pub fn kept_by_controller(endpoints: &Value) -> bool {
    label(endpoints, MANAGED_BY) == Some(KEEPER)
}

/// Whether hand-made Endpoints are to be mirrored.
pub fn mirrored(endpoints: &Value) -> bool {
    label(endpoints, SKIP_MIRROR) != Some("true")
        && !kept_by_controller(endpoints)
        && crate::controllers::object::annotation(
            endpoints,
            "control-plane.alpha.kubernetes.io/leader",
        )
        .is_none()
}

/// The slice groups that mirror hand-made Endpoints: one per subset and address family.
pub fn mirror_groups(endpoints: &Value) -> Vec<Group> {
    let mut groups = Vec::new();
    for subset in list(endpoints, "/subsets") {
        let ports: Vec<Value> = list(subset, "/ports")
            .iter()
            .map(|port| {
                let mut port = port.clone();
                if port.get("name").is_none() {
                    port["name"] = json!("");
                }
                port
            })
            .collect();
        for family in ["IPv4", "IPv6"] {
            let found = mirrored_endpoints(subset, family);
            if !found.is_empty() {
                let ports = ports.clone();
                groups.push(Group {
                    address_type: family,
                    ports,
                    endpoints: found,
                });
            }
        }
    }
    groups
}

fn mirrored_endpoints(subset: &Value, family: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for (field, ready) in [("/addresses", true), ("/notReadyAddresses", false)] {
        for address in list(subset, field) {
            let Ok(ip) = text(address, "/ip").parse::<IpAddr>() else {
                continue;
            };
            if address_type(&ip) != family {
                continue;
            }
            let mut endpoint =
                json!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
            for key in ["hostname", "nodeName", "targetRef"] {
                if let Some(value) = address.get(key) {
                    endpoint[key] = value.clone();
                }
            }
            found.push(endpoint);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::backends::backends;
    use super::super::backends::tests::{pod, service};
    use super::*;

    #[test]
    fn addresses_are_sorted_and_split_by_readiness() {
        let pods = [
            pod("a", "10.0.0.10", true, 1),
            pod("b", "10.0.0.9", true, 1),
            pod("c", "10.0.0.2", false, 1),
        ];
        let object = endpoints(&service(), &backends(&service(), &pods));
        let subset = &object["subsets"][0];
        assert_eq!(text(subset, "/addresses/0/ip"), "10.0.0.9");
        assert_eq!(text(subset, "/addresses/1/ip"), "10.0.0.10");
        assert_eq!(text(subset, "/notReadyAddresses/0/ip"), "10.0.0.2");
        assert!(kept_by_controller(&object) && !mirrored(&object));
    }

    #[test]
    fn leaving_pods_are_not_in_endpoints() {
        let mut leaving = (*pod("a", "10.0.0.1", true, 1)).clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let found = backends(&service(), &[std::sync::Arc::new(leaving)]);
        assert_eq!(endpoints(&service(), &found)["subsets"], json!([]));
    }

    #[test]
    fn hand_made_endpoints_mirror_per_family() {
        let made = json!({"metadata": {"name": "db"}, "subsets": [{
            "addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 5432}]}]});
        assert!(mirrored(&made));
        let groups = mirror_groups(&made);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].endpoints.len(), 2);
        assert_eq!(groups[0].endpoints[1]["conditions"]["ready"], false);
        assert_eq!(groups[0].ports[0]["name"], "");
        assert_eq!(groups[1].address_type, "IPv6");
    }
}
