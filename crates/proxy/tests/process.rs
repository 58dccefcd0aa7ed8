//! A whole proxy over a static bootstrap: filters, rewrites and mirrors as a
//! configuration writes them, the agent's ports, the end.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::whole::*;
use support::*;

#[test]
fn access_control_allows_denies_and_only_counts() {
    let upstream = Upstream::new(&[OK]);
    let policy = |prefix: &str| {
        json!({ "policies": { "p": { "principals": [{ "any": true }],
        "permissions": [{ "url_path": { "path": { "prefix": prefix } } }] } } })
    };
    let mut deny = policy("/secret");
    deny["action"] = json!("DENY");
    let mut shadow = policy("/watched");
    shadow["action"] = json!("DENY");
    let message = "envoy.extensions.filters.http.rbac.v3.RBAC";
    let filters = vec![
        filter(
            "deny",
            message,
            json!({ "rules": deny, "shadow_rules": shadow, "shadow_rules_stat_prefix": "w_" }),
        ),
        filter(
            "allow",
            message,
            json!({ "rules": { "action": "ALLOW", "policies": { "ok": {
            "principals": [{ "header": { "name": "x-who", "string_match": { "exact": "me" } } }],
            "permissions": [{ "any": true }] } } } }),
        ),
    ];
    let (_proxy, address) = proxied(upstream.address, filters, everything());
    let asked = |path: &str, who: &str| {
        ask(
            address,
            &format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-who: {who}\r\n\r\n"),
        )
    };
    assert_eq!(status(&asked("/", "me")), "200");
    assert_eq!(
        status(&asked("/watched", "me")),
        "200",
        "a shadow rule refuses nothing"
    );
    let denied = asked("/secret/x", "me");
    assert_eq!(
        (status(&denied), body(&denied)),
        ("403", "RBAC: access denied")
    );
    assert_eq!(status(&asked("/", "you")), "403", "no policy allows it");
    assert_eq!(upstream.requests().len(), 2);
}

