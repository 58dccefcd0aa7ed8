//! The whole cluster of one machine, put together: certificates, host network, API server,
//! controllers, node agent; started in order, stopped in reverse, cleaned up after a crash.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::api::server::{ApiServer, ApiServerOptions, ClusterPki, ServerHandle};
use crate::controllers;
use crate::network::cidr::{Ranges, nth_address, parse_routes};
use crate::network::host::{HostNetwork, NetworkOptions, free_ranges};
use crate::network::turn;
use crate::node::image::ImageCatalogue;
use crate::node::{NodeHandle, NodeOptions};
use crate::store::remedy;

/// The API server's port on the bridge, where pods reach it.
const POD_API_PORT: u16 = 6443;
/// Which address of the service range answers DNS.
const DNS_ADDRESS: u32 = 10;
/// The host's IPv4 routes.
const ROUTES: &str = "/proc/net/route";
/// What this process is, with its capabilities.
const OWN_STATUS: &str = "/proc/self/status";
/// What the host's network and the pods' namespaces need, by bit number.
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];
const DOMAIN: &str = "cluster.local";
/// The nodes, each in a zone of its own: two, so that spreading and localities mean something.
const NODES: [&str; 2] = ["lateen-1", "lateen-2"];

/// Inputs of the cluster.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Folder of everything the cluster keeps.
    pub home: PathBuf,
    /// Name of its bridge, rule table and process marker, at most 15 characters: two clusters on
    /// one machine differ in it.
    pub instance: String,
    /// Where people reach the API server.
    pub api_bind: SocketAddr,
    /// This program's version.
    pub version: String,
    /// This program's file: it is the first process of every pod, and is shown inside pods.
    pub program: PathBuf,
    /// What image names mean.
    pub images: ImageCatalogue,
}

/// Why the cluster could not be started or cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Files of the cluster's home.
    #[error("{path}: {source}{}", remedy(.source))]
    Io {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The process was given less than root has.
    #[error(
        "pods need CAP_NET_ADMIN and CAP_SYS_ADMIN, and this process is without {0}: \
         run it as root without dropping capabilities"
    )]
    Capabilities(String),
    /// Keys and certificates.
    #[error("making the cluster's certificates: {0}")]
    Identity(#[from] lateen_identity::IdentityError),
    /// The API server.
    #[error(transparent)]
    Server(#[from] crate::api::server::ServerError),
    /// The node agent.
    #[error(transparent)]
    Node(#[from] crate::node::NodeError),
    /// Addresses that stored objects hold belong to another network by now.
    #[error(
        "the range {range}, which this cluster's stored objects use, is taken by the host's route \
         to {net} (another cluster?); stop that, or start afresh with `lateen down --purge`"
    )]
    RangeTaken {
        /// The cluster's range.
        range: ipnet::Ipv4Net,
        /// The host's route.
        net: ipnet::Ipv4Net,
    },
    /// The host's network.
    #[error(transparent)]
    Network(#[from] crate::network::host::NetworkError),
}

/// A running cluster.
pub struct LocalCluster {
    server: ServerHandle,
    node: NodeHandle,
    controllers: JoinHandle<()>,
    shutdown: CancellationToken,
    state_dir: PathBuf,
    api: Api,
}

/// What must be the same when a cluster is started again: stored objects hold these addresses.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    pods: ipnet::Ipv4Net,
    services: ipnet::Ipv4Net,
}

impl LocalCluster {
    /// Starts all parts; what an earlier run left on the host is removed first.
    ///
    /// # Errors
    /// When a part cannot start; the parts before it are stopped again.
    pub async fn start(options: LocalOptions) -> Result<Self, LocalError> {
        let own = std::fs::read_to_string(OWN_STATUS).map_err(io_at(Path::new(OWN_STATUS)))?;
        let missing = missing_capabilities(&own);
        if !missing.is_empty() {
            return Err(LocalError::Capabilities(missing.join(" and ")));
        }
        let state_dir = options.home.join("run");
        crate::network::host::clean_up(&state_dir).await?;
        let started = Self::start_parts(&options, &state_dir).await;
        if started.is_err()
            && let Err(error) = crate::network::host::clean_up(&state_dir).await
        {
            tracing::warn!(%error, "cleaning up after a failed start");
        }
        started
    }

