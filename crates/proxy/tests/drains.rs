//! A whole proxy drains, by its admin port and by a signal, with work of every kind under way:
//! requests over HTTP/1 and HTTP/2, tunnels, TCP. Who is under way ends as it would have, who is idle
//! is asked to go, and nothing is lost.

mod frames;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use frames::client::{Client, Event};
use lateen_proxy_core::drain::Strategy;
use serde_json::json;
use support::whole::*;
use support::*;

/// A GOAWAY that names no stream as the last one yet (RFC 9113 section 6.8).
const SOON: Event = Event::Goaway((1 << 31) - 1, 0);

/// Holds the answers to `/held` back until it is opened, and counts their requests.
#[derive(Default)]
struct Gate {
    state: Mutex<(u32, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |s| !s.1).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    /// Waits until so many requests are held.
    fn holds(&self, count: u32) {
        let state = self.state.lock().unwrap();
        let wait = Duration::from_secs(10);
        let waited = self
            .changed
            .wait_timeout_while(state, wait, |s| s.0 < count);
        assert!(
            !waited.unwrap().1.timed_out(),
            "{count} requests never came"
        );
    }
}

fn accept(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        if stream.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
}

/// Answers requests, held ones behind the gate, and echoes what is upgraded.
fn answer(mut stream: TcpStream, gate: &Gate) {
    while let Some(request) = read_message(&mut stream) {
        if request.to_ascii_lowercase().contains("upgrade: websocket") {
            let accepted = "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(accepted.as_bytes()).unwrap();
            return echo(stream);
        }
        if request.starts_with("GET /held") {
            gate.pass();
        }
        if stream.write_all(OK.as_bytes()).is_err() {
            return;
        }
    }
}

/// A proxy for HTTP and one for TCP, and who is connected to it.
struct Scene {
    proxy: Proxy,
    http: SocketAddr,
    tcp: SocketAddr,
    admin: SocketAddr,
    gate: Arc<Gate>,
}

fn scene(strategy: Strategy, drain_time: Duration, drain_timeout: &str) -> Scene {
    let gate = Arc::new(Gate::default());
    let own = gate.clone();
    let clusters = json!([
        static_cluster("c", accept(move |stream| answer(stream, &own))),
        static_cluster("echo", accept(echo)),
    ]);
    let [web, tcp, admin] = [free_address(), free_address(), free_address()];
    let manager = json!({ "drain_timeout": drain_timeout, "delayed_close_timeout": "0s",
        "upgrade_configs": [{ "upgrade_type": "websocket" }] });
    let message = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let to_echo = filter(
        "tcp",
        message,
        json!({ "stat_prefix": "tcp", "cluster": "echo" }),
    );
    let listeners = json!([
        http(web, vec![], everything(), manager),
        { "name": "tcp", "address": socket(tcp), "filter_chains": [{ "filters": [to_echo] }] },
    ]);
    let extra = json!({ "admin": { "address": socket(admin) } });
    let mut options = options_of(bootstrap(listeners, clusters, extra));
    options.drain_strategy = strategy;
    options.drain_time = drain_time;
    options.termination_grace = Duration::from_secs(30);
    let proxy = Proxy::run(options);
    wait_for(web);
    wait_for(tcp);
    Scene {
        proxy,
        http: web,
        tcp,
        admin,
        gate,
    }
}

impl Scene {
    fn drain(&self) {
        let order =
            "POST /drain_listeners?graceful HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(body(&ask(self.admin, order)), "OK\n");
    }

    /// A client of HTTP/2 that asks for these and has the heads of none yet.
    fn asks(&self, paths: &[&str]) -> Client {
        let mut client = Client::over(connect(self.http));
        client.play(&[]);
        for path in paths {
            client.send(&format!("headers # es | get {path}"));
        }
        client
    }

    /// A client of HTTP/2 that has had an answer.
    fn idle2(&self) -> Client {
        let mut client = self.asks(&["/"]);
        assert!(client.until(|events| answered(events, 1)));
        client
    }

    /// A client of HTTP/1 that has had an answer.
    fn idle1(&self) -> TcpStream {
        let mut client = connect(self.http);
        assert_eq!(closes(&mut client), None);
        client
    }

    /// Tunnels: one through HTTP, one of TCP.
    fn tunnels(&self) -> [TcpStream; 2] {
        let mut web = connect(self.http);
        let upgrade =
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        web.write_all(upgrade.as_bytes()).unwrap();
        let answer = read_message(&mut web).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        [web, connect(self.tcp)]
    }
}

/// What an answer on a kept connection says of it.
fn closes(client: &mut TcpStream) -> Option<String> {
    client.write_all(get("/").as_bytes()).unwrap();
    let answer = read_message(client).expect("an answer");
    assert_eq!(status(&answer), "200", "{answer}");
    header(&answer, "connection").map(str::to_owned)
}

/// Whether a stream has its whole answer.
fn answered(events: &[Event], wanted: u32) -> bool {
    let status = (b":status".to_vec(), b"200".to_vec());
    let head = |e: &Event| matches!(e, Event::Headers { stream, fields, .. } if *stream == wanted && fields.contains(&status));
    let end = |e: &Event| matches!(e, Event::Data { stream, end: true, .. } if *stream == wanted);
    events.iter().any(head) && events.iter().any(end)
}

