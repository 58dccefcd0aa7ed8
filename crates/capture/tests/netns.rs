//! The rules at work, in network namespaces of the test's own threads: a pod with a proxy's
//! ports, and a client behind a virtual cable. Needs root and the system's tools; says SKIPPED
//! loudly otherwise.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lateen_capture::config::{Config, Selection};
use lateen_capture::flags::{Action, parse};
use lateen_capture::{apply, rules, run};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::sockopt::{IpTransparent, OriginalDst};
use nix::sys::socket::{getsockopt, setsockopt};
use nix::unistd::{Uid, gettid, setfsuid};

const POD: &str = "10.199.0.2";
const CLIENT: &str = "10.199.0.1";
const WAIT: Duration = Duration::from_secs(3);

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why the tests cannot run here, if they cannot.
fn obstacle(tools: &[&str]) -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("not root".to_owned());
    }
    tools
        .iter()
        .find(|tool| Command::new(tool).arg("-V").output().is_err())
        .map(|tool| format!("{tool} not found"))
}

/// Runs `test` in a fresh namespace (the pod) that has a cable to another one; in the other a
/// thread dials what it is told and stays until the test is over.
fn in_pod(tools: &[&str], test: impl FnOnce(&mut Client) + Send + 'static) {
    if let Some(why) = obstacle(tools) {
        println!("SKIPPED: capture in a network namespace: {why}");
        return;
    }
    let worker = thread::spawn(move || {
        let (orders, inbox) = mpsc::channel::<SocketAddr>();
        let (outbox, results) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let client = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(gettid()).unwrap();
            while let Ok(address) = inbox.recv() {
                outbox.send(dial(address)).unwrap();
            }
        });
        let peer = is_ready.recv().unwrap();
        sh("ip link set lo up");
        sh(&format!(
            "ip link add eth0 type veth peer name eth0 netns {peer}"
        ));
        sh(&format!(
            "ip addr add {POD}/24 dev eth0 && ip -6 addr add fd99::2/64 dev eth0 nodad && ip link set eth0 up"
        ));
        sh(&format!("ip route add default via {CLIENT}"));
        let inside = format!("nsenter --net=/proc/{peer}/ns/net");
        sh(&format!(
            "{inside} sh -c 'ip link set lo up; ip addr add {CLIENT}/24 dev eth0; ip -6 addr add fd99::1/64 dev eth0 nodad; ip link set eth0 up'"
        ));
        test(&mut Client { orders, results });
        client.join().unwrap();
    });
    worker.join().unwrap();
}

struct Client {
    orders: mpsc::Sender<SocketAddr>,
    results: mpsc::Receiver<io::Result<TcpStream>>,
}

impl Client {
    fn dial(&mut self, address: &str) -> TcpStream {
        self.orders.send(address.parse().unwrap()).unwrap();
        self.results
            .recv()
            .unwrap()
            .unwrap_or_else(|error| panic!("{address}: {error}"))
    }
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, WAIT)
}

/// A connection of this thread as a user.
fn dial_as(user: u32, address: &str) -> io::Result<TcpStream> {
    setfsuid(Uid::from_raw(user));
    let result = dial(address.parse().unwrap());
    setfsuid(Uid::from_raw(0));
    result
}