    async fn start_parts(options: &LocalOptions, state_dir: &Path) -> Result<Self, LocalError> {
        let pki = ClusterPki::load_or_create(&options.home.join("pki"), SystemTime::now())?;
        let shared = Path::new(turn::SHARED);
        let turn = turn::take(shared).await.map_err(io_at(shared))?;
        let network = HostNetwork::prepare(&NetworkOptions {
            state_dir: state_dir.to_owned(),
            instance: options.instance.clone(),
            ranges: Some(ranges(&options.home, &options.instance)?),
            nodes: NODES.map(str::to_owned).to_vec(),
        })
        .await?;
        drop(turn);
        let dns_ip =
            nth_address(network.ranges.services, DNS_ADDRESS).unwrap_or(Ipv4Addr::LOCALHOST);
        let version = format!("v1.33.1+lateen.{}", options.version);
        let ca_pem = pki.ca_cert_pem.clone();
        let (server, api) = ApiServer::start(ApiServerOptions {
            bind: options.api_bind,
            extra_binds: vec![network.listen(POD_API_PORT)],
            extra_sans: vec![network.address.to_string()],
            advertise: Some(network.listen(POD_API_PORT)),
            service_cidr: network.ranges.services,
            dns_ip: Some(dns_ip.into()),
            cluster_domain: DOMAIN.to_owned(),
            version: version.clone(),
            ..ApiServerOptions::new(options.home.join("store"), pki)
        })
        .await?;
        let shutdown = CancellationToken::new();
        let controllers = tokio::spawn(controllers::run(
            api.clone(),
            controllers::Options { ca_pem },
            shutdown.clone(),
        ));
        let node = crate::node::start(
            api.clone(),
            NodeOptions {
                state_dir: state_dir.to_owned(),
                program: options.program.clone(),
                instance: options.instance.clone(),
                network,
                images: options.images.clone(),
                cluster_domain: DOMAIN.to_owned(),
                dns_ip,
                version,
                runtime_version: format!("lateen://{}", options.version),
            },
        )
        .await?;
        server.set_runtime(node.runtime());
        Ok(Self {
            server,
            node,
            controllers,
            shutdown,
            state_dir: state_dir.to_owned(),
            api,
        })
    }

    /// The in-process client.
    pub fn api(&self) -> Api {
        self.api.clone()
    }

    /// A kubeconfig for the cluster's administrator.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn kubeconfig(&self) -> Result<String, LocalError> {
        Ok(self
            .server
            .kubeconfig("lateen-admin", "system:masters", SystemTime::now())?)
    }

    /// Stops pods, controllers and server, and removes what was made on the host.
    ///
    /// # Errors
    /// When something on the host could not be removed; `lateen down` tries again.
    pub async fn stop(self) -> Result<(), LocalError> {
        self.shutdown.cancel();
        self.node.shutdown().await;
        // A controller that does not end in time is dropped with the runtime.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.controllers).await;
        self.server.shutdown().await;
        Ok(crate::network::host::clean_up(&self.state_dir).await?)
    }
}

/// Removes what a cluster of this home left on the host; for use after a crash.
///
/// # Errors
/// When something could not be removed.
pub async fn clean_up(home: &Path) -> Result<(), LocalError> {
    Ok(crate::network::host::clean_up(&home.join("run")).await?)
}

/// The needed capabilities that the text of `/proc/self/status` has not in effect.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let lacks = |bit: &u32| effective & (1 << bit) == 0;
    CAPABILITIES
        .iter()
        .filter(|(_, bit)| lacks(bit))
        .map(|(name, _)| *name)
        .collect()
}

/// The ranges this home has used before, or free ones, remembered.
fn ranges(home: &Path, instance: &str) -> Result<Ranges, LocalError> {
    let path = home.join("ranges.json");
    if let Some(kept) = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice::<Kept>(&text).ok())
    {
        let routes = std::fs::read_to_string(ROUTES).map_err(io_at(Path::new(ROUTES)))?;
        let taken = parse_routes(&routes, instance);
        for range in [kept.pods, kept.services] {
            let meets = |net: &&ipnet::Ipv4Net| net.contains(&range) || range.contains(*net);
            if let Some(net) = taken.iter().find(meets) {
                return Err(LocalError::RangeTaken { range, net: *net });
            }
        }
        return Ok(Ranges {
            pods: kept.pods,
            services: kept.services,
        });
    }
    let ranges = free_ranges(instance)?;
    let kept = Kept {
        pods: ranges.pods,
        services: ranges.services,
    };
    let text = serde_json::to_vec(&kept).map_err(|e| io_at(&path)(e.into()))?;
    std::fs::write(&path, text).map_err(io_at(&path))?;
    Ok(ranges)
}

fn io_at(path: &Path) -> impl FnOnce(std::io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert!(missing_capabilities(all).is_empty());
        let none = missing_capabilities("CapEff:\t0000000000000000\n");
        assert_eq!(none, ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        let no_net = missing_capabilities("CapEff:\t000001ffffffefff\n");
        assert_eq!(no_net, ["CAP_NET_ADMIN"]);
        let no_sys = missing_capabilities("CapEff:\t000001ffffdfffff\n");
        assert_eq!(no_sys, ["CAP_SYS_ADMIN"]);
        let text = LocalError::Capabilities(no_sys.join(" and ")).to_string();
        assert!(
            text.ends_with("without CAP_SYS_ADMIN: run it as root without dropping capabilities"),
            "{text}"
        );
    }

    #[test]
    fn a_full_disk_is_named_with_what_to_do() {
        let error = io_at(Path::new("/x/ranges.json"))(std::io::Error::from_raw_os_error(28));
        assert_eq!(
            error.to_string(),
            "/x/ranges.json: No space left on device (os error 28); free some space on that disk"
        );
    }
}
