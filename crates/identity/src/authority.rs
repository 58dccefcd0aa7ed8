//! A certificate authority: a self-signed root and the leaves it signs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};

use crate::{IdentityError, SpiffeId};

/// Ten years of 365 days: the root's life, as istiod's self-signed root.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Longest signing request that is read: one with a 4096-bit RSA key is under 2 KiB.
const LONGEST_REQUEST: usize = 16 * 1024;
/// Leaves begin a little early, so that clocks of peers may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// A root certificate with its key, ready to sign.
pub struct CertificateAuthority {
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The leaf certificate alone, without the root.
    pub cert_pem: String,
    /// The key, PKCS#8.
    pub key_pem: String,
}

/// Whom a leaf certificate names.
#[derive(Clone, Debug)]
pub enum Subject<'a> {
    /// A server, by DNS names and IP addresses (IP texts are recognised).
    Server {
        /// Common name.
        common_name: &'a str,
        /// DNS names and IP addresses.
        names: &'a [String],
    },
    /// A client: user name and at most one group (the CN and O of Kubernetes' client
    /// certificates).
    Client {
        /// User name.
        user: &'a str,
        /// Group, such as `system:masters`.
        group: Option<&'a str>,
    },
    /// A workload.
    Workload(&'a SpiffeId),
}

impl CertificateAuthority {
    /// A new root: P-256, valid for ten years from `now`, with the given organisation and
    /// common name in its subject.
    ///
    /// # Errors
    /// Key generation or signing failed.
    pub fn self_signed(
        organization: &str,
        common_name: &str,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        if !common_name.is_empty() {
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        set_validity(&mut params, now, ROOT_LIFE);
        params.serial_number = Some(random_serial()?);
        let cert = params.self_signed(&key)?;
        let (cert_pem, key_pem) = (cert.pem(), key.serialize_pem());
        Ok(Self {
            issuer: Issuer::new(params, key),
            cert_pem,
            key_pem,
        })
    }

    /// An authority from its stored certificate and key.
    ///
    /// # Errors
    /// Either does not parse.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(cert_pem, key)?,
            cert_pem: cert_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        })
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The root's private key, PEM (PKCS#8): for storage by the caller.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A new key and a certificate for it, valid from `now` (less two minutes) for `life`.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate; key generation or signing failed.
    pub fn issue(
        &self,
        subject: &Subject<'_>,
        life: Duration,
        now: SystemTime,
    ) -> Result<Issued, IdentityError> {
        let key = KeyPair::generate()?;
        Ok(Issued {
            cert_pem: self.sign(&key, subject, life, now)?,
            key_pem: key.serialize_pem(),
        })
    }

    /// Signs the key of a PEM signing request for the given workload. The request's own
    /// signature is checked; the names it asks for are ignored.
    ///
    /// # Errors
    /// [`IdentityError::BadRequest`] for a request that is too long, does not parse or verify;
    /// [`IdentityError::BadName`] for a workload whose parts cannot stand in a SPIFFE name.
    pub fn sign_request(
        &self,
        csr_pem: &str,
        workload: &SpiffeId,
        life: Duration,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        if csr_pem.len() > LONGEST_REQUEST {
            let why = format!("longer than {LONGEST_REQUEST} bytes");
            return Err(IdentityError::BadRequest(why));
        }
        let csr = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| IdentityError::BadRequest(e.to_string()))?;
        self.sign(&csr.public_key, &Subject::Workload(workload), life, now)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject<'_>,
        life: Duration,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let mut params = leaf_params(subject)?;
        let from = now.checked_sub(CLOCK_SKEW).unwrap_or(now);
        set_validity(&mut params, from, life.saturating_add(CLOCK_SKEW));
        params.serial_number = Some(random_serial()?);
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

