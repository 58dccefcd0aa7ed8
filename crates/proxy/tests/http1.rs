//! HTTP/1 through the engine: what the upstream sees, what the client gets,
//! what the log says.

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::route::*;
use support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Up: 1\r\n\r\nhello";

fn to(cluster: &str) -> Arc<Route> {
    route("/", RouteAction::Forward(Arc::new(forward(cluster))))
}

#[test]
fn a_request_goes_through_and_the_connections_are_kept() {
    let upstream = Upstream::new(&[OK]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut manager = manager(vec![to("c")]);
    manager.access_logs = vec![text_log(
        &path,
        "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
         %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %ROUTE_NAME%\n",
    )];
    let (running, address) = http_proxy(manager, vec![cluster("c", &[upstream.address])]);
    let mut client = connect(address);
    for _ in 0..3 {
        client
            .write_all(
                b"POST /a?b HTTP/1.1\r\nHost: Example\r\nContent-Length: 3\r\nX-Me: 1\r\n\r\nabc",
            )
            .unwrap();
        let answer = read_message(&mut client).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(body(&answer), "hello");
        assert_eq!(header(&answer, "x-up"), Some("1"));
        assert_eq!(header(&answer, "server"), Some("envoy"));
        assert!(header(&answer, "date").is_some());
        let time = header(&answer, "x-envoy-upstream-service-time").unwrap();
        assert!(time.parse::<u32>().is_ok(), "{time}");
    }
    assert_eq!(
        *upstream.connections.lock().unwrap(),
        1,
        "one upstream connection serves all"
    );
    let seen = &upstream.requests()[0];
    assert!(
        seen.starts_with("POST /a?b HTTP/1.1\r\nhost: Example\r\n"),
        "{seen}"
    );
    assert_eq!(header(seen, "x-me"), Some("1"));
    assert_eq!(header(seen, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(seen, "x-request-id").map(str::len), Some(36));
    assert_eq!(
        header(seen, "x-envoy-expected-rq-timeout-ms"),
        Some("15000")
    );
    assert_eq!(body(seen), "abc");
    running
        .runtime
        .block_on(running.engine.handle().flush_logs(false));
    let log = std::fs::read_to_string(&path).unwrap();
    let line = format!("POST /a?b 200 - via_upstream 3 5 {} c /", upstream.address);
    assert_eq!(log.lines().collect::<Vec<_>>(), [&line, &line, &line]);
}

#[test]
fn chunked_both_ways_and_pipelining() {
    let upstream = Upstream::new(&[
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    ]);
    let (_running, address) = http_proxy(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let one = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let mut client = connect(address);
    client.write_all(format!("{one}{one}").as_bytes()).unwrap();
    let mut all = String::new();
    let mut chunk = [0; 4096];
    while all.matches("0\r\n\r\n").count() < 2 {
        let count = client.read(&mut chunk).unwrap();
        assert!(count > 0, "{all}");
        all.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "{all}");
    assert_eq!(header(&all, "transfer-encoding"), Some("chunked"));
    assert!(all.contains("hello") && all.contains(" world"));
    let seen = upstream.requests();
    assert_eq!(seen.len(), 2);
    assert!(
        body(&seen[0]).contains("abc") && body(&seen[0]).contains("defg"),
        "{}",
        seen[0]
    );
}

#[test]
fn bodies_larger_than_any_buffer() {
    let large = "x".repeat(3 << 20);
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    );
    let upstream = Upstream::new(&[&text]);
    let (_running, address) = http_proxy(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    );
    let answer = ask(address, &request);
    assert_eq!(body(&answer).len(), large.len());
    assert_eq!(body(&upstream.requests()[0]).len(), large.len());
}

#[test]
fn answers_until_the_end_of_the_connection_become_chunked() {
    let upstream = Upstream::new(&["!closeHTTP/1.1 200 OK\r\n\r\nall of it"]);
    let (_running, address) = http_proxy(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let answer = ask(address, &get("/"));
    assert_eq!(header(&answer, "transfer-encoding"), Some("chunked"));
    assert!(body(&answer).contains("all of it"), "{answer}");
}

#[test]
fn local_replies_of_the_router() {
    let gone = free_address();
    let drops = Upstream::new(&["!drop"]);
    let wrong = Upstream::new(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"]);
    let mut silent = forward("silent");
    silent.timeout = Some(Duration::from_millis(200));
    let at =
        |path: &str, cluster: &str| route(path, RouteAction::Forward(Arc::new(forward(cluster))));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut manager = manager(vec![
        at("/none", "unknown"),
        at("/empty", "empty"),
        at("/gone", "gone"),
        at("/drops", "drops"),
        at("/wrong", "wrong"),
        route("/silent", RouteAction::Forward(Arc::new(silent))),
    ]);
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
    manager.access_logs = vec![text_log(&path, format)];
    let silent = Upstream::new(&["!silent"]);
    let (running, address) = http_proxy(
        manager,
        vec![
            cluster("empty", &[]),
            cluster("gone", &[gone]),
            cluster("drops", &[drops.address]),
            cluster("wrong", &[wrong.address]),
            cluster("silent", &[silent.address]),
        ],
    );
    let reset = "upstream connect error or disconnect/reset before headers. reset reason: ";
    let cases = [
        ("/x", 404, String::new(), "404 NR route_not_found"),
        ("/none", 503, String::new(), "503 NC cluster_not_found"),
        (
            "/empty",
            503,
            "no healthy upstream".into(),
            "503 UH no_healthy_upstream",
        ),
        (
            "/gone",
            503,
            format!("{reset}remote connection failure"),
            "503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
        ),
        (
            "/drops",
            503,
            format!("{reset}connection termination"),
            "503 UC upstream_reset_before_response_started{connection_termination}",
        ),
        (
            "/wrong",
            502,
            format!("{reset}protocol error"),
            "502 UPE upstream_reset_before_response_started{protocol_error}",
        ),
        (
            "/silent",
            504,
            "upstream request timeout".into(),
            "504 UT response_timeout",
        ),
    ];
    let mut want = Vec::new();
    for (path, status, text, line) in &cases {
        let answer = ask(address, &get(path));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert_eq!(body(&answer), text, "{path}");
        want.push((*line).to_owned());
    }
    running
        .runtime
        .block_on(running.engine.handle().flush_logs(false));
    let log = std::fs::read_to_string(&path).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), want);
}

#[test]
fn grpc_requests_get_grpc_answers() {
    let (_running, address) = http_proxy(manager(vec![]), vec![]);
    let answer = ask(
        address,
        "POST /s/m HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(header(&answer, "grpc-status"), Some("12"));
}

#[test]
fn codec_errors_close() {
    let (_running, address) = http_proxy(manager(vec![]), vec![]);
    let answer = ask_all(address, b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert_eq!(header(&answer, "connection"), Some("close"));
    assert_eq!(body(&answer), "Bad Request");
    let answer = ask_all(address, b"GET / HTTP/1.0\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
        "{answer}"
    );
    let answer = ask(address, "GET / HTTP/1.1\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert_eq!(body(&answer), "");
}

#[test]
fn retries_go_to_another_host_and_are_counted() {
    let bad = Upstream::new(&["HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno"]);
    let good = Upstream::new(&[OK]);
    let mut retried = forward("c");
    retried.retry_policy = Some(Arc::new(RetryPolicy {
        on: RetryOn::SERVER_ERROR,
        num_retries: 3,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: vec![],
        retriable_headers: vec![],
        retriable_request_headers: vec![],
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(5),
        rate_limited_back_off: None,
        previous_hosts: true,
        host_selection_max_attempts: 5,
        previous_priorities: None,
    }));
    let manager = manager(vec![route("/", RouteAction::Forward(Arc::new(retried)))]);
    let (_running, address) = http_proxy(manager, vec![cluster("c", &[bad.address, good.address])]);
    for _ in 0..6 {
        let answer = ask(
            address,
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        );
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    assert!(!bad.requests().is_empty());
    assert!(good.requests().iter().all(|r| body(r) == "body"));
    assert_eq!(good.requests().len(), 6);
}

#[test]
fn a_stale_kept_connection_is_not_the_clients_trouble() {
    // The upstream closes after each answer without having said so.
    let upstream = Upstream::new(&["!closeHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]);
    let (_running, address) = http_proxy(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let mut client = connect(address);
    for _ in 0..20 {
        client.write_all(get("/").as_bytes()).unwrap();
        let answer = read_message(&mut client).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[test]
fn expect_continue_is_answered_here() {
    let upstream = Upstream::new(&[OK]);
    let (_running, address) = http_proxy(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let mut client = connect(address);
    client
        .write_all(
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    let first = read_message(&mut client).unwrap();
    assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"ab").unwrap();
    assert!(
        read_message(&mut client)
            .unwrap()
            .starts_with("HTTP/1.1 200 OK")
    );
    assert_eq!(header(&upstream.requests()[0], "expect"), None);
}

#[test]
fn websockets_are_tunnelled_when_allowed() {
    use lateen_proxy_core::config::http_connection_manager::Upgrade;
    let upstream = Upstream::new(&[
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst",
        "!close",
    ]);
    let mut allowed = manager(vec![to("c")]);
    allowed.upgrades = vec![Upgrade {
        protocol: "websocket".into(),
        enabled: true,
        connect_config: false,
    }];
    let (_running, address) = http_proxy(allowed, vec![cluster("c", &[upstream.address])]);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = connect(address);
    client.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = [0; 1000];
    while !bytes.ends_with(b"first") {
        let count = client.read(&mut chunk).unwrap();
        assert!(count > 0, "{}", bytes.escape_ascii());
        bytes.extend_from_slice(&chunk[..count]);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{text}"
    );
    assert_eq!(header(&text, "connection"), Some("Upgrade"));
    assert_eq!(header(&text, "upgrade"), Some("websocket"));
    assert_eq!(
        header(&upstream.requests()[0], "connection"),
        Some("Upgrade")
    );

    let (_running, address) = http_proxy(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let answer = ask_all(address, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden"), "{answer}");
}
