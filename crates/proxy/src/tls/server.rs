//! TLS towards clients.

use std::sync::Arc;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::tls::{DownstreamTls, Private, TlsVersion};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SignatureAlgorithm, SignatureScheme};

use super::certificate::Names;
use super::tickets::Tickets;
use super::verify::{ClientRules, PeerRules, matches_dns, server_names};
use super::{Resolved, TlsError, material, notes};

/// Makes the configuration of a server context. `given` are ticket keys of the
/// configuration, `alpn` the protocols to agree on.
pub(super) fn config(
    context: &DownstreamTls,
    parts: &Resolved,
    given: Option<&[Private]>,
    alpn: &[Name],
) -> Result<ServerConfig, TlsError> {
    let common = &context.common;
    let versions = material::versions(common.min_version, common.max_version, TlsVersion::V1_3)?;
    let builder = ServerConfig::builder_with_provider(material::provider_of(common))
        .with_protocol_versions(&versions)?;
    let checks = parts.validation.iter().any(Option::is_some);
    let builder = if checks || context.require_client_certificate {
        let rules = PeerRules::new(&parts.validation, None)?;
        let required = context.require_client_certificate;
        builder.with_client_cert_verifier(Arc::new(ClientRules::new(rules, required)))
    } else {
        builder.with_no_client_auth()
    };
    let keys: Vec<Own> = parts
        .certificates
        .iter()
        .map(|certificate| material::certified_key(certificate).map(Own::new))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(TlsError::Material(
            "the TLS context has no certificate".to_owned(),
        ));
    }
    let names: Vec<Arc<Names>> = keys.iter().map(|own| own.names.clone()).collect();
    let mut config = builder.with_cert_resolver(Arc::new(ByName {
        keys,
        strict: context.require_sni,
    }));
    config.ignore_client_order = !context.prefer_client_ciphers;
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    if context.disable_stateless_session_resumption {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = Arc::new(Tickets::new(context, parts, &names, given)?);
    }
    if context.disable_stateful_session_resumption {
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

/// A certificate to show.
#[derive(Debug)]
struct Own {
    hosts: Vec<String>,
    names: Arc<Names>,
    ecdsa: bool,
    key: Arc<CertifiedKey>,
}

impl Own {
    fn new(key: Arc<CertifiedKey>) -> Self {
        let names = key.cert.first().map(|c| Names::of(c)).unwrap_or_default();
        Self {
            hosts: server_names(&names),
            names: Arc::new(names),
            ecdsa: key.key.algorithm() == SignatureAlgorithm::ECDSA,
            key,
        }
    }
}

/// Chooses the certificate that bears the client's SNI: by its exact name, then
/// by a wildcard; of several the one whose key fits the client; else the first.
#[derive(Debug)]
struct ByName {
    keys: Vec<Own>,
    strict: bool,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ecdsa = takes_ecdsa(&hello);
        let named = hello.server_name().and_then(|sni| {
            let exact = self.best(ecdsa, |host| host.eq_ignore_ascii_case(sni));
            exact.or_else(|| self.best(ecdsa, |host| matches_dns(host, sni)))
        });
        let fallback = || self.keys.first().filter(|_| !self.strict);
        let own = named.or_else(fallback)?;
        notes::shown(&own.names);
        Some(own.key.clone())
    }
}

impl ByName {
    fn best(&self, ecdsa: bool, fits: impl Fn(&str) -> bool) -> Option<&Own> {
        let mut all = self
            .keys
            .iter()
            .filter(|own| own.hosts.iter().any(|h| fits(h)));
        let first = all.next()?;
        match first.ecdsa == ecdsa {
            true => Some(first),
            false => all.find(|own| own.ecdsa == ecdsa).or(Some(first)),
        }
    }
}

/// Whether the client can do with an ECDSA certificate.
fn takes_ecdsa(hello: &ClientHello<'_>) -> bool {
    let scheme = |s: &SignatureScheme| {
        matches!(
            s,
            SignatureScheme::ECDSA_NISTP256_SHA256
                | SignatureScheme::ECDSA_NISTP384_SHA384
                | SignatureScheme::ECDSA_NISTP521_SHA512
        )
    };
    let suite = |s: &CipherSuite| {
        matches!(
            s,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        )
    };
    hello.signature_schemes().iter().any(scheme) && hello.cipher_suites().iter().any(suite)
}
