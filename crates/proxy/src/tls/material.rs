//! PEM to what rustls takes, and protocol versions.

use std::sync::Arc;

use lateen_proxy_core::config::tls::{CipherSuite, CommonTls, Curve, TlsCertificate, TlsVersion};
use lateen_proxy_xds::certified_key::certified_key as joined;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::sign::CertifiedKey;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// Suites of TLS 1.3; no list of a configuration concerns them.
const TLS13: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

fn suite(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::EcdheEcdsaAes128Gcm => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaAes128Gcm => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaAes256Gcm => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaAes256Gcm => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaChacha20 => {
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        CipherSuite::EcdheRsaChacha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    match curve {
        Curve::X25519 => kx_group::X25519,
        Curve::P256 => kx_group::SECP256R1,
        Curve::P384 => kx_group::SECP384R1,
        Curve::X25519MlKem768 => kx_group::X25519MLKEM768,
    }
}

/// Envoy's groups where a configuration names none.
const GROUPS: [Curve; 2] = [Curve::X25519, Curve::P256];

/// The crypto provider of a context: its suites and groups in its order.
pub(super) fn provider_of(common: &CommonTls) -> Arc<CryptoProvider> {
    let suites = match common.cipher_suites.as_slice() {
        [] => &CipherSuite::DEFAULT,
        named => named,
    };
    let groups = match common.ecdh_curves.as_slice() {
        [] => &GROUPS,
        named => named,
    };
    let base = provider();
    Arc::new(CryptoProvider {
        cipher_suites: TLS13
            .into_iter()
            .chain(suites.iter().map(|s| suite(*s)))
            .collect(),
        kx_groups: groups.iter().map(|g| group(*g)).collect(),
        ..(*base).clone()
    })
}

/// What all contexts have in common: algorithms of signatures, randomness, key formats.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .clone()
}

/// All certificates in a PEM text.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(TlsError::Material(
            "no certificate in the PEM text".to_owned(),
        )),
        Err(error) => Err(TlsError::Material(format!("certificate: {error}"))),
    }
}

/// A certificate chain with its key, checked to belong together.
pub(super) fn certified_key(certificate: &TlsCertificate) -> Result<Arc<CertifiedKey>, TlsError> {
    if certificate.password.is_some() {
        return Err(TlsError::Material(
            "encrypted private keys are not supported".to_owned(),
        ));
    }
    let chain = certificates(&certificate.certificate_chain.bytes)?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.private_key.0.bytes)
        .map_err(|error| TlsError::Material(format!("private key: {error}")))?;
    let key = joined(chain, key, &provider())?;
    Ok(Arc::new(key))
}

/// The protocol versions between two bounds; `most` is the side's own upper bound.
pub(super) fn versions(
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
    most: TlsVersion,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    // A lower bound above the default upper one raises it.
    let max = max.unwrap_or(most.max(min.unwrap_or(most)));
    let fits = |version: TlsVersion| min.is_none_or(|min| min <= version) && version <= max;
    let mut list = Vec::new();
    if fits(TlsVersion::V1_3) {
        list.push(&rustls::version::TLS13);
    }
    if fits(TlsVersion::V1_2) {
        list.push(&rustls::version::TLS12);
    }
    if list.is_empty() {
        return Err(TlsError::Refused(
            "no TLS version of 1.2 and 1.3 is allowed".to_owned(),
        ));
    }
    Ok(list)
}
