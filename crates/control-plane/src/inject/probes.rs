//! Probes and lifecycle hooks of the application go to the agent (port 15020), which asks the
//! application: with mesh TLS the kubelet could not, and its traffic stays out of metrics.

use serde_json::{Map, Value, json};

use super::PROXY;

/// Rewrites the HTTP, TCP and gRPC probes and hooks of all application containers (init
/// containers that stay included) and gives the originals by their new paths; `agent` is the
/// agent's port. Exec probes and probes of the agent itself stay.
pub(super) fn rewrite(spec: &mut Value, agent: i64) -> Map<String, Value> {
    let mut kept = Map::new();
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if container["name"] != PROXY {
                rewrite_container(container, agent, &mut kept);
            }
        }
    }
    kept
}

fn rewrite_container(container: &mut Value, agent: i64, kept: &mut Map<String, Value>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    for (probe, path) in [
        ("readinessProbe", "readyz"),
        ("livenessProbe", "livez"),
        ("startupProbe", "startupz"),
    ] {
        if let Some(probe) = container.get_mut(probe) {
            let path = format!("/app-health/{name}/{path}");
            if let Some(mut original) = redirect(probe, &path, &ports, agent) {
                if let Some(seconds) = probe.get("timeoutSeconds") {
                    original.insert("timeoutSeconds".to_owned(), seconds.clone());
                }
                kept.insert(path, Value::Object(original));
            }
        }
    }
    for (hook, path) in [("preStop", "prestopz"), ("postStart", "poststartz")] {
        let found = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook));
        if let Some(hook) = found {
            let path = format!("/app-lifecycle/{name}/{path}");
            if let Some(original) = redirect(hook, &path, &ports, agent) {
                kept.insert(path, Value::Object(original));
            }
        }
    }
}

/// Points a handler at the agent; gives what it was, its port as a number.
fn redirect(
    handler: &mut Value,
    path: &str,
    ports: &Value,
    agent: i64,
) -> Option<Map<String, Value>> {
    let handler = handler.as_object_mut()?;
    let kind = ["httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .find(|kind| handler.get(*kind).is_some_and(Value::is_object))?;
    let place = handler.keys().position(|key| key == kind)?;
    let mut original = handler.get(kind)?.clone();
    let port = number(&original["port"], ports)?;
    if port == agent {
        return None;
    }
    original["port"] = port.into();
    handler.shift_remove(kind);
    let mut get = json!({"path": path, "port": agent});
    if let Some(headers) = original.get("httpHeaders") {
        get["httpHeaders"] = headers.clone();
    }
    handler.shift_insert(place, "httpGet".to_owned(), get);
    Some(Map::from_iter([(kind.to_owned(), original)]))
}

/// A port number, or the number of the container port of that name.
fn number(port: &Value, ports: &Value) -> Option<i64> {
    if let Some(number) = port.as_i64() {
        return Some(number);
    }
    let name = port.as_str()?;
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let mut named = ports.as_array().into_iter().flatten();
    named.find(|port| port["name"] == name)?["containerPort"].as_i64()
}
