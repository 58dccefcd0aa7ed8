//! HTTP/2 floods: the flooding connection is closed or answered within its
//! bounds, and everybody else is served.

use serde_json::json;

use super::scene::{OK, Scene};

/// Plays a flood; whether its connection was closed. Others are served after it.
fn flood(scene: &Scene, steps: &[&str]) -> bool {
    let mut client = scene.frames(steps);
    let end = client.finish(false, true);
    assert_ne!(end, "deaf", "{steps:?}");
    assert!(scene.serves(), "{steps:?}");
    end == "closed"
}

fn scene() -> Scene {
    Scene::new(json!({}), &[OK])
}

#[test]
fn cve_2023_44487_rapid_reset() {
    let scene = scene();
    let closed = flood(&scene, &["x3000: headers # es | get /reset & rst = CANCEL"]);
    assert!(closed, "the connection goes on");
    let asked = scene.upstream.requests();
    assert!(asked < 1500, "{asked} of 3000 requests went on");
}

#[test]
fn cve_2023_44487_requests_without_end_open_no_connections() {
    let scene = scene();
    for _ in 0..10 {
        let mut client =
            scene.frames(&["x200: headers # | post /reset & rst = CANCEL", "!wait 20"]);
        client.finish(false, true);
    }
    assert!(scene.serves());
    let opened = scene.upstream.connections().len();
    assert!(opened < 100, "{opened} connections for 2000 requests");
}

#[test]
fn resets_of_a_stream_that_is_over() {
    let scene = scene();
    let closed = flood(
        &scene,
        &["headers 1 es | get /once", "!head 1", "x2000: rst 1 CANCEL"],
    );
    assert!(closed);
}

#[test]
fn cve_2025_8671_resets_by_errors_of_the_client() {
    // What the server resets for the client's mistakes is as cheap as a reset of the client's own;
    // with a pause between, the request has gone on before its stream is reset.
    let scene = scene();
    for mistake in [
        "headers # | post /wrong & window = 0",
        "headers # | post /wrong & window = 2147483647",
        "headers # | post /wrong & headers = | x-a: b",
        "headers # | post /wrong | content-length: 1 & data = | abc",
        "headers # es | get /wrong & priority = dep=1 len=1",
        "headers # es | get /wrong | X-A: b",
    ] {
        let (at_once, rest) = (format!("x40: {mistake}"), format!("x260: {mistake}"));
        let mut client = scene.frames(&[&at_once, "!all", &rest]);
        assert_eq!(client.finish(false, true), "closed", "{mistake}");
    }
    assert!(scene.serves());
}

#[test]
fn cve_2024_27919_continuation_without_end() {
    let scene = scene();
    let closed = flood(
        &scene,
        &[
            "headers 1 es -eh | get",
            "x3000: continuation 1 -eh | x-a: {{b*1000}}",
        ],
    );
    assert!(closed);
    assert_eq!(scene.upstream.text().matches("x-a").count(), 0);
}

#[test]
fn cve_2024_30255_continuation_without_content() {
    let scene = scene();
    let closed = flood(
        &scene,
        &["headers 1 es -eh | get", "x20000: continuation 1 -eh"],
    );
    assert!(closed);
}

#[test]
fn cve_2019_9511_one_byte_at_a_time() {
    let large = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n{}",
        "x".repeat(9000)
    );
    let scene = Scene::new(json!({}), &[&large]);
    let mut client = scene.frames(&[
        "settings window=0",
        "!acks 2",
        "x20: headers # es | get /large",
        "x50: window 1 1 & window 3 1 & window 5 1",
    ]);
    // So many WINDOW_UPDATEs for so little may also end the connection.
    assert_ne!(client.finish(false, true), "deaf");
    assert!(scene.serves());
}

#[test]
fn cve_2019_9512_pings() {
    flood(&scene(), &["x5000: ping"]);
}

#[test]
fn cve_2019_9513_priorities() {
    flood(&scene(), &["x5000: priority 1 dep=3 & priority 3 dep=1 x"]);
}

#[test]
fn cve_2019_9514_resets_of_streams_that_are_none() {
    flood(&scene(), &["x2000: headers # es | get /a | X-UPPER: a"]);
}

#[test]
fn cve_2019_9515_settings() {
    flood(&scene(), &["x5000: settings window=70000"]);
}

#[test]
fn cve_2019_9516_header_names_of_no_length() {
    let scene = scene();
    flood(&scene, &["x100: headers # es | get | 1000*hex:000000"]);
    assert_eq!(scene.upstream.text().matches("\r\n: ").count(), 0);
}

#[test]
fn cve_2019_9517_answers_that_nobody_reads() {
    let large = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}",
        "x".repeat(100_000)
    );
    let scene = Scene::new(json!({}), &[&large]);
    let client = scene.frames(&[
        "settings window=0x7fffffff & window 0 0x7fff0000",
        "!acks 2",
        "!unread",
        "x100: headers # es | get /large",
    ]);
    assert!(scene.serves());
    drop(client);
    assert!(scene.serves());
}

#[test]
fn cve_2019_9518_empty_frames() {
    flood(&scene(), &["headers 1 | post /a", "x5000: data 1"]);
}

#[test]
fn cve_2020_12603_tiny_frames() {
    let scene = scene();
    flood(&scene, &["headers 1 | post /tiny", "x3000: data 1 | a"]);
}

#[test]
fn cve_2020_12604_windows_of_nothing() {
    let large = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n{}",
        "x".repeat(9000)
    );
    let scene = Scene::new(json!({ "stream_idle_timeout": "0.3s" }), &[&large]);
    let mut client = scene.frames(&[
        "settings window=0",
        "!acks 2",
        "headers 1 es | get /never",
        "!done 1",
    ]);
    assert!(
        client.vain.is_empty(),
        "the stream never ended: {:?}",
        client.events()
    );
    client.finish(false, true);
    assert!(scene.serves());
}

#[test]
fn cve_2023_35945_goaway_and_resets_together() {
    let scene = scene();
    for _ in 0..20 {
        let mut client = scene.frames(&[
            "x10: headers # | post /a & data = | hello",
            "goaway 0 NO_ERROR & rst 1 CANCEL & rst 3 CANCEL & rst 5 CANCEL & goaway 0 NO_ERROR",
            "!close",
        ]);
        client.finish(false, false);
    }
    assert!(scene.serves());
}

#[test]
fn cve_2026_73513_trailers_that_do_not_end_the_stream() {
    let scene = scene();
    let mut client = scene.frames(&[
        "headers 1 | post /a & data 1 | a & headers 1 | x-t: v & headers 1 | x-t: w & data 1 es | b",
    ]);
    client.finish(false, true);
    assert!(scene.serves());
    assert_eq!(scene.upstream.text().matches("x-t").count(), 0);
}

#[test]
fn cve_2024_45807_frames_behind_the_end_of_a_stream() {
    let scene = scene();
    for behind in [
        "data 1 | a",
        "data 1 es",
        "headers 1 es | x-t: v",
        "window 1 5",
        "rst 1 CANCEL",
    ] {
        let frames = format!("headers 1 es | get /a & {behind} & {behind}");
        flood(&scene, &[&frames]);
        let late = [frames.split(" & ").next().unwrap(), "!done 1", behind];
        flood(&scene, &late);
    }
}
