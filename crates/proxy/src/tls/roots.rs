//! Trusted roots, with what the chain builder does not look at in them and Envoy's does: when they
//! are valid, and whether their key usage lets them sign certificates.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::VerifiedPath;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::{TlsError, material};

/// Roots in the order of their file.
#[derive(Debug, Default)]
pub(super) struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// Of the anchor at the same place.
    terms: Vec<Terms>,
}

/// What a root may be used for, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    not_before: UnixTime,
    not_after: UnixTime,
    signs: bool,
}

impl Terms {
    fn of(parsed: &X509Certificate<'_>) -> Self {
        Self {
            not_before: time(parsed.validity().not_before),
            not_after: time(parsed.validity().not_after),
            signs: may_sign(parsed),
        }
    }

    /// Whether a root in these terms may have signed something now.
    pub(super) fn hold(&self, now: UnixTime) -> Result<(), webpki::Error> {
        let Self {
            not_before,
            not_after,
            signs,
        } = *self;
        match () {
            () if !signs => Err(webpki::Error::UnknownIssuer),
            () if now < not_before => Err(webpki::Error::CertNotValidYet {
                time: now,
                not_before,
            }),
            () if now > not_after => Err(webpki::Error::CertExpired {
                time: now,
                not_after,
            }),
            () => Ok(()),
        }
    }
}

/// A certificate's moment; what lies before 1970 is 1970.
pub(super) fn time(time: ASN1Time) -> UnixTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// Whether the key usage, where there is one, has the certificate sign others (RFC 5280 section
/// 4.2.1.3). One that cannot be read lets it sign nothing.
pub(super) fn may_sign(parsed: &X509Certificate<'_>) -> bool {
    match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    }
}

impl Roots {
    /// All certificates of a PEM text.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn new(pem: &[u8]) -> Result<Self, TlsError> {
        let bad =
            |error: &dyn std::fmt::Display| TlsError::Material(format!("trusted CA: {error}"));
        let mut roots = Self::default();
        for der in material::certificates(pem)? {
            let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|e| bad(&e))?;
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| bad(&e))?;
            roots.terms.push(Terms::of(&parsed));
            roots.anchors.push(anchor.to_owned());
        }
        Ok(roots)
    }

    /// Adds others.
    pub(super) fn extend(&mut self, others: Self) {
        self.anchors.extend(others.anchors);
        self.terms.extend(others.terms);
    }

    /// For the chain builder.
    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Each with its terms.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TrustAnchor<'static>, &Terms)> {
        self.anchors.iter().zip(&self.terms)
    }

    /// Judges a path that the builder found: whoever signs in it must be allowed to, and the root
    /// be in its time. `itself` = the leaf is one of the trusted certificates, signed by nobody else.
    ///
    /// # Errors
    /// Another path may do better.
    pub(super) fn judge(
        &self,
        path: &VerifiedPath<'_>,
        now: UnixTime,
        itself: bool,
    ) -> Result<(), webpki::Error> {
        let signs = |der: CertificateDer<'_>| {
            X509Certificate::from_der(&der).is_ok_and(|(_, parsed)| may_sign(&parsed))
        };
        let mut between = path.intermediate_certificates().peekable();
        let alone = between.peek().is_none();
        if !between.all(|cert| signs(cert.der())) {
            return Err(webpki::Error::UnknownIssuer);
        }
        let mut terms = self.iter();
        match terms.find(|(anchor, _)| std::ptr::eq(*anchor, path.anchor())) {
            Some((_, terms)) if alone && itself => Terms {
                signs: true,
                ..*terms
            }
            .hold(now),
            Some((_, terms)) => terms.hold(now),
            None => Err(webpki::Error::UnknownIssuer),
        }
    }
}
