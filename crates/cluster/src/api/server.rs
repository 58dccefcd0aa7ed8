//! The TLS server: options, start, the handle that stops it, and the kubeconfig it hands out.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use lateen_identity::{CertificateAuthority, IdentityError, Subject};
use rustls::RootCertStore;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::auth::{self, TokenSigner};
use super::bootstrap;
use super::client_cert::ClientCertificates;
use super::core::{Core, Settings};
use super::handle::{Api, UserInfo};
use super::http::{self, Peer, Shared};
use crate::node::runtime::NodeRuntime;
use crate::store::{Store, StoreError};

/// Changes kept per resource for watchers that come back.
const WATCH_HISTORY: usize = 1024;
/// Life of the serving certificate: made anew at each start.
const SERVING_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Life of the certificates in kubeconfigs.
const CLIENT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a peer may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long open requests may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Inputs of the server; nothing is read from flags or the environment.
#[derive(Clone, Debug)]
pub struct ApiServerOptions {
    /// Address to listen on; port 0 picks a free one.
    pub bind: SocketAddr,
    /// Further addresses to listen on (the node bridge, for pods).
    pub extra_binds: Vec<SocketAddr>,
    /// Folder of the store; made when missing.
    pub data_dir: PathBuf,
    /// Certificates and keys of the cluster.
    pub pki: ClusterPki,
    /// Further names and addresses for the serving certificate.
    pub extra_sans: Vec<String>,
    /// Where Service `default/kubernetes` leads; `None`: the bound address.
    pub advertise: Option<SocketAddr>,
    /// Range of cluster IPs; its first address is `default/kubernetes`.
    pub service_cidr: ipnet::Ipv4Net,
    /// Address of Service `kube-system/kube-dns`, kept free by the allocator.
    pub dns_ip: Option<IpAddr>,
    /// Ports for NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Cluster domain, usually `cluster.local`.
    pub cluster_domain: String,
    /// `gitVersion` of `/version`: a semantic version with a leading `v`.
    pub version: String,
    /// Bearer tokens known by configuration.
    pub tokens: Vec<StaticToken>,
}

impl ApiServerOptions {
    /// The usual settings: a free port on the loopback address, services in 10.96.0.0/16, node
    /// ports 30000 to 32767, domain `cluster.local`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, pki: ClusterPki) -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            extra_binds: Vec::new(),
            data_dir: data_dir.into(),
            pki,
            extra_sans: Vec::new(),
            advertise: None,
            service_cidr: ipnet::Ipv4Net::new_assert([10, 96, 0, 0].into(), 16),
            dns_ip: None,
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".to_owned(),
            version: "v1.33.1+lateen".to_owned(),
            tokens: Vec::new(),
        }
    }
}

/// A bearer token with its user.
#[derive(Clone, Debug)]
pub struct StaticToken {
    /// The secret.
    pub token: String,
    /// User name.
    pub user: String,
    /// Groups; `system:authenticated` is added.
    pub groups: Vec<String>,
}

/// Certificates and keys of a cluster, as PEM.
#[derive(Clone)]
pub struct ClusterPki {
    /// Certificate of the cluster's authority.
    pub ca_cert_pem: String,
    /// Private key of the cluster's authority (PKCS#8).
    pub ca_key_pem: String,
    /// Private key (P-256, PKCS#8) that signs service account tokens.
    pub service_account_key_pem: String,
}

