//! What tokens, key sets and claims come to, each rule with what breaks it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;

use super::*;
use crate::config::Value;
use crate::config::jwt::{JwtProvider, KeySource, TokenPlace};
use crate::headers::HeaderList;
use crate::matcher::{Headers as _, StringMatcher};

const RSA: &str = r#"{"kty":"RSA","kid":"a","alg":"RS256","n":"AK-_","e":"AQAB"}"#;

fn text(header: &str, payload: &str) -> String {
    let part = |text: &str| BASE64URL.encode(text);
    format!("{}.{}.{}", part(header), part(payload), part("signature"))
}

fn token(payload: &str) -> String {
    text(r#"{"alg":"RS256","kid":"a"}"#, payload)
}

fn provider() -> JwtProvider {
    let keys = JwkSet::parse(format!(r#"{{"keys":[{RSA}]}}"#).as_bytes()).unwrap();
    JwtProvider {
        name: "p".into(),
        issuer: "me".into(),
        audiences: vec![],
        subjects: None,
        require_expiration: false,
        max_lifetime: None,
        keys: KeySource::Local(Arc::new(keys)),
        forward: false,
        places: vec![],
        payload_header: "".into(),
        pad_payload_header: false,
        payload_in_metadata: "".into(),
        space_delimited_claims: vec![],
        header_in_metadata: "".into(),
        failed_status_in_metadata: "".into(),
        clock_skew: Duration::from_secs(60),
        claim_headers: vec![],
        clear_route_cache: false,
    }
}

#[test]
fn a_token_is_read() {
    let text = token(r#"{"iss":"me","sub":"joe","aud":["a","b"],"exp":12.5,"nbf":3}"#);
    let token = Token::parse(&text).unwrap();
    assert_eq!(token.algorithm, Algorithm::Rs256);
    assert_eq!(
        (&*token.key_id, &*token.issuer, &*token.subject),
        ("a", "me", "joe")
    );
    assert_eq!(token.audiences.len(), 2);
    assert_eq!((token.expires, token.not_before), (12, 3));
    assert_eq!(token.signature, b"signature");
    assert!(text.starts_with(token.signed) && token.signed.ends_with(token.payload_text));
}

#[test]
fn cve_2019_12995_malformed_tokens_are_refused_with_their_reason() {
    let good = r#"{"iss":"me"}"#;
    let header = r#"{"alg":"RS256"}"#;
    let table = [
        (String::new(), Failure::BadFormat),
        ("a".into(), Failure::BadFormat),
        ("..".into(), Failure::BadFormat),
        ("a.b.c.d".into(), Failure::BadFormat),
        ("a.b.".into(), Failure::BadFormat),
        ("!.b.c".into(), Failure::HeaderBase64),
        (text("{", good), Failure::HeaderJson),
        (text("[]", good), Failure::HeaderJson),
        (
            text(r#"{"alg":"none","alg":"RS256"}"#, good),
            Failure::HeaderJson,
        ),
        (text(r#"{"kid":"a"}"#, good), Failure::HeaderBadAlg),
        (text(r#"{"alg":1}"#, good), Failure::HeaderBadAlg),
        (text(r#"{"alg":"none"}"#, good), Failure::HeaderUnknownAlg),
        (text(r#"{"alg":"rs256"}"#, good), Failure::HeaderUnknownAlg),
        (
            text(r#"{"alg":"RS256","kid":1}"#, good),
            Failure::HeaderBadKid,
        ),
        (text(header, "1"), Failure::PayloadJson),
        (text(header, &"[".repeat(5000)), Failure::PayloadJson),
        (text(header, r#"{"iss":1}"#), Failure::IssNotString),
        (text(header, r#"{"sub":[]}"#), Failure::SubNotString),
        (text(header, r#"{"iat":"1"}"#), Failure::IatNotInteger),
        (text(header, r#"{"nbf":-1}"#), Failure::NbfOutOfRange),
        (text(header, r#"{"exp":null}"#), Failure::ExpNotInteger),
        (text(header, r#"{"exp":1e300}"#), Failure::ExpOutOfRange),
        (text(header, r#"{"jti":true}"#), Failure::JtiNotString),
        (text(header, r#"{"aud":["a",1]}"#), Failure::AudNotStrings),
        (token(good) + "=", Failure::SignatureBase64),
        (token(good) + " x", Failure::SignatureBase64),
    ];
    for (text, want) in table {
        assert_eq!(Token::parse(&text).unwrap_err(), want, "{text:.80}");
    }
}

#[test]
fn key_sets() {
    let parse = |text: &str| JwkSet::parse(text.as_bytes());
    let set = |keys: &str| parse(&format!(r#"{{"keys":[{keys}]}}"#));
    assert_eq!(set(RSA).unwrap().keys.len(), 1);
    let mixed = set(&format!(
        r#"{{"kty":"zz"}},{RSA},{{"kty":"RSA","n":"","e":""}}"#
    ));
    assert_eq!(
        mixed.unwrap().keys.len(),
        1,
        "what cannot be used is left out"
    );
    for (text, want) in [
        ("", "invalid JSON"),
        ("[]", "invalid JSON"),
        ("{}", "[keys] field"),
        (r#"{"keys":3}"#, "not an array"),
        (r#"{"keys":[]}"#, "any valid public key"),
        (r#"{"keys":[],"keys":[]}"#, "invalid JSON"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(want), "{text}: {error}");
    }
    for (key, want) in [
        (r#"{"kid":"x"}"#, "[kty] is missing"),
        (r#"{"kty":"RSA","n":"*","e":"AQAB"}"#, "parse error"),
        (r#"{"kty":"RSA","n":"AA","e":"AQAB"}"#, "parse error"),
        (
            r#"{"kty":"RSA","alg":"ES256","n":"AQ","e":"AQAB"}"#,
            "[RS] or [PS]",
        ),
        (
            r#"{"kty":"RSA","alg":"RS9","n":"AQ","e":"AQAB"}"#,
            "not supported",
        ),
        (
            r#"{"kty":"EC","crv":"P-256","alg":"ES384"}"#,
            "not compatible",
        ),
        (r#"{"kty":"EC","crv":"P-256","x":"AQ"}"#, "[x] or [y]"),
        (r#"{"kty":"OKP","crv":"X25519","x":"AQ"}"#, "not supported"),
        (r#"{"kty":"OKP","crv":"Ed25519","x":"AQ"}"#, "wrong length"),
        (r#"{"kty":"oct","alg":"RS256","k":"AQ"}"#, "[HS]"),
        (r#"{"kty":"oct","k":""}"#, "Oct key"),
    ] {
        let error = set(key).unwrap_err();
        assert!(error.contains(want), "{key}: {error}");
    }
    let short = set(r#"{"kty":"EC","crv":"P-256","x":"AQ","y":"Ag"}"#).unwrap();
    let KeyMaterial::Ec(Curve::P256, point) = &short.keys[0].material else {
        panic!("{short:?}");
    };
    assert_eq!((point.len(), point[0], point[32], point[64]), (65, 4, 1, 2));
}

#[test]
fn a_key_serves_its_id_and_algorithm_only() {
    let set = JwkSet::parse(format!(r#"{{"keys":[{RSA}]}}"#).as_bytes()).unwrap();
    let key = &set.keys[0];
    assert!(key.serves("a", Algorithm::Rs256) && key.serves("", Algorithm::Rs256));
    assert!(!key.serves("b", Algorithm::Rs256));
    assert!(!key.serves("a", Algorithm::Hs256));
}

#[test]
fn claims() {
    let check = |change: &dyn Fn(&mut JwtProvider), payload: &str| {
        let mut provider = provider();
        change(&mut provider);
        let text = token(payload);
        check_claims(&provider, None, &Token::parse(&text).unwrap(), 1000)
    };
    let plain = |payload: &str| check(&|_| (), payload);
    assert_eq!(plain(r#"{"iss":"me"}"#), Ok(()));
    assert_eq!(plain(r#"{"iss":"you"}"#), Err(Failure::UnknownIssuer));
    assert_eq!(plain("{}"), Err(Failure::UnknownIssuer));
    assert_eq!(plain(r#"{"iss":"me","exp":940}"#), Ok(()));
    assert_eq!(plain(r#"{"iss":"me","exp":939}"#), Err(Failure::Expired));
    assert_eq!(plain(r#"{"iss":"me","nbf":1060}"#), Ok(()));
    assert_eq!(
        plain(r#"{"iss":"me","nbf":1061}"#),
        Err(Failure::NotYetValid)
    );
    let audiences = |p: &mut JwtProvider| p.audiences = vec!["svc".into(), "x".into()];
    assert_eq!(
        check(&audiences, r#"{"iss":"me","aud":"https://x/"}"#),
        Ok(())
    );
    for payload in [r#"{"iss":"me"}"#, r#"{"iss":"me","aud":"other"}"#] {
        assert_eq!(check(&audiences, payload), Err(Failure::AudienceNotAllowed));
    }
    let strict = |p: &mut JwtProvider| {
        p.require_expiration = true;
        p.max_lifetime = Some(Duration::from_secs(100));
        p.subjects = Some(StringMatcher::prefix("jo"));
    };
    assert_eq!(
        check(&strict, r#"{"iss":"me","sub":"joe","exp":1100}"#),
        Ok(())
    );
    for payload in [
        r#"{"iss":"me","sub":"joe"}"#,
        r#"{"iss":"me","sub":"joe","exp":1101}"#,
        r#"{"iss":"me","sub":"bob","exp":1100}"#,
        r#"{"iss":"me","exp":1100}"#,
    ] {
        assert_eq!(
            check(&strict, payload),
            Err(Failure::VerificationFailed),
            "{payload}"
        );
    }
}

#[test]
fn a_claim_cannot_add_header_lines() {
    let text = |value: &str| claim_text(&Value::String(value.into()));
    assert_eq!(text("joe").as_deref(), Some("joe"));
    assert_eq!(text("joe\r\nx-admin: 1"), None);
    assert_eq!(text("a\0b"), None);
    assert_eq!(claim_text(&Value::Number(3.0)).as_deref(), Some("3"));
    assert_eq!(
        claim_text(&Value::Number(-1.5)).as_deref(),
        Some("-1.500000")
    );
    assert_eq!(claim_text(&Value::Bool(true)).as_deref(), Some("true"));
    assert_eq!(claim_text(&Value::Null), None);
    let list = Value::List(vec![Value::String("a".into()), Value::Number(1.0)]);
    assert_eq!(claim_text(&list).as_deref(), Some("WyJhIiwxXQ=="));
}

#[test]
fn scopes_are_split() {
    let payload = crate::json::parse(br#"{"scope":"a b  c","n":1}"#).unwrap();
    let split = normalized_payload(&payload, &["scope".into(), "n".into(), "gone".into()]);
    let words = ["a", "b", "c"].map(|w| Value::String(w.into()));
    assert_eq!(split.path(["scope"]), Some(&Value::List(words.to_vec())));
    assert_eq!(split.path(["n"]), Some(&Value::Number(1.0)));
}

fn places() -> Vec<TokenPlace> {
    vec![
        TokenPlace::Header("authorization".into(), "Bearer ".into()),
        TokenPlace::Header("x-jwt".into(), "".into()),
        TokenPlace::Parameter("tok".into()),
        TokenPlace::Cookie("ck".into()),
    ]
}

#[test]
fn tokens_are_found() {
    let find = |pairs: &[(&str, &str)]| -> Vec<(String, Place)> {
        let found = tokens(&places(), &HeaderList::of(pairs));
        found.into_iter().map(|f| (f.text, f.place)).collect()
    };
    let one = |text: &str, place| vec![(text.to_owned(), place)];
    assert_eq!(find(&[("authorization", "Bearer a.b.c")]), one("a.b.c", 0));
    assert_eq!(
        find(&[("authorization", "Basic x, Bearer  a.b")]),
        one("a.b", 0)
    );
    assert_eq!(find(&[("authorization", "bearer a.b.c")]), []);
    assert_eq!(find(&[("x-jwt", "a b")]), one("a b", 1));
    assert_eq!(
        find(&[("x-jwt", "good"), ("x-jwt", "evil")]),
        vec![("good".into(), 1), ("evil".into(), 1)],
        "a second line is never left out"
    );
    let lines = [
        ("authorization", "Bearer good"),
        ("authorization", "Bearer evil"),
    ];
    assert_eq!(
        find(&lines),
        one("good,Bearer evil", 0),
        "nor behind a prefix"
    );
    assert_eq!(find(&[(":path", "/p?a=1&tok=x%2Ey&tok=z")]), one("x.y", 2));
    assert_eq!(find(&[(":path", "/tok=x")]), []);
    assert_eq!(find(&[("cookie", "a=b; ck=\"t\"; ck=u")]), one("t", 3));
    let all = find(&[(":path", "/?tok=q"), ("x-jwt", "h"), ("cookie", "ck=c")]);
    assert_eq!(all.iter().map(|f| f.1).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn tokens_are_taken_out() {
    let after = |pairs: &[(&str, &str)], place: usize| {
        let mut headers = HeaderList::of(pairs);
        remove(&places()[place], &mut headers);
        let path = headers.first(":path").unwrap_or_default();
        (
            String::from_utf8(path.to_vec()).unwrap(),
            headers.first("x-jwt").is_some(),
        )
    };
    assert_eq!(
        after(&[(":path", "/"), ("x-jwt", "a")], 1),
        ("/".into(), false)
    );
    assert_eq!(
        after(&[(":path", "/p?a=1&t%6Fk=x&b&tok=y")], 2).0,
        "/p?a=1&b"
    );
    assert_eq!(after(&[(":path", "/p?tok=x")], 2).0, "/p");
    assert_eq!(after(&[(":path", "/p")], 2).0, "/p");
}

#[test]
fn alternatives_tell_the_failure_that_says_most() {
    let told = |all: &[Failure]| {
        let mut failures = Alternatives::default();
        all.iter().for_each(|f| failures.failed(*f));
        failures
    };
    let (missing, unknown) = (Failure::Missing, Failure::UnknownIssuer);
    let of = |all: &[Failure]| told(all).outcome(false, false);
    assert_eq!(of(&[missing, missing]), Err(missing));
    assert_eq!(of(&[unknown, missing]), Err(unknown));
    assert_eq!(of(&[Failure::Expired, unknown]), Err(Failure::Expired));
    assert_eq!(told(&[missing]).outcome(true, false), Ok(()));
    assert_eq!(told(&[unknown]).outcome(true, false), Err(unknown));
    assert_eq!(told(&[Failure::Expired]).outcome(false, true), Ok(()));
}
