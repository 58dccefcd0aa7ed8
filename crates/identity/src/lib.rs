//! Certificates of the mesh and of the embedded cluster: a small authority over P-256 keys,
//! SPIFFE names, signing requests and reading what a certificate says.
//!
//! Pure: time is passed in, nothing is read from files or the environment.

mod authority;
mod parse;
mod spiffe;

pub use authority::{CertificateAuthority, Issued, Subject, generate_key_pem, signing_request};
pub use parse::{
    CertificateInfo, certificate_info, certificate_info_der, certificates_from_pem,
    private_key_from_pem,
};
pub use spiffe::SpiffeId;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Key generation, encoding or signing failed.
    #[error("certificate operation failed: {0}")]
    Crypto(#[from] rcgen::Error),
    /// A signing request does not parse or its signature does not fit its key.
    #[error("bad certificate signing request: {0}")]
    BadRequest(String),
    /// PEM or DER that does not parse.
    #[error("bad {what}: {why}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// The parser's complaint.
        why: String,
    },
    /// A name that cannot stand in a certificate.
    #[error("bad name {0:?} for a certificate")]
    BadName(String),
    /// The system's random source failed.
    #[error("no random bytes from the system")]
    Random,
}