fn leaf_params(subject: &Subject<'_>) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    let mut dn = DistinguishedName::new();
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    match subject {
        Subject::Server { common_name, names } => {
            dn.push(DnType::CommonName, *common_name);
            for name in *names {
                params.subject_alt_names.push(server_name(name)?);
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Subject::Client { user, group } => {
            dn.push(DnType::CommonName, *user);
            if let Some(group) = group {
                dn.push(DnType::OrganizationName, *group);
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        Subject::Workload(id) => {
            let uri = id.to_string();
            // A part with a slash in it would be another's name.
            if uri.parse::<SpiffeId>().ok().as_ref() != Some(*id) {
                return Err(IdentityError::BadName(uri));
            }
            let name = uri
                .as_str()
                .try_into()
                .map_err(|_| IdentityError::BadName(uri.clone()))?;
            params.subject_alt_names.push(SanType::URI(name));
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
        }
    }
    params.distinguished_name = dn;
    Ok(params)
}

fn server_name(name: &str) -> Result<SanType, IdentityError> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let dns = name
        .try_into()
        .map_err(|_| IdentityError::BadName(name.to_owned()))?;
    Ok(SanType::DnsName(dns))
}

fn set_validity(params: &mut CertificateParams, from: SystemTime, life: Duration) {
    let since = from
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    // Whole seconds: X.509 times have no fractions.
    let start = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since.as_secs());
    params.not_before = start;
    // X.509 counts years to 9999 (RFC 5280 4.1.2.5); what would end later ends there.
    let last = rcgen::date_time_ymd(9999, 12, 31);
    let left = Duration::try_from(last - start).unwrap_or_default();
    params.not_after = start + life.min(left);
}

/// 16 random bytes with the top bit clear (RFC 5280 4.1.2.2: positive, at most 20 octets).
fn random_serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| IdentityError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x01;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A new P-256 private key, PEM (PKCS#8).
///
/// # Errors
/// Key generation failed.
pub fn generate_key_pem() -> Result<String, IdentityError> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// A new P-256 key and a signing request for it that asks for the workload's name: `(csr, key)`,
/// both PEM.
///
/// # Errors
/// Key generation or signing failed.
pub fn signing_request(workload: &SpiffeId) -> Result<(String, String), IdentityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = workload.to_string();
    let name = uri
        .as_str()
        .try_into()
        .map_err(|_| IdentityError::BadName(uri.clone()))?;
    params.subject_alt_names.push(SanType::URI(name));
    let csr = params.serialize_request(&key)?;
    Ok((csr.pem()?, key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls_pki_types::UnixTime;
    use webpki::EndEntityCert;

    use super::*;
    use crate::{certificate_info, certificates_from_pem};

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    const NOW: u64 = 1_800_000_000;

    fn authority() -> CertificateAuthority {
        CertificateAuthority::self_signed("cluster.local", "", at(NOW)).expect("root")
    }

    fn verifies(root: &str, leaf: &str, when: u64) -> bool {
        let root = certificates_from_pem(root).expect("root");
        let leaf = certificates_from_pem(leaf).expect("leaf");
        let anchor = webpki::anchor_from_trusted_cert(&root[0]).expect("anchor");
        EndEntityCert::try_from(&leaf[0])
            .expect("leaf")
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &[anchor],
                &[],
                UnixTime::since_unix_epoch(Duration::from_secs(when)),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .is_ok()
    }

    #[test]
    fn root_lives_ten_years_and_reloads() {
        let ca = authority();
        let info = certificate_info(ca.cert_pem()).expect("info");
        assert!(info.is_ca);
        assert_eq!(info.organizations, ["cluster.local"]);
        assert_eq!(info.not_before, at(NOW));
        assert_eq!(info.not_after, at(NOW) + ROOT_LIFE);
        let again = CertificateAuthority::from_pem(ca.cert_pem(), ca.key_pem()).expect("reload");
        let leaf = again
            .issue(
                &Subject::Client {
                    user: "admin",
                    group: Some("system:masters"),
                },
                Duration::from_secs(3600),
                at(NOW + 500),
            )
            .expect("leaf");
        assert!(verifies(ca.cert_pem(), &leaf.cert_pem, NOW + 600));
        assert!(!verifies(ca.cert_pem(), &leaf.cert_pem, NOW + 5000));
        let info = certificate_info(&leaf.cert_pem).expect("info");
        assert_eq!(info.common_name, "admin");
        assert_eq!(info.organizations, ["system:masters"]);
        assert!(!info.is_ca);
    }

    #[test]
    fn server_leaf_is_accepted_by_rustls() {
        let ca = authority();
        let names = ["istiod.istio-system.svc".to_owned(), "10.96.0.1".to_owned()];
        let leaf = ca
            .issue(
                &Subject::Server {
                    common_name: "istiod",
                    names: &names,
                },
                Duration::from_secs(3600),
                at(NOW),
            )
            .expect("leaf");
        let info = certificate_info(&leaf.cert_pem).expect("info");
        assert_eq!(info.dns_names, ["istiod.istio-system.svc"]);
        assert_eq!(info.ips, ["10.96.0.1".parse::<IpAddr>().expect("ip")]);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                certificates_from_pem(&leaf.cert_pem).expect("cert"),
                crate::private_key_from_pem(&leaf.key_pem).expect("key"),
            )
            .expect("rustls takes certificate and key");
    }

    #[test]
    fn requests_are_signed_for_the_given_name_only() {
        let ca = authority();
        let asked = SpiffeId::new("cluster.local", "evil", "admin");
        let real = SpiffeId::new("cluster.local", "default", "sleep");
        let (csr, _) = signing_request(&asked).expect("csr");
        let leaf = ca
            .sign_request(&csr, &real, Duration::from_secs(86400), at(NOW))
            .expect("signed");
        let info = certificate_info(&leaf).expect("info");
        assert_eq!(info.uris, [real.to_string()]);
        assert!(info.valid_at(at(NOW - 60)) && !info.valid_at(at(NOW + 86401)));
        assert!(verifies(ca.cert_pem(), &leaf, NOW));
    }

    #[test]
    fn forged_and_malformed_requests_are_refused() {
        let ca = authority();
        let id = SpiffeId::new("cluster.local", "default", "sleep");
        let life = Duration::from_secs(60);
        assert!(matches!(
            ca.sign_request("nonsense", &id, life, at(NOW)),
            Err(IdentityError::BadRequest(_))
        ));
        let (csr, _) = signing_request(&id).expect("csr");
        // One changed character in the last full line lies within the signature.
        let mut lines: Vec<String> = csr.lines().map(str::to_owned).collect();
        let at_line = lines.len() - 2;
        let flipped = if lines[at_line].starts_with('A') {
            "B"
        } else {
            "A"
        };
        lines[at_line].replace_range(0..1, flipped);
        assert!(
            ca.sign_request(&lines.join("\n"), &id, life, at(NOW))
                .is_err()
        );
    }

    #[test]
    fn hostile_requests_are_refused_and_never_signed_for_another() {
        let ca = authority();
        let id = SpiffeId::new("cluster.local", "default", "sleep");
        let life = Duration::from_secs(60);
        let sign = |csr: &str| ca.sign_request(csr, &id, life, at(NOW));
        let (csr, key) = signing_request(&id).expect("csr");
        let cut = csr.len() / 2;
        for bad in [
            "",
            "-----BEGIN CERTIFICATE REQUEST-----",
            "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "-----BEGIN CERTIFICATE REQUEST-----\n\u{0}\u{ffff}\n-----END CERTIFICATE REQUEST-----\n",
            &csr[..cut],
            &key,
            ca.cert_pem(),
            &format!("{csr}{}", "x".repeat(LONGEST_REQUEST)),
        ] {
            let e = sign(bad).expect_err(bad);
            assert!(matches!(e, IdentityError::BadRequest(_)), "{e}");
        }
        // A changed byte anywhere is a bad request, or a request for the very same name.
        let der = pem_body(&csr);
        for place in 0..der.len() {
            for bit in [0x01, 0x80] {
                let mut changed = der.clone();
                changed[place] ^= bit;
                if let Ok(leaf) = sign(&pem(&changed)) {
                    let info = certificate_info(&leaf).expect("a certificate");
                    assert_eq!(info.uris, [id.to_string()], "byte {place}");
                    assert!(!info.is_ca);
                }
            }
        }
    }

    fn pem_body(pem: &str) -> Vec<u8> {
        use rustls_pki_types::CertificateSigningRequestDer;
        use rustls_pki_types::pem::PemObject;
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
        der.expect("PEM").as_ref().to_vec()
    }

    fn pem(der: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut body = String::new();
        for three in der.chunks(3) {
            let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for digit in 0..4 {
                if digit <= three.len() {
                    let at = (bits >> (18 - 6 * digit)) as usize & 63;
                    body.push(char::from(DIGITS[at]));
                } else {
                    body.push('=');
                }
            }
            if body.len() % 65 == 64 {
                body.push('\n');
            }
        }
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    }

    #[test]
    fn a_name_of_another_shape_is_not_signed() {
        let ca = authority();
        let good = SpiffeId::new("cluster.local", "default", "sleep");
        let (csr, _) = signing_request(&good).expect("csr");
        for (ns, account) in [
            ("default/sa/admin", "x"),
            ("", "x"),
            ("default", ""),
            ("default", "a/b"),
        ] {
            let id = SpiffeId::new("cluster.local", ns, account);
            let signed = ca.sign_request(&csr, &id, Duration::from_secs(60), at(NOW));
            assert!(matches!(signed, Err(IdentityError::BadName(_))), "{id}");
        }
    }

    #[test]
    fn a_life_without_end_ends_with_the_calendar() {
        let ca = authority();
        let id = SpiffeId::new("cluster.local", "default", "sleep");
        let (csr, _) = signing_request(&id).expect("csr");
        for life in [Duration::MAX, Duration::from_secs(1 << 40)] {
            let leaf = ca.sign_request(&csr, &id, life, at(NOW)).expect("signed");
            let info = certificate_info(&leaf).expect("info");
            assert!(info.valid_at(at(NOW)) && info.not_after > at(NOW));
        }
    }

    #[test]
    fn serial_numbers_differ() {
        let ca = authority();
        let id = SpiffeId::new("cluster.local", "default", "sleep");
        let (csr, _) = signing_request(&id).expect("csr");
        let one = ca
            .sign_request(&csr, &id, Duration::from_secs(60), at(NOW))
            .expect("one");
        let two = ca
            .sign_request(&csr, &id, Duration::from_secs(60), at(NOW))
            .expect("two");
        assert_ne!(
            certificate_info(&one).expect("one").serial,
            certificate_info(&two).expect("two").serial
        );
    }
}
