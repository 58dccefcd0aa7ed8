//! The agent as a whole: pods made through the API run, are reached, restarted and removed.

use futures_util::FutureExt;
use lateen_cluster::api::resource::{CONFIG_MAPS, NODES};
use lateen_cluster::node::runtime::{AttachRequest, ExecRequest, LogOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bed::{Cluster, pod_ref};

pub const TESTS: &[crate::Test] = &[
    ("agent_pod_lives_and_dies", || lives_and_dies().boxed()),
    ("agent_services_and_names", || services_and_names().boxed()),
    ("agent_order_restart_and_probes", || {
        order_restart_and_probes().boxed()
    }),
    ("agent_images", || images().boxed()),
    ("agent_volumes_and_environment", || {
        volumes_and_environment().boxed()
    }),
    ("agent_sandbox_lost_and_agent_restarted", || {
        sandbox_lost_and_agent_restarted().boxed()
    }),
    ("agent_shared_namespaces", || shared_namespaces().boxed()),
    ("agent_streams", || streams().boxed()),
    ("agent_six_pods_start_together", || six_pods().boxed()),
];

/// A server that answers every connection with its pod's name: this test program itself.
fn server(port: u16) -> Value {
    json!({"name": "web", "image": "examples/app:1", "command": ["lateen", "serve", port.to_string()],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "timeoutSeconds": 30}})
}

fn containers(list: Vec<Value>) -> Value {
    json!({"containers": list})
}

async fn lives_and_dies() {
    let cluster = Cluster::open(6).await;
    let nodes = cluster.api.get(&NODES, None, "lateen-2").await.unwrap();
    assert_eq!(
        nodes["metadata"]["labels"]["topology.kubernetes.io/zone"],
        "zone-b"
    );
    let script = "trap 'echo bye; exit 0' TERM; echo hello; while true; do sleep 0.05; done";
    cluster
        .pod(
            "one",
            containers(vec![
                json!({"name": "a", "image": "alpine", "command": ["sh", "-c", script]}),
                json!({"name": "b", "image": "examples/app:9", "args": ["sleep 1000"]}),
            ]),
        )
        .await;
    let pod = cluster.ready("one").await;
    assert_eq!(pod["status"]["phase"], "Running");
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(ip, "10.156.1.2");
    assert_eq!(pod["status"]["hostIP"], "10.156.1.1");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let (text, code) = cluster
        .exec("one", "b", "id -u; hostname; cat /etc/hosts; exit 7")
        .await;
    assert_eq!(code, 7);
    assert!(
        text.starts_with("1000\none\n") && text.contains(&format!("{ip}\tone")),
        "{text}"
    );
    assert_eq!(
        cluster.logs("one", "a", LogOptions::default()).await,
        "hello\n"
    );
    for wanted in [
        "Created: Created container: a",
        "Started: Started container b",
        "Pulling: Pulling image \"alpine\"",
        "Pulled: Container image \"examples/app:9\" already present on machine",
    ] {
        cluster.tells("one", wanted).await;
    }
    cluster.delete("one", 1).await;
    cluster.tells("one", "Killing: Stopping container a").await;
    let bridge = cluster.bed.network.bridge;
    assert!(
        cluster
            .bed
            .network
            .links
            .ports_of(bridge)
            .await
            .unwrap()
            .is_empty()
    );
    cluster.close().await;
}

