//! Ingress and egress gateways: Deployment, Service, account. The pod is made by injection's
//! own `gateway` template, so a gateway runs as it would if the webhook had filled it in, but
//! does not wait for the webhook.

use serde_json::{Value, json};

use super::values::variables;
use super::{InstallError, Values, access, labels};
use crate::inject::{InjectConfig, Outcome, Workload, annotation, inject_pod};

/// All gateways that are switched on.
pub(super) fn all(values: &Values) -> Result<Vec<Value>, InstallError> {
    let mut objects = Vec::new();
    for (kind, template) in [
        ("ingressGateways", "istio-ingressgateway"),
        ("egressGateways", "istio-egressgateway"),
    ] {
        for gateway in values.gateways(kind) {
            let name = gateway["name"].as_str().unwrap_or(template);
            // A further gateway takes the settings of the first of its kind.
            let settings = ["values", "gateways"].join(".");
            let settings = values
                .get(&format!("{settings}.{name}"))
                .or_else(|| values.get(&format!("{settings}.{template}")));
            let settings = settings.cloned().unwrap_or_default();
            objects.extend(access::gateway(values, name));
            objects.push(service(values, name, name, &settings));
            if name == "istio-ingressgateway" {
                objects.push(alias(values, &settings));
            }
            objects.push(deployment(values, name, &settings)?);
        }
    }
    Ok(objects)
}

fn gateway_labels(values: &Values, name: &str, settings: &Value) -> Value {
    let mut all = labels(values, name);
    for (key, value) in settings["labels"].as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

fn service(values: &Values, name: &str, app: &str, settings: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": values.namespace(),
            "labels": gateway_labels(values, app, settings),
        },
        "spec": {
            "type": settings["type"],
            "selector": settings["labels"],
            "ports": settings["ports"],
        },
    });
    let notes = settings["serviceAnnotations"].as_object();
    if notes.is_some_and(|notes| !notes.is_empty()) {
        service["metadata"]["annotations"] = settings["serviceAnnotations"].clone();
    }
    for optional in ["loadBalancerIP", "externalTrafficPolicy", "externalIPs"] {
        let empty = settings[optional].is_null() || settings[optional] == json!([]);
        if !empty {
            service["spec"][optional] = settings[optional].clone();
        }
    }
    service
}

/// Istio before 1.0 knew the ingress gateway as Service `istio-ingress`, with node ports.
fn alias(values: &Values, settings: &Value) -> Value {
    let mut labels = labels(values, "istio-ingress");
    labels["istio"] = "ingress".into();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "istio-ingress", "namespace": values.namespace(), "labels": labels},
        "spec": {
            "type": "NodePort",
            "selector": settings["labels"],
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
                {"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"},
            ],
        },
    })
}

fn deployment(values: &Values, name: &str, settings: &Value) -> Result<Value, InstallError> {
    let pod = pod(values, name, settings)?;
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": values.namespace(),
            "labels": gateway_labels(values, name, settings),
        },
        "spec": {
            "replicas": settings["replicaCount"],
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": settings["labels"]},
            "template": pod,
        },
    }))
}

/// Secrets by fixed names, for Gateways that name certificate files: volume and secret.
fn certificates(name: &str) -> [(String, String); 2] {
    let short = name.strip_prefix("istio-").unwrap_or(name);
    ["certs", "ca-certs"].map(|kind| (format!("{short}-{kind}"), format!("{name}-{kind}")))
}

fn pod(values: &Values, name: &str, settings: &Value) -> Result<Value, InstallError> {
    let failed = |problem: String| InstallError::Gateway {
        name: name.to_owned(),
        problem,
    };
    let config = InjectConfig {
        values: values.helm().clone(),
        mesh: values.mesh().clone(),
        revision: values.revision(),
        ..InjectConfig::standard("")
    };
    let mut labels = gateway_labels(values, name, settings);
    labels["service.istio.io/canonical-name"] = name.into();
    labels["service.istio.io/canonical-revision"] = "latest".into();
    let mut annotations = settings["podAnnotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations[annotation::TEMPLATES] = "gateway".into();
    let ports = settings["ports"].as_array().into_iter().flatten();
    let mut ports: Vec<Value> = ports
        .map(|port| json!({"containerPort": port["targetPort"], "protocol": "TCP"}))
        .collect();
    ports.retain(|port| !port["containerPort"].is_null());
    let container = json!({
        "name": crate::inject::PROXY,
        "image": "auto",
        "ports": ports,
        "env": variables(settings.get("env")),
        "resources": settings["resources"],
        "volumeMounts": certificates(name).map(|(volume, _)| {
            json!({"name": volume, "mountPath": format!("/etc/istio/{volume}"), "readOnly": true})
        }),
    });
    let skeleton = json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {
            "serviceAccountName": format!("{name}-service-account"),
            "containers": [container],
            "volumes": certificates(name).map(|(volume, secret)| {
                json!({"name": volume, "secret": {"secretName": secret, "optional": true}})
            }),
        },
    });
    let workload = Workload {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: name.into(),
        namespace: values.namespace(),
    };
    let outcome = inject_pod(&config, &skeleton, &workload).map_err(|e| failed(e.to_string()))?;
    let mut pod = match outcome {
        Outcome::Injected { pod, .. } => *pod,
        Outcome::Skipped(reason) => return Err(failed(reason.to_string())),
    };
    // The webhook must leave the pod alone, and what it would need to know is settled.
    pod["metadata"]["labels"][annotation::INJECT] = "false".into();
    if let Some(notes) = pod["metadata"]["annotations"].as_object_mut() {
        for name in [
            annotation::TEMPLATES,
            annotation::OVERRIDES,
            annotation::STATUS,
        ] {
            notes.shift_remove(name);
        }
        notes.insert(annotation::INJECT.to_owned(), "false".into());
    }
    Ok(pod)
}
