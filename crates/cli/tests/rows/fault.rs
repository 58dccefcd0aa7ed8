//! Bad input and faults: what is refused and how, what survives, what comes back.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::{Check, World};

/// The checks of this file.
pub const ROWS: &[Check] = &[
    ("fault_a_killed_process_is_restarted", restarted),
    (
        "fault_a_killed_control_plane_stops_no_traffic_and_comes_back",
        control_plane,
    ),
    ("fault_bad_objects_are_refused_with_the_field", refused),
    ("fault_bad_yaml_gets_the_usual_errors", malformed),
    ("fault_a_second_up_is_refused", twice),
    ("fault_wrong_usage_exits_with_64", usage),
    ("fault_kube_inject_twice_changes_nothing", inject_twice),
];

/// Pids of processes whose command line holds all words and which are not a pod's first process.
fn pids(words: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|e| e.file_name().into_string().ok());
    pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            words.iter().all(|word| line.contains(word)) && !line.contains("__pause")
        })
        .collect()
}

fn kill(pid: &str) {
    let done = Command::new("kill").args(["-KILL", pid]).status();
    assert!(done.is_ok_and(|status| status.success()), "kill {pid}");
}

fn restarted(world: &World) {
    let pod = world.pod("app=details", "default");
    let count = || {
        let path = "jsonpath={.status.containerStatuses[?(@.name==\"details\")].restartCount}";
        world
            .kubectl(&["get", "pod", &pod, "-o", path])
            .good()
            .parse::<u32>()
            .expect("a number")
    };
    let before = count();
    let victims = pids(&["bookinfo details"]);
    assert!(!victims.is_empty(), "no details process");
    victims.iter().for_each(|pid| kill(pid));
    world.settle("the restart", || count() > before);
    world.settle("the page with details", || {
        world.page().body.contains("ISBN-13")
    });
    // The row about six untouched pods must find them untouched.
    world
        .kubectl(&["delete", "pod", &pod, "--wait=false"])
        .good();
    world.settle("a fresh details pod", || {
        let rows = world
            .kubectl(&["get", "pod", "-l", "app=details", "--no-headers"])
            .out;
        rows.lines().count() == 1 && rows.contains("2/2") && rows.contains("Running")
    });
}

fn control_plane(world: &World) {
    world.apply_sample("networking/destination-rule-all.yaml");
    world.apply_sample("networking/virtual-service-reviews-v3.yaml");
    world.settle("version 3", || {
        (0..6).all(|_| world.page().stars() == "red")
    });
    let victims = pids(&["/lateen", "control-plane"]);
    let victims = if victims.is_empty() {
        pids(&["/lateen", "discovery"])
    } else {
        victims
    };
    assert!(!victims.is_empty(), "no control plane process");
    victims.iter().for_each(|pid| kill(pid));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(
            world.page().stars(),
            "red",
            "traffic lost its configuration"
        );
    }
    world.settle("the control plane to be back", || {
        world
            .kubectl(&[
                "rollout",
                "status",
                "-n",
                "istio-system",
                "deploy/istiod",
                "--timeout=15s",
            ])
            .ok
    });
    world.settle("a change to be followed again", || {
        world.kubectl(&["delete", "virtualservice", "reviews", "--ignore-not-found"]);
        let (none, black, red, _) = world.stars(30);
        none > 0 && black > 0 && red > 0
    });
}

