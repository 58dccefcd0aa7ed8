//! Certificates for a run: one authority, one identity that everybody uses, files for the peers and
//! ready configurations for the driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// What TLS needs, in files and in the driver's own form.
pub struct Pki {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The identity's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants them.
    pub both: PathBuf,
    /// The driver as a client with a certificate; no session is resumed.
    pub client: Arc<ClientConfig>,
    /// The driver as a server that wants certificates.
    pub server: Arc<ServerConfig>,
}

impl Pki {
    /// Makes everything anew in a folder. Keys are ECDSA P-256, as Istio's are by option and Envoy's
    /// and nginx's users' mostly are.
    ///
    /// # Errors
    /// Those of the folder and of the libraries.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Names of their own: a certificate named as its issuer is taken for a self-signed one.
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "bench authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::new(vec!["backend.test".to_owned()])?;
        let spiffe = "spiffe://cluster.local/ns/default/sa/bench".try_into()?;
        params.subject_alt_names.push(SanType::URI(spiffe));
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "bench");
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).context("writing a certificate")?;
            anyhow::Ok(path)
        };
        let (leaf, secret) = (certificate.pem(), key.serialize_pem());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(issuer.pem().as_bytes())?)?;
        let roots = Arc::new(roots);
        let chain = vec![CertificateDer::from_pem_slice(leaf.as_bytes())?];
        let private = || PrivateKeyDer::from_pem_slice(secret.as_bytes());
        let mut client = ClientConfig::builder()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), private()?)?;
        client.resumption = Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder(roots).build()?;
        let server = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private()?)?;
        Ok(Self {
            authority: write("authority.pem", &issuer.pem())?,
            certificate: write("certificate.pem", &leaf)?,
            key: write("key.pem", &secret)?,
            both: write("both.pem", &format!("{leaf}{secret}"))?,
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}
