//! Gateways: the ports a standalone proxy opens and the hosts it serves there.

use crate::{Labels, Origin, Protocol, Selector, Str, Timestamp};

/// A gateway object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Namespace.
    pub namespace: Str,
    /// Name.
    pub name: Str,
    /// The object.
    pub origin: Origin,
    /// Creation time: older wins port and host conflicts.
    pub created: Timestamp,
    /// Gateway workloads it applies to, in any namespace; empty means every gateway.
    pub selector: Selector,
    /// Servers in order.
    pub servers: Vec<GatewayServer>,
}

impl Gateway {
    /// `namespace/name`, as virtual services refer to it after resolution.
    pub fn reference(&self) -> Str {
        format!("{}/{}", self.namespace, self.name).into()
    }

    /// True when it configures a gateway workload with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector.matches(labels)
    }
}

/// One server of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayServer {
    /// Server port as written (the Service's port or the proxy's own).
    pub port: u16,
    /// Port name; part of HTTPS route names.
    pub port_name: Str,
    /// Protocol.
    pub protocol: Protocol,
    /// Address to bind; `None` for all.
    pub bind: Option<Str>,
    /// Hosts with the namespaces whose virtual services may use them.
    pub hosts: Vec<ServerHost>,
    /// TLS settings.
    pub tls: Option<ServerTls>,
    /// Server name, if given.
    pub name: Str,
    /// Where it was written.
    pub origin: Origin,
}

/// A host of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerHost {
    /// Namespace whose virtual services may bind: `None` is `*`, `.` is resolved.
    pub namespace: Option<Str>,
    /// Host: exact, `*.x` or `*`.
    pub host: Str,
}

/// TLS of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerTls {
    /// Mode.
    pub mode: ServerTlsMode,
    /// HTTP requests are redirected to HTTPS.
    pub https_redirect: bool,
    /// Secrets, in order of `credentialNames`; a lone `credentialName` is one.
    pub credential_names: Vec<Str>,
    /// Certificate file.
    pub server_certificate: Option<Str>,
    /// Key file.
    pub private_key: Option<Str>,
    /// CA file.
    pub ca_certificates: Option<Str>,
    /// CRL file.
    pub ca_crl: Option<Str>,
    /// Accepted client names.
    pub subject_alt_names: Vec<Str>,
    /// Accepted SPKI pins.
    pub verify_certificate_spki: Vec<Str>,
    /// Accepted certificate hashes.
    pub verify_certificate_hash: Vec<Str>,
    /// Lowest version.
    pub min_version: Option<TlsVersion>,
    /// Highest version.
    pub max_version: Option<TlsVersion>,
    /// Cipher suites in order.
    pub cipher_suites: Vec<Str>,
}

/// Mode of a server's TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ServerTlsMode {
    /// Routed by SNI, not ended.
    Passthrough,
    /// Ended with a server certificate.
    #[default]
    Simple,
    /// Ended, client certificate required.
    Mutual,
    /// Routed by an SNI that names the cluster.
    AutoPassthrough,
    /// Mesh certificates both ways.
    IstioMutual,
    /// Ended, client certificate asked for.
    OptionalMutual,
}

/// TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}
