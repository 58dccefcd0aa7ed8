//! What reaches a whole API server from beside: the tokens that callers show, and the answers of
//! webhooks, over TLS on the loopback interface.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as TOKEN};
use lateen_cluster::api::handle::{Api, DeleteOptions};
use lateen_cluster::api::resource::{MUTATING_WEBHOOKS, NAMESPACES, PODS, SERVICE_ACCOUNTS};
use lateen_cluster::api::{ApiServer, ApiServerOptions, ClusterPki, ServerHandle};
use lateen_cluster::fuzz::verify_token;
use lateen_control_plane::ads::Caller;
use lateen_control_plane::auth::{Authenticator, TokenReviewer};
use lateen_identity::{CertificateAuthority, Subject, certificates_from_pem, private_key_from_pem};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::cluster::assert_can_be_stored;
use crate::Target;
use crate::bytes::{choice, seeds_after, text};
use crate::runtime::{real, watched};

/// Bearer tokens: as they are, or a head and claims in two lines, signed here with the cluster's
/// key.
pub const TOKENS: Target = Target {
    name: "account_token",
    run: |data| drop(caller(data)),
    seeds: || {
        let claims = |aud: &str, more: &str| {
            format!(
                r#"{{"aud":{aud},"exp":4000000000,"iat":1,"nbf":1,"iss":"https://kubernetes.default.svc.cluster.local","jti":"j","kubernetes.io":{{"namespace":"default","serviceaccount":{{"name":"a","uid":"UID"}}{more}}},"sub":"system:serviceaccount:default:a"}}"#
            )
        };
        let head = r#"{"alg":"ES256","kid":"k"}"#;
        let mut list = seeds_after(
            1,
            &[
                &format!("{head}\n{}", claims(r#"["istio-ca"]"#, "")),
                &format!(
                    "{head}\n{}",
                    claims(
                        r#""istio-ca""#,
                        r#","pod":{"name":"p","uid":"u"},"node":{"name":"n"}"#
                    )
                ),
                &format!("{head}\n{{\"exp\":1e30}}"),
            ],
        );
        list.extend(seeds_after(
            0,
            &[
                "Bearer eyJhbGciOiJub25lIn0.e30.",
                "bearer a.b.c",
                "Basic eA==",
                "Bearer ....",
            ],
        ));
        list
    },
    words: &[
        "\"alg\":\"none\"",
        "\"alg\":\"HS256\"",
        "\"exp\":",
        "\"nbf\":-1",
        "\"iss\":",
        "\"aud\":[]",
        "\"kubernetes.io\":{",
        "\"uid\":null",
        "\"pod\":{}",
        "\"secret\":{\"name\":\"s\"}",
        "UID",
        "Bearer ",
        ".",
        "\n",
    ],
    rounds: 300,
};

/// Answers of a mutating webhook: a JSON patch, the whole review, or all of the HTTP answer.
/// `@UID@` stands for the review's uid.
pub const WEBHOOK: Target = Target {
    name: "webhook_answer",
    run: |data| drop(created(data)),
    seeds: webhook_seeds,
    words: &[
        "\"@UID@\"",
        "\"allowed\":true",
        "\"allowed\":false",
        "\"patchType\":\"JSONPatch\"",
        "\"patch\":\"",
        "\"status\":{\"code\":",
        "\"warnings\":[\"",
        "{\"op\":\"copy\",\"from\":\"\",\"path\":\"/a\"},",
        "{\"op\":\"add\",\"path\":\"/metadata/labels/x\",\"value\":\"y\"},",
        "{\"op\":\"remove\",\"path\":\"/spec\"},",
        "{\"op\":\"replace\",\"path\":\"\",\"value\":null},",
        "{\"op\":\"move\",\"from\":\"/spec\",\"path\":\"/spec/a\"},",
        "/metadata/name",
        "/kind",
        "/-",
        "~1",
        "HTTP/1.1 200 OK\r\n",
        "content-length: ",
        "transfer-encoding: chunked\r\n",
        "\r\n\r\n",
    ],
    rounds: 120,
};

fn webhook_seeds() -> Vec<Vec<u8>> {
    let copies = vec![r#"{"op":"copy","from":"","path":"/a"}"#; 60].join(",");
    // Each of these doubles the object: sixty would fill any memory.
    let doubled: Vec<String> = (0..60)
        .map(|n| format!(r#"{{"op":"copy","from":"/metadata/annotations","path":"/metadata/annotations/n{n}"}}"#))
        .collect();
    let deep: Vec<String> = (1..200)
        .map(|n| {
            format!(
                r#"{{"op":"add","path":"/x{}","value":{{}}}}"#,
                "/x".repeat(n)
            )
        })
        .collect();
    let mut list = seeds_after(
        0,
        &[
            r#"[{"op":"add","path":"/metadata/labels","value":{"x":"y"}},{"op":"add","path":"/spec/containers/-","value":{"name":"d","image":"j"}},{"op":"test","path":"/kind","value":"Pod"}]"#,
            r#"[{"op":"replace","path":"/metadata/name","value":"other"},{"op":"remove","path":"/spec/containers"}]"#,
            r#"[{"op":"replace","path":"","value":[]}]"#,
            &format!("[{copies}]"),
            &format!(
                r#"[{{"op":"add","path":"/metadata/annotations","value":{{}}}},{}]"#,
                doubled.join(",")
            ),
            &format!(
                r#"[{{"op":"add","path":"/x","value":{{}}}},{}]"#,
                deep.join(",")
            ),
        ],
    );
    list.extend(seeds_after(
        1,
        &[
            r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"@UID@","allowed":true,"warnings":["w\n\u0000",1]}}"#,
            r#"{"response":{"uid":"@UID@","allowed":false,"status":{"code":403,"reason":"No","message":"m","details":{"a":1}}}}"#,
            r#"{"response":{"uid":"other","allowed":true}}"#,
            r#"{"response":{"uid":"@UID@","allowed":true,"patch":"W10="}}"#,
        ],
    ));
    list.extend(seeds_after(
        2,
        &[
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            "HTTP/1.1 101 Yes\r\n\r\n",
        ],
    ));
    list
}

/// A server of this thread, with a service account and a webhook.
struct World {
    api: Api,
    key: EcdsaKeyPair,
    /// `metadata.uid` of the account `default/a`.
    account: String,
    /// What the webhook answers.
    next: Arc<Mutex<Vec<u8>>>,
    /// Stops when it is dropped.
    _handle: ServerHandle,
}

fn world() -> Rc<World> {
    thread_local! {
        static WORLD: Rc<World> = Rc::new(real().block_on(start()));
    }
    WORLD.with(Rc::clone)
}

async fn start() -> World {
    let pki = ClusterPki::generate(SystemTime::now()).expect("keys");
    let key = private_key_from_pem(&pki.service_account_key_pem).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der());
    let thread = format!("{:?}", std::thread::current().id());
    let folder = format!("lateen-fuzz-{}-{thread}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let server = ApiServer::start(ApiServerOptions::new(&folder, pki)).await;
    let (handle, api) = server.expect("a server");
    // The open file goes with the process.
    std::fs::remove_dir_all(&folder).expect("removed");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hooked", "labels": {"hooked": "yes"}}});
    api.create(&NAMESPACES, None, namespace)
        .await
        .expect("made");
    // Pods run as this account where they name none.
    let usual = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "hooked"}});
    api.create(&SERVICE_ACCOUNTS, Some("hooked"), usual)
        .await
        .expect("made");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "default"}});
    let account = api
        .create(&SERVICE_ACCOUNTS, Some("default"), account)
        .await;
    let account = account.expect("made")["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let next = Arc::new(Mutex::new(Vec::new()));
    let (port, bundle) = webhook(next.clone()).await;
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "hook"}, "webhooks": [{"name": "a.b.c", "timeoutSeconds": 5, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "namespaceSelector": {"matchLabels": {"hooked": "yes"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "clientConfig": {"url": format!("https://127.0.0.1:{port}/"), "caBundle": BASE64.encode(bundle)}}]});
    api.create(&MUTATING_WEBHOOKS, None, hook)
        .await
        .expect("made");
    World {
        api,
        key: key.expect("a P-256 key"),
        account,
        next,
        _handle: handle,
    }
}

