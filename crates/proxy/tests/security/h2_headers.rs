//! Memory of HTTP/2 headers: every decoded byte counts, also what is dropped or
//! joined later.

use serde_json::json;

use super::scene::{OK, Scene};
use crate::frames::client::Event;

/// Whether the request is answered with 200.
fn taken(scene: &Scene, steps: &[&str]) -> bool {
    let mut client = scene.frames(steps);
    client.finish(true, true);
    let last = client.opened().last().copied();
    client.events().iter().any(|event| match event {
        Event::Headers { stream, fields, .. } => Some(*stream) == last && fields[0].1 == b"200",
        _ => false,
    })
}

#[test]
fn cve_2026_47774_cookie_crumbs() {
    let scene = Scene::new(json!({}), &[OK]);
    assert!(taken(&scene, &["headers 1 es | get /a | 50*cookie: a=b"]));
    assert!(!taken(
        &scene,
        &["headers 1 es | get /many | 1000*cookie: a"]
    ));
    let large = [
        "headers 1 es -eh | get /large",
        "x9: continuation 1 -eh | cookie: {{c*8000}}",
        "continuation 1",
    ];
    assert!(!taken(&scene, &large));
    assert!(!scene.upstream.text().contains("/many"));
    assert!(!scene.upstream.text().contains("/large"));
    assert!(scene.serves());
}

#[test]
fn cve_2026_47774_references_to_one_large_field() {
    let scene = Scene::new(json!({}), &[OK]);
    // A field of 3,000 bytes enters the table (40 01 'x' 7f b1 16), then each
    // byte of the next block stands for all of it.
    let field = format!(
        "headers 1 es | get /first | hex:4001787fb916{}",
        "61".repeat(3000)
    );
    assert!(taken(&scene, &[&field]));
    let many = "headers 3 es | get /bomb | 5000*hex:be";
    assert!(!taken(&scene, &[&field, "!done 1", many]));
    assert!(!scene.upstream.text().contains("/bomb"));
    assert!(scene.serves());
}

#[test]
fn cve_2026_73550_fields_that_are_dropped_count() {
    let scene = Scene::new(json!({}), &[OK]);
    assert!(!taken(&scene, &["headers 1 es | get /hosts | 500*host: x"]));
    let drop = json!({ "common_http_protocol_options": {
        "headers_with_underscores_action": "DROP_HEADER" } });
    let dropping = Scene::new(drop, &[OK]);
    assert!(!taken(
        &dropping,
        &["headers 1 es | get /drop | 500*x_%: y"]
    ));
    assert!(!scene.upstream.text().contains("/hosts"));
    assert!(!dropping.upstream.text().contains("/drop"));
}

#[test]
fn cve_2020_12605_many_small_fields() {
    let scene = Scene::new(json!({}), &[OK]);
    assert!(!taken(&scene, &["headers 1 es | get /small | 2000*a: b"]));
    let http1 = format!(
        "GET /small HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "a: b\r\n".repeat(2000)
    );
    assert!(scene.ask(&http1).starts_with("HTTP/1.1 431"));
    assert!(!scene.upstream.text().contains("/small"));
}
