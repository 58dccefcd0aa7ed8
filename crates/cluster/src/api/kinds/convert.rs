//! Conversions between a kind's served versions and the one stored.

use serde_json::{Value, json};

use crate::api::meta;

/// How served and stored forms differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// Only in `apiVersion`.
    Version,
    /// `events.k8s.io/v1` against the core Event.
    Event,
    /// `extensions/v1beta1` Deployment: the selector may be left out.
    OldDeployment,
    /// `extensions/v1beta1` Ingress: flat backends.
    OldIngress,
    /// `autoscaling/v1`: one target for the cpu, all else in annotations.
    OldAutoscaler,
}

/// What `autoscaling/v1` has no field for: field of the spec, annotation with its JSON.
const AUTOSCALER_NOTES: [(&str, &str); 2] = [
    ("metrics", "autoscaling.alpha.kubernetes.io/metrics"),
    ("behavior", "autoscaling.alpha.kubernetes.io/behavior"),
];
const CPU_TARGET: &str = "targetCPUUtilizationPercentage";

/// Field names of an Event: core form, `events.k8s.io` form.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

impl Conversion {
    /// From the stored to a served form.
    pub fn to_served(self, object: &mut Value, api_version: &str) {
        set_version(object, api_version);
        match self {
            Self::Version | Self::OldDeployment => {}
            Self::Event => {
                for (core, new) in EVENT_FIELDS {
                    rename(object, core, new);
                }
            }
            Self::OldIngress => ingress_to_old(object),
            Self::OldAutoscaler => autoscaler_to_old(object),
        }
    }

    /// From a served to the stored form.
    pub fn to_stored(self, object: &mut Value, api_version: &str) {
        set_version(object, api_version);
        match self {
            Self::Version => {}
            Self::Event => {
                for (core, new) in EVENT_FIELDS {
                    rename(object, new, core);
                }
            }
            Self::OldDeployment => deployment_from_old(object),
            Self::OldIngress => ingress_from_old(object),
            Self::OldAutoscaler => autoscaler_from_old(object),
        }
    }
}

fn set_version(object: &mut Value, api_version: &str) {
    object["apiVersion"] = api_version.into();
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(v) = meta::remove(object, from) {
        object[to] = v;
    }
}

/// The old group defaulted the selector from the template's labels.
fn deployment_from_old(object: &mut Value) {
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    if object["spec"].is_object() && object["spec"]["selector"].is_null() && labels.is_object() {
        object["spec"]["selector"] = json!({"matchLabels": labels});
    }
    meta::remove(&mut object["spec"], "rollbackTo");
}

fn backend_from_old(backend: &mut Value) {
    let Some(name) = meta::remove(backend, "serviceName") else {
        return;
    };
    let port = match meta::remove(backend, "servicePort") {
        Some(Value::String(s)) => json!({"name": s}),
        Some(n) => json!({"number": n}),
        None => json!({}),
    };
    backend["service"] = json!({"name": name, "port": port});
}

fn backend_to_old(backend: &mut Value) {
    let Some(service) = meta::remove(backend, "service") else {
        return;
    };
    backend["serviceName"] = service["name"].clone();
    let port = &service["port"];
    backend["servicePort"] = if port["name"].is_string() {
        port["name"].clone()
    } else {
        port["number"].clone()
    };
}

fn each_path(object: &mut Value, mut f: impl FnMut(&mut Value)) {
    let rules = object["spec"]
        .get_mut("rules")
        .and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let paths = rule
            .get_mut("http")
            .and_then(|h| h.get_mut("paths"))
            .and_then(Value::as_array_mut);
        paths.into_iter().flatten().for_each(&mut f);
    }
}

fn ingress_from_old(object: &mut Value) {
    if !object["spec"].is_object() {
        return;
    }
    if let Some(mut backend) = meta::remove(&mut object["spec"], "backend") {
        backend_from_old(&mut backend);
        object["spec"]["defaultBackend"] = backend;
    }
    each_path(object, |p| {
        if let Some(b) = p.get_mut("backend") {
            backend_from_old(b);
        }
        if p.is_object() && p["pathType"].is_null() {
            p["pathType"] = "ImplementationSpecific".into();
        }
    });
}

fn ingress_to_old(object: &mut Value) {
    if !object["spec"].is_object() {
        return;
    }
    if let Some(mut backend) = meta::remove(&mut object["spec"], "defaultBackend") {
        backend_to_old(&mut backend);
        object["spec"]["backend"] = backend;
    }
    each_path(object, |p| {
        if let Some(b) = p.get_mut("backend") {
            backend_to_old(b);
        }
    });
}

fn is_cpu_target(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]["target"]["type"] == "Utilization"
}

