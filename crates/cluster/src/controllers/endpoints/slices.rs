//! EndpointSlices: what a Service's slices should hold, and the least change that gets there. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::backends::{Backend, headless};
use crate::controllers::object::{
    canonical_text, list, map, name, namespace, owner_reference, pruned, text,
};

/// Label that names the Service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The keeper of slices made from selectors.
pub const SELECTOR_KEEPER: &str = "endpointslice-controller.k8s.io";
/// The keeper of slices made from hand-made Endpoints.
pub const MIRROR_KEEPER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of everything that belongs to a headless Service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most endpoints in one slice.
const CAPACITY: usize = 100;

/// One write that brings the slices nearer to what they should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Create this slice.
    Create(Value),
    /// Replace a slice by this object, which carries its resource version.
    Update(Value),
    /// Delete the slice of this name.
    Delete(String),
}

/// Endpoints that share ports and address family.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// `IPv4` or `IPv6`.
    pub address_type: &'static str,
    /// Ports in slice form.
    pub ports: Vec<Value>,
    /// Endpoints in slice form.
    pub endpoints: Vec<Value>,
}

/// `IPv4` or `IPv6`.
pub fn address_type(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Groups the pods of a Service by ports, per address family of the Service.
pub fn groups(
    service: &Value,
    backends: &[Backend],
    zones: &HashMap<String, String>,
) -> Vec<Group> {
    let mut families: Vec<&'static str> = list(service, "/spec/ipFamilies")
        .iter()
        .map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" })
        .collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    let mut groups: BTreeMap<(usize, String), Group> = BTreeMap::new();
    for (order, &family) in families.iter().enumerate() {
        for backend in backends {
            let Some(ip) = backend.ips.iter().find(|ip| address_type(ip) == family) else {
                continue;
            };
            let mut key = String::new();
            canonical_text(&json!(backend.ports), &mut key);
            let group = groups.entry((order, key)).or_insert_with(|| Group {
                address_type: family,
                ports: backend.ports.clone(),
                endpoints: Vec::new(),
            });
            group.endpoints.push(endpoint(backend, ip, zones));
        }
        if !groups.keys().any(|(at, _)| *at == order) {
            let empty = Group {
                address_type: family,
                ports: Vec::new(),
                endpoints: Vec::new(),
            };
            groups.insert((order, String::new()), empty);
        }
    }
    groups.into_values().collect()
}

fn endpoint(backend: &Backend, ip: &IpAddr, zones: &HashMap<String, String>) -> Value {
    let mut endpoint = json!({
        "addresses": [ip.to_string()],
        "conditions": {
            "ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating,
        },
    });
    if let Some(hostname) = &backend.hostname {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint["targetRef"] = backend.target.clone();
    if !backend.node.is_empty() {
        endpoint["nodeName"] = json!(backend.node);
        if let Some(zone) = zones.get(&backend.node) {
            endpoint["zone"] = json!(zone);
        }
    }
    endpoint
}

/// The labels of a Service's slices: the Service's own and the fixed ones.
pub fn labels(service: &Value, keeper: &str) -> Map<String, Value> {
    let mut labels = map(service, "/metadata/labels")
        .cloned()
        .unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), json!(name(service)));
    labels.insert(MANAGED_BY.to_owned(), json!(keeper));
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), json!(""));
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

/// The writes that turn `existing` (slices of this Service and keeper) into `groups`.
///
/// Endpoints stay in the slice they are in; new ones fill slices with room before a new slice is
/// made; a slice left without endpoints goes, unless its group wants to be empty.
pub fn plan(
    service: &Value,
    keeper: &str,
    groups: Vec<Group>,
    existing: &[Arc<Value>],
) -> Vec<Write> {
    let labels = labels(service, keeper);
    let mut writes = Vec::new();
    let mut used = vec![false; existing.len()];
    for group in groups {
        let ports = pruned(&json!(group.ports));
        let same: Vec<usize> = (0..existing.len())
            .filter(|&at| {
                !used[at]
                    && text(&existing[at], "/addressType") == group.address_type
                    && pruned(&json!(list(&existing[at], "/ports"))) == ports
            })
            .collect();
        let chunks = distribute(&group, same.iter().map(|&at| &*existing[at]).collect());
        for (slot, endpoints) in chunks.into_iter().enumerate() {
            match same.get(slot) {
                Some(&at) => {
                    used[at] = true;
                    writes.extend(rewrite(&existing[at], &labels, endpoints));
                }
                None => {
                    writes.push(Write::Create(make(service, &labels, &group, endpoints)));
                }
            }
        }
    }
    for (slice, used) in existing.iter().zip(used) {
        if !used {
            writes.push(Write::Delete(name(slice).to_owned()));
        }
    }
    writes
}

/// Shares a group's endpoints among the slices it has, and new ones behind them. Slices that end
/// up empty are cut off the end.
fn distribute(group: &Group, slices: Vec<&Value>) -> Vec<Vec<Value>> {
    let identity = |endpoint: &Value| {
        let target = text(endpoint, "/targetRef/uid");
        format!("{target} {}", text(endpoint, "/addresses/0"))
    };
    let mut home: HashMap<String, usize> = HashMap::new();
    for (slot, slice) in slices.iter().enumerate() {
        for endpoint in list(slice, "/endpoints") {
            home.entry(identity(endpoint)).or_insert(slot);
        }
    }
    let mut chunks: Vec<Vec<Value>> = vec![Vec::new(); slices.len()];
    let mut homeless = Vec::new();
    for endpoint in &group.endpoints {
        match home.get(&identity(endpoint)) {
            Some(&slot) if chunks[slot].len() < CAPACITY => chunks[slot].push(endpoint.clone()),
            _ => homeless.push(endpoint.clone()),
        }
    }
    for endpoint in homeless {
        match chunks.iter_mut().find(|chunk| chunk.len() < CAPACITY) {
            Some(chunk) => chunk.push(endpoint),
            None => chunks.push(vec![endpoint]),
        }
    }
    while chunks.last().is_some_and(Vec::is_empty) {
        chunks.pop();
    }
    if chunks.is_empty() {
        chunks.push(Vec::new());
    }
    chunks
}

