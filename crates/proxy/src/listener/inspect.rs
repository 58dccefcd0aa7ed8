//! Listener filters: what is learned of a connection before its chain is
//! chosen. Bytes that an inspector reads are read again by what follows.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::task::{Poll, ready};

use lateen_proxy_core::config::listener::{Listener, ListenerFilterKind, ProxyVersions};

use super::hello::{self, Found};
use crate::io::{Io, Timer, timer};
use crate::upstream::OriginalSource;

/// What was learned.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Where the client meant to go.
    pub local: SocketAddr,
    /// Who the client is.
    pub remote: SocketAddr,
    /// SNI, lower-case.
    pub server_name: String,
    /// `tls`, or `raw_buffer`: Envoy's default when no filter looked.
    pub transport: &'static str,
    /// From ALPN or the HTTP inspector.
    pub protocols: Vec<String>,
    /// What connections to endpoints on this one's behalf come from.
    pub source: Option<OriginalSource>,
}

/// Why a connection is not served.
#[derive(Debug)]
pub enum Stopped {
    /// It ended, or what came is not what it must be.
    Closed,
    /// The filters took too long.
    Timeout,
}

/// Runs the listener's filters.
pub async fn run(io: &Io, config: &Listener, local: SocketAddr) -> Result<Inspected, Stopped> {
    let mut found = Inspected::of(io, local);
    let filters = || config.active_filters(local.port());
    if filters().all(|filter| found.at_once(filter)) {
        return Ok(found);
    }
    let work = async {
        let mut seen = Seen(io, Vec::new());
        for filter in filters() {
            apply(io, filter, &mut seen.1, &mut found).await?;
        }
        Ok(())
    };
    if config.listener_filters_timeout.is_zero() {
        work.await?;
        return Ok(found);
    }
    let timer = Timer::new();
    timer.set(timer::deadline(
        timer::now_ms(),
        Some(config.listener_filters_timeout),
    ));
    match timer.race(work).await {
        Some(done) => done.map(|()| found),
        None if config.continue_on_listener_filters_timeout => Ok(found),
        None => Err(Stopped::Timeout),
    }
}

/// What inspectors read of a connection; given back however they end.
struct Seen<'a>(&'a Io, Vec<u8>);

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        self.0.unread(&self.1);
    }
}

impl Inspected {
    /// What is known of a connection without looking at its bytes.
    pub fn of(io: &Io, local: SocketAddr) -> Self {
        Self {
            local,
            remote: io.peer,
            server_name: String::new(),
            transport: "raw_buffer",
            protocols: Vec::new(),
            source: None,
        }
    }

    /// Does what a filter does that waits for nothing; false = it reads.
    fn at_once(&mut self, filter: &ListenerFilterKind) -> bool {
        match filter {
            ListenerFilterKind::OriginalDst => true,
            ListenerFilterKind::OriginalSrc { mark } => {
                // A client of a unix socket has no address to keep.
                self.source = (!self.remote.ip().is_unspecified()).then(|| OriginalSource {
                    ip: self.remote.ip(),
                    mark: *mark,
                });
                true
            }
            _ => false,
        }
    }
}

/// Reads what is there next.
pub(super) async fn more(io: &Io, seen: &mut Vec<u8>) -> Result<(), Stopped> {
    poll_fn(|cx| {
        // On the stack of the poll: a client that says nothing holds no buffer.
        let mut chunk = [0_u8; 2048];
        match ready!(io.poll_read(cx, &mut chunk)) {
            Ok(count) if count > 0 => {
                seen.extend_from_slice(&chunk[..count]);
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Err(Stopped::Closed)),
        }
    })
    .await
}

async fn apply(
    io: &Io,
    filter: &ListenerFilterKind,
    seen: &mut Vec<u8>,
    found: &mut Inspected,
) -> Result<(), Stopped> {
    match filter {
        ListenerFilterKind::OriginalDst | ListenerFilterKind::OriginalSrc { .. } => {
            found.at_once(filter);
            Ok(())
        }
        ListenerFilterKind::TlsInspector { .. } => tls(io, seen, found).await,
        ListenerFilterKind::HttpInspector => http(io, seen, found).await,
        ListenerFilterKind::ProxyProtocol {
            allow_requests_without_proxy_protocol: lax,
            versions,
        } => proxy_protocol(io, seen, found, *lax, *versions).await,
    }
}

