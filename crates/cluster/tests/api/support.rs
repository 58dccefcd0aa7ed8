//! A server on a free port with a folder of its own, and the means to talk to it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use lateen_cluster::api::resource::{NAMESPACES, SERVICE_ACCOUNTS};
use lateen_cluster::api::{
    Api, ApiServer, ApiServerOptions, ClusterPki, ServerHandle, StaticToken,
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Token of a member of `system:masters`.
pub const ADMIN_TOKEN: &str = "admin-token";

pub struct Cluster {
    pub server: ServerHandle,
    pub api: Api,
    pub dir: TempDir,
}

pub async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().expect("dir");
    let pki = ClusterPki::generate(SystemTime::now()).expect("pki");
    let mut options = ApiServerOptions::new(dir.path(), pki);
    options.tokens.push(StaticToken {
        token: ADMIN_TOKEN.to_owned(),
        user: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
    });
    let (server, api) = ApiServer::start(options).await.expect("start");
    let config = server
        .kubeconfig("kubernetes-admin", "system:masters", SystemTime::now())
        .expect("kubeconfig");
    std::fs::write(dir.path().join("kubeconfig"), config).expect("write");
    Cluster { server, api, dir }
}

/// The kubectl programs to test with: the one in the path, and the newest one where
/// `LATEEN_KUBECTL_NEWEST` names it. None, loudly, where there is none.
pub fn kubectls() -> Vec<String> {
    let mut all = Vec::new();
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_ok_and(|s| s.success()) {
        all.push("kubectl".to_owned());
    }
    all.extend(
        std::env::var("LATEEN_KUBECTL_NEWEST")
            .ok()
            .filter(|k| !k.is_empty()),
    );
    if all.is_empty() {
        eprintln!("SKIPPED: kubectl is not installed; these tests check nothing without it");
    }
    all
}

impl Cluster {
    /// A namespace with its default service account.
    pub async fn namespace(&self, name: &str) {
        let ns = json!({"metadata": {"name": name}});
        self.api
            .create(&NAMESPACES, None, ns)
            .await
            .expect("namespace");
        let sa = json!({"metadata": {"name": "default"}});
        self.api
            .create(&SERVICE_ACCOUNTS, Some(name), sa)
            .await
            .expect("service account");
    }

    /// Runs kubectl in a namespace, with `input` on standard input.
    pub async fn run(&self, kubectl: &str, ns: &str, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.dir.path().join("kubeconfig"))
            .args(["-n", ns])
            .args(args)
            .env("HOME", self.dir.path())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let shown = format!("{kubectl} {args:?}");
        let running = tokio::task::spawn_blocking(move || {
            use std::io::Write as _;
            let mut child = command
                .spawn()
                .unwrap_or_else(|e| panic!("kubectl must be installed ({e}): {shown}"));
            child
                .stdin
                .take()
                .expect("stdin")
                .write_all(input.as_bytes())
                .expect("input");
            child.wait_with_output().expect("output")
        });
        tokio::time::timeout(Duration::from_secs(60), running)
            .await
            .expect("kubectl ends in time")
            .expect("joined")
    }

    /// Runs kubectl, which must succeed; its standard output.
    pub async fn ok(&self, kubectl: &str, ns: &str, args: &[&str], input: &str) -> String {
        let out = self.run(kubectl, ns, args, input).await;
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{kubectl} {args:?}: {stderr}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Runs kubectl, which must fail; its standard error.
    pub async fn fails(&self, kubectl: &str, ns: &str, args: &[&str], input: &str) -> String {
        let out = self.run(kubectl, ns, args, input).await;
        let stdout = String::from_utf8_lossy(&out.stdout);
        assert!(
            !out.status.success(),
            "{kubectl} {args:?} succeeded: {stdout}"
        );
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// A file in the cluster's folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.display().to_string()
    }

    /// One request with a bearer token: status, headers, body.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, http::HeaderMap, String) {
        let mut sender = self.connect().await;
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kubernetes");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .expect("request");
        let response = sender.send_request(request).await.expect("response");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("body").to_bytes();
        (
            parts.status.as_u16(),
            parts.headers,
            String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// As [`Cluster::request`] with the admin's token, answered in JSON.
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (code, _, text) = self
            .request(method, path, ADMIN_TOKEN, &[("content-type", kind)], &body)
            .await;
        (code, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// An HTTP/1.1 connection to the server.
    pub async fn connect(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        self.connect_with(None).await
    }

    /// The same with a client certificate and its key, as PEM.
    pub async fn connect_with(
        &self,
        identity: Option<(&str, &str)>,
    ) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let mut roots = rustls::RootCertStore::empty();
        for c in lateen_identity::certificates_from_pem(self.server.ca_pem()).expect("ca") {
            roots.add(c).expect("root");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config
                .with_client_auth_cert(
                    lateen_identity::certificates_from_pem(certificate).expect("certificate"),
                    lateen_identity::private_key_from_pem(key).expect("key"),
                )
                .expect("a pair"),
        };
        let tcp = TcpStream::connect(self.server.address())
            .await
            .expect("tcp");
        let name = ServerName::try_from("kubernetes.default.svc").expect("name");
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .expect("tls");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .expect("http");
        tokio::spawn(connection);
        sender
    }
}
