//! Pods lived in: logs, exec, attach, cp, run, port-forward, probes, volumes, names.

use crate::Check;
use crate::cluster::Kubectl;

pub const CHECKS: &[Check] = &[
    ("streams", streams),
    ("run_and_remove", run_and_remove),
    ("crash_loop", crash_loop),
    ("probes_and_volumes", probes_and_volumes),
    ("debugged", debugged),
];

const SERVER: &str = "apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: busybox, command: [sh, -c, 'echo one; echo two; while true; do sleep 1; echo tick; done']}
";

fn ready(k: &Kubectl) {
    k.says(
        "kubectl wait --for=condition=Ready pod/p --timeout=180s",
        "pod/p condition met",
    );
}

fn streams(k: &Kubectl) {
    k.apply(SERVER);
    ready(k);
    k.tells("kubectl logs p", &["one\ntwo\n"]);
    // Each pipe ends with the lines it wants, however long they take.
    k.tells(
        "$KUBECTL logs -f p --tail=1 | grep -m 2 tick",
        &["tick\ntick"],
    );
    k.tells("kubectl logs -l app=p --tail=1 --prefix", &["[pod/p/c] "]);
    k.tells("kubectl logs p --since=5s --timestamps", &["Z "]);
    k.refuses(
        "kubectl logs p --previous",
        &["(BadRequest): previous terminated container \"c\" in pod \"p\" not found"],
    );
    k.refuses(
        "kubectl logs p -c no",
        &["container no is not valid for pod p"],
    );
    let said = k.sh("kubectl exec p -- sh -c 'echo hi; exit 3'");
    assert_eq!(
        (said.code, said.text.as_str()),
        (3, "hi\ncommand terminated with exit code 3\n")
    );
    k.says("echo hello | kubectl exec -i p -- cat", "hello");
    k.tells(
        "script -qec 'bash -c \"kubectl exec -it p -- tty\"' /dev/null",
        &["/dev/pts/0"],
    );
    k.says("$KUBECTL attach p 2>/dev/null | grep -m 1 tick", "tick");
    k.sh("echo data > up && kubectl cp up p:/tmp/x && kubectl cp p:/tmp/x down")
        .good();
    k.says("cat down", "data");
    // kubectl gives a forward up at the first refused connection: the server listens before it
    // starts, and curl comes again only while the forwarder's own port is not there.
    let forward = "kubectl exec p -- sh -c 'mkdir /w; head -c 3000000 /dev/zero | tr \"\\0\" s > /w/f; python3 -m http.server 80 -d /w >/dev/null 2>&1 & \
        until curl -s -o /dev/null localhost:80; do sleep 0.1; done'; \
        $KUBECTL port-forward pod/p :80 > forward & F=$!; \
        until PORT=$(grep -s -m 1 -o '127.0.0.1:[0-9]*' forward); do sleep 0.1; done; \
        until curl -s -m 20 $PORT/f -o got; do kill -0 $F || exit 1; sleep 0.3; done; kill $F; tr -d s < got | wc -c; wc -c < got";
    k.says(forward, "0\n3000000");
}

/// `kubectl debug`: a container that looks into a running pod.
fn debugged(k: &Kubectl) {
    k.apply(SERVER);
    ready(k);
    let look = |flags: &str| {
        format!(
            "kubectl debug p {flags} --image=busybox -- sh -c 'tr \"\\0\" \" \" < /proc/1/cmdline; hostname'"
        )
    };
    k.tells(
        &look("-i -c first --target=c"),
        &["echo one; echo two", "p\n"],
    );
    k.tells(
        "script -qec 'bash -c \"kubectl debug p -it -c second --image=busybox -- hostname\"' /dev/null",
        &["p\r"],
    );
    k.comes_to_tell("kubectl get pod p", &["1/1     Running   0"]);
    k.tells(
        "kubectl describe pod p",
        &["Ephemeral Containers:\n  first:", "Started container first"],
    );
    k.refuses(
        &look("-c third --target=zz"),
        &["spec.ephemeralContainers[2].targetContainerName: Not found: \"zz\""],
    );
}