async fn services_and_names() {
    let cluster = Cluster::open(7).await;
    for (name, node) in [("s1", "lateen-1"), ("s2", "lateen-2")] {
        let mut spec = containers(vec![server(8080)]);
        spec["nodeName"] = json!(node);
        cluster.pod(name, spec).await;
    }
    cluster
        .pod(
            "client",
            containers(vec![
                json!({"name": "c", "image": "alpine", "command": ["lateen", "serve", "8081"]}),
            ]),
        )
        .await;
    let (s1, s2) = (cluster.ready("s1").await, cluster.ready("s2").await);
    cluster.ready("client").await;
    let spec =
        json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    let service = cluster.service("web", spec, &[&s1, &s2]).await;
    let ip = service["spec"]["clusterIP"].as_str().unwrap();
    let node_port = &service["spec"]["ports"][0]["nodePort"];
    let fetch = |url: &str| format!("curl -sS -m 30 {url} 2>&1");
    // By name, from a pod; both endpoints are met.
    let (text, _) = cluster
        .exec(
            "client",
            "c",
            &format!("for i in $(seq 30); do {}; done", fetch("http://web/")),
        )
        .await;
    assert!(text.contains("s1\n") && text.contains("s2\n"), "{text}");
    let (text, _) = cluster.exec("client", "c", "getent hosts web; getent hosts web.default.svc.cluster.local; getent hosts nope || echo none").await;
    assert_eq!(text.matches(ip).count(), 2, "{text}");
    assert!(text.ends_with("none\n"), "{text}");
    let (text, _) = cluster
        .exec(
            "client",
            "c",
            "dig +short +tcp _http._tcp.web.default.svc.cluster.local SRV",
        )
        .await;
    assert_eq!(text, "0 100 80 web.default.svc.cluster.local.\n");
    // From a pod to itself through the service, from the host, by node port.
    let (text, _) = cluster.exec("client", "c", "ip addr; ip route").await;
    assert!(!text.contains(ip), "{text}");
    // Whoever looks for a free port of this host passes it over.
    let number = u16::try_from(node_port.as_u64().unwrap()).unwrap();
    assert!(!lateen_cluster::network::ports::is_free(number));
    let node = &cluster.bed.network.nodes[1].address;
    for url in [
        format!("http://{ip}/"),
        format!("http://127.0.0.1:{node_port}/"),
        format!("http://{node}:{node_port}/"),
    ] {
        let output = tokio::process::Command::new("sh")
            .arg("-c")
            .arg(fetch(&url))
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with('s'), "{url}: {text}");
    }
    let (text, _) = cluster
        .exec(
            "client",
            "c",
            &fetch(&format!("http://{node}:{node_port}/")),
        )
        .await;
    assert!(text.starts_with('s'), "{text}");
    // A client that is its own endpoint.
    let hairpin = cluster
        .service(
            "self",
            json!({"ports": [{"port": 81, "targetPort": 8081}]}),
            &[&cluster.ready("client").await],
        )
        .await;
    let own = hairpin["spec"]["clusterIP"].as_str().unwrap();
    let (text, _) = cluster
        .exec("client", "c", &fetch(&format!("http://{own}:81/")))
        .await;
    assert_eq!(text, "client\n");
    // An address of the machine given as external address (row B12).
    let ip = cluster.bed.network.nodes[0].address.to_string();
    let external =
        json!({"externalIPs": [ip], "ports": [{"name": "http", "port": 8099, "targetPort": 8080}]});
    cluster.service("outer", external, &[&s1]).await;
    let url = format!("http://{ip}:8099/");
    let output = tokio::process::Command::new("curl")
        .args(["-sS", "-m", "30", &url])
        .output()
        .await;
    assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout), "s1\n");
    // No endpoints: refused at once.
    let none = cluster
        .service(
            "none",
            json!({"ports": [{"port": 80, "targetPort": 1}]}),
            &[],
        )
        .await;
    let (text, code) = cluster
        .exec(
            "client",
            "c",
            &format!(
                "curl -sS -m 30 http://{}/ 2>&1",
                none["spec"]["clusterIP"].as_str().unwrap()
            ),
        )
        .await;
    assert!(
        code == 7 && text.contains("Failed to connect"),
        "{code} {text}"
    );
    cluster.close().await;
}