fn goaways(events: &[Event]) -> Vec<Event> {
    let is = |e: &&Event| matches!(e, Event::Goaway(..));
    events.iter().filter(is).cloned().collect()
}

/// Whether the client was told that it is to go, then which stream was its last.
fn told(events: &[Event], last: u32) -> bool {
    goaways(events) == [SOON, Event::Goaway(last, 0)]
}

fn still_talk(tunnels: &mut [TcpStream; 2], word: &[u8]) {
    for tunnel in tunnels {
        tunnel.write_all(word).unwrap();
        let mut back = vec![0; word.len()];
        tunnel.read_exact(&mut back).unwrap();
        assert_eq!(back, word);
    }
}

/// The connection ends in order, without a byte more.
fn ends(client: &mut TcpStream) {
    match client.read(&mut [0; 64]) {
        Ok(0) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signal_ends_nothing_that_is_under_way() {
    let mut scene = scene(Strategy::Gradual, Duration::from_secs(600), "60s");
    let (mut busy, mut idle) = (scene.asks(&["/held", "/held"]), scene.idle2());
    let (mut kept, mut tunnels) = (scene.idle1(), scene.tunnels());
    let mut held = connect(scene.http);
    held.write_all(get("/held").as_bytes()).unwrap();
    still_talk(&mut tunnels, b"before");
    scene.gate.holds(3);
    scene.proxy.ask_to_end();
    assert!(busy.until(|events| told(events, 3)), "{:?}", busy.events());
    assert!(!idle.until_ended(|_| false) && told(&idle.events(), 1));
    ends(&mut kept);
    still_talk(&mut tunnels, b"meanwhile");
    scene.gate.open();
    let all = |events: &[Event]| answered(events, 1) && answered(events, 3);
    assert!(busy.until(all), "{:?}", busy.events());
    let answer = read_message(&mut held).unwrap();
    assert_eq!(header(&answer, "connection"), Some("close"), "{answer}");
    still_talk(&mut tunnels, b"at last");
    drop(tunnels);
    scene.proxy.end();
    assert!(!busy.until_ended(|_| false) && told(&busy.events(), 3));
}

#[test]
fn a_client_that_is_asked_to_go_is_served_until_it_knows() {
    let scene = scene(Strategy::Immediate, Duration::from_secs(600), "60s");
    let (mut busy, mut silent) = (scene.asks(&["/held"]), scene.idle2());
    let (mut kept, mut tunnels) = (scene.idle1(), scene.tunnels());
    scene.gate.holds(1);
    scene.drain();
    // The order reaches each worker in its own time.
    eventually("answers close", || {
        closes(&mut connect(scene.http)).as_deref() == Some("close")
            && closes(&mut connect(scene.http)).as_deref() == Some("close")
    });
    assert_eq!(closes(&mut kept).as_deref(), Some("close"));
    ends(&mut kept);
    busy.send("headers # es | get /");
    assert!(busy.until(|events| answered(events, 3) && goaways(events) == [SOON]));
    // What it asks before it knows of the GOAWAY is served, too.
    busy.send("headers # es | get /");
    assert!(
        busy.until(|events| answered(events, 5)),
        "{:?}",
        busy.events()
    );
    scene.gate.open();
    assert!(
        busy.until(|events| answered(events, 1)),
        "{:?}",
        busy.events()
    );
    assert_eq!(goaways(&busy.events()), [SOON]);
    still_talk(&mut tunnels, b"after");
    assert!(!silent.ended() && goaways(&silent.events()).is_empty());
    assert!(silent.until(|_| true));
}

fn idle_clients_are_asked_in_time(strategy: Strategy) {
    let scene = scene(strategy, Duration::from_secs(3), "0.2s");
    let (mut busy, mut idle) = (scene.asks(&["/held"]), scene.idle2());
    let (mut kept, mut fresh) = (scene.idle1(), connect(scene.http));
    let mut tunnels = scene.tunnels();
    scene.gate.holds(1);
    scene.drain();
    // The one has its last stream named when it has had its time, the other ends.
    assert!(busy.until(|events| told(events, 1)), "{:?}", busy.events());
    assert!(!idle.until_ended(|_| false) && told(&idle.events(), 1));
    ends(&mut kept);
    ends(&mut fresh);
    eventually("the port closes", || match TcpStream::connect(scene.http) {
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(_) => false,
    });
    still_talk(&mut tunnels, b"after");
    scene.gate.open();
    let ended = busy.until(|events| answered(events, 1));
    assert!(ended, "{:?}", busy.events());
    assert!(!busy.until_ended(|_| false), "and then it ends");
}

#[test]
fn idle_clients_are_asked_in_time_gradually() {
    idle_clients_are_asked_in_time(Strategy::Gradual);
}

#[test]
fn idle_clients_are_asked_in_time_whatever_the_strategy() {
    idle_clients_are_asked_in_time(Strategy::Immediate);
}
