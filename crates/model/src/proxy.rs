//! The proxy key: everything that may differ between two proxies' config.

use crate::{Labels, Locality, Str};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What kind of proxy connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ProxyType {
    /// Beside a workload.
    #[default]
    Sidecar,
    /// A gateway.
    Router,
}

/// How traffic reaches the sidecar (`ISTIO_META_INTERCEPTION_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum InterceptionMode {
    /// NAT redirect: the source address is lost.
    #[default]
    Redirect,
    /// Transparent: the source address is kept.
    Tproxy,
    /// No capture: listeners bind real addresses.
    None,
}

/// Inputs of the xDS generator about a proxy. The generator sees nothing else
/// of the proxy, so (key, snapshot version) is a safe cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ProxyKey {
    /// Sidecar or gateway.
    pub kind: ProxyType,
    /// Namespace of the proxy's workload.
    pub namespace: Str,
    /// Pod name (the part of the node id before the dot); not an input of the
    /// generator other than for debug names.
    pub name: Str,
    /// Labels of the workload.
    pub labels: Labels,
    /// Addresses of the workload, primary first.
    pub ips: Vec<IpAddr>,
    /// Domain suffix for short names, such as `default.svc.cluster.local`.
    pub dns_domain: Str,
    /// Service account of the workload.
    pub service_account: Str,
    /// Owning workload name (`ISTIO_META_WORKLOAD_NAME`).
    pub workload: Str,
    /// Node name, for node-local traffic.
    pub node: Str,
    /// Region, zone, sub-zone.
    pub locality: Locality,
    /// `CLUSTER_ID`.
    pub cluster_id: Str,
    /// `NETWORK`.
    pub network: Str,
    /// Capture mode.
    pub interception: InterceptionMode,
    /// `DNS_CAPTURE`: the agent answers DNS, so auto-allocated VIPs are usable.
    pub dns_capture: bool,
    /// `HTTP10`: accept HTTP/1.0.
    pub http10: bool,
    /// Extensions the node listed; `None` when it lists none (Istio's own proxy).
    /// With a list, only what is on it may be sent.
    pub extensions: Option<Arc<BTreeSet<Str>>>,
    /// Capabilities beyond IPv4: the proxy has IPv6 addresses.
    pub ipv6: bool,
}

impl ProxyKey {
    /// True when a filter or extension of this name may be sent.
    pub fn supports(&self, extension: &str) -> bool {
        self.extensions
            .as_ref()
            .is_none_or(|set| set.contains(extension))
    }
}