async fn tls(io: &Io, seen: &mut Vec<u8>, found: &mut Inspected) -> Result<(), Stopped> {
    loop {
        match hello::inspect(seen) {
            Found::More => more(io, seen).await?,
            Found::Plain => {
                found.transport = "raw_buffer";
                return Ok(());
            }
            Found::Hello { server_name, alpn } => {
                found.transport = "tls";
                found.server_name = server_name;
                found.protocols = alpn;
                return Ok(());
            }
        }
    }
}

async fn http(io: &Io, seen: &mut Vec<u8>, found: &mut Inspected) -> Result<(), Stopped> {
    if found.transport == "tls" {
        return Ok(());
    }
    loop {
        match http_protocol(seen) {
            None => more(io, seen).await?,
            Some("") => return Ok(()),
            Some(protocol) => {
                found.protocols = vec![protocol.to_owned()];
                return Ok(());
            }
        }
    }
}

/// Longest request line that is waited for, as Envoy.
const LINE_LARGEST: usize = 64 * 1024;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol that the first line speaks; empty = none of HTTP's; `None` =
/// not enough bytes. A request in another version than 1.1, or in none, counts
/// as one of HTTP/1.0.
pub fn http_protocol(bytes: &[u8]) -> Option<&'static str> {
    if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) {
        return None;
    }
    if bytes.starts_with(PREFACE) {
        return Some("h2c");
    }
    let method = bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len());
    let token = |b: &u8| b.is_ascii_alphabetic() || *b == b'-' || *b == b'_';
    let is_token = bytes[..method].iter().all(token);
    if !is_token || (method == 0 && !bytes.is_empty()) || method > LINE_LARGEST {
        // What may yet be a request's end of line is part of no method.
        return Some("");
    }
    // However the bytes arrive, a line end beyond the limit is not seen.
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_LARGEST)]) else {
        return (bytes.len() >= LINE_LARGEST).then_some("");
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = line.split(|b| *b == b' ').filter(|w| !w.is_empty());
    let (target, version) = (words.nth(1), words.next());
    Some(match (target, version, words.next()) {
        (Some(target), None, _) if target.starts_with(b"/") => "http/1.0",
        (Some(_), Some(b"HTTP/1.1"), None) => "http/1.1",
        (Some(_), Some(version), None) if version.starts_with(b"HTTP/") => "http/1.0",
        _ => "",
    })
}

async fn proxy_protocol(
    io: &Io,
    seen: &mut Vec<u8>,
    found: &mut Inspected,
    lax: bool,
    versions: ProxyVersions,
) -> Result<(), Stopped> {
    loop {
        let refused = match seen.first() {
            Some(b'P') => !versions.v1,
            Some(b'\r') => !versions.v2,
            _ => false,
        };
        if refused && lax {
            // A version that may not be is as good as none.
            return Ok(());
        }
        if refused && seen.len() >= 16 && seen.starts_with(V2) {
            return Err(Stopped::Closed);
        }
        match proxy_header(seen) {
            ProxyHeader::More => more(io, seen).await?,
            ProxyHeader::Header { .. } if refused => return Err(Stopped::Closed),
            ProxyHeader::Absent if lax => return Ok(()),
            ProxyHeader::Absent | ProxyHeader::Bad => return Err(Stopped::Closed),
            ProxyHeader::Header { len, addresses } => {
                seen.drain(..len);
                if let Some((source, destination)) = addresses {
                    found.remote = source;
                    found.local = destination;
                }
                return Ok(());
            }
        }
    }
}