/// The admin pages on a Unix socket, of which some alone are answered.
#[test]
fn admin_pages_on_a_unix_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    // A process that died left its socket; what is no socket is no one's to remove.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let with = |path: &std::path::Path| {
        json!({ "admin": {
            "address": { "pipe": { "path": path, "mode": 0o600 } },
            "allow_paths": [{ "exact": "/ready" }, { "prefix": "/stats?" }] } })
    };
    let _proxy = Proxy::with(json!([]), json!([]), with(&path));
    let ask = |page: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        let request = format!("GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    eventually("a socket", || UnixStream::connect(&path).is_ok());
    eventually("ready", || status(&ask("/ready")) == "200");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(status(&ask("/stats?filter=x")), "200");
    for refused in ["/stats", "/ready?x", "/config_dump", "/nonsense"] {
        let answer = ask(refused);
        let text = format!("request to path {refused} not allowed");
        assert_eq!((status(&answer), body(&answer)), ("403", &*text));
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let problem = try_serve_with(json!([]), json!([]), with(&file)).unwrap_err();
    assert!(problem.contains("admin address"), "{problem}");
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}

/// A server that keeps what each connection brings and answers every request on it.
fn telling_server() -> (SocketAddr, std::sync::Arc<std::sync::Mutex<Vec<Vec<u8>>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<Vec<u8>>::new()));
    let all = seen.clone();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            let all = all.clone();
            std::thread::spawn(move || {
                let place = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let ends = {
                        let mut all = all.lock().unwrap();
                        all[place].extend_from_slice(&buffer[..count]);
                        all[place].ends_with(b"\r\n\r\n")
                    };
                    if ends && stream.write_all(OK.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Endpoints are told of their clients, each connection of one of them, over HTTP and TCP.
#[test]
fn upstreams_are_told_by_the_proxy_protocol() {
    for (version, tcp) in [("V1", false), ("V2", false), ("V1", true), ("V2", true)] {
        let (upstream, seen) = telling_server();
        let address = free_address();
        let mut cluster = static_cluster("c", upstream);
        let raw = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
        let told =
            "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
        cluster["transport_socket"] = filter(
            "p",
            told,
            json!({ "config": { "version": version },
            "transport_socket": filter("raw", raw, json!({})) }),
        );
        let mut listener = http(address, vec![], everything(), Value::Null);
        if tcp {
            let message = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
            let config = json!({ "stat_prefix": "t", "cluster": "c" });
            listener["filter_chains"][0]["filters"][0] = filter("tcp", message, config);
        }
        let _proxy = Proxy::start(json!([listener]), json!([cluster]), None);
        wait_for(address);
        if tcp {
            // The connection that saw whether the port is open is told of too.
            eventually("the first", || !seen.lock().unwrap().is_empty());
            seen.lock().unwrap().clear();
        }
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = connect(address);
            for _ in 0..2 {
                client.write_all(get("/").as_bytes()).unwrap();
                let mut answer = vec![0; OK.len()];
                client.read_exact(&mut answer).unwrap();
                let mut more = [0; 1024];
                client
                    .set_read_timeout(Some(Duration::from_millis(100)))
                    .unwrap();
                while client
                    .read(&mut more)
                    .is_ok_and(|count| count == more.len())
                {}
                client.set_read_timeout(None).unwrap();
            }
            clients.push(client);
        }
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 2, "one connection for each client");
        for (client, bytes) in clients.iter().zip(&seen) {
            let own = client.local_addr().unwrap();
            let header = match version {
                "V1" => format!(
                    "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
                    own.port(),
                    address.port()
                )
                .into_bytes(),
                _ => {
                    let mut header =
                        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01"
                            .to_vec();
                    header.extend_from_slice(&own.port().to_be_bytes());
                    header.extend_from_slice(&address.port().to_be_bytes());
                    header
                }
            };
            assert!(
                bytes.starts_with(&header),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
            assert!(bytes[header.len()..].starts_with(b"GET / HTTP/1.1\r\n"));
            let requests = String::from_utf8_lossy(bytes).matches("GET / ").count();
            assert_eq!(requests, 2);
        }
    }
}

#[test]
fn faults_delay_and_abort() {
    let upstream = Upstream::new(&[OK]);
    let message = "envoy.extensions.filters.http.fault.v3.HTTPFault";
    let all = json!({ "numerator": 100 });
    let per_route = |mut fault: Value| {
        fault["@type"] = json!(url(message));
        json!({ "envoy.filters.http.fault": fault })
    };
    let routes = json!([
        { "match": { "prefix": "/abort" }, "route": { "cluster": "c" },
          "typed_per_filter_config": per_route(json!({ "abort": { "http_status": 418, "percentage": all } })) },
        { "match": { "prefix": "/delay" }, "route": { "cluster": "c" },
          "typed_per_filter_config": per_route(json!({ "delay": { "fixed_delay": "0.3s", "percentage": all } })) },
        { "match": { "prefix": "/only-jason" }, "route": { "cluster": "c" },
          "typed_per_filter_config": per_route(json!({ "abort": { "http_status": 500, "percentage": all },
            "headers": [{ "name": "end-user", "string_match": { "exact": "jason" } }] })) },
        { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
    ]);
    let filters = vec![filter("envoy.filters.http.fault", message, json!({}))];
    let (_proxy, address) = proxied(upstream.address, filters, routes);
    let aborted = ask(address, &get("/abort"));
    assert_eq!(
        (status(&aborted), body(&aborted)),
        ("418", "fault filter abort")
    );
    let begun = Instant::now();
    assert_eq!(status(&ask(address, &get("/delay"))), "200");
    assert!(begun.elapsed() >= Duration::from_millis(290));
    let begun = Instant::now();
    assert_eq!(status(&ask(address, &get("/only-jason"))), "200");
    assert!(begun.elapsed() < Duration::from_millis(290));
    let jason = "GET /only-jason HTTP/1.1\r\nhost: h\r\nend-user: jason\r\n\r\n";
    assert_eq!(status(&ask(address, jason)), "500");
    assert_eq!(
        upstream.requests().len(),
        2,
        "an abort never reaches the upstream"
    );
}

#[test]
fn cross_origin_rules() {
    let upstream = Upstream::new(&[OK]);
    let policy = json!({ "@type": url("envoy.extensions.filters.http.cors.v3.CorsPolicy"),
        "allow_origin_string_match": [{ "exact": "https://good.example" }],
        "allow_methods": "GET,POST", "allow_headers": "x-a", "expose_headers": "x-b", "max_age": "600",
        "allow_credentials": true });
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "c" },
        "typed_per_filter_config": { "envoy.filters.http.cors": policy } }]);
    let message = "envoy.extensions.filters.http.cors.v3.Cors";
    let filters = vec![filter("envoy.filters.http.cors", message, json!({}))];
    let (_proxy, address) = proxied(upstream.address, filters, routes);
    let asked = |method: &str, origin: &str, more: &str| {
        ask(
            address,
            &format!("{method} / HTTP/1.1\r\nhost: h\r\norigin: {origin}\r\n{more}\r\n"),
        )
    };
    let preflight = asked(
        "OPTIONS",
        "https://good.example",
        "access-control-request-method: POST\r\n",
    );
    assert_eq!(status(&preflight), "200");
    for (name, value) in [
        ("access-control-allow-origin", "https://good.example"),
        ("access-control-allow-methods", "GET,POST"),
        ("access-control-allow-headers", "x-a"),
        ("access-control-max-age", "600"),
        ("access-control-allow-credentials", "true"),
    ] {
        assert_eq!(header(&preflight, name), Some(value), "{preflight}");
    }
    assert!(
        upstream.requests().is_empty(),
        "a preflight is answered here"
    );
    let simple = asked("GET", "https://good.example", "");
    assert_eq!(
        header(&simple, "access-control-allow-origin"),
        Some("https://good.example")
    );
    assert_eq!(
        header(&simple, "access-control-expose-headers"),
        Some("x-b")
    );
    let foreign = asked("GET", "https://bad.example", "");
    assert_eq!(status(&foreign), "200");
    assert_eq!(header(&foreign, "access-control-allow-origin"), None);
}

