//! Who is signed in: a cookie that holds the user's name and a signature over it.
//!
//! The sample takes any password, so the signature guards nothing of value; it keeps a name from
//! being changed by accident. The key is the same in every replica, so any of them can read it.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use hyper::header::{COOKIE, HeaderMap};

const KEY: &[u8] = b"bookinfo sample session";
const NAME: &str = "session";

/// The longest user name a session takes, in bytes.
const MAX_USER: usize = 256;

/// The `Set-Cookie` value that signs `user` in; `None` when the name is empty or too long.
pub fn sign_in(user: &str) -> Option<String> {
    if user.is_empty() || user.len() > MAX_USER {
        return None;
    }
    let name = B64.encode(user);
    let tag = hmac::sign(&key(), name.as_bytes());
    Some(format!(
        "{NAME}={name}.{}; HttpOnly; Path=/",
        B64.encode(tag)
    ))
}

/// The `Set-Cookie` value that signs out.
pub fn sign_out() -> String {
    format!("{NAME}=; HttpOnly; Path=/; Max-Age=0")
}

/// The signed-in user of a request, if its cookie is whole and its signature right.
pub fn user(headers: &HeaderMap) -> Option<String> {
    headers.get_all(COOKIE).iter().find_map(|line| {
        let pairs = line.to_str().ok()?.split(';');
        let value = pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|p| p.0 == NAME)?
            .1;
        let (name, tag) = value.split_once('.')?;
        hmac::verify(&key(), name.as_bytes(), &B64.decode(tag).ok()?).ok()?;
        String::from_utf8(B64.decode(name).ok()?).ok()
    })
}

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, KEY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn with_cookie(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            COOKIE,
            HeaderValue::from_str(value).expect("a header value"),
        );
        headers
    }

    #[test]
    fn a_session_survives_the_round_trip_and_no_tampering() {
        let cookie = sign_in("jason").expect("a cookie");
        let pair = cookie.split(';').next().expect("a pair");
        assert_eq!(
            user(&with_cookie(&format!("a=b; {pair}"))).as_deref(),
            Some("jason")
        );
        assert_eq!(
            user(&with_cookie(&pair.replace("session=", "session=x"))),
            None
        );
        assert_eq!(user(&with_cookie("session=jason")), None);
        assert_eq!(sign_in(""), None);
    }
}
