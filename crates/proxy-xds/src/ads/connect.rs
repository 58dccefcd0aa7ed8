//! Connections to the management server: TCP, TLS and unix sockets by the xDS cluster's settings.
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lateen_proxy_core::config::cluster::TransportSocket;
use lateen_proxy_core::config::tls::{
    CertificateSource, Secret, UpstreamTls, ValidationContext, ValidationSource,
};
use lateen_proxy_core::config::{Address, Cluster, Snapshot};
use lateen_proxy_core::matcher::StringRule;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A byte stream to the management server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Something that connects to the management server.
pub trait Connect: Send + Sync {
    /// Opens a connection; HTTP/2 by prior knowledge, or by ALPN under TLS.
    fn connect(&self) -> Connecting<'_>;

    /// The `:authority` of the stream.
    fn authority(&self) -> String;

    /// `https` or `http`.
    fn scheme(&self) -> &'static str;
}

/// Connects to the endpoints of a cluster, the next one at every attempt.
pub struct ClusterConnector {
    cluster: Arc<Cluster>,
    addresses: Vec<Address>,
    tls: Option<Arc<UpstreamTls>>,
    snapshot: Arc<Snapshot>,
    next: AtomicUsize,
}

impl ClusterConnector {
    /// A connector for a cluster of the bootstrap.
    ///
    /// # Errors
    /// When the cluster is not there or has no endpoint.
    pub fn new(name: &str, snapshot: Arc<Snapshot>) -> Result<Self, String> {
        let cluster = snapshot
            .clusters
            .get(name)
            .cloned()
            .ok_or_else(|| format!("xDS cluster {name} is not there"))?;
        let addresses: Vec<Address> = snapshot
            .assignment(&cluster)
            .map(|a| a.endpoints().map(|(_, e)| e.address.clone()).collect())
            .unwrap_or_default();
        if addresses.is_empty() {
            return Err(format!("xDS cluster {name} has no endpoint"));
        }
        if cluster.proxy_protocol.is_some() {
            let problem = "the PROXY protocol towards a management server is not implemented";
            return Err(format!("xDS cluster {name}: {problem}"));
        }
        let tls = match &cluster.transport_socket {
            TransportSocket::RawBuffer => None,
            TransportSocket::Tls(tls) => Some(tls.clone()),
        };
        Ok(Self {
            cluster,
            addresses,
            tls,
            snapshot,
            next: AtomicUsize::new(0),
        })
    }

    fn host(&self) -> String {
        match &self.addresses[0] {
            Address::Host { host, .. } => host.to_string(),
            Address::Socket(addr) => addr.ip().to_string(),
            Address::Pipe(_) | Address::Internal(_) => "localhost".to_owned(),
        }
    }

    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.addresses.len();
        let address = &self.addresses[at];
        let timeout = self.cluster.connect_timeout;
        let late = |_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{address}: connect timeout"),
            )
        };
        let tcp = match address {
            Address::Socket(addr) => tokio::time::timeout(timeout, TcpStream::connect(addr))
                .await
                .map_err(late)??,
            Address::Host { host, port } => {
                tokio::time::timeout(timeout, TcpStream::connect((&**host, *port)))
                    .await
                    .map_err(late)??
            }
            Address::Pipe(path) => return Ok(Box::new(UnixStream::connect(&**path).await?)),
            Address::Internal(name) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("internal listener {name}"),
                ));
            }
        };
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let config = client_config(tls, &self.snapshot).map_err(io::Error::other)?;
        let name = server_name(tls, &self.host()).map_err(io::Error::other)?;
        let handshake = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp);
        Ok(Box::new(
            tokio::time::timeout(timeout, handshake)
                .await
                .map_err(late)??,
        ))
    }
}

impl Connect for ClusterConnector {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(self.dial())
    }

    fn authority(&self) -> String {
        match &self.tls {
            Some(tls) if !tls.sni.is_empty() => tls.sni.to_string(),
            _ => match &self.addresses[0] {
                Address::Pipe(_) | Address::Internal(_) => self.cluster.name.to_string(),
                address => address.to_string(),
            },
        }
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// The name that the certificate must bear: an exact SAN rule, else the SNI, else the host.
fn server_name(tls: &UpstreamTls, host: &str) -> Result<ServerName<'static>, String> {
    let exact = validation(tls).and_then(|v| {
        v.match_sans.iter().find_map(|s| match &s.matcher.rule {
            StringRule::Exact(name) if !name.contains("://") => Some(name.to_string()),
            _ => None,
        })
    });
    let sni = (!tls.sni.is_empty()).then(|| tls.sni.to_string());
    let name = exact.or(sni).unwrap_or_else(|| host.to_owned());
    ServerName::try_from(name.clone()).map_err(|e| format!("server name `{name}`: {e}"))
}

fn validation(tls: &UpstreamTls) -> Option<&ValidationContext> {
    match &tls.common.validation {
        ValidationSource::Inline(v) | ValidationSource::Combined { default: v, .. } => Some(v),
        ValidationSource::None | ValidationSource::Sds(_) => None,
    }
}

/// The TLS settings of the xDS connection. File-based roots and keys are read again at every
/// connection, so that a renewed root is taken up.
fn client_config(tls: &UpstreamTls, snapshot: &Snapshot) -> Result<rustls::ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let from_secret = match &tls.common.validation {
        ValidationSource::Sds(name) | ValidationSource::Combined { sds: name, .. } => {
            snapshot.secrets.get(name)
        }
        _ => None,
    };
    let trusted = match from_secret.map(|s| &**s) {
        Some(Secret::Validation(v)) => v.trusted_ca.clone(),
        _ => validation(tls).and_then(|v| v.trusted_ca.clone()),
    };
    let trusted =
        trusted.ok_or("the xDS cluster's TLS context needs validation_context.trusted_ca")?;
    let pem = match &trusted.path {
        Some(path) => crate::files::read(&**path).map_err(|e| format!("{path}: {e}"))?,
        None => trusted.bytes.to_vec(),
    };
    for cert in CertificateDer::pem_slice_iter(&pem) {
        let cert = cert.map_err(|e| format!("trusted_ca: {e}"))?;
        roots.add(cert).map_err(|e| format!("trusted_ca: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let mut config = match client_certificate(tls, snapshot)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| e.to_string())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(tls: &UpstreamTls, snapshot: &Snapshot) -> Result<Option<Identity>, String> {
    let certificate = match tls.common.certificates.first() {
        None => return Ok(None),
        Some(CertificateSource::Inline(c)) => c.clone(),
        Some(CertificateSource::Sds(name)) => match snapshot.secrets.get(name).map(|s| &**s) {
            Some(Secret::Certificate(c)) => c.clone(),
            _ => return Err(format!("secret {name} is not there")),
        },
    };
    let read = |m: &lateen_proxy_core::config::tls::Material| match &m.path {
        Some(path) => crate::files::read(&**path).map_err(|e| format!("{path}: {e}")),
        None => Ok(m.bytes.to_vec()),
    };
    let chain = CertificateDer::pem_slice_iter(&read(&certificate.certificate_chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("certificate_chain: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&certificate.private_key.0)?)
        .map_err(|e| format!("private_key: {e}"))?;
    Ok(Some((chain, key)))
}
