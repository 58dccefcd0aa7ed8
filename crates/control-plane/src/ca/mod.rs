//! The certificate authority: workload certificates over gRPC and the control plane's own
//! server certificate. Where the root is kept is the caller's business.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_identity::{CertificateAuthority, SpiffeId, Subject};
use lateen_xds_proto::istio::certificate_service::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
};
use tonic::{Request, Response, Status};

use crate::ads::Caller;
use crate::metrics::Metrics;

/// Organisation in the root's subject, Istio's default.
pub const ORGANIZATION: &str = "cluster.local";
/// Longest life of a workload certificate.
const MAX_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life when none is asked for.
const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Life of the control plane's own certificate; renewed at half.
pub const SERVER_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A signing key with the certificates that lead to the root.
pub struct Authority {
    signer: CertificateAuthority,
    /// Certificates between a leaf and the root, PEM; empty when the signer is the root.
    between: Vec<String>,
    root: String,
}

impl Authority {
    /// A fresh self-signed root.
    ///
    /// # Errors
    /// Key generation or signing failed.
    pub fn self_signed(now: SystemTime) -> anyhow::Result<Self> {
        let signer = CertificateAuthority::self_signed(ORGANIZATION, "", now)?;
        let root = signer.cert_pem().to_owned();
        Ok(Self {
            signer,
            between: Vec::new(),
            root,
        })
    }

    /// An authority as stored: certificate, key, and for an intermediate the chain up to the
    /// root (`chain` without the root) and the root.
    ///
    /// # Errors
    /// PEM that does not parse.
    pub fn from_pem(
        cert: &str,
        key: &str,
        chain: &str,
        root: Option<&str>,
    ) -> anyhow::Result<Self> {
        let signer = CertificateAuthority::from_pem(cert, key)?;
        let root = root
            .filter(|r| !r.trim().is_empty())
            .unwrap_or(cert)
            .to_owned();
        let is_root = root.trim() == cert.trim();
        let between = match (is_root, chain.trim()) {
            (true, _) => Vec::new(),
            (false, "") => vec![cert.to_owned()],
            (false, _) => vec![chain.to_owned()],
        };
        Ok(Self {
            signer,
            between,
            root,
        })
    }

    /// The root, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// The signing certificate, PEM.
    pub fn cert_pem(&self) -> &str {
        self.signer.cert_pem()
    }

    /// The signing key, PEM, for storage.
    pub fn key_pem(&self) -> &str {
        self.signer.key_pem()
    }
}

/// DNS names of the control plane's certificate, in namespace `istio-system` or another.
pub fn server_names(namespace: &str) -> Vec<String> {
    let mut names = Vec::new();
    for service in ["istiod", "istio-pilot", "istiod-remote"] {
        names.push(format!("{service}.{namespace}.svc"));
        names.push(format!("{service}.{namespace}"));
        names.push(format!("{service}.{namespace}.svc.cluster.local"));
    }
    names
}

/// A fresh certificate of the control plane: chain with the root last, and key, both PEM.
///
/// # Errors
/// Signing failed.
pub fn server_certificate(
    authority: &Authority,
    names: &[String],
    now: SystemTime,
) -> anyhow::Result<(String, String)> {
    let common_name = names.first().map(String::as_str).unwrap_or_default();
    let subject = Subject::Server { common_name, names };
    let issued = authority.signer.issue(&subject, SERVER_LIFE, now)?;
    let mut chain = issued.cert_pem;
    for certificate in authority.between.iter().chain([&authority.root]) {
        chain.push_str(certificate);
    }
    Ok((chain, issued.key_pem))
}

/// `IstioCertificateService`: signs for whoever the caller proved to be.
pub struct CaService {
    authority: Arc<Authority>,
    trust_domain: Box<dyn Fn() -> String + Send + Sync>,
    metrics: Arc<Metrics>,
}

impl CaService {
    /// A service over an authority; the trust domain is read at each request, since mesh
    /// configuration may change it.
    pub fn new(
        authority: Arc<Authority>,
        trust_domain: impl Fn() -> String + Send + Sync + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            authority,
            trust_domain: Box::new(trust_domain),
            metrics,
        }
    }

    fn sign(
        &self,
        caller: Option<&Caller>,
        request: &IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let Some(Caller::ServiceAccount { namespace, name }) = caller else {
            return Err(Status::unauthenticated(
                "a service account's token is required",
            ));
        };
        let id = SpiffeId::new(&(self.trust_domain)(), namespace, name);
        let life = life(request.validity_duration);
        let leaf = self
            .authority
            .signer
            .sign_request(&request.csr, &id, life, SystemTime::now())
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let mut cert_chain = vec![leaf];
        cert_chain.extend(self.authority.between.iter().cloned());
        cert_chain.push(self.authority.root.clone());
        Ok(IstioCertificateResponse { cert_chain })
    }
}

/// The life asked for, in seconds, within bounds.
fn life(seconds: i64) -> Duration {
    match u64::try_from(seconds) {
        Ok(0) | Err(_) => DEFAULT_LIFE,
        Ok(n) => Duration::from_secs(n).min(MAX_LIFE),
    }
}

impl IstioCertificateService for CaService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.count("citadel_server_csr_count", &[]);
        let caller = request.extensions().get::<Caller>().cloned();
        let response = self.sign(caller.as_ref(), request.get_ref())?;
        self.metrics
            .count("citadel_server_success_cert_issuance_count", &[]);
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_identity::{certificate_info, signing_request};

    fn service() -> CaService {
        let ca = Authority::self_signed(SystemTime::now()).expect("a root");
        CaService::new(Arc::new(ca), || "cluster.local".into(), Arc::default())
    }

    fn request(csr: String, life: i64) -> IstioCertificateRequest {
        IstioCertificateRequest {
            csr,
            validity_duration: life,
            ..Default::default()
        }
    }

    #[test]
    fn identity_is_the_callers_and_not_the_requests() {
        let claimed = SpiffeId::new("cluster.local", "kube-system", "admin");
        let (csr, _key) = signing_request(&claimed).expect("a request");
        let caller = Caller::ServiceAccount {
            namespace: "default".into(),
            name: "reviews".into(),
        };
        let answer = service()
            .sign(Some(&caller), &request(csr, 3600))
            .expect("signed");
        assert_eq!(answer.cert_chain.len(), 2);
        let info = certificate_info(&answer.cert_chain[0]).expect("parses");
        let text = format!("{info:?}");
        assert!(
            text.contains("spiffe://cluster.local/ns/default/sa/reviews"),
            "{text}"
        );
        assert!(!text.contains("kube-system"), "{text}");
    }

    #[test]
    fn strangers_and_garbage_are_refused() {
        let ca = service();
        let plain = ca
            .sign(Some(&Caller::Plain), &request(String::new(), 0))
            .expect_err("plain");
        assert_eq!(plain.code(), tonic::Code::Unauthenticated);
        let caller = Caller::ServiceAccount {
            namespace: "a".into(),
            name: "b".into(),
        };
        let bad = ca
            .sign(Some(&caller), &request("not a csr".into(), 0))
            .expect_err("garbage");
        assert_eq!(bad.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn life_is_bounded() {
        assert_eq!(life(0), DEFAULT_LIFE);
        assert_eq!(life(-5), DEFAULT_LIFE);
        assert_eq!(life(60), Duration::from_secs(60));
        assert_eq!(life(i64::MAX), MAX_LIFE);
    }
}
