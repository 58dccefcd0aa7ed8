//! The templates `sidecar` and `gateway`, and how their parts meet those of the pod.

use serde_json::{Map, Value, json};

use super::annotation::{Annotations, OVERRIDES};
use super::containers::{Settings, init, proxy};
use super::metadata;
use super::overlay::merge;
use super::{INIT, InjectConfig, InjectError, PROXY, VALIDATION, Workload, probes, volumes};

/// The injected pod.
pub(super) fn render(
    config: &InjectConfig,
    original: &Value,
    workload: &Workload,
) -> Result<Value, InjectError> {
    if !original["spec"]["containers"].is_array() {
        return Err(InjectError::Shape(
            "the pod has no spec.containers".to_owned(),
        ));
    }
    let annotations = Annotations::of(original);
    let templates = metadata::templates(config, &annotations)?;
    let mut pod = original.clone();
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    for name in &templates {
        match name.as_str() {
            "sidecar" => sidecar(config, &mut pod, workload, &annotations)?,
            "gateway" => gateway(config, &mut pod, workload, &annotations)?,
            custom => merge(&mut pod, &config.templates[custom]),
        }
    }
    overrides(&annotations, &mut pod)?;
    metadata::label(config, &mut pod, workload);
    metadata::status(config, original, &mut pod);
    Ok(pod)
}

fn sidecar(
    config: &InjectConfig,
    pod: &mut Value,
    workload: &Workload,
    annotations: &Annotations,
) -> Result<(), InjectError> {
    let settings = Settings::read(config, annotations)?;
    let sidecar = proxy(&settings, pod, workload, "sidecar")?;
    let rules = (settings.mode != "NONE")
        .then(|| init(&settings))
        .transpose()?;
    let own_proxy = take(pod, PROXY);
    let own_init = take(pod, INIT);
    let kept = rewrite_probes(config, annotations, pod)?;
    let scrape = metadata::prometheus(config, pod)?;
    let mut sidecar = sidecar;
    append_variables(&mut sidecar, kept, scrape);
    let sidecar = overlay(sidecar, own_proxy, pod);
    let rules = rules.map(|rules| overlay(rules, own_init, pod));
    place(pod, &settings, sidecar, rules);
    add_volumes(config, annotations, pod)?;
    let names = [
        "kubectl.kubernetes.io/default-container",
        "kubectl.kubernetes.io/default-logs-container",
    ];
    metadata::default_container(pod, names);
    Ok(())
}

/// A gateway is a pod whose only container is the proxy; there is nothing to capture.
fn gateway(
    config: &InjectConfig,
    pod: &mut Value,
    workload: &Workload,
    annotations: &Annotations,
) -> Result<(), InjectError> {
    let settings = Settings::read(config, annotations)?;
    let router = proxy(&settings, pod, workload, "router")?;
    let place = position(pod, PROXY);
    let own = take(pod, PROXY);
    let scrape = metadata::prometheus(config, pod)?;
    let mut router = router;
    append_variables(&mut router, Map::new(), scrape);
    let router = overlay(router, own, pod);
    let list = containers(pod, "containers");
    list.insert(place.unwrap_or(list.len()).min(list.len()), router);
    add_volumes(config, annotations, pod)
}

/// Takes a container that the user wrote out of the pod.
fn take(pod: &mut Value, name: &str) -> Option<Value> {
    for list in ["containers", "initContainers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        if let Some(at) = containers.iter().position(|c| c["name"] == name) {
            return Some(containers.remove(at));
        }
    }
    None
}

fn position(pod: &Value, name: &str) -> Option<usize> {
    let list = pod["spec"]["containers"].as_array()?;
    list.iter().position(|c| c["name"] == name)
}

