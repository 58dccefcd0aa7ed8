//! Service account tokens: ES256 JWTs, made and checked here.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

use crate::api::core::Core;
use crate::api::error::{ApiError, Cause};
use crate::api::handle::{BoundPod, ServiceAccountToken, UserInfo};
use crate::api::meta;
use crate::api::resource::{PODS, SECRETS, SERVICE_ACCOUNTS};

/// Shortest lifetime that may be asked for.
const MIN_SECONDS: i64 = 600;
/// Longest lifetime given.
const MAX_SECONDS: i64 = 1 << 32;
/// The odd lifetime by which mounted tokens ask for leniency, and the real one they get.
const LENIENT_ASK: i64 = 3607;
const LENIENT_LIFE: i64 = 365 * 24 * 3600;

/// The key that signs tokens, and the issuer it signs for.
pub(crate) struct TokenSigner {
    key: EcdsaKeyPair,
    key_id: String,
    pub(crate) issuer: String,
}

/// A token that was found good.
pub(crate) struct Verified {
    pub(crate) user: UserInfo,
    pub(crate) audiences: Vec<String>,
}

impl TokenSigner {
    /// From a PKCS#8 PEM key.
    pub(crate) fn new(key_pem: &str, issuer: String) -> Result<Self, String> {
        let key = lateen_identity::private_key_from_pem(key_pem).map_err(|e| e.to_string())?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der())
            .map_err(|e| format!("the token key is not a P-256 key: {e}"))?;
        let id = digest::digest(&digest::SHA256, key.public_key().as_ref());
        Ok(Self {
            key_id: B64.encode(id.as_ref()),
            key,
            issuer,
        })
    }

    fn sign(&self, claims: &Value) -> Result<String, ApiError> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let head = B64.encode(header.to_string());
        let body = B64.encode(claims.to_string());
        let text = format!("{head}.{body}");
        let signature = self
            .key
            .sign(&SystemRandom::new(), text.as_bytes())
            .map_err(ApiError::internal)?;
        Ok(format!("{text}.{}", B64.encode(signature.as_ref())))
    }

    /// The claims of a token with a good signature and time; `now` in seconds since 1970.
    fn claims(&self, token: &str, now: i64) -> Result<Value, String> {
        let (text, signature) = token.rsplit_once('.').ok_or("not a token")?;
        let (head, body) = text.split_once('.').ok_or("not a token")?;
        let json = |part: &str| -> Result<Value, String> {
            let bytes = B64.decode(part).map_err(|e| e.to_string())?;
            serde_json::from_slice(&bytes).map_err(|e| e.to_string())
        };
        if json(head)?["alg"] != "ES256" {
            return Err("unexpected signing algorithm".to_owned());
        }
        let signature = B64.decode(signature).map_err(|e| e.to_string())?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(text.as_bytes(), &signature)
            .map_err(|_| "the signature is not ours".to_owned())?;
        let claims = json(body)?;
        if claims["iss"].as_str() != Some(&self.issuer) {
            return Err("unexpected issuer".to_owned());
        }
        if claims["exp"].as_i64().is_none_or(|e| e <= now) {
            return Err("token has expired".to_owned());
        }
        if claims["nbf"].as_i64().is_some_and(|n| n > now + 60) {
            return Err("token not valid yet".to_owned());
        }
        Ok(claims)
    }

    /// The public key as a JWK set.
    pub(crate) fn jwks(&self) -> Value {
        let point = self.key.public_key().as_ref();
        // Uncompressed point: 04, x, y.
        let (x, y) = point[1..].split_at(32);
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256",
            "alg": "ES256", "x": B64.encode(x), "y": B64.encode(y)}]})
    }

    /// The issuer discovery document.
    pub(crate) fn discovery(&self, base: &str) -> Value {
        json!({"issuer": self.issuer, "jwks_uri": format!("{base}/openid/v1/jwks"),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"]})
    }
}

/// What a token is bound to, as in `boundObjectRef`.
pub(crate) struct Bound<'a> {
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
}

impl Core {
    pub(crate) async fn service_account_token(
        &self,
        ns: &str,
        account: &str,
        audiences: &[String],
        seconds: i64,
        pod: Option<&BoundPod>,
    ) -> Result<ServiceAccountToken, ApiError> {
        let bound = pod.map(|p| Bound {
            kind: "Pod",
            name: &p.name,
            uid: &p.uid,
        });
        self.make_token(ns, account, audiences, seconds, bound.as_ref())
    }

