//! What is wrong is refused with the code, reason, message and details of a real server.

use serde_json::{Value, json};

use super::support::{ADMIN_TOKEN, Cluster, cluster};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn patch(c: &Cluster, kind: &str, path: &str, body: &str) -> (u16, Value) {
    let kind = format!("application/{kind}+json");
    let headers = [("content-type", kind.as_str())];
    let (code, _, text) = c.request("PATCH", path, ADMIN_TOKEN, &headers, body).await;
    (code, serde_json::from_str(&text).expect("json"))
}

fn deployment(spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": "d"}, "spec": {
        "template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test]
async fn unknown_methods_are_not_allowed() {
    let c = cluster().await;
    for path in [DEPLOYMENTS, "/api/v1/namespaces/default"] {
        let (code, e) = c.json("FOO", path, &Value::Null).await;
        assert_eq!((code, &e["reason"]), (405, &json!("MethodNotAllowed")));
        assert_eq!(
            e["message"],
            "the server does not allow this method on the requested resource"
        );
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn values_that_cannot_be_decoded_are_400() {
    let c = cluster().await;
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "YWJj!"}});
    let (code, e) = c
        .json("POST", "/api/v1/namespaces/default/secrets", &secret)
        .await;
    assert_eq!((code, &e["reason"]), (400, &json!("BadRequest")), "{e}");
    assert_eq!(
        e["message"],
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 4"
    );
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"limits": {"cpu": "lots"}}}]}});
    let (code, e) = c
        .json("POST", "/api/v1/namespaces/default/pods", &pod)
        .await;
    assert_eq!((code, &e["reason"]), (400, &json!("BadRequest")), "{e}");
    let text = e["message"].as_str().expect("text");
    assert!(
        text.starts_with("Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression"),
        "{text}"
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn a_missing_selector_matches_no_template() {
    let c = cluster().await;
    let (code, e) = c.json("POST", DEPLOYMENTS, &deployment(&json!({}))).await;
    assert_eq!(code, 422, "{e}");
    let mismatch = "Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`";
    assert_eq!(
        e["details"]["causes"],
        json!([
            {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"},
            {"reason": "FieldValueInvalid", "message": mismatch, "field": "spec.template.metadata.labels"},
        ])
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn patches_to_wrong_types_are_422_about_the_patch() {
    let c = cluster().await;
    let object = deployment(&json!({"selector": {"matchLabels": {"app": "x"}}}));
    assert_eq!(c.json("POST", DEPLOYMENTS, &object).await.0, 201);
    let path = format!("{DEPLOYMENTS}/d");
    let body = r#"{"spec":{"replicas":"two"}}"#;
    let (code, e) = patch(&c, "strategic-merge-patch", &path, body).await;
    assert_eq!((code, &e["reason"]), (422, &json!("Invalid")), "{e}");
    let why = "Invalid value: \"map[spec:map[replicas:two]]\": unrecognized type: int32";
    assert_eq!(e["message"], format!(" \"\" is invalid: patch: {why}"));
    assert_eq!(
        e["details"],
        json!({"causes": [{"reason": "FieldValueInvalid", "message": why, "field": "patch"}]})
    );
    let operation = r#"[{"op": "replace", "path": "/spec/replicas", "value": "two"}]"#;
    for (kind, body) in [("merge-patch", body), ("json-patch", operation)] {
        let (code, e) = patch(&c, kind, &path, body).await;
        assert_eq!((code, &e["reason"]), (422, &json!("Invalid")), "{e}");
        let cause = e["details"]["causes"][0]["message"].as_str().expect("text");
        assert!(cause.starts_with("Invalid value: \"{\\\""), "{cause}");
        assert!(
            cause.ends_with("json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
            "{cause}"
        );
    }
    let strict = format!("{path}?fieldValidation=Strict");
    let (code, e) = patch(
        &c,
        "strategic-merge-patch",
        &strict,
        r#"{"spec":{"foo":1}}"#,
    )
    .await;
    assert_eq!(code, 422, "{e}");
    assert_eq!(
        e["details"]["causes"][0]["message"],
        "Invalid value: \"map[spec:map[foo:1]]\": strict decoding error: unknown field \"spec.foo\""
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn clients_that_take_no_json_get_406() {
    let c = cluster().await;
    let ask = async |accept: &str| {
        let headers = [("accept", accept)];
        c.request("GET", "/api/v1/namespaces", ADMIN_TOKEN, &headers, "")
            .await
    };
    let (code, _, text) = ask("text/html").await;
    let e: Value = serde_json::from_str(&text).expect("json");
    assert_eq!((code, &e["reason"]), (406, &json!("NotAcceptable")), "{e}");
    assert_eq!(
        e["message"],
        "only the following media types are accepted: application/json, application/yaml"
    );
    for accept in ["text/html, */*;q=0.8", "application/json", "*/*"] {
        assert_eq!(ask(accept).await.0, 200, "{accept}");
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn versions_to_come_are_504() {
    let c = cluster().await;
    let now = c.json("GET", "/api/v1/namespaces", &Value::Null).await.1;
    let now = now["metadata"]["resourceVersion"]
        .as_str()
        .expect("version");
    for path in ["/api/v1/namespaces", "/api/v1/namespaces/default"] {
        let later = format!("{path}?resourceVersion=99999999");
        let (code, headers, text) = c.request("GET", &later, ADMIN_TOKEN, &[], "").await;
        let e: Value = serde_json::from_str(&text).expect("json");
        assert_eq!((code, &e["reason"]), (504, &json!("Timeout")), "{e}");
        let text = e["message"].as_str().expect("text");
        assert!(
            text.starts_with("Timeout: Too large resource version: 99999999, current: "),
            "{text}"
        );
        let cause =
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        assert_eq!(
            e["details"],
            json!({"causes": [cause], "retryAfterSeconds": 1})
        );
        assert_eq!(headers["retry-after"], "1");
        let present = format!("{path}?resourceVersion={now}");
        assert_eq!(c.json("GET", &present, &Value::Null).await.0, 200);
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn oversized_data_is_told_of_the_whole() {
    let c = cluster().await;
    let why = "Too long: may not be more than 1048576 bytes";
    let big = json!({"metadata": {"name": "big"}, "data": {"a": "a".repeat(1_048_577)}});
    let (code, e) = c
        .json("POST", "/api/v1/namespaces/default/configmaps", &big)
        .await;
    assert_eq!(code, 422);
    assert_eq!(
        e["message"],
        format!("ConfigMap \"big\" is invalid: []: {why}")
    );
    // A Secret's limit is on its bytes, not on their base64.
    for (quads, code) in [(349_525, 201), (349_526, 422)] {
        let name = format!("big-{quads}");
        let big = json!({"metadata": {"name": name}, "data": {"a": "YWFh".repeat(quads)}});
        let (got, e) = c
            .json("POST", "/api/v1/namespaces/default/secrets", &big)
            .await;
        assert_eq!(got, code);
        if code == 422 {
            assert_eq!(
                e["message"],
                format!("Secret {name:?} is invalid: data: {why}")
            );
        }
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn a_service_keeps_its_address() {
    let c = cluster().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(c.json("POST", services, &service).await.0, 201);
    // Whether or not the other address is of the range.
    for ip in ["192.0.2.9", "10.96.7.7"] {
        let change = json!({"spec": {"clusterIP": ip, "clusterIPs": [ip]}});
        let (code, e) = c.json("PATCH", &format!("{services}/s"), &change).await;
        assert_eq!(code, 422, "{e}");
        assert_eq!(
            e["details"]["causes"][0],
            json!({"reason": "FieldValueInvalid", "field": "spec.clusterIPs[0]",
                "message": format!("Invalid value: \"{ip}\": may not change once set")})
        );
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn appliers_are_named_without_a_version() {
    let c = cluster().await;
    let path = "/api/v1/namespaces/default/configmaps/c";
    let apply = async |manager: &str, value: &str| {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"},
            "data": {"a": value}});
        let url = format!("{path}?fieldManager={manager}");
        let headers = [("content-type", "application/apply-patch+yaml")];
        let (code, _, text) = c
            .request("PATCH", &url, ADMIN_TOKEN, &headers, &body.to_string())
            .await;
        (code, serde_json::from_str::<Value>(&text).expect("json"))
    };
    assert_eq!(apply("one", "1").await.0, 201);
    let (code, e) = apply("two", "2").await;
    assert_eq!(code, 409, "{e}");
    assert_eq!(
        e["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn ephemeral_containers_are_only_added() {
    let c = cluster().await;
    c.namespace("n").await;
    let base = "/api/v1/namespaces/n/pods";
    let look =
        |name: &str, image: &str| json!({"name": name, "image": image, "targetContainerName": "c"});
    let pod = |ephemeral: Value| {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}],
            "ephemeralContainers": ephemeral}})
    };
    let (code, e) = c.json("POST", base, &pod(json!([look("a", "i")]))).await;
    let text = "spec.ephemeralContainers: Forbidden: cannot be set on create";
    assert!(
        code == 422 && e["message"].as_str().is_some_and(|m| m.contains(text)),
        "{e}"
    );
    let (code, e) = c.json("POST", base, &pod(Value::Null)).await;
    assert_eq!(code, 201, "{e}");
    let place = format!("{base}/p/ephemeralcontainers");
    let patch = |list: Value| json!({"spec": {"ephemeralContainers": list}});
    let (code, p) = c
        .json("PATCH", &place, &patch(json!([look("a", "i")])))
        .await;
    assert_eq!(
        (code, &p["spec"]["ephemeralContainers"][0]["name"]),
        (200, &json!("a")),
        "{p}"
    );
    assert_eq!(
        p["spec"]["ephemeralContainers"][0]["imagePullPolicy"],
        "Always"
    );
    for (list, text) in [
        (
            json!([look("a", "other")]),
            "Forbidden: existing ephemeral containers \"a\" may not be changed",
        ),
        (
            json!([]),
            "Forbidden: existing ephemeral containers \"a\" may not be removed",
        ),
        (
            json!([p["spec"]["ephemeralContainers"][0], look("c", "i")]),
            "spec.ephemeralContainers[1].name: Duplicate value: \"c\"",
        ),
        (
            json!([p["spec"]["ephemeralContainers"][0], {"name": "b", "image": "i", "targetContainerName": "zz"}]),
            "spec.ephemeralContainers[1].targetContainerName: Not found: \"zz\"",
        ),
        (
            json!([p["spec"]["ephemeralContainers"][0], {"name": "b", "image": "i", "ports": [{"containerPort": 1}]}]),
            "spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ] {
        let (code, e) = c.json("PATCH", &place, &patch(list)).await;
        assert!(
            code == 422 && e["message"].as_str().is_some_and(|m| m.contains(text)),
            "{text}: {e}"
        );
    }
    // Nothing else of the pod is changed here, and they by nothing else.
    let other = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"activeDeadlineSeconds": 5}});
    let (code, p) = c.json("PATCH", &place, &other).await;
    assert_eq!(
        (
            code,
            &p["metadata"]["labels"],
            &p["spec"]["activeDeadlineSeconds"]
        ),
        (200, &Value::Null, &Value::Null)
    );
    let (code, p) = c
        .json("PATCH", &format!("{base}/p"), &patch(json!([])))
        .await;
    assert_eq!(
        (code, &p["spec"]["ephemeralContainers"][0]["name"]),
        (200, &json!("a"))
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn a_collection_is_changed_within_a_namespace_only() {
    let c = cluster().await;
    let made = json!({"metadata": {"name": "kept"}});
    let inside = "/api/v1/namespaces/default/configmaps";
    assert_eq!(c.json("POST", inside, &made).await.0, 201);
    for path in [
        "/api/v1/pods",
        "/api/v1/configmaps",
        "/apis/apps/v1/deployments",
    ] {
        for method in ["DELETE", "POST"] {
            let (code, e) = c.json(method, path, &made).await;
            assert_eq!((code, &e["reason"]), (405, &json!("MethodNotAllowed")));
        }
    }
    let kept = format!("{inside}/kept");
    assert_eq!(c.json("GET", &kept, &Value::Null).await.0, 200);
    assert_eq!(c.json("DELETE", inside, &Value::Null).await.0, 200);
    assert_eq!(c.json("GET", &kept, &Value::Null).await.0, 404);
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles?labelSelector=none%3Dsuch";
    assert_eq!(c.json("DELETE", roles, &Value::Null).await.0, 200);
    c.server.shutdown().await;
}

#[tokio::test]
async fn options_that_contradict_each_other_are_422() {
    let c = cluster().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for (query, why) in [
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (
            "resourceVersion=1&resourceVersionMatch=Exact&continue=x",
            "resourceVersionMatch is forbidden when continue is provided",
        ),
    ] {
        let (code, e) = c
            .json("GET", &format!("{maps}?{query}"), &Value::Null)
            .await;
        assert_eq!((code, &e["reason"]), (422, &json!("Invalid")), "{e}");
        assert!(e["message"].as_str().expect("text").contains(why), "{e}");
    }
    let made = json!({"metadata": {"name": "kept"}});
    assert_eq!(c.json("POST", maps, &made).await.0, 201);
    let kept = format!("{maps}/kept");
    let both = json!({"propagationPolicy": "Background", "orphanDependents": true});
    let query = format!("{kept}?propagationPolicy=Orphan&orphanDependents=false");
    for (path, body) in [
        (kept.as_str(), &both),
        (maps, &both),
        (query.as_str(), &Value::Null),
    ] {
        let (code, e) = c.json("DELETE", path, body).await;
        assert_eq!((code, &e["reason"]), (422, &json!("Invalid")), "{e}");
        let text = e["message"].as_str().expect("text");
        assert!(text.contains("cannot be both set"), "{text}");
    }
    let (code, _) = c
        .json("DELETE", &kept, &json!({"orphanDependents": false}))
        .await;
    assert_eq!(code, 200);
    c.server.shutdown().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_before_the_connection_ends() {
    let c = cluster().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for megabytes in [4, 40] {
        let body = "x".repeat(megabytes << 20);
        let (code, headers, text) = c.request("POST", maps, ADMIN_TOKEN, &[], &body).await;
        assert_eq!(code, 413, "{text}");
        assert!(
            text.contains("\"reason\":\"RequestEntityTooLarge\""),
            "{text}"
        );
        assert_eq!(headers["connection"], "close");
    }
    let (_, headers, _) = c.request("GET", maps, ADMIN_TOKEN, &[], "").await;
    assert!(headers.get("connection").is_none(), "{headers:?}");
    c.server.shutdown().await;
}
