//! External authorisation and tokens where the case files do not reach: gRPC checks beside the
//! real Envoy (found as in tests/differential.rs), and what becomes of work that a request waits
//! for when its client goes away (the lifetime class of CVE-2026-47205, -50572 and -47207).

#![expect(
    deprecated,
    reason = "services still send what Envoy's API marks as deprecated"
)]

#[path = "ext_authz/answers.rs"]
mod answers;
#[path = "differential/envoy.rs"]
mod envoy;
mod support;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lateen_xds_proto::Message as _;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::service::auth::v3::{self as auth, check_response::HttpResponse};
use lateen_xds_proto::envoy::r#type::v3::HttpStatus;
use lateen_xds_proto::google;
use serde_json::{Value, json};
use support::whole::{OK, Proxy, eventually, everything, filter, http, static_cluster, wait_for};
use support::{Upstream, ask, connect, free_address};

const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

fn option(key: &str, value: &str, append: Option<bool>) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        }),
        append: append.map(|value| google::protobuf::BoolValue { value }),
        ..Default::default()
    }
}

/// The verdict on a path.
fn verdict(path: &str) -> auth::CheckResponse {
    let status = |code| {
        Some(google::rpc::Status {
            code,
            ..Default::default()
        })
    };
    let denied = |code, body: &str, headers| auth::DeniedHttpResponse {
        status: Some(HttpStatus { code }),
        headers,
        body: body.into(),
    };
    if let Some(name) = path.strip_prefix("/answers/") {
        return answers::verdict(name.split('?').next().unwrap_or_default());
    }
    match path {
        "/deny" => auth::CheckResponse {
            status: status(7),
            http_response: Some(HttpResponse::DeniedResponse(denied(
                401,
                "no",
                vec![
                    option("www-authenticate", "Basic", None),
                    option("x-why", "because", None),
                ],
            ))),
            ..Default::default()
        },
        "/denied" => auth::CheckResponse {
            status: status(16),
            http_response: Some(HttpResponse::DeniedResponse(denied(0, "", vec![]))),
            ..Default::default()
        },
        "/bare" => auth::CheckResponse {
            status: status(7),
            ..Default::default()
        },
        "/plain" => auth::CheckResponse {
            status: status(0),
            ..Default::default()
        },
        _ => auth::CheckResponse {
            status: status(0),
            http_response: Some(HttpResponse::OkResponse(auth::OkHttpResponse {
                headers: vec![
                    option("x-set", "new", None),
                    option("x-over", "new", Some(false)),
                    option("x-more", "more", Some(true)),
                    option("x-none", "more", Some(true)),
                ],
                headers_to_remove: vec!["x-gone".into(), ":path".into(), "host".into()],
                response_headers_to_add: vec![option("x-told", "client", None)],
                ..Default::default()
            })),
            ..Default::default()
        },
    }
}

type Seen = Arc<Mutex<Vec<auth::CheckRequest>>>;

/// A service that keeps what it is asked.
fn service() -> (SocketAddr, Seen) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let seen = Seen::default();
    let kept = seen.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async move {
            let socket = tokio::net::TcpListener::from_std(socket).unwrap();
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let kept = kept.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(judge(request, respond, kept.clone()));
                    }
                });
            }
        });
    });
    (address, seen)
}

async fn judge(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    kept: Seen,
) {
    assert_eq!(
        request.uri().path(),
        "/envoy.service.auth.v3.Authorization/Check"
    );
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        let _ = body.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
    }
    let check = auth::CheckRequest::decode(&message[5..]).unwrap();
    let asked = check.attributes.as_ref().and_then(|a| a.request.as_ref());
    let path = asked.and_then(|r| r.http.as_ref()).unwrap().path.clone();
    kept.lock().unwrap().push(check);
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut send = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    let message = match &*path {
        "/junk" => b"\xff\xff\xff".to_vec(),
        path => verdict(path).encode_to_vec(),
    };
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    send.send_data(framed.into(), false).unwrap();
    let status = if path == "/error" { "13" } else { "0" };
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

