//! Key sets (RFC 7517). A key that cannot be used is left out; a set without a usable key is an
//! error, so that it can never stand for "anything goes".
use base64::Engine as _;

use super::{Algorithm, KEY_BASE64URL};
use crate::config::{Name, Value};
use crate::json;

/// Elliptic curves of `EC` keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the curve it names")]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Bytes of a coordinate.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// The numbers of a key.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// Modulus and exponent, big endian, without leading zeros.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// A point in uncompressed form (SEC 1 section 2.3.3).
    Ec(Curve, Vec<u8>),
    /// An Ed25519 public key, 32 bytes.
    Ed25519([u8; 32]),
    /// A shared secret.
    Secret(Vec<u8>),
}

impl std::fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "Rsa",
            Self::Ec(..) => "Ec",
            Self::Ed25519(_) => "Ed25519",
            Self::Secret(_) => "Secret",
        })
    }
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    /// `kid`; empty = for any token.
    pub id: Name,
    /// `alg`; none = any algorithm that the kind of key has.
    pub algorithm: Option<Algorithm>,
    /// The key itself.
    pub material: KeyMaterial,
}

impl Jwk {
    /// Whether the key may have signed a token with this `kid` and `alg`.
    #[must_use]
    pub fn serves(&self, key_id: &str, algorithm: Algorithm) -> bool {
        let named = key_id.is_empty() || self.id.is_empty() || *self.id == *key_id;
        named && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// A set of keys, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwkSet {
    /// The usable keys in their order.
    pub keys: Vec<Jwk>,
}

/// Most keys of a set.
const MOST_KEYS: usize = 1000;

impl JwkSet {
    /// Reads a set.
    ///
    /// # Errors
    /// What is wrong with the set, or with its last key where none can be used.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let Ok(set @ Value::Struct(_)) = json::parse(text) else {
            return Err("Jwks is an invalid JSON".into());
        };
        let list = match set.path(["keys"]) {
            None => return Err("Jwks does not have [keys] field".into()),
            Some(Value::List(list)) => list,
            Some(_) => return Err("[keys] in Jwks is not an array".into()),
        };
        if list.len() > MOST_KEYS {
            return Err(format!("Jwks has more than {MOST_KEYS} keys"));
        }
        let mut problem = "Jwks doesn't have any valid public key";
        let mut keys = Vec::new();
        for item in list {
            match key(item) {
                Ok(key) => keys.push(key),
                Err(why) => problem = why,
            }
        }
        match keys.is_empty() {
            true => Err(problem.into()),
            false => Ok(Self { keys }),
        }
    }
}

fn text<'a>(of: &'a Value, name: &str) -> Result<Option<&'a str>, &'static str> {
    match of.path([name]) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a field of a key that must be a string is not"),
    }
}

fn bytes(of: &Value, name: &str, wrong: &'static str) -> Result<Vec<u8>, &'static str> {
    let text = text(of, name)?.ok_or(wrong)?;
    let bytes = KEY_BASE64URL.decode(text).map_err(|_| wrong)?;
    match bytes.is_empty() {
        true => Err(wrong),
        false => Ok(bytes),
    }
}

fn key(of: &Value) -> Result<Jwk, &'static str> {
    let alg = text(of, "alg")?.unwrap_or("");
    let material = match text(of, "kty")? {
        None => return Err("[kty] is missing in [keys]"),
        Some("RSA") => rsa(of, alg)?,
        Some("EC") => ec(of, alg)?,
        Some("OKP") => okp(of, alg)?,
        Some("oct") => secret(of, alg)?,
        Some(_) => return Err("Jwks doesn't have any valid public key"),
    };
    let algorithm = match alg {
        "" => None,
        // Named, but no algorithm there is: nothing can be signed with it.
        alg => Some(Algorithm::of(alg).ok_or("[alg] of a key is not supported")?),
    };
    Ok(Jwk {
        id: text(of, "kid")?.unwrap_or("").into(),
        algorithm,
        material,
    })
}

fn rsa(of: &Value, alg: &str) -> Result<KeyMaterial, &'static str> {
    if !(alg.is_empty() || alg.starts_with("RS") || alg.starts_with("PS")) {
        return Err("[alg] is not started with [RS] or [PS] for an RSA key");
    }
    let number = |name| {
        let wrong = "Jwks RSA [n] or [e] field is missing or has a parse error";
        let mut bytes = bytes(of, name, wrong)?;
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        bytes.drain(..zeros);
        match bytes.is_empty() {
            true => Err(wrong),
            false => Ok(bytes),
        }
    };
    Ok(KeyMaterial::Rsa {
        n: number("n")?,
        e: number("e")?,
    })
}

fn ec(of: &Value, alg: &str) -> Result<KeyMaterial, &'static str> {
    let of_alg = match alg {
        "" => None,
        "ES256" => Some(Curve::P256),
        "ES384" => Some(Curve::P384),
        "ES512" => Some(Curve::P521),
        _ => return Err("[alg] is not started with [ES] for an EC key"),
    };
    let named = match text(of, "crv")? {
        None => None,
        Some("P-256") => Some(Curve::P256),
        Some("P-384") => Some(Curve::P384),
        Some("P-521") => Some(Curve::P521),
        Some(_) => return Err("[crv] field is not supported for an EC key"),
    };
    let curve = match (named, of_alg) {
        (Some(named), Some(of_alg)) if named != of_alg => {
            return Err("[crv] field specified is not compatible with [alg] for an EC key");
        }
        (named, of_alg) => named.or(of_alg).unwrap_or(Curve::P256),
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let wrong = "Jwks EC [x] or [y] field is an invalid Base64.";
        let coordinate = bytes(of, name, wrong)?;
        let missing = curve.size().checked_sub(coordinate.len());
        let missing = missing.ok_or("Jwks EC [x] and [y] fields have a parse error.")?;
        point.resize(point.len() + missing, 0);
        point.extend_from_slice(&coordinate);
    }
    Ok(KeyMaterial::Ec(curve, point))
}

fn okp(of: &Value, alg: &str) -> Result<KeyMaterial, &'static str> {
    if !matches!(alg, "" | "EdDSA") {
        return Err("[alg] is not [EdDSA] for an OKP key");
    }
    match text(of, "crv")? {
        Some("Ed25519") => {}
        None => return Err("[crv] field is missing for an OKP key"),
        Some(_) => return Err("[crv] field is not supported for an OKP key"),
    }
    let x = bytes(of, "x", "Jwks OKP [x] field is an invalid Base64.")?;
    let x = x
        .try_into()
        .map_err(|_| "Jwks OKP [x] field is wrong length.")?;
    Ok(KeyMaterial::Ed25519(x))
}

fn secret(of: &Value, alg: &str) -> Result<KeyMaterial, &'static str> {
    if !(alg.is_empty() || alg.starts_with("HS")) {
        return Err("[alg] does not start with [HS] for an HMAC key");
    }
    bytes(of, "k", "Jwks Oct key is an invalid Base64").map(KeyMaterial::Secret)
}
