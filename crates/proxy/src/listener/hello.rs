//! A TLS ClientHello as far as a listener needs it: SNI and ALPN (RFC 8446
//! section 4.1.2, RFC 6066 section 3, RFC 7301). Knows no IO.

/// Largest ClientHello that is looked at.
pub const LARGEST: usize = 16 * 1024;

/// What an inspection found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// More bytes are needed.
    More,
    /// Not TLS.
    Plain,
    /// A ClientHello.
    Hello {
        /// Server name, lower-case; empty = none.
        server_name: String,
        /// Protocols offered.
        alpn: Vec<String>,
    },
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let digits = self.take(bytes)?;
        Some(digits.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    fn vector(&mut self, length_bytes: usize) -> Option<Cursor<'a>> {
        let len = self.number(length_bytes)?;
        self.take(len).map(Cursor)
    }
}

/// Looks at the first bytes of a connection.
pub fn inspect(input: &[u8]) -> Found {
    match input {
        [] => return Found::More,
        [0x16, 0x03, ..] | [0x16] => {}
        _ => return Found::Plain,
    }
    let mut message = Vec::new();
    let mut records = Cursor(input);
    while let Some(header) = records.take(5) {
        if header[0] != 0x16 || header[1] != 0x03 {
            return Found::Plain;
        }
        let len = usize::from(header[3]) << 8 | usize::from(header[4]);
        if len == 0 || len > LARGEST {
            return Found::Plain;
        }
        let have = records.0.len().min(len);
        let Some(part) = records.take(have) else {
            break;
        };
        message.extend_from_slice(part);
        if message.first().is_some_and(|kind| *kind != 1) {
            return Found::Plain;
        }
        if let [_, a, b, c, ..] = message[..] {
            let want = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if want > LARGEST {
                return Found::Plain;
            }
            if message.len() >= want {
                return hello(&message[4..want]).unwrap_or(Found::Plain);
            }
        }
        if have < len {
            break;
        }
    }
    if message.len() >= LARGEST {
        Found::Plain
    } else {
        Found::More
    }
}

fn hello(body: &[u8]) -> Option<Found> {
    let mut body = Cursor(body);
    body.take(2 + 32)?;
    body.vector(1)?;
    body.vector(2)?;
    body.vector(1)?;
    let (mut server_name, mut alpn) = (String::new(), Vec::new());
    if !body.0.is_empty() {
        let mut extensions = body.vector(2)?;
        while !extensions.0.is_empty() {
            let kind = extensions.number(2)?;
            let mut content = extensions.vector(2)?;
            match kind {
                0 => server_name = name(&mut content)?,
                16 => alpn = protocols(&mut content)?,
                _ => {}
            }
        }
    }
    Some(Found::Hello { server_name, alpn })
}

fn name(content: &mut Cursor<'_>) -> Option<String> {
    let mut list = content.vector(2)?;
    while !list.0.is_empty() {
        let kind = list.number(1)?;
        let host = list.vector(2)?;
        if kind == 0 {
            return std::str::from_utf8(host.0)
                .ok()
                .map(str::to_ascii_lowercase);
        }
    }
    Some(String::new())
}

fn protocols(content: &mut Cursor<'_>) -> Option<Vec<String>> {
    let mut list = content.vector(2)?;
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.vector(1)?;
        found.push(String::from_utf8_lossy(protocol.0).into_owned());
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_real_hello_in_any_cut() {
        let bytes = client_hello("Reviews.Example.com", &["h2", "http/1.1"]);
        for end in 0..bytes.len() {
            assert_eq!(inspect(&bytes[..end]), Found::More, "{end}");
        }
        let want = Found::Hello {
            server_name: "reviews.example.com".to_owned(),
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        };
        assert_eq!(inspect(&bytes), want);
    }

    #[test]
    fn a_hello_in_many_records() {
        let bytes = client_hello("a.b", &[]);
        let mut cut = Vec::new();
        for part in bytes[5..].chunks(7) {
            cut.extend_from_slice(&[0x16, 3, 1, 0, part.len() as u8]);
            cut.extend_from_slice(part);
        }
        assert!(matches!(inspect(&cut), Found::Hello { server_name, .. } if server_name == "a.b"));
    }

    #[test]
    fn plain_text_is_plain() {
        assert_eq!(inspect(b"GET / HTTP/1.1\r\n"), Found::Plain);
        assert_eq!(inspect(&[0x16, 9]), Found::Plain);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = bytes;
            inspect(&bytes);
            bytes.splice(0..0, [0x16, 3, 1]);
            inspect(&bytes);
        }
    }
}