/// What of a check does not depend on time, chance and place, as lines.
fn comparable(check: &auth::CheckRequest) -> Vec<String> {
    let attributes = check.attributes.clone().unwrap();
    let address = |peer: &Option<auth::attribute_context::Peer>| {
        let address = peer.as_ref()?.address.as_ref()?.address.as_ref()?;
        match address {
            core::address::Address::SocketAddress(socket) => Some(socket.address.clone()),
            _ => None,
        }
    };
    let request = attributes.request.clone().unwrap();
    assert!(request.time.is_some_and(|t| t.seconds > 1_600_000_000));
    let http = request.http.unwrap();
    assert!(!http.id.is_empty());
    let mut headers: BTreeMap<_, _> = http.headers.clone().into_iter().collect();
    assert!(headers.remove("x-request-id").is_some());
    let extensions: BTreeMap<_, _> = attributes.context_extensions.iter().collect();
    vec![
        format!("source {:?}", address(&attributes.source)),
        format!("principal {:?}", attributes.source.map(|s| s.principal)),
        format!("destination {:?}", address(&attributes.destination)),
        format!(
            "{} {} {} {}",
            http.method, http.path, http.host, http.scheme
        ),
        http.protocol,
        format!("body {:?} {:?}", http.body, http.raw_body),
        format!("headers {headers:?}"),
        format!("extensions {extensions:?}"),
        format!("session {:?}", attributes.tls_session),
    ]
}

/// An answer or request without what time and chance put into it.
fn still(message: &str) -> String {
    let own = [
        "date",
        "x-request-id",
        "x-envoy-upstream-service-time",
        "x-envoy-expected",
    ];
    let lines = message.lines();
    let lines = lines.filter(|line| !own.iter().any(|name| line.starts_with(name)));
    // The order of different names has no meaning (RFC 9110 section 5.3).
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn grpc_filter(timeout: &str, body: Value) -> Value {
    let mut config = json!({ "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": "authz" }, "timeout": timeout } });
    if !body.is_null() {
        config["with_request_body"] = body;
    }
    filter("envoy.filters.http.ext_authz", EXT_AUTHZ, config)
}

fn h2_cluster(name: &str, address: SocketAddr) -> Value {
    let mut cluster = static_cluster(name, address);
    cluster["http2_protocol_options"] = json!({});
    cluster
}