impl std::fmt::Debug for ClusterPki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterPki").finish_non_exhaustive()
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificates or keys.
    #[error("cluster certificates: {0}")]
    Identity(#[from] IdentityError),
    /// TLS settings.
    #[error("TLS: {0}")]
    Tls(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        why: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("{path}: {why}{}", crate::store::remedy(.why))]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// The objects every cluster has cannot be made.
    #[error("cannot make the cluster's first objects: {0}")]
    Bootstrap(#[from] super::error::ApiError),
}

impl ClusterPki {
    /// A new authority and token key.
    ///
    /// # Errors
    /// Key generation failed.
    pub fn generate(now: SystemTime) -> Result<Self, IdentityError> {
        let ca = CertificateAuthority::self_signed("lateen", "kubernetes-ca", now)?;
        Ok(Self {
            ca_cert_pem: ca.cert_pem().to_owned(),
            ca_key_pem: ca.key_pem().to_owned(),
            service_account_key_pem: lateen_identity::generate_key_pem()?,
        })
    }

    /// Those in `dir` (`ca.crt`, `ca.key`, `sa.key`), made and written when missing; keys are
    /// readable by their owner only.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn load_or_create(dir: &Path, now: SystemTime) -> Result<Self, ServerError> {
        let file = |name: &str| dir.join(name);
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |why| ServerError::File { path, why }
        };
        if file("sa.key").exists() {
            let read = |name: &str| std::fs::read_to_string(file(name)).map_err(fail(&file(name)));
            return Ok(Self {
                ca_cert_pem: read("ca.crt")?,
                ca_key_pem: read("ca.key")?,
                service_account_key_pem: read("sa.key")?,
            });
        }
        let pki = Self::generate(now)?;
        std::fs::create_dir_all(dir).map_err(fail(dir))?;
        // The token key comes last: its presence says that all are there.
        for (name, text) in [
            ("ca.crt", &pki.ca_cert_pem),
            ("ca.key", &pki.ca_key_pem),
            ("sa.key", &pki.service_account_key_pem),
        ] {
            write_private(&file(name), text).map_err(fail(&file(name)))?;
        }
        Ok(pki)
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The server.
pub struct ApiServer;

/// A running server.
pub struct ServerHandle {
    address: SocketAddr,
    shared: Arc<Shared>,
    ca: CertificateAuthority,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl ApiServer {
    /// Opens the store, makes the objects every cluster has, and listens.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(options: ApiServerOptions) -> Result<(ServerHandle, Api), ServerError> {
        let ca = CertificateAuthority::from_pem(&options.pki.ca_cert_pem, &options.pki.ca_key_pem)?;
        let mut listeners = Vec::new();
        for address in std::iter::once(options.bind).chain(options.extra_binds.iter().copied()) {
            let l = TcpListener::bind(address)
                .await
                .map_err(|why| ServerError::Listen { address, why })?;
            listeners.push(l);
        }
        let address = listeners[0]
            .local_addr()
            .map_err(|why| ServerError::Listen {
                address: options.bind,
                why,
            })?;
        let acceptor = acceptor(&ca, &options)?;
        let path = options.data_dir.join("cluster.redb");
        let store = tokio::task::spawn_blocking(move || Store::open(&path, WATCH_HISTORY))
            .await
            .map_err(|e| StoreError::Disk(e.to_string()))??;
        let issuer = format!("https://kubernetes.default.svc.{}", options.cluster_domain);
        let signer = TokenSigner::new(&options.pki.service_account_key_pem, issuer)
            .map_err(ServerError::Tls)?;
        let advertise = options.advertise.unwrap_or(address);
        let settings = Settings {
            service_cidr: options.service_cidr,
            node_ports: options.node_ports.clone(),
            dns_ip: options.dns_ip,
            advertise,
            version: options.version.clone(),
        };
        let core = Arc::new(Core::new(store, settings, signer));
        bootstrap::run(&core).await?;
        let shared = Arc::new(Shared {
            core: Arc::clone(&core),
            tokens: options.tokens.clone(),
            runtime: OnceLock::new(),
            base_url: format!("https://{address}"),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![
            tokio::spawn(super::crd::cleanup::run(Arc::clone(&core))),
            tokio::spawn(super::events::expire(Arc::clone(&core))),
        ];
        for listener in listeners {
            let accept = accept_loop(
                listener,
                acceptor.clone(),
                Arc::clone(&shared),
                stopped.clone(),
            );
            tasks.push(tokio::spawn(accept));
        }
        let handle = ServerHandle {
            address,
            shared,
            ca,
            stop,
            tasks,
        };
        Ok((handle, Api::over(core)))
    }
}

impl ServerHandle {
    /// The address listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://address`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Certificate of the cluster's authority, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.ca.cert_pem()
    }

    /// Gives the streaming subresources the node agent they work on; only the first counts.
    pub fn set_runtime(&self, runtime: Arc<dyn NodeRuntime>) {
        if self.shared.runtime.set(runtime).is_err() {
            tracing::warn!("the node agent of the API server was set twice");
        }
    }

    /// A kubeconfig (YAML) with a fresh client certificate for `user` in `group`, such as
    /// `kubernetes-admin` in `system:masters`.
    ///
    /// # Errors
    /// Signing failed.
    pub fn kubeconfig(
        &self,
        user: &str,
        group: &str,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let subject = Subject::Client {
            user,
            group: Some(group),
        };
        let leaf = self.ca.issue(&subject, CLIENT_LIFE, now)?;
        let b64 = |s: &str| base64::engine::general_purpose::STANDARD.encode(s);
        Ok(format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: lateen\n  cluster:\n    server: {url}\n    certificate-authority-data: {ca}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {cert}\n    client-key-data: {key}\ncontexts:\n- name: lateen\n  context:\n    cluster: lateen\n    user: {user}\ncurrent-context: lateen\n",
            url = self.url(),
            ca = b64(self.ca.cert_pem()),
            cert = b64(&leaf.cert_pem),
            key = b64(&leaf.key_pem),
        ))
    }

    /// Stops listening, lets open requests finish for two seconds, closes the store.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        // Watches and background loops end when the store closes.
        let core = Arc::clone(&self.shared.core);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Err(e) = tokio::task::spawn_blocking(move || core.store.close()).await {
            tracing::error!(error = %e, "closing the store");
        }
        for task in self.tasks {
            if let Ok(Err(e)) = tokio::time::timeout(DRAIN, task).await
                && e.is_panic()
            {
                tracing::error!(error = %e, "a task of the API server ended by panic");
            }
        }
    }
}

