//! A container's environment: sources in order, `$(VAR)` expansion, service links. Pure: what API
//! objects hold is passed in.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, Pod, ResourceFieldSelector, Secret, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What an environment may refer to.
#[derive(Debug, Default)]
pub struct EnvSources {
    /// ConfigMaps of the namespace by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets of the namespace by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Services of the namespace with a cluster address, for service links; and
    /// `default/kubernetes` always.
    pub services: Vec<Service>,
}

/// Facts about the pod that its spec does not hold.
#[derive(Debug, Clone, Default)]
pub struct PodFacts {
    /// Pod address, once known.
    pub pod_ip: String,
    /// Node address.
    pub host_ip: String,
    /// Allocatable CPU of the node in thousandths, for limits that are not set.
    pub node_milli_cpu: i64,
    /// Allocatable memory of the node in bytes.
    pub node_memory: i64,
}

/// Expands `$(VAR)`; `$$` is a literal `$`, an unknown variable stays as written.
pub fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let named = rest.strip_prefix("$(").and_then(|r| r.split_once(')'));
        match named {
            Some((name, after)) if known.contains_key(name) => {
                out.push_str(&known[name]);
                rest = after;
            }
            Some((name, after)) => {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The environment in order: service links, `envFrom`, `env`.
///
/// # Errors
/// The message of a `CreateContainerConfigError` when something required is missing.
pub fn build(
    pod: &Pod,
    container: &Container,
    sources: &EnvSources,
    facts: &PodFacts,
) -> Result<Vec<(String, String)>, String> {
    let mut known = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |known: &mut BTreeMap<String, String>, name: String, value: String| {
        if known.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    let links = pod
        .spec
        .as_ref()
        .and_then(|s| s.enable_service_links)
        .unwrap_or(true);
    for (name, value) in service_links(&sources.services, links) {
        set(&mut known, name, value);
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (name, value) in from_source(source, sources)? {
            set(&mut known, format!("{prefix}{name}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, container, variable, sources, facts, &known)? {
            set(&mut known, variable.name.clone(), value);
        }
    }
    Ok(order
        .into_iter()
        .map(|name| (name.clone(), known.remove(&name).unwrap_or_default()))
        .collect())
}

fn from_source(
    source: &k8s_openapi::api::core::v1::EnvFromSource,
    sources: &EnvSources,
) -> Result<Vec<(String, String)>, String> {
    if let Some(reference) = &source.config_map_ref {
        return match sources.config_maps.get(&reference.name) {
            Some(map) => Ok(map.data.clone().unwrap_or_default().into_iter().collect()),
            None if reference.optional == Some(true) => Ok(Vec::new()),
            None => Err(format!("configmap {:?} not found", reference.name)),
        };
    }
    if let Some(reference) = &source.secret_ref {
        return match sources.secrets.get(&reference.name) {
            Some(secret) => Ok(secret_texts(secret)),
            None if reference.optional == Some(true) => Ok(Vec::new()),
            None => Err(format!("secret {:?} not found", reference.name)),
        };
    }
    Ok(Vec::new())
}

fn secret_texts(secret: &Secret) -> Vec<(String, String)> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

fn value_of(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    sources: &EnvSources,
    facts: &PodFacts,
    known: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(
            variable.value.as_deref().unwrap_or_default(),
            known,
        )));
    };
    if let Some(field) = &source.field_ref {
        return pod_field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_field(pod, container, resource, facts).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let map = sources.config_maps.get(&key.name);
        let value = map.and_then(|m| m.data.as_ref()?.get(&key.key).cloned());
        return match (value, key.optional) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(true)) => Ok(None),
            (None, _) if map.is_none() => Err(format!("configmap {:?} not found", key.name)),
            (None, _) => Err(missing_key(&key.key, "ConfigMap", pod, &key.name)),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let secret = sources.secrets.get(&key.name);
        let value = secret.and_then(|s| s.data.as_ref()?.get(&key.key));
        return match (value, key.optional) {
            (Some(value), _) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            (None, Some(true)) => Ok(None),
            (None, _) if secret.is_none() => Err(format!("secret {:?} not found", key.name)),
            (None, _) => Err(missing_key(&key.key, "Secret", pod, &key.name)),
        };
    }
    Ok(Some(String::new()))
}

fn missing_key(key: &str, kind: &str, pod: &Pod, name: &str) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    format!("couldn't find key {key} in {kind} {namespace}/{name}")
}

