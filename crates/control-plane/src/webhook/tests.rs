//! Hostile reviews: whatever stands in a body, there is an answer, and it is about the
//! request that was asked.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tower::Service as _;

use super::{LARGEST_REVIEW, WebhookState, answer_inject, answer_validate, router};
use crate::inject::InjectConfig;

fn pod_review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": "default",
            "operation": "CREATE",
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "generateName": "reviews-v1-77-",
                    "labels": {"app": "reviews", "version": "v1"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "reviews-v1-77", "controller": true}],
                    "annotations": {
                        "proxy.istio.io/overrides": "{\"containers\":[{\"name\":\"istio-proxy\",\"tty\":true}]}",
                        "proxy.istio.io/config": "concurrency: 2\n",
                        "sidecar.istio.io/proxyCPU": "100m",
                        "sidecar.istio.io/userVolume": "[{\"name\":\"v\",\"emptyDir\":{}}]",
                        "traffic.sidecar.istio.io/excludeInboundPorts": "9999",
                        "prometheus.io/port": "9090",
                        "inject.istio.io/templates": "sidecar"
                    }
                },
                "spec": {
                    "securityContext": {"runAsUser": 1000},
                    "initContainers": [{"name": "prepare", "image": "p"}],
                    "containers": [
                        {
                            "name": "reviews",
                            "image": "r",
                            "ports": [{"name": "http", "containerPort": 9080}],
                            "readinessProbe": {"httpGet": {"path": "/", "port": "http", "httpHeaders": []}, "timeoutSeconds": 2},
                            "livenessProbe": {"tcpSocket": {"port": 9080}},
                            "lifecycle": {"preStop": {"httpGet": {"path": "/stop", "port": 9080}}},
                            "env": [{"name": "A", "value": "b"}]
                        },
                        {"name": "istio-proxy", "image": "auto", "env": [{"name": "X", "value": "y"}]}
                    ],
                    "volumes": [{"name": "tmp", "emptyDir": {}}]
                }
            }
        }
    })
}

fn rule_review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u2",
            "namespace": "default",
            "object": {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "reviews", "namespace": "default", "labels": {"a": "b"}},
                "spec": {
                    "hosts": ["reviews"],
                    "http": [{
                        "match": [{"headers": {"x": {"exact": "y"}}, "uri": {"regex": "/a.*"}}],
                        "route": [{"destination": {"host": "reviews", "port": {"number": 80}}, "weight": 100}],
                        "timeout": "3s",
                        "retries": {"attempts": 3, "perTryTimeout": "1s"},
                        "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 10}}}
                    }]
                }
            }
        }
    })
}

/// Pointers to every value of a document.
fn places(v: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match v {
        Value::Object(map) => {
            for (k, inner) in map {
                let key = k.replace('~', "~0").replace('/', "~1");
                places(inner, &format!("{at}/{key}"), out);
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                places(inner, &format!("{at}/{i}"), out);
            }
        }
        _ => {}
    }
}

fn odd_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!("text"),
        json!("[]"),
        json!("\"{"),
        json!("7"),
        json!("- a\n- b"),
        json!(-1),
        json!(1e300),
        json!(true),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null, 7, "x", {}]),
        json!({"name": []}),
    ]
}

/// Replaces every value by every odd one and hands the review to `answer`.
fn each_oddity(review: &Value, mut answer: impl FnMut(&str, &Value, &Value)) {
    let mut all = Vec::new();
    places(review, "", &mut all);
    assert!(all.len() > 20);
    for place in &all {
        for odd in odd_values() {
            let mut changed = review.clone();
            *changed.pointer_mut(place).expect("a place of it") = odd.clone();
            answer(place, &odd, &changed);
        }
    }
}

