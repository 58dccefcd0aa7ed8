//! TLS on either side: certificates by SNI, client certificates by SPIFFE name,
//! ALPN, secrets that turn.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use lateen_proxy_core::config::cluster::TransportSocket;
use lateen_proxy_core::config::listener::{ListenerFilter, ListenerFilterKind};
use lateen_proxy_core::config::route::*;
use lateen_proxy_core::config::tls::*;
use lateen_proxy_core::config::*;
use lateen_proxy_core::matcher::StringMatcher;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType as San};
use support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Material {
        material(&self.0.pem())
    }

    fn issue(&self, dns: &[&str], uri: Option<&str>) -> TlsCertificate {
        let names: Vec<String> = dns.iter().map(|s| (*s).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if let Some(uri) = uri {
            params
                .subject_alt_names
                .push(San::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        TlsCertificate {
            certificate_chain: material(&certificate.pem()),
            private_key: Private(material(&key.serialize_pem())),
            password: None,
        }
    }
}

fn material(text: &str) -> Material {
    Material {
        bytes: text.as_bytes().into(),
        path: None,
    }
}

fn trusting(ca: &Authority, sans: Vec<SanMatcher>) -> ValidationContext {
    ValidationContext {
        trusted_ca: Some(ca.pem()),
        match_sans: sans,
        ..ValidationContext::default()
    }
}

fn uri(text: &str) -> SanMatcher {
    SanMatcher {
        kind: SanType::Uri,
        matcher: StringMatcher::exact(text),
    }
}

/// A listener with TLS in front of one upstream.
fn secured(address: SocketAddr, tls: DownstreamTls) -> Listener {
    let manager = manager(vec![route(
        "/",
        RouteAction::Forward(Arc::new(forward("c"))),
    )]);
    let filter = NetworkFilter::HttpConnectionManager(Arc::new(manager));
    let mut chain = (*chain(vec![filter])).clone();
    chain.tls = Some(Arc::new(tls));
    let mut listener = listener("l", address, vec![Arc::new(chain)]);
    // As gateways have it: what the inspector read, TLS reads again.
    listener.listener_filters = vec![ListenerFilter {
        kind: ListenerFilterKind::TlsInspector {
            initial_read_buffer_size: None,
            ja3: false,
            ja4: false,
        },
        disabled: None,
    }];
    listener
}

/// A client by OpenSSL-free means: rustls over a blocking socket.
fn ask_tls(
    address: SocketAddr,
    ca: &Authority,
    name: &str,
    own: Option<&TlsCertificate>,
) -> Result<String, String> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(
                CertificateDer::pem_slice_iter(&own.certificate_chain.bytes)
                    .map(Result::unwrap)
                    .collect(),
                PrivateKeyDer::from_pem_slice(&own.private_key.0.bytes).unwrap(),
            )
            .unwrap(),
    };
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut session = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream
        .write_all(request.as_bytes())
        .map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(bytes).unwrap())
}

fn certificates(list: Vec<TlsCertificate>) -> Vec<CertificateSource> {
    list.into_iter()
        .map(|c| CertificateSource::Inline(Arc::new(c)))
        .collect()
}