/// Takes handshakes and says whose a client's certificate is.
#[derive(Clone)]
struct Acceptor {
    tls: TlsAcceptor,
    certificates: Arc<ClientCertificates>,
}

fn acceptor(
    ca: &CertificateAuthority,
    options: &ApiServerOptions,
) -> Result<Acceptor, ServerError> {
    let domain = &options.cluster_domain;
    let first = options.service_cidr.hosts().next().map(|ip| ip.to_string());
    let mut names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ]
    .iter()
    .map(|s| (*s).to_owned())
    .collect();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push("127.0.0.1".to_owned());
    names.extend(first);
    names.extend(options.advertise.map(|a| a.ip().to_string()));
    let binds = std::iter::once(options.bind).chain(options.extra_binds.iter().copied());
    names.extend(
        binds
            .filter(|a| !a.ip().is_unspecified())
            .map(|a| a.ip().to_string()),
    );
    names.extend(options.extra_sans.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|n| seen.insert(n.clone()));
    let leaf = ca.issue(
        &Subject::Server {
            common_name: "kube-apiserver",
            names: &names,
        },
        SERVING_LIFE,
        SystemTime::now(),
    )?;
    let tls = |e: &dyn std::fmt::Display| ServerError::Tls(e.to_string());
    let mut roots = RootCertStore::empty();
    for cert in lateen_identity::certificates_from_pem(ca.cert_pem())? {
        roots.add(cert).map_err(|e| tls(&e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificates = ClientCertificates::new(roots, Arc::clone(&provider));
    let certificates = Arc::new(certificates.map_err(ServerError::Tls)?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(&e))?
        .with_client_cert_verifier(Arc::clone(&certificates) as _)
        .with_single_cert(
            lateen_identity::certificates_from_pem(&leaf.cert_pem)?,
            lateen_identity::private_key_from_pem(&leaf.key_pem)?,
        )
        .map_err(|e| tls(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Acceptor {
        tls: TlsAcceptor::from(Arc::new(config)),
        certificates,
    })
}

async fn accept_loop(
    listener: TcpListener,
    acceptor: Acceptor,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let connection = connection(
                    stream,
                    address,
                    acceptor.clone(),
                    Arc::clone(&shared),
                    stopped.clone(),
                );
                tokio::spawn(connection);
            }
            Err(e) => {
                // Out of file descriptors, as a rule: give some back before the next try.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Acceptor,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "no-delay");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.tls.accept(stream)).await {
        Ok(Ok(s)) => s,
        Ok(Err(e)) => {
            tracing::debug!(peer = %address, error = %e, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let shown = stream.get_ref().1.peer_certificates();
    let user = shown
        .and_then(|chain| acceptor.certificates.trusted(chain))
        .and_then(|c| certificate_user(c));
    let refused = shown.is_some() && user.is_none();
    let peer = Peer {
        address,
        user,
        refused,
    };
    let service = service_fn(move |request| {
        let (shared, peer) = (Arc::clone(&shared), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(http::serve(shared, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(1000);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        r = serving.as_mut() => r,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, serving).await {
                Ok(r) => r,
                Err(_) => return,
            }
        }
    };
    if let Err(e) = ended {
        tracing::debug!(peer = %address, error = %e, "connection ended");
    }
}

/// The user a verified client certificate names: CN, and O for each group.
fn certificate_user(der: &[u8]) -> Option<Arc<UserInfo>> {
    let info = match lateen_identity::certificate_info_der(der) {
        Ok(i) => i,
        Err(e) => {
            tracing::warn!(error = %e, "a client certificate cannot be read");
            return None;
        }
    };
    Some(Arc::new(auth::authenticated(
        &info.common_name,
        &info.organizations,
    )))
}
