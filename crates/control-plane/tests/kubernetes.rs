//! The control plane over a Kubernetes API server: its CA and where it is published, the
//! webhooks, tokens and certificates on the secure port, objects to configuration. The API
//! server is the embedded one, which no code of ours outside of tests may know here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lateen_cluster::api::server::{ApiServer, ApiServerOptions, ClusterPki, ServerHandle};
use lateen_control_plane::{ControlPlaneOptions, Objects, Running, install, start};
use lateen_identity::{SpiffeId, certificate_info, certificates_from_pem, signing_request};
use lateen_process::stop;
use lateen_sources::{
    CONFIG_MAP, Kube, MUTATING_WEBHOOK, NAMESPACE, Resource, SECRET, VALIDATING_WEBHOOK, connect,
};
use lateen_xds_proto::istio::certificate_service::{
    IstioCertificateRequest, IstioCertificateServiceClient,
};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

const fn resource(
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Resource<'static> {
    Resource {
        api_version,
        kind,
        plural,
    }
}

const SERVICE_ACCOUNT: Resource<'static> = resource("v1", "ServiceAccount", "serviceaccounts");
const SERVICE: Resource<'static> = resource("v1", "Service", "services");
const DEFINITION: Resource<'static> = resource(
    "apiextensions.k8s.io/v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
);
const NAME: &str = "istiod.istio-system.svc";

struct Fixture {
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    kube: Kube,
    _server: ServerHandle,
}

impl Fixture {
    /// An API server with the mesh's definitions, settings and webhooks.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let now = SystemTime::now();
        let pki = ClusterPki::generate(now).expect("certificates");
        let options = ApiServerOptions::new(folder.path().join("data"), pki);
        let (server, _) = ApiServer::start(options).await.expect("an API server");
        let kubeconfig = folder.path().join("kubeconfig");
        let text = server
            .kubeconfig("admin", "system:masters", now)
            .expect("a kubeconfig");
        std::fs::write(&kubeconfig, text).expect("written");
        let kube = Kube::new(connect(Some(&kubeconfig), None).await.expect("a client"));
        let fixture = Self {
            folder,
            kubeconfig,
            kube,
            _server: server,
        };
        fixture.namespace("istio-system").await;
        for object in install::manifests_for("default", &[]).expect("manifests") {
            let r = match object["kind"].as_str() {
                Some("ConfigMap") => CONFIG_MAP,
                Some("MutatingWebhookConfiguration") => MUTATING_WEBHOOK,
                Some("ValidatingWebhookConfiguration") => VALIDATING_WEBHOOK,
                Some("CustomResourceDefinition") => DEFINITION,
                _ => continue,
            };
            let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
            fixture
                .kube
                .ensure(r, namespace.as_deref(), object)
                .await
                .expect("installed");
        }
        fixture
    }

    async fn namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.kube
            .ensure(NAMESPACE, None, object)
            .await
            .expect("a namespace");
    }

    async fn control_plane(&self) -> (stop::Stopper, Running) {
        let free = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (stopper, stop) = stop::pair();
        let options = ControlPlaneOptions {
            objects: Objects::Kubernetes {
                kubeconfig: Some(self.kubeconfig.clone()),
                context: None,
            },
            xds_address: free,
            secure_address: free,
            webhook_address: free,
            http_address: free,
            monitoring_address: free,
            ..ControlPlaneOptions::default()
        };
        let running = start(options, stop).await.expect("starts");
        until("readiness", async || get(&running, "/ready").await.0 == 200).await;
        (stopper, running)
    }

    async fn root(&self, namespace: &str) -> Option<String> {
        let map = self
            .kube
            .get(CONFIG_MAP, Some(namespace), "istio-ca-root-cert")
            .await;
        Some(map.ok()??["data"]["root-cert.pem"].as_str()?.to_owned())
    }

    /// A token of a service account, with an audience or the server's own.
    async fn token(&self, name: &str, audience: Option<&str>) -> String {
        let metadata = json!({"name": name, "namespace": "default"});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        self.kube
            .ensure(SERVICE_ACCOUNT, Some("default"), account)
            .await
            .expect("an account");
        let audiences: Vec<&str> = audience.into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences},
        });
        let url = format!("/api/v1/namespaces/default/serviceaccounts/{name}/token");
        let request = http::Request::post(url)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request");
        let answer: Value = self.kube.client().request(request).await.expect("a token");
        answer["status"]["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done().await {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn get(running: &Running, path: &str) -> (u16, String) {
    let address = running.bound.http.expect("bound");
    curl(vec![format!("http://{address}{path}")]).await
}

