//! How a peer's certificate is judged: the chain against the trusted roots (or
//! the SPIFFE bundle of its trust domain) and revocation lists, then the names it
//! bears against the rules, then the pins. Envoy checks no host name unless told
//! so, and nothing without roots.

use std::sync::Arc;

use hashbrown::HashMap;
use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::tls::{SanMatcher, SanType, ValidationContext};
use lateen_proxy_core::matcher::StringRule;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{Names, each_san, sha256_hex};
use super::notes::{self, Fault, Refusal};
use super::roots::{self, Roots};
use super::self_trusted::Trusted;
use super::{TlsError, material, version1};

/// The rules a peer's certificate must meet.
#[derive(Debug)]
pub(super) struct PeerRules {
    roots: Option<Roots>,
    trusted: Trusted,
    bundles: HashMap<String, Roots>,
    crls: Vec<CertRevocationList<'static>>,
    leaf_crl_only: bool,
    sans: Vec<SanMatcher>,
    name: Option<Name>,
    hashes: Vec<Name>,
    spki: Vec<Name>,
    accept_untrusted: bool,
    silent: bool,
}

/// All revocation lists in a PEM text; there must be one unless `none` may be.
fn revocation_lists(pem: &[u8], none: bool) -> Result<Vec<CertRevocationList<'static>>, TlsError> {
    let bad = |error: &dyn std::fmt::Display| TlsError::Material(format!("crl: {error}"));
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(pem) {
        let der = der.map_err(|e| bad(&e))?;
        let list = OwnedCertRevocationList::from_der(&der).map_err(|e| bad(&e))?;
        lists.push(list.into());
    }
    match lists.is_empty() && !none {
        true => Err(bad(&"no revocation list in the PEM text")),
        false => Ok(lists),
    }
}

/// A judgement that is not favourable.
struct Bad {
    error: Error,
    fault: Fault,
    words: String,
}

impl Bad {
    fn chain(error: CertificateError, depth: usize, words: &str) -> Self {
        let words =
            format!("X509_verify_cert:_certificate_verification_error_at_depth_{depth}:_{words}");
        Self {
            error: Error::InvalidCertificate(error),
            fault: Fault::Chain,
            words,
        }
    }

    fn names(parsed: &X509Certificate<'_>) -> Self {
        let mut all = Vec::new();
        each_san(parsed, |_, text| all.push(text.to_owned()));
        let words = format!("SAN_matcher,_certificate_SANs_are_[{}]", all.join(",_"));
        Self::other(Fault::Names, &words)
    }

    /// From a list of revoked certificates.
    fn revocation(error: CertificateError, depth: usize, words: &str) -> Self {
        let words = format!("certificate_revocation_check_against_provided_CRLs_failed:_{words}");
        Self::chain(error, depth, &words)
    }

    fn other(fault: Fault, words: &str) -> Self {
        Self {
            error: Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure),
            fault,
            words: words.to_owned(),
        }
    }
}

impl PeerRules {
    /// Joins inline rules with those of a secret; `name` must be borne too.
    pub(super) fn new(
        contexts: &[Option<Arc<ValidationContext>>; 2],
        name: Option<Name>,
    ) -> Result<Self, TlsError> {
        let mut rules = Self {
            roots: None,
            trusted: Trusted::default(),
            bundles: HashMap::new(),
            crls: Vec::new(),
            leaf_crl_only: false,
            sans: Vec::new(),
            name,
            hashes: Vec::new(),
            spki: Vec::new(),
            accept_untrusted: false,
            silent: false,
        };
        for context in contexts.iter().flatten() {
            rules.join(context)?;
        }
        Ok(rules)
    }

    fn join(&mut self, context: &ValidationContext) -> Result<(), TlsError> {
        if let Some(pem) = &context.trusted_ca {
            self.roots = Some(Roots::new(&pem.bytes)?);
            self.trusted.set(&material::certificates(&pem.bytes)?);
            self.crls.extend(revocation_lists(&pem.bytes, true)?);
        }
        if context.system_root_certs {
            let pem = system_roots()?;
            self.roots.get_or_insert_default().extend(Roots::new(&pem)?);
        }
        for (domain, pem) in &context.spiffe_bundles {
            self.bundles
                .insert(domain.to_string(), Roots::new(&pem.bytes)?);
        }
        if let Some(pem) = &context.crl {
            self.crls.extend(revocation_lists(&pem.bytes, false)?);
        }
        self.leaf_crl_only |= context.only_verify_leaf_cert_crl;
        self.sans.extend(context.match_sans.iter().cloned());
        self.hashes
            .extend(context.verify_certificate_hash.iter().cloned());
        self.spki
            .extend(context.verify_certificate_spki.iter().cloned());
        self.accept_untrusted |= context.accept_untrusted;
        self.silent |= context.suppress_client_ca_list;
        Ok(())
    }

