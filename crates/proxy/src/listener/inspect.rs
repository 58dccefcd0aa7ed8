//! Listener filters: what is learned of a connection before its chain is
//! chosen. Bytes that an inspector reads are read again by what follows.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Poll, ready};

use lateen_proxy_core::config::listener::{Listener, ListenerFilterKind};

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

/// Longest PROXY protocol header: 16 bytes and 216 of addresses for version 2
/// without TLVs; 107 for version 1. TLVs are skipped up to this.
const PROXY_LARGEST: usize = 4096;

/// Runs the listener's filters.
pub async fn run(io: &Io, config: &Listener, local: SocketAddr) -> Result<Inspected, Stopped> {
    let mut found = Inspected {
        local,
        remote: io.peer,
        server_name: String::new(),
        transport: "raw_buffer",
        protocols: Vec::new(),
        source: None,
    };
    let filters = || config.active_filters(local.port());
    if filters().all(|filter| found.at_once(filter)) {
        return Ok(found);
    }
    let work = async {
        let mut seen = Vec::new();
        for filter in filters() {
            apply(io, filter, &mut seen, &mut found).await?;
        }
        io.unread(&seen);
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

impl Inspected {
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

async fn more(io: &Io, seen: &mut Vec<u8>) -> Result<(), Stopped> {
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
        } => proxy_protocol(io, seen, found, *lax).await,
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

/// Longest request line that is waited for.
const LINE_LARGEST: usize = 8192;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol that the first line speaks; empty = none of HTTP's; `None` =
/// not enough bytes.
pub fn http_protocol(bytes: &[u8]) -> Option<&'static str> {
    if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) {
        return None;
    }
    if bytes.starts_with(PREFACE) {
        return Some("h2c");
    }
    let method = bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len());
    let token = |b: &u8| b.is_ascii_uppercase() || *b == b'-';
    if !bytes[..method].iter().all(token) || method > 20 {
        return Some("");
    }
    // However the bytes arrive, a line end beyond the limit is not seen.
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_LARGEST)]) else {
        return (bytes.len() >= LINE_LARGEST).then_some("");
    };
    match bytes[..end].trim_ascii_end() {
        line if line.ends_with(b" HTTP/1.1") => Some("http/1.1"),
        line if line.ends_with(b" HTTP/1.0") => Some("http/1.0"),
        _ => Some(""),
    }
}

async fn proxy_protocol(
    io: &Io,
    seen: &mut Vec<u8>,
    found: &mut Inspected,
    lax: bool,
) -> Result<(), Stopped> {
    loop {
        match proxy_header(seen) {
            ProxyHeader::More => more(io, seen).await?,
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
        ["TCP4" | "TCP6", from, to, from_port, to_port] => {
            match (address(from, from_port), address(to, to_port)) {
                (Some(from), Some(to)) => Some((from, to)),
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

fn proxy_v2(bytes: &[u8]) -> ProxyHeader {
    let Some(head) = bytes.get(12..16) else {
        return ProxyHeader::More;
    };
    let len = 16 + (usize::from(head[2]) << 8 | usize::from(head[3]));
    if head[0] >> 4 != 2 || len > PROXY_LARGEST {
        return ProxyHeader::Bad;
    }
    let Some(body) = bytes.get(16..len) else {
        return ProxyHeader::More;
    };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let addresses = match (head[0] & 15, head[1]) {
        (0, _) => None,
        (1, 0x11) if body.len() >= 12 => {
            let ip = |at: usize| {
                std::net::Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3])
            };
            Some(((ip(0), port(8)).into(), (ip(4), port(10)).into()))
        }
        (1, 0x21) if body.len() >= 36 => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&body[at..at + 16]);
                std::net::Ipv6Addr::from(octets)
            };
            Some(((ip(0), port(32)).into(), (ip(16), port(34)).into()))
        }
        (1, 0x11 | 0x21) => return ProxyHeader::Bad,
        (1, _) => None,
        _ => return ProxyHeader::Bad,
    };
    ProxyHeader::Header { len, addresses }
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
}