fn refused(world: &World) {
    let head = |kind: &str| {
        format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata:\n  name: bad\nspec:\n")
    };
    let cases = [
        (
            head("VirtualService")
                + "  hosts:\n  - reviews\n  http:\n  - route:\n    - destination:\n        host: reviews\n      weight: -5\n",
            "weight",
        ),
        (
            // Without hosts it is a delegate, and a delegate has no gateways of its own.
            head("VirtualService")
                + "  gateways:\n  - bookinfo-gateway\n  http:\n  - route:\n    - destination:\n        host: reviews\n",
            "gateways",
        ),
        (
            head("VirtualService")
                + "  hosts:\n  - reviews\n  http:\n  - fault:\n      abort:\n        httpStatus: 999\n        percentage:\n          value: 100\n    route:\n    - destination:\n        host: reviews\n",
            "httpStatus",
        ),
        (
            head("DestinationRule")
                + "  host: reviews\n  subsets:\n  - name: v1\n    labels:\n      version: v1\n  - name: v1\n",
            "subsets",
        ),
        (
            head("Gateway")
                + "  selector:\n    istio: ingressgateway\n  servers:\n  - port:\n      number: 99999\n      name: http\n      protocol: HTTP\n    hosts:\n    - \"*\"\n",
            "port",
        ),
        (
            head("ServiceEntry")
                + "  hosts: []\n  ports:\n  - number: 80\n    name: http\n    protocol: HTTP\n  resolution: DNS\n",
            "hosts",
        ),
    ];
    for (yaml, field) in cases {
        let said = world.pipe("kubectl", &["apply", "-f", "-"], &yaml).bad();
        assert!(said.contains(field), "{field} is not named: {said}");
        let said = world.pipe("lateen", &["validate", "-f", "-"], &yaml);
        assert_eq!(said.code, 65, "{said:?}");
        assert!(said.out.contains(field), "{field} is not named: {said:?}");
    }
    assert_eq!(world.page().status, 200);
}

fn malformed(world: &World) {
    let apply = |text: &str| world.pipe("kubectl", &["apply", "-f", "-"], text).bad();
    assert!(apply("a: [1\nb: }\n").contains("error"));
    let said = apply("apiVersion: example.org/v1\nkind: Nothing\nmetadata:\n  name: x\n");
    assert!(said.contains("no matches for kind \"Nothing\""), "{said}");
    let said =
        apply("apiVersion: v1\nkind: Service\nmetadata:\n  name: x\nspec:\n  ports: seven\n");
    assert!(said.contains("ports") || said.contains("cannot"), "{said}");
    let said = apply(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: BAD_NAME\nspec:\n  ports:\n  - port: 80\n",
    );
    assert!(said.contains("metadata.name"), "{said}");
    let said = apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: x\nspec:\n  nonsense: 1\n  selector:\n    matchLabels:\n      a: b\n  template:\n    metadata:\n      labels:\n        a: b\n    spec:\n      containers:\n      - name: c\n        image: alpine\n",
    );
    assert!(said.contains("nonsense"), "{said}");
}

fn twice(world: &World) {
    let begun = Instant::now();
    let said = world.lateen(&["up"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("running already (pid"), "{said:?}");
    assert!(said.err.contains("lateen down"), "{said:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(world.page().status, 200);
}

fn usage(world: &World) {
    for args in [
        &["nonsense"][..],
        &["proxy-config", "routes"],
        &["validate"],
        &["pc", "log", "x", "--level", "loud"],
    ] {
        let said = world.lateen(args);
        assert_eq!(said.code, 64, "{args:?}: {said:?}");
        assert!(!said.err.is_empty(), "{args:?} says nothing");
    }
    let said = world.lateen(&["validate", "-f", "/no/such/file.yaml"]);
    assert_eq!(said.code, 1, "{said:?}");
}

fn inject_twice(world: &World) {
    for file in [
        "samples/bookinfo/platform/kube/bookinfo.yaml",
        "samples/bookinfo/kube/bookinfo.yaml",
    ] {
        let once = world.lateen(&["kube-inject", "-f", file]);
        let once = once.good();
        assert_eq!(once.matches("name: istio-proxy").count(), 6, "{file}");
        let twice = world
            .pipe("lateen", &["kube-inject", "-f", "-"], &once)
            .good();
        assert_eq!(once.trim(), twice.trim(), "{file}");
    }
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  a: \"1\" # kept\n";
    assert_eq!(
        world.pipe("lateen", &["kube-inject", "-f", "-"], other).out,
        other
    );
}

/// What the stopped mesh of that name has left on the host: interfaces, rules, processes; empty is
/// right. A pod's processes end with its first one, which carries the mesh's name.
pub fn leftovers(instance: &str) -> Vec<String> {
    let mut left = Vec::new();
    let links = std::fs::read_dir("/sys/class/net")
        .expect("/sys/class/net")
        .flatten();
    left.extend(
        links
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| n == instance),
    );
    let tables = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .expect("nft runs");
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    left.extend(
        tables
            .lines()
            .filter(|line| line.contains(instance))
            .map(str::to_owned),
    );
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    for pid in entries.filter_map(|e| e.file_name().into_string().ok()) {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("__pause") && line.contains(instance) {
            left.push(format!("process {pid}: {line}"));
        }
    }
    left
}
