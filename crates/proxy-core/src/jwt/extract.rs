//! Where a request carries tokens. Lines of one header are looked at joined by commas, as Envoy
//! does: behind a prefix a second line can only spoil a token, without one it is a token too.
use std::borrow::Cow;

use crate::config::jwt::TokenPlace;
use crate::headers::HeadersMut;
use crate::matcher::Headers;
use crate::path;

/// A place of a token, within the list it was looked up in.
pub type Place = usize;

/// A token that a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The token as it stands there.
    pub text: String,
    /// Where: an index of the places.
    pub place: Place,
}

/// The tokens of a request in the order of the places.
#[must_use]
pub fn tokens<'p, H: Headers + ?Sized>(
    places: impl IntoIterator<Item = &'p TokenPlace>,
    headers: &H,
) -> Vec<Found> {
    let mut found = Vec::new();
    for (place, at) in places.into_iter().zip(0..) {
        let text = match place {
            TokenPlace::Header(name, prefix) if prefix.is_empty() => {
                let value = joined(headers, name);
                let each = value.iter().flat_map(|v| v.split(|b| *b == b','));
                found.extend(each.map(|text| Found {
                    text: lossy(text.trim_ascii()),
                    place: at,
                }));
                continue;
            }
            TokenPlace::Header(name, prefix) => {
                joined(headers, name).and_then(|value| behind(&value, prefix))
            }
            TokenPlace::Parameter(name) => headers
                .first(":path")
                .and_then(path::query)
                .and_then(|query| parameter(query, name.as_bytes())),
            TokenPlace::Cookie(name) => cookie(headers, name.as_bytes()),
        };
        found.extend(text.map(|text| Found { text, place: at }));
    }
    found
}

fn lossy(bytes: &[u8]) -> String {
    // What is not UTF-8 is no token; it must be seen to be refused.
    String::from_utf8_lossy(bytes).into_owned()
}

fn joined<H: Headers + ?Sized>(headers: &H, name: &str) -> Option<Vec<u8>> {
    let mut joined: Option<Vec<u8>> = None;
    headers.any(name, &mut |line| {
        match &mut joined {
            Some(joined) => {
                joined.push(b',');
                joined.extend_from_slice(line);
            }
            None => joined = Some(line.to_vec()),
        }
        false
    });
    joined
}

fn behind(value: &[u8], prefix: &str) -> Option<String> {
    let at = memchr::memmem::find(value, prefix.as_bytes())? + prefix.len();
    let of_token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let start = value[at..].iter().position(of_token);
    Some(lossy(&value[start.map_or(0, |start| at + start)..]))
}

fn cookie<H: Headers + ?Sized>(headers: &H, name: &[u8]) -> Option<String> {
    let mut found = None;
    headers.any("cookie", &mut |line| {
        found = line.split(|b| *b == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let at = memchr::memchr(b'=', pair)?;
            let value = &pair[at + 1..];
            let bare = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            (&pair[..at] == name).then(|| lossy(bare.unwrap_or(value)))
        });
        found.is_some()
    });
    found
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

fn name_of(pair: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    match memchr::memchr(b'=', pair) {
        Some(at) => (decoded(&pair[..at]), &pair[at + 1..]),
        None => (decoded(pair), b""),
    }
}

fn parameter(query: &[u8], name: &[u8]) -> Option<String> {
    query.split(|b| *b == b'&').find_map(|pair| {
        let (key, value) = name_of(pair);
        (*key == *name).then(|| lossy(&decoded(value)))
    })
}

/// Takes the token at a place out of the request; cookies stay.
pub fn remove<H: HeadersMut + ?Sized>(place: &TokenPlace, headers: &mut H) {
    match place {
        TokenPlace::Header(name, _) => headers.remove(name),
        TokenPlace::Parameter(name) => {
            let Some(old) = headers.first(":path").map(<[u8]>::to_vec) else {
                return;
            };
            let Some(query) = path::query(&old) else {
                return;
            };
            let kept = query.split(|b| *b == b'&');
            let kept: Vec<&[u8]> = kept
                .filter(|pair| *name_of(pair).0 != *name.as_bytes())
                .collect();
            let mut new = path::without_query(&old).to_vec();
            if !kept.is_empty() {
                new.push(b'?');
                new.extend_from_slice(&kept.join(&b'&'));
            }
            headers.set(":path", &new);
        }
        TokenPlace::Cookie(_) => {}
    }
}
