//! What changes while traffic flows: listeners and clusters come and go, the
//! process drains; no request is lost.

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lateen_proxy::engine::EngineOptions;
use lateen_proxy_core::config::route::*;
use lateen_proxy_core::config::*;
use lateen_proxy_core::drain::Strategy;
use support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn http_listener(name: &str, address: std::net::SocketAddr, cluster: &str) -> Listener {
    let manager = manager(vec![route(
        "/",
        RouteAction::Forward(Arc::new(forward(cluster))),
    )]);
    let filter = NetworkFilter::HttpConnectionManager(Arc::new(manager));
    listener(name, address, vec![chain(vec![filter])])
}

#[test]
fn listeners_come_change_and_go() {
    let (one, two) = (
        Upstream::new(&[OK]),
        Upstream::new(&["HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n"]),
    );
    let (first, second) = (free_address(), free_address());
    let clusters = || {
        vec![
            cluster("one", &[one.address]),
            cluster("two", &[two.address]),
        ]
    };
    let mut running = run(&snapshot(
        vec![http_listener("l", first, "one")],
        clusters(),
    ));
    let mut kept = connect(first);
    let status = |stream: &mut std::net::TcpStream| {
        stream.write_all(get("/").as_bytes()).unwrap();
        let answer = read_message(stream).unwrap();
        (
            answer[9..12].to_owned(),
            header(&answer, "connection").map(str::to_owned),
        )
    };
    assert_eq!(status(&mut kept), ("200".into(), None));

    let next = snapshot(
        vec![
            http_listener("l", first, "two"),
            http_listener("m", second, "one"),
        ],
        clusters(),
    );
    assert!(
        running
            .runtime
            .block_on(running.engine.apply(&next))
            .is_empty()
    );
    // The old connection is served by its chain and told to go.
    assert_eq!(status(&mut kept), ("200".into(), Some("close".into())));
    assert_eq!(status(&mut connect(first)).0, "201");
    assert_eq!(status(&mut connect(second)).0, "200");

    let last = snapshot(vec![http_listener("m", second, "one")], clusters());
    assert!(
        running
            .runtime
            .block_on(running.engine.apply(&last))
            .is_empty()
    );
    std::thread::sleep(Duration::from_millis(50));
    assert!(
        std::net::TcpStream::connect(first).is_err(),
        "the port is closed"
    );
    assert_eq!(status(&mut connect(second)).0, "200");
}

#[test]
fn an_unchanged_listener_keeps_its_connections() {
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let listener = Arc::new(http_listener("l", address, "c"));
    let with = |clusters: Vec<Cluster>| {
        let base = snapshot(vec![], clusters);
        Arc::new(Snapshot {
            listeners: Arc::new([("l".into(), listener.clone())].into_iter().collect()),
            ..(*base).clone()
        })
    };
    let mut running = run(&with(vec![cluster("c", &[upstream.address])]));
    let mut client = connect(address);
    for _ in 0..3 {
        client.write_all(get("/").as_bytes()).unwrap();
        let answer = read_message(&mut client).unwrap();
        assert_eq!(header(&answer, "connection"), None);
        let next = with(vec![cluster("c", &[upstream.address]), cluster("d", &[])]);
        running.runtime.block_on(running.engine.apply(&next));
    }
}

#[test]
fn a_busy_port_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut running = run(&snapshot(vec![], vec![]));
    let next = snapshot(vec![http_listener("l", address, "c")], vec![]);
    let errors = running.runtime.block_on(running.engine.apply(&next));
    assert_eq!(errors.len(), 1);
    let text = errors[0].to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("in use"),
        "{text}"
    );
}