/// What the first bytes say of a PROXY protocol header.
#[derive(Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// More bytes are needed.
    More,
    /// There is none.
    Absent,
    /// There is a broken one.
    Bad,
    /// A header.
    Header {
        /// Its bytes.
        len: usize,
        /// Client and destination; none for local and unknown ones.
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Parses a PROXY protocol header of version 1 or 2.
pub fn proxy_header(bytes: &[u8]) -> ProxyHeader {
    if bytes.starts_with(V2) {
        return proxy_v2(bytes);
    }
    if bytes.starts_with(b"PROXY ") {
        return proxy_v1(bytes);
    }
    if V2.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        return ProxyHeader::More;
    }
    ProxyHeader::Absent
}

fn proxy_v1(bytes: &[u8]) -> ProxyHeader {
    let Some(end) = memchr::memmem::find(&bytes[..bytes.len().min(108)], b"\r\n") else {
        return if bytes.len() < 108 {
            ProxyHeader::More
        } else {
            ProxyHeader::Bad
        };
    };
    let Ok(line) = std::str::from_utf8(&bytes[6..end]) else {
        return ProxyHeader::Bad;
    };
    let words: Vec<&str> = line.split(' ').collect();
    let address = |ip: &str, port: &str| -> Option<SocketAddr> {
        Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
    };
    let addresses = match words[..] {
        ["UNKNOWN", ..] => None,
        [family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let four = family == "TCP4";
            let pair = address(from, from_port).zip(address(to, to_port));
            match pair.filter(|(a, b)| a.is_ipv4() == four && b.is_ipv4() == four) {
                Some((from, to)) if are_hosts(from, to) => Some((from, to)),
                _ => return ProxyHeader::Bad,
            }
        }
        _ => return ProxyHeader::Bad,
    };
    ProxyHeader::Header {
        len: end + 2,
        addresses,
    }
}

/// Whether both addresses are of single hosts.
fn are_hosts(from: SocketAddr, to: SocketAddr) -> bool {
    let one = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    one(from) && one(to)
}

/// Whether TLVs fill their place to its last byte: none may reach beyond
/// (CVE-2026-47692).
fn are_whole(mut tlvs: &[u8]) -> bool {
    while !tlvs.is_empty() {
        let Some((head, rest)) = tlvs.split_first_chunk::<3>() else {
            return false;
        };
        let len = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let Some(rest) = rest.get(len..) else {
            return false;
        };
        tlvs = rest;
    }
    true
}