/// An answer to a review stands under its uid and says yes or no.
fn is_answer(place: &str, odd: &Value, review: &Value, answer: Result<Value, String>) -> bool {
    let at = format!("{place} = {odd}");
    match answer {
        Ok(answer) => {
            assert_eq!(answer["response"]["uid"], review["request"]["uid"], "{at}");
            assert_eq!(answer["apiVersion"], review["apiVersion"], "{at}");
            answer["response"]["allowed"]
                .as_bool()
                .unwrap_or_else(|| panic!("{at}: {answer}"))
        }
        Err(why) => {
            assert!(why.starts_with("not an AdmissionReview"), "{at}: {why}");
            false
        }
    }
}

#[test]
fn odd_pods_are_answered() {
    let mut standard = InjectConfig::standard("1.0.0");
    let mut admitted = 0;
    let mut refused = 0;
    for native in [false, true] {
        standard = standard.for_nodes(&[json!({
            "status": {"nodeInfo": {"kubeletVersion": if native { "v1.34.0" } else { "v1.20.0" }}},
        })]);
        let whole = answer_inject(&standard, pod_review().to_string().as_bytes());
        assert!(whole.expect("a review")["response"]["patch"].is_string());
        each_oddity(&pod_review(), |place, odd, review| {
            let answer = answer_inject(&standard, review.to_string().as_bytes());
            if is_answer(place, odd, review, answer) {
                admitted += 1;
            } else {
                refused += 1;
            }
        });
    }
    assert!(admitted > 100 && refused > 100, "{admitted} {refused}");
}

#[test]
fn odd_rules_are_answered() {
    let mut refused = 0;
    each_oddity(&rule_review(), |place, odd, review| {
        let answer = answer_validate(review.to_string().as_bytes());
        if !is_answer(place, odd, review, answer) {
            refused += 1;
        }
    });
    assert!(refused > 100, "{refused}");
}

#[test]
fn what_is_no_review_is_refused_with_the_reason() {
    let config = InjectConfig::standard("1.0.0");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        &b""[..],
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{\"kind\":\"AdmissionReview\"}",
        deep.as_bytes(),
        &pod_review().to_string().into_bytes()[..100],
    ] {
        for answer in [answer_inject(&config, body), answer_validate(body)] {
            let why = answer.expect_err("no review");
            assert!(why.starts_with("not an AdmissionReview"), "{why}");
            assert!(why.len() < 200, "{why}");
        }
    }
    for (field, value) in [
        ("kind", json!("Pod")),
        ("apiVersion", json!("admission.k8s.io/v2")),
    ] {
        let mut review = pod_review();
        review[field] = value;
        assert!(answer_inject(&config, review.to_string().as_bytes()).is_err());
    }
    // A review for something else than a pod is answered, with no.
    let mut review = pod_review();
    review["request"]["kind"]["kind"] = json!("Deployment");
    let answer = answer_inject(&config, review.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer["response"]["allowed"], false);
    let message = answer["response"]["status"]["message"].as_str();
    assert!(
        message.is_some_and(|m| m.contains("Deployment")),
        "{answer}"
    );
}

#[tokio::test]
async fn bodies_are_bounded() {
    let injection = Arc::new(ArcSwap::from_pointee(InjectConfig::standard("1.0.0")));
    let router = router(WebhookState {
        injection,
        metrics: Arc::default(),
    });
    let send = async |path: &str, body: Vec<u8>| {
        let request = Request::post(path)
            .body(Body::from(body))
            .expect("a request");
        let response = router.clone().call(request).await.expect("answers");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await;
        (status, body.expect("a body"))
    };
    for path in ["/inject", "/inject/cluster/a", "/validate"] {
        let (status, _) = send(path, vec![b' '; LARGEST_REVIEW + 1]).await;
        assert_eq!(status, 413, "{path}");
        assert_eq!(send(path, b"{}".to_vec()).await.0, 400, "{path}");
    }
    // An update of a large object brings it twice: more than the usual 2 MiB.
    let mut review = rule_review();
    let large = json!("x".repeat(2 << 20));
    review["request"]["object"]["metadata"]["annotations"] = json!({"a": large});
    review["request"]["oldObject"] = review["request"]["object"].clone();
    let (status, body) = send("/validate", review.to_string().into_bytes()).await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
}
