//! Reading PEM and DER: certificates, keys, validity, subject and alternative names.

use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::IdentityError;

/// What a certificate says, as far as this project asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Subject common name; empty when absent.
    pub common_name: String,
    /// Subject organisations, in order.
    pub organizations: Vec<String>,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// URI alternative names (SPIFFE names).
    pub uris: Vec<String>,
    /// DNS alternative names.
    pub dns_names: Vec<String>,
    /// IP alternative names.
    pub ips: Vec<std::net::IpAddr>,
    /// The certificate is an authority's.
    pub is_ca: bool,
}

impl CertificateInfo {
    /// Whether `now` lies within the validity.
    #[must_use]
    pub fn valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// All certificates of a PEM text, in order; at least one.
///
/// # Errors
/// [`IdentityError::Malformed`].
pub fn certificates_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bad = |why: String| IdentityError::Malformed {
        what: "certificate PEM",
        why,
    };
    let certs = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad(e.to_string()))?;
    if certs.is_empty() {
        return Err(bad("no certificate in it".to_owned()));
    }
    Ok(certs)
}

/// The private key of a PEM text (PKCS#8, PKCS#1 or SEC1).
///
/// # Errors
/// [`IdentityError::Malformed`].
pub fn private_key_from_pem(pem: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| IdentityError::Malformed {
        what: "private key PEM",
        why: e.to_string(),
    })
}

/// What the first certificate of a PEM text says.
///
/// # Errors
/// [`IdentityError::Malformed`].
pub fn certificate_info(pem: &str) -> Result<CertificateInfo, IdentityError> {
    certificate_info_der(&certificates_from_pem(pem)?[0])
}

/// What a DER certificate says.
///
/// # Errors
/// [`IdentityError::Malformed`].
pub fn certificate_info_der(der: &[u8]) -> Result<CertificateInfo, IdentityError> {
    let bad = |why: String| IdentityError::Malformed {
        what: "certificate",
        why,
    };
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| bad(e.to_string()))?;
    let mut info = CertificateInfo {
        common_name: cert
            .subject()
            .iter_common_name()
            .next()
            .and_then(|n| n.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        organizations: cert
            .subject()
            .iter_organization()
            .filter_map(|o| o.as_str().ok().map(str::to_owned))
            .collect(),
        serial: cert
            .raw_serial()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
        not_before: system_time(cert.validity().not_before.timestamp()),
        not_after: system_time(cert.validity().not_after.timestamp()),
        uris: Vec::new(),
        dns_names: Vec::new(),
        ips: Vec::new(),
        is_ca: cert.is_ca(),
    };
    let names = cert
        .subject_alternative_name()
        .map_err(|e| bad(e.to_string()))?;
    for name in names.iter().flat_map(|n| &n.value.general_names) {
        match name {
            GeneralName::URI(u) => info.uris.push((*u).to_owned()),
            GeneralName::DNSName(d) => info.dns_names.push((*d).to_owned()),
            GeneralName::IPAddress(b) => {
                if let Ok(v4) = <[u8; 4]>::try_from(*b) {
                    info.ips.push(v4.into());
                } else if let Ok(v6) = <[u8; 16]>::try_from(*b) {
                    info.ips.push(v6.into());
                }
            }
            _ => {}
        }
    }
    Ok(info)
}

fn system_time(unix: i64) -> SystemTime {
    let span = Duration::from_secs(unix.unsigned_abs());
    if unix >= 0 {
        SystemTime::UNIX_EPOCH + span
    } else {
        SystemTime::UNIX_EPOCH - span
    }
}
