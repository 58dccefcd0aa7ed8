//! Operations by raw HTTP and in process: lists in pages, watches, versions, deletion.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use lateen_cluster::api::resource::{CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICES};
use lateen_cluster::api::{DeleteOptions, Propagation, Selectors, WatchKind};
use serde_json::{Value, json};

use super::support::{ADMIN_TOKEN, Cluster, cluster};

const NS: Option<&str> = Some("default");

fn config(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"n": name}}, "data": {"k": "v"}})
}

fn rv(o: &Value) -> u64 {
    o["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|s| s.parse().ok())
        .expect("version")
}

/// A watch by HTTP, line by line.
struct Lines {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    async fn open(c: &Cluster, path: &str) -> Self {
        let mut sender = c.connect().await;
        let request = http::Request::get(path)
            .header("host", "k")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .body(Full::default())
            .expect("request");
        let response = sender.send_request(request).await.expect("response");
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("json"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame())
                .await
                .expect("an event in time")?;
            self.buffer
                .extend_from_slice(frame.expect("frame").data_ref().expect("data"));
        }
    }
}

#[tokio::test]
async fn lists_go_in_pages_of_one_snapshot() {
    let c = cluster().await;
    for i in 0..7 {
        c.api
            .create(&CONFIG_MAPS, NS, config(&format!("c{i}")))
            .await
            .expect("create");
    }
    let path = "/api/v1/namespaces/default/configmaps?limit=3";
    let (code, first) = c.json("GET", path, &Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(first["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What is made and removed between the pages is not seen.
    c.api
        .create(&CONFIG_MAPS, NS, config("c33"))
        .await
        .expect("create");
    c.api
        .delete(&CONFIG_MAPS, NS, "c5", DeleteOptions::default())
        .await
        .expect("delete");
    let mut names = Vec::new();
    let mut page = first.clone();
    loop {
        for o in page["items"].as_array().expect("items") {
            names.push(o["metadata"]["name"].as_str().expect("name").to_owned());
        }
        let Some(token) = page["metadata"]["continue"].as_str() else {
            break;
        };
        page = c
            .json("GET", &format!("{path}&continue={token}"), &Value::Null)
            .await
            .1;
        assert_eq!(
            page["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    let (code, e) = c
        .json("GET", &format!("{path}&continue=zzz"), &Value::Null)
        .await;
    assert_eq!((code, e["reason"].as_str()), (400, Some("BadRequest")));
    c.server.shutdown().await;
}

#[tokio::test]
async fn watches_follow_selectors_and_versions() {
    let c = cluster().await;
    let a = c
        .api
        .create(&CONFIG_MAPS, NS, config("a"))
        .await
        .expect("create");
    let url = "/api/v1/namespaces/default/configmaps?watch=true";
    let mut all = Lines::open(&c, &format!("{url}&resourceVersion={}", rv(&a))).await;
    let mut some = Lines::open(&c, &format!("{url}&labelSelector=keep%3Dyes")).await;
    let patch = json!({"metadata": {"labels": {"keep": "yes"}}});
    c.api
        .merge_patch(&CONFIG_MAPS, NS, "a", &patch, None)
        .await
        .expect("patch");
    let patch = json!({"metadata": {"labels": {"keep": null}}});
    let last = c
        .api
        .merge_patch(&CONFIG_MAPS, NS, "a", &patch, None)
        .await
        .expect("patch");
    c.api
        .delete(&CONFIG_MAPS, NS, "a", DeleteOptions::default())
        .await
        .expect("delete");
    for wanted in ["MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.next().await.expect("event")["type"], wanted);
    }
    assert_eq!(some.next().await.expect("event")["type"], "ADDED");
    let left = some.next().await.expect("event");
    assert_eq!(left["type"], "DELETED");
    assert_eq!(rv(&left["object"]), rv(&last));
    c.server.shutdown().await;
}

#[tokio::test]
async fn streaming_lists_end_with_a_marked_bookmark() {
    let c = cluster().await;
    c.api
        .create(&CONFIG_MAPS, NS, config("a"))
        .await
        .expect("create");
    let url = "/api/v1/namespaces/default/configmaps?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1";
    let (code, e) = c.json("GET", url, &Value::Null).await;
    assert_eq!(code, 422, "{e}");
    let mut w = Lines::open(&c, &format!("{url}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(w.next().await.expect("event")["type"], "ADDED");
    let mark = w.next().await.expect("event");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    // Before the end another bookmark, then the end.
    assert_eq!(w.next().await.expect("event")["type"], "BOOKMARK");
    assert!(w.next().await.is_none());
    let (code, _) = c
        .json(
            "GET",
            "/api/v1/configmaps?sendInitialEvents=true",
            &Value::Null,
        )
        .await;
    assert_eq!(code, 422);
    c.server.shutdown().await;
}

#[tokio::test]
async fn a_version_that_is_gone_is_410() {
    let c = cluster().await;
    let mut last = c
        .api
        .create(&CONFIG_MAPS, NS, config("a"))
        .await
        .expect("create");
    let old = rv(&last);
    for i in 0..1100 {
        let patch = json!({"data": {"k": i.to_string()}});
        last = c
            .api
            .merge_patch(&CONFIG_MAPS, NS, "a", &patch, None)
            .await
            .expect("patch");
    }
    let url = "/api/v1/configmaps?watch=true";
    let (code, e) = c
        .json("GET", &format!("{url}&resourceVersion={old}"), &Value::Null)
        .await;
    assert_eq!((code, e["reason"].as_str()), (410, Some("Expired")));
    assert!(
        e["message"]
            .as_str()
            .expect("text")
            .starts_with("too old resource version")
    );
    Lines::open(&c, &format!("{url}&resourceVersion={}", rv(&last))).await;
    let gone = c
        .api
        .watch(&CONFIG_MAPS, None, &Selectors::all(), old)
        .await;
    assert!(gone.is_err_and(|e| e.is_expired()));
    c.server.shutdown().await;
}

#[tokio::test]
async fn in_process_watch_starts_with_what_is_there() {
    let c = cluster().await;
    c.api
        .create(&CONFIG_MAPS, NS, config("a"))
        .await
        .expect("create");
    let mut w = c
        .api
        .watch(&CONFIG_MAPS, NS, &Selectors::all(), 0)
        .await
        .expect("watch");
    assert_eq!(
        w.next_event().await.expect("some").expect("ok").kind,
        WatchKind::Added
    );
    assert_eq!(
        w.next_event().await.expect("some").expect("ok").kind,
        WatchKind::Bookmark
    );
    c.api
        .create(&CONFIG_MAPS, NS, config("b"))
        .await
        .expect("create");
    let e = w.next_event().await.expect("some").expect("ok");
    assert_eq!(
        (e.kind, e.object["metadata"]["name"].as_str()),
        (WatchKind::Added, Some("b"))
    );
    c.server.shutdown().await;
    assert!(w.next_event().await.is_none());
}

#[tokio::test]
async fn versions_guard_updates_and_equal_writes_are_none() {
    let c = cluster().await;
    let a = c
        .api
        .create(&CONFIG_MAPS, NS, config("a"))
        .await
        .expect("create");
    let same = c
        .api
        .update(&CONFIG_MAPS, NS, (*a).clone())
        .await
        .expect("update");
    assert_eq!(rv(&a), rv(&same));
    let mut changed = (*a).clone();
    changed["data"]["k"] = "w".into();
    let b = c
        .api
        .update(&CONFIG_MAPS, NS, changed.clone())
        .await
        .expect("update");
    assert!(rv(&b) > rv(&a));
    let e = c
        .api
        .update(&CONFIG_MAPS, NS, changed)
        .await
        .expect_err("stale");
    assert!(e.is_conflict(), "{e}");
    assert!(
        e.message
            .ends_with("please apply your changes to the latest version and try again")
    );
    // Without a version the write is unconditional.
    let free = c.api.update(&CONFIG_MAPS, NS, config("a")).await;
    assert!(free.is_ok());
    c.server.shutdown().await;
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let c = cluster().await;
    let d = c
        .api
        .create(&DEPLOYMENTS, NS, deployment())
        .await
        .expect("create");
    assert_eq!(d["metadata"]["generation"], 1);
    let patch = json!({"status": {"replicas": 3}, "spec": {"replicas": 2}});
    let d = c
        .api
        .merge_patch(&DEPLOYMENTS, NS, "d", &patch, None)
        .await
        .expect("patch");
    assert_eq!(
        (&d["spec"]["replicas"], &d["status"]["replicas"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(d["metadata"]["generation"], 2);
    let d = c
        .api
        .merge_patch(
            &DEPLOYMENTS,
            NS,
            "d",
            &json!({"status": {"replicas": 3}, "spec": {"replicas": 9}}),
            Some("status"),
        )
        .await
        .expect("patch");
    assert_eq!(
        (&d["spec"]["replicas"], &d["status"]["replicas"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(d["metadata"]["generation"], 2);
    let e = c
        .api
        .merge_patch(
            &DEPLOYMENTS,
            NS,
            "d",
            &json!({"spec": {"selector": {"matchLabels": {"x": "y"}}}}),
            None,
        )
        .await
        .expect_err("immutable");
    assert!(e.message.contains("field is immutable"), "{e}");
    let (_, scale) = c
        .json(
            "GET",
            "/apis/apps/v1/namespaces/default/deployments/d/scale",
            &Value::Null,
        )
        .await;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!(2), &json!("a=b"))
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn deletion_waits_for_grace_and_finalizers() {
    let c = cluster().await;
    c.namespace("n").await;
    let ns = Some("n");
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    c.api.create(&PODS, ns, pod("loose")).await.expect("create");
    let gone = c
        .api
        .delete(&PODS, ns, "loose", DeleteOptions::default())
        .await
        .expect("delete");
    assert!(gone.is_none(), "an unscheduled pod goes at once");
    c.api.create(&PODS, ns, pod("p")).await.expect("create");
    c.api.bind_pod("n", "p", "node-1").await.expect("bind");
    assert!(
        c.api
            .bind_pod("n", "p", "node-2")
            .await
            .is_err_and(|e| e.is_conflict())
    );
    let kept = c
        .api
        .delete(&PODS, ns, "p", DeleteOptions::default())
        .await
        .expect("delete")
        .expect("kept");
    assert_eq!(kept["metadata"]["deletionGracePeriodSeconds"], 30);
    let wrong = c
        .api
        .delete(&PODS, ns, "p", DeleteOptions::now().with_uid("other"))
        .await;
    assert!(wrong.is_err_and(|e| e.is_conflict()));
    assert!(
        c.api
            .delete(&PODS, ns, "p", DeleteOptions::now())
            .await
            .expect("delete")
            .is_none()
    );

    let mut held = config("held");
    held["metadata"]["finalizers"] = json!(["x.io/hold"]);
    c.api.create(&CONFIG_MAPS, ns, held).await.expect("create");
    let kept = c
        .api
        .delete(&CONFIG_MAPS, ns, "held", DeleteOptions::default())
        .await
        .expect("delete")
        .expect("kept");
    assert!(kept["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["x.io/hold", "y.io/more"]}});
    assert!(
        c.api
            .merge_patch(&CONFIG_MAPS, ns, "held", &more, None)
            .await
            .is_err_and(|e| e.code == 422)
    );
    let none = json!({"metadata": {"finalizers": null}});
    c.api
        .merge_patch(&CONFIG_MAPS, ns, "held", &none, None)
        .await
        .expect("release");
    assert!(
        c.api
            .get(&CONFIG_MAPS, ns, "held")
            .await
            .is_err_and(|e| e.is_not_found())
    );

    c.api
        .create(&DEPLOYMENTS, ns, deployment())
        .await
        .expect("create");
    let options = DeleteOptions {
        propagation: Some(Propagation::Foreground),
        ..DeleteOptions::default()
    };
    let kept = c
        .api
        .delete(&DEPLOYMENTS, ns, "d", options)
        .await
        .expect("delete")
        .expect("kept");
    assert_eq!(
        kept["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );

    c.api
        .delete(&NAMESPACES, None, "n", DeleteOptions::default())
        .await
        .expect("delete");
    let e = c
        .api
        .create(&CONFIG_MAPS, ns, config("late"))
        .await
        .expect_err("terminating");
    assert!(e.message.contains("because it is being terminated"), "{e}");
    c.api.finalize_namespace("n").await.expect("finalize");
    assert!(c.api.get(&NAMESPACES, None, "n").await.is_err());
    c.server.shutdown().await;
}

#[tokio::test]
async fn service_addresses_are_unique_and_kept() {
    let c = cluster().await;
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    let a = c
        .api
        .create(&SERVICES, NS, service("a", "NodePort"))
        .await
        .expect("create");
    let ip = a["spec"]["clusterIP"].as_str().expect("ip").to_owned();
    let port = a["spec"]["ports"][0]["nodePort"].as_u64().expect("port");
    assert!((30000..=32767).contains(&port));
    let mut twin = service("b", "ClusterIP");
    twin["spec"]["clusterIP"] = ip.as_str().into();
    let e = c.api.create(&SERVICES, NS, twin).await.expect_err("taken");
    assert!(
        e.message.contains("provided IP is already allocated"),
        "{e}"
    );
    let mut twin = service("b", "NodePort");
    twin["spec"]["ports"][0]["nodePort"] = port.into();
    let e = c.api.create(&SERVICES, NS, twin).await.expect_err("taken");
    assert!(
        e.message.contains("provided port is already allocated"),
        "{e}"
    );
    let again = c
        .api
        .update(&SERVICES, NS, service("a", "NodePort"))
        .await
        .expect("update");
    assert_eq!(again["spec"]["clusterIP"], ip.as_str());
    assert_eq!(again["spec"]["ports"][0]["nodePort"], port);
    let plain = c
        .api
        .merge_patch(
            &SERVICES,
            NS,
            "a",
            &json!({"spec": {"type": "ClusterIP"}}),
            None,
        )
        .await
        .expect("patch");
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    let mut headless = service("h", "ClusterIP");
    headless["spec"]["clusterIP"] = "None".into();
    let h = c.api.create(&SERVICES, NS, headless).await.expect("create");
    assert_eq!(h["spec"]["clusterIPs"], json!(["None"]));
    c.server.shutdown().await;
}

#[tokio::test]
async fn names_are_generated_and_nodes_keep_their_status() {
    let c = cluster().await;
    let mut o = config("x");
    o["metadata"] = json!({"generateName": "gen-"});
    let made = c.api.create(&CONFIG_MAPS, NS, o).await.expect("create");
    let name = made["metadata"]["name"].as_str().expect("name");
    assert_eq!(name.len(), "gen-".len() + 5);
    let node = json!({"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": 2}}});
    let node = c.api.create(&NODES, None, node).await.expect("node");
    assert_eq!(node["status"]["capacity"]["cpu"], "2");
    c.server.shutdown().await;
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let c = cluster().await;
    for n in ["a", "b"] {
        c.api
            .create(&CONFIG_MAPS, NS, config(n))
            .await
            .expect("create");
    }
    let (code, list) = c
        .json(
            "DELETE",
            "/api/v1/namespaces/default/configmaps?labelSelector=n%3Da",
            &Value::Null,
        )
        .await;
    assert_eq!(
        (code, list["items"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    let (left, _) = c
        .api
        .list(&CONFIG_MAPS, NS, &Selectors::all())
        .await
        .expect("list");
    assert_eq!(left.len(), 1);
    c.server.shutdown().await;
}

#[tokio::test]
async fn events_are_one_set_in_two_groups() {
    let c = cluster().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "uid": "u", "namespace": "default"},
        "reason": "Started", "message": "hello", "type": "Normal"});
    let (code, _) = c
        .json("POST", "/api/v1/namespaces/default/events", &event)
        .await;
    assert_eq!(code, 201);
    let (_, new) = c
        .json(
            "GET",
            "/apis/events.k8s.io/v1/namespaces/default/events/e",
            &Value::Null,
        )
        .await;
    assert_eq!(
        (&new["note"], &new["regarding"]["name"]),
        (&json!("hello"), &json!("p"))
    );
    let new = json!({"metadata": {"name": "f"}, "regarding": {"kind": "Pod", "name": "q"}, "note": "hi", "reason": "R", "type": "Normal"});
    let (code, e) = c
        .json(
            "POST",
            "/apis/events.k8s.io/v1/namespaces/default/events",
            &new,
        )
        .await;
    assert_eq!(code, 201, "{e}");
    let path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dq";
    let (_, list) = c.json("GET", path, &Value::Null).await;
    assert_eq!(list["items"][0]["message"], "hi");
    c.server.shutdown().await;
}

#[tokio::test]
async fn autoscalers_are_one_set_in_two_versions() {
    let c = cluster().await;
    let path = |version: &str, name: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers{name}")
    };
    let old = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let (code, made) = c.json("POST", &path("v1", ""), &old).await;
    assert_eq!(
        (code, &made["apiVersion"]),
        (201, &json!("autoscaling/v1")),
        "{made}"
    );
    let (_, new) = c.json("GET", &path("v2", "/a"), &Value::Null).await;
    let target = &new["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(target["averageUtilization"], 50, "{new}");
    let change = json!({"spec": {"targetCPUUtilizationPercentage": 60}});
    let (code, changed) = c.json("PATCH", &path("v1", "/a"), &change).await;
    assert_eq!(
        (code, &changed["spec"]["targetCPUUtilizationPercentage"]),
        (200, &json!(60))
    );
    let (_, new) = c.json("GET", &path("v2", "/a"), &Value::Null).await;
    let target = &new["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(target["averageUtilization"], 60, "{new}");
    c.server.shutdown().await;
}

#[tokio::test]
async fn stateful_pods_may_mount_their_claims() {
    let c = cluster().await;
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let set = |mounted: &str| {
        json!({"metadata": {"name": mounted}, "spec": {"serviceName": "s",
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c",
            "image": "i", "volumeMounts": [{"name": mounted, "mountPath": "/d"}]}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}})
    };
    let (code, e) = c.json("POST", sets, &set("data")).await;
    assert_eq!(code, 201, "{e}");
    let (code, e) = c.json("POST", sets, &set("other")).await;
    assert_eq!(code, 422, "{e}");
    c.server.shutdown().await;
}

#[tokio::test]
async fn swagger_is_for_those_who_read_json() {
    let c = cluster().await;
    let path = "/openapi/v2";
    for accept in ["application/json", "application/json, */*", "*/*", ""] {
        let headers = [("accept", accept)];
        let (code, headers, text) = c.request("GET", path, ADMIN_TOKEN, &headers, "").await;
        assert_eq!(
            (code, &headers["content-type"]),
            (200, &"application/json".parse().expect("a value"))
        );
        let document: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(document["swagger"], "2.0");
        assert!(document["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
        let tag = headers["etag"].to_str().expect("text").to_owned();
        let again = [("accept", accept), ("if-none-match", tag.as_str())];
        let (code, _, text) = c.request("GET", path, ADMIN_TOKEN, &again, "").await;
        assert_eq!((code, text.as_str()), (304, ""));
    }
    // What every client written in Go asks for.
    let accept = [(
        "accept",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    )];
    let (code, headers, text) = c.request("GET", path, ADMIN_TOKEN, &accept, "").await;
    assert_eq!((code, text.as_str()), (200, ""));
    assert!(
        headers["content-type"]
            .to_str()
            .is_ok_and(|kind| kind.ends_with("+protobuf"))
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn writes_go_to_disk_in_groups() {
    let c = cluster().await;
    let started = std::time::Instant::now();
    let writes = (0..200).map(|i| c.api.create(&CONFIG_MAPS, NS, config(&format!("g{i}"))));
    let done = futures_util::future::join_all(writes).await;
    assert!(done.iter().all(Result::is_ok));
    let versions: std::collections::BTreeSet<u64> = done.iter().flatten().map(|o| rv(o)).collect();
    assert_eq!(versions.len(), 200, "every write has a version of its own");
    eprintln!("200 writes at once: {:?}", started.elapsed());
    let started = std::time::Instant::now();
    for i in 0..50 {
        c.api
            .create(&CONFIG_MAPS, NS, config(&format!("s{i}")))
            .await
            .expect("create");
    }
    eprintln!("50 writes in turn: {:?}", started.elapsed());
    c.server.shutdown().await;
}
