//! Life and death: pods served, probed, killed, stopped in order; the whole cluster killed, started
//! again and taken down.

use std::process::Command;

use crate::Check;
use crate::cluster::{Cluster, Kubectl};

pub const CHECKS: &[Check] = &[
    ("served_probed_and_killed", served_probed_and_killed),
    ("started_and_stopped_in_order", started_and_stopped_in_order),
    ("cluster_killed_and_up_again", cluster_killed_and_up_again),
    ("cluster_refuses_and_goes", cluster_refuses_and_goes),
];

const SERVED: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    command: [sh, -c, 'mkdir -p /w; cd /w; touch live ready; echo hello > index.html; python3 -m http.server 8080 & echo $! > /pid; wait $!']
    ports: [{containerPort: 8080, name: http}]
    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1, failureThreshold: 150}
    readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 60}
    livenessProbe: {httpGet: {path: /live, port: 8080}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 60}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
";

fn served_probed_and_killed(k: &Kubectl) {
    k.apply(SERVED);
    let port = k
        .sh("kubectl get svc web -o jsonpath='{.spec.ports[0].nodePort}'")
        .good();
    let ask = format!("curl -s -m 30 127.0.0.1:{port}");
    let serves = |what: &str| k.settle(what, &ask, |said| said.text == "hello\n");
    serves("the node port on the host");
    k.sh("kubectl exec web -- rm /w/ready").good();
    // No endpoint: refused, not left waiting.
    k.settle("a refusal", &ask, |said| said.code == 7);
    k.comes_to_tell("kubectl get pod web", &["0/1     Running   0"]);
    k.sh("kubectl exec web -- touch /w/ready").good();
    serves("the node port again");
    let restarts = "kubectl get pod web -o jsonpath='{.status.containerStatuses[0].restartCount}'";
    // The container may end before the shell that ended it does.
    k.sh("kubectl exec web -- sh -c 'kill -9 $(cat /pid)'");
    k.settle("the restart of a killed program", restarts, |said| {
        said.text == "1"
    });
    k.says(
        "kubectl get pod web -o jsonpath='{.status.containerStatuses[0].lastState.terminated.exitCode}'",
        "137",
    );
    serves("the node port of the new program");
    k.sh("kubectl exec web -- rm /w/live");
    k.settle("the restart of a program found dead", restarts, |said| {
        said.text == "2"
    });
    serves("the node port of the third program");
    k.comes_to_tell(
        "kubectl events --for pod/web",
        &[
            "Liveness probe failed: HTTP probe failed with statuscode: 404",
            "Readiness probe failed: HTTP probe failed with statuscode: 404",
        ],
    );
}

/// A pod whose containers write what they do into one file of the host.
const ORDERED: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 60
  volumes: [{name: v, hostPath: {path: FOLDER}}]
  initContainers:
  - name: first
    image: busybox
    command: [sh, -c, 'echo first begins >> /v/log; sleep 0.3; echo first ends >> /v/log']
    volumeMounts: [{name: v, mountPath: /v}]
  - name: one
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'trap \"echo one stops >> /v/log; exit\" TERM; echo one >> /v/log; sleep 0.3; echo one is up >> /v/log; touch /up; while :; do sleep 0.1; done']
    startupProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1, failureThreshold: 150, timeoutSeconds: 60}
    volumeMounts: [{name: v, mountPath: /v}]
  - name: two
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'trap \"echo two stops >> /v/log; exit\" TERM; echo two >> /v/log; touch /up; while :; do sleep 0.1; done']
    startupProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1, failureThreshold: 150, timeoutSeconds: 60}
    volumeMounts: [{name: v, mountPath: /v}]
  - name: last
    image: busybox
    command: [sh, -c, 'echo last >> /v/log']
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'trap \"echo main stops >> /v/log; sleep 0.3; echo main ends >> /v/log; exit\" TERM; echo main >> /v/log; touch /up; while :; do sleep 0.1; done']
    readinessProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1, timeoutSeconds: 60}
    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo before the stop >> /v/log; sleep 0.3']}}}
    volumeMounts: [{name: v, mountPath: /v}]
";

fn started_and_stopped_in_order(k: &Kubectl) {
    let folder = k.folder.join("shared");
    std::fs::create_dir(&folder).expect("a folder");
    k.apply(&ORDERED.replace("FOLDER", &folder.display().to_string()));
    k.tells(
        "kubectl wait --for=condition=Ready pod/p --timeout=180s",
        &["condition met"],
    );
    k.sh("kubectl delete pod p").good();
    let log = std::fs::read_to_string(folder.join("log")).expect("a log");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        lines,
        [
            "first begins",
            "first ends",
            "one",
            "one is up",
            "two",
            "last",
            "main",
            "before the stop",
            "main stops",
            "main ends",
            "two stops",
            "one stops",
        ]
    );
}

