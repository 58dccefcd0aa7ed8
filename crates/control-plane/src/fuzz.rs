//! Doors for fuzzing into parsers of this crate that are not public: what proxies, API
//! servers and callers send, as bytes. Nothing here is meant for other use, and nothing
//! stays the same from one version to the next.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use lateen_identity::{CertificateAuthority, SpiffeId};
use lateen_xds::{Resource, ResourceSet};
use lateen_xds_proto::envoy::config::core::v3::Node;
use lateen_xds_proto::{Any, Message};
use serde_json::Value;

use crate::ads::{self, NodeInfo};
use crate::inject::InjectConfig;

/// The node of a stream's first request: an encoded `envoy.config.core.v3.Node`.
///
/// # Errors
/// What is wrong with the bytes or the node.
pub fn node(bytes: &[u8]) -> Result<NodeInfo, String> {
    let node = Node::decode(bytes).map_err(|e| e.to_string())?;
    NodeInfo::parse(Some(&node)).map_err(|e| e.to_string())
}

/// A state-of-the-world stream: length-delimited `DiscoveryRequest`s one after another, with
/// responses between them. The number of requests taken in, until the stream is closed for
/// one of them or the bytes end.
pub fn sotw(bytes: &[u8]) -> usize {
    ads::fuzz::requests::<ads::fuzz::Sotw>(bytes, &resources())
}

/// An incremental stream, see [`sotw`]: `DeltaDiscoveryRequest`s.
pub fn delta(bytes: &[u8]) -> usize {
    ads::fuzz::requests::<ads::fuzz::Delta>(bytes, &resources())
}

/// Resources of two names and two versions, by turns.
fn resources() -> [ResourceSet; 2] {
    let one = |name: &str, version| {
        Arc::new(Resource {
            name: name.to_owned(),
            version,
            body: Any::default(),
        })
    };
    [
        ResourceSet::new([one("a", 1), one("b", 1)]),
        ResourceSet::new([one("b", 2)]),
    ]
}

/// The body of a request to `/inject`: the review that answers it.
///
/// # Errors
/// Why the body is no review.
pub fn inject(body: &[u8]) -> Result<Value, String> {
    static CONFIG: LazyLock<InjectConfig> = LazyLock::new(|| InjectConfig::standard("0.0.0"));
    crate::webhook::answer_inject(&CONFIG, body)
}

/// The body of a request to `/validate`: the review that answers it.
///
/// # Errors
/// Why the body is no review.
pub fn validate(body: &[u8]) -> Result<Value, String> {
    crate::webhook::answer_validate(body)
}

/// A signing request, PEM: the certificate for [`workload`], PEM.
///
/// # Errors
/// Why it is not signed.
pub fn csr(pem: &str) -> Result<String, String> {
    const NOW: Duration = Duration::from_secs(1_800_000_000);
    let now = SystemTime::UNIX_EPOCH + NOW;
    static AUTHORITY: LazyLock<Result<CertificateAuthority, String>> = LazyLock::new(|| {
        CertificateAuthority::self_signed("fuzz", "", SystemTime::UNIX_EPOCH + NOW)
            .map_err(|e| e.to_string())
    });
    let authority = AUTHORITY.as_ref().map_err(Clone::clone)?;
    authority
        .sign_request(pem, &workload(), Duration::from_secs(3600), now)
        .map_err(|e| e.to_string())
}

/// Whom [`csr`] signs for.
pub fn workload() -> SpiffeId {
    SpiffeId::new("cluster.local", "default", "fuzz")
}

/// The token in an `authorization` header.
pub fn bearer(header: &str) -> Option<&str> {
    crate::auth::bearer(header).ok()
}

/// Namespace and name of a service account's user name.
pub fn account(username: &str) -> Option<(&str, &str)> {
    lateen_sources::service_account(username)
}

#[cfg(test)]
mod tests {
    use lateen_identity::{certificate_info, signing_request};
    use lateen_xds_proto::envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DiscoveryRequest,
    };
    use lateen_xds_proto::type_url;

    use super::*;

    #[test]
    fn the_doors_lead_where_good_input_is_taken() {
        let id = "sidecar~10.0.0.1~a-1.default~default.svc.cluster.local";
        let good = Node {
            id: id.into(),
            ..Node::default()
        };
        let info = node(&good.encode_to_vec()).expect("a node");
        assert_eq!(info.display_name(), "a-1.default");
        assert!(node(b"\xff").is_err());

        let names = vec!["a".to_owned(), "c".to_owned()];
        let request = |nonce: &str| DiscoveryRequest {
            type_url: type_url::ENDPOINT.into(),
            resource_names: names.clone(),
            response_nonce: nonce.into(),
            ..DiscoveryRequest::default()
        };
        let mut bytes = request("").encode_length_delimited_to_vec();
        bytes.extend(request("1").encode_length_delimited_to_vec());
        assert_eq!(sotw(&bytes), 2);
        bytes.push(0xff);
        assert_eq!(sotw(&bytes), 2, "the bytes end in the middle of a request");
        let request = DeltaDiscoveryRequest {
            type_url: type_url::CLUSTER.into(),
            ..DeltaDiscoveryRequest::default()
        };
        assert_eq!(delta(&request.encode_length_delimited_to_vec()), 1);

        let (asked, _) = signing_request(&SpiffeId::new("x", "kube-system", "root")).expect("csr");
        let leaf = csr(&asked).expect("signed");
        let info = certificate_info(&leaf).expect("a certificate");
        assert_eq!(info.uris, [workload().to_string()]);

        let review = br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u"}}"#;
        assert_eq!(
            validate(review).expect("answered")["response"]["allowed"],
            true
        );
        assert_eq!(
            inject(review).expect("answered")["response"]["allowed"],
            false
        );
        assert_eq!(bearer("bearer a.b.c"), Some("a.b.c"));
        assert_eq!(account("system:serviceaccount:a:b"), Some(("a", "b")));
    }
}
