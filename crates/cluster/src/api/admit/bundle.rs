//! Who a webhook's `caBundle` vouches for: servers with a certificate issued by one in it and, as
//! Go's clients have it, a server whose certificate is itself in it, though it be an authority's
//! (`openssl req -x509` makes such ones). Name and time count in either case.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The check of a webhook server's certificate.
#[derive(Debug)]
pub(super) struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    issued: Arc<WebPkiServerVerifier>,
}

impl Bundle {
    /// `roots` has all of `certificates`.
    ///
    /// # Errors
    /// Roots that cannot be used, as text.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| format!("tls: {e}"))?;
        Ok(Self {
            certificates,
            issued,
        })
    }
}

/// Whether a certificate is for `name` at `now`; who issued it is not asked.
fn check_itself(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    rustls::client::verify_server_name(&parsed, name)?;
    let info = lateen_identity::certificate_info_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
    if now < info.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > info.not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = match self.issued.verify_server_cert(leaf, chain, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        // The handshake's signature, checked below, shows that the server has its key.
        if !self.certificates.iter().any(|c| c == leaf) {
            return Err(refused);
        }
        check_itself(leaf, name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An authority's certificate for `name`, valid from `start` on for a day.
    fn made(name: &str, start: SystemTime) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = start.into();
        params.not_after = (start + Duration::from_secs(86400)).into();
        params.self_signed(&key).expect("signed").der().clone()
    }

    fn verdict(shown: &CertificateDer<'_>, bundle: &CertificateDer<'static>) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add(bundle.clone()).expect("root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let bundle = Bundle::new(vec![bundle.clone()], roots, provider).expect("bundle");
        let name = ServerName::try_from("hook.default.svc").expect("name");
        bundle
            .verify_server_cert(shown, &[], &name, &[], UnixTime::now())
            .map(|_| ())
    }

    #[test]
    fn an_authority_may_serve_itself_when_name_and_time_are_right() {
        let hour = Duration::from_secs(3600);
        let day = Duration::from_secs(86400);
        let now = SystemTime::now();
        let right = made("hook.default.svc", now - hour);
        assert_eq!(verdict(&right, &right), Ok(()));
        let other = made("other.default.svc", now - hour);
        let error = verdict(&other, &other).expect_err("another name");
        assert!(error.to_string().contains("not valid for name"), "{error}");
        let late = made("hook.default.svc", now - day - hour);
        assert_eq!(verdict(&late, &late), Err(CertificateError::Expired.into()));
        let early = made("hook.default.svc", now + hour);
        let not_yet = CertificateError::NotValidYet;
        assert_eq!(verdict(&early, &early), Err(not_yet.into()));
        // Not in the bundle: an equal look is not enough.
        let twin = made("hook.default.svc", now - hour);
        verdict(&twin, &right).expect_err("another certificate");
    }
}
