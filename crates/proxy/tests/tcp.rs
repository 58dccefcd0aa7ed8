//! Raw TCP through the engine: both directions, half-close, large transfers
//! (spliced), logs; inspectors and chain choice.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::access_log::Template;
use lateen_proxy_core::config::cluster::OriginalDst;
use lateen_proxy_core::config::filter_chain::FilterChainMatch;
use lateen_proxy_core::config::listener::{ListenerFilter, ListenerFilterKind};
use lateen_proxy_core::config::network_filter::{TcpClusters, TcpWeightedCluster, Tunneling};
use lateen_proxy_core::config::*;
use support::*;

fn tcp_proxy(clusters: TcpClusters, log: Option<&std::path::Path>) -> NetworkFilter {
    NetworkFilter::TcpProxy(Arc::new(TcpProxy {
        tunneling: None,
        stat_prefix: "t".into(),
        clusters,
        idle_timeout: Some(Duration::from_secs(3600)),
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        access_logs: log
            .map(|path| {
                let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER%\n";
                text_log(path, format)
            })
            .into_iter()
            .collect(),
        access_log_flush_interval: None,
        hash_policy: vec![],
        metadata_match: Metadata::default(),
    }))
}

/// Answers every connection with what it sent, in upper case, after its end.
fn shouter() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                bytes.make_ascii_uppercase();
                stream.write_all(&bytes).unwrap();
            });
        }
    });
    address
}

fn shout(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = connect(address);
    let mut writer = client.try_clone().unwrap();
    let sent = bytes.to_vec();
    let thread = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    thread.join().unwrap();
    back
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let address = free_address();
    let filter = tcp_proxy(TcpClusters::Single("c".into()), Some(&path));
    let listener = listener("l", address, vec![chain(vec![filter])]);
    let running = run(&snapshot(vec![listener], vec![cluster("c", &[shouter()])]));
    assert_eq!(shout(address, b"hello"), b"HELLO");
    // Past the copy's limit, where the kernel moves the bytes.
    let large: Vec<u8> = (0..8 << 20).map(|i| b'a' + (i % 23) as u8).collect();
    let back = shout(address, &large);
    assert!(back == large.to_ascii_uppercase(), "{} bytes", back.len());
    std::thread::sleep(Duration::from_millis(50));
    running
        .runtime
        .block_on(running.engine.handle().flush_logs(false));
    let log = std::fs::read_to_string(&path).unwrap();
    let want = format!("0 - 5 5 c\n0 - {0} {0} c\n", large.len());
    assert_eq!(log, want);
}

#[test]
fn refused_and_unknown_upstreams() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (one, two) = (free_address(), free_address());
    let to = |name: &str| {
        vec![chain(vec![tcp_proxy(
            TcpClusters::Single(name.into()),
            Some(&path),
        )])]
    };
    let running = run(&snapshot(
        vec![
            listener("one", one, to("gone")),
            listener("two", two, to("unknown")),
        ],
        vec![cluster("gone", &[free_address()])],
    ));
    for address in [one, two] {
        let mut client = connect(address);
        let mut bytes = Vec::new();
        let read = client.read_to_end(&mut bytes);
        assert_eq!(read.unwrap(), 0, "the connection ends in order");
        std::thread::sleep(Duration::from_millis(30));
    }
    running
        .runtime
        .block_on(running.engine.handle().flush_logs(false));
    let log = std::fs::read_to_string(&path).unwrap();
    assert_eq!(log, "0 UF,URX 0 0 gone\n0 NC 0 0 -\n");
}

#[test]
fn a_cluster_without_hosts_counts_what_it_could_not_take() {
    use lateen_proxy::engine::EngineOptions;
    use lateen_proxy_core::stats::{MetricValue, Registry};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let address = free_address();
    let filter = tcp_proxy(TcpClusters::Single("empty".into()), Some(&path));
    let options = EngineOptions {
        stats: Registry::new(),
        ..EngineOptions::default()
    };
    let registry = options.stats.clone();
    let listener = listener("l", address, vec![chain(vec![filter])]);
    let running = run_with(
        options,
        &snapshot(vec![listener], vec![cluster("empty", &[])]),
    );
    for _ in 0..2 {
        let ended = connect(address).read_to_end(&mut Vec::new());
        assert_eq!(ended.unwrap(), 0);
        std::thread::sleep(Duration::from_millis(30));
    }
    let handle = running.engine.handle();
    running.runtime.block_on(handle.flush_logs(false));
    let log = std::fs::read_to_string(&path).unwrap();
    assert_eq!(log, "0 UH 0 0 empty\n".repeat(2));
    let all = registry.collect();
    let name = "cluster.empty.upstream_cx_none_healthy";
    let found = all.iter().find(|m| &*m.name.flat == name).unwrap();
    assert_eq!(found.value, MetricValue::Counter(2));
}

#[test]
fn what_was_not_redirected_has_no_original_destination() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let address = free_address();
    let filter = tcp_proxy(TcpClusters::Single("passing".into()), Some(&path));
    let listener = listener("l", address, vec![chain(vec![filter])]);
    let mut passing = cluster("passing", &[]);
    passing.discovery = ClusterDiscovery::OriginalDst(Arc::new(OriginalDst {
        use_http_header: false,
        http_header_name: "x-envoy-original-dst-host".into(),
        upstream_port_override: None,
    }));
    let running = run(&snapshot(vec![listener], vec![passing]));
    let ended = connect(address).read_to_end(&mut Vec::new());
    assert_eq!(ended.unwrap(), 0);
    std::thread::sleep(Duration::from_millis(50));
    let handle = running.engine.handle();
    running.runtime.block_on(handle.flush_logs(false));
    // Not a line more: it did not connect to itself.
    let log = std::fs::read_to_string(&path).unwrap();
    assert_eq!(log, "0 UH 0 0 passing\n");
}

