//! PEM to what rustls takes, and protocol versions.

use std::sync::Arc;

use lateen_proxy_core::config::tls::{TlsCertificate, TlsVersion};
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// The crypto provider of every context.
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
    let key = CertifiedKey::from_der(chain, key, &provider())?;
    Ok(Arc::new(key))
}

/// The protocol versions between two bounds.
pub(super) fn versions(
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let fits = |version: TlsVersion| {
        min.is_none_or(|min| min <= version) && max.is_none_or(|max| version <= max)
    };
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
