//! How containers begin and end: what their states say, and in which order they are stopped.

use futures_util::FutureExt;
use lateen_cluster::api::Selectors;
use lateen_cluster::api::WatchKind;
use lateen_cluster::api::resource::PODS;
use lateen_cluster::node::runtime::LogOptions;
use serde_json::{Value, json};

use crate::bed::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("ends_started_before_the_hook", || {
        started_before_the_hook().boxed()
    }),
    ("ends_of_a_sidecar", || of_a_sidecar().boxed()),
    ("ends_of_an_ephemeral_container", || {
        of_an_ephemeral_container().boxed()
    }),
    ("ends_of_the_memory", || of_the_memory().boxed()),
];

fn seconds(time: &Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_second()
}

/// A container starts when its program does, not when the hook after it is done.
async fn started_before_the_hook() {
    let cluster = Cluster::open(16).await;
    let container = json!({"name": "c", "image": "alpine", "command": ["sh", "-c", "date +%s; exec sleep 1000"],
        "lifecycle": {"postStart": {"exec": {"command": ["sleep", "4"]}}}});
    cluster.pod("p", json!({"containers": [container]})).await;
    let pod = cluster.ready("p").await;
    let began: i64 = cluster
        .logs("p", "c", LogOptions::default())
        .await
        .trim()
        .parse()
        .unwrap();
    let told = seconds(&pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]);
    assert!(told - began < 3, "{told}, but it began at {began}");
    cluster.delete("p", 0).await;
    cluster.close().await;
}

/// The last state that a removed pod had.
async fn last_state(cluster: &Cluster, name: &str, grace: i64) -> Value {
    let all = Selectors::all();
    let mut pods = cluster
        .api
        .watch(&PODS, Some("default"), &all, 0)
        .await
        .unwrap();
    cluster.delete(name, grace).await;
    loop {
        let event = pods.next_event().await.unwrap().unwrap();
        if event.kind == WatchKind::Deleted && event.object["metadata"]["name"] == name {
            return event.object["status"].clone();
        }
    }
}

/// A sidecar outlives the others, is asked to end when they have, however little grace is left,
/// and is shown with the exit code that it gave; its pre-stop hook does not wait for them.
async fn of_a_sidecar() {
    let cluster = Cluster::open(17).await;
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let log = tempfile::tempdir().unwrap();
    let side =
        "trap 'echo side stops >> /v/log; exit 0' TERM; echo > /v/up; while :; do sleep 0.05; done";
    let main =
        "trap 'sleep 0.5; echo main stops >> /v/log; exit 5' TERM; while :; do sleep 0.05; done";
    let pod = |main: &str| {
        json!({
            "volumes": [{"name": "v", "hostPath": {"path": log.path()}}],
            "initContainers": [{"name": "side", "image": "alpine", "restartPolicy": "Always", "command": ["sh", "-c", side], "volumeMounts": mount,
                "startupProbe": {"exec": {"command": ["test", "-e", "/v/up"]}, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 60},
                "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /v/log"]}}}}],
            "containers": [{"name": "main", "image": "alpine", "command": ["sh", "-c", main], "volumeMounts": mount,
                "readinessProbe": {"exec": {"command": ["test", "-e", "/v/up"]}, "periodSeconds": 1, "timeoutSeconds": 60}}]
        })
    };
    let code =
        |status: &Value, kind: &str| status[kind][0]["state"]["terminated"]["exitCode"].clone();
    cluster.pod("p", pod(main)).await;
    cluster.ready("p").await;
    let status = last_state(&cluster, "p", 60).await;
    assert_eq!(code(&status, "containerStatuses"), 5, "{status:#}");
    assert_eq!(code(&status, "initContainerStatuses"), 0, "{status:#}");
    let text = std::fs::read_to_string(log.path().join("log")).unwrap();
    assert_eq!(text, "hook\nmain stops\nside stops\n");
    // The main container uses up all of a short grace; the sidecar still has two seconds.
    cluster
        .pod("q", pod("trap '' TERM; while :; do sleep 0.05; done"))
        .await;
    cluster.ready("q").await;
    let status = last_state(&cluster, "q", 1).await;
    assert_eq!(code(&status, "containerStatuses"), 137, "{status:#}");
    assert_eq!(code(&status, "initContainerStatuses"), 0, "{status:#}");
    cluster.close().await;
}

