//! Tokens and key sets of the case files, made from the keys in `keys/`, which stand for nobody.
//! Signatures are made anew in every run.

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret that everybody knows...";

/// What a token says, and who signs it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// How it is signed: `RS256`, ..., or `none`.
    alg: String,
    /// Its header, or the text that stands for it; `alg` and `kid` without it.
    header: Option<Value>,
    /// Its payload, or the text that stands for it.
    payload: Value,
    /// Base64url text in place of the signature.
    signature: Option<String>,
}

/// Puts key sets (`${jwks}`, and `${jwks:bare}` without `alg` and `kid`) into the text of a file,
/// the quotes of JSON with a backslash in front.
pub fn with_key_sets(text: &str) -> String {
    let mut text = text.to_owned();
    for (mark, bare) in [("${jwks}", false), ("${jwks:bare}", true)] {
        if text.contains(mark) {
            let set = key_set(bare).to_string();
            text = text.replace(mark, &set.replace('"', "\\\""));
        }
    }
    text
}

fn key_file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/keys");
    folder.join(format!("{name}.pem"))
}

fn pkcs8(name: &str) -> PrivatePkcs8KeyDer<'static> {
    PrivatePkcs8KeyDer::from_pem_file(key_file(name)).unwrap()
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(pkcs8("rsa").secret_pkcs8_der()).unwrap()
}

fn ecdsa(name: &str, algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8(name).secret_pkcs8_der()).unwrap()
}

fn ed25519() -> Ed25519KeyPair {
    Ed25519KeyPair::from_pkcs8(pkcs8("ed25519").secret_pkcs8_der()).unwrap()
}

fn curve(alg: &str) -> (&'static str, &'static str, &'static EcdsaSigningAlgorithm) {
    match alg {
        "ES256" => ("p256", "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        "ES384" => ("p384", "P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        "ES512" => ("p521", "P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        _ => panic!("{alg}"),
    }
}

/// The `kid` of the key that signs with an algorithm.
fn key_of(alg: &str) -> &str {
    match &alg[..2] {
        "RS" | "PS" => "rsa",
        "ES" => curve(alg).0,
        "Ed" => "ed25519",
        "HS" => "secret",
        _ => "none",
    }
}

fn part(content: &Value) -> String {
    match content {
        Value::String(text) => BASE64URL.encode(text),
        other => BASE64URL.encode(other.to_string()),
    }
}

/// A signed token.
pub fn token(spec: &Spec) -> String {
    let usual = json!({ "alg": spec.alg, "kid": key_of(&spec.alg) });
    let header = part(spec.header.as_ref().unwrap_or(&usual));
    let signed = format!("{header}.{}", part(&spec.payload));
    let made = || BASE64URL.encode(sign(&spec.alg, signed.as_bytes()));
    let signature = spec.signature.clone().unwrap_or_else(made);
    format!("{signed}.{signature}")
}

fn sign(alg: &str, message: &[u8]) -> Vec<u8> {
    let rsa_with = |encoding: &'static dyn signature::RsaEncoding| {
        let key = rsa();
        let mut out = vec![0; key.public_modulus_len()];
        let random = SystemRandom::new();
        key.sign(encoding, &random, message, &mut out).unwrap();
        out
    };
    let mac = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET), message);
    match alg {
        "RS256" => rsa_with(&signature::RSA_PKCS1_SHA256),
        "RS384" => rsa_with(&signature::RSA_PKCS1_SHA384),
        "RS512" => rsa_with(&signature::RSA_PKCS1_SHA512),
        "PS256" => rsa_with(&signature::RSA_PSS_SHA256),
        "PS384" => rsa_with(&signature::RSA_PSS_SHA384),
        "PS512" => rsa_with(&signature::RSA_PSS_SHA512),
        "EdDSA" => ed25519().sign(message).as_ref().to_vec(),
        "HS256" => mac(hmac::HMAC_SHA256).as_ref().to_vec(),
        "HS384" => mac(hmac::HMAC_SHA384).as_ref().to_vec(),
        "HS512" => mac(hmac::HMAC_SHA512).as_ref().to_vec(),
        "none" => Vec::new(),
        es => {
            let (name, _, algorithm) = curve(es);
            let key = ecdsa(name, algorithm);
            key.sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec()
        }
    }
}

fn key_set(bare: bool) -> Value {
    let text = |bytes: &[u8]| json!(BASE64URL.encode(bytes));
    let rsa = rsa();
    let n = rsa
        .public_key()
        .modulus()
        .big_endian_without_leading_zero()
        .to_vec();
    let mut keys = vec![
        json!({ "kty": "RSA", "kid": "rsa", "alg": "RS256", "n": text(&n), "e": "AQAB" }),
        json!({ "kty": "oct", "kid": "secret", "alg": "HS256", "k": text(SECRET) }),
        json!({ "kty": "OKP", "kid": "ed25519", "alg": "EdDSA", "crv": "Ed25519",
            "x": text(ed25519().public_key().as_ref()) }),
    ];
    for alg in ["ES256", "ES384", "ES512"] {
        let (name, crv, algorithm) = curve(alg);
        let key = ecdsa(name, algorithm);
        // Uncompressed: a 4, then both coordinates.
        let point = &key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let key =
            json!({ "kty": "EC", "kid": name, "alg": alg, "crv": crv, "x": text(x), "y": text(y) });
        keys.push(key);
    }
    if bare {
        for key in &mut keys {
            let fields = key.as_object_mut().unwrap();
            fields.remove("alg");
            fields.remove("kid");
        }
    }
    json!({ "keys": keys })
}
