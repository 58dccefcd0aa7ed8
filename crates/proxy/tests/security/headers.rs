//! Hosts, schemes, headers of several values, and headers that only the proxy
//! may write.

use serde_json::{Value, json};

use super::scene::{OK, Scene, deny};
use crate::support::{free_address, whole};

/// A listener with these virtual hosts.
fn hosts(hosts: Value, manager: Value) -> Scene {
    let address = free_address();
    let mut listener = whole::http(address, vec![], whole::everything(), manager);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"] =
        hosts;
    Scene::of_listener(listener, address, &[OK])
}

#[test]
fn cve_2021_39155_the_case_of_a_host() {
    let scene = hosts(
        json!([
            { "name": "admin", "domains": ["admin.example"], "routes": [
                { "match": { "prefix": "/" }, "direct_response": { "status": 403 } }] },
            { "name": "rest", "domains": ["*"], "routes": whole::everything() },
        ]),
        json!({}),
    );
    for host in ["admin.example", "ADMIN.example", "Admin.Example"] {
        let text = scene.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(whole::status(&text), "403", "{host}");
        let text = scene.ask(&format!("GET http://{host}/ HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(whole::status(&text), "403", "{host}");
        let part = ":method: GET | :scheme: http | :path: / | :authority:";
        let mut client = scene.frames(&[&format!("headers 1 es | {part} {host}")]);
        client.finish(true, true);
    }
    assert_eq!(scene.upstream.text(), "");
    let exact = json!([{ "header": { "name": ":authority",
        "string_match": { "exact": "admin.example", "ignore_case": true } } }]);
    let scene = Scene::with(vec![deny(exact)], whole::everything(), json!({}), &[OK]);
    let text = scene.ask("GET / HTTP/1.1\r\nHost: ADMIN.EXAMPLE\r\n\r\n");
    assert_eq!(whole::status(&text), "403");
}

#[test]
fn cve_2023_35944_the_case_of_a_scheme() {
    let scene = Scene::new(json!({}), &[OK]);
    let text = scene.ask("GET HTTP://x/a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(whole::status(&text), "200");
    let mut client =
        scene.frames(&["headers 1 es | :method: GET | :scheme: HTTPS | :path: /b | :authority: x"]);
    client.finish(true, true);
    let seen = scene.upstream.text();
    assert!(!seen.contains("HTTPS") && !seen.contains("HTTP:"), "{seen}");
    // A scheme that only looks like https opens nothing that https would.
    let host = json!([{ "name": "a", "domains": ["*"], "require_tls": "ALL",
        "routes": whole::everything() }]);
    let strict = hosts(host, json!({}));
    let text = strict.ask("GET HTTPS://x/a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(whole::status(&text), "301", "{text}");
    assert_eq!(strict.upstream.text(), "");
}

#[test]
fn cve_2026_26308_a_deny_rule_sees_every_line_of_a_header() {
    let exact = json!([{ "header": { "name": "x-role", "string_match": { "exact": "admin" } } }]);
    let scene = Scene::with(vec![deny(exact)], whole::everything(), json!({}), &[OK]);
    for lines in [
        "X-Role: admin",
        "X-Role: user\r\nX-Role: admin",
        "X-Role: admin\r\nX-Role: user",
    ] {
        let text = scene.ask(&format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n"));
        assert_eq!(whole::status(&text), "403", "{lines}");
    }
    let mut client = scene.frames(&["headers 1 es | get / | x-role: user | x-role: admin"]);
    client.finish(true, true);
    assert_eq!(scene.upstream.text(), "");
}

#[test]
fn cve_2020_25017_a_route_sees_every_line_of_a_header() {
    let routes = json!([
        { "match": { "prefix": "/", "headers": [{ "name": "x-block",
            "string_match": { "exact": "yes" } }] }, "direct_response": { "status": 403 } },
        { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
    ]);
    let scene = Scene::with(vec![], routes, json!({}), &[OK]);
    for lines in ["X-Block: yes", "X-Block: no\r\nX-Block: yes"] {
        let text = scene.ask(&format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n"));
        assert_eq!(whole::status(&text), "403", "{lines}");
    }
    assert_eq!(scene.upstream.text(), "");
}

#[test]
fn cve_2023_27487_headers_of_the_proxy_alone() {
    let edge = json!({ "use_remote_address": true, "internal_address_config": {
        "cidr_ranges": [{ "address_prefix": "192.0.2.0", "prefix_len": 24 }] } });
    let scene = Scene::new(edge, &[OK]);
    let text = scene.ask(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Envoy-Original-Path: /admin\r\nX-Envoy-Internal: true\r\n\
         X-Envoy-External-Address: 1.2.3.4\r\nX-Envoy-Retry-On: 5xx\r\nX-Envoy-Max-Retries: 9\r\n\
         X-Forwarded-Client-Cert: By=a\r\nX-Forwarded-Proto: https\r\n\r\n",
    );
    assert_eq!(whole::status(&text), "200");
    let seen = scene.upstream.text();
    for name in [
        "original-path",
        "internal:",
        "retry-on",
        "max-retries",
        "client-cert",
        "1.2.3.4",
    ] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    assert!(seen.contains("x-forwarded-proto: http\r\n"), "{seen}");
}

#[test]
fn cve_2024_45806_private_addresses_are_not_internal() {
    let scene = Scene::new(json!({}), &[OK]);
    for address in ["10.0.0.1", "192.168.0.1", "172.16.0.1"] {
        scene.ask(&format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n\
             X-Envoy-Internal: true\r\nX-Envoy-Retry-On: 5xx\r\n\r\n"
        ));
    }
    let seen = scene.upstream.text();
    assert_eq!(scene.upstream.requests(), 3);
    assert!(!seen.contains("x-envoy-internal"), "{seen}");
}
