//! HTTP/1 smuggling: what is body, what is the next request, and what is a
//! tunnel is never a matter of opinion.

use serde_json::json;

use super::scene::{OK, Scene};
use crate::support::{free_address, whole};

const REFUSED: &str = "HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno";

fn upgrades() -> serde_json::Value {
    json!({ "upgrade_configs": [{ "upgrade_type": "websocket" }, { "upgrade_type": "other" },
        { "upgrade_type": "CONNECT" }] })
}

fn connect_routes() -> serde_json::Value {
    json!([
        { "match": { "connect_matcher": {} }, "route": { "cluster": "c",
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }] } },
        { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
    ])
}

#[test]
fn lengths_and_chunks_that_disagree_are_refused() {
    let scene = Scene::new(json!({}), &[OK]);
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 5",
        "Content-Length: 6, 6",
        "Content-Length: +6",
        "Content-Length: 0x6",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Content-Length: 6\r\n Transfer-Encoding: chunked",
    ] {
        let head = format!("POST /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
        let text = scene.talk(&[
            head.as_bytes(),
            b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        ]);
        let status = whole::status(&text);
        assert!(["400", "501"].contains(&status), "{fields}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{fields}: {text}");
    }
    assert_eq!(scene.upstream.text(), "");
}

#[test]
fn cve_2023_27491_bytes_of_http2_that_http1_cannot_carry() {
    let scene = Scene::new(json!({}), &[OK]);
    for part in [
        "get | x-a: b\r\nx-b: c",
        "get | x-a: b\nx-b: c",
        "get | x-a: b\0c",
        "get | x\r\nx-b => c",
        "get | x a => c",
        ":method: GET / HTTP/1.1\r\nx | :scheme: http | :path: / | :authority: x",
        ":method: GET | :scheme: http | :path => / HTTP/1.1\r\nx: y | :authority: x",
        ":method: GET | :scheme: http | :path => /a b | :authority: x",
        ":method: GET | :scheme: http | :path: / | :authority => x\r\nx: y",
        ":method: GET | :scheme: http | :path: / | host => x\r\nx: y",
    ] {
        let mut client = scene.frames(&[&format!("headers 1 es | {part}")]);
        client.finish(true, true);
        assert_eq!(scene.upstream.text(), "", "{part}");
    }
    assert!(scene.serves());
}

#[test]
fn cve_2023_27493_values_made_from_a_request_stay_one_line() {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "c" },
        "request_headers_to_add": [
            { "header": { "key": "x-path", "value": "%REQ(:PATH)%" } },
            { "header": { "key": "x-agent", "value": "%REQ(USER-AGENT)%" } }] }]);
    let scene = Scene::with(vec![], routes, json!({}), &[OK]);
    assert_eq!(scene.get("/a%0d%0ax-smuggled:%20y?b=%0d%0ac"), "200");
    let text = scene.upstream.text();
    assert!(
        text.contains("x-path: /a%0d%0ax-smuggled:%20y?b=%0d%0ac\r\n"),
        "{text}"
    );
    assert!(!text.contains("\nx-smuggled"), "{text}");
}

#[test]
fn cve_2025_64763_early_data_behind_a_connect_that_is_refused() {
    let scene = Scene::with(vec![], connect_routes(), upgrades(), &[REFUSED, OK]);
    let text = scene.talk(&[
        b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: y\r\n\r\n",
        b"GET /later HTTP/1.1\r\nHost: y\r\n\r\n",
    ]);
    assert_eq!(whole::status(&text), "403");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert_eq!(scene.get("/next"), "200");
    let seen = scene.upstream.connections();
    assert_eq!(
        seen.len(),
        2,
        "the refused tunnel's connection was used again: {seen:?}"
    );
    assert!(!scene.upstream.text().contains("smuggled"), "{seen:?}");
    assert!(!scene.upstream.text().contains("later"), "{seen:?}");
}

