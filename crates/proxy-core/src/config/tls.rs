//! TLS contexts and secrets. Key material never shows in `Debug`.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use crate::matcher::StringMatcher;

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0 (known, never offered).
    V1_0,
    /// TLS 1.1 (known, never offered).
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// A cipher suite of TLS 1.2: ephemeral key exchange, authenticated encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is its OpenSSL name in Rust's spelling")]
pub enum CipherSuite {
    EcdheEcdsaAes128Gcm,
    EcdheRsaAes128Gcm,
    EcdheEcdsaAes256Gcm,
    EcdheRsaAes256Gcm,
    EcdheEcdsaChacha20,
    EcdheRsaChacha20,
}

impl CipherSuite {
    /// All of them, in the order of Envoy's default list.
    pub const DEFAULT: [Self; 6] = [
        Self::EcdheEcdsaAes128Gcm,
        Self::EcdheEcdsaChacha20,
        Self::EcdheRsaAes128Gcm,
        Self::EcdheRsaChacha20,
        Self::EcdheEcdsaAes256Gcm,
        Self::EcdheRsaAes256Gcm,
    ];

    /// OpenSSL's name, by which configurations and logs know the suite.
    #[must_use]
    pub fn openssl(self) -> &'static str {
        match self {
            Self::EcdheEcdsaAes128Gcm => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::EcdheRsaAes128Gcm => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::EcdheEcdsaAes256Gcm => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::EcdheRsaAes256Gcm => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::EcdheEcdsaChacha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::EcdheRsaChacha20 => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }

    /// The suite of an OpenSSL or IANA name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let iana = name.strip_prefix("TLS_").map(|rest| {
            let rest = rest.replace("_WITH", "").replace("AES_", "AES");
            let rest = rest.replace("POLY1305_SHA256", "POLY1305");
            rest.replace('_', "-")
        });
        let name = iana.as_deref().unwrap_or(name);
        Self::DEFAULT.into_iter().find(|s| s.openssl() == name)
    }
}

/// A group of the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the group of the same name")]
pub enum Curve {
    X25519,
    P256,
    P384,
    X25519MlKem768,
}

/// Keys of session tickets.
#[derive(Clone, Debug, Default)]
pub enum TicketKeys {
    /// Made by this process.
    #[default]
    Own,
    /// In the context: 80 bytes each, the first one seals.
    Inline(Arc<[Private]>),
    /// A secret of the snapshot, by name.
    Sds(Name),
}

/// Bytes from the configuration or from a file it names.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Content.
    pub bytes: Arc<[u8]>,
    /// File it came from; `None` = inline.
    pub path: Option<Name>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "Material({path})"),
            None => write!(f, "Material({} bytes)", self.bytes.len()),
        }
    }
}

/// A private key or other bytes that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Private(pub Material);

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A certificate chain with its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCertificate {
    /// Leaf first.
    pub certificate_chain: Material,
    /// Key of the leaf.
    pub private_key: Private,
    /// Password of the key.
    pub password: Option<Private>,
}

/// Kind of subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanType {
    /// Any kind.
    Any,
    /// DNS name.
    Dns,
    /// URI (SPIFFE).
    Uri,
    /// E-mail.
    Email,
    /// IP address.
    IpAddress,
}

/// A rule over subject alternative names; one matching rule is enough.
#[derive(Clone, Debug)]
pub struct SanMatcher {
    /// Kind of name.
    pub kind: SanType,
    /// Rule for its text.
    pub matcher: StringMatcher,
}

/// How the peer's certificate is checked.
#[derive(Clone, Debug, Default)]
pub struct ValidationContext {
    /// Trusted roots, PEM; none = nothing is verified (as Envoy).
    pub trusted_ca: Option<Material>,
    /// Use the system's roots.
    pub system_root_certs: bool,
    /// Trust bundles by SPIFFE trust domain (`envoy.tls.cert_validator.spiffe`).
    pub spiffe_bundles: Vec<(Name, Material)>,
    /// SAN rules; empty = any name.
    pub match_sans: Vec<SanMatcher>,
    /// SHA-256 of the SPKI, base64.
    pub verify_certificate_spki: Vec<Name>,
    /// SHA-256 of the certificate, lower-case hex without colons.
    pub verify_certificate_hash: Vec<Name>,
    /// Revocation lists, PEM.
    pub crl: Option<Material>,
    /// Accepts expired certificates.
    pub allow_expired_certificate: bool,
    /// Accepts an untrusted chain, for logging only.
    pub accept_untrusted: bool,
    /// Revocation is looked up for the leaf alone.
    pub only_verify_leaf_cert_crl: bool,
    /// Clients are not told which authorities are trusted.
    pub suppress_client_ca_list: bool,
}