fn proxy_v2(bytes: &[u8]) -> ProxyHeader {
    let Some(head) = bytes.get(12..16) else {
        return ProxyHeader::More;
    };
    let len = 16 + (usize::from(head[2]) << 8 | usize::from(head[3]));
    // Two bytes tell the length: 64 KiB are the bound.
    if head[0] >> 4 != 2 {
        return ProxyHeader::Bad;
    }
    let size = match (head[0] & 15, head[1]) {
        // LOCAL: the proxy in front speaks for itself, whatever addresses follow
        // (CVE-2024-23325).
        (0, _) => None,
        (1, 0x11 | 0x12) => Some(4),
        (1, 0x21 | 0x22) => Some(16),
        // No family that a connection of ours could be of.
        _ => return ProxyHeader::Bad,
    };
    if size.is_some_and(|size| len < 16 + 2 * size + 4) {
        return ProxyHeader::Bad;
    }
    let Some(body) = bytes.get(16..len) else {
        return ProxyHeader::More;
    };
    let Some(size) = size else {
        return ProxyHeader::Header {
            len,
            addresses: None,
        };
    };
    let address = |at: usize, port: usize| {
        let port = u16::from_be_bytes([body[port], body[port + 1]]);
        let mut octets = [0; 16];
        octets[..size].copy_from_slice(&body[at..at + size]);
        let ip: IpAddr = match size {
            4 => [octets[0], octets[1], octets[2], octets[3]].into(),
            _ => octets.into(),
        };
        SocketAddr::new(ip, port)
    };
    let (from, to) = (address(0, 2 * size), address(size, 2 * size + 2));
    if !are_hosts(from, to) || !are_whole(&body[2 * size + 4..]) {
        return ProxyHeader::Bad;
    }
    ProxyHeader::Header {
        len,
        addresses: Some((from, to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        assert_eq!(http_protocol(b"GET / HTTP/1.1\r\n"), Some("http/1.1"));
        assert_eq!(http_protocol(b"GET / HTTP/1.0\r\n"), Some("http/1.0"));
        assert_eq!(http_protocol(b"GET / HT"), None);
        assert_eq!(http_protocol(b"PRI * HTTP/2"), None);
        assert_eq!(http_protocol(PREFACE), Some("h2c"));
        assert_eq!(http_protocol(b"\x10\x20mysql"), Some(""));
        assert_eq!(http_protocol(b"hello world\n"), Some(""));
        assert_eq!(http_protocol(b"get / HTTP/1.1\r\n"), Some("http/1.1"));
        assert_eq!(http_protocol(b"GET /\r\n"), Some("http/1.0"));
        assert_eq!(http_protocol(b"GET / HTTP/2.0\r\n"), Some("http/1.0"));
        assert_eq!(http_protocol(b"GET / x HTTP/1.1\r\n"), Some(""));
        assert_eq!(http_protocol(b" GET / HTTP/1.1\r\n"), Some(""));
        let mut long = b"GET /".to_vec();
        long.resize(LINE_LARGEST - 1, b'a');
        assert_eq!(http_protocol(&long), None);
        long.extend_from_slice(b" HTTP/1.1\r\n");
        assert_eq!(http_protocol(&long), Some(""), "in one piece as in two");
    }

    #[test]
    fn proxy_headers() {
        let v1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\nGET";
        let want = (
            "1.2.3.4:1000".parse().unwrap(),
            "5.6.7.8:80".parse().unwrap(),
        );
        let header = |len| ProxyHeader::Header {
            len,
            addresses: Some(want),
        };
        assert_eq!(proxy_header(v1), header(v1.len() - 3));
        for end in 0..v1.len() - 4 {
            assert_eq!(proxy_header(&v1[..end]), ProxyHeader::More, "{end}");
        }
        let mut v2 = V2.to_vec();
        v2.extend_from_slice(&[0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 3, 232, 0, 80]);
        assert_eq!(proxy_header(&v2), header(28));
        assert_eq!(proxy_header(&v2[..20]), ProxyHeader::More);
        assert_eq!(proxy_header(b"GET / "), ProxyHeader::Absent);
        assert_eq!(proxy_header(b"PROXY TCP4 x y 1 2\r\n"), ProxyHeader::Bad);
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2.to_vec();
        header.extend_from_slice(&[0x20 | command, family]);
        header.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    const FOUR: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 3, 232, 0, 80];

    #[test]
    fn cve_2024_23325_local_keeps_the_peer_and_unknown_families_are_refused() {
        for family in [0, 0x11, 0x31, 0xff] {
            let header = v2(0, family, &FOUR);
            let local = ProxyHeader::Header {
                len: header.len(),
                addresses: None,
            };
            assert_eq!(proxy_header(&header), local, "{family}");
        }
        for family in [0, 0x10, 0x31, 0x41, 0xff] {
            assert_eq!(proxy_header(&v2(1, family, &FOUR)), ProxyHeader::Bad);
        }
        for command in 2..16 {
            assert_eq!(proxy_header(&v2(command, 0x11, &FOUR)), ProxyHeader::Bad);
        }
    }

    #[test]
    fn cve_2026_47692_a_tlv_stays_within_the_header() {
        let with = |tlvs: &[u8]| proxy_header(&v2(1, 0x11, &[&FOUR[..], tlvs].concat()));
        let good = |tlvs: &[u8]| matches!(with(tlvs), ProxyHeader::Header { .. });
        assert!(good(&[]) && good(&[1, 0, 0]) && good(&[1, 0, 2, 9, 9, 4, 0, 1, 0]));
        for bad in [
            &[1_u8][..],
            &[1, 0],
            &[1, 0, 1],
            &[1, 255, 255, 0],
            &[1, 0, 0, 2],
        ] {
            assert_eq!(with(bad), ProxyHeader::Bad, "{bad:?}");
        }
        let long = [&[1_u8, 0xea, 0x60][..], &[0; 60_000]].concat();
        assert!(good(&long));
    }
}
