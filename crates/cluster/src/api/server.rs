//! The TLS server: options, start, the handle that stops it, and the kubeconfig it hands out.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Inputs of the server; nothing is read from flags or the environment.
#[derive(Clone, Debug)]
pub struct ApiServerOptions {
    /// Address to listen on; port 0 picks a free one.
    pub bind: SocketAddr,
    /// Further addresses to listen on (the node bridge, for pods).
    pub extra_binds: Vec<SocketAddr>,
    /// Folder of the store; made when missing.
    pub data_dir: PathBuf,
    /// Certificates and keys of the cluster.
    pub pki: ClusterPki,
    /// Further names and addresses for the serving certificate.
    pub extra_sans: Vec<String>,
    /// Where Service `default/kubernetes` leads; `None`: the bound address.
    pub advertise: Option<SocketAddr>,
    /// Range of cluster IPs; its first address is `default/kubernetes`.
    pub service_cidr: ipnet::Ipv4Net,
    /// Address of Service `kube-system/kube-dns`, kept free by the allocator.
    pub dns_ip: Option<IpAddr>,
    /// Ports for NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Cluster domain, usually `cluster.local`.
    pub cluster_domain: String,
    /// `gitVersion` of `/version`: a semantic version with a leading `v`.
    pub version: String,
    /// Bearer tokens known by configuration.
    pub tokens: Vec<StaticToken>,
}

/// A bearer token with its user.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// The secret.
    pub token: String,
    /// User name.
    pub user: String,
    /// Groups; `system:authenticated` is added.
    pub groups: Vec<String>,
}

/// Certificates and keys of a cluster, as PEM.
#[derive(Clone)]
pub struct ClusterPki {
    /// Certificate of the cluster's authority.
    pub ca_cert_pem: String,
    /// Private key of the cluster's authority (PKCS#8).
    pub ca_key_pem: String,
    /// Private key (P-256, PKCS#8) that signs service account tokens.
    pub service_account_key_pem: String,
}

impl std::fmt::Debug for ClusterPki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterPki").finish_non_exhaustive()
    }
}
