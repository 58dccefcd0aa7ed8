//! What a consistent-hash cluster hashes: route hash policies over a request.
use std::net::IpAddr;

use xxhash_rust::xxh64::xxh64;

use crate::config::route::{HashPolicy, HashSource, Substitution};
use crate::matcher::{Headers, Regex, query_parameter};
use crate::path;

/// The hash of a request, and a cookie to set where a policy made one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// The hash; none = no policy gave one (the balancer then draws).
    pub hash: Option<u64>,
    /// `set-cookie` values for the response.
    pub cookies: Vec<String>,
}

/// Computes the hash of a request: policies are joined by rotate-left-1 and xor; a `terminal` one
/// that gave a hash ends the list. `draw` makes the value of a new cookie.
pub fn compute<H: Headers + ?Sized>(
    policies: &[HashPolicy],
    headers: &H,
    client: Option<IpAddr>,
    draw: &mut dyn FnMut() -> u64,
) -> Hashed {
    all(policies, headers, client, Some(draw))
}

/// The hash of what a request has by itself: no cookie is made.
pub fn given<H: Headers + ?Sized>(
    policies: &[HashPolicy],
    headers: &H,
    client: Option<IpAddr>,
) -> Option<u64> {
    all(policies, headers, client, None).hash
}

/// Makes the value of a new cookie, where one may be made.
type Draw<'a> = Option<&'a mut dyn FnMut() -> u64>;

fn all<H: Headers + ?Sized>(
    policies: &[HashPolicy],
    headers: &H,
    client: Option<IpAddr>,
    mut draw: Draw<'_>,
) -> Hashed {
    let mut hashed = Hashed::default();
    for policy in policies {
        let cookies = &mut hashed.cookies;
        if let Some(hash) = one(&policy.source, headers, client, &mut draw, cookies) {
            hashed.hash = Some(hashed.hash.map_or(hash, |old| old.rotate_left(1) ^ hash));
        }
        if policy.terminal && hashed.hash.is_some() {
            break;
        }
    }
    hashed
}

fn one<H: Headers + ?Sized>(
    source: &HashSource,
    headers: &H,
    client: Option<IpAddr>,
    draw: &mut Draw<'_>,
    cookies: &mut Vec<String>,
) -> Option<u64> {
    match source {
        HashSource::Header(name, rewrite) => {
            let first = headers.first(name)?;
            let mut lines = 0;
            headers.any(name, &mut |_| {
                lines += 1;
                lines > 1
            });
            Some(match rewrite {
                None if lines == 1 => xxh64(first, 0),
                _ => several(headers, name, rewrite.as_ref()),
            })
        }
        HashSource::SourceIp => client.map(|ip| xxh64(ip.to_string().as_bytes(), 0)),
        HashSource::QueryParameter(name) => {
            let query = path::query(headers.first(":path")?)?;
            query_parameter(query, name.as_bytes()).map(|v| xxh64(v, 0))
        }
        HashSource::FilterState(_) => None,
        HashSource::Cookie {
            name,
            ttl,
            path,
            attributes,
        } => {
            // An empty one counts as none.
            if let Some(value) = cookie(headers, name).filter(|v| !v.is_empty()) {
                return Some(xxh64(&value, 0));
            }
            let ttl = (*ttl)?;
            let value = format!("{:016x}", draw.as_mut()?());
            let mut set = format!("{name}=\"{value}\"");
            if !ttl.is_zero() {
                set.push_str(&format!("; Max-Age={}", ttl.as_secs()));
            }
            if !path.is_empty() {
                set.push_str(&format!("; Path={path}"));
            }
            for (key, value) in attributes {
                set.push_str(&if value.is_empty() {
                    format!("; {key}")
                } else {
                    format!("; {key}={value}")
                });
            }
            set.push_str("; HttpOnly");
            cookies.push(set);
            Some(xxh64(value.as_bytes(), 0))
        }
    }
}

/// The hash of all lines of a header: each seeds the next one's, in the order of the values, so
/// that the order on the wire has no meaning.
fn several<H: Headers + ?Sized>(
    headers: &H,
    name: &str,
    rewrite: Option<&(Regex, Substitution)>,
) -> u64 {
    let mut values = Vec::new();
    headers.any(name, &mut |line| {
        values.push(match rewrite {
            Some((regex, with)) => regex.replace_all(line, with),
            None => line.to_vec(),
        });
        false
    });
    values.sort();
    values.iter().fold(0, |seed, value| xxh64(value, seed))
}

/// The value of a request cookie; surrounding quotes are not part of it.
pub fn cookie<H: Headers + ?Sized>(headers: &H, name: &str) -> Option<Vec<u8>> {
    let mut found = None;
    headers.any("cookie", &mut |line| {
        found = line.split(|b| *b == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            let bare = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            Some(bare.unwrap_or(value).to_vec())
        });
        found.is_some()
    });
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::headers::HeaderList;

    fn header(name: &str, terminal: bool) -> HashPolicy {
        HashPolicy {
            source: HashSource::Header(name.into(), None),
            terminal,
        }
    }

    #[test]
    fn joined_and_terminal() {
        let h = HeaderList::of(&[("a", "1"), ("b", "2")]);
        let both = xxh64(b"1", 0).rotate_left(1) ^ xxh64(b"2", 0);
        let go = |p: &[HashPolicy]| compute(p, &h, None, &mut || 0).hash;
        assert_eq!(go(&[header("a", false), header("b", false)]), Some(both));
        assert_eq!(
            go(&[header("a", true), header("b", false)]),
            Some(xxh64(b"1", 0))
        );
        assert_eq!(
            go(&[header("gone", true), header("b", false)]),
            Some(xxh64(b"2", 0))
        );
        assert_eq!(go(&[header("gone", false)]), None);
        let lines = [
            HeaderList::of(&[("a", "1"), ("a", "2")]),
            HeaderList::of(&[("a", "2"), ("a", "1")]),
        ];
        for list in lines {
            let hash = compute(&[header("a", false)], &list, None, &mut || 0).hash;
            assert_eq!(hash, Some(xxh64(b"2", xxh64(b"1", 0))));
        }
    }

    #[test]
    fn cookies_are_read_and_made() {
        let source = HashSource::Cookie {
            name: "u".into(),
            ttl: Some(Duration::from_secs(60)),
            path: "/p".into(),
            attributes: vec![],
        };
        let policy = [HashPolicy {
            source,
            terminal: false,
        }];
        let made = compute(&policy, &HeaderList::default(), None, &mut || 0xab);
        assert_eq!(
            made.cookies,
            ["u=\"00000000000000ab\"; Max-Age=60; Path=/p; HttpOnly"]
        );
        let back = HeaderList::of(&[("cookie", "x=1; u=\"00000000000000ab\"")]);
        let read = compute(&policy, &back, None, &mut || 1);
        assert_eq!(read.hash, made.hash);
        assert!(read.cookies.is_empty());
    }
}
