//! What a client sends is no line of its own in a log.

use std::time::{Duration, Instant};

use serde_json::json;

use super::scene::{OK, Scene};
use crate::support::whole::*;
use crate::support::{ask_all, free_address};

#[test]
fn cve_2024_45808_names_of_clients_stay_inside_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let format = "%REQ(:PATH)% \"%REQ(USER-AGENT)%\" \"%REQ(:AUTHORITY)%\" %RESPONSE_CODE%\n";
    let file = json!({ "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path, "log_format": { "text_format_source": { "inline_string": format } } });
    let manager = json!({ "access_log": [{ "name": "file", "typed_config": file }] });
    let scene = Scene::new(manager, &[OK]);
    for request in [
        "GET /a%0aforged HTTP/1.1\r\nHost: x\r\nUser-Agent: a\\nforged\r\n\r\n",
        "GET /b HTTP/1.1\r\nHost: x\r\nUser-Agent: a\u{1b}[31m\r\n\r\n",
        "GET /c HTTP/1.1\r\nHost: x\r\nUser-Agent: a\u{0}\r\n\r\n",
        "GET /d HTTP/1.1\r\nHost: x\r\nUser-Agent: a\u{b}forged\r\n\r\n",
        "GET /e HTTP/1.1\r\nHost: x\r\nUser-Agent: a\" forged \"\r\n\r\n",
    ] {
        scene.talk(&[request.as_bytes()]);
    }
    let mut client = scene.frames(&["headers 1 es | get /f | user-agent: a\nforged"]);
    client.finish(true, true);
    assert_eq!(scene.get("/last"), "200");
    let until = Instant::now() + Duration::from_secs(10);
    let text = loop {
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.contains("/last ") || Instant::now() > until {
            break text;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(text.contains("/last "), "{text}");
    for line in text.lines() {
        assert!(
            line.starts_with('/') || line.starts_with("- "),
            "a forged line: {line:?}"
        );
        assert!(!line.contains(['\u{1b}', '\u{b}', '\0']), "{line:?}");
    }
}

/// Waits until a file has this in it.
fn wait_for_log(path: &std::path::Path, mark: &str) -> String {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.contains(mark) {
            return text;
        }
        assert!(Instant::now() < until, "no {mark} in {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn values_of_clients_stay_inside_their_json_strings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let format = json!({ "path": "%REQ(:PATH)%", "agent": "<%REQ(USER-AGENT)%>", "host": "%REQ(:AUTHORITY)%",
        "query": "%QUERY_PARAM(q)%", "code": "%RESPONSE_CODE%" });
    let file = json!({ "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path, "log_format": { "json_format": format } });
    let manager = json!({ "access_log": [{ "name": "file", "typed_config": file }] });
    let scene = Scene::new(manager, &[OK]);
    for request in [
        "GET /a\",\"forged\":\"x HTTP/1.1\r\nHost: x\r\nUser-Agent: a\r\n\r\n",
        "GET /b?q=%22%0a%5c HTTP/1.1\r\nHost: x\r\nUser-Agent: a\",\"forged\":\"x\r\n\r\n",
        "GET /c HTTP/1.1\r\nHost: x\r\nUser-Agent: a\\\",\\\"forged\\\":1\\\r\n\r\n",
        "GET /d HTTP/1.1\r\nHost: x\r\nUser-Agent: a\tb\u{7f}\u{80}\r\n\r\n",
    ] {
        scene.talk(&[request.as_bytes()]);
    }
    // Bytes that are no text.
    scene.talk(&[b"GET /e HTTP/1.1\r\nHost: x\r\nUser-Agent: \xff\xfe\xc3\r\n\r\n"]);
    assert_eq!(scene.get("/last"), "200");
    let text = wait_for_log(&path, "/last");
    assert!(text.lines().count() > 4, "{text}");
    for line in text.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["agent", "code", "host", "path", "query"], "{line}");
    }
}

/// A ClientHello that names a server and nothing else of use.
fn hello(name: &[u8]) -> Vec<u8> {
    fn long(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    }
    let entry = [&[0][..], &long(name)].concat();
    let names = [&[0, 0][..], &long(&long(&entry))].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(long(&names));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &long(&message)].concat()
}

#[test]
fn server_names_of_clients_stay_inside_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let file = |format: serde_json::Value| {
        json!({ "name": "file", "typed_config": { "path": path, "log_format": format,
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog" } })
    };
    let text =
        json!({ "text_format_source": { "inline_string": "text \"%REQUESTED_SERVER_NAME%\"\n" } });
    let values = json!({ "json_format": { "sni": "%REQUESTED_SERVER_NAME%", "x": "-%REQUESTED_SERVER_NAME%-" } });
    let address = free_address();
    let tcp =
        json!({ "stat_prefix": "t", "cluster": "c", "access_log": [file(text), file(values)] });
    let name = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let inspector = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    let listener = json!({ "name": "l", "address": socket(address),
        "listener_filters": [filter("tls", inspector, json!({}))],
        "filter_chains": [{ "filters": [filter("tcp", name, tcp)] }] });
    let clusters = json!([static_cluster("c", free_address())]);
    let _proxy = Proxy::start(json!([listener]), clusters, None);
    wait_for(address);
    for name in [
        &b"a\nforged"[..],
        b"a\" forged \"",
        b"a\",\"forged\":\"x",
        b"a\\",
        b"a\x1b[31m\x00\x7f",
        b"\xff\xfe",
        b"last.example",
    ] {
        ask_all(address, &hello(name));
    }
    let log = wait_for_log(&path, "{\"sni\":\"last.example\"");
    for line in log.lines() {
        let Some(text) = line.strip_prefix("text \"") else {
            let value: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["sni", "x"], "{line}");
            continue;
        };
        assert!(
            text.ends_with('"') && !text.contains(char::is_control),
            "{line:?}"
        );
    }
}
