//! What a client sends is no line of its own in a log.

use std::time::{Duration, Instant};

use serde_json::json;

use super::scene::{OK, Scene};

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
