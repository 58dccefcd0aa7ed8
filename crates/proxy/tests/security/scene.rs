//! A proxy in front of an upstream that keeps every byte it gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::frames::client::Client;
use crate::frames::script;
use crate::support::whole::{self, Proxy};
use crate::support::{ask, free_address};

/// What one connection to the upstream brought.
type Connections = Arc<Mutex<Vec<Vec<u8>>>>;

/// An upstream that answers each chunk of bytes that ends a head by the next
/// text, the last one again and again.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Connections,
}

impl Upstream {
    /// Listens until the process ends.
    pub fn start(answers: &[&str]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Connections::default();
        let left: Vec<String> = answers.iter().rev().map(|a| (*a).to_owned()).collect();
        let (all, left) = (seen.clone(), Arc::new(Mutex::new(left)));
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let (all, left) = (all.clone(), left.clone());
                let at = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                std::thread::spawn(move || serve(stream, at, &all, &left));
            }
        });
        Self { address, seen }
    }

    /// The bytes of each connection as text.
    pub fn connections(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        seen.iter().map(text).collect()
    }

    /// All bytes as one text.
    pub fn text(&self) -> String {
        self.connections().concat()
    }

    /// Heads of requests in all.
    pub fn requests(&self) -> usize {
        self.text().matches(" HTTP/1.1\r\n").count()
    }
}

fn serve(mut stream: TcpStream, at: usize, all: &Connections, left: &Mutex<Vec<String>>) {
    let mut chunk = [0; 65536];
    let mut answered = 0;
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        let heads = {
            let mut all = all.lock().unwrap();
            all[at].extend_from_slice(&chunk[..count]);
            all[at].windows(4).filter(|w| w == b"\r\n\r\n").count()
        };
        while answered < heads {
            answered += 1;
            let answer = {
                let mut left = left.lock().unwrap();
                match left.len() {
                    0 | 1 => left.last().cloned().unwrap_or_default(),
                    _ => left.pop().unwrap(),
                }
            };
            if answer == "!drop" || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A proxy and its upstream.
pub struct Scene {
    /// The proxy's listener.
    pub address: SocketAddr,
    /// The upstream behind everything.
    pub upstream: Upstream,
    _proxy: Proxy,
}

impl Scene {
    /// Everything to one upstream; `manager` are fields of the connection manager.
    pub fn new(manager: Value, answers: &[&str]) -> Self {
        Self::with(vec![], whole::everything(), manager, answers)
    }

    /// With filters and routes.
    pub fn with(filters: Vec<Value>, routes: Value, manager: Value, answers: &[&str]) -> Self {
        let address = free_address();
        let mut manager = manager;
        if manager.get("delayed_close_timeout").is_none() {
            manager["delayed_close_timeout"] = json!("0.1s");
        }
        Self::of_listener(
            whole::http(address, filters, routes, manager),
            address,
            answers,
        )
    }

    /// With a whole listener.
    pub fn of_listener(listener: Value, address: SocketAddr, answers: &[&str]) -> Self {
        let upstream = Upstream::start(answers);
        let clusters = json!([whole::static_cluster("c", upstream.address)]);
        let proxy = Proxy::start(json!([listener]), clusters, None);
        whole::wait_for(address);
        Self {
            address,
            upstream,
            _proxy: proxy,
        }
    }

    /// The answer to exact bytes on a connection of their own.
    pub fn ask(&self, request: &str) -> String {
        ask(self.address, request)
    }

    /// The status of a GET of this path.
    pub fn get(&self, path: &str) -> String {
        let answer = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        whole::status(&answer).to_owned()
    }

    /// A new HTTP/2 client that has played these steps.
    pub fn frames(&self, steps: &[&str]) -> Client {
        let mut client = Client::over(TcpStream::connect(self.address).unwrap());
        let steps: Vec<String> = steps.iter().map(|s| (*s).to_owned()).collect();
        client.play(&script::steps(&steps));
        client
    }

    /// Whether a new client of each protocol is served, which an attack on
    /// others must not change.
    pub fn serves(&self) -> bool {
        let mut client = self.frames(&["headers 1 es | get /alive"]);
        let lives = client.finish(true, true) == "open";
        lives && self.get("/alive") == "200"
    }

    /// Sends bytes in several writes and reads until the proxy ends the
    /// connection or stays silent for a while.
    pub fn talk(&self, pieces: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(700)))
            .unwrap();
        for piece in pieces {
            let _ = stream.write_all(piece);
            std::thread::sleep(Duration::from_millis(30));
        }
        let (mut all, mut chunk) = (Vec::new(), [0; 65536]);
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            all.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// The usual answer.
pub const OK: &str = whole::OK;

/// An RBAC filter that denies what one policy says.
pub fn deny(permissions: Value) -> Value {
    let rules = json!({ "action": "DENY", "policies": { "p": {
        "permissions": permissions, "principals": [{ "any": true }] } } });
    let message = "envoy.extensions.filters.http.rbac.v3.RBAC";
    whole::filter(
        "envoy.filters.http.rbac",
        message,
        json!({ "rules": rules }),
    )
}
