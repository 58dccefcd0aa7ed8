//! The servers behind the proxy: each answers a request with what it sees of
//! its client, its TLS session and the request's head.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::case::Server;
use super::client::{identity, versions};
use super::pki::Pki;
use crate::differential::message::head_end;

/// Starts one and forgets it; it ends with the process.
pub fn start(address: SocketAddr, server: Option<&Server>, pki: &Arc<Pki>) {
    let socket = TcpListener::bind(address).unwrap();
    let config = server.map(|s| Arc::new(config(s, pki)));
    let pki = pki.clone();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let (config, pki) = (config.clone(), pki.clone());
            std::thread::spawn(move || serve(stream, config, &pki));
        }
    });
}

/// A server that says one word to everyone and ends the connection.
pub fn greet(address: SocketAddr) {
    let socket = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            // Who is gone already needs no greeting.
            let _ = stream.write_all(b"hello");
        }
    });
}

fn config(server: &Server, pki: &Pki) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(server.version.as_ref()))
        .unwrap();
    let builder = match server.asks || server.requires {
        true => builder.with_client_cert_verifier(Arc::new(Asks {
            required: server.requires,
        })),
        false => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(identity(&pki.issued[&server.certificate]));
    config.alpn_protocols = server.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    config
}

fn serve(mut stream: TcpStream, config: Option<Arc<ServerConfig>>, pki: &Pki) {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let Some(config) = config else {
        return answer(&mut stream, "plain");
    };
    let mut session = ServerConnection::new(config).unwrap();
    while session.is_handshaking() {
        if session.complete_io(&mut stream).is_err() {
            return;
        }
    }
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let says = format!(
        "{:?} sni={} alpn={} client={}",
        session.protocol_version().unwrap(),
        session.server_name().unwrap_or_default(),
        String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()),
        leaf.map_or_else(|| "none".to_owned(), |der| pki.name_of(der)),
    );
    answer(&mut rustls::Stream::new(&mut session, &mut stream), &says);
}

fn answer(stream: &mut (impl Read + Write), says: &str) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        while let Some(end) = head_end(&bytes) {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end);
            let body = format!("{says}\r\n{}", head.trim_end());
            let length = body.len();
            let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            if stream.write_all(whole.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
}

/// Asks for a certificate and takes any.
#[derive(Debug)]
struct Asks {
    required: bool,
}

impl ClientCertVerifier for Asks {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
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