#[test]
fn draining_loses_no_request() {
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let running = run_with(
        EngineOptions {
            concurrency: 2,
            ..EngineOptions::default()
        },
        &snapshot(
            vec![http_listener("l", address, "c")],
            vec![cluster("c", &[upstream.address])],
        ),
    );
    let (stop, good, bad) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicU32::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, good, bad) = (stop.clone(), good.clone(), bad.clone());
            std::thread::spawn(move || {
                let mut stream = None;
                while !stop.load(Ordering::Relaxed) {
                    // A refused connection is not a lost request.
                    let Ok(fresh) = stream
                        .take()
                        .map_or_else(|| std::net::TcpStream::connect(address), Ok)
                    else {
                        return;
                    };
                    let mut connection = fresh;
                    connection
                        .set_read_timeout(Some(Duration::from_secs(5)))
                        .unwrap();
                    let sent = connection.write_all(get("/").as_bytes());
                    let answer = sent.ok().and_then(|()| read_message(&mut connection));
                    match answer {
                        Some(answer) if answer.starts_with("HTTP/1.1 200") => {
                            good.fetch_add(1, Ordering::Relaxed);
                            if header(&answer, "connection") != Some("close") {
                                stream = Some(connection);
                            }
                        }
                        other => {
                            eprintln!("lost: {other:?}");
                            bad.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let handle = running.engine.handle();
    handle.drain(false, false);
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert!(
        running
            .runtime
            .block_on(handle.close(Duration::from_secs(5))),
        "nothing is left open"
    );
    assert!(good.load(Ordering::Relaxed) > 100);
    assert_eq!(bad.load(Ordering::Relaxed), 0);
}

/// What became of connections for one request each that clients open one after another, from many
/// threads, until no more is accepted: how many were answered, and how the others ended.
fn fresh_connections(address: std::net::SocketAddr) -> std::thread::JoinHandle<(u32, Vec<String>)> {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let client = move || {
        let (mut answered, mut lost) = (0, Vec::new());
        // Who is not connected yet may be refused.
        while let Ok(mut stream) = std::net::TcpStream::connect(address) {
            let wait = Some(Duration::from_secs(5));
            stream.set_read_timeout(wait).unwrap();
            let sent = stream.write_all(request.as_bytes());
            let mut answer = String::new();
            match sent.and_then(|()| stream.read_to_string(&mut answer)) {
                Ok(_) if answer.starts_with("HTTP/1.1 200 ") => answered += 1,
                other => lost.push(format!("{other:?} {answer:?}")),
            }
        }
        (answered, lost)
    };
    std::thread::spawn(move || {
        let clients: Vec<_> = (0..16).map(|_| std::thread::spawn(client)).collect();
        let mut sum = (0, Vec::new());
        for client in clients {
            let (answered, lost) = client.join().unwrap();
            sum.0 += answered;
            sum.1.extend(lost);
        }
        sum
    })
}

#[test]
fn who_waits_in_the_accept_queue_is_served_when_its_socket_closes() {
    type End = fn(&mut Running, std::net::SocketAddr);
    let ends: [(&str, End); 3] = [
        ("drained", |running, _| {
            running.engine.handle().drain(true, false)
        }),
        ("closed", |running, _| {
            let handle = running.engine.handle();
            let closed = handle.close(Duration::from_secs(10));
            assert!(running.runtime.block_on(closed), "nothing is left open");
        }),
        ("removed", |running, upstream| {
            let nothing = snapshot(vec![], vec![cluster("c", &[upstream])]);
            let errors = running.engine.apply(&nothing);
            assert!(running.runtime.block_on(errors).is_empty());
        }),
    ];
    for (what, end) in ends {
        let upstream = Upstream::new(&[OK]);
        let address = free_address();
        let options = EngineOptions {
            concurrency: 2,
            ..EngineOptions::default()
        };
        let listeners = vec![http_listener("l", address, "c")];
        let clusters = vec![cluster("c", &[upstream.address])];
        let mut running = run_with(options, &snapshot(listeners, clusters));
        let clients = fresh_connections(address);
        std::thread::sleep(Duration::from_millis(200));
        end(&mut running, upstream.address);
        let (answered, lost) = clients.join().unwrap();
        assert!(answered > 16, "{what}: {answered}");
        assert!(
            lost.is_empty(),
            "{what}: {answered} answered, lost {lost:?}"
        );
    }
}

/// Whether the next answer on a kept connection asks its client to go.
fn asked_to_go(client: &mut std::net::TcpStream) -> bool {
    client.write_all(get("/").as_bytes()).unwrap();
    let answer = read_message(client).unwrap();
    header(&answer, "connection") == Some("close")
}

/// A proxy with one listener that drains so long, gradually; a listener of the second kind drains
/// only when it is changed.
fn draining_gradually(time: Duration) -> (Running, Upstream, [std::net::SocketAddr; 2]) {
    let upstream = Upstream::new(&[OK]);
    let (address, modified) = (free_address(), free_address());
    let options = EngineOptions {
        drain_time: time,
        drain_strategy: Strategy::Gradual,
        ..EngineOptions::default()
    };
    let mut only = http_listener("m", modified, "c");
    only.drains_when_modified_only = true;
    let listeners = vec![http_listener("l", address, "c"), only];
    let clusters = vec![cluster("c", &[upstream.address])];
    let running = run_with(options, &snapshot(listeners, clusters));
    (running, upstream, [address, modified])
}

#[test]
fn a_gradual_drain_asks_nobody_at_first() {
    // So long that the chance stays far below one in a million.
    let (running, _upstream, [address, _]) = draining_gradually(Duration::from_secs(1 << 33));
    let handle = running.engine.handle();
    let mut client = connect(address);
    assert!(!asked_to_go(&mut client));
    handle.drain(false, false);
    running.runtime.block_on(handle.flush_logs(false));
    assert!((0..5).all(|_| !asked_to_go(&mut client)));
    assert!(!asked_to_go(&mut connect(address)), "new ones are served");
    // The end of the process is no drain: everybody goes.
    handle.leave();
    running.runtime.block_on(handle.flush_logs(false));
    assert!(asked_to_go(&mut client));
}

#[test]
fn a_gradual_drain_asks_everybody_in_the_end() {
    let (running, _upstream, [address, modified]) = draining_gradually(Duration::from_millis(1));
    let handle = running.engine.handle();
    let mut clients = [connect(address), connect(modified)];
    assert!(clients.iter_mut().all(|client| !asked_to_go(client)));
    handle.drain(false, false);
    running.runtime.block_on(handle.flush_logs(false));
    std::thread::sleep(Duration::from_millis(20));
    assert!(clients.iter_mut().all(asked_to_go));
}

#[test]
fn a_listener_that_drains_when_modified_keeps_its_clients_as_health_fails() {
    let (running, _upstream, [address, modified]) = draining_gradually(Duration::from_secs(600));
    let handle = running.engine.handle();
    handle.fail_health_check(true);
    running.runtime.block_on(handle.flush_logs(false));
    assert!(asked_to_go(&mut connect(address)));
    assert!(!asked_to_go(&mut connect(modified)));
}

#[test]
fn a_close_waits_for_requests_in_flight_and_ends_idle_connections() {
    let upstream = Upstream::new(&["!silent"]);
    let address = free_address();
    let mut slow = forward("c");
    slow.timeout = Some(Duration::from_millis(500));
    let filter = NetworkFilter::HttpConnectionManager(Arc::new(manager(vec![route(
        "/",
        RouteAction::Forward(Arc::new(slow)),
    )])));
    let running = run(&snapshot(
        vec![listener("l", address, vec![chain(vec![filter])])],
        vec![cluster("c", &[upstream.address])],
    ));
    let mut idle = connect(address);
    let mut busy = connect(address);
    busy.write_all(get("/").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let handle = running.engine.handle();
    assert!(
        running
            .runtime
            .block_on(handle.close(Duration::from_secs(5)))
    );
    let answer = read_message(&mut busy).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert_eq!(header(&answer, "connection"), Some("close"));
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0, "ended, not reset");
}

#[test]
fn a_failing_health_check_sends_clients_elsewhere() {
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let listener = http_listener("l", address, "c");
    let clusters = vec![cluster("c", &[upstream.address])];
    let running = run(&snapshot(vec![listener], clusters));
    let mut client = connect(address);
    let asked = |client: &mut std::net::TcpStream| {
        client.write_all(get("/").as_bytes()).unwrap();
        let answer = read_message(client).unwrap();
        header(&answer, "connection").map(str::to_owned)
    };
    assert_eq!(asked(&mut client), None);
    let handle = running.engine.handle();
    handle.fail_health_check(true);
    // The order and this one are taken in turn.
    running.runtime.block_on(handle.flush_logs(false));
    assert_eq!(asked(&mut client).as_deref(), Some("close"));
    handle.fail_health_check(false);
    running.runtime.block_on(handle.flush_logs(false));
    assert_eq!(asked(&mut connect(address)), None);
}

#[test]
fn only_answers_of_a_cluster_are_counted_as_its_answers() {
    use lateen_proxy_core::stats::{MetricValue, Registry};
    let upstream = Upstream::new(&[OK]);
    let address = free_address();
    let clusters = vec![cluster("c", &[upstream.address])];
    let options = EngineOptions {
        stats: Registry::new(),
        ..EngineOptions::default()
    };
    let registry = options.stats.clone();
    let listener = http_listener("l", address, "c");
    let _running = run_with(options, &snapshot(vec![listener], clusters));
    ask(address, &get("/"));
    // A client that leaves in the middle, and one that is malformed there.
    let half = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf";
    drop({
        let mut client = connect(address);
        client.write_all(half.as_bytes()).unwrap();
        client
    });
    let wrong = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nwrong\r\n";
    assert!(ask(address, wrong).starts_with("HTTP/1.1 400 "));
    let counter = |name: &str| {
        let all = registry.collect();
        let found = all.iter().find(|m| &*m.name.flat == name)?;
        match found.value {
            MetricValue::Counter(n) => Some(n),
            _ => None,
        }
    };
    for _ in 0..100 {
        if counter("http.t.downstream_rq_rx_reset") == Some(2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for (name, want) in [
        // Of requests that wait for a connection.
        ("cluster.c.upstream_rq_cancelled", Some(0)),
        ("http.t.downstream_rq_rx_reset", Some(2)),
        ("http.t.downstream_rq_completed", Some(2)),
        ("cluster.c.upstream_rq_completed", Some(1)),
        ("cluster.c.upstream_rq_200", Some(1)),
        ("cluster.c.upstream_rq_400", None),
        ("cluster.c.upstream_rq_0", None),
        ("cluster.c.upstream_rq_total", Some(3)),
        ("cluster.c.upstream_rq_timeout", Some(0)),
        ("http.t.rq_total", Some(3)),
        ("http.t.downstream_cx_http1_total", Some(3)),
    ] {
        assert_eq!(counter(name), want, "{name}");
    }
}

#[test]
fn port_0_is_one_port_for_all_workers_and_stays() {
    let (one, two) = (
        Upstream::new(&[OK]),
        Upstream::new(&["HTTP/1.1 201 x\r\nContent-Length: 0\r\n\r\n"]),
    );
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    let with = |of_first: &str| {
        let mut first = http_listener("first", any, of_first);
        first.additional_addresses = vec![Address::Socket(any)];
        snapshot(
            vec![first, http_listener("second", any, "two")],
            vec![
                cluster("one", &[one.address]),
                cluster("two", &[two.address]),
            ],
        )
    };
    let options = EngineOptions {
        concurrency: 3,
        ..EngineOptions::default()
    };
    let mut running = run_with(options, &with("one"));
    let bound = |running: &Running| -> std::collections::BTreeMap<_, _> {
        let all = running.engine.bound();
        all.map(|(address, listener)| (address, listener.name.clone()))
            .collect()
    };
    let before = bound(&running);
    let of = |name: &str| before.values().filter(|n| &***n == name).count();
    assert_eq!((of("first"), of("second")), (2, 1), "{before:?}");
    assert!(!before.contains_key(&any), "{before:?}");
    // Each connection may be another worker's.
    let serve = |of_first: &str| {
        for (address, name) in &before {
            let wanted = if &**name == "first" { of_first } else { "201" };
            for _ in 0..12 {
                let mut client = connect(*address);
                client.write_all(get("/").as_bytes()).unwrap();
                assert_eq!(&read_message(&mut client).unwrap()[9..12], wanted);
            }
        }
    };
    serve("200");
    running.runtime.block_on(running.engine.apply(&with("two")));
    assert_eq!(bound(&running), before);
    serve("201");
}

/// The count of a statistic of the access logs.
fn of_logs(handle: &lateen_proxy::engine::EngineHandle, stat: &str) -> u64 {
    use lateen_proxy_core::stats::MetricValue;
    let name = format!("filesystem.{stat}");
    let all = handle.log_metrics();
    let found = all.iter().find(|m| *m.name.flat == *name);
    match found.map(|m| &m.value) {
        Some(MetricValue::Counter(n)) => *n,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    const REQUESTS: u64 = 130;
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("log");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    // A reader is there, and does not read. (It opens only beside a writer.)
    let both = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo);
    let mut reader = std::fs::File::open(&fifo).unwrap();
    drop(both);
    let upstream = Upstream::new(&[OK]);
    let mut manager = manager(vec![route(
        "/",
        RouteAction::Forward(Arc::new(forward("c"))),
    )]);
    manager.access_logs = vec![text_log(&fifo, "%REQ(:PATH)%\n")];
    let (running, address) = http_proxy(manager, vec![cluster("c", &[upstream.address])]);
    let handle = running.engine.handle();
    let long = "a".repeat(45_000);
    let mut client = connect(address);
    let mut request = |what: &str| {
        client.write_all(get(what).as_bytes()).unwrap();
        let answer = read_message(&mut client).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    for n in 0..REQUESTS {
        request(&format!("/{n}/{long}"));
    }
    // More than may wait: the newest are lost, and that is told. The order ends all the same.
    running.runtime.block_on(handle.flush_logs(true));
    let dropped = of_logs(&handle, "write_dropped");
    assert!((1..REQUESTS / 2).contains(&dropped), "{dropped}");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while of_logs(&handle, "write_completed") == 0 {
        assert!(std::time::Instant::now() < until, "nothing is written");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.runtime.block_on(handle.flush_logs(false));
    request("/last");
    running.runtime.block_on(handle.flush_logs(false));
    assert_eq!(of_logs(&handle, "write_dropped"), dropped);
    assert_eq!(of_logs(&handle, "write_buffered"), REQUESTS + 1 - dropped);
    drop((handle, running));
    let text = reading.join().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len() as u64, REQUESTS + 1 - dropped);
    assert_eq!(*lines.last().unwrap(), "/last");
    for (n, line) in lines[..lines.len() - 1].iter().enumerate() {
        assert!(*line == format!("/{n}/{long}"), "{n}: {:.20}", line);
    }
}
