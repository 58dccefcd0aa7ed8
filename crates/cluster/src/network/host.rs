//! The host's side of the pod network: made once per cluster, recorded in a file, removed by the
//! record, so that a crash leaves nothing that the next start or stop does not find.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::cidr::{self, Ranges};
use super::firewall;
use super::link::{LinkError, Links};
use super::nft::{self, NftError};
use super::ruleset::{self, Layout};
use super::turn;
use super::view::View;

const RECORD: &str = "network.json";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Inputs of the host network.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Folder of the agent's state; the record of what was made is kept there.
    pub state_dir: PathBuf,
    /// Name of the bridge, of the rule table and of the marker of helper processes; at most 15
    /// letters, digits or `-`, a letter first. Two clusters on one machine differ in it.
    pub instance: String,
    /// Address ranges; `None` chooses ones that do not collide with the host's routes.
    pub ranges: Option<Ranges>,
    /// Node names in order; node n (from 1) has the n-th /24 of the pod range.
    pub nodes: Vec<String>,
}

/// Why the network could not be made or removed. The text names the remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// All candidate ranges are taken.
    #[error("no free address ranges: the host's routes cover all ranges that a cluster may use")]
    NoRange,
    /// The chosen ranges have no room.
    #[error("the pod range {0} is too small for the nodes")]
    TooSmall(Ipv4Net),
    /// Not allowed.
    #[error("making network interfaces needs root (CAP_NET_ADMIN)")]
    NotPermitted,
    /// Interfaces.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Rules.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Files.
    #[error("{path}: {source}{}", crate::store::remedy(.source))]
    Io {
        /// Which file.
        path: String,
        /// What happened.
        source: io::Error,
    },
}

fn io_at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> NetworkError {
    let path = path.as_ref().display().to_string();
    move |source| NetworkError::Io { path, source }
}

/// What was made on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    instance: String,
    /// Forwarding was off before.
    forwarding_was_off: bool,
    /// Rules were put into the host's own firewall.
    #[serde(default)]
    firewall_opened: bool,
}

/// A node's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    /// Node name.
    pub name: String,
    /// Its pods' addresses.
    pub range: Ipv4Net,
    /// Its own address, the pods' gateway.
    pub address: Ipv4Addr,
}

/// The network of a cluster, ready for pods.
#[derive(Debug, Clone)]
pub struct HostNetwork {
    /// Pod and service ranges in use.
    pub ranges: Ranges,
    /// The bridge's own address: where the host answers pods (DNS, the API server).
    pub address: Ipv4Addr,
    /// Nodes.
    pub nodes: Vec<NodeNetwork>,
    /// What the service rules need.
    pub layout: Layout,
    /// Index of the bridge.
    pub bridge: u32,
    /// Netlink in the host's namespace.
    pub links: Links,
}

/// Ranges that are free on this host now; what an earlier run of `instance` left is not counted.
///
/// # Errors
/// When none is free, or the routes cannot be read.
pub fn free_ranges(instance: &str) -> Result<Ranges, NetworkError> {
    let path = "/proc/net/route";
    let text = std::fs::read_to_string(path).map_err(io_at(path))?;
    cidr::choose(&cidr::parse_routes(&text, instance)).ok_or(NetworkError::NoRange)
}

