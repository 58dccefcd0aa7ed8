//! Defaults of Services, Endpoints, EndpointSlices and network policies.

use serde_json::{Value, json};

use super::{items, set};

/// A Service; addresses and node ports are allocated later.
pub(super) fn service(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    set(spec, "type", "ClusterIP");
    set(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" && spec["sessionAffinityConfig"].is_null() {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    for p in items(spec, "ports") {
        set(p, "protocol", "TCP");
        if p["targetPort"].is_null() || p["targetPort"] == 0 || p["targetPort"] == "" {
            p["targetPort"] = p["port"].clone();
        }
    }
    if kind != "ExternalName" {
        set(spec, "internalTrafficPolicy", "Cluster");
        set(spec, "ipFamilyPolicy", "SingleStack");
        set(spec, "ipFamilies", json!(["IPv4"]));
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
    set(object, "status", json!({"loadBalancer": {}}));
}

/// Endpoints.
pub(super) fn endpoints(object: &mut Value) {
    for subset in items(object, "subsets") {
        for p in items(subset, "ports") {
            set(p, "protocol", "TCP");
        }
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(object: &mut Value) {
    for p in items(object, "ports") {
        set(p, "name", "");
        set(p, "protocol", "TCP");
    }
}

/// A NetworkPolicy.
pub(super) fn network_policy(object: &mut Value) {
    let spec = &mut object["spec"];
    if spec.is_object() && spec["policyTypes"].is_null() {
        let mut types = vec!["Ingress"];
        if spec["egress"].is_array() {
            types.push("Egress");
        }
        spec["policyTypes"] = json!(types);
    }
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            for p in items(rule, "ports") {
                set(p, "protocol", "TCP");
            }
        }
    }
}