/// A field of the pod for the downward API, in environment and volumes.
///
/// # Errors
/// When the path names nothing that the downward API offers.
pub fn pod_field(pod: &Pod, path: &str, facts: &PodFacts) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let lines = |map: Option<&BTreeMap<String, String>>| {
        let pairs: Vec<String> = map
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={v:?}"))
            .collect();
        pairs.join("\n")
    };
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        path => {
            let keyed = |prefix: &str, map: Option<&BTreeMap<String, String>>| {
                let key = path
                    .strip_prefix(prefix)?
                    .strip_prefix("['")?
                    .strip_suffix("']")?;
                Some(map.and_then(|m| m.get(key)).cloned().unwrap_or_default())
            };
            return keyed("metadata.labels", meta.labels.as_ref())
                .or_else(|| keyed("metadata.annotations", meta.annotations.as_ref()))
                .ok_or_else(|| format!("unsupported field path {path:?}"));
        }
    })
}

/// A container's resource request or limit divided by the divisor, rounded up.
///
/// # Errors
/// When resource, container or divisor make no sense.
pub fn resource_field(
    pod: &Pod,
    container: &Container,
    field: &ResourceFieldSelector,
    facts: &PodFacts,
) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let container = match field.container_name.as_deref().filter(|n| !n.is_empty()) {
        None => container,
        Some(name) => spec
            .and_then(|s| {
                s.containers
                    .iter()
                    .chain(s.init_containers.iter().flatten())
                    .find(|c| c.name == name)
            })
            .ok_or_else(|| format!("container {name:?} not found"))?,
    };
    let bad = || format!("unsupported resource {:?}", field.resource);
    let (set, resource) = field.resource.split_once('.').ok_or_else(bad)?;
    let resources = container.resources.as_ref();
    let (map, is_limit) = match set {
        "limits" => (resources.and_then(|r| r.limits.as_ref()), true),
        "requests" => (resources.and_then(|r| r.requests.as_ref()), false),
        _ => return Err(bad()),
    };
    let default = match (resource, is_limit) {
        ("cpu", true) => facts.node_milli_cpu,
        ("memory", true) => facts.node_memory.saturating_mul(1000),
        ("cpu" | "memory" | "ephemeral-storage", _) => 0,
        _ => return Err(bad()),
    };
    let amount = match map.and_then(|m| m.get(resource)) {
        Some(quantity) => milli(quantity).ok_or_else(bad)?,
        None => default,
    };
    let divisor = field
        .divisor
        .as_ref()
        .filter(|q| q.0 != "0" && !q.0.is_empty());
    let divisor = match divisor {
        Some(quantity) => milli(quantity).filter(|d| *d > 0).ok_or_else(bad)?,
        None => 1000,
    };
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

/// A quantity in thousandths; `None` when malformed or too large.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+'));
    let (digits, suffix) = text.split_at(split.unwrap_or(text.len()));
    let factor: i128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        _ => return None,
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    let value = number.checked_mul(factor)?;
    i64::try_from(value / scale + i128::from(value % scale > 0)).ok()
}