impl HostNetwork {
    /// Makes bridge, addresses, routes, kernel settings and an empty rule table. Leftovers of an
    /// earlier run of the same instance are taken over.
    ///
    /// # Errors
    /// Without the rights, without `nft`, or without a free range.
    pub async fn prepare(options: &NetworkOptions) -> Result<Self, NetworkError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(NetworkError::NotPermitted);
        }
        let ranges = match options.ranges {
            Some(ranges) => ranges,
            None => free_ranges(&options.instance)?,
        };
        let too_small = || NetworkError::TooSmall(ranges.pods);
        let address = cidr::nth_address(ranges.pods, 1).ok_or_else(too_small)?;
        let nodes = (1_u8..)
            .zip(&options.nodes)
            .map(|(n, name)| {
                let range = cidr::node_range(ranges.pods, n)?;
                let address = cidr::nth_address(range, 1)?;
                Some(NodeNetwork {
                    name: name.clone(),
                    range,
                    address,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(too_small)?;
        let layout = Layout {
            table: options.instance.clone(),
            bridge: options.instance.clone(),
            pods: ranges.pods,
            services: ranges.services,
            nodes: nodes.iter().map(|n| (n.name.clone(), n.range)).collect(),
        };
        write_record(options)?;
        let links = Links::open().map_err(io_at("netlink"))?;
        let mut addresses = vec![(address, ranges.pods.prefix_len())];
        addresses.extend(nodes.iter().map(|n| (n.address, 32)));
        let bridge = links
            .ensure_bridge(&options.instance, &addresses, ranges.services)
            .await?;
        configure_kernel(&options.instance)?;
        nft::apply(&ruleset::render(&layout, &View::default())).await?;
        if firewall::open(&options.instance)
            .await
            .map_err(io_at("iptables"))?
        {
            note_firewall(options)?;
        }
        Ok(Self {
            ranges,
            address,
            nodes,
            layout,
            bridge,
            links,
        })
    }

    /// An address the host answers pods at.
    pub fn listen(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }
}

fn write_record(options: &NetworkOptions) -> Result<(), NetworkError> {
    std::fs::create_dir_all(&options.state_dir).map_err(io_at(&options.state_dir))?;
    let path = options.state_dir.join(RECORD);
    // A record left by a crash knows what the host was like before; keep it.
    if read_record(&options.state_dir).is_some_and(|r| r.instance == options.instance) {
        return Ok(());
    }
    let forwarding = std::fs::read_to_string(FORWARDING).map_err(io_at(FORWARDING))?;
    let record = Record {
        instance: options.instance.clone(),
        forwarding_was_off: forwarding.trim() == "0",
        firewall_opened: false,
    };
    save_record(&path, &record)
}

fn save_record(path: &Path, record: &Record) -> Result<(), NetworkError> {
    let text = serde_json::to_vec_pretty(record).map_err(|e| io_at(path)(e.into()))?;
    std::fs::write(path, text).map_err(io_at(path))
}

fn note_firewall(options: &NetworkOptions) -> Result<(), NetworkError> {
    match read_record(&options.state_dir) {
        Some(record) => save_record(
            &options.state_dir.join(RECORD),
            &Record {
                firewall_opened: true,
                ..record
            },
        ),
        None => Ok(()),
    }
}

fn read_record(state_dir: &Path) -> Option<Record> {
    serde_json::from_slice(&std::fs::read(state_dir.join(RECORD)).ok()?).ok()
}

fn configure_kernel(bridge: &str) -> Result<(), NetworkError> {
    let write = |path: &str, value: &str| std::fs::write(path, value).map_err(io_at(path));
    if std::fs::read_to_string(FORWARDING)
        .map_err(io_at(FORWARDING))?
        .trim()
        != "1"
    {
        write(FORWARDING, "1")?;
    }
    let own = format!("/proc/sys/net/ipv4/conf/{bridge}");
    // Answers to connections that came from 127.0.0.1 through a node port arrive here.
    write(&format!("{own}/route_localnet"), "1")?;
    // Pods' packets leave by the interface they came in; that is the design, not a detour.
    write(&format!("{own}/send_redirects"), "0")?;
    write(&format!("{own}/rp_filter"), "0")
}

/// Removes everything that the instance recorded in `state_dir` made on the host: helper
/// processes (and with them pods), interfaces, rules, kernel settings. Without a record nothing is
/// done; running it twice is fine.
///
/// # Errors
/// When something could not be removed; the record then stays for another try.
pub async fn clean_up(state_dir: &Path) -> Result<(), NetworkError> {
    let Some(record) = read_record(state_dir) else {
        return Ok(());
    };
    kill_helpers(&record.instance);
    crate::node::cgroup::clean_up(&record.instance).await;
    let links = Links::open().map_err(io_at("netlink"))?;
    if let Some(bridge) = links.index(&record.instance).await? {
        for port in links.ports_of(bridge).await? {
            links.remove(&port).await?;
        }
        links.remove(&record.instance).await?;
    }
    nft::remove_table(&record.instance).await?;
    if record.firewall_opened {
        firewall::close(&record.instance)
            .await
            .map_err(io_at("iptables"))?;
    }
    let others = turn::others(&record.instance).map_err(io_at("/sys/class/net"))?;
    let shared = Path::new(turn::SHARED);
    if turn::leave(shared, record.forwarding_was_off, others).map_err(io_at(shared))? {
        std::fs::write(FORWARDING, "0").map_err(io_at(FORWARDING))?;
    }
    let path = state_dir.join(RECORD);
    std::fs::remove_file(&path).map_err(io_at(&path))
}

/// Ends helpers of this instance that outlived their agent. Normally there are none: a helper ends
/// with its agent.
fn kill_helpers(instance: &str) {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let mut arguments = command.split(|b| *b == 0).skip(1);
        let helper = arguments.next() == Some(crate::node::process::entry::PAUSE.as_bytes())
            && arguments.next() == Some(instance.as_bytes());
        if helper {
            // It may have ended by itself meanwhile.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}
