//! What a listener learns from the first bytes of a connection. The bytes come in any pieces: an
//! answer once given must stay.

use std::sync::LazyLock;

use lateen_proxy::fuzz::{Found, ProxyHeader, http_protocol, proxy_header, tls_hello};

use crate::Target;
use crate::bytes::{arrivals, seeds};

/// ClientHello: server name and protocols.
pub const TLS_HELLO: Target = Target {
    name: "tls_hello",
    run: hello,
    seeds: hello_seeds,
    words: &[
        "\x16\x03\x01",
        "\0\0",
        "\0\x10",
        "\x02h2",
        "\x08http/1.1",
        "\x01\0",
        "example.com",
    ],
    rounds: 4000,
};

/// The first line of HTTP, or not.
pub const HTTP: Target = Target {
    name: "http_inspector",
    run: http,
    seeds: || {
        let mut list = seeds(&[
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.0\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\rx",
            "M-SEARCH * HTTP/1.1\r\n",
            "GETGETGETGETGETGETGETGET / HTTP/1.1\r\n",
            "\x05\0\0\0mysql",
        ]);
        list.push(
            [
                b"GET /".to_vec(),
                vec![b'a'; 8190],
                b" HTTP/1.1\r\n".to_vec(),
            ]
            .concat(),
        );
        list
    },
    words: &[
        "GET ",
        " HTTP/1.1\r\n",
        " HTTP/1.0",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n",
        "\n",
    ],
    rounds: 3000,
};

/// PROXY protocol headers, both versions.
pub const PROXY_PROTOCOL: Target = Target {
    name: "proxy_protocol",
    run: proxy,
    seeds: proxy_seeds,
    words: &[
        "PROXY ",
        "TCP4 ",
        "TCP6 ",
        "UNKNOWN",
        "\r\n",
        "127.0.0.1 ",
        "::1 ",
        "65535",
        "+1 ",
        "\r\n\r\n\0\r\nQUIT\n",
        "\x21\x11\0\x0c",
        "\x21\x21\0\x24",
        "\x20\0\0\0",
    ],
    rounds: 4000,
};

/// Asks at every arrival. The first answer that is not "more" must be the last.
fn steady<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    ask: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let whole = ask(data);
    for end in arrivals(data) {
        let end = end.min(data.len());
        if let Some(early) = ask(&data[..end]) {
            assert_eq!(
                Some(&early),
                whole.as_ref(),
                "{end} bytes say another thing"
            );
        }
    }
    whole
}

static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = rustls_pki_types::ServerName::try_from("Reviews.example.com").expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
});

