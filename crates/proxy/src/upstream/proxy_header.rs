//! The PROXY protocol towards upstreams: a header before all else on a connection tells whose client it
//! serves (the HAProxy project's "The PROXY protocol", versions 1 and 2).

use std::net::{IpAddr, SocketAddr};

use super::connect::OriginalSource;

/// The beginning of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n";
/// Version 2, a connection on behalf of another one.
const PROXY: u8 = 0x21;
/// Version 2, a connection of the proxy's own.
const LOCAL: u8 = 0x20;

/// What a connection is for: one that serves one client serves no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Where it comes from; none = from this machine.
    pub source: Option<OriginalSource>,
    /// The client and where it meant to go, where the upstream is told.
    pub told: Option<(SocketAddr, SocketAddr)>,
}

/// The header. A connection that serves no client (`told` is none) is this proxy's own: version 1
/// names its two ends, `own`, version 2 says that it is one.
pub fn header(
    version: u8,
    told: Option<(SocketAddr, SocketAddr)>,
    own: Option<(SocketAddr, SocketAddr)>,
) -> Vec<u8> {
    match version {
        1 => match told.or(own) {
            Some(ends) => first(ends),
            None => b"PROXY UNKNOWN\r\n".to_vec(),
        },
        _ => second(told),
    }
}

/// Both addresses of one family: an IPv4 one beside an IPv6 one is mapped into IPv6.
fn alike((from, to): (SocketAddr, SocketAddr)) -> (IpAddr, IpAddr) {
    let six = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip @ IpAddr::V6(_) => ip,
    };
    match from.is_ipv4() == to.is_ipv4() {
        true => (from.ip(), to.ip()),
        false => (six(from.ip()), six(to.ip())),
    }
}

fn first(ends: (SocketAddr, SocketAddr)) -> Vec<u8> {
    let (from, to) = alike(ends);
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let (source, target) = (ends.0.port(), ends.1.port());
    format!("PROXY {family} {from} {to} {source} {target}\r\n").into_bytes()
}

fn second(told: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    let Some(ends) = told else {
        out.extend_from_slice(&[LOCAL, 0, 0, 0]);
        return out;
    };
    match alike(ends) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[PROXY, 0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[PROXY, 0x21, 0, 36]);
            for ip in [from, to] {
                if let IpAddr::V6(ip) = ip {
                    out.extend_from_slice(&ip.octets());
                }
            }
        }
    }
    out.extend_from_slice(&ends.0.port().to_be_bytes());
    out.extend_from_slice(&ends.1.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[test]
    fn headers_as_envoy_writes_them() {
        let four = ends("127.0.0.1:39298", "127.0.0.1:19801");
        let six = ends("[2001:db8::1]:1111", "[2001:db8::2]:2222");
        let text = |told, own| String::from_utf8(header(1, told, own)).unwrap();
        assert_eq!(
            text(four, None),
            "PROXY TCP4 127.0.0.1 127.0.0.1 39298 19801\r\n"
        );
        assert_eq!(
            text(None, four),
            "PROXY TCP4 127.0.0.1 127.0.0.1 39298 19801\r\n"
        );
        assert_eq!(
            text(six, four),
            "PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\n"
        );
        assert_eq!(text(None, None), "PROXY UNKNOWN\r\n");
        let mixed = ends("127.0.0.1:1", "[2001:db8::2]:2");
        assert_eq!(
            text(mixed, None),
            "PROXY TCP6 ::ffff:127.0.0.1 2001:db8::2 1 2\r\n"
        );
        let local = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00";
        assert_eq!(header(2, None, four), local);
        let want = b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x99\x82MY";
        assert_eq!(header(2, four, None), want);
        let want = b"\r\n\r\n\x00\r\nQUIT\n!!\x00$\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x04W\x08\xae";
        assert_eq!(header(2, six, None), want);
        assert_eq!(header(2, mixed, None).len(), 16 + 36);
    }
}
