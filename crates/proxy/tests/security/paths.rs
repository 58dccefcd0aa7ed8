//! One view of the path for policies, routes and the upstream.

use serde_json::{Value, json};

use super::scene::{OK, Scene, deny};

/// Everything below `/admin` is denied; its upstream never sees it.
fn guarded(manager: Value, table: Value) -> Scene {
    let filter = deny(json!([{ "url_path": { "path": { "prefix": "/admin" } } }]));
    let address = crate::support::free_address();
    let routes = crate::support::whole::everything();
    let mut listener = crate::support::whole::http(address, vec![filter], routes, manager);
    let config = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"];
    for (key, value) in table.as_object().unwrap() {
        config[key] = value.clone();
    }
    Scene::of_listener(listener, address, &[OK])
}

/// None of the paths reaches the upstream.
fn none_passes(scene: &Scene, paths: &[&str]) {
    for path in paths {
        let status = scene.get(path);
        assert!(
            ["403", "400", "404", "307"].contains(&status.as_str()),
            "{path}: {status}"
        );
        assert_eq!(scene.upstream.text(), "", "{path}");
        let mut client = scene.frames(&[&format!("headers 1 es | get {path}")]);
        client.finish(true, true);
        assert_eq!(scene.upstream.text(), "", "{path} over HTTP/2");
    }
}

#[test]
fn cve_2019_9901_dot_segments() {
    let scene = guarded(json!({ "normalize_path": true }), json!({}));
    none_passes(
        &scene,
        &[
            "/admin",
            "/x/../admin",
            "/./admin/a",
            "/x/%2e%2e/admin",
            "/x/.%2E/admin",
            "/%61dmin",
            "/x\\..\\admin",
            "/..//../admin",
        ],
    );
    assert_eq!(scene.get("/x/./y"), "200");
    assert!(scene.upstream.text().starts_with("GET /x/y "));
}

#[test]
fn cve_2021_31920_repeated_slashes() {
    let options = json!({ "normalize_path": true, "merge_slashes": true });
    let scene = guarded(options, json!({}));
    none_passes(
        &scene,
        &["//admin", "///admin//a", "/x/..//admin", "/.//admin"],
    );
}

#[test]
fn cve_2021_29492_escaped_slashes() {
    let with = |action: &str| {
        let options = json!({ "normalize_path": true, "path_with_escaped_slashes_action": action });
        guarded(options, json!({}))
    };
    let paths = [
        "/x%2f..%2fadmin",
        "/x/..%2Fadmin",
        "/x%5c..%5cadmin",
        "/x%5C../admin",
    ];
    none_passes(&with("REJECT_REQUEST"), &paths);
    none_passes(&with("UNESCAPE_AND_FORWARD"), &paths);
    none_passes(&with("UNESCAPE_AND_REDIRECT"), &paths);
}

#[test]
fn cve_2021_39156_and_cve_2021_32779_fragments() {
    let scene = guarded(json!({ "normalize_path": true }), json!({}));
    for path in ["/admin#", "/#/../admin", "/admin#?x", "/x?y#/../../admin"] {
        assert_eq!(scene.get(path), "400", "{path}");
    }
    let exact = deny(json!([{ "url_path": { "path": { "exact": "/admin" } } }]));
    let routes = crate::support::whole::everything();
    let scene = Scene::with(vec![exact], routes, json!({}), &[OK]);
    none_passes(&scene, &["/admin#", "/admin#a", "/admin?#"]);
}

#[test]
fn cve_2026_73551_dot_segments_with_parameters() {
    let scene = guarded(json!({ "normalize_path": true }), json!({}));
    none_passes(
        &scene,
        &[
            "/x/..;/admin",
            "/x/..;a=b/admin",
            "/.;/admin",
            "/x/%2e%2e;/admin",
        ],
    );
}

#[test]
fn cve_2026_73511_and_cve_2026_73553_parameters_in_policies_and_routes() {
    let ignoring = json!({ "ignore_path_parameters_in_path_matching": true });
    let scene = guarded(json!({ "normalize_path": true }), ignoring);
    none_passes(
        &scene,
        &[
            "/admin;x",
            "/admin;x/y",
            "/admin;x=1;y=2/z?q",
            "/x/../admin;a",
        ],
    );
    let exact = deny(json!([{ "url_path": { "path": { "exact": "/admin/a" } } }]));
    let address = crate::support::free_address();
    let routes = crate::support::whole::everything();
    let mut listener = crate::support::whole::http(address, vec![exact], routes, json!({}));
    listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["ignore_path_parameters_in_path_matching"] =
        json!(true);
    let scene = Scene::of_listener(listener, address, &[OK]);
    none_passes(&scene, &["/admin;x/a", "/admin/a;y", "/admin;/a;"]);
}

#[test]
fn cve_2019_9900_nul_in_requests() {
    let scene = Scene::new(json!({}), &[OK]);
    for request in [
        "GET /a\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX\0: b\r\n\r\n",
    ] {
        assert!(
            scene.ask(request).starts_with("HTTP/1.1 400"),
            "{request:?}"
        );
    }
    assert_eq!(scene.upstream.text(), "");
}