fn listen(address: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// The connection that `client` made, taken off `listener` within the time.
fn taken(listener: &TcpListener, client: &TcpStream) -> Option<TcpStream> {
    let from = client.local_addr().unwrap();
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        if let Ok((stream, peer)) = listener.accept() {
            let same = peer.port() == from.port() && peer.ip().to_canonical() == from.ip();
            if same {
                return Some(stream);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

fn original(stream: &TcpStream) -> String {
    let address = getsockopt(&stream.as_fd(), OriginalDst).unwrap();
    let ip = std::net::Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
    format!("{ip}:{}", u16::from_be(address.sin_port))
}

fn config(line: &str) -> Config {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    match parse(&args, &|_| None) {
        Ok(Action::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn captured(listener: &TcpListener, client: &TcpStream, dialled: &str) {
    let stream = taken(listener, client).unwrap_or_else(|| panic!("{dialled} is not captured"));
    assert_eq!(original(&stream), dialled);
}

const SIDECAR: &str =
    "-p 15001 -z 15006 -u 1337 -g 1337 -m REDIRECT -i * -b * -d 15090,15021,15020";

/// What a sidecar's rules promise, whichever tool put them there.
fn redirect_holds(client: &mut Client) {
    let outbound = listen("0.0.0.0:15001");
    let inbound = listen("0.0.0.0:15006");
    let application = listen("0.0.0.0:8080");
    let agent = listen("0.0.0.0:15020");

    // The application dials out: captured on 15001 with its destination.
    for address in ["192.0.2.7:80", "10.199.0.1:9999"] {
        captured(&outbound, &dial_as(0, address).unwrap(), address);
    }
    // The proxy dials out: not captured (nobody listens there).
    let refused = dial_as(1337, "10.199.0.1:9999").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // The application to loopback and to its own pod address: not captured.
    for address in ["127.0.0.1:8080", "127.0.0.2:8080", "10.199.0.2:8080"] {
        let connection = dial_as(0, address).unwrap();
        assert!(taken(&application, &connection).is_some(), "{address}");
    }
    // The proxy to its own pod address: comes in again; to 127.0.0.1: reaches the application.
    captured(
        &inbound,
        &dial_as(1337, "10.199.0.2:8080").unwrap(),
        "10.199.0.2:8080",
    );
    let connection = dial_as(1337, "127.0.0.1:8080").unwrap();
    assert!(taken(&application, &connection).is_some());
    // From outside: captured on 15006, but for the ports left out.
    captured(&inbound, &client.dial("10.199.0.2:8080"), "10.199.0.2:8080");
    captured(&inbound, &client.dial("10.199.0.2:7777"), "10.199.0.2:7777");
    let connection = client.dial("10.199.0.2:15020");
    assert!(taken(&agent, &connection).is_some());
}

#[test]
fn iptables_redirect() {
    in_pod(&["iptables", "ip"], |client| {
        let mut config = config(SIDECAR);
        run(&config).unwrap();
        redirect_holds(client);
        let listing = sh("iptables-save -t nat | grep -v '^[#:*C]'");
        // What is in place is word for word what the rules say, so a second run leaves it.
        run(&config).unwrap();
        assert_eq!(sh("iptables-save -t nat | grep -v '^[#:*C]'"), listing);
        assert!(listing.contains("-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN"));
        // Other settings replace the rules, without doubling the jumps.
        config.inbound_exclude = vec![15090];
        run(&config).unwrap();
        let changed = sh("iptables-save -t nat");
        assert_eq!(changed.matches("-A PREROUTING").count(), 1, "{changed}");
        assert!(!changed.contains("--dport 15020"));
        config.cleanup = true;
        run(&config).unwrap();
        assert!(!sh("iptables-save").contains("ISTIO"));
        run(&config).unwrap();
    });
}

#[test]
fn nft_redirect() {
    in_pod(&["nft", "ip"], |client| {
        let mut config = config(SIDECAR);
        config.native_nftables = true;
        run(&config).unwrap();
        run(&config).unwrap();
        redirect_holds(client);
        config.cleanup = true;
        run(&config).unwrap();
        assert!(!sh("nft list ruleset").contains("istio-proxy"));
    });
}

fn tproxy_holds(client: &mut Client) {
    let inbound = TcpListener::bind("0.0.0.0:15006").unwrap();
    setsockopt(&inbound, IpTransparent, &true).unwrap();
    inbound.set_nonblocking(true).unwrap();
    let agent = listen("0.0.0.0:15020");
    let connection = client.dial("10.199.0.2:8080");
    let stream = taken(&inbound, &connection).expect("captured");
    assert_eq!(stream.local_addr().unwrap().to_string(), "10.199.0.2:8080");
    assert_eq!(
        stream.peer_addr().unwrap().ip(),
        CLIENT.parse::<IpAddr>().unwrap()
    );
    let connection = client.dial("10.199.0.2:15020");
    assert!(taken(&agent, &connection).is_some());
    // The proxy to its own pod address comes in again.
    let connection = dial_as(1337, "10.199.0.2:8080").unwrap();
    assert!(taken(&inbound, &connection).is_some());
}

#[test]
fn iptables_tproxy() {
    in_pod(&["iptables", "ip"], |client| {
        let mut config = config(&SIDECAR.replace("REDIRECT", "TPROXY"));
        run(&config).unwrap();
        run(&config).unwrap();
        tproxy_holds(client);
        config.cleanup = true;
        run(&config).unwrap();
        assert!(!sh("iptables-save").contains("ISTIO"));
        assert!(!sh("iptables-save -t mangle").contains("-A PREROUTING"));
        assert!(!sh("ip rule").contains("lookup 133"));
    });
}

#[test]
fn nft_tproxy() {
    in_pod(&["nft", "ip"], |client| {
        let mut config = config(&SIDECAR.replace("REDIRECT", "TPROXY"));
        config.native_nftables = true;
        run(&config).unwrap();
        tproxy_holds(client);
    });
}

/// The kernel's listing of every golden case is what we think is in place: each is applied,
/// and found equal on the second look.
#[test]
fn what_is_in_place_is_recognised() {
    in_pod(&["iptables", "ip"], |_| {
        for line in [
            SIDECAR,
            "-i * -b * --redirect-dns --capture-all-dns --dual-stack",
            "-m TPROXY -i * -b 8080 -c net1",
            "-i 10.0.0.0/8 -x 10.1.0.0/16 -b 80 -q 9000 -o 25 -k vm0 -c net1",
            "-i * -b * --outbound-owner-groups=101,202 --drop-invalid",
        ] {
            let config = config(line);
            run(&config).unwrap();
            for set in rules::build(&config, &apply::system().unwrap()) {
                let six = if set.family == rules::Family::V6 {
                    "6"
                } else {
                    ""
                };
                let saved = sh(&format!("ip{six}tables-save"));
                for table in &set.tables {
                    let found = lateen_capture::iptables::read_saved(&saved, table.table);
                    assert!(found.holds(set.family, table), "{line}\n{saved}");
                }
            }
            let cleanup = Config {
                cleanup: true,
                ..config
            };
            run(&cleanup).unwrap();
            assert!(
                !sh("iptables-save; ip6tables-save").contains("-A "),
                "{line}"
            );
        }
    });
}

#[test]
fn validation_tells_whether_capture_works() {
    in_pod(&["iptables", "ip"], |_| {
        let mut config = config(SIDECAR);
        config.probe_timeout = Duration::from_millis(500);
        config.run_validation = true;
        run(&config).unwrap();
        config.skip_rule_apply = true;
        run(&config).unwrap();
        let nothing = Config {
            cleanup: true,
            ..config.clone()
        };
        run(&nothing).unwrap();
        let error = run(&config).unwrap_err().to_string();
        assert!(error.starts_with("validation failed"), "{error}");
        config.outbound_ranges = Selection::All;
    });
}