/// Where a certificate comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// In the context.
    Inline(Arc<TlsCertificate>),
    /// A secret of the snapshot, by name.
    Sds(Name),
}

/// Where the validation rules come from.
#[derive(Clone, Debug, Default)]
pub enum ValidationSource {
    /// No check.
    #[default]
    None,
    /// In the context.
    Inline(Arc<ValidationContext>),
    /// A secret of the snapshot, by name.
    Sds(Name),
    /// Inline rules with roots (and what else it sets) from a secret.
    Combined {
        /// Inline part.
        default: Arc<ValidationContext>,
        /// Secret name.
        sds: Name,
    },
}

/// What both sides of TLS share.
#[derive(Clone, Debug, Default)]
pub struct CommonTls {
    /// Lowest version; none = side's default (1.2).
    pub min_version: Option<TlsVersion>,
    /// Highest version; none = side's default (server 1.3, client 1.2).
    pub max_version: Option<TlsVersion>,
    /// Suites of TLS 1.2 in the order of preference; empty = default.
    pub cipher_suites: Vec<CipherSuite>,
    /// Groups of the key exchange in the order of preference; empty = default.
    pub ecdh_curves: Vec<Curve>,
    /// Certificates to present.
    pub certificates: Vec<CertificateSource>,
    /// How the peer is checked.
    pub validation: ValidationSource,
    /// ALPN list, in preference order.
    pub alpn_protocols: Vec<Name>,
}

impl CommonTls {
    /// All secret names the context waits for.
    pub fn secret_names(&self) -> impl Iterator<Item = &Name> {
        let certs = self.certificates.iter().filter_map(|c| match c {
            CertificateSource::Sds(name) => Some(name),
            CertificateSource::Inline(_) => None,
        });
        let validation = match &self.validation {
            ValidationSource::Sds(name) | ValidationSource::Combined { sds: name, .. } => {
                Some(name)
            }
            _ => None,
        };
        certs.chain(validation)
    }
}

/// TLS towards clients.
#[derive(Clone, Debug, Default)]
pub struct DownstreamTls {
    /// Shared part.
    pub common: CommonTls,
    /// A client without certificate is refused.
    pub require_client_certificate: bool,
    /// A handshake whose SNI fits no certificate is refused.
    pub require_sni: bool,
    /// Session tickets are off.
    pub disable_stateless_session_resumption: bool,
    /// Sessions are not kept by their ids.
    pub disable_stateful_session_resumption: bool,
    /// What seals session tickets.
    pub ticket_keys: TicketKeys,
    /// The client's order of suites counts, not ours.
    pub prefer_client_ciphers: bool,
    /// Life of a session.
    pub session_timeout: Option<Duration>,
}

/// TLS towards endpoints.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// Shared part.
    pub common: CommonTls,
    /// SNI to send; empty = none.
    pub sni: Name,
    /// Take the SNI from the endpoint's host name.
    pub auto_host_sni: bool,
    /// The certificate must name the SNI that was sent.
    pub auto_sni_san_validation: bool,
    /// Renegotiation allowed (kept for dumps; never done).
    pub allow_renegotiation: bool,
    /// Sessions kept for resumption; none = 1.
    pub max_session_keys: Option<u32>,
}

/// A secret.
#[derive(Clone, Debug)]
pub enum Secret {
    /// Certificate and key.
    Certificate(Arc<TlsCertificate>),
    /// Validation rules.
    Validation(Arc<ValidationContext>),
    /// Ticket keys.
    SessionTicketKeys(Arc<[Private]>),
    /// Any bytes.
    Generic(Private),
}