async fn order_restart_and_probes() {
    let cluster = Cluster::open(8).await;
    let mut spec = containers(vec![json!({
        "name": "main", "image": "alpine",
        "command": ["sh", "-c", "cat /data/log; touch /tmp/up; trap 'exit 3' TERM; while true; do sleep 0.05; done"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "timeoutSeconds": 60},
        "livenessProbe": {"exec": {"command": ["sh", "-c", "test ! -e /tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 60},
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /data/log"]}}}
    })]);
    let mount = json!([{"name": "data", "mountPath": "/data"}]);
    spec["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    spec["initContainers"] = json!([
        {"name": "first", "image": "alpine", "command": ["sh", "-c", "echo first >> /data/log"], "volumeMounts": mount},
        {"name": "side", "image": "alpine", "restartPolicy": "Always", "command": ["sh", "-c", "echo side >> /data/log; trap 'exit 0' TERM; while true; do sleep 0.05; done"],
            "startupProbe": {"exec": {"command": ["grep", "side", "/data/log"]}, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 60}, "volumeMounts": mount},
        {"name": "second", "image": "alpine", "command": ["sh", "-c", "echo second >> /data/log"], "volumeMounts": mount}
    ]);
    cluster.pod("p", spec).await;
    let pod = cluster.ready("p").await;
    assert_eq!(
        cluster.logs("p", "main", LogOptions::default()).await,
        "first\nside\nsecond\n"
    );
    let init = &pod["status"]["initContainerStatuses"];
    assert_eq!(init[0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(init[1]["started"], true);
    // A killed process is started again at once.
    let (_, _) = cluster
        .exec("p", "main", "kill -KILL 1; kill -TERM 1")
        .await;
    let restarted = |n: i64| {
        move |pod: &Value| {
            let c = &pod["status"]["containerStatuses"][0];
            c["restartCount"] == n && c["ready"] == true
        }
    };
    let pod = cluster.until("p", "restarted", restarted(1)).await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        3
    );
    let before = LogOptions {
        previous: true,
        ..LogOptions::default()
    };
    assert_eq!(
        cluster.logs("p", "main", before).await,
        "first\nside\nsecond\n"
    );
    // A failed liveness probe restarts too, after back-off.
    cluster.exec("p", "main", "touch /tmp/sick").await;
    let pod = cluster
        .until("p", "crash looping", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CrashLoopBackOff"
        })
        .await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(
        message.starts_with("back-off 10s restarting failed container=main pod=p_default("),
        "{message}"
    );
    let killed = "Killing: Container main failed liveness probe, will be restarted";
    cluster.tells("p", killed).await;
    cluster.delete("p", 2).await;

    // A pod that completes: sidecars are stopped, phase and reasons are right.
    let mut job = containers(vec![
        json!({"name": "work", "image": "alpine", "command": ["sh", "-c", "echo result > /dev/termination-log"]}),
    ]);
    job["restartPolicy"] = json!("Never");
    job["initContainers"] = json!([{"name": "side", "image": "alpine", "restartPolicy": "Always", "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done"]}]);
    cluster.pod("job", job).await;
    let pod = cluster.phase("job", "Succeeded").await;
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (end["reason"].as_str(), end["message"].as_str()),
        (Some("Completed"), Some("result\n"))
    );
    cluster.delete("job", 0).await;
    cluster.close().await;
}

async fn images() {
    let cluster = Cluster::open(9).await;
    cluster
        .pod(
            "unknown",
            containers(vec![json!({"name": "c", "image": "nginx:1.25"})]),
        )
        .await;
    let reason = |wanted: &'static str| {
        move |pod: &Value| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == wanted
        }
    };
    let pod = cluster
        .until("unknown", "ErrImagePull", reason("ErrImagePull"))
        .await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(
        message.contains("known images") && message.contains("alpine"),
        "{message}"
    );
    assert_eq!(pod["status"]["phase"], "Pending");
    cluster
        .until("unknown", "backing off", reason("ImagePullBackOff"))
        .await;
    // The app image has no curl, alpine has; a missing program is a start error.
    cluster
        .pod(
            "app",
            containers(vec![
                json!({"name": "app", "image": "docker.io/examples/app:1", "args": ["sleep 100"]}),
                json!({"name": "tools", "image": "alpine:3", "command": ["sleep", "100"]}),
                json!({"name": "lost", "image": "alpine:3", "command": ["no-such-program"]}),
            ]),
        )
        .await;
    let running = |n: usize| {
        move |pod: &Value| !pod["status"]["containerStatuses"][n]["state"]["running"].is_null()
    };
    cluster.until("app", "running", running(0)).await;
    cluster.until("app", "running", running(2)).await;
    let curl = ExecRequest {
        command: vec!["curl".into()],
        stdout: true,
        ..ExecRequest::default()
    };
    let error = cluster
        .runtime
        .exec(&pod_ref("app"), "app", curl)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "exec: \"curl\": executable file not found in $PATH"
    );
    let (text, code) = cluster
        .exec("app", "tools", "curl --version; wget --version; which nc")
        .await;
    assert_eq!(code, 0, "{text}");
    let pod = cluster
        .until("app", "failing", |pod| {
            !pod["status"]["containerStatuses"][1]["lastState"]["terminated"].is_null()
        })
        .await;
    let last = &pod["status"]["containerStatuses"][1]["lastState"]["terminated"];
    assert_eq!(last["reason"], "StartError");
    assert!(
        last["message"]
            .as_str()
            .unwrap()
            .contains("executable file not found in $PATH")
    );
    cluster.delete("app", 0).await;
    cluster.delete("unknown", 0).await;
    cluster.close().await;
}

