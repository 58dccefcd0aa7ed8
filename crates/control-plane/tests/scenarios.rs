//! Input objects to expected xDS, as data: each folder of `scenarios/` says in
//! `scenario.json` which inputs it has and which proxies look at them; what each proxy is
//! sent stands in `expected/<proxy>.json`. `LATEEN_BLESS=1` writes those files anew: read the
//! difference before you commit it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lateen_compile::{EndpointOptions, mesh_config_from_yaml};
use lateen_control_plane::ads::{NodeInfo, Source as _};
use lateen_control_plane::debug::config_dump;
use lateen_control_plane::planner::Planner;
use lateen_control_plane::store::Store;
use lateen_resources::read_yaml;
use lateen_sources::Event;
use lateen_xds_proto::envoy::config::core::v3::{Extension, Node};
use serde_json::Value;

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(folder).expect("the folder of scenarios");
    let mut all: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    all.sort();
    all
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn words(v: &Value) -> Vec<String> {
    v.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn compiled(folder: &Path, scenario: &Value) -> Arc<Store> {
    let (mesh, found) = mesh_config_from_yaml(
        scenario["mesh"].as_str().unwrap_or_default(),
        "scenario.json",
    );
    assert!(found.is_empty(), "{found:?}");
    let store = Arc::new(Store::new(Default::default()));
    let options = EndpointOptions { from_pods: true };
    let mut planner = Planner::new(store.clone(), mesh, options, "scenario".into());
    for input in words(&scenario["inputs"]) {
        let result = read_yaml(&read(&folder.join(&input)), &input, "default");
        assert!(!result.has_errors(), "{:?}", result.diagnostics);
        for object in result.objects {
            planner.apply(Event::Upsert(Arc::new(object)));
        }
    }
    planner.apply(Event::Synced);
    planner.publish(Instant::now());
    store
}

fn node(proxy: &Value) -> NodeInfo {
    let extension = |name: String| Extension {
        name,
        ..Extension::default()
    };
    let node = Node {
        id: proxy["node"].as_str().expect("a node id").to_owned(),
        extensions: words(&proxy["extensions"])
            .into_iter()
            .map(extension)
            .collect(),
        ..Node::default()
    };
    NodeInfo::parse(Some(&node)).expect("a node")
}

/// The kinds of configuration a proxy's file holds, in the order of the dump.
fn shown(dump: &Value, only: &[String]) -> Value {
    let wanted = |c: &&Value| {
        let kind = c["@type"].as_str().unwrap_or_default();
        only.is_empty() || only.iter().any(|o| kind.ends_with(o.as_str()))
    };
    dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(wanted)
        .cloned()
        .collect()
}

#[test]
fn proxies_are_sent_what_the_scenarios_say() {
    let bless = std::env::var_os("LATEEN_BLESS").is_some();
    let mut wrong = Vec::new();
    for folder in scenarios() {
        let text = read(&folder.join("scenario.json"));
        let scenario: Value = serde_json::from_str(&text).expect("JSON");
        let store = compiled(&folder, &scenario);
        for (name, proxy) in scenario["proxies"].as_object().expect("proxies") {
            let dump = config_dump(&store.view(&node(proxy)));
            let got = shown(&dump, &words(&proxy["only"]));
            let got = serde_json::to_string_pretty(&got).expect("prints") + "\n";
            assert!(
                !got.contains("\"error\""),
                "a resource does not print: {got}"
            );
            let path = folder.join("expected").join(format!("{name}.json"));
            if bless {
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                std::fs::write(&path, got).expect("written");
            } else if got != read(&path) {
                wrong.push(first_difference(&path, &got, &read(&path)));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "LATEEN_BLESS=1 accepts what follows:\n{}",
        wrong.join("\n")
    );
}

fn first_difference(path: &Path, got: &str, want: &str) -> String {
    let at = got.lines().zip(want.lines()).position(|(g, w)| g != w);
    let at = at.unwrap_or_else(|| got.lines().count().min(want.lines().count()));
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
    format!(
        "{}:{}\n  want {}\n  got  {}",
        path.display(),
        at + 1,
        line(want),
        line(got)
    )
}
