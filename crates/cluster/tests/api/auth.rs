//! Who may do what: certificates, tokens, roles, impersonation, reviews.

use lateen_cluster::api::resource::{PODS, SERVICE_ACCOUNTS};
use lateen_cluster::api::{BoundPod, DeleteOptions};
use serde_json::{Value, json};

use super::support::{ADMIN_TOKEN, Cluster, cluster};

#[tokio::test]
async fn tokens_live_with_their_account_and_pod() {
    let c = cluster().await;
    c.namespace("n").await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = c.api.create(&PODS, Some("n"), pod).await.expect("pod");
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(
        mount["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    let bound = BoundPod {
        name: "p".to_owned(),
        uid: pod["metadata"]["uid"].as_str().expect("uid").to_owned(),
    };
    let api_token = c
        .api
        .service_account_token("n", "default", &[], 3607, Some(&bound))
        .await
        .expect("token");
    let other = c
        .api
        .service_account_token("n", "default", &["istio-ca".to_owned()], 600, None)
        .await
        .expect("token");
    assert!(
        c.api
            .service_account_token("n", "default", &[], 60, None)
            .await
            .is_err_and(|e| e.code == 422)
    );
    let review = |token: &str, audiences: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (code, r) = c
        .json("POST", path, &review(&api_token.token, Value::Null))
        .await;
    assert_eq!(code, 201);
    assert_eq!(r["status"]["authenticated"], true);
    assert_eq!(
        r["status"]["user"]["username"],
        "system:serviceaccount:n:default"
    );
    assert_eq!(
        r["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    let (_, r) = c
        .json("POST", path, &review(&other.token, json!(["istio-ca"])))
        .await;
    assert_eq!(r["status"]["audiences"], json!(["istio-ca"]));
    let (_, r) = c
        .json("POST", path, &review(&other.token, Value::Null))
        .await;
    assert_eq!(r["status"]["authenticated"], false);
    // A token for another audience does not open the API itself.
    assert_eq!(c.request("GET", "/api", &other.token, &[], "").await.0, 401);
    assert_eq!(
        c.request("GET", "/api", &api_token.token, &[], "").await.0,
        200
    );
    c.api
        .delete(&PODS, Some("n"), "p", DeleteOptions::now())
        .await
        .expect("delete");
    assert_eq!(
        c.request("GET", "/api", &api_token.token, &[], "").await.0,
        401
    );
    let free = c
        .api
        .service_account_token("n", "default", &[], 600, None)
        .await
        .expect("token");
    assert_eq!(c.request("GET", "/api", &free.token, &[], "").await.0, 200);
    c.api
        .delete(
            &SERVICE_ACCOUNTS,
            Some("n"),
            "default",
            DeleteOptions::now(),
        )
        .await
        .expect("delete");
    assert_eq!(c.request("GET", "/api", &free.token, &[], "").await.0, 401);
    c.server.shutdown().await;
}

#[tokio::test]
async fn roles_decide_and_impersonation_is_a_permission() {
    let c = cluster().await;
    c.namespace("n").await;
    let token = c
        .api
        .service_account_token("n", "default", &[], 600, None)
        .await
        .expect("token")
        .token;
    let pods = "/api/v1/namespaces/n/pods";
    let (code, _, text) = c.request("GET", pods, &token, &[], "").await;
    assert_eq!(code, 403);
    assert!(text.contains("User \\\"system:serviceaccount:n:default\\\" cannot list resource \\\"pods\\\" in API group \\\"\\\" in the namespace \\\"n\\\""), "{text}");
    let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]});
    let bind = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "n"}]});
    let base = "/apis/rbac.authorization.k8s.io/v1/namespaces/n";
    assert_eq!(c.json("POST", &format!("{base}/roles"), &role).await.0, 201);
    assert_eq!(
        c.json("POST", &format!("{base}/rolebindings"), &bind)
            .await
            .0,
        201
    );
    assert_eq!(c.request("GET", pods, &token, &[], "").await.0, 200);
    assert_eq!(
        c.request("GET", "/api/v1/namespaces/default/pods", &token, &[], "")
            .await
            .0,
        403
    );
    let me = [("impersonate-user", "jane")];
    assert_eq!(c.request("GET", pods, &token, &me, "").await.0, 403);
    assert_eq!(c.request("GET", pods, ADMIN_TOKEN, &me, "").await.0, 403);
    let me = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "system:masters"),
    ];
    assert_eq!(c.request("GET", pods, ADMIN_TOKEN, &me, "").await.0, 200);
    // A group without a user would leave the caller's own rights in force.
    for half in [
        "impersonate-group",
        "impersonate-uid",
        "impersonate-extra-a",
    ] {
        let (code, _, text) = c
            .request("GET", pods, ADMIN_TOKEN, &[(half, "x")], "")
            .await;
        assert_eq!(code, 400, "{half}: {text}");
        assert!(text.contains("Impersonate-User"), "{text}");
    }
    impersonation_is_asked_for_part_by_part(&c, pods, &token).await;
    // Without credentials: health and version, nothing else.
    assert_eq!(c.request("GET", "/healthz", "", &[], "").await.2, "ok");
    assert_eq!(c.request("GET", "/version", "", &[], "").await.0, 200);
    assert_eq!(c.request("GET", "/api", "", &[], "").await.0, 403);
    assert_eq!(c.request("GET", "/api", "wrong", &[], "").await.0, 401);
    let (_, _, keys) = c.request("GET", "/openid/v1/jwks", "", &[], "").await;
    assert!(keys.contains("ES256"), "{keys}");
    let (code, _, _) = c.request("GET", "/nonsense", ADMIN_TOKEN, &[], "").await;
    assert_eq!(code, 404);
    c.server.shutdown().await;
}

