//! A whole proxy whose listeners, clusters, endpoints and routes come from files: what is moved into
//! place is taken, what is wrong changes nothing and is counted, as with Envoy's file subscriptions.

mod support;

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use support::whole::*;
use support::*;
use tempfile::TempDir;

/// A folder of discovery files and a proxy that reads them.
struct Scene {
    folder: TempDir,
    proxy: Option<Proxy>,
    admin: SocketAddr,
    address: SocketAddr,
    upstream: Upstream,
}

const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

impl Scene {
    /// Everything from files, by `watched` where the files' own moves are not to count.
    fn new(watched: Option<&Path>) -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            proxy: None,
            admin: free_address(),
            address: free_address(),
            upstream: Upstream::new(&[OK]),
        };
        scene.put("cds.json", "C1", &[scene.cluster()]);
        scene.put("eds.json", "E1", &[scene.endpoints("c")]);
        scene.put("rds.json", "R1", &[scene.routes("first")]);
        scene.put("lds.json", "L1", &[scene.listener(scene.address)]);
        scene.started(watched)
    }

    fn started(mut self, watched: Option<&Path>) -> Self {
        let from = |file: &str| {
            let mut source = self.source(file);
            if let Some(directory) = watched {
                source["path_config_source"]["watched_directory"] = json!({ "path": directory });
            }
            source
        };
        let extra = json!({ "admin": { "address": socket(self.admin) },
            "dynamic_resources": { "cds_config": from("cds.json"), "lds_config": from("lds.json") } });
        self.proxy = Some(Proxy::with(json!([]), json!([]), extra));
        wait_for(self.admin);
        wait_for(self.address);
        self
    }

    fn source(&self, file: &str) -> Value {
        json!({ "resource_api_version": "V3",
            "path_config_source": { "path": self.folder.path().join(file) } })
    }

    fn cluster(&self) -> Value {
        json!({ "@type": url("envoy.config.cluster.v3.Cluster"), "name": "c", "type": "EDS",
            "eds_cluster_config": { "eds_config": self.source("eds.json") } })
    }

    fn endpoints(&self, cluster: &str) -> Value {
        json!({ "@type": url("envoy.config.endpoint.v3.ClusterLoadAssignment"), "cluster_name": cluster,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(self.upstream.address) } }] }] })
    }

    fn routes(&self, word: &str) -> Value {
        json!({ "@type": url(ROUTES), "name": "main", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
            { "match": { "prefix": "/word" }, "direct_response": { "status": 200, "body": { "inline_string": word } } },
            { "match": { "prefix": "/" }, "route": { "cluster": "c" } } ] }] })
    }

    fn listener(&self, address: SocketAddr) -> Value {
        let mut listener = http(address, vec![], json!([]), json!({}));
        listener["@type"] = json!(url("envoy.config.listener.v3.Listener"));
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager.as_object_mut().unwrap().remove("route_config");
        manager["rds"] =
            json!({ "route_config_name": "main", "config_source": self.source("rds.json") });
        listener
    }

    /// Moves a file into place.
    fn put(&self, file: &str, version: &str, resources: &[Value]) {
        let text = json!({ "version_info": version, "resources": resources }).to_string();
        self.put_text(file, &text);
    }

    fn put_text(&self, file: &str, text: &str) {
        let beside = self.folder.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.folder.path().join(file)).unwrap();
    }

    fn word(&self) -> String {
        body(&ask(self.address, &get("/word"))).to_owned()
    }

    fn page(&self, path: &str) -> String {
        body(&ask(self.admin, &get(path))).to_owned()
    }

    /// The counts of a manager's subscription: attempts, successes, rejections, failures.
    fn counts(&self, manager: &str) -> [u64; 4] {
        let page = self.page("/stats?filter=update_");
        ["attempt", "success", "rejected", "failure"].map(|what| {
            let name = format!("{manager}.update_{what}: ");
            let line = page.lines().find_map(|line| line.strip_prefix(&name));
            line.unwrap_or_else(|| panic!("no {name} in {page}"))
                .parse()
                .unwrap()
        })
    }

    /// Versions in the dump of the configuration, by the field they stand in.
    fn dump(&self) -> Value {
        serde_json::from_str(&self.page("/config_dump?include_eds")).unwrap()
    }
}

fn section<'a>(dump: &'a Value, kind: &str) -> &'a Value {
    let all = dump["configs"].as_array().unwrap();
    let found = all
        .iter()
        .find(|c| c["@type"].as_str().unwrap().ends_with(&format!(".{kind}")));
    found.unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn everything_from_files_is_there_when_the_proxy_is_ready() {
    let scene = Scene::new(None);
    eventually("ready", || scene.page("/ready") == "LIVE\n");
    assert_eq!(scene.word(), "first");
    assert_eq!(status(&ask(scene.address, &get("/"))), "200");
    let dump = scene.dump();
    let clusters = section(&dump, "ClustersConfigDump");
    assert_eq!(clusters["version_info"], "C1");
    assert_eq!(clusters["dynamic_active_clusters"][0]["version_info"], "C1");
    let listeners = section(&dump, "ListenersConfigDump");
    assert_eq!(listeners["version_info"], "L1");
    let active = &listeners["dynamic_listeners"][0]["active_state"];
    assert_eq!(active["version_info"], "L1");
    let routes = &section(&dump, "RoutesConfigDump")["dynamic_route_configs"][0];
    assert_eq!(routes["version_info"], "R1");
    assert_eq!(routes["route_config"]["name"], "main");
    let endpoints = &section(&dump, "EndpointsConfigDump")["dynamic_endpoint_configs"][0];
    assert_eq!(endpoints["endpoint_config"]["cluster_name"], "c");
    for manager in ["cluster_manager.cds", "listener_manager.lds"] {
        assert_eq!(scene.counts(manager), [1, 1, 0, 0], "{manager}");
    }
}

