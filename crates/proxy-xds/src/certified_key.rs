//! A certificate chain with its private key, checked to belong together.

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Joins them. The certificate is one's own, so it is read and not judged: also one that no peer of
/// ours would be taken with, such as one of X.509 version 1, is shown, as Envoy does.
///
/// # Errors
/// When the key cannot be used, the chain is empty or its first certificate cannot be read, or is
/// for another key.
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let key = CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?);
    let Some(public) = key.key.public_key() else {
        return Ok(key);
    };
    let (_, certificate) = X509Certificate::from_der(key.end_entity_cert()?)
        .map_err(|_| Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
    match certificate.tbs_certificate.subject_pki.raw == public.as_ref() {
        true => Ok(key),
        false => Err(InconsistentKeys::KeyMismatch.into()),
    }
}