async fn volumes_and_environment() {
    let cluster = Cluster::open(10).await;
    let map = json!({"metadata": {"name": "cm"}, "data": {"key": "one", "other": "x"}});
    cluster
        .api
        .create(&CONFIG_MAPS, Some("default"), map)
        .await
        .unwrap();
    let mut spec = containers(vec![json!({
        "name": "c", "image": "alpine", "command": ["sleep", "1000"],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL", "value": "http://$(POD_IP)"},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}}],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "readOnlyRootFilesystem": true},
        "volumeMounts": [
            {"name": "cm", "mountPath": "/cm"},
            {"name": "cm", "mountPath": "/one/file", "subPath": "key"},
            {"name": "all", "mountPath": "/var/run/secrets/x"},
            {"name": "mem", "mountPath": "/mem"}]
    })]);
    spec["volumes"] = json!([
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "mem", "emptyDir": {"medium": "Memory"}},
        {"name": "all", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "audience": "istio-ca"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}
    ]);
    cluster.pod("v", spec).await;
    let pod = cluster.ready("v").await;
    let script = "cat /cm/key /one/file; echo; echo $URL $KEY; cat /var/run/secrets/x/labels; echo; test -s /var/run/secrets/x/token && echo token; touch /mem/a && ls /mem; touch /x 2>&1; df /mem | tail -1 | cut -d' ' -f1";
    let (text, _) = cluster.exec("v", "c", script).await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("oneone\nhttp://{ip} one\napp=\"v\"\ntoken\na\n")),
        "{text}"
    );
    assert!(
        text.contains("Read-only file system") && text.contains("tmpfs"),
        "{text}"
    );
    cluster.delete("v", 0).await;
    // What is missing is waited for.
    let mut waiting = containers(vec![
        json!({"name": "c", "image": "alpine", "command": ["sleep", "1000"], "volumeMounts": [{"name": "m", "mountPath": "/m"}]}),
    ]);
    waiting["volumes"] = json!([{"name": "m", "configMap": {"name": "late"}}]);
    cluster.pod("w", waiting).await;
    cluster
        .tells(
            "w",
            "FailedMount: MountVolume.SetUp failed for volume \"m\" : configmap \"late\" not found",
        )
        .await;
    let map = json!({"metadata": {"name": "late"}, "data": {"k": "v"}});
    cluster
        .api
        .create(&CONFIG_MAPS, Some("default"), map)
        .await
        .unwrap();
    cluster.ready("w").await;
    cluster.delete("w", 0).await;
    cluster.close().await;
}

