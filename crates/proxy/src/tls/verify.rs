//! How a peer's certificate is judged: the chain against the trusted roots (or
//! the SPIFFE bundle of its trust domain), then the names it bears against the
//! rules. Envoy checks no host name unless told so, and nothing without roots.

use std::sync::Arc;

use hashbrown::HashMap;
use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::tls::{SanMatcher, SanType, ValidationContext};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, material};

/// The rules a peer's certificate must meet.
#[derive(Debug)]
pub(super) struct PeerRules {
    roots: Option<Vec<TrustAnchor<'static>>>,
    bundles: HashMap<String, Vec<TrustAnchor<'static>>>,
    sans: Vec<SanMatcher>,
    name: Option<Name>,
    hashes: Vec<Name>,
    spki: Vec<Name>,
    accept_untrusted: bool,
}

fn anchors(pem: &[u8]) -> Result<Vec<TrustAnchor<'static>>, TlsError> {
    material::certificates(pem)?
        .iter()
        .map(|der| match webpki::anchor_from_trusted_cert(der) {
            Ok(anchor) => Ok(anchor.to_owned()),
            Err(error) => Err(TlsError::Material(format!("trusted CA: {error}"))),
        })
        .collect()
}

impl PeerRules {
    /// Joins inline rules with those of a secret; `name` must be borne too.
    pub(super) fn new(
        contexts: &[Option<Arc<ValidationContext>>; 2],
        name: Option<Name>,
    ) -> Result<Self, TlsError> {
        let mut rules = Self {
            roots: None,
            bundles: HashMap::new(),
            sans: Vec::new(),
            name,
            hashes: Vec::new(),
            spki: Vec::new(),
            accept_untrusted: false,
        };
        for context in contexts.iter().flatten() {
            rules.join(context)?;
        }
        Ok(rules)
    }

    fn join(&mut self, context: &ValidationContext) -> Result<(), TlsError> {
        if let Some(pem) = &context.trusted_ca {
            self.roots = Some(anchors(&pem.bytes)?);
        }
        if context.system_root_certs {
            let pem = system_roots()?;
            self.roots.get_or_insert_default().extend(anchors(&pem)?);
        }
        for (domain, pem) in &context.spiffe_bundles {
            self.bundles
                .insert(domain.to_string(), anchors(&pem.bytes)?);
        }
        if context.crl.is_some() {
            let text = "certificate revocation lists are not supported";
            return Err(TlsError::Refused(text.to_owned()));
        }
        self.sans.extend(context.match_sans.iter().cloned());
        self.hashes
            .extend(context.verify_certificate_hash.iter().cloned());
        self.spki
            .extend(context.verify_certificate_spki.iter().cloned());
        self.accept_untrusted |= context.accept_untrusted;
        Ok(())
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        self.check_chain(leaf, rest, now, usage)?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if !self.sans.is_empty() && !self.sans.iter().any(|m| san_matches(m, &parsed)) {
            return Err(other("no subject alternative name matches"));
        }
        if let Some(name) = &self.name
            && !dns_names(leaf).iter().any(|n| matches_dns(n, name))
        {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        self.check_pins(leaf, &parsed)
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let domain_roots;
        let roots = if self.bundles.is_empty() {
            match &self.roots {
                Some(roots) => roots,
                None => return Ok(()),
            }
        } else {
            domain_roots = trust_domain(leaf).and_then(|d| self.bundles.get(&d));
            domain_roots.ok_or_else(|| other("no bundle for the trust domain"))?
        };
        let bad = |e: webpki::Error| match e {
            webpki::Error::CertExpired { .. } => {
                Error::InvalidCertificate(CertificateError::Expired)
            }
            webpki::Error::UnknownIssuer => {
                Error::InvalidCertificate(CertificateError::UnknownIssuer)
            }
            e => other(&e.to_string()),
        };
        let checked = EndEntityCert::try_from(leaf).and_then(|cert| {
            cert.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                roots,
                rest,
                now,
                usage,
                None,
                None,
            )
            .map(|_| ())
        });
        match checked {
            Err(_) if self.accept_untrusted => Ok(()),
            done => done.map_err(bad),
        }
    }

