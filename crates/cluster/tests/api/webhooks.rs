//! Admission webhooks: injected changes, refusals, selectors, failures.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lateen_cluster::api::resource::{
    CONFIG_MAPS, ENDPOINT_SLICES, MUTATING_WEBHOOKS, PODS, SERVICES, VALIDATING_WEBHOOKS,
};
use lateen_identity::{CertificateAuthority, Subject};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::support::{Cluster, cluster};

type Calls = Arc<Mutex<Vec<Value>>>;

struct Hook {
    port: u16,
    bundle: String,
    calls: Calls,
}

/// An HTTPS server named `hook.default.svc` that answers reviews by `answer`.
async fn hook(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Hook {
    let now = SystemTime::now();
    let ca = CertificateAuthority::self_signed("test", "hooks", now).expect("ca");
    let names = ["hook.default.svc".to_owned(), "localhost".to_owned()];
    let subject = Subject::Server {
        common_name: "hook",
        names: &names,
    };
    let leaf = ca
        .issue(&subject, Duration::from_secs(3600), now)
        .expect("leaf");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            lateen_identity::certificates_from_pem(&leaf.cert_pem).expect("cert"),
            lateen_identity::private_key_from_pem(&leaf.key_pem).expect("key"),
        )
        .expect("config");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let calls: Calls = Arc::default();
    let (seen, answer) = (Arc::clone(&calls), Arc::new(answer));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen, answer) =
                (acceptor.clone(), Arc::clone(&seen), Arc::clone(&answer));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    async move {
                        let bytes = request.into_body().collect().await?.to_bytes();
                        let review: Value = serde_json::from_slice(&bytes).expect("json");
                        let mut response = answer(&review["request"]);
                        response["uid"] = review["request"]["uid"].clone();
                        seen.lock().expect("lock").push(review);
                        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
                        Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(
                            body.to_string(),
                        ))))
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Hook {
        port,
        bundle: base64::engine::general_purpose::STANDARD.encode(ca.cert_pem()),
        calls,
    }
}

fn patch(operations: Value) -> Value {
    let coded = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": coded, "warnings": ["mind this"]})
}

impl Hook {
    fn config(&self, name: &str, resources: &[&str]) -> Value {
        json!({"metadata": {"name": name}, "webhooks": [{"name": "w.demo.io", "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "default", "name": "hook", "path": "/go"}, "caBundle": self.bundle},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources}]}]})
    }

    /// The Service `hook` that leads here.
    async fn serve(&self, c: &Cluster) {
        let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}], "selector": {"app": "hook"}}});
        c.api
            .create(&SERVICES, Some("default"), service)
            .await
            .expect("service");
        let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
            "ports": [{"name": "", "port": self.port}]});
        c.api
            .create(&ENDPOINT_SLICES, Some("default"), slice)
            .await
            .expect("slice");
    }
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "app", "image": "i:1"}]}})
}