/// A service account that may be `jane` may not add groups, extra fields or a uid to her.
async fn impersonation_is_asked_for_part_by_part(c: &Cluster, pods: &str, token: &str) {
    let base = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "jane"}, "rules": [
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/why"]}]});
    let bind = json!({"metadata": {"name": "jane"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "jane"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "n"}, {"kind": "User", "name": "system:serviceaccount:n:other"}]});
    let roles = format!("{base}/clusterroles");
    assert_eq!(c.json("POST", &roles, &role).await.0, 201);
    let bindings = format!("{base}/clusterrolebindings");
    assert_eq!(c.json("POST", &bindings, &bind).await.0, 201);
    let jane = ("impersonate-user", "jane");
    let tries = [
        (vec![jane], "User \\\"jane\\\" cannot list"),
        (
            vec![jane, ("impersonate-extra-why", "a")],
            "User \\\"jane\\\" cannot list",
        ),
        (
            vec![jane, ("impersonate-extra-who", "a")],
            "cannot impersonate resource \\\"userextras/who\\\"",
        ),
        (
            vec![jane, ("impersonate-group", "g")],
            "cannot impersonate resource \\\"groups\\\"",
        ),
        (
            vec![jane, ("impersonate-uid", "1")],
            "cannot impersonate resource \\\"uids\\\"",
        ),
        (
            vec![("impersonate-user", "system:serviceaccount:n:x")],
            "cannot impersonate resource \\\"serviceaccounts\\\"",
        ),
    ];
    for (headers, said) in tries {
        let (code, _, text) = c.request("GET", pods, token, &headers, "").await;
        assert_eq!(code, 403, "{headers:?}: {text}");
        assert!(text.contains(said), "{headers:?}: {text}");
    }
}

#[tokio::test]
async fn aggregated_roles_gather_by_label() {
    let c = cluster().await;
    c.namespace("n").await;
    let token = c
        .api
        .service_account_token("n", "default", &[], 600, None)
        .await
        .expect("token")
        .token;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let bind = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "n"}]});
    let (code, e) = c
        .json("POST", &format!("{rbac}/namespaces/n/rolebindings"), &bind)
        .await;
    assert_eq!(code, 201, "{e}");
    let secrets = "/api/v1/namespaces/n/secrets";
    assert_eq!(
        c.request("GET", "/api/v1/namespaces/n/pods", &token, &[], "")
            .await
            .0,
        200
    );
    assert_eq!(c.request("GET", secrets, &token, &[], "").await.0, 403);
    let more = json!({"metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"]}]});
    let (code, e) = c.json("POST", &format!("{rbac}/clusterroles"), &more).await;
    assert_eq!(code, 201, "{e}");
    assert_eq!(c.request("GET", secrets, &token, &[], "").await.0, 200);
    c.server.shutdown().await;
}

/// The handshake is no place to say who may come in: a person must see the API's 401.
#[tokio::test]
async fn a_certificate_of_a_foreign_authority_is_nobody() {
    let c = cluster().await;
    let now = std::time::SystemTime::now();
    let foreign =
        lateen_identity::CertificateAuthority::self_signed("lateen", "kubernetes-ca", now)
            .expect("an authority");
    let subject = lateen_identity::Subject::Client {
        user: "evil",
        group: Some("system:masters"),
    };
    let hour = std::time::Duration::from_secs(3600);
    let leaf = foreign.issue(&subject, hour, now).expect("a certificate");
    for (path, code) in [
        ("/api/v1/secrets", 401),
        ("/api/v1/namespaces/kube-system", 401),
    ] {
        let identity = (leaf.cert_pem.as_str(), leaf.key_pem.as_str());
        let mut sender = c.connect_with(Some(identity)).await;
        let request = http::Request::get(path)
            .header("host", "kubernetes")
            .body(http_body_util::Full::new(bytes::Bytes::new()))
            .expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), code, "{path}");
    }
}