    fn check_pins(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
    ) -> Result<(), Error> {
        use aws_lc_rs::digest::{SHA256, digest};
        if self.hashes.is_empty() && self.spki.is_empty() {
            return Ok(());
        }
        let hex: String = digest(&SHA256, leaf)
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if self.hashes.iter().any(|want| **want == *hex) {
            return Ok(());
        }
        let spki = base64(digest(&SHA256, parsed.tbs_certificate.subject_pki.raw).as_ref());
        if self.spki.iter().any(|want| **want == *spki) {
            return Ok(());
        }
        Err(other("the certificate is not among the pinned ones"))
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let padded = [
            group[0],
            *group.get(1).unwrap_or(&0),
            *group.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize] as char;
            text.push(if place <= group.len() { digit } else { '=' });
        }
    }
    text
}

fn system_roots() -> Result<Vec<u8>, TlsError> {
    let path = "/etc/ssl/certs/ca-certificates.crt";
    std::fs::read(path).map_err(|e| TlsError::Material(format!("{path}: {e}")))
}

fn other(text: &str) -> Error {
    Error::General(text.to_owned())
}

fn each_san(parsed: &X509Certificate<'_>, mut visit: impl FnMut(SanType, &str)) {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return;
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(text) => visit(SanType::Dns, text),
            GeneralName::URI(text) => visit(SanType::Uri, text),
            GeneralName::RFC822Name(text) => visit(SanType::Email, text),
            GeneralName::IPAddress(bytes) => {
                if let Some(ip) = ip_text(bytes) {
                    visit(SanType::IpAddress, &ip);
                }
            }
            _ => {}
        }
    }
}

fn ip_text(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

fn san_matches(matcher: &SanMatcher, parsed: &X509Certificate<'_>) -> bool {
    let mut found = false;
    each_san(parsed, |kind, text| {
        // A NUL in a name would end it for a C program and not for us.
        let kind_fits = matcher.kind == SanType::Any || matcher.kind == kind;
        found |= kind_fits && !text.contains('\0') && matcher.matcher.matches(text.as_bytes());
    });
    found
}

/// The names of a peer's certificate: (URI names, DNS names, subject).
pub fn peer_names(leaf: &[u8]) -> (Vec<String>, Vec<String>, String) {
    let (mut uris, mut dns, mut subject) = (Vec::new(), Vec::new(), String::new());
    if let Ok((_, parsed)) = X509Certificate::from_der(leaf) {
        subject = parsed.subject().to_string();
        each_san(&parsed, |kind, text| match kind {
            SanType::Uri => uris.push(text.to_owned()),
            SanType::Dns => dns.push(text.to_owned()),
            _ => {}
        });
    }
    (uris, dns, subject)
}

/// The DNS names of a certificate.
pub(super) fn dns_names(leaf: &[u8]) -> Vec<String> {
    peer_names(leaf).1
}

/// The SPIFFE trust domain of a certificate.
fn trust_domain(leaf: &[u8]) -> Option<String> {
    let (uris, _, _) = peer_names(leaf);
    let rest = uris.iter().find_map(|u| u.strip_prefix("spiffe://"))?;
    Some(rest.split('/').next().unwrap_or(rest).to_owned())
}

/// Whether a certificate's DNS name (perhaps `*.x`) covers a host name.
pub(super) fn matches_dns(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(suffix) => name
            .split_once('.')
            .is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(suffix)),
    }
}

/// [`PeerRules`] over a server's certificate.
#[derive(Debug)]
pub(super) struct ServerRules(pub(super) PeerRules);

impl ServerCertVerifier for ServerRules {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0
            .check(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &material::provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &material::provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        material::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// [`PeerRules`] over a client's certificate.
#[derive(Debug)]
pub(super) struct ClientRules {
    pub(super) rules: PeerRules,
    pub(super) required: bool,
}

impl ClientCertVerifier for ClientRules {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.rules
            .check(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &material::provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &material::provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        material::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_covers_one_label() {
        assert!(matches_dns("*.a.b", "x.a.b"));
        assert!(!matches_dns("*.a.b", "x.y.a.b"));
        assert!(!matches_dns("*.a.b", "a.b"));
        assert!(matches_dns("A.b", "a.B"));
    }

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    }
}
