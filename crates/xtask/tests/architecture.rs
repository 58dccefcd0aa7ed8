//! The "never" list of ARCHITECTURE.md, kept by reading `cargo metadata`: who may reach whom, what
//! the pure crates stay free of, and the crates that must not be in the tree at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The resolved dependency graph: package name to the names it depends on (not for tests).
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
            .arg("x86_64-unknown-linux-gnu")
            .current_dir(top())
            .output()
            .expect("cargo metadata runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let names: BTreeMap<&str, &str> = list(&metadata["packages"])
            .iter()
            .map(|p| (text(&p["id"]), text(&p["name"])))
            .collect();
        let mut graph = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|k| k["kind"].is_null());
            let deps = list(&node["deps"]).iter().filter(normal);
            let deps = deps.map(|dep| names[text(&dep["pkg"])].to_owned()).collect();
            graph.insert(names[text(&node["id"])].to_owned(), deps);
        }
        Self(graph)
    }

    /// Everything a package reaches, itself left out.
    fn reach(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut next = vec![name];
        while let Some(name) = next.pop() {
            let deps = self.0.get(name).unwrap_or_else(|| panic!("no package {name}"));
            next.extend(deps.iter().map(String::as_str).filter(|dep| seen.insert(*dep)));
        }
        seen
    }

    fn ours(&self, name: &str) -> BTreeSet<&str> {
        self.reach(name).into_iter().filter(|n| n.starts_with("lateen")).collect()
    }

    fn never(&self, from: &str, forbidden: &[&str]) {
        let reached = self.reach(from);
        for name in forbidden {
            assert!(!reached.contains(name), "{from} reaches {name}");
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

const CONTROL: &[&str] = &[
    "lateen-resources",
    "lateen-model",
    "lateen-sources",
    "lateen-compile",
    "lateen-xds",
    "lateen-control-plane",
];
const PROXY: &[&str] = &["lateen-proxy-core", "lateen-proxy-xds", "lateen-proxy"];
const PROTOBUF: &[&str] = &["prost", "prost-types", "envoy-types", "prost-reflect", "tonic"];
const KUBERNETES: &[&str] = &["kube", "kube-client", "kube-core", "kube-runtime"];
const ASYNC: &[&str] = &["tokio", "hyper", "axum", "h2", "tonic", "async-std", "smol"];

#[test]
fn the_two_planes_meet_only_at_the_wire() {
    let graph = Graph::read();
    CONTROL.iter().for_each(|name| graph.never(name, PROXY));
    PROXY.iter().for_each(|name| graph.never(name, CONTROL));
}

#[test]
fn the_cores_depend_on_nothing_of_ours_and_no_machinery() {
    let graph = Graph::read();
    for name in ["lateen-model", "lateen-proxy-core"] {
        assert_eq!(graph.ours(name), BTreeSet::new(), "{name}");
        graph.never(name, ASYNC);
        graph.never(name, PROTOBUF);
    }
}

#[test]
fn protobuf_and_the_kubernetes_client_stay_behind_their_doors() {
    let graph = Graph::read();
    for name in ["lateen-resources", "lateen-compile", "lateen-capture", "lateen-cluster"] {
        graph.never(name, &["prost", "envoy-types", "tonic", "lateen-xds-proto"]);
    }
    for name in ["lateen-resources", "lateen-compile", "lateen-xds", "lateen-cluster"] {
        graph.never(name, KUBERNETES);
    }
    for name in PROXY {
        graph.never(name, KUBERNETES);
        graph.never(name, &["k8s-openapi", "tonic", "prost-reflect"]);
    }
    graph.never("lateen-xds", &["lateen-resources", "lateen-sources"]);
    let direct = &graph.0["lateen-proxy"];
    for name in ["prost", "envoy-types", "lateen-xds-proto"] {
        assert!(!direct.contains(name), "proxy names {name}");
    }
}

#[test]
fn the_embedded_cluster_is_generic_and_unknown_below() {
    let graph = Graph::read();
    let allowed: BTreeSet<&str> = ["lateen-identity", "lateen-process"].into();
    assert!(graph.ours("lateen-cluster").is_subset(&allowed), "{:?}", graph.ours("lateen-cluster"));
    for name in CONTROL.iter().chain(PROXY).chain(&["lateen-capture", "lateen-bookinfo"]) {
        graph.never(name, &["lateen-cluster", "lateen"]);
    }
    assert_eq!(graph.ours("lateen-bookinfo"), BTreeSet::new());
}

#[test]
fn what_must_not_be_in_the_tree_is_not() {
    let graph = Graph::read();
    for name in ["ring", "serde_yaml", "serde_yml", "openssl", "openssl-sys", "native-tls"] {
        assert!(!graph.reach("lateen").contains(name), "{name} is in the tree");
    }
}

/// The proxy's budget, in crates that are compiled into it.
const PROXY_BUDGET: usize = 130;

#[test]
fn the_proxy_stays_small() {
    let graph = Graph::read();
    let count = graph.reach("lateen-proxy").len();
    assert!(count <= PROXY_BUDGET, "the proxy is {count} crates, the budget {PROXY_BUDGET}");
}

/// Every `.rs` file of ours with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    let mut next = vec![top().join("crates"), top().join("samples")];
    while let Some(folder) = next.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                next.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("a text");
                out.push((path, text));
            }
        }
    }
    out
}

#[test]
fn every_file_says_its_job_and_none_is_too_long() {
    for (path, text) in sources() {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        assert!(first.starts_with("//!"), "{} does not open with its job", path.display());
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = own.lines().count();
        assert!(lines <= 800, "{} has {lines} lines without its tests", path.display());
    }
}

/// Crates that read no clock, environment, file or socket.
const PURE: &[&str] = &["resources", "model", "compile", "xds", "proxy-core"];

#[test]
fn pure_crates_do_no_io() {
    let forbidden = [
        "std::env::", "std::fs::", "std::net::TcpStream", "std::net::TcpListener",
        "std::net::UdpSocket", "SystemTime::now", "Instant::now", "std::process::Command",
        "Timestamp::now",
    ];
    for (path, text) in sources() {
        let place = path.display().to_string();
        let is_pure = PURE.iter().any(|name| place.contains(&format!("crates/{name}/src/")));
        if !is_pure || place.contains("/tests") {
            continue;
        }
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in forbidden {
            assert!(!own.contains(word), "{place} uses {word}");
        }
    }
}

#[test]
fn the_environment_is_read_in_the_program_only() {
    for (path, text) in sources() {
        let place = path.display().to_string();
        let library = place.contains("/src/") && !place.contains("crates/cli/") && !place.contains("crates/xtask/");
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        if library && !place.contains("/examples/") && !place.contains("/tests") {
            assert!(!own.contains("env::var"), "{place} reads the environment");
        }
    }
}

/// The only files that may hold `unsafe`, each with its argument inside.
const UNSAFE: &[&str] = &[];

#[test]
fn unsafe_has_named_addresses() {
    for (path, text) in sources() {
        let place = path.display().to_string().replace('\\', "/");
        if place.contains("/tests/architecture.rs") {
            continue;
        }
        let has = text.lines().any(|l| l.contains("unsafe {") || l.contains("unsafe fn") || l.contains("unsafe impl"));
        let named = UNSAFE.iter().any(|name| place.ends_with(name));
        assert!(!has || named, "{place} holds unsafe and is not on the list");
    }
}
