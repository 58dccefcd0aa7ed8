//! The "never" list of ARCHITECTURE.md, kept by reading `cargo tree` and the sources: who may reach
//! whom, what the pure crates stay free of, and the crates that must not be in the tree at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

/// The crates that a build of one package compiles, procedural macros and what only they need left
/// out. `cargo tree` and not `cargo metadata`: the latter also counts what no feature turns on.
fn tree(package: &str, depth: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--package",
            package,
            "--edges",
        ])
        .args(["normal,no-proc-macro", "--prefix", "none", "--depth", depth])
        .current_dir(top())
        .output()
        .expect("cargo tree runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree of {package}: {error}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let found: BTreeSet<String> = names
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect();
    assert!(
        text.starts_with(&format!("{package} ")),
        "no tree of {package}: {text}"
    );
    found
}

/// Everything a package reaches, itself left out.
fn reach(package: &str) -> BTreeSet<String> {
    tree(package, "100")
}

/// What a package's own manifest names.
fn direct(package: &str) -> BTreeSet<String> {
    tree(package, "1")
}

fn ours(package: &str) -> BTreeSet<String> {
    reach(package)
        .into_iter()
        .filter(|name| name.starts_with("lateen"))
        .collect()
}

fn never(from: &str, forbidden: &[&str]) {
    let reached = reach(from);
    let found: Vec<&&str> = forbidden
        .iter()
        .filter(|name| reached.contains(**name))
        .collect();
    assert!(found.is_empty(), "{from} reaches {found:?}");
}

fn never_names(from: &str, forbidden: &[&str]) {
    let named = direct(from);
    let found: Vec<&&str> = forbidden
        .iter()
        .filter(|name| named.contains(**name))
        .collect();
    assert!(found.is_empty(), "{from} names {found:?}");
}

fn top() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
        .join("../..")
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
const PROTOBUF: &[&str] = &[
    "prost",
    "prost-types",
    "envoy-types",
    "prost-reflect",
    "tonic",
];
const KUBERNETES: &[&str] = &["kube", "kube-client", "kube-core", "kube-runtime"];
const ASYNC: &[&str] = &["tokio", "hyper", "axum", "h2", "tonic", "async-std", "smol"];

#[test]
fn the_two_planes_meet_only_at_the_wire() {
    CONTROL.iter().for_each(|name| never(name, PROXY));
    PROXY.iter().for_each(|name| never(name, CONTROL));
}

#[test]
fn the_cores_depend_on_nothing_of_ours_and_no_machinery() {
    for name in ["lateen-model", "lateen-proxy-core"] {
        assert_eq!(ours(name), BTreeSet::new(), "{name}");
        never(name, ASYNC);
        never(name, PROTOBUF);
    }
}

#[test]
fn protobuf_and_the_kubernetes_client_stay_behind_their_doors() {
    for name in [
        "lateen-resources",
        "lateen-compile",
        "lateen-capture",
        "lateen-cluster",
    ] {
        never(name, &["prost", "envoy-types", "tonic", "lateen-xds-proto"]);
    }
    for name in [
        "lateen-resources",
        "lateen-compile",
        "lateen-xds",
        "lateen-cluster",
    ] {
        never(name, KUBERNETES);
    }
    for name in PROXY {
        never(name, KUBERNETES);
        never(name, &["k8s-openapi", "prost-reflect"]);
        // The message crate brings `tonic` along for its service stubs; the proxy speaks gRPC on
        // `h2` by itself.
        never_names(name, &["tonic", "tonic-prost"]);
    }
    never("lateen-xds", &["lateen-resources", "lateen-sources"]);
    never_names(
        "lateen-proxy",
        &["prost", "prost-types", "envoy-types", "lateen-xds-proto"],
    );
}

#[test]
fn the_embedded_cluster_is_generic_and_unknown_below() {
    let allowed: BTreeSet<String> = ["lateen-identity", "lateen-process"].map(Into::into).into();
    let reached = ours("lateen-cluster");
    assert!(reached.is_subset(&allowed), "{reached:?}");
    for name in CONTROL
        .iter()
        .chain(PROXY)
        .chain(&["lateen-capture", "lateen-bookinfo"])
    {
        never(name, &["lateen-cluster", "lateen"]);
    }
    assert_eq!(ours("lateen-bookinfo"), BTreeSet::new());
}

#[test]
fn what_must_not_be_in_the_tree_is_not() {
    let forbidden = [
        "ring",
        "serde_yaml",
        "serde_yml",
        "openssl",
        "openssl-sys",
        "native-tls",
        "async-std",
    ];
    never("lateen", &forbidden);
}

/// The proxy's budget, in crates compiled into it, ours counted, procedural macros not. It was drawn
/// at about sixty and stands at 113: `tonic` and what it needs, which come with the message crate,
/// the YAML reader of bootstrap files and the certificate parser make up most of the rest. The
/// number may only fall; raising it is a decision to be argued.
const PROXY_BUDGET: usize = 113;

#[test]
fn the_proxy_stays_small() {
    let count = reach("lateen-proxy").len();
    assert!(
        count <= PROXY_BUDGET,
        "the proxy is {count} crates, the budget {PROXY_BUDGET}"
    );
}