/// Status and body, or 0 and the complaint.
async fn curl(arguments: Vec<String>) -> (u16, String) {
    let run = move || {
        let mut c = std::process::Command::new("curl");
        c.args(["-sS", "-m", "10", "-w", "\n%{http_code}"])
            .args(arguments)
            .output()
    };
    let out = tokio::task::spawn_blocking(run)
        .await
        .expect("joins")
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    match text
        .rsplit_once('\n')
        .map(|(body, status)| (status.parse().unwrap_or(0), body))
    {
        Some((status @ 1.., body)) => (status, body.to_owned()),
        _ => (0, String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_gets_its_mesh() {
    let fixture = Fixture::new().await;
    let (stopper, running) = fixture.control_plane().await;
    let root = published(&fixture).await;
    certificates(&fixture, &running, &root).await;
    webhooks(&fixture, &running, &root).await;
    objects(&fixture, &running).await;
    stopper.stop();
    running.finished().await.expect("a clean end");
    // The CA outlives the process: the next one signs with the same root.
    let (_stopper, _running) = fixture.control_plane().await;
    fixture.namespace("later").await;
    until("the root in a later namespace", async || {
        fixture.root("later").await.is_some()
    })
    .await;
    assert_eq!(fixture.root("later").await.as_deref(), Some(root.as_str()));
}

/// The CA in its Secret, the root in every namespace, the bundles in the webhooks.
async fn published(fixture: &Fixture) -> String {
    let kube = &fixture.kube;
    let secret = kube
        .get(SECRET, Some("istio-system"), "istio-ca-secret")
        .await;
    assert!(secret.expect("answers").is_some(), "the CA is kept");
    until("the root in default", async || {
        fixture.root("default").await.is_some()
    })
    .await;
    let hooks = kube
        .get(MUTATING_WEBHOOK, None, "istio-sidecar-injector")
        .await;
    let hooks = hooks.expect("answers").expect("is there");
    for hook in hooks["webhooks"].as_array().expect("a list") {
        assert!(
            hook["clientConfig"]["caBundle"]
                .as_str()
                .is_some_and(|b| b.len() > 100),
            "{hook}"
        );
    }
    let validator = kube
        .get(VALIDATING_WEBHOOK, None, "istiod-default-validator")
        .await;
    let validator = validator.expect("answers").expect("is there");
    assert_eq!(validator["webhooks"][0]["failurePolicy"], "Fail");
    fixture.namespace("fresh").await;
    until("the root in a new namespace", async || {
        fixture.root("fresh").await.is_some()
    })
    .await;
    fixture.root("default").await.expect("published")
}

/// A token of the right audience buys a certificate of its own identity and nothing else.
async fn certificates(fixture: &Fixture, running: &Running, root: &str) {
    let channel = channel(running.bound.secure.expect("bound"), root).await;
    let mut ca = IstioCertificateServiceClient::new(channel);
    let claimed = SpiffeId::new("cluster.local", "kube-system", "admin");
    let (csr, _) = signing_request(&claimed).expect("a request");
    let ask = |token: Option<String>| {
        let message = IstioCertificateRequest {
            csr: csr.clone(),
            validity_duration: 3600,
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.metadata_mut().insert("authorization", value);
        }
        request
    };
    let good = fixture.token("bookinfo-reviews", Some("istio-ca")).await;
    let answer = ca
        .create_certificate(ask(Some(good)))
        .await
        .expect("signed")
        .into_inner();
    let leaf = certificate_info(&answer.cert_chain[0]).expect("a certificate");
    assert_eq!(
        leaf.uris,
        ["spiffe://cluster.local/ns/default/sa/bookinfo-reviews"]
    );
    assert_eq!(answer.cert_chain.last().map(String::as_str), Some(root));
    let other = fixture.token("bookinfo-reviews", None).await;
    for bad in [None, Some(other), Some("nonsense".to_owned())] {
        let refused = ca.create_certificate(ask(bad)).await.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    }
}

async fn channel(address: SocketAddr, root: &str) -> Channel {
    let mut roots = rustls::RootCertStore::empty();
    for c in certificates_from_pem(root).expect("PEM") {
        roots.add(c).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = move |_| {
        let connector = connector.clone();
        async move {
            let tcp = tokio::net::TcpStream::connect(address).await?;
            let name =
                rustls_pki_types::ServerName::try_from(NAME).map_err(std::io::Error::other)?;
            let tls = connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tls))
        }
    };
    let endpoint = Endpoint::from_static("http://istiod.istio-system.svc");
    endpoint
        .connect_with_connector(tower::service_fn(connect))
        .await
        .expect("TLS by the root")
}

/// Both webhooks answer over TLS that the published root vouches for.
async fn webhooks(fixture: &Fixture, running: &Running, root: &str) {
    let port = running.bound.webhook.expect("bound").port();
    let ca = fixture.folder.path().join("root.pem");
    std::fs::write(&ca, root).expect("written");
    let call = async |path: &str, object: Value| -> Value {
        let request = json!({"uid": "1", "namespace": "default", "object": object});
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        let arguments = [
            "--cacert",
            text(&ca),
            "--resolve",
            &format!("{NAME}:{port}:127.0.0.1"),
            "-H",
            "content-type: application/json",
            "-d",
            &review.to_string(),
            &format!("https://{NAME}:{port}{path}"),
        ];
        let (status, body) = curl(arguments.map(str::to_owned).to_vec()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")["response"].clone()
    };
    let bad = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}, "weight": -1}]}]},
    });
    let refused = call("/validate", bad).await;
    assert_eq!(refused["allowed"], false);
    let message = refused["status"]["message"].as_str().expect("a message");
    assert!(
        message.contains("spec.http[0].route[0].weight"),
        "{message}"
    );
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "reviews-v1-5-", "labels": {"app": "reviews"}},
        "spec": {"containers": [{"name": "reviews", "image": "x"}]},
    });
    let injected = call("/inject", pod).await;
    assert_eq!(injected["allowed"], true);
    assert!(
        injected["patch"].as_str().is_some_and(|p| !p.is_empty()),
        "{injected}"
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// An object made in the cluster is configuration soon after.
async fn objects(fixture: &Fixture, running: &Running) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "reviews", "namespace": "default"},
        "spec": {"selector": {"app": "reviews"}, "ports": [{"name": "http", "port": 9080}]},
    });
    fixture
        .kube
        .ensure(SERVICE, Some("default"), service)
        .await
        .expect("made");
    let host = "reviews.default.svc.cluster.local";
    until("the service", async || {
        get(running, "/debug/registryz").await.1.contains(host)
    })
    .await;
    let (_, metrics) = get(running, "/metrics").await;
    assert!(
        metrics.contains("citadel_server_success_cert_issuance_count 1"),
        "{metrics}"
    );
}