async fn streams() {
    let cluster = Cluster::open(11).await;
    let mut shell = json!({"name": "sh", "image": "alpine", "stdin": true, "stdinOnce": true, "command": ["sh", "-c", "echo first; read line; echo got $line; exit 5"]});
    let mut spec = containers(vec![shell.clone(), server(8090)]);
    spec["restartPolicy"] = json!("Never");
    cluster.pod("s", spec).await;
    cluster
        .until("s", "running", |pod| pod["status"]["phase"] == "Running")
        .await;
    let request = AttachRequest {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let session = cluster
        .runtime
        .attach(&pod_ref("s"), "sh", request)
        .await
        .unwrap();
    session.stdin.unwrap().write_all(b"words\n").await.unwrap();
    let mut text = String::new();
    session
        .stdout
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, "first\ngot words\n");
    assert_eq!(session.exit.await.unwrap().code(), 5);
    // A client that comes just after the end of an unread program still hears it.
    let mut short = containers(vec![
        json!({"name": "c", "image": "alpine", "stdin": true, "stdinOnce": true,
        "command": ["sh", "-c", "echo short; exit 6"]}),
    ]);
    short["restartPolicy"] = json!("Never");
    cluster.pod("short", short).await;
    cluster.phase("short", "Failed").await;
    let session = cluster
        .runtime
        .attach(&pod_ref("short"), "c", request)
        .await
        .unwrap();
    let mut text = String::new();
    session
        .stdout
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(
        (text.as_str(), session.exit.await.unwrap().code()),
        ("short\n", 6)
    );
    assert!(
        cluster
            .runtime
            .attach(&pod_ref("short"), "c", request)
            .await
            .is_err()
    );
    // Port-forward reaches 127.0.0.1 inside.
    let begun = std::time::Instant::now();
    let mut stream = loop {
        match cluster.runtime.port_forward(&pod_ref("s"), 8090).await {
            Ok(open) => break open,
            Err(error) => assert!(begun.elapsed() < crate::PATIENCE, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("s\n"), "{text}");
    // A terminal.
    let request = ExecRequest {
        command: vec!["sh".into()],
        stdin: true,
        stdout: true,
        tty: true,
        ..ExecRequest::default()
    };
    let session = cluster
        .runtime
        .exec(&pod_ref("s"), "web", request)
        .await
        .unwrap();
    session.resize.send((77, 22)).await.unwrap();
    let mut stdin = session.stdin.unwrap();
    // The size comes by a way of its own.
    let script = b"until stty size | grep '22 77'; do sleep 0.05; done; tty; exit 9\n";
    stdin.write_all(script).await.unwrap();
    let mut text = String::new();
    session
        .stdout
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert!(text.contains("/dev/pts/"), "{text}");
    assert_eq!(session.exit.await.unwrap().code(), 9);
    cluster.delete("s", 0).await;
    // A followed log ends with its container.
    shell["command"] = json!([
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; sleep 0.1; done"
    ]);
    let mut spec = containers(vec![shell]);
    spec["restartPolicy"] = json!("Never");
    cluster.pod("l", spec).await;
    cluster
        .until("l", "started", |pod| pod["status"]["phase"] != "Pending")
        .await;
    let follow = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    assert_eq!(
        cluster.logs("l", "sh", follow).await,
        "line 1\nline 2\nline 3\n"
    );
    let last = LogOptions {
        tail_lines: Some(1),
        ..LogOptions::default()
    };
    assert_eq!(cluster.logs("l", "sh", last).await, "line 3\n");
    let error = cluster
        .runtime
        .logs(
            &pod_ref("l"),
            "sh",
            LogOptions {
                previous: true,
                ..LogOptions::default()
            },
        )
        .await;
    assert_eq!(
        error.err().unwrap().to_string(),
        "previous terminated container \"sh\" in pod \"l\" not found"
    );
    cluster.close().await;
}

async fn six_pods() {
    let cluster = Cluster::open(12).await;
    let started = std::time::Instant::now();
    for n in 0..6 {
        let one =
            |name: &str| json!({"name": name, "image": "alpine:3", "command": ["sleep", "1000"]});
        cluster
            .pod(&format!("p{n}"), containers(vec![one("a"), one("b")]))
            .await;
    }
    for n in 0..6 {
        cluster.ready(&format!("p{n}")).await;
    }
    println!(
        "  six two-container pods ready after {:?}",
        started.elapsed()
    );
    let started = std::time::Instant::now();
    cluster.close().await;
    println!("  all gone after {:?}", started.elapsed());
}

/// A pod whose first process is killed gets a new sandbox, init containers included; so does every
/// pod when the agent itself is restarted, while what was done stays done.
async fn sandbox_lost_and_agent_restarted() {
    let mut cluster = Cluster::open(14).await;
    let mut spec = containers(vec![server(8070)]);
    spec["initContainers"] = json!([{"name": "i", "image": "alpine", "command": ["ip", "rule", "add", "pref", "7", "lookup", "main"], "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]);
    cluster.pod("p", spec).await;
    let mut once = containers(vec![
        json!({"name": "c", "image": "alpine", "command": ["true"]}),
    ]);
    once["restartPolicy"] = json!("Never");
    cluster.pod("once", once).await;
    let before = cluster.ready("p").await;
    cluster.phase("once", "Succeeded").await;
    let pid = first_process("default/p", &cluster.bed.instance);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let again = |n: i64| {
        move |pod: &Value| {
            let c = &pod["status"]["containerStatuses"][0];
            c["restartCount"] == n && c["ready"] == true
        }
    };
    let pod = cluster.until("p", "back", again(1)).await;
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"]);
    let (text, _) = cluster.exec("p", "web", "ip rule | grep -c ^7:").await;
    assert_eq!(text, "1\n");
    let url = format!(
        "http://{}:8070/",
        before["status"]["podIP"].as_str().unwrap()
    );
    let output = tokio::process::Command::new("curl")
        .args(["-sS", "-m", "30", &url])
        .output()
        .await;
    assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout), "p\n");

    cluster.restart_agent().await;
    let pod = cluster.until("p", "back again", again(2)).await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"],
        "the node agent was restarted"
    );
    let once = cluster.phase("once", "Succeeded").await;
    assert_eq!(once["status"]["containerStatuses"][0]["restartCount"], 0);
    cluster.delete("once", 0).await;
    cluster.close().await;
}

fn first_process(pod: &str, instance: &str) -> nix::unistd::Pid {
    let wanted = format!("__pause\0{instance}\0{pod}\0");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pid = entries
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|c| c.ends_with(&wanted))
        });
    nix::unistd::Pid::from_raw(pid.unwrap())
}

