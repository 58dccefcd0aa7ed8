//! Gateway.

use super::Port;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ports and hosts of a standalone proxy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// Servers.
    pub servers: Vec<Server>,
    /// Proxies it applies to.
    pub selector: BTreeMap<String, String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// Port.
    pub port: Option<Port>,
    /// Address to bind.
    pub bind: String,
    /// Hosts, `[namespace/]host`.
    pub hosts: Vec<String>,
    /// TLS.
    pub tls: Option<ServerTlsSettings>,
    /// Not used by Istio's gateways.
    pub default_endpoint: String,
    /// Name.
    pub name: String,
}

/// TLS of a server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTlsSettings {
    /// Redirect HTTP to HTTPS.
    pub https_redirect: bool,
    /// Mode.
    pub mode: ServerTlsMode,
    /// Certificate file.
    pub server_certificate: String,
    /// Key file.
    pub private_key: String,
    /// CA file.
    pub ca_certificates: String,
    /// CRL file.
    pub ca_crl: String,
    /// Certificates, one per kind of key.
    pub tls_certificates: Vec<TlsCertificate>,
    /// Secret.
    pub credential_name: String,
    /// Secrets, one per kind of key.
    pub credential_names: Vec<String>,
    /// Secret or ConfigMap of the CA.
    pub ca_cert_credential_name: String,
    /// Accepted client names.
    pub subject_alt_names: Vec<String>,
    /// Accepted key pins.
    pub verify_certificate_spki: Vec<String>,
    /// Accepted certificate hashes.
    pub verify_certificate_hash: Vec<String>,
    /// Lowest version.
    pub min_protocol_version: TlsProtocol,
    /// Highest version.
    pub max_protocol_version: TlsProtocol,
    /// Cipher suites.
    pub cipher_suites: Vec<String>,
}

/// A certificate by files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsCertificate {
    /// Certificate file.
    pub server_certificate: String,
    /// Key file.
    pub private_key: String,
    /// CA file.
    pub ca_certificates: String,
}

/// TLS modes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// Routed by SNI, not ended.
    #[default]
    Passthrough,
    /// Ended.
    Simple,
    /// Ended, client certificate required.
    Mutual,
    /// Routed by an SNI that names a cluster.
    AutoPassthrough,
    /// Mesh certificates.
    IstioMutual,
    /// Ended, client certificate asked for.
    OptionalMutual,
}

/// TLS versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum TlsProtocol {
    /// The proxy's default.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0.
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// TLS 1.1.
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