#[test]
fn certificates_are_chosen_by_name() {
    let ca = Authority::new();
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let tls = DownstreamTls {
        common: CommonTls {
            certificates: certificates(vec![
                ca.issue(&["a.example"], None),
                ca.issue(&["*.b.example"], None),
            ]),
            ..CommonTls::default()
        },
        ..DownstreamTls::default()
    };
    let _running = run(&snapshot(
        vec![secured(address, tls)],
        vec![cluster("c", &[upstream.address])],
    ));
    for name in ["a.example", "x.b.example"] {
        let answer = ask_tls(address, &ca, name, None).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    assert!(
        ask_tls(address, &ca, "c.example", None).is_err(),
        "the first certificate has another name"
    );
    assert_eq!(
        header(&upstream.requests()[0], "x-forwarded-proto"),
        Some("https")
    );
}

#[test]
fn clients_show_their_spiffe_name() {
    let ca = Authority::new();
    let stranger = Authority::new();
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let good = "spiffe://cluster.local/ns/default/sa/good";
    let tls = DownstreamTls {
        common: CommonTls {
            certificates: certificates(vec![ca.issue(&["a.example"], None)]),
            validation: ValidationSource::Inline(Arc::new(trusting(&ca, vec![uri(good)]))),
            ..CommonTls::default()
        },
        require_client_certificate: true,
        ..DownstreamTls::default()
    };
    let _running = run(&snapshot(
        vec![secured(address, tls)],
        vec![cluster("c", &[upstream.address])],
    ));
    let as_client = |own: Option<&TlsCertificate>| ask_tls(address, &ca, "a.example", own);
    assert!(
        as_client(Some(&ca.issue(&[], Some(good))))
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    assert!(as_client(None).is_err(), "a certificate is required");
    let other = ca.issue(&[], Some("spiffe://cluster.local/ns/default/sa/bad"));
    assert!(as_client(Some(&other)).is_err(), "another name");
    let forged = stranger.issue(&[], Some(good));
    assert!(as_client(Some(&forged)).is_err(), "another authority");
}

/// A TLS upstream: another proxy of ours in front of a plain one.
#[test]
fn upstream_tls_with_client_certificates_and_a_secret_that_turns() {
    let ca = Authority::new();
    let upstream = Upstream::new(&[OK]);
    let (inner, outer) = (free_address(), free_address());
    let server_name = "spiffe://td/server";
    let server = DownstreamTls {
        common: CommonTls {
            certificates: certificates(vec![ca.issue(&["up.example"], Some(server_name))]),
            validation: ValidationSource::Inline(Arc::new(trusting(
                &ca,
                vec![uri("spiffe://td/client")],
            ))),
            ..CommonTls::default()
        },
        require_client_certificate: true,
        ..DownstreamTls::default()
    };
    let _inner = run(&snapshot(
        vec![secured(inner, server)],
        vec![cluster("c", &[upstream.address])],
    ));

    let client = |expected: &str| UpstreamTls {
        common: CommonTls {
            certificates: vec![CertificateSource::Sds("own".into())],
            validation: ValidationSource::Inline(Arc::new(trusting(&ca, vec![uri(expected)]))),
            ..CommonTls::default()
        },
        sni: "up.example".into(),
        ..UpstreamTls::default()
    };
    let with = |expected: &str, own: TlsCertificate| {
        let mut to = cluster("c", &[inner]);
        to.transport_socket = TransportSocket::Tls(Arc::new(client(expected)));
        let manager = manager(vec![route(
            "/",
            RouteAction::Forward(Arc::new(forward("c"))),
        )]);
        let filter = NetworkFilter::HttpConnectionManager(Arc::new(manager));
        let base = snapshot(
            vec![listener("l", outer, vec![chain(vec![filter])])],
            vec![to],
        );
        let secret = Arc::new(Secret::Certificate(Arc::new(own)));
        Arc::new(Snapshot {
            secrets: Arc::new([("own".into(), secret)].into_iter().collect()),
            ..(*base).clone()
        })
    };
    let good = ca.issue(&[], Some("spiffe://td/client"));
    let bad = ca.issue(&[], Some("spiffe://td/other"));
    let mut running = run(&with(server_name, bad));
    let answer = ask(outer, &get("/"));
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    running
        .runtime
        .block_on(running.engine.apply(&with(server_name, good.clone())));
    let answer = ask(outer, &get("/"));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    running
        .runtime
        .block_on(running.engine.apply(&with("spiffe://td/imposter", good)));
    let answer = ask(outer, &get("/"));
    assert!(
        answer.ends_with("reset reason: remote connection failure"),
        "{answer}"
    );
}