#[test]
fn redirects_rewrites_and_header_edits() {
    let upstream = Upstream::new(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-drop: 1\r\n\r\nok"]);
    let routes = json!([
        { "match": { "prefix": "/old" }, "redirect": { "host_redirect": "other.example", "prefix_rewrite": "/new", "response_code": "FOUND" } },
        { "match": { "prefix": "/strip" }, "redirect": { "https_redirect": true, "strip_query": true } },
        { "match": { "prefix": "/pre" }, "route": { "cluster": "c", "prefix_rewrite": "/", "host_rewrite_literal": "inner.example" } },
        { "match": { "safe_regex": { "regex": "/n/[0-9]+/.*" } }, "route": { "cluster": "c",
            "regex_rewrite": { "pattern": { "regex": "^/n/([0-9]+)/(.*)$" }, "substitution": "/\\2/\\1" } } },
        { "match": { "prefix": "/edit" }, "route": { "cluster": "c" },
            "request_headers_to_add": [
                { "header": { "key": "x-new", "value": "%REQ(x-old)%!" } },
                { "header": { "key": "x-old", "value": "2" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" } ],
            "request_headers_to_remove": ["x-gone"],
            "response_headers_to_add": [{ "header": { "key": "x-route", "value": "edit" } }],
            "response_headers_to_remove": ["x-drop"] },
        { "match": { "path": "/said" }, "direct_response": { "status": 202, "body": { "inline_string": "said" } } },
    ]);
    let (_proxy, address) = proxied(upstream.address, vec![], routes);
    let moved = ask(address, &get("/old/thing?q=1"));
    assert_eq!(status(&moved), "302");
    assert_eq!(
        header(&moved, "location"),
        Some("http://other.example/new/thing?q=1")
    );
    let secured = ask(address, &get("/strip?q=1"));
    assert_eq!(
        (status(&secured), header(&secured, "location")),
        ("301", Some("https://example/strip"))
    );
    let said = ask(address, &get("/said"));
    assert_eq!((status(&said), body(&said)), ("202", "said"));
    assert_eq!(status(&ask(address, &get("/nowhere"))), "404");
    assert!(upstream.requests().is_empty());

    ask(address, &get("/pre/x?q=1"));
    ask(address, &get("/n/42/books"));
    let edited = ask(
        address,
        "GET /edit HTTP/1.1\r\nhost: h\r\nx-old: 1\r\nx-gone: 1\r\n\r\n",
    );
    let seen = upstream.requests();
    assert!(
        seen[0].starts_with("GET //x?q=1 HTTP/1.1\r\n"),
        "{}",
        seen[0]
    );
    assert_eq!(header(&seen[0], "host"), Some("inner.example"));
    assert_eq!(
        header(&seen[0], "x-envoy-original-path"),
        Some("/pre/x?q=1")
    );
    assert!(
        seen[1].starts_with("GET /books/42 HTTP/1.1\r\n"),
        "{}",
        seen[1]
    );
    assert_eq!(header(&seen[2], "x-new"), Some("1!"));
    assert_eq!(header(&seen[2], "x-old"), Some("2"));
    assert_eq!(header(&seen[2], "x-gone"), None);
    assert_eq!(header(&edited, "x-route"), Some("edit"));
    assert_eq!(header(&edited, "x-drop"), None);
}

#[test]
fn mirrors_get_copies_and_the_client_waits_for_none() {
    let upstream = Upstream::new(&[OK]);
    let copies = Upstream::new(&["HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nno!"]);
    let plain = Upstream::new(&["!silent"]);
    let address = free_address();
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "c", "request_mirror_policies": [
        { "cluster": "copies" },
        { "cluster": "plain", "disable_shadow_host_suffix_append": true },
        { "cluster": "plain", "runtime_fraction": { "default_value": { "numerator": 0 } } },
        { "cluster": "unknown" } ] } }]);
    let clusters = json!([
        static_cluster("c", upstream.address),
        static_cluster("copies", copies.address),
        static_cluster("plain", plain.address),
    ]);
    let mut listener = http(address, vec![], routes, Value::Null);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["validate_clusters"] = json!(false);
    let _proxy = Proxy::start(json!([listener]), clusters, None);
    wait_for(address);
    let begun = Instant::now();
    // One connection, so one worker and its pools.
    let mut client = connect(address);
    let mut asked = |request: &str| {
        client.write_all(request.as_bytes()).unwrap();
        read_message(&mut client).unwrap()
    };
    let first = asked("GET /a HTTP/1.1\r\nhost: shop:80\r\n\r\n");
    assert_eq!((status(&first), body(&first)), ("200", "ok"));
    let post = "POST /b HTTP/1.1\r\nhost: shop\r\ncontent-length: 5\r\n\r\nhello";
    eventually("the first copy", || copies.requests().len() == 1);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(status(&asked(post)), "200");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "the silent mirror is not waited for"
    );
    eventually("both copies", || {
        copies.requests().len() == 2 && plain.requests().len() == 2
    });
    let seen = copies.requests();
    assert_eq!(header(&seen[0], "host"), Some("shop-shadow:80"));
    assert!(seen[0].starts_with("GET /a "), "{}", seen[0]);
    assert_eq!(header(&seen[1], "host"), Some("shop-shadow"));
    assert_eq!(body(&seen[1]), "hello");
    assert_eq!(header(&plain.requests()[0], "host"), Some("shop:80"));
    assert_eq!(
        *copies.connections.lock().unwrap(),
        1,
        "its connection is kept"
    );
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn underscores_and_the_age_of_connections() {
    let upstream = Upstream::new(&[OK]);
    let (rejecting, dropping, aging) = (free_address(), free_address(), free_address());
    let common = |key: &str, value: &str| json!({ "common_http_protocol_options": { key: value } });
    let action = "headers_with_underscores_action";
    let listeners = json!([
        http(
            rejecting,
            vec![],
            everything(),
            common(action, "REJECT_REQUEST")
        ),
        http(
            dropping,
            vec![],
            everything(),
            common(action, "DROP_HEADER")
        ),
        http(
            aging,
            vec![],
            everything(),
            common("max_connection_duration", "0.3s")
        ),
    ]);
    let _proxy = Proxy::start(
        listeners,
        json!([static_cluster("c", upstream.address)]),
        None,
    );
    wait_for(aging);
    let request = "GET / HTTP/1.1\r\nhost: h\r\nx_a: 1\r\nx-b: 2\r\n\r\n";
    assert_eq!(status(&ask(rejecting, request)), "400");
    assert_eq!(status(&ask(rejecting, &get("/"))), "200");
    assert_eq!(status(&ask(dropping, request)), "200");
    let seen = upstream.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        (header(&seen[1], "x_a"), header(&seen[1], "x-b")),
        (None, Some("2"))
    );
    let mut client = connect(aging);
    client.write_all(get("/").as_bytes()).unwrap();
    let young = read_message(&mut client).unwrap();
    assert_eq!(header(&young, "connection"), None);
    let begun = Instant::now();
    assert_eq!(
        client.read(&mut [0; 10]).unwrap(),
        0,
        "an old idle connection ends"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let mut listener = http(
        address,
        vec![],
        everything(),
        json!({ "use_remote_address": true }),
    );
    let message = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    listener["listener_filters"] = json!([filter("pp", message, json!({}))]);
    let clusters = json!([static_cluster("c", upstream.address)]);
    let _proxy = Proxy::start(json!([listener]), clusters, None);
    wait_for(address);
    let text = format!("PROXY TCP4 192.0.2.7 198.51.100.1 4000 80\r\n{}", get("/"));
    assert_eq!(status(&ask(address, &text)), "200");
    let mut binary =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc6\x33\x64\x01\x0f\xa0\0\x50".to_vec();
    binary.extend_from_slice(get("/").as_bytes());
    let mut client = connect(address);
    client.write_all(&binary).unwrap();
    assert_eq!(status(&read_message(&mut client).unwrap()), "200");
    let seen = upstream.requests();
    assert_eq!(header(&seen[0], "x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(header(&seen[1], "x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(
        ask(address, &get("/")),
        "",
        "without the header nothing is served"
    );
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn the_agents_ports() {
    let upstream = Upstream::new(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\napp_up 1\n"]);
    let (options, [agent, health, metrics]) = agent(upstream.address.port());
    let through = free_address();
    let routes =
        json!([{ "match": { "path": "/healthz/ready" }, "route": { "cluster": "agent" } }]);
    let listener = http(through, vec![], routes, Value::Null);
    let clusters = json!([static_cluster("agent", agent)]);
    let mut proxy = Proxy::start(json!([listener]), clusters, Some(options));
    wait_for(through);
    eventually("ready", || {
        status(&ask(health, &get("/healthz/ready"))) == "200"
    });
    assert_eq!(status(&ask(health, &get("/stats/prometheus"))), "404");
    assert_eq!(status(&ask(metrics, &get("/healthz/ready"))), "404");
    assert_eq!(status(&ask(agent, &get("/app-health/a/readyz"))), "200");
    assert_eq!(status(&ask(agent, &get("/app-health/b/readyz"))), "404");
    let hook = ask(agent, &get("/app-lifecycle/a/poststartz"));
    assert_eq!(status(&hook), "200", "{hook}");
    let last = upstream.requests().pop().unwrap();
    assert!(last.starts_with("GET /started HTTP/1.1\r\n"), "{last}");
    assert_eq!(status(&ask(agent, &get("/quitquitquit"))), "405");
    let page = ask_all(
        metrics,
        b"GET /stats/prometheus HTTP/1.1\r\nhost: h\r\n\r\n",
    );
    assert!(page.contains("envoy_server_live"), "{page}");
    assert!(!page.contains("app_up"), "{page}");
    let merged = ask_all(agent, b"GET /stats/prometheus HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(
        merged.contains("envoy_server_live") && merged.contains("app_up 1"),
        "{merged}"
    );
    for _ in 0..5 {
        let answer = ask(through, &get("/healthz/ready"));
        assert_eq!(status(&answer), "200", "{answer}");
    }
    let stats = ask_all(
        metrics,
        b"GET /stats/prometheus HTTP/1.1\r\nhost: h\r\n\r\n",
    );
    let opened = "envoy_cluster_upstream_cx_total{envoy_cluster_name=\"agent\"} 5\n";
    assert!(
        stats.contains(opened),
        "a probe never meets a kept connection: {stats}"
    );
    assert_eq!(
        status(&ask(
            agent,
            "POST /quitquitquit HTTP/1.1\r\nhost: h\r\n\r\n"
        )),
        "200"
    );
    let thread = proxy.thread.take().unwrap();
    thread.join().unwrap();
}

/// An address of this machine that is not loopback; a connect of a datagram
/// socket finds it without sending anything.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn nobody_outside_the_pod_ends_its_proxy() {
    let upstream = Upstream::new(&[OK]);
    let (mut options, _) = agent(upstream.address.port());
    let port = free_address().port();
    options.status = Some(SocketAddr::from(([0, 0, 0, 0], port)));
    let mut proxy = Proxy::start(json!([]), json!([]), Some(options));
    let inside = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(inside);
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: h\r\n\r\n");
    if let Some(ip) = outer_address() {
        let outside = SocketAddr::new(ip, port);
        for path in ["/quitquitquit", "/drain"] {
            let answer = ask(outside, &post(path));
            assert_eq!(status(&answer), "403", "{path}: {answer}");
            assert_eq!(body(&answer), "Only requests from localhost are allowed\n");
        }
        // The port answers before the first configuration is in place.
        eventually("still serving", || {
            status(&ask(outside, &get("/healthz/ready"))) == "200"
        });
    }
    assert_eq!(status(&ask(inside, &post("/quitquitquit"))), "200");
    proxy.thread.take().unwrap().join().unwrap();
}

#[test]
fn a_static_listener_without_its_port_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listener = http(address, vec![], everything(), Value::Null);
    let clusters = json!([static_cluster("c", free_address())]);
    let refused = try_serve(json!([listener]), clusters).unwrap_err();
    assert!(
        refused.ends_with(&format!(
            "cannot bind '{address}': Address already in use (os error 98)"
        )),
        "{refused}"
    );
}

/// Answers every request after a while.
fn slow(wait: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                while read_message(&mut stream).is_some() {
                    std::thread::sleep(wait);
                    if stream.write_all(OK.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_stop_loses_no_request_in_flight() {
    let (mut proxy, address) = proxied(slow(Duration::from_millis(600)), vec![], everything());
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = connect(address);
            client.write_all(get("/").as_bytes()).unwrap();
            client
        })
        .collect();
    let mut idle = connect(address);
    std::thread::sleep(Duration::from_millis(150));
    let begun = Instant::now();
    let answers = std::thread::spawn(move || {
        let read = |mut client| read_message(&mut client).unwrap_or_default();
        clients.into_iter().map(read).collect::<Vec<_>>()
    });
    proxy.end();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the end does not wait for its limit"
    );
    let answers = answers.join().unwrap();
    assert_eq!(answers.len(), 20);
    for answer in answers {
        assert_eq!((status(&answer), body(&answer)), ("200", "ok"));
        assert_eq!(header(&answer, "connection"), Some("close"), "{answer}");
    }
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0, "ended, not reset");
    assert!(std::net::TcpStream::connect(address).is_err());
}