#[test]
fn what_is_moved_into_place_is_taken_and_what_is_wrong_is_not() {
    let scene = Scene::new(None);
    eventually("first", || {
        status(&ask(scene.address, &get("/word"))) == "200"
    });
    // Written in place: nobody is told of it, and half a file is never read.
    let in_place = json!({ "resources": [scene.routes("in place")] }).to_string();
    std::fs::write(scene.folder.path().join("rds.json"), in_place).unwrap();
    scene.put("lds.json", "L2", &[scene.listener(scene.address)]);
    eventually("listeners again", || {
        scene.counts("listener_manager.lds")[1] == 2
    });
    assert_eq!(scene.word(), "first");
    scene.put("rds.json", "R2", &[scene.routes("second")]);
    eventually("second", || scene.word() == "second");
    // A resource may come wrapped.
    let wrapped = json!({ "@type": url("envoy.service.discovery.v3.Resource"), "name": "main",
        "version": "7", "resource": scene.routes("wrapped") });
    scene.put("rds.json", "R3", &[wrapped]);
    eventually("wrapped", || scene.word() == "wrapped");
    // What is broken, in its text or in its meaning, leaves what is there.
    for broken in ["{\"resources\": [", "", "[]", "resources: [{\"@type\": x}]"] {
        scene.put_text("lds.json", broken);
    }
    eventually("failures", || scene.counts("listener_manager.lds")[3] >= 1);
    let mut bad = scene.listener(scene.address);
    bad["filter_chains"][0]["filters"][0]["name"] = json!("x");
    bad["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = json!("");
    bad["name"] = json!("bad");
    let other = free_address();
    scene.put(
        "lds.json",
        "L3",
        &[scene.listener(scene.address), scene.listener(other), bad],
    );
    eventually("a refusal", || scene.counts("listener_manager.lds")[2] == 1);
    assert_eq!(
        section(&scene.dump(), "ListenersConfigDump")["version_info"],
        "L2"
    );
    eventually("what is good beside it", || {
        std::net::TcpStream::connect(other).is_ok()
    });
    assert_eq!(scene.word(), "wrapped");
    // An empty list takes all away; connections that are there drain.
    scene.put("lds.json", "L4", &[]);
    eventually("no listener", || {
        std::net::TcpStream::connect(scene.address).is_err()
    });
}

#[test]
fn endpoints_of_another_name_are_refused_and_new_ones_taken() {
    let scene = Scene::new(None);
    eventually("an answer", || {
        status(&ask(scene.address, &get("/"))) == "200"
    });
    scene.put("eds.json", "E2", &[scene.endpoints("other")]);
    scene.put("rds.json", "R2", &[scene.routes("later")]);
    eventually("later", || scene.word() == "later");
    assert_eq!(status(&ask(scene.address, &get("/"))), "200");
    scene.put("eds.json", "E3", &[json!({ "@type": url("envoy.config.endpoint.v3.ClusterLoadAssignment"), "cluster_name": "c" })]);
    eventually("no endpoint", || {
        status(&ask(scene.address, &get("/"))) == "503"
    });
}

#[test]
fn a_watched_directory_alone_has_files_read_again() {
    let watched = tempfile::tempdir().unwrap();
    let scene = Scene::new(Some(watched.path()));
    eventually("first", || {
        status(&ask(scene.address, &get("/word"))) == "200"
    });
    let other = free_address();
    scene.put(
        "lds.json",
        "L2",
        &[scene.listener(scene.address), scene.listener(other)],
    );
    // Endpoints have a watch of their own: once they are gone, the move of the listeners was seen.
    scene.put("eds.json", "E2", &[json!({ "@type": url("envoy.config.endpoint.v3.ClusterLoadAssignment"), "cluster_name": "c" })]);
    eventually("no endpoint", || {
        status(&ask(scene.address, &get("/"))) == "503"
    });
    assert_eq!(scene.counts("listener_manager.lds"), [1, 1, 0, 0]);
    let beside = scene.folder.path().join("..data");
    std::fs::write(&beside, "").unwrap();
    std::fs::rename(&beside, watched.path().join("..data")).unwrap();
    eventually("the other listener", || {
        std::net::TcpStream::connect(other).is_ok()
    });
}

#[test]
fn a_file_that_is_not_there_ends_the_start_and_a_broken_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lds.yaml");
    let dynamic = || json!({ "dynamic_resources": { "lds_config": { "path": path } } });
    let problem = try_serve_with(json!([]), json!([]), dynamic()).unwrap_err();
    let begin = format!(
        "test.json: dynamic_resources.lds_config: {}: ",
        path.display()
    );
    assert!(problem.starts_with(&begin), "{problem}");
    std::fs::write(&path, "resources: [").unwrap();
    let admin = free_address();
    let mut extra = dynamic();
    extra["admin"] = json!({ "address": socket(admin) });
    let _proxy = Proxy::with(json!([]), json!([]), extra);
    wait_for(admin);
    eventually("ready", || body(&ask(admin, &get("/ready"))) == "LIVE\n");
}