fn run_and_remove(k: &Kubectl) {
    let said = k.sh("echo 'echo got $((6*7)); exit 4' | kubectl run -i --rm r --image=busybox --restart=Never -- sh");
    assert!(
        said.code == 4 && said.text.contains("got 42"),
        "{} {}",
        said.code,
        said.text
    );
    let said = k.sh("script -qec 'bash -c \"kubectl run -it --rm r2 --image=busybox --restart=Never -- echo inside\"' /dev/null");
    assert!(
        said.code == 0 && said.text.contains("inside"),
        "{} {}",
        said.code,
        said.text
    );
    assert!(!said.text.contains("couldn't attach"), "{}", said.text);
    // `--rm` asks for the removal, it does not wait for it.
    k.comes_to_tell("kubectl get pod", &["No resources found"]);
    k.sh("kubectl run bad --image=nosuch/image:1").good();
    k.settle("the image's failure", "kubectl get pod bad", |said| {
        said.text.contains("ErrImagePull") || said.text.contains("ImagePullBackOff")
    });
    k.sh("kubectl delete pod bad --grace-period=0 --force")
        .good();
}

fn crash_loop(k: &Kubectl) {
    // Without a probe that fails it would be ready for the moment that it runs.
    let pod = SERVER.replace(
        "while true; do sleep 1; echo tick; done']",
        "exit 7'], readinessProbe: {exec: {command: ['false']}}",
    );
    k.apply(&pod);
    k.settle("the back-off", "kubectl get pod p", |said| {
        said.text.contains("CrashLoopBackOff")
    });
    k.says("kubectl logs p --previous", "one\ntwo");
    k.tells(
        "kubectl describe pod p",
        &[
            "Exit Code:    7",
            "Back-off restarting failed container c in pod p_",
        ],
    );
    // Between two back-offs it runs for a moment.
    k.settle("a refusal", "kubectl exec p -- true", |said| {
        said.code != 0 && said.text.contains("container not found (\"c\")")
    });
    k.refuses(
        "kubectl wait --for=condition=Ready pod/p --timeout=1s",
        &["timed out waiting for the condition on pods/p"],
    );
}

const PROBED: &str = "apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, echo first]}
  - {name: side, image: busybox, restartPolicy: Always, command: [sh, -c, echo side; exec sleep 1000]}
  containers:
  - name: c
    image: busybox
    command: [sh, -c, touch /tmp/ready /tmp/live; exec sleep 1000]
    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 60}
    startupProbe: {exec: {command: [test, -e, /tmp/live]}, periodSeconds: 1, failureThreshold: 100, timeoutSeconds: 60}
    livenessProbe: {exec: {command: [test, -e, /tmp/live]}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 60}
    volumeMounts: [{name: cm, mountPath: /cm}, {name: d, mountPath: /d}]
    env: [{name: FROM, valueFrom: {configMapKeyRef: {name: cm, key: a}}}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
  volumes:
  - {name: cm, configMap: {name: cm}}
  - {name: d, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {clusterIP: None, selector: {app: p}, ports: [{port: 80}]}
";

fn probes_and_volumes(k: &Kubectl) {
    k.sh("kubectl create configmap cm --from-literal=a=old")
        .good();
    k.apply(PROBED);
    ready(k);
    k.tells("kubectl get pod p", &["2/2     Running"]);
    // In any order of the containers.
    k.comes_to_tell("kubectl logs p --all-containers", &["first\n", "side\n"]);
    let ip = k
        .sh("kubectl get pod p -o jsonpath='{.status.podIP}'")
        .good();
    k.says(
        "kubectl exec p -c c -- sh -c 'cat /cm/a /d/labels; echo; echo $FROM $IP'",
        &format!("oldapp=\"p\"\nold {ip}"),
    );
    k.settle("the endpoint", "kubectl get endpoints s", |said| {
        said.text.contains(&ip)
    });
    k.settle(
        "the headless name",
        "kubectl exec p -c c -- getent hosts s",
        |said| said.text.contains(&ip),
    );
    k.sh(
        "kubectl patch cm cm -p '{\"data\":{\"a\":\"new\"}}'; kubectl exec p -c c -- rm /tmp/ready",
    )
    .good();
    k.settle("no endpoint", "kubectl get endpoints s", |said| {
        !said.text.contains(&ip)
    });
    k.comes_to_tell("kubectl get pod p", &["1/2     Running"]);
    k.sh("kubectl exec p -c c -- touch /tmp/ready").good();
    k.settle("the endpoint again", "kubectl get endpoints s", |said| {
        said.text.contains(&ip)
    });
    k.settle(
        "the new value",
        "kubectl exec p -c c -- cat /cm/a",
        |said| said.text == "new",
    );
    // The container may end before the program that ended it does.
    k.sh("kubectl exec p -c c -- rm /tmp/live");
    k.settle(
        "the restart",
        "kubectl get pod p -o jsonpath='{.status.containerStatuses[0].restartCount}'",
        |said| said.text == "1",
    );
    k.comes_to_tell(
        "kubectl events --for pod/p",
        &[
            "Liveness probe failed",
            "Container c failed liveness probe, will be restarted",
        ],
    );
}