fn rewrite(slice: &Value, labels: &Map<String, Value>, endpoints: Vec<Value>) -> Option<Write> {
    let endpoints = json!(endpoints);
    let same_labels = map(slice, "/metadata/labels") == Some(labels);
    if same_labels && pruned(&slice["endpoints"]) == pruned(&endpoints) {
        return None;
    }
    let mut updated = slice.clone();
    updated["metadata"]["labels"] = json!(labels);
    updated["endpoints"] = endpoints;
    Some(Write::Update(updated))
}

fn make(
    service: &Value,
    labels: &Map<String, Value>,
    group: &Group,
    endpoints: Vec<Value>,
) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", name(service)),
            "namespace": namespace(service),
            "labels": labels,
            "ownerReferences": [owner_reference(service, "v1", "Service")],
        },
        "addressType": group.address_type, "endpoints": endpoints, "ports": group.ports,
    })
}

#[cfg(test)]
mod tests {
    use super::super::backends::backends;
    use super::super::backends::tests::{pod, service};
    use super::*;

    fn zones() -> HashMap<String, String> {
        HashMap::from([("node-1".to_owned(), "z1".to_owned())])
    }

    fn planned(pods: &[Arc<Value>], existing: &[Arc<Value>]) -> Vec<Write> {
        let service = service();
        let groups = groups(&service, &backends(&service, pods), &zones());
        plan(&service, SELECTOR_KEEPER, groups, existing)
    }

    /// Carries writes out on a list of slices, naming created ones.
    fn carry_out(existing: &[Arc<Value>], writes: Vec<Write>) -> Vec<Arc<Value>> {
        let mut slices = existing.to_vec();
        for write in writes {
            match write {
                Write::Create(mut slice) => {
                    slice["metadata"]["name"] = json!(format!("web-{}", slices.len()));
                    slices.push(Arc::new(slice));
                }
                Write::Update(slice) => {
                    let at = slices
                        .iter()
                        .position(|s| name(s) == name(&slice))
                        .expect("known");
                    slices[at] = Arc::new(slice);
                }
                Write::Delete(gone) => slices.retain(|s| name(s) != gone),
            }
        }
        slices
    }

    #[test]
    fn one_slice_with_zone_target_and_labels() {
        let writes = planned(&[pod("a", "10.0.0.1", true, 8080)], &[]);
        let [Write::Create(slice)] = writes.as_slice() else {
            panic!("{writes:?}")
        };
        assert_eq!(text(slice, "/metadata/generateName"), "web-");
        assert_eq!(slice["metadata"]["labels"]["l"], "1");
        assert_eq!(slice["metadata"]["labels"][SERVICE_NAME], "web");
        assert_eq!(slice["endpoints"][0]["zone"], "z1");
        assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "a");
        assert_eq!(slice["ports"][1]["port"], 8080);
    }

    #[test]
    fn nothing_to_do_is_no_write_and_no_pods_keep_an_empty_slice() {
        let pods = [pod("a", "10.0.0.1", true, 8080)];
        let slices = carry_out(&[], planned(&pods, &[]));
        assert_eq!(planned(&pods, &slices), []);
        let empty = carry_out(&slices, planned(&[], &slices));
        assert_eq!(empty.len(), 1);
        assert!(list(&empty[0], "/endpoints").is_empty());
        assert_eq!(planned(&[], &empty), []);
    }

    #[test]
    fn named_ports_that_differ_split_slices() {
        let pods = [
            pod("a", "10.0.0.1", true, 8080),
            pod("b", "10.0.0.2", true, 9090),
        ];
        assert_eq!(carry_out(&[], planned(&pods, &[])).len(), 2);
    }

    #[test]
    fn slices_hold_a_hundred_and_endpoints_stay_where_they_are() {
        let all: Vec<_> = (0..250)
            .map(|i| {
                pod(
                    &format!("p{i:03}"),
                    &format!("10.0.{}.{}", i / 200, i % 200 + 1),
                    true,
                    1,
                )
            })
            .collect();
        let slices = carry_out(&[], planned(&all, &[]));
        let sizes = |slices: &[Arc<Value>]| -> Vec<usize> {
            slices.iter().map(|s| list(s, "/endpoints").len()).collect()
        };
        assert_eq!(sizes(&slices), [100, 100, 50]);
        // Without the first pod only the first slice changes.
        let writes = planned(&all[1..], &slices);
        assert!(matches!(writes.as_slice(), [Write::Update(s)] if name(s) == name(&slices[0])));
        let slices = carry_out(&slices, writes);
        assert_eq!(sizes(&slices), [99, 100, 50]);
    }

    #[test]
    fn readiness_changes_update_in_place() {
        let slices = carry_out(&[], planned(&[pod("a", "10.0.0.1", false, 1)], &[]));
        let writes = planned(&[pod("a", "10.0.0.1", true, 1)], &slices);
        let [Write::Update(slice)] = writes.as_slice() else {
            panic!("{writes:?}")
        };
        assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    }

    #[test]
    fn headless_services_are_labelled() {
        let mut service = service();
        service["spec"]["clusterIP"] = json!("None");
        assert_eq!(labels(&service, SELECTOR_KEEPER)[HEADLESS], "");
    }
}