    /// The authorities a client is told of.
    fn hints(&self) -> Vec<DistinguishedName> {
        let roots = self.roots.iter().flat_map(Roots::anchors);
        roots
            .filter(|_| !self.silent)
            .map(|root| DistinguishedName::in_sequence(root.subject.as_ref()))
            .collect()
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let Err(bad) = self.judge(leaf, rest, now, usage) else {
            return Ok(());
        };
        if self.accept_untrusted {
            return Ok(());
        }
        notes::refused(Refusal {
            leaf: leaf.to_vec(),
            fault: bad.fault,
            words: bad.words,
        });
        Err(bad.error)
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Bad> {
        let encoding = |_| Bad::chain(CertificateError::BadEncoding, 0, "certificate_rejected");
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(encoding)?;
        // Every handshake of ours has the leaf's key sign.
        let key_usage = parsed.key_usage().ok().flatten();
        if key_usage.is_some_and(|u| !u.value.digital_signature()) {
            return Err(Bad::other(Fault::KeyUsage, ""));
        }
        self.check_chain((leaf, &parsed), rest, now, usage)?;
        if !self.sans.is_empty() && !self.sans.iter().any(|m| san_matches(m, &parsed)) {
            return Err(self.no_name_fits(&parsed));
        }
        if let Some(name) = &self.name
            && !bears(&parsed, name)
        {
            return Err(self.no_name_fits(&parsed));
        }
        match self.is_pinned(leaf, &parsed) {
            true => Ok(()),
            false => Err(Bad::other(Fault::Pins, "cert_hash_and_spki")),
        }
    }

    fn no_name_fits(&self, parsed: &X509Certificate<'_>) -> Bad {
        match self.bundles.is_empty() {
            true => Bad::names(parsed),
            false => Bad::other(Fault::Names, "SAN_match"),
        }
    }

    fn check_chain(
        &self,
        (leaf, parsed): (&CertificateDer<'_>, &X509Certificate<'_>),
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Bad> {
        let roots = if self.bundles.is_empty() {
            match &self.roots {
                Some(roots) => roots,
                None => return Ok(()),
            }
        } else {
            self.bundle_of(parsed)?
        };
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let depth = match self.leaf_crl_only {
            true => RevocationCheckDepth::EndEntity,
            false => RevocationCheckDepth::Chain,
        };
        // Without a list there is nothing to ask.
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_depth(depth)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let itself = self.trusted.has(leaf);
        let judged = |path: &VerifiedPath<'_>| roots.judge(path, now, itself);
        let built = EndEntityCert::try_from(leaf).and_then(|cert| {
            let anchors = roots.anchors();
            cert.verify_for_usage(
                algorithms,
                anchors,
                rest,
                now,
                usage,
                revocation,
                Some(&judged),
            )
            .map(|_| ())
        });
        let version1 = built == Err(webpki::Error::UnsupportedCertVersion) && version1::is(leaf);
        let lists = !self.crls.is_empty();
        let authority = built == Err(webpki::Error::CaUsedAsEndEntity);
        if (version1 || authority)
            && self.bundles.is_empty()
            && let Some(verdict) = self.trusted.judge((leaf, parsed), now, &usage, lists)
        {
            return verdict.map_err(|(error, words)| Bad::chain(error, 0, words));
        }
        let built = match version1 {
            true => version1::judge(leaf, parsed, roots, now, lists),
            false => built,
        };
        built.map_err(|error| chain_fault(&error, parsed, rest, now, &crls))
    }

    /// The bundle of the leaf's trust domain. A certificate that may sign others
    /// names no workload (SPIFFE X.509-SVID sections 4.1 and 4.3).
    fn bundle_of(&self, leaf: &X509Certificate<'_>) -> Result<&Roots, Bad> {
        let untrusted = |words| Bad::other(Fault::Chain, words);
        let usage = leaf.key_usage().ok().flatten();
        // The key usage must be there (section 4.3).
        let signs = usage.is_none_or(|u| u.value.key_cert_sign() || u.value.crl_sign());
        if leaf.is_ca() || signs {
            return Err(untrusted("cert_precheck"));
        }
        let bundle = trust_domain(leaf).and_then(|domain| self.bundles.get(&domain));
        bundle.ok_or_else(|| untrusted("no_trust_bundle_store"))
    }

    fn is_pinned(&self, leaf: &CertificateDer<'_>, parsed: &X509Certificate<'_>) -> bool {
        use aws_lc_rs::digest::{SHA256, digest};
        use base64::Engine as _;
        if self.hashes.is_empty() && self.spki.is_empty() {
            return true;
        }
        let hash = sha256_hex(leaf);
        let spki = digest(&SHA256, parsed.tbs_certificate.subject_pki.raw);
        let spki = base64::engine::general_purpose::STANDARD.encode(spki.as_ref());
        self.hashes.iter().any(|want| **want == *hash)
            || self.spki.iter().any(|want| **want == *spki)
    }
}

/// What is wrong with a chain, in OpenSSL's words, at the certificate that it
/// would name: the leaf is at depth 0.
fn chain_fault(
    error: &webpki::Error,
    leaf: &X509Certificate<'_>,
    rest: &[CertificateDer<'_>],
    now: UnixTime,
    crls: &[&CertRevocationList<'_>],
) -> Bad {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let above: Vec<X509Certificate<'_>> = rest
        .iter()
        .filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1))
        .collect();
    let path = path(leaf, &above);
    let find = |bad: &dyn Fn(&X509Certificate<'_>) -> bool| path.iter().position(|cert| bad(cert));
    let at = |bad: &dyn Fn(&X509Certificate<'_>) -> bool| find(bad).unwrap_or(0);
    // A root that nobody sent stands above them.
    let out_of_time = |bad: &dyn Fn(&X509Certificate<'_>) -> bool| find(bad).unwrap_or(path.len());
    match error {
        webpki::Error::CertExpired { .. } => {
            let depth = out_of_time(&|c| c.validity().not_after.timestamp() < now);
            Bad::chain(CertificateError::Expired, depth, "certificate_has_expired")
        }
        webpki::Error::CertNotValidYet { .. } => {
            let depth = out_of_time(&|c| c.validity().not_before.timestamp() > now);
            let words = "certificate_is_not_yet_valid";
            Bad::chain(CertificateError::NotValidYet, depth, words)
        }
        webpki::Error::CertRevoked => {
            let depth = at(&|c| {
                let listed = |l: &&&CertRevocationList<'_>| {
                    matches!(l.find_serial(c.raw_serial()), Ok(Some(_)))
                };
                crls.iter().filter(|l| is_of(l, c)).any(|l| listed(&l))
            });
            Bad::revocation(CertificateError::Revoked, depth, "certificate_revoked")
        }
        webpki::Error::UnknownRevocationStatus => {
            let words = "unable_to_get_certificate_CRL";
            let depth = at(&|c| !crls.iter().any(|l| is_of(l, c)));
            Bad::revocation(CertificateError::UnknownRevocationStatus, depth, words)
        }
        webpki::Error::CrlExpired { .. } => {
            let words = "CRL_has_expired";
            Bad::revocation(CertificateError::ExpiredRevocationList, 0, words)
        }
        webpki::Error::UnknownIssuer => {
            let depth = path.len() - 1;
            let last = path[depth];
            let words = match (last.subject() == last.issuer(), depth) {
                (true, 0) => "self_signed_certificate",
                (true, _) => "self_signed_certificate_in_certificate_chain",
                (false, _) => "unable_to_get_local_issuer_certificate",
            };
            Bad::chain(CertificateError::UnknownIssuer, depth, words)
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            let words = "unsupported_certificate_purpose";
            Bad::chain(CertificateError::InvalidPurpose, 0, words)
        }
        webpki::Error::InvalidSignatureForPublicKey => {
            let words = "certificate_signature_failure";
            Bad::chain(CertificateError::BadSignature, 0, words)
        }
        other => {
            let words = other.to_string().replace(' ', "_");
            Bad::chain(CertificateError::ApplicationVerificationFailure, 0, &words)
        }
    }
}

/// Whether a list is that of a certificate's issuer. One of both names has its
/// outer tag.
fn is_of(list: &CertRevocationList<'_>, cert: &X509Certificate<'_>) -> bool {
    cert.issuer().as_raw().ends_with(list.issuer())
}

/// The certificates from the leaf upwards, as far as names lead.
fn path<'a>(
    leaf: &'a X509Certificate<'a>,
    above: &'a [X509Certificate<'a>],
) -> Vec<&'a X509Certificate<'a>> {
    let mut path = vec![leaf];
    while path.len() <= above.len() {
        let last = path[path.len() - 1];
        let next = above.iter().find(|c| {
            c.subject() == last.issuer()
                && roots::may_sign(c)
                && !path.iter().any(|p| p.tbs_certificate == c.tbs_certificate)
        });
        match next {
            Some(next) if last.subject() != last.issuer() => path.push(next),
            _ => break,
        }
    }
    path
}

fn system_roots() -> Result<Vec<u8>, TlsError> {
    let path = "/etc/ssl/certs/ca-certificates.crt";
    lateen_proxy_xds::files::read(path).map_err(|e| TlsError::Material(format!("{path}: {e}")))
}

/// An exact rule over DNS names takes a certificate's wildcard for the names it
/// covers, as Envoy does; every other rule looks at the text.
fn san_matches(rule: &SanMatcher, parsed: &X509Certificate<'_>) -> bool {
    let mut found = false;
    each_san(parsed, |kind, text| {
        if rule.kind != SanType::Any && rule.kind != kind {
            return;
        }
        found |= match &rule.matcher.rule {
            StringRule::Exact(name) if kind == SanType::Dns => matches_dns(text, name),
            _ => rule.matcher.matches(text.as_bytes()),
        };
    });
    found
}

/// Whether a certificate is one of a host: by DNS name, or by address.
fn bears(parsed: &X509Certificate<'_>, host: &str) -> bool {
    let mut found = false;
    each_san(parsed, |kind, text| {
        found |= match kind {
            SanType::Dns => matches_dns(text, host),
            SanType::IpAddress => text == host,
            _ => false,
        };
    });
    found
}

/// The SPIFFE trust domain of a certificate.
fn trust_domain(leaf: &X509Certificate<'_>) -> Option<String> {
    let mut domain = None;
    each_san(leaf, |kind, text| {
        if kind == SanType::Uri && domain.is_none() {
            domain = text
                .strip_prefix("spiffe://")
                .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned());
        }
    });
    domain
}

/// The names by which a server's certificate is chosen: its DNS names, or the
/// common name of one without.
pub(super) fn server_names(names: &Names) -> Vec<String> {
    match (names.dns.as_slice(), &names.common_name) {
        ([], Some(name)) => vec![name.clone()],
        (dns, _) => dns.to_vec(),
    }
}

/// Whether a certificate's DNS name (perhaps `*.x`) covers a host name. The star
/// stands for one label (CVE-2020-15104).
pub(super) fn matches_dns(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(suffix) => name
            .split_once('.')
            .is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(suffix)),
    }
}

