//! Checks the signature of a token against the keys of a set. A key serves only the algorithms of
//! its own kind, whatever the token names: a public key is never taken for a shared secret.

use aws_lc_rs::{hmac, signature};
use lateen_proxy_core::jwt::{Algorithm, Curve, Failure, Jwk, JwkSet, KeyMaterial, Token};

/// Checks a token's signature; any key that may have made it will do.
pub fn verify(keys: &JwkSet, token: &Token<'_>) -> Result<(), Failure> {
    let mut found = false;
    for key in &keys.keys {
        if !key.serves(&token.key_id, token.algorithm) {
            continue;
        }
        found = true;
        if token.algorithm == Algorithm::EdDsa && token.signature.len() != 64 {
            return Err(Failure::Ed25519SignatureLength);
        }
        if signed_by(key, token) {
            return Ok(());
        }
    }
    Err(match found {
        true => Failure::VerificationFailed,
        false => Failure::NoMatchingKey,
    })
}

fn signed_by(key: &Jwk, token: &Token<'_>) -> bool {
    let (message, mac) = (token.signed.as_bytes(), &token.signature[..]);
    match (&key.material, token.algorithm) {
        (KeyMaterial::Rsa { n, e }, algorithm) => {
            let Some(parameters) = rsa_parameters(algorithm) else {
                return false;
            };
            let key = signature::RsaPublicKeyComponents { n, e };
            key.verify(parameters, message, mac).is_ok()
        }
        (KeyMaterial::Ec(curve, point), algorithm) => {
            let parameters: &dyn signature::VerificationAlgorithm = match (curve, algorithm) {
                (Curve::P256, Algorithm::Es256) => &signature::ECDSA_P256_SHA256_FIXED,
                (Curve::P384, Algorithm::Es384) => &signature::ECDSA_P384_SHA384_FIXED,
                (Curve::P521, Algorithm::Es512) => &signature::ECDSA_P521_SHA512_FIXED,
                _ => return false,
            };
            let key = signature::UnparsedPublicKey::new(parameters, point);
            key.verify(message, mac).is_ok()
        }
        (KeyMaterial::Ed25519(x), Algorithm::EdDsa) => {
            let key = signature::UnparsedPublicKey::new(&signature::ED25519, x);
            key.verify(message, mac).is_ok()
        }
        (KeyMaterial::Secret(secret), algorithm) => {
            let algorithm = match algorithm {
                Algorithm::Hs256 => hmac::HMAC_SHA256,
                Algorithm::Hs384 => hmac::HMAC_SHA384,
                Algorithm::Hs512 => hmac::HMAC_SHA512,
                _ => return false,
            };
            // Compares in constant time.
            hmac::verify(&hmac::Key::new(algorithm, secret), message, mac).is_ok()
        }
        _ => false,
    }
}

/// RFC 7518 section 3.3 asks for keys of at least 2048 bits.
fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
