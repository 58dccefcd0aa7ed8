//! Extensions that say who the client is where the peer is a proxy: the first that finds an
//! address, or refuses the request, decides.
use std::net::{IpAddr, SocketAddr};

use crate::config::{CidrRange, Name};
use crate::forwarding::parse_ip;
use crate::matcher::Headers;

/// One of `original_ip_detection_extensions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginalIp {
    /// From `x-forwarded-for`.
    ForwardedFor {
        /// Entries at the right that are left out.
        hops: u32,
        /// Left out instead are these proxies, as far as they stand in a row from the right, the
        /// peer among them.
        trusted: Vec<CidrRange>,
        /// The peer is not added to the header.
        skip_append: bool,
    },
    /// From a header of its own.
    Header {
        /// Lower-case.
        name: Name,
        /// The request may count as internal.
        trusted: bool,
        /// Status for requests where it says no address; none = the peer is the client.
        refusal: Option<u16>,
    },
}

/// What the extensions say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The client's address, with port 0, and whether the request may count as internal; none = the
    /// peer is the client.
    pub client: Option<(SocketAddr, bool)>,
    /// The peer is added to `x-forwarded-for`. The last extension that was asked says so.
    pub append: bool,
    /// The request is refused with this status.
    pub refused: Option<u16>,
}

/// Asks the extensions in their order until one knows the client or refuses the request.
pub fn detect<H: Headers + ?Sized>(
    all: &[OriginalIp],
    headers: &H,
    peer: Option<SocketAddr>,
) -> Found {
    let mut found = Found::default();
    for one in all {
        found = one.detect(headers, peer);
        if found.client.is_some() || found.refused.is_some() {
            break;
        }
    }
    found
}

impl OriginalIp {
    fn detect<H: Headers + ?Sized>(&self, headers: &H, peer: Option<SocketAddr>) -> Found {
        match self {
            Self::ForwardedFor {
                hops,
                trusted,
                skip_append,
            } => {
                let entries = entries(headers);
                let strange = |peer: SocketAddr| !holds(trusted, peer.ip());
                if !trusted.is_empty() && peer.is_none_or(strange) {
                    // Whoever it is, it is one more entry to who comes after.
                    return Found {
                        append: true,
                        ..Found::default()
                    };
                }
                let ip = match trusted.is_empty() {
                    true => {
                        let at = entries.len().checked_sub(*hops as usize + 1);
                        at.and_then(|at| entries[at])
                    }
                    false => last_untrusted(&entries, trusted),
                };
                Found {
                    client: ip.map(|ip| (SocketAddr::new(ip, 0), entries.len() == 1)),
                    append: !skip_append,
                    refused: None,
                }
            }
            Self::Header {
                name,
                trusted,
                refusal,
            } => {
                let ip = headers.first(name).and_then(parse_ip);
                Found {
                    client: ip.map(|ip| (SocketAddr::new(ip, 0), *trusted)),
                    append: false,
                    refused: refusal.filter(|_| ip.is_none()),
                }
            }
        }
    }
}

fn holds(ranges: &[CidrRange], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(ip))
}

/// The entries of `x-forwarded-for`; what is no address is none.
fn entries<H: Headers + ?Sized>(headers: &H) -> Vec<Option<IpAddr>> {
    let mut entries = Vec::new();
    headers.any("x-forwarded-for", &mut |line| {
        let parts = line.split(|b| *b == b',').map(<[u8]>::trim_ascii);
        entries.extend(parts.filter(|part| !part.is_empty()).map(parse_ip));
        false
    });
    entries
}

/// The first address from the right that is no trusted proxy; where all are, the leftmost one. None
/// where something else than an address stands on the way.
fn last_untrusted(entries: &[Option<IpAddr>], trusted: &[CidrRange]) -> Option<IpAddr> {
    let mut last = None;
    for entry in entries.iter().rev() {
        last = Some((*entry)?);
        if last.is_some_and(|ip| !holds(trusted, ip)) {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        let trusted = [CidrRange("10.0.0.0/8".parse().unwrap())];
        let of = |entries: &[&str]| {
            let entries: Vec<_> = entries.iter().map(|e| ip(e)).collect();
            last_untrusted(&entries, &trusted)
        };
        assert_eq!(of(&["1.1.1.1", "2.2.2.2", "10.0.0.1"]), ip("2.2.2.2"));
        assert_eq!(of(&["10.0.0.2", "10.0.0.1"]), ip("10.0.0.2"));
        assert_eq!(of(&["2.2.2.2", "x", "10.0.0.1"]), None);
        assert_eq!(of(&["x", "2.2.2.2"]), ip("2.2.2.2"));
        assert_eq!(of(&[]), None);
    }
}
