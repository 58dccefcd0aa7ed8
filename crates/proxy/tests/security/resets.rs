//! One side goes while the other is in the middle of something.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::scene::{OK, Scene};

#[test]
fn cve_2026_26311_a_request_that_is_reset_while_it_is_filtered() {
    let delay = json!({ "delay": { "fixed_delay": "0.1s",
        "percentage": { "numerator": 100, "denominator": "HUNDRED" } } });
    let message = "envoy.extensions.filters.http.fault.v3.HTTPFault";
    let fault = crate::support::whole::filter("envoy.filters.http.fault", message, delay);
    let routes = crate::support::whole::everything();
    let scene = Scene::with(vec![fault], routes, json!({}), &[OK]);
    for _ in 0..10 {
        scene.frames(&["x5: headers # es | get /reset & rst = CANCEL"]);
        scene.frames(&["x5: headers # | post /reset", "!wait 20", "!reset"]);
        let mut stream = TcpStream::connect(scene.address).unwrap();
        stream
            .write_all(b"GET /reset HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        drop(stream);
    }
    // Nobody waits for what the upstream says to those that went on.
    assert!(scene.serves());
    assert!(scene.upstream.requests() <= 10 * 11 + 2);
}

#[test]
fn cve_2021_43826_a_client_that_leaves_its_tunnel() {
    let upgrades = json!({ "upgrade_configs": [{ "upgrade_type": "websocket" }] });
    let switch = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbytes";
    let scene = Scene::new(upgrades, &[switch]);
    for wait in [0, 5, 20] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(scene.address).unwrap();
            stream
                .write_all(b"GET /t HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                .unwrap();
            std::thread::sleep(Duration::from_millis(wait));
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }
    let text = scene.talk(&[
        b"GET /t HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ]);
    assert!(
        text.starts_with("HTTP/1.1 101") && text.ends_with("bytes"),
        "{text}"
    );
}

#[test]
fn cve_2024_23322_timeouts_that_meet_in_the_pause_of_a_retry() {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "c", "timeout": "0.2s",
        "idle_timeout": "0.05s", "retry_policy": { "retry_on": "5xx,reset", "num_retries": 5,
            "per_try_timeout": "0.05s",
            "retry_back_off": { "base_interval": "0.04s", "max_interval": "0.06s" } } } }]);
    let scene = Scene::with(vec![], routes, json!({}), &["!drop"]);
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let address = scene.address;
            std::thread::spawn(move || crate::support::ask(address, &crate::support::get("/")))
        })
        .collect();
    for answer in asked {
        let answer = answer.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 50"), "{answer:?}");
    }
}

#[test]
fn cve_2021_43825_an_answer_before_the_request_is_whole() {
    let scene = Scene::new(json!({}), &[OK]);
    let mut client = scene.frames(&[
        "headers 1 | post /early & data 1 | {{a*16000}}",
        "!head 1",
        "x20: data 1 | {{b*16000}}",
        "data 1 es | end",
    ]);
    client.finish(true, true);
    let text = scene.talk(&[
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
        &[b'a'; 60_000],
        &[b'b'; 60_000],
    ]);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(scene.serves());
}

#[test]
fn an_upstream_that_goes_at_every_stage() {
    for answer in [
        "!drop",
        "HTTP/1.1 200 OK\r\nconte",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        let scene = Scene::new(json!({ "stream_idle_timeout": "0.3s" }), &[answer]);
        scene.talk(&[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]);
        let mut client = scene.frames(&["headers 1 es | get & headers 3 | post & data 3 | a"]);
        assert_ne!(client.finish(true, true), "deaf", "{answer}");
    }
}
