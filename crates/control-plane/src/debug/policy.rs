//! `/debug/authorizationz`, `/debug/telemetryz` and `/debug/pushcontext`: policies by
//! namespace in Istio's shape, and whether this version puts them in force at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_resources::{Body, Kind, Object};
use serde_json::{Map, Value, json};

use crate::store::{Configuration, ProxyView};
use crate::webhook::has_effect;

/// Objects of a kind, the oldest first, as Istio orders them.
fn oldest_first(c: &Configuration, kind: Kind) -> Vec<&Arc<Object>> {
    let mut all: Vec<&Arc<Object>> = c.objects.of(kind).collect();
    all.sort_by_key(|o| (o.meta.created(), &o.meta.name, &o.meta.namespace));
    all
}

fn by_namespace(c: &Configuration, kind: Kind, show: fn(&Object) -> Value) -> Value {
    let mut out: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for o in oldest_first(c, kind) {
        out.entry(&o.meta.namespace).or_default().push(show(o));
    }
    json!(out)
}

fn telemetry(o: &Object) -> Value {
    json!({"name": o.meta.name, "namespace": o.meta.namespace, "spec": o.body.to_json()})
}

fn policy(o: &Object) -> Value {
    json!({
        "name": o.meta.name,
        "namespace": o.meta.namespace,
        "annotations": o.meta.annotations,
        "spec": o.body.to_json(),
    })
}

fn policies(c: &Configuration) -> Value {
    json!({
        "namespace_to_policies": by_namespace(c, Kind::AuthorizationPolicy, policy),
        "root_namespace": &*c.snapshot.mesh.root_namespace,
    })
}

/// Authorization policies by namespace.
pub fn authorizationz(c: &Configuration) -> Value {
    json!({
        "authorization_policies": policies(c),
        "enforced": has_effect(Kind::AuthorizationPolicy.name()),
    })
}

/// Telemetry objects by namespace.
pub fn telemetryz(c: &Configuration) -> Value {
    json!({
        "telemetries": {
            "namespace_to_telemetries": by_namespace(c, Kind::Telemetry, telemetry),
            "root_namespace": &*c.snapshot.mesh.root_namespace,
        },
        "enforced": has_effect(Kind::Telemetry.name()),
    })
}

/// Telemetry objects that are meant for one proxy: the oldest without a selector of the root
/// namespace and of the proxy's own, and the oldest of its own that selects it.
pub fn telemetry_of(view: &ProxyView) -> Value {
    let c = &view.configuration;
    let own = &*view.key.namespace;
    let root = &*c.snapshot.mesh.root_namespace;
    let all = oldest_first(c, Kind::Telemetry);
    let find = |namespace: &str, wanted: &dyn Fn(&Object) -> bool| {
        let mut of = all.iter().filter(|o| o.meta.namespace == namespace);
        of.find(|o| wanted(o)).map(|o| telemetry(o))
    };
    let plain = |o: &Object| selector(o).is_none();
    let selects = |o: &Object| {
        selector(o).is_some_and(|labels| {
            labels.iter().all(|(k, v)| {
                let have = view.key.labels.get(k.as_str());
                have.is_some_and(|have| v.as_str() == Some(&**have))
            })
        })
    };
    json!({
        "Root": find(root, &plain),
        "Namespace": if own == root { None } else { find(own, &plain) },
        "Workload": find(own, &selects),
        "enforced": has_effect(Kind::Telemetry.name()),
    })
}

/// `spec.selector.matchLabels`, when there is any label in it.
fn selector(o: &Object) -> Option<&Map<String, Value>> {
    let Body::Opaque(spec) = &o.body else {
        return None;
    };
    let labels = spec["selector"]["matchLabels"].as_object();
    labels.filter(|l| !l.is_empty())
}

/// What pushes are made from besides services and routes. Gateways of other networks are not
/// known to this control plane.
pub fn pushcontext(c: &Configuration) -> Value {
    json!({
        "AuthorizationPolicies": policies(c),
        "NetworkGateways": [],
        "UnresolvedGateways": [],
    })
}
