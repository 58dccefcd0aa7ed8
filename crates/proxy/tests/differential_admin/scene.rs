//! The two proxies on the same bootstrap, their upstream, and the traffic through them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use lateen_process::{Stop, Stopper, stop};
use lateen_proxy::run::{LogLevels, ProxyOptions, serve};
use lateen_proxy_xds::ads;
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use serde_json::{Value, json};

use crate::support::{free_address, read_message};

/// A file of this folder, read as it is now: editing it needs no compilation.
pub fn data(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential_admin");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

/// The addresses of one side.
pub struct Side {
    /// By name: `admin`, `web`, `secure`, `tcp`, `brief`, `still`, `old`, and those of the upstreams.
    pub addresses: BTreeMap<&'static str, SocketAddr>,
}

impl Side {
    /// Addresses nobody uses.
    pub fn new(up: SocketAddr) -> Self {
        let mut addresses: BTreeMap<_, _> =
            ["admin", "web", "secure", "tcp", "brief", "still", "old"]
                .into_iter()
                .map(|name| (name, free_address()))
                .collect();
        // HTTP/2 goes round once through the proxy itself.
        addresses.insert("h2", addresses["web"]);
        addresses.insert("up", up);
        Self { addresses }
    }

    /// The bootstrap with this side's addresses.
    pub fn bootstrap(&self, folder: &Path) -> Value {
        let mut value = serde_saphyr::from_str(&data("bootstrap.yaml")).unwrap();
        self.fill(&mut value, folder);
        value
    }

    fn fill(&self, value: &mut Value, folder: &Path) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(name) if key == "@type" => {
                            *name = format!("type.googleapis.com/{name}");
                        }
                        value => self.fill(value, folder),
                    }
                }
            }
            Value::Array(all) => all.iter_mut().for_each(|v| self.fill(v, folder)),
            Value::String(text) => {
                for (name, address) in &self.addresses {
                    if *text == format!("${{{name}}}") {
                        *value = json!(address.port());
                        return;
                    }
                }
                *text = text.replace("${folder}", folder.to_str().unwrap());
            }
            _ => {}
        }
    }

    /// A text in which this side's ports are their names.
    pub fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, address) in self.addresses.iter().filter(|(name, _)| **name != "h2") {
            for mark in [':', '_'] {
                let ip = address.ip();
                let place = format!("{ip}{mark}{}", address.port());
                text = text.replace(&place, &format!("@{name}"));
            }
            let port = |value: &str| format!("\"port_value\": {value}");
            let named = port(&format!("\"{name}\""));
            text = text.replace(&port(&address.port().to_string()), &named);
        }
        text
    }
}

/// Certificates of the run: `ca.pem`, `server.pem`, `server.key`.
pub fn certificates(folder: &Path) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "ca");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    let names = vec!["a.test".to_owned(), "127.0.0.1".to_owned()];
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "a.test");
    let leaf = params.signed_by(&key, &*ca).unwrap();
    std::fs::write(folder.join("server.pem"), leaf.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

/// An upstream that answers by the path; ends with the process.
pub fn upstream() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    while let Some(request) = read_message(&mut stream) {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let grpc = |status: u8| {
            format!(
                "200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\ncontent-length: 0\r\n\r\n"
            )
        };
        let rest = match path {
            "/tcp" => {
                // The end of a connection that has no other.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbye");
                return;
            }
            // Never answered; the proxy gives up and closes.
            "/slow" => continue,
            "/hop" => {
                "302 Found\r\nlocation: http://h/here\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            "/retry" => "503 No\r\ncontent-length: 2\r\n\r\nno".to_owned(),
            "/missing" => "404 No\r\ncontent-length: 2\r\n\r\nno".to_owned(),
            "/pkg.Svc/grpc" => grpc(0),
            "/pkg.Svc/grpc-fails" => grpc(13),
            _ => "200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
        };
        if stream
            .write_all(format!("HTTP/1.1 {rest}").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

/// Sends the traffic through a side; the first lines of the answers.
pub fn traffic(side: &Side) -> Vec<String> {
    let requests: Value = serde_saphyr::from_str(&data("traffic.yaml")).unwrap();
    let play = |request: &Value| {
        let address = side.addresses[request["to"].as_str().unwrap()];
        let bytes = match request["raw"].as_str() {
            Some(raw) => raw.to_owned(),
            None => {
                let lines = request["head"].as_array().unwrap();
                let lines = lines
                    .iter()
                    .map(|l| l.as_str().unwrap().to_owned() + "\r\n");
                let body = request["body"].as_str().unwrap_or_default();
                lines.collect::<String>() + "connection: close\r\n\r\n" + body
            }
        };
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        format!("{bytes:?} -> {}", text.lines().next().unwrap_or_default())
    };
    requests.as_array().unwrap().iter().map(play).collect()
}

/// Levels that can be asked for and set. Nothing is logged.
struct Levels(std::sync::Mutex<String>);

impl LogLevels for Levels {
    fn list(&self) -> Vec<(String, String)> {
        vec![("all".to_owned(), self.0.lock().unwrap().clone())]
    }

    fn set(&self, logger: Option<&str>, level: &str) -> Result<(), String> {
        assert_eq!(logger, None, "the suite sets the level of all");
        level.clone_into(&mut self.0.lock().unwrap());
        Ok(())
    }

    fn reopen(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// This proxy at work; its drop stops it.
pub struct Ours {
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Ours {
    /// Runs it on a bootstrap.
    pub fn start(bootstrap: &Value) -> Self {
        let (stopper, stop) = stop::pair();
        let options = options(bootstrap);
        let thread = std::thread::spawn(move || run(options, stop));
        Self {
            stopper,
            thread: Some(thread),
        }
    }

    /// Waits for its end, which something else must bring about.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            thread.join().unwrap();
        }
    }
}

fn run(options: ProxyOptions, stop: Stop) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(serve(options, stop))
        .unwrap_or_else(|e| panic!("{e}"));
}

fn options(bootstrap: &Value) -> ProxyOptions {
    let text = bootstrap.to_string();
    let source = Source {
        name: "bootstrap.json",
        text: &text,
    };
    ProxyOptions {
        loaded: load(&[source], &Overrides::default()).unwrap_or_else(|e| panic!("{e}")),
        context: Context::files(),
        ads: ads::Options::default(),
        concurrency: 1,
        hostname: "test".into(),
        node_ip: None,
        flush_interval: Duration::from_millis(50),
        drain_time: Duration::from_secs(600),
        drain_strategy: lateen_proxy_core::drain::Strategy::Gradual,
        termination_drain: Duration::ZERO,
        termination_grace: Duration::from_secs(5),
        max_connections: 0,
        admin_address_path: None,
        command_line: json!({ "mode": "Serve" }),
        agent: None,
        log_levels: Some(std::sync::Arc::new(Levels("info".to_owned().into()))),
    }
}