async fn shared_namespaces() {
    let cluster = Cluster::open(15).await;
    let sleeper =
        |name: &str| json!({"name": name, "image": "alpine:3", "command": ["sleep", "1000"]});
    let mut shared = containers(vec![sleeper("a"), sleeper("b")]);
    shared["shareProcessNamespace"] = json!(true);
    shared["hostname"] = json!("other");
    shared["subdomain"] = json!("group");
    cluster.pod("shared", shared).await;
    cluster
        .pod("apart", containers(vec![sleeper("a"), sleeper("b")]))
        .await;
    let mut host = containers(vec![sleeper("a")]);
    host["hostNetwork"] = json!(true);
    cluster.pod("host", host).await;
    for name in ["shared", "apart", "host"] {
        cluster.ready(name).await;
    }
    let count = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[s]leep 1000' | wc -l; touch /dev/shm/x; hostname";
    let (text, _) = cluster.exec("shared", "a", count).await;
    assert_eq!(text, "2\nother\n");
    let (text, _) = cluster.exec("apart", "a", count).await;
    assert_eq!(text, "1\napart\n");
    let (text, _) = cluster.exec("apart", "b", "ls /dev/shm").await;
    assert_eq!(text, "x\n");
    let (text, _) = cluster
        .exec(
            "host",
            "a",
            &format!(
                "ip -br link show {} | wc -l; cat /etc/resolv.conf",
                cluster.bed.instance
            ),
        )
        .await;
    assert!(
        text.starts_with("1\n") && !text.contains("ndots:5"),
        "{text}"
    );
    let pod = cluster
        .api
        .get(
            &lateen_cluster::api::resource::PODS,
            Some("default"),
            "host",
        )
        .await
        .unwrap();
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"]);
    cluster.close().await;
}
