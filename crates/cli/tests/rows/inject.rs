//! Rows about the sidecar: who gets one, what it is made of, and that traffic passes it.

use std::process::Command;

use crate::world::{Check, World};

/// The rows of this file.
pub const ROWS: &[Check] = &[
    ("b01_new_pods_of_a_labelled_namespace_are_injected", b01),
    ("b02_the_sample_manifest_applies_as_written", b02),
    ("b03_all_traffic_passes_the_sidecar", b03),
    ("b04_istio_init_runs_first_and_ends", b04),
    ("b05_the_redirection_rules_stand_in_the_pod", b05),
    ("c07_one_container_in_the_manifest_two_in_the_pod", c07),
    ("d12_loopback_is_not_captured_and_the_pod_ip_is", d12),
];

fn pod(name: &str, extra_meta: &str, extra_spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: labelled\n{extra_meta}spec:\n{extra_spec}  terminationGracePeriodSeconds: 1\n  containers:\n  - name: app\n    image: busybox\n    command: [sleep, \"600\"]\n"
    )
}

fn ready(world: &World, name: &str) -> String {
    world.settle(&format!("pod {name} to run"), || {
        let row = world
            .kubectl(&["get", "pod", name, "-n", "labelled", "--no-headers"])
            .out;
        row.contains("1/1 ") || row.contains("2/2 ")
    });
    let row = world
        .kubectl(&["get", "pod", name, "-n", "labelled", "--no-headers"])
        .good();
    row.split_whitespace()
        .nth(1)
        .expect("the READY column")
        .to_owned()
}

fn b01(world: &World) {
    world.scratch("labelled", false);
    world.apply(&pod("before", "", ""));
    assert_eq!(ready(world, "before"), "1/1");
    world
        .kubectl(&["label", "namespace", "labelled", "istio-injection=enabled"])
        .good();
    world.apply(&pod("after", "", ""));
    assert_eq!(ready(world, "after"), "2/2");
    assert_eq!(ready(world, "before"), "1/1");
    let out = "  labels:\n    sidecar.istio.io/inject: \"false\"\n";
    world.apply(&pod("opted-out", out, ""));
    assert_eq!(ready(world, "opted-out"), "1/1");
    world.apply(&pod("on-host", "", "  hostNetwork: true\n"));
    assert_eq!(ready(world, "on-host"), "1/1");
}

fn b02(world: &World) {
    world.scratch("again", true);
    let file = "samples/bookinfo/platform/kube/bookinfo.yaml";
    let said = world.kubectl(&["apply", "-n", "again", "-f", file]).good();
    let made = |kind: &str| said.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(
        (
            made("service/"),
            made("serviceaccount/"),
            made("deployment.apps/")
        ),
        (4, 4, 6)
    );
    world.settle("six pods 2/2 Running", || {
        let pods = world
            .kubectl(&["get", "pod", "-n", "again", "--no-headers"])
            .out;
        pods.lines()
            .filter(|l| l.contains("2/2") && l.contains("Running"))
            .count()
            == 6
    });
}

/// A container's log, the last lines.
fn log(world: &World, pod: &str, container: &str) -> String {
    world
        .kubectl(&["logs", pod, "-c", container, "--tail=200"])
        .out
}

fn b03(world: &World) {
    let id = format!("row-b03-{}", std::process::id());
    let header = format!("x-request-id: {id}");
    world.insider();
    let said = world.client_exec(
        "default",
        &["curl", "-s", "-H", &header, "http://details:9080/details/0"],
    );
    assert!(said.good().contains("William Shakespeare"));
    let details = world.pod("app=details", "default");
    world.settle("both access logs to hold the request", || {
        let outbound = log(world, "client", "istio-proxy");
        let inbound = log(world, &details, "istio-proxy");
        let of = |text: &str, mark: &str| text.lines().any(|l| l.contains(&id) && l.contains(mark));
        of(
            &outbound,
            "outbound|9080||details.default.svc.cluster.local",
        ) && of(&inbound, "inbound|9080||")
    });
    // A stopped sidecar makes its pod unreachable: nothing goes around it.
    let ip = world
        .kubectl(&["get", "pod", &details, "-o", "jsonpath={.status.podIP}"])
        .good();
    let pid = sidecar_pid(&ip);
    signal(pid, "STOP");
    let url = format!("http://{ip}:9080/health");
    let said = world.client_exec(
        "default",
        &[
            "curl",
            "-s",
            "-m",
            "2",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
        ],
    );
    signal(pid, "CONT");
    assert!(
        !said.out.contains("200"),
        "the pod answered without its sidecar: {said:?}"
    );
}

/// The pid, as the host sees it, of the process that listens on 15006 in the pod of that IP.
fn sidecar_pid(ip: &str) -> i32 {
    pids_in_pod(ip)
        .into_iter()
        .find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains("proxy sidecar") && !line.contains("__container")
        })
        .unwrap_or_else(|| panic!("no sidecar process in the pod {ip}"))
}