#[test]
fn weights_share_connections() {
    let share = |name: &str, weight| TcpWeightedCluster {
        name: name.into(),
        weight,
        metadata_match: Metadata::default(),
    };
    let address = free_address();
    let filter = tcp_proxy(
        TcpClusters::Weighted(vec![share("a", 1), share("b", 3)]),
        None,
    );
    let a = Upstream::new(&["!closeA"]);
    let b = Upstream::new(&["!closeB"]);
    let _running = run(&snapshot(
        vec![listener("l", address, vec![chain(vec![filter])])],
        vec![cluster("a", &[a.address]), cluster("b", &[b.address])],
    ));
    let answers: String = (0..200)
        .map(|_| ask_all(address, get("/").as_bytes()))
        .collect();
    let count = answers.matches('A').count();
    assert!((20..85).contains(&count), "{count} of 200 at a quarter");
}

#[test]
fn inspectors_choose_between_chains() {
    let named = |name: &str, matching: FilterChainMatch| {
        let bytes: Arc<[u8]> = name.as_bytes().into();
        let mut chain = (*chain(vec![NetworkFilter::DirectResponse(bytes)])).clone();
        chain.matching = matching;
        Arc::new(chain)
    };
    let address = free_address();
    let chains = vec![
        named(
            "tls-a",
            FilterChainMatch {
                transport_protocol: "tls".into(),
                server_names: vec!["a.example".into()],
                ..FilterChainMatch::default()
            },
        ),
        named(
            "http",
            FilterChainMatch {
                transport_protocol: "raw_buffer".into(),
                application_protocols: vec!["http/1.1".into(), "h2c".into()],
                ..FilterChainMatch::default()
            },
        ),
        named(
            "raw",
            FilterChainMatch {
                transport_protocol: "raw_buffer".into(),
                ..FilterChainMatch::default()
            },
        ),
    ];
    let mut listener = listener("l", address, chains);
    let inspector = |kind| ListenerFilter {
        kind,
        disabled: None,
    };
    listener.listener_filters = vec![
        inspector(ListenerFilterKind::TlsInspector {
            initial_read_buffer_size: None,
            ja3: false,
            ja4: false,
        }),
        inspector(ListenerFilterKind::HttpInspector),
    ];
    let _running = run(&snapshot(vec![listener], vec![]));
    let answer = |bytes: &[u8]| {
        let mut client = connect(address);
        client.write_all(bytes).unwrap();
        let mut got = [0; 16];
        let count = client.read(&mut got).unwrap_or(0);
        String::from_utf8_lossy(&got[..count]).into_owned()
    };
    assert_eq!(answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "http");
    assert_eq!(answer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "http");
    assert_eq!(answer(b"\x00\x01binary"), "raw");
    assert_eq!(answer(&hello("a.example")), "tls-a");
    assert_eq!(answer(&hello("b.example")), "", "no chain for that name");
}

fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Reads byte by byte until the text ends so.
fn read_until(stream: &mut impl Read, seen: &mut String, end: &str) {
    let mut byte = [0_u8; 1];
    while !seen.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        seen.push(char::from(byte[0]));
    }
}

/// Consents to one tunnel by POST and answers what comes in it; gives what it read.
fn poster() -> (SocketAddr, std::thread::JoinHandle<String>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        let mut seen = String::new();
        for (end, answer) in [
            (
                "\r\n\r\n",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            ("ping\r\n", "4\r\npong\r\n"),
            ("0\r\n\r\n", "4\r\nover\r\n0\r\n\r\n"),
        ] {
            read_until(&mut stream, &mut seen, end);
            stream.write_all(answer.as_bytes()).unwrap();
        }
        seen
    });
    (address, thread)
}

#[test]
fn a_tunnel_by_post_is_chunks_both_ways() {
    let (upstream, poster) = poster();
    let NetworkFilter::TcpProxy(plain) = tcp_proxy(TcpClusters::Single("c".into()), None) else {
        unreachable!("that is what it makes");
    };
    let filter = NetworkFilter::TcpProxy(Arc::new(TcpProxy {
        tunneling: Some(Arc::new(Tunneling {
            host: Template::parse("db.example:5432").unwrap(),
            post_path: Some("/tunnel".into()),
            headers: vec![],
        })),
        ..(*plain).clone()
    }));
    let address = free_address();
    let listener = listener("l", address, vec![chain(vec![filter])]);
    let _running = run(&snapshot(vec![listener], vec![cluster("c", &[upstream])]));
    let mut client = connect(address);
    client.write_all(b"ping").unwrap();
    let mut got = String::new();
    read_until(&mut client, &mut got, "pong");
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "pongover");
    assert_eq!(
        poster.join().unwrap(),
        "POST /tunnel HTTP/1.1\r\nhost: db.example:5432\r\ntransfer-encoding: chunked\r\n\r\n\
         4\r\nping\r\n0\r\n\r\n"
    );
}
