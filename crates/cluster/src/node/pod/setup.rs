//! Laying the ground for a pod's containers: volumes, small files, namespaces, network.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::network::host::NodeNetwork;
use crate::node::agent::Agent;
use crate::node::env::PodFacts;
use crate::node::event::Level;
use crate::node::files::{self, DnsFacts};
use crate::node::process::sandbox::Sandbox;
use crate::node::process::spec::SandboxSpec;
use crate::node::volume::{VolumeContext, Volumes};

/// Kernel settings of every pod: no privileged ports, ping for all, no redirects (the bridge is
/// the only way anyhow), no IPv6 but on the loopback (the cluster has no IPv6 addresses, and a
/// hairpin port would show an interface its own neighbour queries), and news to neighbours when an
/// address has a new owner.
const SYSCTLS: [(&str, &str); 6] = [
    ("net/ipv4/conf/default/arp_notify", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
];

/// What [`lay`] needs.
pub struct Job {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub node: NodeNetwork,
    /// The address of an earlier sandbox of the pod.
    pub address: Option<Ipv4Addr>,
    pub facts: PodFacts,
    pub dns: DnsFacts,
    /// A lost sandbox of the pod; its interface has the name that the new one gets.
    pub lost: Option<Box<Ground>>,
}

/// A pod's volumes and namespaces.
#[derive(Debug)]
pub struct Ground {
    pub sandbox: Arc<Sandbox>,
    pub volumes: Arc<Volumes>,
    pub address: Option<Ipv4Addr>,
    interface: Option<String>,
}

impl Ground {
    /// Ends all processes of the pod and removes its interface.
    pub async fn clear(&self, agent: &Agent) {
        self.sandbox.destroy().await;
        if let Some(interface) = &self.interface
            && let Err(error) = agent.options.network.links.remove(interface).await
        {
            tracing::warn!(%error, %interface, "a pod's interface was left behind");
        }
    }
}

/// Lays the ground. Failures are also recorded as events.
///
/// # Errors
/// Why it failed; worth another try.
pub async fn lay(mut job: Job) -> Result<Ground, String> {
    if let Some(lost) = job.lost.take() {
        lost.clear(&job.agent).await;
    }
    let fail = |reason, message: String| {
        job.agent
            .events
            .record(&job.pod, "", Level::Warning, reason, message.clone());
        message
    };
    let uid = job.pod.metadata.uid.clone().unwrap_or_default();
    let host_network = job
        .pod
        .spec
        .as_ref()
        .and_then(|s| s.host_network)
        .unwrap_or(false);
    let address = match job.address {
        _ if host_network => None,
        Some(address) => Some(address),
        None => {
            let free = job.agent.take_address(&job.node.name);
            Some(free.ok_or_else(|| {
                fail(
                    "FailedCreatePodSandBox",
                    "no free pod address on this node".to_owned(),
                )
            })?)
        }
    };
    let release = |message: String| {
        if let (Some(address), None) = (address, job.address) {
            job.agent.free_address(&job.node.name, address);
        }
        message
    };
    let mut facts = job.facts.clone();
    if let Some(address) = address {
        facts.pod_ip = address.to_string();
    }
    let dir = job.agent.pod_dir(&uid);
    let mut volumes = Volumes::new(dir.join("volumes"));
    let context = VolumeContext {
        api: &job.agent.api,
        pod: &job.pod,
        facts: &facts,
    };
    volumes.set_up(context).await.map_err(|error| {
        let text = format!(
            "MountVolume.SetUp failed for volume {:?} : {}",
            error.volume, error.message
        );
        release(fail("FailedMount", text))
    })?;
    let sandbox_failed = |message: String| {
        release(fail(
            "FailedCreatePodSandBox",
            format!("Failed to create pod sandbox: {message}"),
        ))
    };
    let pod_ip = address
        .map(IpAddr::V4)
        .or_else(|| facts.pod_ip.parse().ok());
    files::write(&dir.join("etc"), &job.pod, pod_ip, &job.dns)
        .map_err(|e| sandbox_failed(e.to_string()))?;
    let made = make_sandbox(&job, &volumes, &dir.join("shm"), host_network).await;
    let sandbox = made.map_err(sandbox_failed)?;
    let interface = match address {
        None => None,
        Some(address) => {
            let name = interface_name(&job.agent.options.instance, &uid);
            let network = &job.agent.options.network;
            let attached = network
                .links
                .attach_pod(
                    network.bridge,
                    &name,
                    sandbox.netns(),
                    address,
                    job.node.address,
                )
                .await;
            if let Err(error) = attached {
                // The dropped sandbox takes a half-made interface with it.
                drop(sandbox);
                return Err(sandbox_failed(error.to_string()));
            }
            Some(name)
        }
    };
    Ok(Ground {
        sandbox: Arc::new(sandbox),
        volumes: Arc::new(volumes),
        address,
        interface,
    })
}

async fn make_sandbox(
    job: &Job,
    volumes: &Volumes,
    shm: &std::path::Path,
    host_network: bool,
) -> Result<Sandbox, String> {
    std::fs::create_dir_all(shm).map_err(|e| e.to_string())?;
    let mut memory_mounts = volumes.memory_mounts(&job.pod);
    let shm = shm.to_str().ok_or("a state path is not text")?;
    memory_mounts.push((shm.to_owned(), "mode=1777,size=67108864".to_owned()));
    let mut sysctls = Vec::new();
    if !host_network {
        sysctls.extend(SYSCTLS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let context = job
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.security_context.as_ref());
        for sysctl in context
            .and_then(|c| c.sysctls.as_ref())
            .into_iter()
            .flatten()
        {
            sysctls.push((sysctl.name.replace('.', "/"), sysctl.value.clone()));
        }
    }
    let spec = SandboxSpec {
        hostname: files::host_name(&job.pod),
        host_network,
        memory_mounts,
        sysctls,
    };
    let meta = &job.pod.metadata;
    let name = format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    );
    Sandbox::spawn(&job.agent.helper, &name, &spec)
        .await
        .map_err(|e| e.to_string())
}

/// The host's end of a pod's interface: stable, unique per pod, within 15 letters.
fn interface_name(instance: &str, uid: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in instance.bytes().chain([0]).chain(uid.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("veth{:010x}", hash >> 24)
}

#[cfg(test)]
mod tests {
    #[test]
    fn interface_names_fit_and_differ() {
        let name = super::interface_name("lateen0", "u1");
        assert!(name.len() <= 15, "{name}");
        assert_ne!(name, super::interface_name("lateen0", "u2"));
        assert_ne!(name, super::interface_name("lateen1", "u1"));
    }
}
