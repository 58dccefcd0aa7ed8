//! A token in compact form (RFC 7515 section 7.1), cut and read; nothing in it is believed yet.
use base64::Engine as _;

use super::{BASE64URL, Failure};
use crate::config::{Name, Value};
use crate::json;

/// Signature algorithms (RFC 7518 section 3.1, RFC 8037). `none` is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the name it has in `alg`")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A token that is well formed.
#[derive(Clone, Debug, PartialEq)]
pub struct Token<'t> {
    /// `header.payload` as it came: what is signed.
    pub signed: &'t str,
    /// The payload as it came, base64url.
    pub payload_text: &'t str,
    /// The header.
    pub header: Value,
    /// The claims.
    pub payload: Value,
    /// The signature's bytes.
    pub signature: Vec<u8>,
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`; empty where there is none.
    pub key_id: Name,
    /// `iss`; empty where there is none.
    pub issuer: Name,
    /// `sub`; empty where there is none.
    pub subject: Name,
    /// `aud`, one or many.
    pub audiences: Vec<Name>,
    /// `nbf` in seconds since the Unix epoch, 0 = none.
    pub not_before: u64,
    /// `exp` in seconds since the Unix epoch, 0 = none.
    pub expires: u64,
}

impl<'t> Token<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// The first thing that is wrong with it, in the order header, payload, signature.
    pub fn parse(text: &'t str) -> Result<Self, Failure> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Failure::BadFormat)?;
        let (header, payload_text) = signed.split_once('.').ok_or(Failure::BadFormat)?;
        let empty = header.is_empty() || payload_text.is_empty() || signature.is_empty();
        if empty || payload_text.contains('.') {
            return Err(Failure::BadFormat);
        }
        let header = object(header, Failure::HeaderBase64, Failure::HeaderJson)?;
        let algorithm = match header.path(["alg"]) {
            Some(Value::String(name)) => Algorithm::of(name).ok_or(Failure::HeaderUnknownAlg)?,
            _ => return Err(Failure::HeaderBadAlg),
        };
        let key_id = string(&header, "kid", Failure::HeaderBadKid)?;
        let payload = object(payload_text, Failure::PayloadBase64, Failure::PayloadJson)?;
        let issuer = string(&payload, "iss", Failure::IssNotString)?;
        let subject = string(&payload, "sub", Failure::SubNotString)?;
        time(
            &payload,
            "iat",
            Failure::IatNotInteger,
            Failure::IatOutOfRange,
        )?;
        let not_before = time(
            &payload,
            "nbf",
            Failure::NbfNotInteger,
            Failure::NbfOutOfRange,
        )?;
        let expires = time(
            &payload,
            "exp",
            Failure::ExpNotInteger,
            Failure::ExpOutOfRange,
        )?;
        string(&payload, "jti", Failure::JtiNotString)?;
        let audiences = audiences(&payload)?;
        let signature = BASE64URL
            .decode(signature)
            .map_err(|_| Failure::SignatureBase64)?;
        Ok(Self {
            signed,
            payload_text,
            header,
            payload,
            signature,
            algorithm,
            key_id,
            issuer,
            subject,
            audiences,
            not_before,
            expires,
        })
    }
}

fn object(text: &str, encoding: Failure, content: Failure) -> Result<Value, Failure> {
    let bytes = BASE64URL.decode(text).map_err(|_| encoding)?;
    match json::parse(&bytes) {
        Ok(value @ Value::Struct(_)) => Ok(value),
        _ => Err(content),
    }
}

fn string(of: &Value, name: &str, wrong: Failure) -> Result<Name, Failure> {
    match of.path([name]) {
        None => Ok("".into()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong),
    }
}

fn time(of: &Value, name: &str, wrong: Failure, range: Failure) -> Result<u64, Failure> {
    match of.path([name]) {
        None => Ok(0),
        Some(Value::Number(n)) if (0.0..=9_223_372_036_854_775_808.0).contains(n) => Ok(*n as u64),
        Some(Value::Number(_)) => Err(range),
        Some(_) => Err(wrong),
    }
}

fn audiences(payload: &Value) -> Result<Vec<Name>, Failure> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(Failure::AudNotStrings),
    };
    match payload.path(["aud"]) {
        None => Ok(Vec::new()),
        Some(Value::List(list)) => list.iter().map(one).collect(),
        Some(value) => one(value).map(|aud| vec![aud]),
    }
}