/// The variables that announce Services: `X_SERVICE_HOST`, `X_PORT_80_TCP_ADDR` and so on. Without
/// `all` only those of `default/kubernetes`.
fn service_links(services: &[Service], all: bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let is_api =
            name == "kubernetes" && service.metadata.namespace.as_deref() == Some("default");
        let Some(spec) = service.spec.as_ref().filter(|_| all || is_api) else {
            continue;
        };
        let ip = match spec.cluster_ip.as_deref() {
            None | Some("" | "None") => continue,
            Some(ip) => ip,
        };
        let Some(first) = spec.ports.as_ref().and_then(|p| p.first()) else {
            continue;
        };
        let prefix = variable_name(name);
        let mut add =
            |suffix: String, value: String| out.push((format!("{prefix}_{suffix}"), value));
        add("SERVICE_HOST".into(), ip.to_owned());
        add("SERVICE_PORT".into(), first.port.to_string());
        for port in spec.ports.iter().flatten() {
            if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                add(
                    format!("SERVICE_PORT_{}", variable_name(name)),
                    port.port.to_string(),
                );
            }
        }
        let url = |p: &k8s_openapi::api::core::v1::ServicePort| {
            let protocol = p.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            format!("{protocol}://{ip}:{}", p.port)
        };
        add("PORT".into(), url(first));
        for port in spec.ports.iter().flatten() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let base = format!("PORT_{}_{protocol}", port.port);
            add(base.clone(), url(port));
            add(format!("{base}_PROTO"), protocol.to_lowercase());
            add(format!("{base}_PORT"), port.port.to_string());
            add(format!("{base}_ADDR"), ip.to_owned());
        }
    }
    out
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn references_expand() {
        let vars = known(&[("A", "1"), ("B", "$(A)")]);
        for (text, expected) in [
            ("x$(A)y", "x1y"),
            ("$$(A)", "$(A)"),
            ("$(NO)$(A)", "$(NO)1"),
            ("$(B)", "$(A)"),
            ("$", "$"),
            ("$(A", "$(A"),
            ("a$b$$c", "a$b$c"),
        ] {
            assert_eq!(expand(text, &vars), expected, "{text}");
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "web"},
                "annotations": {"note": "a \"b\""}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [{
                "name": "c",
                "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}},
                "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "no", "optional": true}}],
                "env": [
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "URL", "value": "http://$(IP):$(CM_port)/$(LATER)"},
                    {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x", "optional": true}}},
                    {"name": "CM_port", "value": "9"}
                ]}]}
        }))
        .unwrap()
    }

    fn sources() -> EnvSources {
        let cm = serde_json::from_value(json!({"metadata": {}, "data": {"port": "80"}})).unwrap();
        let secret =
            serde_json::from_value(json!({"metadata": {}, "data": {"k": "aGk="}})).unwrap();
        let services = json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
            {"metadata": {"name": "my-db", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 53, "protocol": "UDP"}]}}
        ]);
        EnvSources {
            config_maps: [("cm".to_owned(), cm)].into(),
            secrets: [("s".to_owned(), secret)].into(),
            services: serde_json::from_value(services).unwrap(),
        }
    }

    #[test]
    fn the_environment_is_built_in_order() {
        let facts = PodFacts {
            pod_ip: "10.244.1.2".into(),
            ..PodFacts::default()
        };
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env = build(&pod, container, &sources(), &facts).unwrap();
        let get = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        assert_eq!(get("URL"), Some("http://10.244.1.2:80/$(LATER)"));
        assert_eq!(get("CM_port"), Some("9"));
        assert_eq!(get("APP"), Some("web"));
        assert_eq!(get("CPU"), Some("2"));
        assert_eq!(get("MEM"), Some("64"));
        assert_eq!(get("KEY"), Some("hi"));
        assert_eq!(get("OPT"), None);
        assert_eq!(get("KUBERNETES_SERVICE_PORT_HTTPS"), Some("443"));
        assert_eq!(get("MY_DB_PORT_53_UDP_ADDR"), Some("10.96.0.9"));
        assert_eq!(get("MY_DB_PORT"), Some("udp://10.96.0.9:53"));
    }

    #[test]
    fn missing_sources_are_named() {
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let facts = PodFacts::default();
        let mut without = sources();
        without.config_maps.clear();
        assert_eq!(
            build(&pod, container, &without, &facts),
            Err("configmap \"cm\" not found".into())
        );
        let mut without = sources();
        without.secrets.get_mut("s").unwrap().data = None;
        let error = build(&pod, container, &without, &facts).unwrap_err();
        assert_eq!(error, "couldn't find key k in Secret default/s");
        assert!(pod_field(&pod, "spec.containers", &facts).is_err());
        assert_eq!(
            pod_field(&pod, "metadata.annotations", &facts).unwrap(),
            "note=\"a \\\"b\\\"\""
        );
    }

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("1", 1000),
            ("250m", 250),
            ("0.5", 500),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("2k", 2_000_000),
        ] {
            assert_eq!(milli(&Quantity(text.into())), Some(expected), "{text}");
        }
        assert_eq!(milli(&Quantity("x".into())), None);
    }
}
