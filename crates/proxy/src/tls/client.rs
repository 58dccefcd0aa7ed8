//! TLS towards endpoints.

use std::sync::Arc;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::tls::{TlsVersion, UpstreamTls};
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;

use super::verify::{PeerRules, ServerRules};
use super::{Resolved, TlsError, material};

/// Makes the configuration of a client context.
pub(super) fn config(
    context: &UpstreamTls,
    parts: &Resolved,
    san: Option<&Name>,
    alpn: &[Name],
) -> Result<ClientConfig, TlsError> {
    let common = &context.common;
    let versions = material::versions(common.min_version, common.max_version, TlsVersion::V1_2)?;
    let rules = PeerRules::new(&parts.validation, san.cloned())?;
    let builder = ClientConfig::builder_with_provider(material::provider_of(common))
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerRules(rules)));
    let mut config = match parts.certificates.first() {
        Some(certificate) => {
            let key = material::certified_key(certificate)?;
            builder.with_client_cert_resolver(Arc::new(One(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    config.enable_sni = true;
    // Sessions are kept by server name.
    config.resumption = match context.max_session_keys {
        Some(0) => Resumption::disabled(),
        most => Resumption::in_memory_sessions(most.map_or(1, |n| n.min(1024) as usize)),
    };
    Ok(config)
}

/// Presents the one certificate whatever the server asks for, as Envoy does.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesClientCert for One {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
