//! Secrets that turn: no request is lost while they do, sessions live on, and
//! none outlives the rules it was made under.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lateen_proxy::engine::EngineOptions;
use lateen_proxy_core::config::tls::*;
use lateen_proxy_core::config::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::HandshakeKind;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn material(text: &str) -> Material {
    Material {
        bytes: text.as_bytes().into(),
        path: None,
    }
}

fn issue(ca: &Authority, name: &str) -> TlsCertificate {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, ca).unwrap();
    TlsCertificate {
        certificate_chain: material(&made.pem()),
        private_key: Private(material(&key.serialize_pem())),
        password: None,
    }
}

/// A TLS listener that greets, with its certificate and its rules from secrets.
fn snapshot_with(
    address: SocketAddr,
    listener: &mut Option<Listener>,
    own: &TlsCertificate,
    roots: &str,
) -> Arc<Snapshot> {
    let made = listener.get_or_insert_with(|| {
        let greeting = NetworkFilter::DirectResponse(b"hello".as_slice().into());
        let mut chain = (*chain(vec![greeting])).clone();
        chain.tls = Some(Arc::new(DownstreamTls {
            common: CommonTls {
                certificates: vec![CertificateSource::Sds("own".into())],
                validation: ValidationSource::Sds("roots".into()),
                ..CommonTls::default()
            },
            require_client_certificate: true,
            ..DownstreamTls::default()
        }));
        support::listener("l", address, vec![Arc::new(chain)])
    });
    let rules = ValidationContext {
        trusted_ca: Some(material(roots)),
        ..ValidationContext::default()
    };
    let secrets = [
        (
            "own".into(),
            Arc::new(Secret::Certificate(Arc::new(own.clone()))),
        ),
        (
            "roots".into(),
            Arc::new(Secret::Validation(Arc::new(rules))),
        ),
    ];
    Arc::new(Snapshot {
        secrets: Arc::new(secrets.into_iter().collect()),
        ..(*snapshot(vec![made.clone()], vec![])).clone()
    })
}

/// A client that keeps its sessions.
fn client(ca: &Authority, own: &TlsCertificate, tls13: bool) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let version = match tls13 {
        true => &rustls::version::TLS13,
        false => &rustls::version::TLS12,
    };
    let chain = CertificateDer::pem_slice_iter(&own.certificate_chain.bytes);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_slice(&own.private_key.0.bytes).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

/// Connects and hears the greeting; how the handshake went and the server's leaf.
fn greet(
    address: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
) -> Result<(HandshakeKind, Vec<u8>), String> {
    let name = rustls_pki_types::ServerName::try_from("a.example").unwrap();
    let mut session = rustls::ClientConnection::new(config.clone(), name).unwrap();
    let mut socket = TcpStream::connect(address).map_err(|e| format!("connect: {e}"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let mut bytes = Vec::new();
    stream.flush().map_err(|e| e.to_string())?;
    let mut chunk = [0; 64];
    while bytes.len() < 5 {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) => return Err(error.to_string()),
        }
    }
    if bytes != b"hello" {
        return Err(format!("heard {bytes:?}"));
    }
    let leaf = session.peer_certificates().unwrap()[0].to_vec();
    Ok((session.handshake_kind().unwrap(), leaf))
}

#[test]
fn certificates_and_roots_turn_under_load_and_nothing_is_lost() {
    let (old, new) = (authority("one"), authority("two"));
    let address = free_address();
    let mut listener = None;
    let both = old.pem() + &new.pem();
    let first = snapshot_with(address, &mut listener, &issue(&old, "a.example"), &both);
    let mut running = run_with(
        EngineOptions {
            concurrency: 2,
            ..EngineOptions::default()
        },
        &first,
    );
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = [issue(&old, "c.example"), issue(&new, "c.example")]
        .into_iter()
        .map(|own| {
            let mut config = (*client(&old, &own, true)).clone();
            config.resumption = rustls::client::Resumption::disabled();
            let (config, stop, done) = (Arc::new(config), stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match greet(address, &config) {
                        Ok(_) => drop(done.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => failed.push(error),
                    }
                }
                failed
            })
        })
        .collect();
    for turn in 1..=20 {
        let next = snapshot_with(address, &mut listener, &issue(&old, "a.example"), &both);
        running.runtime.block_on(running.engine.apply(&next));
        // Every turn serves requests of its own before the next one.
        let until = Instant::now() + Duration::from_secs(20);
        while done.load(Ordering::SeqCst) < turn * 4 {
            assert!(Instant::now() < until, "no request went through");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert_eq!(client.join().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn cve_2022_21654_sessions_outlive_certificates_but_no_rules() {
    let (ca, other) = (authority("one"), authority("two"));
    for tls13 in [true, false] {
        let address = free_address();
        let mut listener = None;
        let own = issue(&ca, "a.example");
        let mut running = run(&snapshot_with(address, &mut listener, &own, &ca.pem()));
        let config = client(&ca, &issue(&ca, "c.example"), tls13);
        let (kind, _) = greet(address, &config).unwrap();
        assert_eq!(kind, HandshakeKind::Full);
        let (kind, _) = greet(address, &config).unwrap();
        assert_eq!(kind, HandshakeKind::Resumed, "tls13 {tls13}");

        let turned = issue(&ca, "a.example");
        let next = snapshot_with(address, &mut listener, &turned, &ca.pem());
        running.runtime.block_on(running.engine.apply(&next));
        let (kind, _) = greet(address, &config).unwrap();
        assert_eq!(kind, HandshakeKind::Resumed, "after the certificate turned");

        // The client's authority is trusted no more.
        let next = snapshot_with(address, &mut listener, &turned, &other.pem());
        running.runtime.block_on(running.engine.apply(&next));
        let refused = greet(address, &config).unwrap_err();
        assert!(refused.contains("UnknownCA"), "{refused}");
    }
}
