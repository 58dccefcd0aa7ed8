//! What a control plane is told at its start. Flags and environment are the command line's
//! to read; here they are values.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use lateen_model::Sniffing;

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objects {
    /// A Kubernetes API server: a kubeconfig file, or the pod's own account and the usual
    /// places when there is none.
    Kubernetes {
        /// The file.
        kubeconfig: Option<PathBuf>,
        /// A context of it.
        context: Option<String>,
    },
    /// A folder of YAML, read again on change. No CA, no webhooks.
    Files(PathBuf),
}

/// Everything a control plane is told.
#[derive(Debug, Clone)]
pub struct ControlPlaneOptions {
    /// Where objects come from.
    pub objects: Objects,
    /// Mesh settings (YAML), read again on change; ConfigMap `istio` lies over them.
    pub mesh_config: Option<PathBuf>,
    /// Namespace of the control plane and of mesh-wide configuration.
    pub namespace: String,
    /// Cluster domain of Kubernetes names.
    pub domain: String,
    /// Revision; empty or `default` for the one without a suffix.
    pub revision: String,
    /// Plain xDS (15010).
    pub xds_address: Option<SocketAddr>,
    /// xDS and certificates over TLS (15012); Kubernetes only.
    pub secure_address: Option<SocketAddr>,
    /// Webhooks over TLS (15017); Kubernetes only.
    pub webhook_address: Option<SocketAddr>,
    /// Debug pages and readiness (8080).
    pub http_address: Option<SocketAddr>,
    /// Metrics, debug pages and readiness (15014).
    pub monitoring_address: Option<SocketAddr>,
    /// Detection of undeclared protocols (`PILOT_ENABLE_PROTOCOL_SNIFFING_FOR_OUTBOUND` and
    /// `_INBOUND`).
    pub sniffing: Sniffing,
    /// Behave as Istio 1.0 where it behaved differently (see `lateen_xds::Features`).
    pub compat_1_0: bool,
}

impl Default for ControlPlaneOptions {
    /// Istiod's ports on all addresses, objects from the cluster the process runs in.
    fn default() -> Self {
        let at = |port| Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        Self {
            objects: Objects::Kubernetes {
                kubeconfig: None,
                context: None,
            },
            mesh_config: None,
            namespace: "istio-system".to_owned(),
            domain: "cluster.local".to_owned(),
            revision: String::new(),
            xds_address: at(15010),
            secure_address: at(15012),
            webhook_address: at(15017),
            http_address: at(8080),
            monitoring_address: at(15014),
            sniffing: Sniffing::default(),
            compat_1_0: false,
        }
    }
}

impl ControlPlaneOptions {
    /// Serves a folder of YAML on one plain xDS address and nothing else.
    pub fn files(folder: impl Into<PathBuf>, xds_address: SocketAddr) -> Self {
        Self {
            objects: Objects::Files(folder.into()),
            xds_address: Some(xds_address),
            secure_address: None,
            webhook_address: None,
            http_address: None,
            monitoring_address: None,
            ..Self::default()
        }
    }

    /// `-REV` in names of objects that exist once per revision.
    pub(crate) fn suffix(&self) -> String {
        match self.revision.as_str() {
            "" | "default" => String::new(),
            revision => format!("-{revision}"),
        }
    }
}
