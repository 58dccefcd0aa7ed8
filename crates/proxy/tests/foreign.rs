//! Clients and servers of other people through the proxy: gRPC by grpcio and
//! @grpc/grpc-js, WebSocket by Python's websockets and ws. The programs are in
//! `foreign/`; the test command installs what they need and says where it is by
//! LATEEN_PYTHON and LATEEN_NODE_MODULES. Without it the tests say SKIPPED.

mod support;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::whole::{self, Proxy};

/// How long a client may take for all it does.
const LONGEST: Duration = Duration::from_secs(120);

/// One of the programs, ready to be started.
fn program(name: &str) -> Option<Command> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/foreign")
        .join(name);
    let told = |variable: &str, remedy: &str| -> Option<OsString> {
        let value = std::env::var_os(variable);
        if value.is_none() {
            println!("SKIPPED: {name}: {variable} is not set; {remedy}");
        }
        value
    };
    let mut command = if name.ends_with(".py") {
        Command::new(told(
            "LATEEN_PYTHON",
            "`cargo xtask tools` installs grpcio and websockets (or: pip install grpcio websockets)",
        )?)
    } else {
        let modules = told(
            "LATEEN_NODE_MODULES",
            "`cargo xtask tools` installs them (or: npm install @grpc/grpc-js ws)",
        )?;
        let mut node = Command::new("node");
        node.env("NODE_PATH", modules);
        node
    };
    command.arg(file);
    Some(command)
}

/// A running server; it ends with its input.
struct Server(Child, SocketAddr);

impl Server {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("the server's port");
        Self(child, ([127, 0, 0, 1], port).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client's whole run against the address.
fn run(mut command: Command, address: SocketAddr) {
    command.arg(address.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + LONGEST;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.trim_end().ends_with("all right"),
        "{}: {said}{}",
        output.status,
        text(&output.stderr)
    );
}

/// The client through the proxy to the server.
fn through(client: &str, server: &str, http2: bool) {
    let (Some(client), Some(server)) = (program(client), program(server)) else {
        return;
    };
    let server = Server::start(server);
    let mut cluster = whole::static_cluster("c", server.1);
    if http2 {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster["typed_extension_protocol_options"] = json!({ options: {
            "@type": whole::url(options),
            "explicit_http_config": { "http2_protocol_options": {} } } });
    }
    let address = support::free_address();
    let upgrades = json!({ "upgrade_configs": [{ "upgrade_type": "websocket" }] });
    let listener = whole::http(address, vec![], whole::everything(), upgrades);
    let proxy = Proxy::start(json!([listener]), json!([cluster]), None);
    whole::wait_for(address);
    run(client, address);
    drop(server);
    drop(proxy);
}

#[test]
fn grpc_from_python_to_node() {
    through("grpc_client.py", "grpc_server.js", true);
}

#[test]
fn grpc_from_node_to_python() {
    through("grpc_client.js", "grpc_server.py", true);
}

#[test]
fn websocket_from_python_to_node() {
    through("ws_client.py", "ws_server.js", false);
}

#[test]
fn websocket_from_node_to_python() {
    through("ws_client.js", "ws_server.py", false);
}
