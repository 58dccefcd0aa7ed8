//! Node objects, their leases, and the DNS Service: what the agent tells the API about itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::agent::{Agent, NodeSpec};
use crate::api::resource::{ENDPOINT_SLICES, LEASES, NODES, SERVICES};
use crate::api::{Api, ApiError};
use crate::network::host::NodeNetwork;

/// How often leases are renewed; controllers give a node up after four times as long.
const RENEW: Duration = Duration::from_secs(10);
/// How often node statuses are written.
const HEARTBEAT: u32 = 30;
const LEASE_SECONDS: u64 = 40;

/// The manager of the fields that the agent applies.
const MANAGER: &str = "kubelet";

/// What the machine says about itself.
#[derive(Debug, Clone, Default)]
struct Machine {
    kernel: String,
    os_image: String,
    machine_id: String,
    boot_id: String,
}

fn read_machine() -> Machine {
    // Each is decoration: a machine without the file shows an empty field.
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let release = read("/etc/os-release");
    let pretty = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux");
    Machine {
        kernel: read("/proc/sys/kernel/osrelease"),
        os_image: pretty.trim_matches('"').to_owned(),
        machine_id: read("/etc/machine-id"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
    }
}

/// The name of an architecture as Kubernetes writes it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn node_object(spec: &NodeSpec, network: &NodeNetwork) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": spec.name,
            "labels": {
                "kubernetes.io/hostname": spec.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture(),
                "beta.kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": architecture(),
                "topology.kubernetes.io/region": spec.region,
                "topology.kubernetes.io/zone": spec.zone,
            },
        },
        "spec": {"podCIDR": network.range.to_string(), "podCIDRs": [network.range.to_string()]},
    })
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    since: &str,
    now: &str,
) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": since})
}

fn node_status(
    agent: &Agent,
    spec: &NodeSpec,
    network: &NodeNetwork,
    machine: &Machine,
    since: &str,
) -> Value {
    let now = format!("{:.0}", Timestamp::now());
    let kib = agent.memory / 1024;
    let capacity = json!({"cpu": agent.cpus.to_string(), "memory": format!("{kib}Ki"), "pods": "250",
        "ephemeral-storage": "100Gi"});
    let no = |kind, reason, message| condition(kind, "False", reason, message, since, &now);
    json!({
        "capacity": capacity, "allocatable": capacity,
        "addresses": [
            {"type": "InternalIP", "address": network.address.to_string()},
            {"type": "Hostname", "address": spec.name},
        ],
        "conditions": [
            no("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            no("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            no("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status", since, &now),
        ],
        "nodeInfo": {
            "architecture": architecture(), "operatingSystem": "linux",
            "kernelVersion": machine.kernel, "osImage": machine.os_image,
            "machineID": machine.machine_id, "systemUUID": machine.machine_id, "bootID": machine.boot_id,
            "containerRuntimeVersion": agent.options.runtime_version,
            "kubeletVersion": agent.options.version, "kubeProxyVersion": agent.options.version,
        },
    })
}

async fn write_node(
    agent: &Agent,
    spec: &NodeSpec,
    machine: &Machine,
    since: &str,
) -> Result<(), ApiError> {
    let Some(network) = agent.node(&spec.name) else {
        return Ok(());
    };
    let status = json!({"status": node_status(agent, spec, network, machine, since)});
    let api = &agent.api;
    match api
        .merge_patch(&NODES, None, &spec.name, &status, Some("status"))
        .await
    {
        Err(error) if error.code == 404 => {}
        other => return other.map(drop),
    }
    api.create(&NODES, None, node_object(spec, network)).await?;
    api.merge_patch(&NODES, None, &spec.name, &status, Some("status"))
        .await
        .map(drop)
}

/// Brings an existing node's labels and range up to date.
async fn adopt_node(agent: &Agent, spec: &NodeSpec) -> Result<(), ApiError> {
    let Some(network) = agent.node(&spec.name) else {
        return Ok(());
    };
    let object = node_object(spec, network);
    let patch =
        json!({"metadata": {"labels": object["metadata"]["labels"]}, "spec": object["spec"]});
    match agent
        .api
        .merge_patch(&NODES, None, &spec.name, &patch, None)
        .await
    {
        Err(error) if error.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

async fn renew_lease(api: &Api, node: &str) -> Result<(), ApiError> {
    let now = format!("{:.6}", Timestamp::now());
    let namespace = Some("kube-node-lease");
    let patch = json!({"spec": {"renewTime": now}});
    match api
        .merge_patch(&LEASES, namespace, node, &patch, None)
        .await
    {
        Err(error) if error.code == 404 => {}
        other => return other.map(drop),
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": node, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
    });
    api.create(&LEASES, namespace, lease).await.map(drop)
}

/// Registers the nodes.
///
/// # Errors
/// When the API refuses.
pub async fn register(agent: &Agent) -> Result<(), ApiError> {
    let machine = read_machine();
    let since = format!("{:.0}", Timestamp::now());
    for spec in &agent.nodes {
        adopt_node(agent, spec).await?;
        write_node(agent, spec, &machine, &since).await?;
        renew_lease(&agent.api, &spec.name).await?;
    }
    Ok(())
}

/// Whether the API still takes the node for ready: a pause of this process may have changed that.
async fn is_ready(api: &Api, node: &str) -> bool {
    let Ok(object) = api.get(&NODES, None, node).await else {
        return false;
    };
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Renews leases and statuses until dropped.
pub async fn keep_alive(agent: Arc<Agent>) {
    let machine = read_machine();
    let since = format!("{:.0}", Timestamp::now());
    let mut round = 0_u32;
    loop {
        tokio::time::sleep(RENEW).await;
        round = round.wrapping_add(1);
        for spec in &agent.nodes {
            let lease = renew_lease(&agent.api, &spec.name).await;
            let due = round.is_multiple_of(HEARTBEAT) || !is_ready(&agent.api, &spec.name).await;
            let status = if due {
                write_node(&agent, spec, &machine, &since).await
            } else {
                Ok(())
            };
            if let Err(error) = lease.and(status) {
                tracing::warn!(%error, node = spec.name, "the node's sign of life was not written");
            }
        }
    }
}

/// Makes Service `kube-system/kube-dns` (unless it exists) and leads it to the agent's DNS server.
///
/// # Errors
/// When the API refuses.
pub async fn announce_dns(agent: &Agent, port: u16) -> Result<(), ApiError> {
    let options = &agent.options;
    let ports = |target: Value| {
        json!([
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": target},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": target},
        ])
    };
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {"clusterIP": options.dns_ip.to_string(), "ports": ports(json!(port))},
    });
    match options_created(
        agent
            .api
            .create(&SERVICES, Some("kube-system"), service)
            .await,
    ) {
        Ok(()) => {}
        Err(error) => return Err(error),
    }
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
            "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "lateen-node-agent",
            "k8s-app": "kube-dns",
        }},
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [options.network.address.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": agent.nodes.first().map(|n| n.name.clone()),
            "zone": agent.nodes.first().map(|n| n.zone.clone()),
        }],
        "ports": [
            {"name": "dns", "port": port, "protocol": "UDP"},
            {"name": "dns-tcp", "port": port, "protocol": "TCP"},
        ],
    });
    agent
        .api
        .apply(&ENDPOINT_SLICES, Some("kube-system"), slice, MANAGER)
        .await
        .map(drop)
}

/// "Exists already" is fine.
fn options_created<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if error.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