/// The template's container with the user's over it; image `auto` means the template's. What
/// the user wrote is kept in an annotation, as a second injection would need it.
fn overlay(mut container: Value, own: Option<Value>, pod: &mut Value) -> Value {
    let Some(mut own) = own else {
        return container;
    };
    if own["image"] == "auto"
        && let Some(own) = own.as_object_mut()
    {
        own.shift_remove("image");
    }
    let list = if own["name"] == PROXY {
        "containers"
    } else {
        "initContainers"
    };
    merge(&mut container, &own);
    let annotations = metadata::map(pod, "annotations");
    let known = annotations.get(OVERRIDES).and_then(Value::as_str);
    let mut all: Value = known
        .and_then(|text| serde_json::from_str(text).ok())
        .filter(Value::is_object)
        .unwrap_or(json!({}));
    let mut containers = all[list].as_array().cloned().unwrap_or_default();
    match containers.iter_mut().find(|c| c["name"] == own["name"]) {
        Some(known) => merge(known, &own),
        None => containers.push(own),
    }
    all[list] = containers.into();
    annotations.insert(OVERRIDES.to_owned(), all.to_string().into());
    container
}

/// Changes that annotation `proxy.istio.io/overrides` asks for.
fn overrides(annotations: &Annotations, pod: &mut Value) -> Result<(), InjectError> {
    let Some(wanted) = annotations.json(OVERRIDES)? else {
        return Ok(());
    };
    for list in ["containers", "initContainers"] {
        for change in wanted[list].as_array().into_iter().flatten() {
            let containers = pod["spec"][list].as_array_mut().into_iter().flatten();
            for container in containers {
                if container["name"] == change["name"] {
                    let mut change = change.clone();
                    if change["image"] == "auto"
                        && let Some(change) = change.as_object_mut()
                    {
                        change.shift_remove("image");
                    }
                    merge(container, &change);
                }
            }
        }
    }
    Ok(())
}

fn rewrite_probes(
    config: &InjectConfig,
    annotations: &Annotations,
    pod: &mut Value,
) -> Result<Map<String, Value>, InjectError> {
    let own = annotations.flag("sidecar.istio.io/rewriteAppHTTPProbers")?;
    let mesh = config.flag("sidecarInjectorWebhook.rewriteAppHTTPProbe");
    if !own.or(mesh).unwrap_or(true) {
        return Ok(Map::new());
    }
    Ok(probes::rewrite(&mut pod["spec"], 15020))
}

fn append_variables(container: &mut Value, probes: Map<String, Value>, scrape: Option<Value>) {
    let Some(list) = container["env"].as_array_mut() else {
        return;
    };
    if !probes.is_empty() {
        let probes = Value::Object(probes).to_string();
        list.push(json!({"name": "ISTIO_KUBE_APP_PROBERS", "value": probes}));
    }
    if let Some(scrape) = scrape {
        list.push(json!({"name": "ISTIO_PROMETHEUS_ANNOTATIONS", "value": scrape.to_string()}));
    }
}

/// Order of containers. Classic: the rules last among init containers, the proxy last among
/// containers, or first where the application waits for it. Native: rules, then proxy, then
/// the init containers of the pod, which so have the mesh already.
fn place(pod: &mut Value, settings: &Settings<'_>, proxy: Value, rules: Option<Value>) {
    if settings.native {
        let list = containers(pod, "initContainers");
        list.insert(0, proxy);
        list.splice(0..0, rules);
        return;
    }
    if let Some(rules) = rules {
        let list = containers(pod, "initContainers");
        // Validation must see the rules before anything else runs.
        let at = if rules["name"] == VALIDATION {
            0
        } else {
            list.len()
        };
        list.insert(at, rules);
    }
    let list = containers(pod, "containers");
    let at = if settings.hold { 0 } else { list.len() };
    list.insert(at, proxy);
}

fn containers<'a>(pod: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let place = &mut pod["spec"][name];
    if !place.is_array() {
        *place = json!([]);
    }
    match place {
        Value::Array(list) => list,
        _ => unreachable!("a list was just put there"),
    }
}

fn add_volumes(
    config: &InjectConfig,
    annotations: &Annotations,
    pod: &mut Value,
) -> Result<(), InjectError> {
    let new = volumes::volumes(config, annotations)?;
    let list = containers(pod, "volumes");
    for volume in new {
        if !list.iter().any(|known| known["name"] == volume["name"]) {
            list.push(volume);
        }
    }
    let secrets = config
        .value("global.imagePullSecrets")
        .and_then(Value::as_array);
    for name in secrets.into_iter().flatten() {
        let list = containers(pod, "imagePullSecrets");
        if !list.iter().any(|known| known["name"] == *name) {
            list.push(json!({"name": name}));
        }
    }
    Ok(())
}
