//! Certificates of X.509 version 1, which have no extensions: what `openssl x509 -req` makes when it
//! is told of none. The chain builder refuses them; Envoy's takes one as the certificate of a peer
//! that a trusted authority signed itself. Its handshake is proved with the bare key.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use rustls_pki_types::{SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, RawPublicKeyEntity};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::roots::{self, Roots};

/// Whether it is one. Nothing is parsed but the two headers before the version, which only later
/// versions write (RFC 5280 section 4.1): each handshake asks.
pub(super) fn is(der: &[u8]) -> bool {
    let version = inside(der).and_then(inside).and_then(|rest| rest.first());
    version.is_some_and(|tag| *tag != 0xa0)
}

/// What a SEQUENCE at the start of these bytes begins with.
fn inside(der: &[u8]) -> Option<&[u8]> {
    match *der {
        [0x30, length, ref rest @ ..] if length < 0x80 => Some(rest),
        [0x30, length, ref rest @ ..] => rest.get(usize::from(length & 0x7f)..),
        _ => None,
    }
}

/// Judges one that is no authority's own: a trusted root must have signed it. `lists` says that
/// revocation lists are configured; it is not looked up in them, so it is refused as one without.
pub(super) fn judge(
    der: &[u8],
    leaf: &X509Certificate<'_>,
    roots: &Roots,
    now: UnixTime,
    lists: bool,
) -> Result<(), webpki::Error> {
    if leaf.version() != X509Version::V1 {
        return Err(webpki::Error::UnsupportedCertVersion);
    }
    let issuers = roots.iter().filter(|(root, _)| is_issuer(root, leaf));
    let mut issuers = issuers.peekable();
    if issuers.peek().is_none() {
        return Err(webpki::Error::UnknownIssuer);
    }
    let Some((_, terms)) = issuers.find(|(root, _)| signed(root, der, leaf)) else {
        return Err(webpki::Error::InvalidSignatureForPublicKey);
    };
    terms.hold(now)?;
    let (not_before, not_after) = (
        roots::time(leaf.validity().not_before),
        roots::time(leaf.validity().not_after),
    );
    match () {
        () if now < not_before => Err(webpki::Error::CertNotValidYet {
            time: now,
            not_before,
        }),
        () if now > not_after => Err(webpki::Error::CertExpired {
            time: now,
            not_after,
        }),
        () if lists => Err(webpki::Error::UnknownRevocationStatus),
        () => Ok(()),
    }
}

/// An authority whose names are constrained signs none without names.
fn is_issuer(root: &TrustAnchor<'_>, leaf: &X509Certificate<'_>) -> bool {
    root.name_constraints.is_none() && sequence(&root.subject) == leaf.issuer().as_raw()
}

fn signed(root: &TrustAnchor<'_>, der: &[u8], leaf: &X509Certificate<'_>) -> bool {
    let key = SubjectPublicKeyInfoDer::from(sequence(&root.subject_public_key_info));
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
        return false;
    };
    let body = leaf.tbs_certificate.as_ref();
    let Some(algorithm) = algorithm(der, body.len()) else {
        return false;
    };
    ALL_VERIFICATION_ALGS
        .iter()
        .filter(|known| known.signature_alg_id().as_ref() == algorithm)
        .any(|known| {
            key.verify_signature(*known, body, &leaf.signature_value.data)
                .is_ok()
        })
}

/// What is in the SEQUENCE that names the signature's algorithm: it follows the signed body.
fn algorithm(der: &[u8], body: usize) -> Option<&[u8]> {
    let rest = inside(der)?.get(body..)?;
    let length = usize::from(*rest.get(1)?);
    inside(rest)?.get(..length)
}

/// A SEQUENCE of these bytes.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let short = &length[length.iter().take_while(|b| **b == 0).count()..];
    let header = match content.len() {
        0..0x80 => vec![0x30, length[length.len() - 1]],
        _ => [&[0x30, 0x80 | short.len() as u8], short].concat(),
    };
    [&header, content].concat()
}

fn key_of(der: &[u8]) -> Result<SubjectPublicKeyInfoDer<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok((_, parsed)) => Ok(parsed.tbs_certificate.subject_pki.raw.into()),
        Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

/// A handshake's proof of the key, TLS 1.2.
pub(super) fn proves_tls12(
    message: &[u8],
    der: &[u8],
    proof: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = || Error::from(CertificateError::BadSignature);
    let key = key_of(der)?;
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_| bad())?;
    let mut known = algorithms.mapping.iter();
    let (_, known) = known
        .find(|(scheme, _)| *scheme == proof.scheme)
        .ok_or_else(bad)?;
    let proved = |one: &&dyn rustls_pki_types::SignatureVerificationAlgorithm| {
        key.verify_signature(*one, message, proof.signature())
            .is_ok()
    };
    match known.iter().any(proved) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(bad()),
    }
}

/// A handshake's proof of the key, TLS 1.3.
pub(super) fn proves_tls13(
    message: &[u8],
    der: &[u8],
    proof: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(message, &key_of(der)?, proof, algorithms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_first_bytes() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let third = params.self_signed(&key).unwrap();
        assert!(!is(third.der()), "version 3");
        // Without the version, what is inside begins with the serial number.
        assert!(is(&[0x30, 0x82, 1, 0, 0x30, 0x81, 0xc0, 0x02, 1, 5]));
        assert!(is(&[0x30, 6, 0x30, 4, 0x02, 1, 5]));
        for broken in [
            &[][..],
            &[0x30],
            &[0x30, 0x84, 1],
            &[0x31, 2, 0x30, 0],
            &[0x30, 0xff, 0x30],
        ] {
            assert!(!is(broken), "{broken:?}");
        }
    }

    #[test]
    fn lengths_of_a_sequence() {
        for (content, header) in [
            (0, &[0x30, 0][..]),
            (0x7f, &[0x30, 0x7f]),
            (0x80, &[0x30, 0x81, 0x80]),
            (0x100, &[0x30, 0x82, 1, 0]),
        ] {
            let whole = sequence(&vec![7; content]);
            assert!(whole.starts_with(header), "{content}");
            assert_eq!(whole.len(), header.len() + content);
        }
    }
}
