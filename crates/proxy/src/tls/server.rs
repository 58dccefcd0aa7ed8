//! TLS towards clients.

use std::sync::Arc;

use lateen_proxy_core::config::tls::DownstreamTls;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::verify::{ClientRules, PeerRules, dns_names, matches_dns};
use super::{Resolved, TlsError, material};

/// Makes the configuration of a server context.
pub(super) fn config(context: &DownstreamTls, parts: &Resolved) -> Result<ServerConfig, TlsError> {
    let versions = material::versions(context.common.min_version, context.common.max_version)?;
    let builder = ServerConfig::builder_with_provider(material::provider())
        .with_protocol_versions(&versions)?;
    let checks = parts.validation.iter().any(Option::is_some);
    let builder = if checks || context.require_client_certificate {
        let rules = PeerRules::new(&parts.validation, None)?;
        builder.with_client_cert_verifier(Arc::new(ClientRules {
            rules,
            required: context.require_client_certificate,
        }))
    } else {
        builder.with_no_client_auth()
    };
    let mut keys = Vec::new();
    for certificate in &parts.certificates {
        let key = material::certified_key(certificate)?;
        let names = key.cert.first().map(|c| dns_names(c)).unwrap_or_default();
        keys.push((names, key));
    }
    if keys.is_empty() {
        return Err(TlsError::Material(
            "the TLS context has no certificate".to_owned(),
        ));
    }
    let mut config = builder.with_cert_resolver(Arc::new(ByName {
        keys,
        strict: context.require_sni,
    }));
    config.alpn_protocols = context
        .common
        .alpn_protocols
        .iter()
        .map(|p| p.as_bytes().to_vec())
        .collect();
    if context.disable_stateless_session_resumption {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// Chooses the certificate that bears the client's SNI, else the first.
#[derive(Debug)]
struct ByName {
    keys: Vec<(Vec<String>, Arc<CertifiedKey>)>,
    strict: bool,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|sni| {
            let fits = |names: &Vec<String>| names.iter().any(|n| matches_dns(n, sni));
            self.keys.iter().find(|(names, _)| fits(names))
        });
        let first = self.keys.first().filter(|_| !self.strict);
        named.or(first).map(|(_, key)| key.clone())
    }
}
