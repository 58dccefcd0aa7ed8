//! Labels and annotations of an injected pod.

use serde_json::{Map, Value, json};

use super::annotation::{Annotations, REVISION, STATUS, TEMPLATES, text_map};
use super::{InjectConfig, InjectError, PROXY, Workload};

/// Adds what every injected pod carries; what the pod says itself stays.
pub(super) fn label(config: &InjectConfig, pod: &mut Value, workload: &Workload) {
    let known = text_map(&pod["metadata"]["labels"]);
    let first = |names: &[&str]| names.iter().find_map(|name| known.get(*name)).cloned();
    let name = first(&["app.kubernetes.io/name", "app"]).unwrap_or(workload.name.clone());
    let revision = first(&["app.kubernetes.io/version", "version"]).unwrap_or("latest".into());
    let labels = map(pod, "labels");
    let mut add = |key: &str, value: String| {
        if !labels.contains_key(key) {
            labels.insert(key.to_owned(), value.into());
        }
    };
    add("security.istio.io/tlsMode", "istio".into());
    if !name.is_empty() {
        add("service.istio.io/canonical-name", name);
    }
    add("service.istio.io/canonical-revision", revision);
    let annotations = map(pod, "annotations");
    for (key, value) in &config.injected_annotations {
        annotations.entry(key.clone()).or_insert(value.clone());
    }
    annotations.insert(REVISION.to_owned(), config.revision.clone().into());
}

/// The containers that `kubectl logs` and `kubectl exec` mean when none is named.
pub(super) fn default_container(pod: &mut Value, names: [&str; 2]) {
    let list = pod["spec"]["containers"].as_array().into_iter().flatten();
    let first = list
        .into_iter()
        .find_map(|container| container["name"].as_str().filter(|name| *name != PROXY));
    let Some(first) = first.map(str::to_owned) else {
        return;
    };
    let annotations = map(pod, "annotations");
    for name in names {
        annotations.entry(name).or_insert(first.clone().into());
    }
}

/// Points Prometheus at the agent, which merges the application's metrics into its own; gives
/// the application's own settings for the agent, where it has some.
pub(super) fn prometheus(
    config: &InjectConfig,
    pod: &mut Value,
) -> Result<Option<Value>, InjectError> {
    let annotations = Annotations::of(pod);
    let merge = annotations.flag("prometheus.istio.io/merge-metrics")?;
    let mesh = config.mesh["enablePrometheusMerge"].as_bool();
    if !merge.or(mesh).unwrap_or(true) {
        return Ok(None);
    }
    let own = |name: &str| annotations.get(&format!("prometheus.io/{name}"));
    if own("port") == Some("15020") {
        return Ok(None);
    }
    let mut settings = Map::new();
    for name in ["scrape", "path", "port"] {
        if let Some(value) = own(name) {
            settings.insert(name.to_owned(), value.into());
        }
    }
    let map = map(pod, "annotations");
    for (name, value) in [
        ("scrape", "true"),
        ("port", "15020"),
        ("path", "/stats/prometheus"),
    ] {
        map.insert(format!("prometheus.io/{name}"), value.into());
    }
    Ok((!settings.is_empty()).then_some(Value::Object(settings)))
}

/// The status annotation: what was put in.
pub(super) fn status(config: &InjectConfig, before: &Value, pod: &mut Value) {
    let added = |list: &str| -> Vec<Value> {
        let names = |of: &Value| -> Vec<Value> {
            let list = of["spec"][list].as_array().into_iter().flatten();
            list.map(|entry| entry["name"].clone()).collect()
        };
        let old = names(before);
        names(pod)
            .into_iter()
            .filter(|name| !old.contains(name))
            .collect()
    };
    let orempty = |list: Vec<Value>| {
        if list.is_empty() {
            Value::Null
        } else {
            list.into()
        }
    };
    let status = json!({
        "initContainers": orempty(added("initContainers")),
        "containers": orempty(added("containers")),
        "volumes": orempty(added("volumes")),
        "imagePullSecrets": orempty(added("imagePullSecrets")),
        "revision": config.revision,
    });
    map(pod, "annotations").insert(STATUS.to_owned(), status.to_string().into());
}

/// The templates that the pod asks for.
///
/// # Errors
/// One that is not there.
pub(super) fn templates(
    config: &InjectConfig,
    annotations: &Annotations,
) -> Result<Vec<String>, InjectError> {
    let asked: Vec<String> = match annotations.get(TEMPLATES) {
        Some(text) => {
            let words = text.split(',').map(str::trim);
            words
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        }
        None => config.default_templates.clone(),
    };
    let mut known = vec!["sidecar", "gateway"];
    known.extend(config.templates.keys().map(String::as_str));
    match asked.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(InjectError::Template(name.clone(), known.join(", "))),
        None => Ok(asked),
    }
}

/// A map of the pod's metadata, made when missing.
pub(super) fn map<'a>(pod: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let place = &mut pod["metadata"][name];
    if !place.is_object() {
        *place = json!({});
    }
    match place {
        Value::Object(map) => map,
        _ => unreachable!("an object was just put there"),
    }
}
