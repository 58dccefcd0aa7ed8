//! The client of a case: PROXY header, hello or handshake, bytes; and what it
//! got, in lines.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_xds::certified_key::certified_key;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use socket2::{Domain, Socket, Type};

use super::case::{Case, Mode};
use super::pki::{Issued, Pki};

const LONGEST: Duration = Duration::from_secs(8);

/// Plays the case against the address; record lines.
pub fn play(case: &Case, pki: &Pki, from: SocketAddr, to: SocketAddr) -> Vec<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&from.into()).unwrap();
    if let Err(error) = socket.connect(&to.into()) {
        return vec![format!("connect: {error}")];
    }
    let mut stream = TcpStream::from(socket);
    let wait = case.quiet.map_or(LONGEST, Duration::from_millis);
    stream.set_read_timeout(Some(wait)).unwrap();
    let mut lines = Vec::new();
    // A proxy that refuses early may have reset the connection already.
    let _ = stream.write_all(&bytes_of(&case.before));
    match case.tls {
        Mode::Plain => {
            let _ = stream.write_all(&bytes_of(&case.send));
            read_all(&mut stream, &mut lines);
        }
        Mode::Hello => {
            let mut session = session(case, pki);
            let mut hello = Vec::new();
            session.write_tls(&mut hello).unwrap();
            let _ = stream.write_all(&hello);
            read_all(&mut stream, &mut lines);
        }
        Mode::Full => full(case, pki, stream, &mut lines),
    }
    lines
}

fn full(case: &Case, pki: &Pki, mut stream: TcpStream, lines: &mut Vec<String>) {
    let mut session = session(case, pki);
    while session.is_handshaking() {
        if let Err(error) = session.complete_io(&mut stream) {
            lines.push(format!("handshake: {}", failure(&error)));
            return;
        }
    }
    let alpn = session.alpn_protocol().unwrap_or_default();
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    lines.push(format!(
        "{:?} {suite:?} alpn={} certificate={}",
        session.protocol_version().unwrap(),
        String::from_utf8_lossy(alpn),
        leaf.map_or_else(|| "none".to_owned(), |der| pki.name_of(der)),
    ));
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    if !case.send.is_empty()
        && let Err(error) = tls.write_all(&bytes_of(&case.send))
    {
        lines.push(format!("write: {}", failure(&error)));
    }
    read_all(&mut tls, lines);
}

/// Everything until the end, and how it ended.
fn read_all(stream: &mut impl Read, lines: &mut Vec<String>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    let end = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break "closed".to_owned(),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break failure(&error),
        }
    };
    let text = bytes.escape_ascii().to_string();
    let parts = text.split("\\r\\n").filter(|l| !l.is_empty());
    let parts = parts.filter(|l| !is_chance(l));
    lines.extend(parts.map(|l| format!("got {l}")));
    lines.push(format!("end: {end}"));
}

/// Lines that time or the server's name put into an answer.
fn is_chance(line: &str) -> bool {
    const NAMES: [&str; 3] = ["date:", "server:", "x-envoy-upstream-service-time:"];
    NAMES.iter().any(|name| line.starts_with(name))
}

fn failure(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match (inner, error.kind()) {
        (Some(Error::AlertReceived(alert)), _) => format!("alert {alert:?}"),
        (Some(other), _) => format!("{other}"),
        (None, ErrorKind::UnexpectedEof) => "closed".to_owned(),
        (None, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => "reset".to_owned(),
        (None, ErrorKind::WouldBlock | ErrorKind::TimedOut) => "nothing".to_owned(),
        (None, kind) => format!("{kind:?}"),
    }
}

/// Characters up to U+00FF are single bytes; `{{hex}}` is bytes too.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.extend(before.chars().map(|c| u8::try_from(c).unwrap()));
        let (hex, after) = after.split_once("}}").unwrap();
        let (hex, times) = hex.split_once('*').unwrap_or((hex, "1"));
        let digits: String = hex.split_whitespace().collect();
        let bytes = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect::<Vec<u8>>();
        out.extend(bytes.repeat(times.parse().unwrap()));
        rest = after;
    }
    out.extend(rest.chars().map(|c| u8::try_from(c).unwrap()));
    out
}

/// The protocol versions of a name; both without.
pub fn versions(name: Option<&String>) -> Vec<&'static rustls::SupportedProtocolVersion> {
    match name.map(String::as_str) {
        None => vec![&rustls::version::TLS13, &rustls::version::TLS12],
        Some("1.2") => vec![&rustls::version::TLS12],
        Some("1.3") => vec![&rustls::version::TLS13],
        Some(other) => panic!("version {other}"),
    }
}

fn session(case: &Case, pki: &Pki) -> ClientConnection {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if !case.ciphers.is_empty() {
        let named = |name: &String| {
            let all = provider.cipher_suites.iter();
            let mut found = all.filter(|s| format!("{:?}", s.suite()) == *name);
            *found.next().unwrap_or_else(|| panic!("cipher {name}"))
        };
        provider.cipher_suites = case.ciphers.iter().map(named).collect();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions(case.version.as_ref()))
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match &case.certificate {
        None => builder.with_no_client_auth(),
        Some(name) => builder.with_client_cert_resolver(identity(&pki.issued[name])),
    };
    config.alpn_protocols = case.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    let name = match case.sni.as_str() {
        "" => ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        name => ServerName::try_from(name.to_owned()).unwrap(),
    };
    ClientConnection::new(config.into(), name).unwrap()
}

/// Chain and key for rustls.
pub fn identity(issued: &Issued) -> Arc<SingleCertAndKey> {
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes());
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Arc::new(certified_key(chain, key, &provider).unwrap().into())
}

/// Trusts every server: which one it is stands in the record.
#[derive(Debug)]
pub struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
