//! Answers that are not what was asked for: the next request gets its own.

use serde_json::json;

use super::scene::Scene;
use crate::support::whole;

const NEXT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";

/// The answers to two requests, one after the other on one connection of the
/// client, as one text.
fn two(answers: &[&str]) -> String {
    let scene = Scene::new(json!({}), answers);
    let (first, second) = ("GET /first", "GET /second");
    let rest = " HTTP/1.1\r\nHost: x\r\n\r\n";
    let ask = |line: &str| format!("{line}{rest}");
    scene.talk(&[ask(first).as_bytes(), b"", b"", ask(second).as_bytes()])
}

#[test]
fn bytes_behind_an_answer_reach_nobody() {
    for first in [
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No\r\n\r\n",
        "HTTP/1.1 304 No\r\ncontent-length: 8\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let poison = format!("{first}HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned");
        let text = two(&[&poison, NEXT]);
        assert!(!text.contains("poisoned"), "{first}: {text}");
        assert!(text.ends_with("next"), "{first}: {text}");
    }
}

#[test]
fn an_answer_nobody_asked_for_is_not_the_next_one() {
    let text = two(&[
        "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned",
        NEXT,
    ]);
    assert_eq!(whole::status(&text), "502");
    assert!(!text.contains("poisoned"), "{text}");
    assert!(text.ends_with("next"), "{text}");
}

#[test]
fn answers_whose_end_is_unclear_are_refused() {
    for fields in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip",
        "content-length: +4",
        "content-length: 4,4",
    ] {
        let first = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n4\r\nevil\r\n0\r\n\r\n");
        let text = two(&[&first, NEXT]);
        assert_eq!(whole::status(&text), "502", "{fields}");
        assert!(!text.contains("evil"), "{fields}: {text}");
        assert!(text.ends_with("next"), "{fields}: {text}");
    }
}

#[test]
fn a_head_answer_with_a_body_poisons_nobody() {
    let scene = Scene::new(
        json!({}),
        &["HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned", NEXT],
    );
    let text = scene.talk(&[
        b"HEAD /first HTTP/1.1\r\nHost: x\r\n\r\n",
        b"",
        b"",
        b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n",
    ]);
    assert!(!text.contains("poisoned"), "{text}");
    assert!(text.ends_with("next"), "{text}");
}
