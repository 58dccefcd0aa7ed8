//! JSON Web Tokens (RFC 7519): where a request carries them, what they say, which keys may have
//! signed them, and whether their claims are acceptable now. Checking the signature itself is the
//! engine's, which has the cryptography; time is an argument.
mod claims;
mod extract;
mod failure;
mod jwks;
mod requirement;
mod token;

pub use claims::{audience, check_claims, claim_text, normalized_payload};
pub use extract::{Found, Place, remove, tokens};
pub use failure::Failure;
pub use jwks::{Curve, Jwk, JwkSet, KeyMaterial};
pub use requirement::{Alternatives, original_uri};
pub use token::{Algorithm, Token};

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};

/// Base64url as RFC 7515 section 2 has it, without padding; bits that are left over at the end are
/// not looked at, as Envoy does.
pub(crate) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The same for the fields of a key, where padding is let through.
pub(crate) const KEY_BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests;
