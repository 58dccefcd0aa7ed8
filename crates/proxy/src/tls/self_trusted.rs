//! A peer's certificate that is itself among the trusted ones, such as a self-signed one that its
//! operator gives to both sides. The chain builder takes no authority (CA:TRUE) for an end entity,
//! Envoy's does; here nothing is built: the very same bytes must be configured as trusted.

use aws_lc_rs::digest::{SHA256, digest};
use hashbrown::HashSet;
use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::KeyUsage;
use x509_parser::prelude::X509Certificate;

/// Trusted certificates by the SHA-256 of their DER.
#[derive(Debug, Default)]
pub(super) struct Trusted(HashSet<[u8; 32]>);

impl Trusted {
    /// Trusts these and no others.
    pub(super) fn set(&mut self, all: &[CertificateDer<'_>]) {
        self.0 = all.iter().filter_map(|der| fingerprint(der)).collect();
    }

    pub(super) fn has(&self, der: &CertificateDer<'_>) -> bool {
        fingerprint(der).is_some_and(|print| self.0.contains(&print))
    }

    /// Judges an authority that a peer shows as its own certificate: `None` when it is not one of
    /// these, which leaves the chain builder's refusal. Who calls has had the certificate parsed
    /// with its critical extensions known. `lists` says that revocation lists are configured:
    /// whether it stands in one is not looked up here, so it is refused as one without a list.
    pub(super) fn judge(
        &self,
        (der, parsed): (&CertificateDer<'_>, &X509Certificate<'_>),
        now: UnixTime,
        usage: &KeyUsage,
        lists: bool,
    ) -> Option<Result<(), (CertificateError, &'static str)>> {
        if !self.has(der) {
            return None;
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        Some(match () {
            () if validity.not_before.timestamp() > now => Err((
                CertificateError::NotValidYet,
                "certificate_is_not_yet_valid",
            )),
            () if validity.not_after.timestamp() < now => {
                Err((CertificateError::Expired, "certificate_has_expired"))
            }
            () if !serves(parsed, usage) => Err((
                CertificateError::InvalidPurpose,
                "unsupported_certificate_purpose",
            )),
            () if lists => Err((
                CertificateError::UnknownRevocationStatus,
                "unable_to_get_certificate_CRL",
            )),
            () => Ok(()),
        })
    }
}

fn fingerprint(der: &CertificateDer<'_>) -> Option<[u8; 32]> {
    digest(&SHA256, der).as_ref().try_into().ok()
}

/// Whether the extended key usages, where there are any, name this one (RFC 5280 section 4.2.1.12).
/// What cannot be read names none.
fn serves(parsed: &X509Certificate<'_>, usage: &KeyUsage) -> bool {
    match parsed.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(named)) if *usage == KeyUsage::server_auth() => named.value.server_auth,
        Ok(Some(named)) => named.value.client_auth,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
    };
    use x509_parser::prelude::FromDer;

    use super::*;

    fn authority(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["up.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn judge(
        trusted: &CertificateDer<'_>,
        shown: &CertificateDer<'_>,
        usage: &KeyUsage,
        lists: bool,
    ) -> Option<Result<(), &'static str>> {
        let mut all = Trusted::default();
        all.set(std::slice::from_ref(trusted));
        let (_, parsed) = X509Certificate::from_der(shown).unwrap();
        let verdict = all.judge((shown, &parsed), UnixTime::now(), usage, lists);
        verdict.map(|v| v.map_err(|(_, words)| words))
    }

    #[test]
    fn only_the_same_bytes_in_time_for_their_use() {
        let (server, client) = (KeyUsage::server_auth(), KeyUsage::client_auth());
        let good = authority(|_| {});
        assert_eq!(judge(&good, &good, &server, false), Some(Ok(())));
        assert_eq!(judge(&good, &good, &client, false), Some(Ok(())));
        // The same names under another key.
        let other = authority(|_| {});
        assert_eq!(judge(&good, &other, &server, false), None);
        let old = authority(|p| p.not_after = date_time_ymd(2020, 1, 1));
        let late = Some(Err("certificate_has_expired"));
        assert_eq!(judge(&old, &old, &server, false), late);
        let young = authority(|p| {
            p.not_before = date_time_ymd(4000, 1, 1);
            p.not_after = date_time_ymd(4001, 1, 1);
        });
        let early = Some(Err("certificate_is_not_yet_valid"));
        assert_eq!(judge(&young, &young, &server, false), early);
        let of_clients =
            authority(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        let purpose = Some(Err("unsupported_certificate_purpose"));
        assert_eq!(judge(&of_clients, &of_clients, &server, false), purpose);
        assert_eq!(
            judge(&of_clients, &of_clients, &client, false),
            Some(Ok(()))
        );
        let unknown = Some(Err("unable_to_get_certificate_CRL"));
        assert_eq!(judge(&good, &good, &server, true), unknown);
    }
}
