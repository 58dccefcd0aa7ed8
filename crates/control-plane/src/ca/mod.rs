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
    authority: &CertificateAuthority,
    names: &[String],
    now: SystemTime,
) -> anyhow::Result<(String, String)> {
    let common_name = names.first().map(String::as_str).unwrap_or_default();
    let subject = Subject::Server { common_name, names };
    let issued = authority.issue(&subject, SERVER_LIFE, now)?;
    Ok((
        format!("{}{}", issued.cert_pem, authority.cert_pem()),
        issued.key_pem,
    ))
}

/// `IstioCertificateService`: signs for whoever the caller proved to be.
pub struct CaService {
    authority: Arc<CertificateAuthority>,
    trust_domain: Box<dyn Fn() -> String + Send + Sync>,
    metrics: Arc<Metrics>,
}

impl CaService {
    /// A service over an authority; the trust domain is read at each request, since mesh
    /// configuration may change it.
    pub fn new(
        authority: Arc<CertificateAuthority>,
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
            .sign_request(&request.csr, &id, life, SystemTime::now())
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let cert_chain = vec![leaf, self.authority.cert_pem().to_owned()];
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
        let ca = CertificateAuthority::self_signed(ORGANIZATION, "", SystemTime::now());
        CaService::new(
            Arc::new(ca.expect("a root")),
            || "cluster.local".into(),
            Arc::default(),
        )
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