#[test]
fn grpc_checks_are_those_of_envoy() {
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let upstream = Upstream::new(&[OK]);
    let (service, seen) = service();
    let routes = json!([
        { "match": { "prefix": "/ext" }, "route": { "cluster": "c" }, "typed_per_filter_config": {
            "envoy.filters.http.ext_authz": { "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                "check_settings": { "context_extensions": { "a": "b", "c": "d" } } } } },
        { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
    ]);
    let clusters = json!([
        static_cluster("c", upstream.address),
        h2_cluster("authz", service)
    ]);
    let body = json!({ "max_request_bytes": 8, "allow_partial_message": true });
    let listeners = |places: &[SocketAddr]| -> Value {
        let filters = [
            grpc_filter("5s", Value::Null),
            grpc_filter("5s", body.clone()),
        ];
        let listeners = places.iter().zip(filters);
        let listeners =
            listeners.map(|(at, filter)| http(*at, vec![filter], routes.clone(), Value::Null));
        listeners.collect()
    };
    let (theirs, ours) = (
        [free_address(), free_address()],
        [free_address(), free_address()],
    );
    let folder = tempfile::tempdir().unwrap();
    let bootstrap =
        json!({ "static_resources": { "listeners": listeners(&theirs), "clusters": clusters } });
    let mut envoy = envoy::Envoy::start(&program, folder.path(), &bootstrap);
    let _proxy = Proxy::start(listeners(&ours), clusters, None);
    theirs.iter().for_each(|at| envoy.wait_for(*at));
    ours.iter().for_each(|at| wait_for(*at));

    let headers = "x-set: old\r\nx-over: old\r\nx-more: old\r\nx-gone: 1\r\ncookie: a=1\r\nx-two: 1\r\nx-two: 2\r\n";
    let mut asks = Vec::new();
    for path in [
        "/ok?q=1", "/deny", "/denied", "/bare", "/plain", "/junk", "/error", "/ext/x",
    ] {
        asks.push((
            0,
            format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"),
        ));
    }
    asks.push((
        0,
        "GET /deny HTTP/1.1\r\nHost: h\r\ncontent-type: application/grpc\r\n\r\n".into(),
    ));
    for body in [
        "content-length: 3\r\n\r\nabc",
        "content-length: 12\r\n\r\n0123456789ab",
        "\r\n",
    ] {
        asks.push((1, format!("POST /ok HTTP/1.1\r\nHost: h\r\n{body}")));
    }
    for (place, text) in asks {
        let side = |at: SocketAddr| {
            upstream.seen.lock().unwrap().clear();
            seen.lock().unwrap().clear();
            let answer = still(&ask(at, &text));
            let forwarded: Vec<String> = upstream.requests().iter().map(|r| still(r)).collect();
            let checks: Vec<_> = seen.lock().unwrap().iter().map(comparable).collect();
            assert_eq!(checks.len(), 1, "{text}");
            (answer, forwarded, checks)
        };
        assert_eq!(
            side(ours[place]),
            side(theirs[place]),
            "{text}\nours, then Envoy's"
        );
    }
}

/// A server that takes requests and never answers; how many came and how many connections ended.
fn silent() -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let kept = counts.clone();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            let counts = kept.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).is_ok_and(|n| n > 0) {
                    counts[0].fetch_add(1, Ordering::SeqCst);
                }
                counts[1].fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (address, counts)
}

fn waiting_proxy(filter: Value) -> (Proxy, SocketAddr, Arc<[AtomicUsize; 2]>, Upstream) {
    let upstream = Upstream::new(&[OK]);
    let (service, counts) = silent();
    let address = free_address();
    let proxy = Proxy::start(
        json!([http(address, vec![filter], everything(), Value::Null)]),
        json!([
            static_cluster("c", upstream.address),
            static_cluster("authz", service)
        ]),
        None,
    );
    wait_for(address);
    (proxy, address, counts, upstream)
}

fn http_filter() -> Value {
    let config = json!({ "transport_api_version": "V3", "http_service": {
        "server_uri": { "uri": "http://authz", "cluster": "authz", "timeout": "60s" } } });
    filter("envoy.filters.http.ext_authz", EXT_AUTHZ, config)
}

fn count(counts: &[AtomicUsize; 2], which: usize) -> usize {
    counts[which].load(Ordering::SeqCst)
}

#[test]
fn cve_2026_47205_a_client_that_goes_ends_its_pending_check() {
    let (_proxy, address, counts, upstream) = waiting_proxy(http_filter());
    for close in [true, false] {
        let (asked, ended) = (count(&counts, 0), count(&counts, 1));
        let stream = connect(address);
        write(
            &stream,
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        );
        eventually("the service is asked", || count(&counts, 0) > asked);
        if !close {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        eventually("the check is given up", || count(&counts, 1) > ended);
    }
    assert!(upstream.requests().is_empty(), "nothing was let through");
}

#[test]
fn cve_2026_50572_a_reset_stream_ends_its_pending_check() {
    let (_proxy, address, counts, upstream) = waiting_proxy(http_filter());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::post("http://h/").body(()).unwrap();
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        let asked = counts.clone();
        wait_async(move || count(&asked, 0) > 0).await;
        body.send_reset(h2::Reason::CANCEL);
        drop(answer);
        let ended = counts.clone();
        wait_async(move || count(&ended, 1) > 0).await;
        connection.abort();
    });
    assert!(upstream.requests().is_empty(), "nothing was let through");
}

async fn wait_async(check: impl FnMut() -> bool + Send + 'static) {
    let waiting = tokio::task::spawn_blocking(move || eventually("the other side's turn", check));
    waiting.await.unwrap();
}

fn write(mut stream: &TcpStream, text: &str) {
    std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
}

fn jwt_filter() -> Value {
    let config = json!({
        "providers": { "a": { "issuer": "me", "remote_jwks": { "http_uri": {
            "uri": "http://keys/jwks", "cluster": "authz", "timeout": "60s" } } } },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "a" } }] });
    let message = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    filter("envoy.filters.http.jwt_authn", message, config)
}

/// `{"alg":"RS256"}.{"iss":"me"}` with no signature to speak of.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJtZSJ9.AAAA";