/// A manifest names no crate that the package's code does not: a build that compiles what nobody
/// uses is slower, and its tree says less.
#[test]
fn no_manifest_names_what_nobody_uses() {
    // Named for its Kubernetes version feature, which the client crate leaves to its users.
    let for_features = [("sources", "k8s-openapi")];
    let sources = sources();
    let mut manifests: BTreeMap<String, String> = BTreeMap::new();
    for folder in std::fs::read_dir(top().join("crates"))
        .expect("a folder")
        .flatten()
    {
        let name = folder.file_name().to_string_lossy().into_owned();
        let manifest = folder.path().join("Cargo.toml");
        manifests.insert(name, std::fs::read_to_string(manifest).expect("a manifest"));
    }
    for (name, manifest) in manifests {
        let place = format!("crates/{name}/");
        let own = sources
            .iter()
            .filter(|(path, _)| path.display().to_string().contains(&place));
        let (code, rest): (Vec<_>, Vec<_>) =
            own.partition(|(path, _)| path.display().to_string().contains("/src/"));
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let key = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let ident = key.replace('-', "_");
            let used =
                |files: &[&(PathBuf, String)]| files.iter().any(|(_, text)| mentions(text, &ident));
            let fine = match section {
                "[dependencies]" => used(&code),
                "[dev-dependencies]" => used(&code) || used(&rest),
                _ => continue,
            };
            let named = key.chars().any(char::is_alphanumeric) && !line.starts_with(['#', '[']);
            let signed = for_features.contains(&(name.as_str(), key));
            assert!(
                !named || fine || signed,
                "{name} names {key} and does not use it"
            );
        }
    }
}

/// Whether an identifier stands in a text, not as a part of a longer one.
fn mentions(text: &str, ident: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(ident).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + ident.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// Every `.rs` file of ours with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    let mut next = vec![
        top().join("crates"),
        top().join("samples"),
        top().join("fuzz"),
    ];
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
        let first = text
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        assert!(
            first.starts_with("//!"),
            "{} does not open with its job",
            path.display()
        );
        let own = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines = own.lines().count();
        assert!(
            lines <= 800,
            "{} has {lines} lines without its tests",
            path.display()
        );
    }
}

/// Crates that read no clock, environment, file or socket.
const PURE: &[&str] = &["resources", "model", "compile", "xds", "proxy-core"];

#[test]
fn pure_crates_do_no_io() {
    let forbidden = [
        "std::env::",
        "std::fs::",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        "SystemTime::now",
        "Instant::now",
        "std::process::Command",
        "Timestamp::now",
    ];
    for (path, text) in sources() {
        let place = path.display().to_string();
        let is_pure = PURE
            .iter()
            .any(|name| place.contains(&format!("crates/{name}/src/")));
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
        let library = place.contains("/src/")
            && !place.contains("crates/cli/")
            && !place.contains("crates/xtask/");
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        if library && !place.contains("/examples/") && !place.contains("/tests") {
            assert!(!own.contains("env::var"), "{place} reads the environment");
        }
    }
}

/// The only files that may hold `unsafe`, each with its argument inside.
const UNSAFE: &[&str] = &[
    // System calls that neither std nor nix wraps: the node agent's sandboxes.
    "crates/cluster/src/node/process/sys.rs",
    // Socket options of numbers that the configuration gives.
    "crates/proxy/src/os.rs",
    // The allocator's own call to give back what is free.
    "crates/cli/src/allocator.rs",
    // madvise over the program's own read-only segments.
    "crates/process/src/footprint.rs",
    // An allocator that counts, for a test: the trait is an unsafe one.
    "crates/proxy/tests/allocations.rs",
    // One that counts bytes.
    "crates/proxy-xds/tests/footprint.rs",
];

#[test]
fn unsafe_has_named_addresses() {
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        let place = path.display().to_string();
        if place.ends_with("xtask/tests/architecture.rs") {
            continue;
        }
        let starts = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
        let count = text
            .lines()
            .filter(|line| starts.iter().any(|s| line.contains(s)))
            .count();
        if count == 0 {
            continue;
        }
        let named = UNSAFE.iter().find(|name| place.ends_with(*name));
        let named = named.unwrap_or_else(|| panic!("{place} holds unsafe and is not on the list"));
        seen.insert(*named);
        assert!(
            text.contains("unsafe_code,"),
            "{place} does not sign for its unsafe code"
        );
        let blocks = text
            .lines()
            .filter(|line| line.contains("unsafe {"))
            .count();
        let argued = text.matches("// SAFETY:").count();
        assert!(
            argued >= blocks,
            "{place} argues {argued} of {blocks} unsafe blocks"
        );
    }
    let unsigned: Vec<_> = UNSAFE.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(
        unsigned.is_empty(),
        "on the list without need: {unsigned:?}"
    );
}

#[test]
fn every_crate_has_its_row() {
    let page = std::fs::read_to_string(top().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let crates = std::fs::read_dir(top().join("crates")).expect("crates");
    for folder in crates {
        let name = folder.expect("an entry").file_name();
        let row = format!("| `{}` |", name.to_string_lossy());
        assert!(page.contains(&row), "ARCHITECTURE.md has no row {row}");
    }
}

/// The pages for people.
fn pages() -> Vec<PathBuf> {
    let names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    let mut pages: Vec<PathBuf> = names.iter().map(|name| top().join(name)).collect();
    for entry in std::fs::read_dir(top().join("docs"))
        .expect("a folder")
        .flatten()
    {
        if entry
            .path()
            .extension()
            .is_some_and(|ending| ending == "md")
        {
            pages.push(entry.path());
        }
    }
    pages
}

#[test]
fn pages_name_only_files_that_exist() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        let folder = page.parent().expect("its folder");
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains(':')) {
            assert!(
                folder.join(link).exists(),
                "{} links {link}",
                page.display()
            );
        }
        let ticked = text.split('`').skip(1).step_by(2);
        let ours = ["crates/", "docs/", "samples/", ".ci/"];
        for path in ticked.filter(|path| ours.iter().any(|start| path.starts_with(start))) {
            let plain = path
                .chars()
                .all(|c| c.is_alphanumeric() || "/._-".contains(c));
            assert!(
                !plain || top().join(path).exists(),
                "{} names {path}",
                page.display()
            );
        }
    }
}
