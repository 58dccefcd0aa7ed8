//! What all pods of this agent share: the API, the network, the image catalogue, addresses, and
//! the table of pods that streaming requests look into.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cgroup::Groups;
use super::event::Recorder;
use super::files::parse_search;
use super::host::HostTools;
use super::image::ImageCatalogue;
use super::live::Live;
use super::process::sandbox::{Helper, Sandbox};
use crate::api::Api;
use crate::network::address::AddressPool;
use crate::network::dns::forward::parse_resolvers;
use crate::network::host::{HostNetwork, NodeNetwork};

/// The region of all virtual nodes.
const REGION: &str = "local";
/// Where the host names its resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A virtual node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name; one of the network's nodes.
    pub name: String,
    /// `topology.kubernetes.io/zone`: `zone-a` for the first node, `zone-b` for the second, ...
    pub zone: String,
    /// `topology.kubernetes.io/region`.
    pub region: String,
}

/// The virtual nodes of a network, each in a zone of its own.
fn node_specs(network: &HostNetwork) -> Vec<NodeSpec> {
    let zones = ('a'..='z').cycle();
    let spec = |(node, letter): (&NodeNetwork, char)| NodeSpec {
        name: node.name.clone(),
        zone: format!("zone-{letter}"),
        region: REGION.to_owned(),
    };
    network.nodes.iter().zip(zones).map(spec).collect()
}

/// Inputs of the node agent; nothing is read from flags or the environment.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Folder for volumes, logs and small files; made when missing.
    pub state_dir: PathBuf,
    /// This program on disk; executed again as pods' first processes and shown to containers as
    /// `/usr/local/bin/lateen`.
    pub program: PathBuf,
    /// Name that helper processes carry; the network's instance name.
    pub instance: String,
    /// The prepared network; its nodes become the cluster's virtual nodes.
    pub network: HostNetwork,
    /// Known images.
    pub images: ImageCatalogue,
    /// Cluster domain, usually `cluster.local`.
    pub cluster_domain: String,
    /// Address of Service `kube-system/kube-dns`.
    pub dns_ip: Ipv4Addr,
    /// `kubeletVersion` of the nodes.
    pub version: String,
    /// `containerRuntimeVersion` of the nodes: `NAME://VERSION`.
    pub runtime_version: String,
}

/// A pod as streaming requests see it.
#[derive(Debug)]
pub struct PodEntry {
    /// Uid.
    pub uid: String,
    /// Folder with a log folder per container.
    pub log_dir: PathBuf,
    /// Network namespace holder, once there is one.
    pub sandbox: Mutex<Option<Arc<Sandbox>>>,
    /// Containers by name.
    pub containers: Mutex<BTreeMap<String, ContainerEntry>>,
}

/// A container as streaming requests see it.
#[derive(Debug, Clone, Default)]
pub struct ContainerEntry {
    /// Number of the present or last instance; `None` before the first.
    pub instance: Option<u32>,
    /// The running instance.
    pub live: Option<Arc<Live>>,
    /// The present or last instance, for its log.
    pub log: Option<Arc<super::log::Log>>,
    /// How an interactive instance ended that nobody had attached to, with its own log, for the
    /// client that comes a moment too late. The next instance may be on its way meanwhile.
    pub ended: Option<(super::runtime::ExitStatus, Arc<super::log::Log>)>,
    /// Why it is waiting.
    pub waiting: String,
}

/// Shared by all pods.
pub struct Agent {
    /// The API, as the agent's own user.
    pub api: Api,
    /// Inputs.
    pub options: NodeOptions,
    /// How to execute this program as a pod's first process.
    pub helper: Helper,
    /// Host programs and libraries.
    pub host: HostTools,
    /// Events.
    pub events: Recorder,
    /// Empty directory that roots are built on.
    pub mountpoint: PathBuf,
    pools: Mutex<HashMap<String, AddressPool>>,
    pods: Mutex<HashMap<(String, String), Arc<PodEntry>>>,
    /// Virtual nodes.
    pub nodes: Vec<NodeSpec>,
    /// The host's resolvers.
    pub resolvers: Vec<IpAddr>,
    /// Search domains of the host, for pods with `dnsPolicy: Default`.
    pub host_search: Vec<String>,
    /// Control groups for containers with a memory limit; `None` where the host has none to give.
    pub groups: Option<Groups>,
    /// Processors of the machine.
    pub cpus: usize,
    /// Memory of the machine in bytes.
    pub memory: u64,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("instance", &self.options.instance)
            .finish_non_exhaustive()
    }
}

