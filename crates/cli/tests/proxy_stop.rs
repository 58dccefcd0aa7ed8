//! `lateen proxy` ends by SIGTERM under load: whoever was let in gets an answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(60);

/// Listens on a port of the kernel's choice, before one cluster.
fn bootstrap(upstream: SocketAddr) -> String {
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STATIC
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}
"#,
        upstream.port()
    )
}

struct Proxy(Child);

impl Proxy {
    /// Two workers; ready when its log file names the admin port and that port says LIVE.
    fn start(folder: &Path, upstream: SocketAddr) -> (Self, SocketAddr) {
        std::fs::write(folder.join("b.yaml"), bootstrap(upstream)).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
        command.args(["proxy", "-c", "b.yaml", "--concurrency", "2"]);
        command.args(["--admin-address-path", "admin", "--log-path", "log"]);
        command.current_dir(folder).stderr(Stdio::null());
        let proxy = Self(command.spawn().expect("started"));
        let admin = eventually("the admin port", || {
            let text = std::fs::read_to_string(folder.join("admin")).ok()?;
            text.trim().parse::<SocketAddr>().ok()
        });
        eventually("LIVE", || {
            get(admin, "/ready").filter(|text| text.contains("LIVE"))
        });
        let listeners = get(admin, "/listeners").expect("the listeners");
        let line = listeners.lines().find_map(|l| l.strip_prefix("web::"));
        (proxy, line.expect("web").parse().expect("an address"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended; waiting leaves no zombie.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "never {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The lines of a head, without its end; none at the end of the connection.
fn head(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(1..)) {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            text => lines.push(text.to_ascii_lowercase()),
        }
    }
}

/// Answers `ok`, to `/held` when the gate gives a word.
fn upstream(held: mpsc::Sender<()>, gate: Receiver<()>) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("its address");
    let gate = Arc::new(Mutex::new(gate));
    thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let (held, gate) = (held.clone(), gate.clone());
            thread::spawn(move || {
                let mut writer = stream.try_clone().expect("a second handle");
                let mut reader = BufReader::new(stream);
                while let Some(lines) = head(&mut reader) {
                    if lines[0].contains("/held") {
                        held.send(()).expect("the test waits");
                        // The test's end is a word, too.
                        let _ = gate.lock().expect("whole").recv();
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if writer.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Asks over kept connections until nobody listens any more.
///
/// # Errors
/// What became of a request that got no whole answer.
fn client(address: SocketAddr) -> Result<u32, String> {
    let mut answered = 0;
    while let Ok(stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut writer = stream.try_clone().expect("a second handle");
        let mut reader = BufReader::new(stream);
        loop {
            if let Err(error) = writer.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n") {
                return Err(format!("not sent after {answered}: {error}"));
            }
            let lines = head(&mut reader).ok_or(format!("no answer after {answered}"))?;
            if !lines[0].contains(" 200 ") {
                return Err(format!("{lines:?} after {answered}"));
            }
            let mut body = [0; 2];
            reader.read_exact(&mut body).map_err(|e| e.to_string())?;
            answered += 1;
            if lines.iter().any(|line| line == "connection: close") {
                break;
            }
        }
    }
    Ok(answered)
}

#[test]
fn a_signal_loses_no_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let (held, holds) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let (mut proxy, address) = Proxy::start(folder.path(), upstream(held, gate));
    let slow = thread::spawn(move || get(address, "/held"));
    holds.recv_timeout(PATIENCE).expect("a held request");
    let clients: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || client(address)))
        .collect();
    thread::sleep(Duration::from_millis(300));
    let pid = i32::try_from(proxy.0.id()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("signalled");
    for client in clients {
        let answered = client.join().expect("no panic");
        assert!(matches!(answered, Ok(1..)), "{answered:?}");
    }
    // Nobody is let in any more, and who was in is served all the same.
    assert!(proxy.0.try_wait().expect("its state").is_none(), "it waits");
    open.send(()).expect("the upstream waits");
    let answer = slow.join().expect("no panic").expect("an answer");
    assert!(answer.ends_with("ok"), "{answer}");
    assert!(proxy.0.wait().expect("its end").success());
}
