//! The control plane: Service and Deployment `istiod`, and the Service `istio-pilot` by which
//! Istio 1.0's documents know it.

use serde_json::{Value, json};

use super::values::variables;
use super::{Values, labels};

/// Services first, so that the pod's environment and DNS know them.
pub(super) fn all(values: &Values) -> Vec<Value> {
    let mut objects = vec![service(values)];
    if values.revision() == "default" {
        objects.push(alias(values));
    }
    objects.push(deployment(values));
    objects
}

fn istiod_labels(values: &Values) -> Value {
    let mut labels = labels(values, "istiod");
    labels["istio"] = "pilot".into();
    labels
}

fn selector(values: &Values) -> Value {
    let mut selector = json!({"app": "istiod", "istio.io/rev": values.revision()});
    if values.revision() == "default" {
        selector = json!({"app": "istiod", "istio": "pilot"});
    }
    selector
}

fn port(name: &str, port: u16, target: u16) -> Value {
    json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"})
}

fn service(values: &Values) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": format!("istiod{}", values.suffix()),
            "namespace": values.namespace(),
            "labels": istiod_labels(values),
        },
        "spec": {
            "ports": [
                port("grpc-xds", 15010, 15010),
                port("https-dns", 15012, 15012),
                port("https-webhook", 443, 15017),
                port("http-monitoring", 15014, 15014),
            ],
            "selector": selector(values),
        },
    })
}

fn alias(values: &Values) -> Value {
    let mut labels = labels(values, "istio-pilot");
    labels["istio"] = "pilot".into();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "istio-pilot", "namespace": values.namespace(), "labels": labels},
        "spec": {
            "ports": [
                port("grpc-xds", 15010, 15010),
                port("http-legacy-discovery", 8080, 8080),
                port("http-monitoring", 15014, 15014),
            ],
            "selector": selector(values),
        },
    })
}

fn deployment(values: &Values) -> Value {
    let mut pod_labels = istiod_labels(values);
    pod_labels["sidecar.istio.io/inject"] = "false".into();
    pod_labels["istio.io/dataplane-mode"] = "none".into();
    let replicas = values.get("values.pilot.replicaCount").cloned();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": format!("istiod{}", values.suffix()),
            "namespace": values.namespace(),
            "labels": istiod_labels(values),
        },
        "spec": {
            "replicas": replicas.unwrap_or(1.into()),
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": selector(values)},
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {
                        "prometheus.io/port": "15014",
                        "prometheus.io/scrape": "true",
                        "sidecar.istio.io/inject": "false",
                    },
                },
                "spec": {
                    "serviceAccountName": format!("istiod{}", values.suffix()),
                    "containers": [container(values)],
                    "volumes": volumes(),
                },
            },
        },
    })
}

fn container(values: &Values) -> Value {
    let image = values.text("values.pilot.image");
    let image = if image.contains(['/', ':']) {
        image
    } else {
        let (hub, tag) = (
            values.text("values.global.hub"),
            values.text("values.global.tag"),
        );
        format!("{hub}/{image}:{tag}")
    };
    let domain = values.text("values.global.proxy.clusterDomain");
    let level = values.text("values.global.logging.level");
    let mut arguments = vec![
        "discovery".to_owned(),
        "--monitoringAddr=:15014".to_owned(),
        format!("--log_output_level={level}"),
        "--domain".to_owned(),
        domain,
        "--keepaliveMaxServerConnectionAge".to_owned(),
        "30m".to_owned(),
    ];
    let compat = values.text("values.pilot.compat");
    if !compat.is_empty() {
        arguments.extend(["--compat".to_owned(), compat]);
    }
    let mut container = json!({
        "name": "discovery",
        "image": image,
        "args": arguments,
        "ports": [
            {"containerPort": 8080, "protocol": "TCP", "name": "http-debug"},
            {"containerPort": 15010, "protocol": "TCP", "name": "grpc-xds"},
            {"containerPort": 15012, "protocol": "TCP", "name": "tls-xds"},
            {"containerPort": 15017, "protocol": "TCP", "name": "https-webhooks"},
            {"containerPort": 15014, "protocol": "TCP", "name": "http-monitoring"},
        ],
        // Ready within a second of being so; afterwards asked at Istio's pace.
        "startupProbe": {
            "httpGet": {"path": "/ready", "port": 8080},
            "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 600,
        },
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": 8080},
            "periodSeconds": 3, "timeoutSeconds": 5,
        },
        "env": environment(values),
        "resources": values.get("values.pilot.resources"),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 1337,
            "runAsGroup": 1337,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true},
            {"name": "local-certs", "mountPath": "/var/run/secrets/istio-dns"},
            {"name": "cacerts", "mountPath": "/etc/cacerts", "readOnly": true},
        ],
    });
    let policy = values.text("values.global.imagePullPolicy");
    if !policy.is_empty() {
        container["imagePullPolicy"] = policy.into();
    }
    container
}

fn environment(values: &Values) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let plain = |name: &str, value: String| json!({"name": name, "value": value});
    let cluster = match values.text("values.global.multiCluster.clusterName") {
        name if name.is_empty() => "Kubernetes".to_owned(),
        name => name,
    };
    let mut list = vec![
        plain("REVISION", values.revision()),
        plain(
            "PILOT_CERT_PROVIDER",
            values.text("values.global.pilotCertProvider"),
        ),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        plain(
            "PILOT_TRACE_SAMPLING",
            values.text("values.pilot.traceSampling"),
        ),
        plain("CLUSTER_ID", cluster),
    ];
    list.extend(variables(values.get("values.pilot.env")));
    list
}

fn volumes() -> Value {
    json!([
        {"name": "local-certs", "emptyDir": {"medium": "Memory"}},
        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}]}},
        {"name": "cacerts", "secret": {"secretName": "cacerts", "optional": true}},
    ])
}