/// A container that uses more memory than its limit is killed and says so; programs run beside it
/// count too; what is within the limit lives; nothing is left of the groups.
async fn of_the_memory() {
    let cluster = Cluster::open(18).await;
    if let Err(error) = lateen_cluster::node::cgroup::Groups::open(&cluster.bed.instance) {
        eprintln!("SKIPPED: no memory limits on this machine: {error}");
        cluster.close().await;
        return;
    }
    let limit = json!({"limits": {"memory": "64Mi"}});
    let eats = "head -c 200000000 /dev/zero | tail -c 150000000 > /dev/null";
    let container = |name: &str, script: &str| json!({"name": name, "image": "alpine", "command": ["sh", "-c", script], "resources": limit});
    let mut spec = json!({"containers": [container("eats", eats), container("fits", "head -c 20000000 /dev/zero > /tmp/x")]});
    spec["restartPolicy"] = json!("Never");
    cluster.pod("p", spec).await;
    let pod = cluster.phase("p", "Failed").await;
    let end = |n: usize| pod["status"]["containerStatuses"][n]["state"]["terminated"].clone();
    assert_eq!(
        (&end(0)["reason"], &end(0)["exitCode"]),
        (&json!("OOMKilled"), &json!(137))
    );
    assert_eq!(
        (&end(1)["reason"], &end(1)["exitCode"]),
        (&json!("Completed"), &json!(0))
    );
    cluster.delete("p", 0).await;
    cluster
        .pod(
            "q",
            json!({"containers": [container("c", "exec sleep 1000")]}),
        )
        .await;
    cluster.ready("q").await;
    let (_, code) = cluster.exec("q", "c", eats).await;
    assert_ne!(code, 0);
    let (text, code) = cluster.exec("q", "c", "echo lives").await;
    assert_eq!((text.as_str(), code), ("lives\n", 0));
    cluster.delete("q", 0).await;
    let instance = cluster.bed.instance.clone();
    cluster.close().await;
    for root in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"] {
        assert!(!std::path::Path::new(root).join(&instance).exists());
    }
}

/// An ephemeral container is started in a running pod, once, sees the processes of its target and
/// the network of the pod, and is no part of the pod's work.
async fn of_an_ephemeral_container() {
    let cluster = Cluster::open(19).await;
    let sleeper = json!({"name": "c", "image": "alpine", "command": ["sleep", "1000"]});
    cluster.pod("p", json!({"containers": [sleeper]})).await;
    let pod = cluster.ready("p").await;
    let script = "tr '\\0' ' ' < /proc/1/cmdline; hostname; ip -br addr; exit 3";
    let look = |name: &str, more: Value| {
        let mut container =
            json!({"name": name, "image": "alpine", "command": ["sh", "-c", script]});
        container
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        container
    };
    let add = async |list: Vec<Value>| {
        let patch = json!({"spec": {"ephemeralContainers": list}});
        let (pods, ns, sub) = (&PODS, Some("default"), Some("ephemeralcontainers"));
        cluster
            .api
            .merge_patch(pods, ns, "p", &patch, sub)
            .await
            .unwrap();
    };
    let ended = |n: usize| {
        move |pod: &Value| {
            let status = &pod["status"]["ephemeralContainerStatuses"][n];
            status["state"]["terminated"]["exitCode"] == 3 && status["restartCount"] == 0
        }
    };
    let first = look("first", json!({"targetContainerName": "c"}));
    add(vec![first.clone()]).await;
    cluster.until("p", "looked into", ended(0)).await;
    let text = cluster.logs("p", "first", LogOptions::default()).await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    assert!(
        text.starts_with("sleep 1000 p\n") && text.contains(ip),
        "{text}"
    );
    // Without a target it has processes of its own; and the first is not run again.
    add(vec![first, look("second", json!({}))]).await;
    let pod = cluster.until("p", "looked into again", ended(1)).await;
    let text = cluster.logs("p", "second", LogOptions::default()).await;
    assert!(text.starts_with("sh -c "), "{text}");
    assert!(ended(0)(&pod));
    let pod = cluster.ready("p").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    cluster.delete("p", 0).await;
    cluster.close().await;
}