fn proves_tls12(
    message: &[u8],
    cert: &CertificateDer<'_>,
    proof: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &material::provider().signature_verification_algorithms;
    match version1::is(cert) {
        true => version1::proves_tls12(message, cert, proof, algorithms),
        false => verify_tls12_signature(message, cert, proof, algorithms),
    }
}

fn proves_tls13(
    message: &[u8],
    cert: &CertificateDer<'_>,
    proof: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &material::provider().signature_verification_algorithms;
    match version1::is(cert) {
        true => version1::proves_tls13(message, cert, proof, algorithms),
        false => verify_tls13_signature(message, cert, proof, algorithms),
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
        proves_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proves_tls13(message, cert, dss)
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
    rules: PeerRules,
    required: bool,
    hints: Vec<DistinguishedName>,
}

impl ClientRules {
    /// Rules for certificates that clients may, or must, show.
    pub(super) fn new(rules: PeerRules, required: bool) -> Self {
        Self {
            hints: rules.hints(),
            rules,
            required,
        }
    }
}

impl ClientCertVerifier for ClientRules {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
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
        proves_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proves_tls13(message, cert, dss)
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
    fn cve_2020_15104_wildcard_covers_one_label() {
        assert!(matches_dns("*.a.b", "x.a.b"));
        assert!(!matches_dns("*.a.b", "x.y.a.b"));
        assert!(!matches_dns("*.a.b", "a.b"));
        assert!(matches_dns("A.b", "a.B"));
    }
}
