//! Both sources against their outside: a real folder, and an API server played
//! by a function.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use lateen_resources::{Kind, ObjectKey};
use lateen_sources::{Client, Event, KubernetesOptions, run_files, run_kubernetes};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(15), events.recv())
        .await
        .expect("an event in time")
        .expect("the source goes on")
}

const GOOD: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, name: http}]}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_is_followed_and_a_bad_file_keeps_the_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let (sink, mut events) = mpsc::channel(16);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let source = tokio::spawn(run_files(
        dir.path().to_owned(),
        "default".into(),
        sink,
        async move { stopped.await.unwrap() },
    ));
    match next(&mut events).await {
        Event::Replace(Kind::Service, objects) => assert_eq!(objects[0].meta.name, "a"),
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut events).await, Event::Synced);

    std::fs::write(
        dir.path().join("b.yaml"),
        GOOD.replace("name: a", "name: b"),
    )
    .unwrap();
    match next(&mut events).await {
        Event::Upsert(o) => assert_eq!(o.meta.name, "b"),
        other => panic!("{other:?}"),
    }

    std::fs::write(&file, "apiVersion: v1\nkind: Service\nmetadata: [\n").unwrap();
    match next(&mut events).await {
        Event::Unreadable(found) => {
            assert_eq!(found.len(), 1);
            assert!(found[0].to_string().contains("a.yaml:"), "{}", found[0]);
        }
        other => panic!("the object must stay: {other:?}"),
    }

    std::fs::remove_file(&file).unwrap();
    let key = ObjectKey {
        kind: Kind::Service,
        namespace: "default".into(),
        name: "a".into(),
    };
    assert_eq!(next(&mut events).await, Event::Delete(key));
    assert_eq!(next(&mut events).await, Event::Unreadable(Vec::new()));
    stop.send(()).unwrap();
    source.await.unwrap().unwrap();
}

/// A pipe without a writer: opening it would hang the source for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_is_told_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b.yaml"), GOOD).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(dir.path().join("a.yaml"))
        .status();
    assert!(made.unwrap().success());
    let (sink, mut events) = mpsc::channel(16);
    let source = tokio::spawn(run_files(
        dir.path().to_owned(),
        "default".into(),
        sink,
        std::future::pending(),
    ));
    match next(&mut events).await {
        Event::Replace(Kind::Service, objects) => assert_eq!(objects[0].meta.name, "a"),
        other => panic!("{other:?}"),
    }
    match next(&mut events).await {
        Event::Unreadable(found) => {
            assert!(
                found[0].to_string().contains("not a regular file"),
                "{}",
                found[0]
            );
        }
        other => panic!("{other:?}"),
    }
    source.abort();
}

#[tokio::test]
async fn folder_that_is_not_there() {
    let (sink, _events) = mpsc::channel(1);
    let gone = std::path::PathBuf::from("/nonexistent/lateen");
    let error = run_files(gone, "default".into(), sink, std::future::pending())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nonexistent/lateen"), "{error}");
}

fn answer(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

fn service(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "n", "resourceVersion": version,
            "managedFields": [{"manager": "x"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"ports": [{"port": 80, "name": "http"}]},
    })
}

/// An API server with one Service, then a second by watch; no Istio kinds.
async fn play(
    request: Request<kube_body::Body>,
    watches: Arc<AtomicUsize>,
) -> Response<Full<Bytes>> {
    let uri = request.uri().to_string();
    let path = uri.split('?').next().unwrap_or_default();
    if path.contains("istio.io") {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "NotFound", "message": "the server could not find it", "code": 404});
        return answer(StatusCode::NOT_FOUND, status.to_string());
    }
    if uri.contains("fieldSelector=type") {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "BadRequest", "message": "field label not supported", "code": 400});
        return answer(StatusCode::BAD_REQUEST, status.to_string());
    }
    if uri.contains("watch=true") {
        if path == "/api/v1/services" && watches.fetch_add(1, Ordering::SeqCst) == 0 {
            let events = [
                json!({"type": "ADDED", "object": service("b", "2")}),
                json!({"type": "DELETED", "object": service("a", "3")}),
            ];
            let body = events.map(|e| format!("{e}\n")).concat();
            return answer(StatusCode::OK, body);
        }
        std::future::pending::<()>().await;
    }
    let items = if path == "/api/v1/services" {
        vec![service("a", "1")]
    } else {
        vec![]
    };
    let list = json!({"kind": "List", "apiVersion": "v1",
        "metadata": {"resourceVersion": "1"}, "items": items});
    answer(StatusCode::OK, list.to_string())
}

mod kube_body {
    //! The request body type of the client.
    pub use kube::client::Body;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_that_are_missing_do_not_hold_up_the_others() {
    let watches = Arc::new(AtomicUsize::new(0));
    let server = tower::service_fn(move |request| {
        let watches = watches.clone();
        async move { Ok::<_, std::convert::Infallible>(play(request, watches).await) }
    });
    let client = Client::new(server, "default");
    let (sink, mut events) = mpsc::channel(64);
    let source = tokio::spawn(run_kubernetes(
        client,
        KubernetesOptions::default(),
        sink,
        std::future::pending(),
    ));
    let (mut listed, mut synced, mut upserts, mut deletes) = (0, false, Vec::new(), Vec::new());
    while !synced || deletes.is_empty() {
        match next(&mut events).await {
            Event::Replace(Kind::Service, objects) => {
                assert_eq!(objects.len(), 1);
                assert!(objects[0].meta.annotations.is_empty());
                listed += 1;
            }
            Event::Replace(_, objects) => assert!(objects.is_empty()),
            Event::Upsert(o) => upserts.push(o.meta.name.clone()),
            Event::Delete(key) => deletes.push(key.name),
            Event::Synced => synced = true,
            Event::Unreadable(found) => panic!("{found:?}"),
        }
    }
    assert_eq!(
        (listed, upserts, deletes),
        (1, vec!["b".to_owned()], vec!["a".to_owned()])
    );
    drop(events);
    source.await.unwrap();
}