/// Answers every review with what is next; gives its port and its authority's certificate.
async fn webhook(next: Arc<Mutex<Vec<u8>>>) -> (u16, String) {
    let now = SystemTime::now();
    let ca = CertificateAuthority::self_signed("a", "b", now).expect("a root");
    let subject = Subject::Server {
        common_name: "w",
        names: &["127.0.0.1".to_owned()],
    };
    let life = std::time::Duration::from_secs(24 * 3600);
    let issued = ca.issue(&subject, life, now).expect("issued");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            certificates_from_pem(&issued.cert_pem).expect("a certificate"),
            private_key_from_pem(&issued.key_pem).expect("a key"),
        )
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = socket.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let (acceptor, next) = (acceptor.clone(), next.clone());
            tokio::spawn(async move {
                // The caller sees a broken connection, as it should.
                let _ = reviewed(acceptor, stream, &next).await;
            });
        }
    });
    (port, ca.cert_pem().to_owned())
}

async fn reviewed(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    next: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    let uid = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let body = request.windows(4).position(|four| four == b"\r\n\r\n");
        let body = body.map(|at| &request[at + 4..]).unwrap_or_default();
        // The request is whole when it is JSON.
        if let Ok(review) = serde_json::from_slice::<Value>(body) {
            break review["request"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
    };
    let answer = next.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Its length is the placeholder's when it is counted: a uid has 36 characters.
    let answer = match std::str::from_utf8(&answer) {
        Ok(text) => text.replace(PLACEHOLDER, &uid).into_bytes(),
        Err(_) => answer,
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

const PLACEHOLDER: &str = "@UID@@UID@@UID@@UID@@UID@@UID@@UID@@";

/// The pod that is made under the webhook's answer.
fn created(data: &[u8]) -> Option<Arc<Value>> {
    let (option, input) = choice(data);
    let body = match option & 3 {
        0 => {
            let patch = BASE64.encode(input);
            let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                "response": {"uid": "@UID@", "allowed": true, "patchType": "JSONPatch", "patch": patch}});
            review.to_string().into_bytes()
        }
        _ => input.to_vec(),
    };
    let body = match text(&body) {
        Some(text) => text.replace("@UID@", PLACEHOLDER).into_bytes(),
        None => body,
    };
    let http = match option & 3 {
        0 | 1 => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        }
        _ => body,
    };
    let world = world();
    *world.next.lock().unwrap_or_else(PoisonError::into_inner) = http;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "hooked"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = watched(|| {
        real().block_on(async {
            let made = world.api.create(&PODS, Some("hooked"), pod).await;
            if let Ok(pod) = &made {
                let name = pod["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let now = DeleteOptions::now();
                let gone = world.api.delete(&PODS, Some("hooked"), &name, now).await;
                // Finalizers that the webhook gave keep it: they are taken off.
                if !matches!(gone, Ok(None)) {
                    let patch = json!({"metadata": {"finalizers": null}});
                    let api = &world.api;
                    let _ = api
                        .merge_patch(&PODS, Some("hooked"), &name, &patch, None)
                        .await;
                }
            }
            made
        })
    });
    match made {
        Ok(pod) => {
            assert_eq!(
                (&pod["kind"], &pod["metadata"]["namespace"]),
                (&json!("Pod"), &json!("hooked"))
            );
            assert_can_be_stored(&pod);
            assert!(
                pod.to_string().len() < (1 << 16) + 64 * input.len(),
                "grown"
            );
            Some(pod)
        }
        Err(error) => {
            assert!((400..600).contains(&error.code), "{}", error.code);
            assert_ne!(error.code, 409, "a pod of an earlier input is left");
            None
        }
    }
}

/// Asks the server, as the control plane does by a TokenReview.
struct Reviewer(Api);

#[async_trait]
impl TokenReviewer for Reviewer {
    async fn review(&self, token: &str) -> Result<(String, String), String> {
        let (name, audiences) = verify_token(&self.0, token)?;
        if !audiences.iter().any(|audience| audience == "istio-ca") {
            return Err("another audience".to_owned());
        }
        let rest = name
            .strip_prefix("system:serviceaccount:")
            .ok_or("no account")?;
        let (namespace, account) = rest.split_once(':').ok_or("no account")?;
        Ok((namespace.to_owned(), account.to_owned()))
    }
}

/// Who the token says it is.
fn caller(data: &[u8]) -> Option<Caller> {
    let (option, input) = choice(data);
    let text = text(input)?;
    let world = world();
    let signed = option & 1 != 0;
    let header = if signed {
        let (head, claims) = text.split_once('\n')?;
        let claims = claims.replace("UID", &world.account);
        let content = format!("{}.{}", TOKEN.encode(head), TOKEN.encode(claims));
        let signature = world.key.sign(&SystemRandom::new(), content.as_bytes());
        let signature = TOKEN.encode(signature.expect("signed").as_ref());
        format!("Bearer {content}.{signature}")
    } else {
        text.to_owned()
    };
    let authenticator = Authenticator::new(Arc::new(Reviewer(world.api.clone())), Arc::default());
    let caller = watched(|| real().block_on(authenticator.caller(Some(&header))));
    let caller = caller.ok()?;
    assert!(signed, "nobody signed this");
    let only = Caller::ServiceAccount {
        namespace: "default".to_owned(),
        name: "a".to_owned(),
    };
    assert_eq!(caller, only);
    Some(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_reach_the_server() {
        let known: Vec<bool> = (TOKENS.seeds)()
            .iter()
            .map(|seed| caller(seed).is_some())
            .collect();
        assert!(known[0] && !known[1..].contains(&true), "{known:?}");
        let pods: Vec<_> = webhook_seeds().iter().map(|seed| created(seed)).collect();
        let patched = pods[0].as_ref().expect("patched");
        assert_eq!(patched["metadata"]["labels"]["x"], "y");
        assert_eq!(patched["spec"]["containers"][1]["name"], "d");
        let whole = pods.iter().skip(6).map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(whole[..3], [true, false, false], "{whole:?}");
    }
}
