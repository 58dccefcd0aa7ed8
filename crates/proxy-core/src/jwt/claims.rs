//! Whether a token's claims are acceptable, and the forms in which they are passed on.
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Failure, Token};
use crate::access_log::write_json_value;
use crate::config::jwt::JwtProvider;
use crate::config::{Name, Value};

/// An audience without scheme and last slash, in which form audiences are compared.
#[must_use]
pub fn audience(text: &str) -> &str {
    let bare = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    bare.strip_suffix('/').unwrap_or(bare)
}

/// Checks everything that a provider says of claims; `now` in seconds since the Unix epoch.
///
/// # Errors
/// The first claim that is not acceptable.
pub fn check_claims(
    provider: &JwtProvider,
    audiences: Option<&[Name]>,
    token: &Token<'_>,
    now: u64,
) -> Result<(), Failure> {
    if !provider.issuer.is_empty() && provider.issuer != token.issuer {
        return Err(Failure::UnknownIssuer);
    }
    let subject = token.subject.as_bytes();
    let subject_fits = provider
        .subjects
        .as_ref()
        .is_none_or(|m| m.matches(subject));
    if !subject_fits || (provider.require_expiration && token.expires == 0) {
        return Err(Failure::VerificationFailed);
    }
    if let Some(most) = provider.max_lifetime {
        let left = Duration::from_secs(token.expires.saturating_sub(now));
        if token.expires == 0 || left > most {
            return Err(Failure::VerificationFailed);
        }
    }
    let skew = provider.clock_skew.as_secs();
    if token.not_before > now.saturating_add(skew) {
        return Err(Failure::NotYetValid);
    }
    if token.expires != 0 && now > token.expires.saturating_add(skew) {
        return Err(Failure::Expired);
    }
    let wanted = audiences.unwrap_or(&provider.audiences);
    let fits = |aud: &Name| wanted.iter().any(|w| **w == *audience(aud));
    if !wanted.is_empty() && !token.audiences.iter().any(fits) {
        return Err(Failure::AudienceNotAllowed);
    }
    Ok(())
}

/// A claim as the value of a header: text, number and truth value as they are, lists and objects
/// as base64 of their JSON. None for what no header can carry, so that a claim cannot add lines.
#[must_use]
pub fn claim_text(claim: &Value) -> Option<String> {
    let text = match claim {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        // As Envoy writes them: six places, unless it is a whole number from 0 on.
        Value::Number(number) if *number >= 0.0 && number.fract() == 0.0 => number.to_string(),
        Value::Number(number) => format!("{number:.6}"),
        Value::String(text) => text.to_string(),
        Value::List(_) | Value::Struct(_) => {
            let mut json = Vec::new();
            write_json_value(claim, &mut json);
            STANDARD.encode(json)
        }
    };
    let plain = |b: u8| b == b'\t' || (b >= 0x20 && b != 0x7f);
    let bare = text.trim_matches([' ', '\t']);
    (bare.bytes().all(plain)).then(|| bare.to_owned())
}

/// The payload with some claims split at spaces.
#[must_use]
pub fn normalized_payload(payload: &Value, split: &[Name]) -> Value {
    let mut payload = payload.clone();
    if let Value::Struct(claims) = &mut payload {
        for name in split {
            if let Some(claim @ Value::String(_)) = claims.get_mut(name) {
                let text = claim.as_str().unwrap_or_default();
                let words = text.split(' ').filter(|w| !w.is_empty());
                *claim = Value::List(words.map(|w| Value::String(w.into())).collect());
            }
        }
    }
    payload
}
