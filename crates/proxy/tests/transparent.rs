//! TPROXY with real rules, in two network namespaces: the application sees the
//! client's address, over connections that no other client shares. Needs root,
//! `ip`, `iptables` and `setpriv`; says so loudly where they are missing.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lateen_proxy_core::config::cluster::*;
use lateen_proxy_core::config::listener::{ListenerFilter, ListenerFilterKind};
use lateen_proxy_core::config::network_filter::TcpClusters;
use lateen_proxy_core::config::route::*;
use lateen_proxy_core::config::*;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::gettid;
use support::whole::{status, try_serve};
use support::*;

const INSIDE: &str = "LATEEN_TEST_INSIDE";
const POD: &str = "10.9.0.2";
const CLIENTS: [&str; 2] = ["10.9.0.1", "10.9.0.3"];

fn ran(command: &str) -> bool {
    Command::new("sh")
        .args(["-c", command])
        .status()
        .is_ok_and(|s| s.success())
}

fn able() -> bool {
    let tools = "command -v unshare ip iptables ip6tables setpriv >/dev/null";
    nix::unistd::geteuid().is_root() && ran(tools) && ran("unshare --net true")
}

/// Runs one test of this file again, under a command that changes what it may.
fn again(test: &str, command: &[&str]) {
    if !able() {
        eprintln!("SKIPPED: TPROXY needs root, unshare, setpriv, ip, iptables and ip6tables");
        return;
    }
    let status = Command::new(command[0])
        .args(&command[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

/// The other end of a cable, with two addresses.
struct Outside(File);

impl Outside {
    fn new() -> Self {
        let (send, namespace) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            send.send(gettid()).unwrap();
            let _ = wait.recv();
        });
        let id = namespace.recv().unwrap();
        let file = File::open(format!("/proc/{id}/ns/net")).unwrap();
        let [one, two] = CLIENTS;
        let there = format!("nsenter --net=/proc/{id}/ns/net");
        assert!(ran(&format!(
            "ip link set lo up && ip link add eth0 type veth peer name eth0 netns {id} && \
             ip addr add {POD}/24 dev eth0 && ip -6 addr add fd99::2/64 dev eth0 nodad && \
             ip link set eth0 up && {there} sh -c '\
             ip addr add {one}/24 dev eth0; ip addr add {two}/24 dev eth0; \
             ip -6 addr add fd99::1/64 dev eth0 nodad; ip link set eth0 up'"
        )));
        drop(done);
        holder.join().unwrap();
        Self(file)
    }

    /// Runs something there.
    fn run<T: Send>(&self, there: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                there()
            });
            thread.join().unwrap()
        })
    }

    /// All that a server says to a client of that address who said this.
    fn says(&self, from: &str, to: &str, request: &str) -> String {
        let (from, to): (IpAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        self.run(|| {
            let domain = socket2::Domain::for_address(to);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
            let limit = Duration::from_secs(5);
            socket.connect_timeout(&to.into(), limit).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(limit)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    }
}

/// Istio's rules for TPROXY as far as a server needs them.
fn rules(program: &str, family: &str) {
    let table = format!("{program} -t mangle");
    assert!(ran(&format!(
        "ip {family} rule add fwmark 1337 lookup 133 && \
         ip {family} route add local default dev lo table 133 && \
         {table} -A PREROUTING -i eth0 -p tcp -m conntrack --ctstate ESTABLISHED -j MARK --set-mark 1337 && \
         {table} -A PREROUTING -i eth0 -p tcp -m mark --mark 1337 -j ACCEPT && \
         {table} -A PREROUTING -i eth0 -p tcp -j TPROXY --on-port 15006 --tproxy-mark 1337 && \
         {table} -A PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark && \
         {table} -A OUTPUT -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark"
    )));
}

/// An application that answers with the address of its peer, over HTTP or raw.
/// Returns how many connections it took.
fn application(address: &str, http: bool) -> Arc<AtomicUsize> {
    let socket = TcpListener::bind(address).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let taken = count.clone();
    thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            taken.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                let peer = stream.peer_addr().unwrap().ip().to_string();
                if !http {
                    return stream.write_all(peer.as_bytes()).unwrap();
                }
                let length = peer.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{peer}");
                while read_message(&mut stream).is_some() {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    count
}

fn to_port(port: u16, filter: NetworkFilter) -> Arc<FilterChain> {
    let mut chain = Arc::unwrap_or_clone(chain(vec![filter]));
    chain.matching.destination_port = Some(port);
    Arc::new(chain)
}

fn http_to(cluster: &str) -> NetworkFilter {
    let routes = vec![route("/", RouteAction::Forward(Arc::new(forward(cluster))))];
    NetworkFilter::HttpConnectionManager(Arc::new(manager(routes)))
}

fn tcp_to(cluster: &str) -> NetworkFilter {
    NetworkFilter::TcpProxy(Arc::new(TcpProxy {
        tunneling: None,
        stat_prefix: "t".into(),
        clusters: TcpClusters::Single(cluster.into()),
        idle_timeout: None,
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        access_logs: vec![],
        access_log_flush_interval: None,
        hash_policy: vec![],
        metadata_match: Metadata::default(),
    }))
}

/// A cluster as the control plane writes inbound ones: to where it was going,
/// from the address that marks the proxy's own connections.
fn inbound(name: &str) -> Cluster {
    let mut cluster = cluster(name, &[]);
    cluster.load_assignment = None;
    cluster.lb_policy = LbPolicy::ClusterProvided;
    cluster.discovery = ClusterDiscovery::OriginalDst(Arc::default());
    cluster.bind = Some(Arc::new(BindConfig {
        source_addresses: vec!["127.0.0.6:0".parse().unwrap()],
        freebind: false,
        socket_options: vec![],
    }));
    cluster
}

fn transparent(name: &str, address: &str) -> Listener {
    let chains = vec![
        to_port(8080, http_to("in")),
        to_port(8081, http_to("narrow")),
        to_port(9000, tcp_to("in")),
    ];
    let mut listener = listener(name, address.parse().unwrap(), chains);
    listener.transparent = true;
    let filter = |kind| ListenerFilter {
        kind,
        disabled: None,
    };
    listener.listener_filters = vec![
        filter(ListenerFilterKind::OriginalDst),
        filter(ListenerFilterKind::OriginalSrc { mark: 1337 }),
    ];
    listener
}

#[test]
fn the_application_sees_the_client() {
    if std::env::var_os(INSIDE).is_none() {
        return again("the_application_sees_the_client", &["unshare", "--net"]);
    }
    let outside = Outside::new();
    rules("iptables", "-4");
    rules("ip6tables", "-6");
    let web = application(&format!("{POD}:8080"), true);
    let narrow = application(&format!("{POD}:8081"), true);
    let _raw = application(&format!("{POD}:9000"), false);
    let _raw6 = application("[fd99::2]:9000", false);
    let mut one_connection = inbound("narrow");
    one_connection.circuit_breakers[0].max_connections = 1;
    let running = run(&snapshot(
        vec![
            transparent("virtualInbound", "0.0.0.0:15006"),
            transparent("virtualInbound6", "[::]:15006"),
        ],
        vec![inbound("in"), one_connection],
    ));
    let [one, two] = CLIENTS;
    let raw = format!("{POD}:9000");
    assert_eq!(outside.says(one, &raw, ""), one);
    assert_eq!(outside.says(two, &raw, ""), two);
    assert_eq!(outside.says("fd99::1", "[fd99::2]:9000", ""), "fd99::1");

    // Each request is a connection of its own to the proxy, and what the proxy
    // keeps towards the application serves the same client only.
    let ask = |from: &str, port: u16| {
        let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        body(&outside.says(from, &format!("{POD}:{port}"), request)).to_owned()
    };
    for (from, connections) in [(one, 1), (one, 1), (two, 2), (one, 2), (two, 2)] {
        assert_eq!(ask(from, 8080), from);
        assert_eq!(web.load(Ordering::Relaxed), connections);
    }
    // With room for one connection, the one that idles gives way.
    for (from, connections) in [(one, 1), (two, 2), (two, 2), (one, 3)] {
        assert_eq!(ask(from, 8081), from);
        assert_eq!(narrow.load(Ordering::Relaxed), connections);
    }
    drop(running);
}

#[test]
fn without_the_right_the_listener_is_refused() {
    if std::env::var_os(INSIDE).is_none() {
        let nothing = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        return again("without_the_right_the_listener_is_refused", &nothing);
    }
    let address = free_address();
    let mut wanted = transparent("virtualInbound", &address.to_string());
    let refused = lateen_proxy::engine::try_bind(&wanted).unwrap_err();
    let want = format!(
        "cannot bind '{address}': IP_TRANSPARENT: Operation not permitted (os error 1), \
         it takes CAP_NET_ADMIN"
    );
    assert_eq!(refused, want);
    // The same at the start: said in one line, with the listener's name.
    let listener = serde_json::json!([{ "name": "in", "transparent": true,
        "address": { "socket_address": {
            "address": address.ip().to_string(), "port_value": address.port() } },
        "filter_chains": [{ "filters": [{ "name": "echo", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo" } }] }] }]);
    let refused = try_serve(listener, serde_json::json!([])).unwrap_err();
    assert!(refused.contains("listener in: "), "{refused}");
    assert!(refused.ends_with("it takes CAP_NET_ADMIN"), "{refused}");
    // A listener that asks for nothing special serves, and says 503 for the
    // connection that it may not make.
    wanted.transparent = false;
    wanted.filter_chains = vec![chain(vec![http_to("in")])];
    wanted.matcher = lateen_proxy_core::filter_chain::Matcher::new(&wanted.filter_chains);
    let upstream = Upstream::new(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]);
    let _running = run(&snapshot(
        vec![wanted],
        vec![cluster("in", &[upstream.address])],
    ));
    let answer = ask(address, &get("/"));
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("remote connection failure"), "{answer}");
}