#[test]
fn cve_2026_73548_data_behind_an_upgrade_that_is_refused() {
    for protocol in ["websocket", "other"] {
        for answer in [REFUSED, OK] {
            let scene = Scene::new(upgrades(), &[answer, OK]);
            let head = format!(
                "GET /up HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n\
                 GET /smuggled HTTP/1.1\r\nHost: y\r\n\r\n"
            );
            let text = scene.talk(&[head.as_bytes(), b"GET /later HTTP/1.1\r\nHost: y\r\n\r\n"]);
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
            assert_eq!(scene.get("/next"), "200");
            let seen = scene.upstream.connections();
            assert_eq!(seen.len(), 2, "used again: {seen:?}");
            assert!(!scene.upstream.text().contains("smuggled"), "{seen:?}");
        }
    }
}

#[test]
fn cve_2026_58055_an_upgrade_with_a_body() {
    let scene = Scene::new(upgrades(), &[OK]);
    for body in [
        "Content-Length: 37\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: yyyy\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n25\r\nGET /smuggled HTTP/1.1\r\nHost: yyyy\r\n\r\n\r\n0\r\n\r\n",
    ] {
        for protocol in ["websocket", "other"] {
            let head = format!(
                "POST /up HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n{body}"
            );
            let text = scene.talk(&[head.as_bytes()]);
            assert_eq!(whole::status(&text), "400", "{text}");
        }
    }
    assert_eq!(scene.upstream.text(), "");
    // An upgrade nobody tunnels is a request like any other.
    let text = scene.ask(
        "POST /plain HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AA\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(whole::status(&text), "200");
    let seen = scene.upstream.text();
    assert!(seen.ends_with("\r\n\r\nhello"), "{seen}");
    assert!(!seen.contains("upgrade:"), "{seen}");
}

#[test]
fn cve_2026_48743_a_length_without_a_body_from_another_protocol() {
    let scene = Scene::new(json!({}), &[OK]);
    let mut client = scene.frames(&["headers 1 es | post /a | content-length: 35"]);
    client.finish(true, true);
    assert_eq!(scene.upstream.text(), "");
    assert!(scene.serves());
}

#[test]
fn cve_2026_47692_proxy_protocol_fields_that_overrun_their_header() {
    let address = free_address();
    let mut listener = whole::http(address, vec![], whole::everything(), json!({}));
    let message = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    let filter = whole::filter("envoy.filters.listener.proxy_protocol", message, json!({}));
    listener["listener_filters"] = json!([filter]);
    let scene = Scene::of_listener(listener, address, &[OK]);
    let request = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let v2 = |length: u16, rest: &[u8]| {
        let mut all = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        all.extend(length.to_be_bytes());
        all.extend(b"\x0a\0\0\x01\x0a\0\0\x02\0\x50\0\x51");
        all.extend(rest);
        all.extend(request);
        all
    };
    // The header says where it ends, whatever its fields claim: either it is
    // refused, or exactly one request follows.
    let mut served = 0;
    for header in [
        v2(15, b"\x01\xff\xff"),
        v2(16, b"\x01\0\x20a"),
        v2(13, b"\x01"),
        v2(16, b"\x04\0\x01a"),
    ] {
        let text = scene.talk(&[&header]);
        served += text.matches("HTTP/1.1 200").count();
        assert!(text.is_empty() || whole::status(&text) == "200", "{text}");
        assert_eq!(
            scene.upstream.text().matches("GET /smuggled ").count(),
            served
        );
        assert_eq!(scene.upstream.requests(), served);
    }
    assert!(served > 0, "the last one is well formed");
    // An address that does not fit into the header is no address.
    assert_eq!(scene.talk(&[&v2(4, b"")]), "");
    assert_eq!(scene.upstream.requests(), served);
}

#[test]
fn fields_that_connection_names_do_not_pass_with_an_upgrade() {
    let scene = Scene::new(upgrades(), &[REFUSED]);
    let text = scene.ask(
        "GET /up HTTP/1.1\r\nHost: x\r\nConnection: upgrade, x-named\r\nUpgrade: websocket\r\n\
         X-Named: 1\r\n\r\n",
    );
    assert_eq!(whole::status(&text), "403");
    let seen = scene.upstream.text();
    assert!(seen.contains("connection: upgrade\r\n"), "{seen}");
    assert!(!seen.contains("x-named"), "{seen}");
}
