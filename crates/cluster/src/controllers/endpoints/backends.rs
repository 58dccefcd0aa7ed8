//! Which pods stand behind a Service, and at which ports. Pure; shared by slices and Endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::controllers::object::{
    self, deleting, flag, int, list, name, namespace, plain_selector_matches, pod_ended, text, uid,
};

/// One pod behind a Service.
#[derive(Debug, Clone)]
pub struct Backend {
    /// All IPs of the pod, the primary first.
    pub ips: Vec<IpAddr>,
    /// Node name, or empty.
    pub node: String,
    /// The pod's own host name inside the headless Service, if any.
    pub hostname: Option<String>,
    /// Ready by its condition, or made so by `publishNotReadyAddresses`.
    pub ready: bool,
    /// Ready by its condition.
    pub serving: bool,
    /// Being deleted.
    pub terminating: bool,
    /// Ports in slice form, sorted: name, protocol, port, appProtocol.
    pub ports: Vec<Value>,
    /// Reference to the pod.
    pub target: Value,
}

/// The Service's `spec.selector`; `None` when it has none or is an ExternalName.
pub fn selector(service: &Value) -> Option<&serde_json::Map<String, Value>> {
    if text(service, "/spec/type") == "ExternalName" {
        return None;
    }
    object::map(service, "/spec/selector").filter(|selector| !selector.is_empty())
}

/// Whether the Service has no cluster IP.
pub fn headless(service: &Value) -> bool {
    text(service, "/spec/clusterIP") == "None"
}

/// The pods of a Service among those of its namespace, in the order given.
pub fn backends(service: &Value, pods: &[Arc<Value>]) -> Vec<Backend> {
    let selector = selector(service);
    let publish = flag(service, "/spec/publishNotReadyAddresses");
    pods.iter()
        .filter(|pod| plain_selector_matches(selector, pod) && !pod_ended(pod))
        .filter_map(|pod| {
            let ips = pod_ips(pod);
            if ips.is_empty() {
                return None;
            }
            let serving = object::condition_true(pod, "Ready");
            let terminating = deleting(pod);
            Some(Backend {
                ips,
                node: text(pod, "/spec/nodeName").to_owned(),
                hostname: hostname(service, pod),
                ready: publish || (serving && !terminating),
                serving,
                terminating,
                ports: ports(service, pod),
                target: json!({
                    "kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod),
                }),
            })
        })
        .collect()
}

fn pod_ips(pod: &Value) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = list(pod, "/status/podIPs")
        .iter()
        .filter_map(|entry| text(entry, "/ip").parse().ok())
        .collect();
    if ips.is_empty() {
        ips.extend(text(pod, "/status/podIP").parse::<IpAddr>());
    }
    ips
}

fn hostname(service: &Value, pod: &Value) -> Option<String> {
    let hostname = text(pod, "/spec/hostname");
    let belongs = text(pod, "/spec/subdomain") == name(service);
    (belongs && !hostname.is_empty()).then(|| hostname.to_owned())
}

/// The Service's ports as this pod serves them; a named target port that the pod lacks is left
/// out. Sorted, so that pods with the same ports have equal lists.
fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let mut ports: Vec<Value> = list(service, "/spec/ports")
        .iter()
        .filter_map(|port| {
            let protocol = protocol(port);
            let number = match port.get("targetPort") {
                Some(Value::String(named)) => match named.parse::<i64>() {
                    Ok(number) => number,
                    Err(_) => container_port(pod, named, protocol)?,
                },
                Some(Value::Number(number)) if number.as_i64() != Some(0) => number.as_i64()?,
                _ => int(port, "/port")?,
            };
            let mut entry =
                json!({"name": text(port, "/name"), "protocol": protocol, "port": number});
            if let Some(app) = port.get("appProtocol").filter(|app| app.is_string()) {
                entry["appProtocol"] = app.clone();
            }
            Some(entry)
        })
        .collect();
    ports.sort_by_cached_key(|p| (text(p, "/name").to_owned(), text(p, "/protocol").to_owned()));
    ports
}

fn protocol(port: &Value) -> &str {
    match text(port, "/protocol") {
        "" => "TCP",
        protocol => protocol,
    }
}

/// A container port by name, looked up in the containers and the native sidecars.
fn container_port(pod: &Value, named: &str, wanted: &str) -> Option<i64> {
    let sidecars = list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text(container, "/restartPolicy") == "Always");
    list(pod, "/spec/containers")
        .iter()
        .chain(sidecars)
        .flat_map(|container| list(container, "/ports"))
        .find(|port| text(port, "/name") == named && protocol(port) == wanted)
        .and_then(|port| int(port, "/containerPort"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A running pod `app: web` with a named port.
    pub fn pod(name: &str, ip: &str, ready: bool, http: i64) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}"),
                "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": http, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
    }

    /// A Service over `app: web` with a named and a numbered target port.
    pub fn service() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "svc", "labels": {"l": "1"}},
            "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "admin", "port": 99, "targetPort": 9901, "appProtocol": "http"}]},
        })
    }

    #[test]
    fn named_ports_resolve_per_pod() {
        let found = backends(&service(), &[pod("a", "10.0.0.1", true, 8080)]);
        assert_eq!(
            json!(found[0].ports),
            json!([
                {"name": "admin", "protocol": "TCP", "port": 9901, "appProtocol": "http"},
                {"name": "http", "protocol": "TCP", "port": 8080}])
        );
        let mut bare = (*pod("b", "10.0.0.2", true, 1)).clone();
        bare["spec"]["containers"] = json!([]);
        let found = backends(&service(), &[Arc::new(bare)]);
        assert_eq!(
            found[0].ports.len(),
            1,
            "the unknown named port is left out"
        );
    }

    #[test]
    fn ended_unselected_and_addressless_pods_are_left_out() {
        let mut ended = (*pod("a", "10.0.0.1", true, 1)).clone();
        ended["status"]["phase"] = json!("Succeeded");
        let mut other = (*pod("b", "10.0.0.2", true, 1)).clone();
        other["metadata"]["labels"]["app"] = json!("x");
        let pods = [Arc::new(ended), Arc::new(other), pod("c", "", true, 1)];
        assert!(backends(&service(), &pods).is_empty());
    }

    #[test]
    fn readiness_termination_and_publishing() {
        let mut leaving = (*pod("a", "10.0.0.1", true, 1)).clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let pods = [Arc::new(leaving), pod("b", "10.0.0.2", false, 1)];
        let state = |b: &Backend| (b.ready, b.serving, b.terminating);
        let found = backends(&service(), &pods);
        assert_eq!(state(&found[0]), (false, true, true));
        assert_eq!(state(&found[1]), (false, false, false));
        let mut publishing = service();
        publishing["spec"]["publishNotReadyAddresses"] = json!(true);
        assert_eq!(
            state(&backends(&publishing, &pods)[1]),
            (true, false, false)
        );
    }

    #[test]
    fn a_hostname_counts_only_in_its_own_subdomain() {
        let mut p = (*pod("a", "10.0.0.1", true, 1)).clone();
        p["spec"]["hostname"] = json!("db-0");
        p["spec"]["subdomain"] = json!("web");
        let with = backends(&service(), &[Arc::new(p.clone())]);
        assert_eq!(with[0].hostname.as_deref(), Some("db-0"));
        p["spec"]["subdomain"] = json!("elsewhere");
        assert!(backends(&service(), &[Arc::new(p)])[0].hostname.is_none());
    }
}