fn autoscaler_to_old(object: &mut Value) {
    if !object["spec"].is_object() {
        return;
    }
    if let Some(metrics) = object["spec"]
        .get_mut("metrics")
        .and_then(Value::as_array_mut)
        && let Some(at) = metrics.iter().position(is_cpu_target)
    {
        let metric = metrics.remove(at);
        let target = metric["resource"]["target"]["averageUtilization"].clone();
        if metrics.is_empty() {
            meta::remove(&mut object["spec"], "metrics");
        }
        object["spec"][CPU_TARGET] = target;
    }
    for (field, annotation) in AUTOSCALER_NOTES {
        if let Some(value) = meta::remove(&mut object["spec"], field) {
            object["metadata"]["annotations"][annotation] = value.to_string().into();
        }
    }
}

fn autoscaler_from_old(object: &mut Value) {
    if !object["spec"].is_object() {
        return;
    }
    for (field, annotation) in AUTOSCALER_NOTES {
        let notes = &mut object["metadata"]["annotations"];
        // An annotation that somebody wrote by hand in another form stays one.
        let noted = notes[annotation]
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(value) = noted {
            meta::remove(notes, annotation);
            object["spec"][field] = value;
        }
    }
    let notes = &object["metadata"]["annotations"];
    if notes.is_null() || notes.as_object().is_some_and(serde_json::Map::is_empty) {
        meta::remove(&mut object["metadata"], "annotations");
    }
    if let Some(percent) = meta::remove(&mut object["spec"], CPU_TARGET) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        match object["spec"]
            .get_mut("metrics")
            .and_then(Value::as_array_mut)
        {
            Some(metrics) => metrics.insert(0, metric),
            None => object["spec"]["metrics"] = json!([metric]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ingress_backends_convert_both_ways() {
        let old = json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "spec": {
            "backend": {"serviceName": "d", "servicePort": 80},
            "rules": [{"http": {"paths": [
                {"path": "/a", "backend": {"serviceName": "s", "servicePort": "http"}}]}}]}});
        let mut o = old.clone();
        Conversion::OldIngress.to_stored(&mut o, "networking.k8s.io/v1");
        assert_eq!(o["spec"]["defaultBackend"]["service"]["port"]["number"], 80);
        let p = &o["spec"]["rules"][0]["http"]["paths"][0];
        assert_eq!(p["backend"]["service"]["port"]["name"], "http");
        assert_eq!(p["pathType"], "ImplementationSpecific");
        Conversion::OldIngress.to_served(&mut o, "extensions/v1beta1");
        assert_eq!(o["spec"]["backend"], old["spec"]["backend"]);
    }

    #[test]
    fn old_deployment_gets_its_selector_from_the_template() {
        let mut o = json!({"spec": {"template": {"metadata": {"labels": {"app": "x"}}}}});
        Conversion::OldDeployment.to_stored(&mut o, "apps/v1");
        assert_eq!(o["spec"]["selector"]["matchLabels"]["app"], "x");
    }

    #[test]
    fn old_autoscalers_convert_both_ways() {
        let metric = |name: &str, n: u32| {
            json!({"type": "Resource", "resource": {"name": name,
            "target": {"type": "Utilization", "averageUtilization": n}}})
        };
        let new = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": {
            "maxReplicas": 3, "metrics": [metric("cpu", 50), metric("memory", 70)],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}});
        let mut o = new.clone();
        Conversion::OldAutoscaler.to_served(&mut o, "autoscaling/v1");
        assert_eq!(
            o["spec"],
            json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50})
        );
        assert_eq!(
            o["metadata"]["annotations"].as_object().map(|a| a.len()),
            Some(2)
        );
        Conversion::OldAutoscaler.to_stored(&mut o, "autoscaling/v2");
        assert_eq!(o, new);
        let mut o = json!({"metadata": {}, "spec": {"targetCPUUtilizationPercentage": 60}});
        Conversion::OldAutoscaler.to_stored(&mut o, "autoscaling/v2");
        assert_eq!(o["spec"], json!({"metrics": [metric("cpu", 60)]}));
        assert_eq!(o["metadata"], json!({}));
    }

    #[test]
    fn events_have_two_forms() {
        let mut e = json!({"regarding": {"name": "p"}, "note": "hi", "reason": "R"});
        Conversion::Event.to_stored(&mut e, "v1");
        assert_eq!(e["involvedObject"]["name"], "p");
        assert_eq!(e["message"], "hi");
        Conversion::Event.to_served(&mut e, "events.k8s.io/v1");
        assert_eq!(e["note"], "hi");
        assert!(e.get("message").is_none());
    }
}
