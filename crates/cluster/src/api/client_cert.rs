//! Client certificates at the API's port: any is taken into the handshake, so that one of a foreign
//! authority meets the API's own 401 instead of a broken connection, as with the usual server. Who
//! somebody is comes from [`ClientCertificates::trusted`] alone.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

/// The cluster's rule for client certificates.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificates {
    strict: Arc<dyn ClientCertVerifier>,
}

impl ClientCertificates {
    /// Certificates of these authorities are trusted; none need be shown.
    ///
    /// # Errors
    /// Roots that cannot be used, as text.
    pub(crate) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { strict })
    }

    /// The certificate of a chain whose first was issued by a trusted authority. Its holder has
    /// shown the key in the handshake.
    pub(crate) fn trusted<'c>(
        &self,
        chain: &'c [CertificateDer<'static>],
    ) -> Option<&'c CertificateDer<'static>> {
        let (leaf, rest) = chain.split_first()?;
        match self.strict.verify_client_cert(leaf, rest, UnixTime::now()) {
            Ok(_) => Some(leaf),
            Err(error) => {
                tracing::debug!(%error, "a client certificate is not trusted");
                None
            }
        }
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Trust is asked for later; the signature over the handshake is still demanded below.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