#[test]
fn cve_2025_64527_clients_may_go_while_keys_are_fetched() {
    let (_proxy, address, counts, upstream) = waiting_proxy(jwt_filter());
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let waiting: Vec<TcpStream> = (0..8)
        .map(|_| {
            let stream = connect(address);
            write(&stream, &request);
            stream
        })
        .collect();
    eventually("keys are asked for", || count(&counts, 0) > 0);
    drop(waiting);
    // Whoever comes now finds the proxy at work.
    let answer = ask(address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.ends_with("Jwt is missing"), "{answer}");
    // One fetch in each of the two workers, however many wait for it.
    assert!(count(&counts, 0) <= 2, "{counts:?}");
    assert!(upstream.requests().is_empty(), "nothing was let through");
}

#[test]
fn cve_2026_31837_keys_that_do_not_come_deny() {
    for answer in [
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
        "!drop",
    ] {
        let (upstream, keys) = (Upstream::new(&[OK]), Upstream::new(&[answer]));
        let address = free_address();
        let _proxy = Proxy::start(
            json!([http(address, vec![jwt_filter()], everything(), Value::Null)]),
            json!([
                static_cluster("c", upstream.address),
                static_cluster("authz", keys.address)
            ]),
            None,
        );
        wait_for(address);
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        let got = ask(address, &request);
        assert!(got.starts_with("HTTP/1.1 401 "), "{answer}: {got}");
        assert!(
            got.ends_with("Jwks remote fetch is failed"),
            "{answer}: {got}"
        );
        assert!(
            upstream.requests().is_empty(),
            "{answer}: nothing was let through"
        );
    }
}

/// A filter with these fields of its remote keys, and its two servers.
fn remote_keys(fields: &Value, answers: &[&str]) -> (Proxy, SocketAddr, Upstream) {
    let (upstream, keys) = (Upstream::new(&[OK]), Upstream::new(answers));
    let mut filter = jwt_filter();
    let remote = &mut filter["typed_config"]["providers"]["a"]["remote_jwks"];
    for (name, value) in fields.as_object().unwrap() {
        remote[name] = value.clone();
    }
    let address = free_address();
    let proxy = Proxy::start(
        json!([http(address, vec![filter], everything(), Value::Null)]),
        json!([
            static_cluster("c", upstream.address),
            static_cluster("authz", keys.address)
        ]),
        None,
    );
    wait_for(address);
    (proxy, address, keys)
}

#[test]
fn keys_that_are_fetched_ahead_serve_while_their_server_is_away() {
    let (modulus, away) = (
        "v".repeat(341) + "A",
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
    );
    let set = format!("{{\"keys\":[{{\"kty\":\"RSA\",\"n\":\"{modulus}\",\"e\":\"AQAB\"}}]}}");
    let good = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}",
        set.len()
    );
    let fields =
        json!({ "cache_duration": "0.5s", "async_fetch": { "failed_refetch_duration": "0.2s" } });
    // The first request fetches beside the fetch ahead.
    let (_proxy, address, keys) = remote_keys(&fields, &[&good, &good, away]);
    // One connection: each worker has keys of its own.
    let mut client = connect(address);
    let mut asked = || {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        write(&client, &request);
        support::read_message(&mut client).unwrap()
    };
    let judged = asked();
    assert!(judged.ends_with("Jwt verification fails"), "{judged}");
    // By the third fetch that fails the keys are older than they may get.
    eventually("its server is asked in vain", || keys.requests().len() >= 5);
    assert!(
        asked().ends_with("Jwt verification fails"),
        "the keys are kept"
    );
}

#[test]
fn keys_are_asked_for_again_only_where_that_may_help() {
    let fields = json!({ "retry_policy": { "num_retries": 3, "retry_back_off": { "base_interval": "0.01s" } } });
    for (answer, tries) in [
        ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", 4),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 1),
    ] {
        let (_proxy, address, keys) = remote_keys(&fields, &[answer]);
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        let got = ask(address, &request);
        assert!(
            got.ends_with("Jwks remote fetch is failed"),
            "{answer}: {got}"
        );
        assert_eq!(keys.requests().len(), tries, "{answer}");
    }
}
