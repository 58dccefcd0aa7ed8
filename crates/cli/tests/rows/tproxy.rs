//! A pod whose inbound traffic is taken over by TPROXY: it sees its callers' addresses.

use crate::world::{Check, World};

/// The rows of this file.
pub const ROWS: &[Check] = &[
    ("tproxy_the_application_sees_its_caller", sees_its_caller),
    ("tproxy_the_listeners_are_transparent", transparent),
];

/// Answers each connection with the address of its peer: over HTTP on 7070, as it is on 7071.
/// perl is in every Debian.
const APPLICATION: &str = r#"
use IO::Socket::INET;
sub at { IO::Socket::INET->new(Listen => 9, LocalPort => $_[0], ReuseAddr => 1) or die $! }
if (!fork) { $s = at(7071); while ($c = $s->accept) { print $c $c->peerhost; close $c } }
$s = at(7070);
while ($c = $s->accept) {
  while (<$c>) { last if /^\r?$/ }
  $p = $c->peerhost;
  print $c "HTTP/1.1 200 OK\r\ncontent-length: " . length($p) . "\r\nconnection: close\r\n\r\n$p";
  close $c
}"#;

/// A pod of namespace `seen` with that application, reached as service `seen`.
fn application(world: &World) -> String {
    world.scratch("seen", true);
    let program = serde_json::Value::from(APPLICATION);
    world.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: seen, namespace: seen}}
spec:
  selector: {{app: seen}}
  ports:
  - {{name: http, port: 7070}}
  - {{name: tcp, port: 7071}}
---
apiVersion: v1
kind: Pod
metadata:
  name: seen
  namespace: seen
  labels: {{app: seen}}
  annotations: {{sidecar.istio.io/interceptionMode: TPROXY}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: alpine
    command: [perl, -e, {program}]
    readinessProbe:
      httpGet: {{path: /, port: 7070}}
      periodSeconds: 1
"
    ));
    let ready = "--for=condition=Ready";
    let wait = ["wait", "-n", "seen", ready, "pod/seen", "--timeout=30s"];
    world.kubectl(&wait).good();
    ip(world, "seen", "seen")
}

fn ip(world: &World, namespace: &str, pod: &str) -> String {
    let path = "jsonpath={.status.podIP}";
    world
        .kubectl(&["get", "pod", pod, "-n", namespace, "-o", path])
        .good()
}

/// What a pod's container reads from a URL.
fn fetched(world: &World, namespace: &str, pod: &str, container: &str, url: &str) -> String {
    let args = [
        "exec", "-n", namespace, pod, "-c", container, "--", "curl", "-s", "-m", "5", url,
    ];
    world.kubectl(&args).good()
}

fn sees_its_caller(world: &World) {
    let own = application(world);
    world.insider();
    world.outsider();
    let inside = ip(world, "default", "client");
    let outside = ip(world, "outside", "client");
    let from = |namespace: &str, url: &str| fetched(world, namespace, "client", "client", url);
    world.settle("a meshed caller to be seen", || {
        from("default", "http://seen.seen:7070/") == inside
    });
    assert_eq!(from("outside", "http://seen.seen:7070/"), outside);
    // The caller's address stays with each request, whoever called before.
    assert_eq!(from("default", "http://seen.seen:7070/"), inside);
    assert_eq!(from("outside", &format!("http://{own}:7070/")), outside);
    let raw = ["bash", "-c", "cat < /dev/tcp/seen.seen/7071"];
    assert_eq!(world.client_exec("default", &raw).good(), inside);
    assert_eq!(world.client_exec("outside", &raw).good(), outside);
    // Itself, by its service's address: out through the sidecar, and in again.
    let here = |url: &str| fetched(world, "seen", "seen", "app", url);
    assert_eq!(here("http://seen:7070/"), own);
    // And what it calls is called through the sidecar still.
    let details = here("http://details.default:9080/details/0");
    assert!(details.contains("William Shakespeare"), "{details}");
    world.settle("the sidecar's log to hold all of it", || {
        let log = ["logs", "-n", "seen", "seen", "-c", "istio-proxy"];
        let log = world.kubectl(&log).out;
        let has = |what: &str| log.lines().any(|l| l.contains(what));
        let out = "outbound|9080||details.default.svc.cluster.local";
        has("inbound|7070||") && has("inbound|7071||") && has(out)
    });
}

fn transparent(world: &World) {
    application(world);
    for port in ["15006", "15001"] {
        let args = [
            "proxy-config",
            "listener",
            "seen.seen",
            "--port",
            port,
            "-o",
            "json",
        ];
        let listeners = world.lateen(&args).good();
        let listeners: serde_json::Value = serde_json::from_str(&listeners).expect("JSON");
        let listener = &listeners[0];
        assert_eq!(listener["transparent"], true, "{listener}");
        let keeps = "envoy.filters.listener.original_src";
        let filters = listener["listenerFilters"].to_string();
        assert_eq!(filters.contains(keeps), port == "15006", "{filters}");
    }
}
