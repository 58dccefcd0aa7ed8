//! Addresses that a PROXY header may carry.

use serde_json::json;

use super::scene::{OK, Scene};
use crate::support::{free_address, whole};

fn scene() -> Scene {
    let address = free_address();
    let mut listener = whole::http(address, vec![], whole::everything(), json!({}));
    let message = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    let filter = whole::filter("envoy.filters.listener.proxy_protocol", message, json!({}));
    listener["listener_filters"] = json!([filter]);
    Scene::of_listener(listener, address, &[OK])
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn cve_2024_23325_families_that_are_not_known() {
    let scene = scene();
    let header = |family: u8, payload: &[u8]| {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [
            &b"\r\n\r\n\0\r\nQUIT\n\x21"[..],
            &[family],
            &length,
            payload,
            REQUEST,
        ]
        .concat()
    };
    // A Unix socket, no family, a family nobody knows: no crash, and no mix-up.
    for (family, payload) in [(0x31, vec![b'a'; 216]), (0x00, vec![]), (0x51, vec![0; 12])] {
        let text = scene.talk(&[&header(family, &payload)]);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
    }
    let text = scene.talk(&[&header(0x11, b"\x0a\0\0\x01\x0a\0\0\x02\0\x50\0\x51")]);
    assert_eq!(whole::status(&text), "200");
}

#[test]
fn cve_2024_23327_the_local_command() {
    let scene = scene();
    for payload in [&b""[..], b"\x0a\0\0\x01\x0a\0\0\x02\0\x50\0\x51", b"a"] {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let all = [
            &b"\r\n\r\n\0\r\nQUIT\n\x20\x00"[..],
            &length,
            payload,
            REQUEST,
        ]
        .concat();
        let text = scene.talk(&[&all]);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 200"),
            "{text}"
        );
    }
    assert_eq!(
        whole::status(&scene.talk(&[b"PROXY UNKNOWN\r\n", REQUEST])),
        "200"
    );
}

#[test]
fn cve_2026_26310_scoped_addresses() {
    let scene = scene();
    for line in [
        "PROXY TCP6 fe80::1%eth0 ::1 80 81\r\n",
        "PROXY TCP6 fe80::1%25eth0 ::1 80 81\r\n",
        "PROXY TCP4 256.0.0.1 1.2.3.4 80 81\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 80 99999\r\n",
    ] {
        let text = scene.talk(&[line.as_bytes(), REQUEST]);
        assert!(!text.starts_with("HTTP/1.1 200"), "{line}: {text}");
    }
    assert_eq!(scene.upstream.text(), "");
    let text = scene.talk(&[b"PROXY TCP6 fe80::1 ::1 80 81\r\n", REQUEST]);
    assert_eq!(whole::status(&text), "200");
}