#[tokio::test]
async fn an_injected_container_is_defaulted_and_gets_the_token() {
    let c = cluster().await;
    c.namespace("n").await;
    let h = hook(|_| {
        patch(json!([
            {"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "s:1", "ports": [{"containerPort": 15090}]}},
            {"op": "add", "path": "/metadata/labels", "value": {"injected": "yes"}}]))
    })
    .await;
    h.serve(&c).await;
    let mut config = h.config("inject", &["pods"]);
    config["webhooks"][0]["namespaceSelector"] = json!({"matchLabels": {"inject": "on"}});
    config["webhooks"][0]["objectSelector"] =
        json!({"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]});
    config["webhooks"][0]["matchConditions"] = json!([{"name": "not-host", "expression": "!has(object.spec.hostNetwork) || !object.spec.hostNetwork"}]);
    c.api
        .create(&MUTATING_WEBHOOKS, None, config)
        .await
        .expect("config");
    let plain = c
        .api
        .create(&PODS, Some("n"), pod("before"))
        .await
        .expect("pod");
    assert_eq!(
        plain["spec"]["containers"].as_array().map(Vec::len),
        Some(1)
    );
    c.json(
        "PATCH",
        "/api/v1/namespaces/n",
        &json!({"metadata": {"labels": {"inject": "on"}}}),
    )
    .await;
    let p = c.api.create(&PODS, Some("n"), pod("p")).await.expect("pod");
    let side = &p["spec"]["containers"][1];
    assert_eq!(side["name"], "side");
    assert_eq!(side["ports"][0]["protocol"], "TCP");
    assert_eq!(side["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        side["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(p["metadata"]["labels"]["injected"], "yes");
    let mut skipped = pod("q");
    skipped["metadata"]["labels"] = json!({"skip": "1"});
    let q = c.api.create(&PODS, Some("n"), skipped).await.expect("pod");
    assert_eq!(q["spec"]["containers"].as_array().map(Vec::len), Some(1));
    let mut host = pod("r");
    host["spec"]["hostNetwork"] = true.into();
    let r = c.api.create(&PODS, Some("n"), host).await.expect("pod");
    assert_eq!(r["spec"]["containers"].as_array().map(Vec::len), Some(1));
    // The warning reaches the client; a dry run calls the hook too.
    let (code, headers, _) = c
        .request(
            "POST",
            "/api/v1/namespaces/n/pods?dryRun=All",
            super::support::ADMIN_TOKEN,
            &[],
            &pod("dry").to_string(),
        )
        .await;
    assert_eq!(code, 201);
    assert_eq!(headers["warning"], "299 - \"mind this\"");
    let calls = h.calls.lock().expect("lock").clone();
    let first = &calls[0]["request"];
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (&first["operation"], &first["namespace"], &first["name"]),
        (&json!("CREATE"), &json!("n"), &json!("p"))
    );
    assert_eq!(
        first["resource"],
        json!({"group": "", "version": "v1", "resource": "pods"})
    );
    assert_eq!(first["userInfo"]["groups"][0], "system:masters");
    assert_eq!(calls[1]["request"]["dryRun"], true);
    c.server.shutdown().await;
}

#[tokio::test]
async fn refusals_and_failures_read_as_usual() {
    let c = cluster().await;
    let h = hook(|r| {
        if r["object"]["data"]["bad"].is_string() {
            json!({"allowed": false, "status": {"message": "data.bad is not welcome", "code": 422, "reason": "Invalid"}})
        } else {
            json!({"allowed": true})
        }
    })
    .await;
    let config = h.config("check", &["configmaps"]);
    c.api
        .create(&VALIDATING_WEBHOOKS, None, config.clone())
        .await
        .expect("config");
    let cm = |name: &str, data: Value| json!({"metadata": {"name": name}, "data": data});
    let e = c
        .api
        .create(&CONFIG_MAPS, Some("default"), cm("a", json!({})))
        .await
        .expect_err("no service");
    assert_eq!(e.code, 500);
    assert_eq!(
        e.message,
        "Internal error occurred: failed calling webhook \"w.demo.io\": failed to call webhook: service \"hook\" not found"
    );
    h.serve(&c).await;
    c.api
        .create(&CONFIG_MAPS, Some("default"), cm("a", json!({"ok": "1"})))
        .await
        .expect("allowed");
    let e = c
        .api
        .create(&CONFIG_MAPS, Some("default"), cm("b", json!({"bad": "1"})))
        .await
        .expect_err("denied");
    assert_eq!(
        (e.code, e.message.as_str()),
        (
            422,
            "admission webhook \"w.demo.io\" denied the request: data.bad is not welcome"
        )
    );
    // A wrong authority: the call fails, and is skipped when the policy says so.
    let other = CertificateAuthority::self_signed("other", "", SystemTime::now()).expect("ca");
    let wrong = base64::engine::general_purpose::STANDARD.encode(other.cert_pem());
    let fix = |policy: &str| {
        json!({"webhooks": [{"name": "w.demo.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": policy, "rules": config["webhooks"][0]["rules"],
        "clientConfig": {"url": format!("https://localhost:{}/x", h.port), "caBundle": wrong}}]})
    };
    c.api
        .merge_patch(&VALIDATING_WEBHOOKS, None, "check", &fix("Fail"), None)
        .await
        .expect("patch");
    let e = c
        .api
        .create(&CONFIG_MAPS, Some("default"), cm("c", json!({})))
        .await
        .expect_err("untrusted");
    assert!(
        e.message.contains(&format!(
            "failed to call webhook: Post \"https://localhost:{}/x?timeout=10s\"",
            h.port
        )),
        "{e}"
    );
    c.api
        .merge_patch(&VALIDATING_WEBHOOKS, None, "check", &fix("Ignore"), None)
        .await
        .expect("patch");
    c.api
        .create(&CONFIG_MAPS, Some("default"), cm("c", json!({})))
        .await
        .expect("ignored");
    c.server.shutdown().await;
}

#[tokio::test]
async fn a_webhook_changes_no_identity_and_nothing_the_server_owns() {
    let c = cluster().await;
    let wanted: Arc<Mutex<Value>> = Arc::new(Mutex::new(json!([])));
    let operations = Arc::clone(&wanted);
    let h = hook(move |_| patch(operations.lock().expect("lock").clone())).await;
    h.serve(&c).await;
    let mut config = h.config("lies", &["configmaps", "pods"]);
    config["webhooks"][0]["rules"][0]["operations"] = json!(["CREATE", "UPDATE"]);
    c.api
        .create(&MUTATING_WEBHOOKS, None, config)
        .await
        .expect("config");
    let set = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    let base = "/api/v1/namespaces/default/configmaps";
    let (code, made) = c
        .json("POST", base, &json!({"metadata": {"name": "u"}}))
        .await;
    assert_eq!(code, 201, "{made}");
    let immutable = ": field is immutable";
    for (path, value, on_create, on_update, why) in [
        ("/metadata/name", "evil", 422, 422, immutable),
        (
            "/metadata/namespace",
            "kube-system",
            400,
            400,
            "does not match the namespace",
        ),
        ("/metadata/uid", "u-1", 201, 422, immutable),
        (
            "/kind",
            "Secret",
            500,
            500,
            "failed calling webhook \"w.demo.io\": the patch makes kind",
        ),
        (
            "/apiVersion",
            "v2",
            500,
            500,
            "the patch makes apiVersion \"v2\" of \"v1\"",
        ),
    ] {
        *wanted.lock().expect("lock") = set(path, value.into());
        let name = format!("new{}", path.replace('/', "-").to_lowercase());
        let body = json!({"metadata": {"name": name}});
        let (code, answer) = c.json("POST", base, &body).await;
        assert_eq!(code, on_create, "{path}: {answer}");
        assert!(
            code == 201 || answer["message"].as_str().is_some_and(|m| m.contains(why)),
            "{answer}"
        );
        assert_ne!(answer["metadata"]["uid"], "u-1");
        let change = json!({"data": {"path": path}});
        let (code, answer) = c.json("PATCH", &format!("{base}/u"), &change).await;
        assert_eq!(code, on_update, "{path}: {answer}");
        assert!(
            answer["message"].as_str().is_some_and(|m| m.contains(why)),
            "{answer}"
        );
    }
    // What the server owns is as if the hook had not touched it; its other changes stay.
    *wanted.lock().expect("lock") = json!([
        {"op": "add", "path": "/metadata/creationTimestamp", "value": "2001-01-01T00:00:00Z"},
        {"op": "add", "path": "/metadata/generation", "value": 7},
        {"op": "add", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "add", "path": "/metadata/deletionTimestamp", "value": "2001-01-01T00:00:00Z"},
        {"op": "add", "path": "/metadata/managedFields", "value": []},
        {"op": "add", "path": "/data", "value": {"hook": "was here"}}]);
    let (code, next) = c
        .json("PATCH", &format!("{base}/u"), &json!({"data": {"a": "b"}}))
        .await;
    assert_eq!(code, 200, "{next}");
    assert_eq!(next["data"], json!({"hook": "was here"}));
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        assert_eq!(next["metadata"][field], made["metadata"][field], "{field}");
    }
    let body = json!({"metadata": {"name": "late"}});
    let (code, late) = c.json("POST", base, &body).await;
    assert_eq!(code, 201, "{late}");
    for object in [&next, &late] {
        let m = &object["metadata"];
        assert_ne!(m["creationTimestamp"], "2001-01-01T00:00:00Z");
        assert!(
            m["generation"].is_null() && m["deletionTimestamp"].is_null(),
            "{m}"
        );
        assert_ne!(m["resourceVersion"], "1");
        assert_eq!(m["managedFields"].as_array().map(Vec::len), Some(1), "{m}");
    }
    let (_, all) = c.json("GET", base, &Value::Null).await;
    let items = all["items"].as_array().expect("items");
    assert!(
        items.iter().all(|o| o["metadata"]["name"] != "evil"),
        "{all}"
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn an_injected_container_counts_in_the_quality_of_service() {
    let c = cluster().await;
    c.namespace("n").await;
    let h = hook(|_| {
        patch(json!([
            {"op": "add", "path": "/status", "value": {"phase": "Running"}},
            {"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "s:1",
                "resources": {"requests": {"cpu": "10m"}}}}]))
    })
    .await;
    h.serve(&c).await;
    let config = h.config("inject", &["pods"]);
    let plain = c.api.create(&PODS, Some("n"), pod("p")).await.expect("pod");
    assert_eq!(plain["status"]["qosClass"], "BestEffort");
    c.api
        .create(&MUTATING_WEBHOOKS, None, config)
        .await
        .expect("config");
    let more = c.api.create(&PODS, Some("n"), pod("q")).await.expect("pod");
    assert_eq!(more["status"]["qosClass"], "Burstable");
    assert_eq!(
        more["status"]["phase"], "Pending",
        "a hook writes no status"
    );
    c.server.shutdown().await;
}
