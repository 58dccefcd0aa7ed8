//! The HTTPS call to a webhook: where it is, how its certificate is checked, one POST.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::bundle::Bundle;
use crate::api::resource::{ENDPOINT_SLICES, SERVICES};
use crate::store::Store;

/// Largest answer read from a webhook.
const MAX_ANSWER: usize = 8 << 20;

/// Where a call goes: the URL shown in errors, the TLS name and the addresses to dial.
pub(super) struct Destination {
    pub(super) url: String,
    host: String,
    path: String,
    dial: Dial,
}

enum Dial {
    Address(SocketAddr),
    Name(String, u16),
}

/// Reads a hook's `clientConfig`.
pub(super) fn destination(
    store: &Store,
    config: &Value,
    timeout: u64,
) -> Result<Destination, String> {
    let query = format!("timeout={timeout}s");
    let service = &config["service"];
    if service.is_object() {
        let ns = service["namespace"].as_str().unwrap_or_default();
        let name = service["name"].as_str().unwrap_or_default();
        let path = service["path"].as_str().unwrap_or("/");
        let path = format!("/{}", path.trim_start_matches('/'));
        let port = service["port"].as_u64().unwrap_or(443);
        let host = format!("{name}.{ns}.svc");
        return Ok(Destination {
            url: format!("https://{host}:{port}{path}?{query}"),
            dial: Dial::Address(service_address(store, ns, name, port)?),
            path: format!("{path}?{query}"),
            host,
        });
    }
    let url = config["url"].as_str().unwrap_or_default();
    let uri: http::Uri = url.parse().map_err(|e| format!("bad url {url:?}: {e}"))?;
    let host = uri.host().unwrap_or_default().to_owned();
    let joint = if uri.query().is_some() { '&' } else { '?' };
    let path = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    Ok(Destination {
        url: format!("{}{joint}{query}", url.trim_end_matches('?')),
        dial: Dial::Name(host.clone(), uri.port_u16().unwrap_or(443)),
        path: format!("{path}{joint}{query}"),
        host,
    })
}

/// A ready endpoint of the service's port, else its cluster IP: the server itself does not
/// depend on the node's redirection rules.
fn service_address(store: &Store, ns: &str, name: &str, port: u64) -> Result<SocketAddr, String> {
    let service = store
        .get(&SERVICES, ns, name)
        .ok_or_else(|| format!("service \"{name}\" not found"))?;
    let spec = &service["spec"];
    let port_entry = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| p["port"].as_u64() == Some(port))
        .ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;
    let port_name = port_entry["name"].as_str().unwrap_or_default();
    let (slices, _) = store.list(&ENDPOINT_SLICES, Some(ns));
    let mut ready = Vec::new();
    for slice in slices
        .iter()
        .filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == name)
    {
        let found = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"].as_str().unwrap_or_default() == port_name)
            .and_then(|p| p["port"].as_u64());
        let Some(target) = found.and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        for e in slice["endpoints"].as_array().into_iter().flatten() {
            if e["conditions"]["ready"] == false {
                continue;
            }
            let ip = e["addresses"][0].as_str().and_then(|a| a.parse().ok());
            ready.extend(ip.map(|ip| SocketAddr::new(ip, target)));
        }
    }
    if let Some(a) = fastrand::choice(&ready) {
        return Ok(*a);
    }
    let selected = spec["selector"].as_object().is_some_and(|s| !s.is_empty());
    let ip = spec["clusterIP"].as_str().and_then(|i| i.parse().ok());
    match (selected, ip, u16::try_from(port)) {
        (false, Some(ip), Ok(port)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(format!("no endpoints available for service \"{name}\"")),
    }
}

fn tls_config(config: &Value) -> Result<ClientConfig, String> {
    let bundle = config["caBundle"].as_str().unwrap_or_default();
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        return Err(
            "x509: certificate signed by unknown authority (the webhook has no caBundle)"
                .to_owned(),
        );
    }
    let pem = base64::engine::general_purpose::STANDARD
        .decode(bundle)
        .map_err(|e| format!("unable to load root certificates: {e}"))?;
    let pem =
        String::from_utf8(pem).map_err(|e| format!("unable to load root certificates: {e}"))?;
    let certs = lateen_identity::certificates_from_pem(&pem)
        .map_err(|e| format!("unable to load root certificates: {e}"))?;
    for cert in &certs {
        roots.add(cert.clone()).map_err(|e| format!("tls: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Bundle::new(certs, roots, Arc::clone(&provider))?;
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("tls: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// POSTs `body` and reads the JSON answer.
pub(super) async fn post(
    to: &Destination,
    config: &Value,
    body: Vec<u8>,
    timeout: u64,
) -> Result<Value, String> {
    let limit = Duration::from_secs(timeout);
    match tokio::time::timeout(limit, exchange(to, config, body)).await {
        Ok(answer) => answer,
        Err(_) => Err("context deadline exceeded".to_owned()),
    }
}

async fn exchange(to: &Destination, config: &Value, body: Vec<u8>) -> Result<Value, String> {
    let tls = tls_config(config)?;
    let stream = match &to.dial {
        Dial::Address(a) => TcpStream::connect(a)
            .await
            .map_err(|e| format!("dial tcp {a}: {e}")),
        Dial::Name(host, port) => TcpStream::connect((host.as_str(), *port))
            .await
            .map_err(|e| format!("dial tcp {host}:{port}: {e}")),
    }?;
    let name = ServerName::try_from(to.host.clone()).map_err(|e| format!("tls: {e}"))?;
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await
        .map_err(|e| format!("tls: {e}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(&to.path)
        .header("host", &to.host)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("user-agent", "kube-apiserver-admission")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|e| e.to_string())?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|e| e.to_string())?
        .to_bytes();
    driver.abort();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text.chars().take(200).collect();
        return Err(format!("the server answered {status}: {text}"));
    }
    serde_json::from_slice(&bytes).map_err(|e| format!("the answer is not JSON: {e}"))
}
