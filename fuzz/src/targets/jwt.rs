//! Tokens, key sets, and the answers of an authorisation service.

use lateen_proxy::http::jwt::verify;
use lateen_proxy_core::config::jwt::TokenPlace;
use lateen_proxy_core::headers::HeaderList;
use lateen_proxy_core::jwt::{
    self, JwkSet, KeyMaterial, Token, audience, claim_text, normalized_payload,
};
use lateen_proxy_core::matcher::Headers as _;
use lateen_proxy_xds::authz::Verdict;

use crate::Target;
use crate::bytes::{nested, seeds, text};

const RSA: &str = r#"{"kty":"RSA","kid":"a","alg":"RS256","e":"AQAB","n":"AK-_"}"#;
const SECRET: &str = r#"{"kty":"oct","kid":"s","k":"c2VjcmV0"}"#;
/// `{"alg":"HS256"}.{"iss":"me"}`, signed with "secret".
const SIGNED: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJtZSJ9.AAAA";

/// A token in a request: found, read, checked, taken out.
pub const TOKEN: Target = Target {
    name: "jwt",
    run: token,
    seeds: || {
        let mut all = seeds(&[
            SIGNED,
            "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJtZSIsImF1ZCI6WyJhIl0sImV4cCI6MX0.AAAA",
            "eyJhbGciOiJub25lIn0.e30.",
            "..",
            "a.b.c.d",
            "e30.e30.e30",
        ]);
        all.push(nested("W", "", 5000));
        all
    },
    words: &[
        ".",
        "e30",
        "eyJhbGciOiJIUzI1NiJ9",
        "W10",
        "=",
        "-",
        "_",
        "bnVsbA",
        "eyJleHAiOi0xfQ",
    ],
    rounds: 6000,
};

/// A key set, and a token against each of its keys.
pub const KEYS: Target = Target {
    name: "jwks",
    run: keys,
    seeds: || {
        let mut all = vec![
            format!("{{\"keys\":[{RSA},{SECRET}]}}").into_bytes(),
            br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"Ag"},{"kty":"EC","crv":"P-521","x":"AQ","y":"Ag"}]}"#.to_vec(),
            br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}]}"#.to_vec(),
            br#"{"keys":[],"keys":[]}"#.to_vec(),
        ];
        all.push(nested("[", "]", 5000));
        all
    },
    words: &[
        "{\"keys\":[",
        "]}",
        "\"kty\":",
        "\"RSA\"",
        "\"EC\"",
        "\"OKP\"",
        "\"oct\"",
        "\"n\":\"",
        "\"e\":\"",
        "\"x\":\"",
        "\"y\":\"",
        "\"k\":\"",
        "\"crv\":",
        "\"P-384\"",
        "\"alg\":",
        "\"HS256\"",
        "\"ES256\"",
        "null",
    ],
    rounds: 4000,
};

/// What an authorisation service answers.
pub const VERDICT: Target = Target {
    name: "check_response",
    run: verdict,
    seeds: || {
        vec![
            vec![],
            // status { code: 7 } denied_response { status { code: 403 } body: "no" }
            b"\x0a\x02\x08\x07\x12\x09\x0a\x03\x08\x93\x03\x1a\x02no".to_vec(),
            // ok_response { headers { header { key: "a" value: "b" } } headers_to_remove: "c" }
            b"\x1a\x0d\x12\x08\x0a\x06\x0a\x01a\x12\x01b\x2a\x01c".to_vec(),
        ]
    },
    words: &[
        "\x0a", "\x12", "\x1a", "\x2a", ":path", "host", "\r\n", "\x00",
    ],
    rounds: 4000,
};

fn token(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let set = format!("{{\"keys\":[{RSA},{SECRET}]}}");
    let set = JwkSet::parse(set.as_bytes()).expect("a key set");
    if let Ok(token) = Token::parse(text) {
        assert_eq!(text.matches('.').count(), 2, "three sections");
        assert_eq!(token.signed.len(), text.rfind('.').expect("a point"));
        // Nothing without a real signature passes.
        assert!(verify(&set, &token).is_err(), "nobody signed {text}");
        std::hint::black_box(normalized_payload(&token.payload, &["scope".into()]));
        if let Some(sub) = token.payload.path(["sub"]).and_then(claim_text) {
            assert!(!sub.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
        token.audiences.iter().for_each(|aud| {
            std::hint::black_box(audience(aud));
        });
    }
    // The same text as a header, and as a request's path.
    let places = [
        TokenPlace::Header("x".into(), "Bearer ".into()),
        TokenPlace::Header("x".into(), "".into()),
        TokenPlace::Parameter("t".into()),
        TokenPlace::Cookie("t".into()),
    ];
    let path = format!("/?{text}");
    let mut headers = HeaderList::of(&[("x", text), ("cookie", text), (":path", &path)]);
    for found in jwt::tokens(&places, &headers) {
        assert!(found.place < places.len());
    }
    for place in &places {
        jwt::remove(place, &mut headers);
    }
    assert!(headers.first("x").is_none());
    let left = jwt::tokens(&places[2..3], &headers);
    assert!(left.is_empty(), "taken out of {path}");
}

fn keys(data: &[u8]) {
    let Ok(set) = JwkSet::parse(data) else {
        return;
    };
    assert!(!set.keys.is_empty(), "an empty set is none");
    for key in &set.keys {
        match &key.material {
            KeyMaterial::Rsa { n, e } => assert!(n[0] != 0 && e[0] != 0),
            KeyMaterial::Ec(curve, point) => assert_eq!(point.len(), 1 + 2 * curve.size()),
            KeyMaterial::Ed25519(_) => {}
            KeyMaterial::Secret(secret) => assert!(!secret.is_empty()),
        }
    }
    for header in [
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJhbGciOiJSUzI1NiJ9",
        "eyJhbGciOiJFUzI1NiJ9",
        "eyJhbGciOiJFUzUxMiJ9",
        "eyJhbGciOiJFZERTQSJ9",
    ] {
        let text = format!("{header}.e30.AAAA");
        let token = Token::parse(&text).expect("a token");
        assert!(verify(&set, &token).is_err(), "nobody signed it");
    }
}

fn verdict(data: &[u8]) {
    let (request, answer) = match Verdict::decode(data) {
        Ok(Verdict::Passes(pass, _)) if pass.fits().is_ok() => {
            let texts = pass
                .query
                .set
                .iter()
                .flat_map(|(name, value)| [name, value]);
            texts.for_each(|text| assert_one_line(text.as_bytes(), b" #"));
            (pass.headers, pass.response_headers)
        }
        Ok(Verdict::Refused(refusal, _) | Verdict::Failed(refusal)) => {
            let status = refusal.status.unwrap_or(403);
            assert!((200..=599).contains(&status), "{status}");
            (Vec::new(), refusal.headers)
        }
        _ => return,
    };
    for header in &request {
        assert!(header.fits_request().is_ok());
        match &*header.name {
            ":path" | ":authority" | "host" | ":method" => assert_one_line(&header.value, b" #"),
            _ => assert_one_line(&header.value, b""),
        }
        assert_one_line(header.name.as_bytes(), b" ");
    }
    for header in answer.iter().filter(|h| h.fits_response().is_ok()) {
        assert_one_line(&header.value, b"");
        assert_one_line(header.name.as_bytes(), b" ");
    }
}

/// Nothing in it ends a line or a C string, nor is one of the `other` bytes.
fn assert_one_line(text: &[u8], other: &[u8]) {
    let plain = |b: &u8| !b"\r\n\0".contains(b) && !other.contains(b);
    assert!(text.iter().all(plain), "{}", text.escape_ascii());
}