/// A ClientHello made by hand: no randomness, so that seeds are the same in every run.
fn plain_hello(name: &str, alpn: &[&str], record: usize) -> Vec<u8> {
    let two = |n: usize| (n as u16).to_be_bytes();
    let mut names = vec![0];
    names.extend(two(name.len()));
    names.extend(name.bytes());
    let mut extensions = vec![0, 0];
    extensions.extend(two(names.len() + 2));
    extensions.extend(two(names.len()));
    extensions.extend(names);
    let list: Vec<u8> = alpn
        .iter()
        .flat_map(|p| [&[p.len() as u8], p.as_bytes()].concat())
        .collect();
    extensions.extend([0, 16]);
    extensions.extend(two(list.len() + 2));
    extensions.extend(two(list.len()));
    extensions.extend(list);
    // signature_algorithms and supported_versions, without which no server takes it.
    extensions.extend([0, 13, 0, 6, 0, 4, 4, 3, 8, 4, 0, 43, 0, 3, 2, 3, 4]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(two(extensions.len()));
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(two(body.len()));
    message.extend(body);
    message
        .chunks(record)
        .flat_map(|part| [&[0x16, 3, 1], &two(part.len())[..], part].concat())
        .collect()
}

fn hello_seeds() -> Vec<Vec<u8>> {
    vec![
        plain_hello("a.example.com", &["h2", "http/1.1"], 16_000),
        plain_hello("", &[], 16_000),
        plain_hello("UPPER.example.com", &["istio-peer-exchange", "istio"], 20),
        plain_hello("x", &["h2"], 1),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ]
}

fn hello(data: &[u8]) {
    let found = steady(data, |bytes| match tls_hello(bytes) {
        Found::More => None,
        found => Some(found),
    });
    // A real server's reading of the same bytes: what it takes, we must have seen right.
    let mut acceptor = rustls::server::Acceptor::default();
    let mut input = data;
    if acceptor.read_tls(&mut input).is_err() {
        return;
    }
    let Ok(Some(accepted)) = acceptor.accept() else {
        return;
    };
    let theirs = accepted.client_hello();
    match found {
        Some(Found::Hello { server_name, alpn }) => {
            if let Some(name) = theirs.server_name() {
                assert_eq!(
                    server_name,
                    name.to_ascii_lowercase(),
                    "another server name"
                );
            }
            let offered: Vec<String> = theirs
                .alpn()
                .into_iter()
                .flatten()
                .map(|p| String::from_utf8_lossy(p).into_owned())
                .collect();
            assert_eq!(alpn, offered, "other protocols");
        }
        // Longer ones than we look at are left to the server.
        other => assert!(
            data.len() > 16 * 1024,
            "{other:?} for a hello that a server takes"
        ),
    }
}

fn http(data: &[u8]) {
    let found = steady(data, http_protocol);
    match found {
        Some("h2c") => assert!(data.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        Some("http/1.1") => {
            let line = data.split(|b| *b == b'\n').next().unwrap_or_default();
            assert!(line.trim_ascii_end().ends_with(b" HTTP/1.1"));
        }
        // Another version, or none, is served as 1.0.
        Some("http/1.0") => assert!(data.first().is_some_and(|b| *b != b' ')),
        Some(other) => assert_eq!(other, ""),
        None => assert!(data.len() < 64 * 1024, "waits for ever"),
    }
}

fn proxy_seeds() -> Vec<Vec<u8>> {
    let mark = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let v2 = |rest: &[u8]| [&mark[..], rest].concat();
    let mut list = seeds(&[
        "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\nGET / HTTP/1.1\r\n",
        "PROXY TCP6 ::1 2001:db8::2 1 65535\r\n",
        "PROXY UNKNOWN ffff::1 ::2 3 4\r\n",
        "GET / HTTP/1.1\r\n",
    ]);
    list.push(v2(&[
        0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 3, 232, 0, 80, 71,
    ]));
    list.push(v2(&[&[0x21, 0x21, 0, 36][..], &[7; 36]].concat()));
    list.push(v2(&[0x20, 0, 0, 3, 1, 2, 3]));
    list.push(v2(&[0x21, 0x31, 0, 1, 9]));
    list
}

fn proxy(data: &[u8]) {
    let found = steady(data, |bytes| match proxy_header(bytes) {
        ProxyHeader::More => None,
        found => Some(found),
    });
    match found {
        None => assert!(data.len() < 16 + 64 * 1024, "waits for ever"),
        Some(ProxyHeader::Header { len, addresses }) => {
            assert!(len <= data.len() && len >= 8);
            if let (Some((from, to)), true) = (addresses, data.starts_with(b"PROXY ")) {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let line = format!(
                    "PROXY {family} {} {} {} {}\r\n",
                    from.ip(),
                    to.ip(),
                    from.port(),
                    to.port()
                );
                let again = proxy_header(line.as_bytes());
                let len = line.len();
                assert_eq!(again, ProxyHeader::Header { len, addresses });
            }
        }
        Some(_) => {}
    }
}

/// One hello of a real client, other in every process: for tests, not a seed.
#[must_use]
pub fn real_hello() -> &'static [u8] {
    &HELLO
}
