//! HTTP/1 where it goes wrong: requests that no route may take, answers that
//! end early, connections that must be given up; and what the log says of it.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::Cluster;
use lateen_proxy_core::config::http_connection_manager::{HttpConnectionManager, Upgrade};
use lateen_proxy_core::config::route::*;
use support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const FORMAT: &str = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
     %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER_RAW%\n";

fn to(cluster: &str) -> Arc<Route> {
    route("/", RouteAction::Forward(Arc::new(forward(cluster))))
}

fn direct(path: &str) -> Arc<Route> {
    let response = DirectResponse {
        status: 418,
        body: b"tea".as_slice().into(),
        format: None,
    };
    route(path, RouteAction::DirectResponse(Arc::new(response)))
}

/// A proxy whose log can be read.
struct Logged {
    running: Running,
    address: SocketAddr,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Logged {
    fn new(mut manager: HttpConnectionManager, clusters: Vec<Cluster>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        manager.access_logs = vec![text_log(&path, FORMAT)];
        let (running, address) = http_proxy(manager, clusters);
        Self {
            running,
            address,
            path,
            _dir: dir,
        }
    }

    /// The log as soon as it has so many lines.
    fn lines(&self, count: usize) -> Vec<String> {
        for _ in 0..100 {
            let handle = self.running.engine.handle();
            self.running.runtime.block_on(handle.flush_logs(false));
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            if text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{count} lines never came");
    }
}

/// Reads until so much was read that `done` says yes.
fn read_until(stream: &mut TcpStream, done: impl Fn(&str) -> bool) -> String {
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    while !done(&text) {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    text
}

const CONNECT: &[u8] = b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n";

#[test]
fn connect_is_no_business_of_an_ordinary_route() {
    let upstream = Upstream::new(&[OK]);
    let proxy = Logged::new(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let early = [CONNECT, get("/smuggled").as_bytes()].concat();
    for request in [CONNECT, &early] {
        let answer = ask_all(proxy.address, request);
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert_eq!(header(&answer, "connection"), Some("close"));
        assert_eq!(body(&answer), "", "{answer}");
    }
    assert_eq!(upstream.requests().len(), 0, "{:?}", upstream.requests());
    assert_eq!(
        proxy.lines(2),
        ["CONNECT - 404 NR route_not_found 0 0 -"; 2]
    );
}

fn connect_route(enabled: bool) -> HttpConnectionManager {
    let mut route = Arc::unwrap_or_clone(to("c"));
    route.matching.path = PathMatch::Connect;
    let mut manager = manager(vec![Arc::new(route)]);
    if enabled {
        manager.upgrades = vec![Upgrade {
            protocol: "connect".into(),
            enabled: true,
            connect_config: false,
        }];
    }
    manager
}

#[test]
fn connect_needs_its_upgrade_type() {
    let upstream = Upstream::new(&[OK]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = Logged::new(connect_route(false), clusters);
    let answer = ask_all(proxy.address, CONNECT);
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert_eq!(header(&answer, "connection"), Some("close"));
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(proxy.lines(1), ["CONNECT - 403 - upgrade_failed 0 0 c"]);
}

#[test]
fn an_accepted_connect_is_a_tunnel_of_its_own_connection() {
    let upstream = Upstream::new(&["HTTP/1.1 200 Fine\r\n\r\n", "pong"]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = Logged::new(connect_route(true), clusters);
    let mut client = connect(proxy.address);
    // What comes with the head waits for the upstream's consent.
    client
        .write_all(&[CONNECT, b"ping\r\n\r\n"].concat())
        .unwrap();
    let text = read_until(&mut client, |t| t.ends_with("pong"));
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert_eq!(header(&text, "content-length"), None, "{text}");
    assert_eq!(header(&text, "transfer-encoding"), None, "{text}");
    assert_eq!(body(&text), "pong");
    drop(client);
    let seen = upstream.requests();
    assert!(seen[0].starts_with("CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n"));
    assert_eq!(seen[1], "ping\r\n\r\n");
    let mut second = connect(proxy.address);
    second.write_all(CONNECT).unwrap();
    read_until(&mut second, |t| !t.is_empty());
    assert_eq!(*upstream.connections.lock().unwrap(), 2, "never pooled");
}

#[test]
fn connect_has_no_body() {
    let (_running, address) = http_proxy(connect_route(true), vec![cluster("c", &[])]);
    let request = b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\nContent-Length: 5\r\n\r\nhello";
    let answer = ask_all(address, request);
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
}

/// What is left of an answer whose upstream stopped in the middle.
fn truncated(answer: &str) -> (Vec<String>, Logged) {
    let upstream = Upstream::new(&[&format!("!close{answer}")]);
    let proxy = Logged::new(
        manager(vec![to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = (0..50).map(|_| ask_all(proxy.address, request));
    (answers.collect(), proxy)
}

#[test]
fn what_came_of_a_chunked_answer_reaches_the_client() {
    let (answers, proxy) =
        truncated("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
        assert_eq!(body(&answer), "4\r\nhalf\r\n", "whole chunks, no end");
    }
    let details = "upstream_reset_after_response_started{protocol_error}";
    assert_eq!(proxy.lines(50)[0], format!("GET / 200 UPE {details} 0 4 c"));
}

#[test]
fn what_came_of_an_answer_with_a_length_reaches_the_client() {
    let (answers, proxy) = truncated("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    for answer in answers {
        assert_eq!(header(&answer, "content-length"), Some("10"), "{answer:?}");
        assert_eq!(body(&answer), "half");
    }
    let details = "upstream_reset_after_response_started{protocol_error}";
    assert_eq!(proxy.lines(50)[0], format!("GET / 200 UPE {details} 0 4 c"));
}

#[test]
fn half_a_head_is_a_malformed_answer() {
    let (answers, proxy) = truncated("HTTP/1.1 200 OK\r\nConte");
    assert!(answers[0].starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
    assert!(body(&answers[0]).ends_with("reset reason: protocol error"));
    let details = "upstream_reset_before_response_started{protocol_error}";
    assert_eq!(
        proxy.lines(50)[0],
        format!("GET / 502 UPE {details} 0 87 c")
    );
}

/// An upstream that answers as soon as a head is there.
fn answers_to_heads(answer: &'static str) -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            read_until(&mut stream, |text| text.contains("\r\n\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
            // Open until the other side is done.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    address
}

#[test]
fn an_answer_before_the_requests_end_says_that_the_connection_ends() {
    let early = answers_to_heads("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
    let redirect = route(
        "/redirect",
        RouteAction::Redirect(Arc::new(Redirect {
            code: 301,
            scheme: None,
            host: "".into(),
            port: None,
            path: RedirectPath::Path("/x".into()),
            strip_query: false,
        })),
    );
    let empty = route("/empty", RouteAction::Forward(Arc::new(forward("empty"))));
    let (_running, address) = http_proxy(
        manager(vec![direct("/direct"), redirect, empty, to("c")]),
        vec![cluster("empty", &[]), cluster("c", &[early])],
    );
    let length = "Content-Length: 5\r\n\r\nhello";
    let half = "Content-Length: 5\r\n\r\nhe";
    let expect = "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (path, rest, status) in [
        ("/direct", length, "418"),
        ("/direct", half, "418"),
        ("/direct", expect, "418"),
        ("/direct", chunked, "418"),
        ("/redirect", length, "301"),
        ("/empty", length, "503"),
        ("/nowhere", half, "413"),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{rest}");
        let answer = ask_all(address, request.as_bytes());
        let line = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&line), "{request:?}: {answer:?}");
        let close = header(&answer, "connection");
        assert_eq!(close, Some("close"), "{request:?}: {answer:?}");
    }
}

#[test]
fn an_answer_after_the_requests_end_keeps_the_connection() {
    let upstream = Upstream::new(&[OK]);
    let (_running, address) = http_proxy(
        manager(vec![direct("/direct"), to("c")]),
        vec![cluster("c", &[upstream.address])],
    );
    let mut client = connect(address);
    for (path, rest) in [
        ("/direct", "Content-Length: 0\r\n\r\n"),
        ("/", "Content-Length: 5\r\n\r\nhello"),
        (
            "/",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{rest}");
        client.write_all(request.as_bytes()).unwrap();
        let answer = read_message(&mut client).unwrap();
        assert_eq!(header(&answer, "connection"), None, "{answer}");
    }
}

fn retried(cluster: &str, on: RetryOn, per_try: Option<Duration>) -> Arc<Route> {
    let mut forward = forward(cluster);
    forward.retry_policy = Some(Arc::new(RetryPolicy {
        on,
        num_retries: 1,
        per_try_timeout: per_try,
        per_try_idle_timeout: None,
        retriable_status_codes: vec![],
        retriable_headers: vec![],
        retriable_request_headers: vec![],
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
        rate_limited_back_off: None,
        previous_hosts: false,
        host_selection_max_attempts: 1,
        previous_priorities: None,
    }));
    let path = format!("/{cluster}");
    route(&path, RouteAction::Forward(Arc::new(forward)))
}

#[test]
fn the_service_time_is_that_of_all_tries() {
    let slow = Upstream::new(&["!silent", OK]);
    let per_try = Some(Duration::from_millis(120));
    let routes = vec![retried("c", RetryOn::SERVER_ERROR, per_try)];
    let (_running, address) = http_proxy(manager(routes), vec![cluster("c", &[slow.address])]);
    let answer = ask(address, &get("/c"));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let time = header(&answer, "x-envoy-upstream-service-time").unwrap();
    assert!(time.parse::<u32>().unwrap() >= 100, "{time}");
}

#[test]
fn flags_are_printed_as_they_were_set() {
    let (drops, silent) = (Upstream::new(&["!drop"]), Upstream::new(&["!silent"]));
    let per_try = Some(Duration::from_millis(50));
    let on = RetryOn::SERVER_ERROR;
    let proxy = Logged::new(
        manager(vec![
            retried("refused", on, None),
            retried("drops", on, None),
            retried("silent", on, per_try),
        ]),
        vec![
            cluster("refused", &[free_address()]),
            cluster("drops", &[drops.address]),
            cluster("silent", &[silent.address]),
        ],
    );
    for (at, (path, want)) in [
        ("/refused", "503 URX,UF "),
        ("/drops", "503 URX,UC "),
        ("/silent", "504 URX,UT "),
    ]
    .into_iter()
    .enumerate()
    {
        ask(proxy.address, &get(path));
        let lines = proxy.lines(at + 1);
        assert!(lines[at].contains(want), "{}", lines[at]);
    }
}

#[test]
fn a_tunnels_record_counts_its_bytes_and_says_who_left() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let proxied = |answers: &[&str]| {
        let upstream = Upstream::new(answers);
        let mut manager = manager(vec![to("c")]);
        manager.upgrades = vec![Upgrade {
            protocol: "websocket".into(),
            enabled: true,
            connect_config: false,
        }];
        Logged::new(manager, vec![cluster("c", &[upstream.address])])
    };
    let proxy = proxied(&[switch, "pong"]);
    let mut client = connect(proxy.address);
    client.write_all(upgrade.as_bytes()).unwrap();
    read_until(&mut client, |t| t.ends_with("\r\n\r\n"));
    client.write_all(b"ping\r\n\r\n").unwrap();
    read_until(&mut client, |t| t.ends_with("pong"));
    drop(client);
    let want = "GET /ws 101 DC downstream_remote_disconnect 8 4 c";
    assert_eq!(proxy.lines(1), [want]);

    let proxy = proxied(&[&format!("!close{switch}bye")]);
    let answer = ask_all(proxy.address, upgrade.as_bytes());
    assert_eq!(body(&answer), "bye");
    let details = "upstream_reset_after_response_started{connection_termination}";
    assert_eq!(proxy.lines(1), [format!("GET /ws 101 UC {details} 0 3 c")]);
}

#[test]
fn a_request_that_never_became_whole_is_logged() {
    let proxy = Logged::new(manager(vec![to("c")]), vec![cluster("c", &[])]);
    for half in ["GE", "GET /x HTTP/1.1\r\nHo"] {
        let mut client = connect(proxy.address);
        client.write_all(half.as_bytes()).unwrap();
    }
    let want = "- - 0 DC downstream_remote_disconnect 0 0 -";
    assert_eq!(proxy.lines(2), [want; 2]);
    drop(connect(proxy.address));
    ask(proxy.address, &get("/"));
    assert_eq!(proxy.lines(3)[2], "GET / 503 UH no_healthy_upstream 0 19 c");
}

#[test]
fn a_cluster_that_is_not_there_has_no_name_in_the_log() {
    let proxy = Logged::new(manager(vec![to("nope")]), vec![]);
    ask(proxy.address, &get("/"));
    assert_eq!(proxy.lines(1), ["GET / 503 NC cluster_not_found 0 0 -"]);
}

#[test]
fn via_is_said_both_ways() {
    let upstream =
        Upstream::new(&["HTTP/1.1 200 OK\r\nVia: 1.1 other\r\nContent-Length: 2\r\n\r\nok"]);
    let mut manager = manager(vec![direct("/direct"), to("c")]);
    manager.via = "lateen".into();
    let (_running, address) = http_proxy(manager, vec![cluster("c", &[upstream.address])]);
    let answer = ask(address, &get("/"));
    assert_eq!(header(&answer, "via"), Some("1.1 other, lateen"));
    assert_eq!(header(&upstream.requests()[0], "via"), Some("lateen"));
    let answer = ask(address, &get("/direct"));
    assert_eq!(header(&answer, "via"), Some("lateen"));
}

#[test]
fn a_refused_path_ends_the_connection() {
    use lateen_proxy_core::config::http_connection_manager::EscapedSlashes;
    let mut manager = manager(vec![direct("/")]);
    manager.path.escaped_slashes = EscapedSlashes::Reject;
    let (_running, address) = http_proxy(manager, vec![]);
    let answer = ask_all(address, get("/a%2fb").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(header(&answer, "connection"), Some("close"));
}

#[test]
fn a_request_that_stops_in_its_body_is_told_that_the_connection_ends() {
    let upstream = Upstream::new(&[OK]);
    let mut manager = manager(vec![to("c")]);
    manager.request_timeout = Some(Duration::from_millis(100));
    let (_running, address) = http_proxy(manager, vec![cluster("c", &[upstream.address])]);
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe";
    let answer = ask_all(address, request);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(header(&answer, "connection"), Some("close"));
}