/// Processes whose network namespace holds the address.
fn pids_in_pod(ip: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let own = std::fs::read_link("/proc/self/ns/net").expect("our namespace");
    pids.filter(|pid| {
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        namespace.is_ok_and(|ns| ns != own)
            && std::fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).is_ok_and(|table| {
                table
                    .lines()
                    .any(|l| l.trim().trim_start_matches("|-- ") == ip)
            })
    })
    .collect()
}

fn signal(pid: i32, name: &str) {
    let done = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "kill -{name} {pid}"
    );
}

fn b04(world: &World) {
    let pod = world.pod("app=productpage", "default");
    let json = world.kubectl(&["get", "pod", &pod, "-o", "json"]).good();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let init = &json["status"]["initContainerStatuses"];
    let init = init.as_array().expect("init containers").iter();
    let init = init
        .clone()
        .find(|c| c["name"] == "istio-init")
        .expect("istio-init");
    let ended = &init["state"]["terminated"];
    assert_eq!(ended["reason"], "Completed", "{init}");
    assert_eq!(ended["exitCode"], 0);
    let app = json["status"]["containerStatuses"]
        .as_array()
        .expect("containers")
        .iter();
    let app = app
        .clone()
        .find(|c| c["name"] == "productpage")
        .expect("productpage");
    let started = app["state"]["running"]["startedAt"]
        .as_str()
        .expect("a time");
    assert!(ended["finishedAt"].as_str().expect("a time") <= started);
}

fn b05(world: &World) {
    let pod = world.pod("app=productpage", "default");
    let path = "jsonpath={.spec.initContainers[?(@.name==\"istio-init\")].args}";
    let args = world.kubectl(&["get", "pod", &pod, "-o", path]).good();
    for pair in ["\"-p\",\"15001\"", "\"-z\",\"15006\"", "\"-u\",\"1337\""] {
        assert!(args.contains(pair), "{args}");
    }
    let ip = world
        .kubectl(&["get", "pod", &pod, "-o", "jsonpath={.status.podIP}"])
        .good();
    let pid = *pids_in_pod(&ip).first().expect("a process in the pod");
    let rules = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "iptables-save", "-t", "nat"])
        .output()
        .expect("iptables-save runs");
    let rules = String::from_utf8_lossy(&rules.stdout);
    for part in [
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "--uid-owner 1337 -j RETURN",
    ] {
        assert!(rules.contains(part), "{part} is not in:\n{rules}");
    }
    // What uid 1337 sends is not captured: the callee answers, our own outbound log stays silent.
    let id = format!("row-b05-{}", std::process::id());
    let header = format!("x-request-id: {id}");
    let url = "http://details.default.svc.cluster.local:9080/details/0";
    let said = world.exec(&pod, "istio-proxy", &["curl", "-s", "-H", &header, url]);
    assert!(said.good().contains("William Shakespeare"));
    let details = world.pod("app=details", "default");
    world.settle("the callee's log", || {
        log(world, &details, "istio-proxy").contains(&id)
    });
    assert!(!log(world, &pod, "istio-proxy").contains(&id));
}

fn c07(world: &World) {
    let file = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../samples/bookinfo/platform/kube/bookinfo.yaml"),
    );
    assert!(!file.expect("the sample").contains("istio-proxy"));
    let pod = world.pod("app=productpage", "default");
    let said = world.kubectl(&["describe", "pod", &pod]).good();
    for line in ["  productpage:", "  istio-proxy:", "  istio-init:"] {
        assert!(said.lines().any(|l| l == line), "{line} is not in:\n{said}");
    }
}

fn d12(world: &World) {
    world.insider();
    let serve = "while true; do printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok' | nc -l -p 7070 -q 0 || exit 1; done";
    let background = format!("({serve}) >/dev/null 2>&1 &");
    world
        .client_exec("default", &["sh", "-c", &background])
        .good();
    let outbound = || log(world, "client", "istio-proxy").lines().count();
    let ask = |address: &str| {
        let url = format!("http://{address}:7070/");
        world
            .client_exec(
                "default",
                &[
                    "curl",
                    "-s",
                    "-m",
                    "5",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    &url,
                ],
            )
            .out
    };
    let before = outbound();
    world.settle("the app's own server", || ask("127.0.0.1") == "200");
    assert_eq!(ask("127.0.0.2"), "200");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(outbound(), before, "loopback passed the proxy");
    // A call to another pod's IP is captured.
    let details = world.pod("app=details", "default");
    let ip = world
        .kubectl(&["get", "pod", &details, "-o", "jsonpath={.status.podIP}"])
        .good();
    let url = format!("http://{ip}:9080/health");
    world.client_exec("default", &["curl", "-s", &url]).good();
    world.settle("the captured call in the log", || outbound() > before);
}