/// Whether a process of this machine has the text in its command line.
fn runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("processes");
    let own = std::process::id().to_string();
    processes.flatten().any(|entry| {
        // Processes come and go while they are read.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        entry.file_name() != own.as_str() && line.contains(text)
    })
}

/// A program that no other pod of the machine runs.
fn marked(k: &Kubectl) -> String {
    let number = k.namespace.rsplit('-').next().unwrap_or_default();
    format!("sleep 1{number}.{}", std::process::id())
}

/// A deployment of two pods that run the marked program, by a kubectl of its cluster.
fn deploy(k: &Kubectl, mark: &str) {
    k.sh(&format!(
        "kubectl create deployment d --replicas=2 --image=busybox -- {mark}"
    ))
    .good();
    available(k);
}

fn available(k: &Kubectl) {
    k.settle(
        "both pods",
        "kubectl get deploy d -o jsonpath='{.status.readyReplicas}'",
        |said| said.text == "2",
    );
}

fn cluster_killed_and_up_again(given: &Kubectl) {
    let cluster = Cluster::start();
    let k = cluster.kubectl(&given.program);
    let mark = marked(given);
    deploy(&k, &mark);
    assert!(runs(&mark));
    // Writes go on until the server is gone: each name in `told` was acknowledged.
    let told = k.folder.join("told");
    let writer = std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            k.sh("n=0; while kubectl create configmap w$n; do echo w$n >> told; n=$((n+1)); done")
        });
        let count = || std::fs::read_to_string(&told).map_or(0, |text| text.lines().count());
        while count() < 5 {
            assert!(!writes.is_finished(), "the writes ended early");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        cluster.kill();
        writes.join().expect("no panic")
    });
    assert!(writer.text.contains("created"), "{}", writer.text);
    k.settle("the killed cluster's programs to die", "true", |_| {
        !runs(&mark)
    });
    cluster.up_again();
    let kept = k.sh("kubectl get configmap -o name").good();
    let told = std::fs::read_to_string(told).expect("names");
    for name in told.lines() {
        let line = format!("configmap/{name}");
        assert!(kept.lines().any(|l| l == line), "{name} is lost:\n{kept}");
    }
    k.settle("new programs in the old pods", "true", |_| runs(&mark));
    // Until the agent has looked at a pod, its status is the one from before.
    k.settle(
        "both pods to start again",
        "kubectl get pod -l app=d -o jsonpath='{.items[*].status.containerStatuses[0].restartCount}'",
        |said| said.text == "1 1",
    );
    available(&k);
}

fn cluster_refuses_and_goes(given: &Kubectl) {
    let cluster = Cluster::start();
    let k = cluster.kubectl(&given.program);
    let up = ["up", "--profile", "empty", "--api-port"];
    let twice = Cluster::lateen(cluster.home(), &[&up[..], &["0"]].concat()).bad();
    assert!(twice.contains("`lateen up` is running already"), "{twice}");
    let port = k
        .sh("kubectl config view -o jsonpath='{.clusters[0].cluster.server}'")
        .good();
    let port = port.rsplit(':').next().unwrap_or_default().to_owned();
    let other = tempfile::tempdir().expect("a folder");
    let busy = Cluster::lateen(other.path(), &[&up[..], &[port.as_str()]].concat()).bad();
    assert!(busy.contains("cannot listen on 127.0.0.1:"), "{busy}");
    let mark = marked(given);
    deploy(&k, &mark);
    let network = std::fs::read_to_string(cluster.home().join("run/network.json"));
    let network: serde_json::Value =
        serde_json::from_str(&network.expect("a network")).expect("json");
    let instance = network["instance"].as_str().expect("a name").to_owned();
    let traces = || {
        let parts = [
            ("ip", ["link", "show"]),
            ("nft", ["list", "tables"]),
            ("ip", ["route", "show"]),
        ];
        let text = |(program, args): (&str, [&str; 2])| {
            let output = Command::new(program).args(args).output().expect("it runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let mut all = parts.map(text).concat();
        all.push_str(&mounts);
        let home = cluster.home().display().to_string();
        let found = all
            .lines()
            .filter(|l| l.contains(&instance) || l.contains(&home));
        found.map(str::to_owned).collect::<Vec<String>>()
    };
    assert!(!traces().is_empty() && runs(&mark));
    // What a crash leaves goes too.
    cluster.kill();
    Cluster::lateen(cluster.home(), &["down"]).good();
    k.settle("its programs to die", "true", |_| !runs(&mark));
    assert_eq!(traces(), Vec::<String>::new());
    // And what a running one made.
    cluster.up_again();
    available(&k);
    let down = Cluster::lateen(cluster.home(), &["down"]).good();
    assert!(down.contains("stopped"), "{down}");
    assert!(!runs(&mark));
    assert_eq!(traces(), Vec::<String>::new());
}