    pub(crate) fn make_token(
        &self,
        ns: &str,
        account: &str,
        audiences: &[String],
        seconds: i64,
        bound: Option<&Bound<'_>>,
    ) -> Result<ServiceAccountToken, ApiError> {
        let found = self
            .store
            .get(&SERVICE_ACCOUNTS, ns, account)
            .ok_or_else(|| ApiError::not_found(&SERVICE_ACCOUNTS, account))?;
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            let cause = Cause::invalid(
                "spec.expirationSeconds",
                &seconds.into(),
                "may not specify a duration less than 10 minutes",
            );
            return Err(ApiError::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                "",
                &[cause],
            ));
        }
        let now = meta::now_unix();
        let mut private = json!({"namespace": ns,
            "serviceaccount": {"name": account, "uid": meta::text(&found, "uid")}});
        if let Some(b) = bound {
            self.add_bound(ns, account, b, &mut private)?;
        }
        let mut life = seconds;
        if seconds == LENIENT_ASK && bound.is_some() {
            life = LENIENT_LIFE;
            private["warnafter"] = (now + seconds).into();
        }
        let audiences = if audiences.is_empty() {
            vec![self.signer.issuer.clone()]
        } else {
            audiences.to_vec()
        };
        let claims = json!({"aud": audiences, "exp": now + life, "iat": now, "nbf": now,
            "iss": self.signer.issuer, "jti": meta::new_uid(), "kubernetes.io": private,
            "sub": format!("system:serviceaccount:{ns}:{account}")});
        Ok(ServiceAccountToken {
            token: self.signer.sign(&claims)?,
            expires_at: now + life,
        })
    }

    fn add_bound(
        &self,
        ns: &str,
        account: &str,
        b: &Bound<'_>,
        private: &mut Value,
    ) -> Result<(), ApiError> {
        let (res, field) = match b.kind {
            "Pod" => (&PODS, "pod"),
            "Secret" => (&SECRETS, "secret"),
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to object of kind {other:?}"
                )));
            }
        };
        let object = self
            .store
            .get(res, ns, b.name)
            .ok_or_else(|| ApiError::not_found(res, b.name))?;
        let uid = meta::text(&object, "uid");
        if !b.uid.is_empty() && b.uid != uid {
            return Err(ApiError::conflict(
                res,
                b.name,
                &format!(
                    "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                    b.uid
                ),
            ));
        }
        private[field] = json!({"name": b.name, "uid": uid});
        if let Some(node) = object["spec"]["nodeName"].as_str() {
            let uid = self
                .store
                .get(&crate::api::resource::NODES, "", node)
                .map(|n| meta::text(&n, "uid").to_owned());
            private["node"] = json!({"name": node, "uid": uid.unwrap_or_default()});
        }
        Ok(())
    }

    /// Checks a service account token: its signature, time, and that account and bound object
    /// are still there.
    pub(crate) fn verify_token(&self, token: &str) -> Result<Verified, String> {
        let claims = self.signer.claims(token, meta::now_unix())?;
        let private = &claims["kubernetes.io"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let ns = text(&private["namespace"]);
        let account = text(&private["serviceaccount"]["name"]);
        let found = self
            .store
            .get(&SERVICE_ACCOUNTS, &ns, &account)
            .ok_or("service account is gone")?;
        if private["serviceaccount"]["uid"] != found["metadata"]["uid"] {
            return Err("service account was replaced".to_owned());
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut add = |key: &str, v: &Value| {
            if let Some(s) = v.as_str().filter(|s| !s.is_empty()) {
                extra.insert(
                    format!("authentication.kubernetes.io/{key}"),
                    vec![s.to_owned()],
                );
            }
        };
        for (field, res) in [("pod", &PODS), ("secret", &SECRETS)] {
            let bound = &private[field];
            if !bound.is_object() {
                continue;
            }
            let name = text(&bound["name"]);
            let object = self
                .store
                .get(res, &ns, &name)
                .ok_or_else(|| format!("bound {field} is gone"))?;
            if object["metadata"]["uid"] != bound["uid"] {
                return Err(format!("bound {field} was replaced"));
            }
            if field == "pod" {
                add("pod-name", &bound["name"]);
                add("pod-uid", &bound["uid"]);
            }
        }
        add("node-name", &private["node"]["name"]);
        add("node-uid", &private["node"]["uid"]);
        add(
            "credential-id",
            &format!("JTI={}", text(&claims["jti"])).into(),
        );
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{ns}"),
            super::AUTHENTICATED.to_owned(),
        ];
        let audiences = match &claims["aud"] {
            Value::String(s) => vec![s.clone()],
            list => list
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect(),
        };
        Ok(Verified {
            user: UserInfo {
                name: format!("system:serviceaccount:{ns}:{account}"),
                uid: text(&private["serviceaccount"]["uid"]),
                groups,
                extra,
            },
            audiences,
        })
    }

    /// The user of a bearer token for the API itself.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<Arc<UserInfo>> {
        let verified = match self.verify_token(token) {
            Ok(v) => v,
            Err(why) => {
                tracing::debug!(why, "a bearer token was refused");
                return None;
            }
        };
        verified
            .audiences
            .contains(&self.signer.issuer)
            .then(|| Arc::new(verified.user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_verify_only_with_their_key_issuer_and_time() {
        let key = lateen_identity::generate_key_pem().expect("key");
        let signer = TokenSigner::new(&key, "https://iss".to_owned()).expect("signer");
        let token = signer
            .sign(&json!({"iss": "https://iss", "exp": 100, "sub": "x"}))
            .expect("sign");
        assert_eq!(signer.claims(&token, 50).expect("good")["sub"], "x");
        assert!(signer.claims(&token, 100).is_err());
        let other = TokenSigner::new(&key, "https://other".to_owned()).expect("signer");
        assert!(other.claims(&token, 50).is_err());
        let foreign = lateen_identity::generate_key_pem().expect("key");
        let foreign = TokenSigner::new(&foreign, "https://iss".to_owned()).expect("signer");
        assert!(foreign.claims(&token, 50).is_err());
        let parts: Vec<&str> = token.split('.').collect();
        let none = B64.encode(r#"{"alg":"none"}"#);
        let unsigned = format!("{none}.{}.{}", parts[1], parts[2]);
        assert!(signer.claims(&unsigned, 50).is_err());
        let claims = json!({"iss": "https://iss", "exp": 100, "sub": "root"});
        let claims = B64.encode(claims.to_string());
        let forged = format!("{}.{claims}.{}", parts[0], parts[2]);
        assert!(signer.claims(&forged, 50).is_err());
        assert_eq!(signer.jwks()["keys"][0]["crv"], "P-256");
    }
}
