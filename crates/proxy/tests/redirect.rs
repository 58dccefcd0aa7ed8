//! Hand-off by original destination with real redirection rules, in a network
//! namespace of its own. Needs root, `ip` and `iptables`; says so loudly where
//! they are missing.

mod support;

use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use lateen_proxy_core::config::cluster::*;
use lateen_proxy_core::config::network_filter::TcpClusters;
use lateen_proxy_core::config::route::*;
use lateen_proxy_core::config::*;
use support::*;

const INSIDE: &str = "LATEEN_TEST_INSIDE_NAMESPACE";

fn ran(command: &str) -> bool {
    Command::new("sh")
        .args(["-c", command])
        .status()
        .is_ok_and(|s| s.success())
}

#[test]
fn redirected_connections_reach_the_listener_of_their_destination() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let able = nix::unistd::geteuid().is_root()
        && ran("command -v unshare ip iptables >/dev/null")
        && ran("unshare --net true");
    if !able {
        eprintln!("SKIPPED: redirection needs root, unshare, ip and iptables");
        return;
    }
    let me = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args([
            "--exact",
            "redirected_connections_reach_the_listener_of_their_destination",
            "--nocapture",
        ])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

fn inside() {
    assert!(ran(
        "ip link set lo up && ip addr add 10.1.1.1/32 dev lo && \
         iptables -t nat -A OUTPUT -p tcp -m owner --uid-owner 0 -d 10.0.0.0/8 \
           -m mark ! --mark 7 -j REDIRECT --to-ports 15001 && ip route add 10.0.0.0/8 dev lo"
    ));
    let any = |port: u16| std::net::SocketAddr::from(([0, 0, 0, 0], port));
    let upstream = Upstream::new(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Who: web\r\n\r\nok"]);
    let unbound = |mut listener: Listener| {
        listener.bind_to_port = false;
        listener
    };
    let http = |name: &str| {
        let manager = manager(vec![route(
            "/",
            RouteAction::Forward(Arc::new(forward(name))),
        )]);
        vec![chain(vec![NetworkFilter::HttpConnectionManager(Arc::new(
            manager,
        ))])]
    };
    let text = |words: &str| {
        let bytes: Arc<[u8]> = words.as_bytes().into();
        vec![chain(vec![NetworkFilter::DirectResponse(bytes)])]
    };
    let pass = NetworkFilter::TcpProxy(Arc::new(TcpProxy {
        tunneling: None,
        stat_prefix: "pass".into(),
        clusters: TcpClusters::Single("passthrough".into()),
        idle_timeout: None,
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        access_logs: vec![],
        access_log_flush_interval: None,
        hash_policy: vec![],
        metadata_match: Metadata::default(),
    }));
    let mut catch_all = listener("virtualOutbound", any(15001), vec![chain(vec![pass])]);
    catch_all.use_original_dst = true;
    let mut passthrough = cluster("passthrough", &[]);
    passthrough.load_assignment = None;
    passthrough.lb_policy = LbPolicy::ClusterProvided;
    passthrough.discovery = ClusterDiscovery::OriginalDst(Arc::default());
    // Our own connections carry a mark, so that they are not caught again.
    passthrough.bind = Some(Arc::new(BindConfig {
        source_addresses: vec!["127.0.0.6:0".parse().unwrap()],
        freebind: false,
        socket_options: vec![address::SocketOption {
            level: 1,
            name: 36,
            value: address::SocketOptionValue::Int(7),
        }],
    }));
    let _running = run(&snapshot(
        vec![
            catch_all,
            unbound(listener("0.0.0.0_9080", any(9080), http("web"))),
            unbound(listener(
                "10.9.9.9_7000",
                "10.9.9.9:7000".parse().unwrap(),
                text("exact"),
            )),
            unbound(listener("0.0.0.0_7000", any(7000), text("any"))),
        ],
        vec![cluster("web", &[upstream.address]), passthrough],
    ));
    let to = |address: &str| address.parse().unwrap();
    let answer = ask(to("10.2.3.4:9080"), &get("/"));
    assert_eq!(header(&answer, "x-who"), Some("web"), "{answer}");
    assert_eq!(ask_all(to("10.9.9.9:7000"), b""), "exact");
    assert_eq!(ask_all(to("10.8.8.8:7000"), b""), "any");

    // Nobody listens for this one: it goes on to where it was going, from the
    // source address that the cluster binds.
    let origin = std::net::TcpListener::bind("10.1.1.1:6000").unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, peer) = origin.accept().unwrap();
        stream.write_all(b"original").unwrap();
        peer
    });
    assert_eq!(ask_all(to("10.1.1.1:6000"), b""), "original");
    assert_eq!(thread.join().unwrap().ip().to_string(), "127.0.0.6");
}
