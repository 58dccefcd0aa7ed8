//! The proxy's environment variables.

use serde_json::{Map, Value, json};

use super::annotation::{Annotations, PROXY_CONFIG};
use super::volumes::overrides_bootstrap;
use super::{InjectConfig, InjectError, PROXY, Workload};

/// MeshConfig's `defaultConfig` with the pod's own `proxy.istio.io/config` over it.
pub(super) fn proxy_config(
    config: &InjectConfig,
    annotations: &Annotations,
) -> Result<Value, InjectError> {
    let mut merged = match &config.mesh["defaultConfig"] {
        Value::Object(defaults) => Value::Object(defaults.clone()),
        _ => json!({}),
    };
    if let Some(own) = annotations.yaml(PROXY_CONFIG)? {
        super::overlay::merge(&mut merged, &own);
    }
    Ok(merged)
}

/// All variables, in the order that Istio's template has them.
pub(super) fn variables(
    config: &InjectConfig,
    pod: &Value,
    workload: &Workload,
    annotations: &Annotations,
    mode: &str,
) -> Result<Vec<Value>, InjectError> {
    let proxy_config = proxy_config(config, annotations)?;
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let limit = |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "0"}}});
    let plain = |name: &str, value: String| json!({"name": name, "value": value});
    let provider = config.text("global.pilotCertProvider");
    let mut list = vec![
        plain("PILOT_CERT_PROVIDER", provider.unwrap_or("istiod".into())),
        plain("CA_ADDR", ca_address(config)),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        limit("ISTIO_CPU_LIMIT", "limits.cpu"),
        plain("PROXY_CONFIG", proxy_config.to_string()),
        plain("ISTIO_META_POD_PORTS", ports(pod).to_string()),
        plain("ISTIO_META_APP_CONTAINERS", applications(pod)),
        limit("GOMEMLIMIT", "limits.memory"),
        plain("ISTIO_META_CLUSTER_ID", cluster(config)),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        plain("ISTIO_META_INTERCEPTION_MODE", mode.to_owned()),
    ];
    if let Some(network) = config.text("global.network") {
        list.push(plain("ISTIO_META_NETWORK", network));
    }
    if !workload.name.is_empty() {
        list.push(plain("ISTIO_META_WORKLOAD_NAME", workload.name.clone()));
        list.push(plain("ISTIO_META_OWNER", workload.owner()));
    }
    if overrides_bootstrap(annotations) {
        let path = "/etc/istio/custom-bootstrap/custom_bootstrap.json";
        list.push(plain("ISTIO_BOOTSTRAP_OVERRIDE", path.to_owned()));
    }
    let mesh = config.text("global.meshID");
    list.push(plain(
        "ISTIO_META_MESH_ID",
        mesh.unwrap_or(config.trust_domain()),
    ));
    list.push(plain("TRUST_DOMAIN", config.trust_domain()));
    list.extend(metadata(&proxy_config));
    Ok(list)
}

/// `proxyMetadata` of the proxy's configuration becomes variables.
pub(super) fn metadata(proxy_config: &Value) -> Vec<Value> {
    let entries = proxy_config["proxyMetadata"].as_object();
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    entries
        .into_iter()
        .flatten()
        .map(|(name, value)| json!({"name": name, "value": text(value)}))
        .collect()
}

fn ca_address(config: &InjectConfig) -> String {
    if let Some(address) = config.text("global.caAddress") {
        return address;
    }
    let suffix = match config.revision.as_str() {
        "default" => String::new(),
        revision => format!("-{revision}"),
    };
    format!("istiod{suffix}.{}.svc:15012", config.istio_namespace())
}

fn cluster(config: &InjectConfig) -> String {
    config
        .text("global.multiCluster.clusterName")
        .unwrap_or("Kubernetes".into())
}

/// The container ports of the application, as they are written.
fn ports(pod: &Value) -> Value {
    application_containers(pod)
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .map(|port| {
            let known = ["name", "containerPort", "hostPort", "protocol"];
            let kept = known.iter().filter_map(|key| Some((*key, port.get(*key)?)));
            Value::Object(
                kept.map(|(key, value)| (key.to_owned(), value.clone()))
                    .collect::<Map<_, _>>(),
            )
        })
        .collect()
}

fn applications(pod: &Value) -> String {
    let names: Vec<&str> = application_containers(pod)
        .filter_map(|container| container["name"].as_str())
        .collect();
    names.join(",")
}

fn application_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let list = pod["spec"]["containers"].as_array().into_iter().flatten();
    list.filter(|container| container["name"] != PROXY)
}