/// Takes a lock whose holders never leave the value half-changed.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Total memory from the text of `/proc/meminfo`, in bytes.
pub(super) fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

impl Agent {
    /// Looks at the machine and makes the state folders.
    ///
    /// # Errors
    /// When the folders cannot be made or `/proc` cannot be read.
    pub fn new(api: Api, options: NodeOptions) -> std::io::Result<Self> {
        let mountpoint = options.state_dir.join("root");
        std::fs::create_dir_all(&mountpoint)?;
        let memory = total_memory(&std::fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| std::io::Error::other("/proc/meminfo names no total"))?;
        let pools = options
            .network
            .nodes
            .iter()
            .map(|n| (n.name.clone(), AddressPool::new(n.range)));
        let groups = Groups::open(&options.instance)
            .inspect_err(|error| {
                tracing::warn!(%error, "memory limits of containers are not enforced");
            })
            .ok();
        // A host without the file has no resolvers to offer.
        let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        Ok(Self {
            nodes: node_specs(&options.network),
            resolvers: parse_resolvers(&resolv_conf),
            host_search: parse_search(&resolv_conf),
            helper: Helper {
                program: options.program.clone(),
                marker: options.instance.clone(),
            },
            host: HostTools::discover(),
            events: Recorder::new(api.clone()),
            groups,
            mountpoint,
            pools: Mutex::new(pools.collect()),
            pods: Mutex::default(),
            cpus: std::thread::available_parallelism()?.get(),
            memory,
            api,
            options,
        })
    }

    /// A node's place in the network.
    pub fn node(&self, name: &str) -> Option<&NodeNetwork> {
        self.options.network.nodes.iter().find(|n| n.name == name)
    }

    /// A free pod address of a node.
    pub fn take_address(&self, node: &str) -> Option<Ipv4Addr> {
        locked(&self.pools).get_mut(node)?.take()
    }

    /// Frees a pod address.
    pub fn free_address(&self, node: &str, address: Ipv4Addr) {
        if let Some(pool) = locked(&self.pools).get_mut(node) {
            pool.give_back(address);
        }
    }

    /// Folder of a pod's volumes and files.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options.state_dir.join("pods").join(uid)
    }

    /// Removes what earlier runs kept of pods that no longer exist: volumes and logs.
    pub fn forget_all_but(&self, uids: &[&str]) {
        for (folder, separator) in [("pods", None), ("logs", Some('_'))] {
            let entries = std::fs::read_dir(self.options.state_dir.join(folder));
            for entry in entries.into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let uid =
                    separator.map_or(name.as_str(), |c| name.rsplit(c).next().unwrap_or(&name));
                if uids.contains(&uid) {
                    continue;
                }
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!(%error, path = %entry.path().display(), "an old pod's files were left behind");
                }
            }
        }
    }

    /// Makes a pod visible to streaming requests; the newest of a name wins.
    pub fn publish(&self, namespace: &str, name: &str, entry: &Arc<PodEntry>) {
        locked(&self.pods).insert((namespace.to_owned(), name.to_owned()), Arc::clone(entry));
    }

    /// Hides a pod from streaming requests, unless a newer one has its name.
    pub fn withdraw(&self, namespace: &str, name: &str, uid: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut pods = locked(&self.pods);
        if pods.get(&key).is_some_and(|entry| entry.uid == uid) {
            pods.remove(&key);
        }
    }

    /// A pod for a streaming request.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<PodEntry>> {
        locked(&self.pods)
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_read() {
        assert_eq!(
            super::total_memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(super::total_memory(""), None);
    }
}
