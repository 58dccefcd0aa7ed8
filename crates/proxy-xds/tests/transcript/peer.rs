//! The two clients under comparison, started on one bootstrap: the real Envoy as a process, ours as
//! the task that the proxy runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lateen_proxy_xds::ads::{Options, start};
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use serde_json::{Value, json};

use super::life::Form;

/// Which.
pub enum Peer {
    /// The real one, by its program.
    Envoy(PathBuf),
    /// This crate's.
    Ours,
}

/// A running one; its drop ends it.
pub enum Running {
    /// A process and the folder of its files.
    Envoy(
        Child,
        #[expect(dead_code, reason = "kept until the process ends")] tempfile::TempDir,
    ),
    /// A task.
    Ours(tokio::task::JoinHandle<()>),
}

impl Peer {
    /// Starts it against a management server.
    pub fn start(&self, server: SocketAddr, form: Form) -> Running {
        let text = bootstrap(server, form).to_string();
        match self {
            Self::Envoy(program) => {
                let folder = tempfile::tempdir().unwrap();
                let child = run(program, folder.path(), &text);
                Running::Envoy(child, folder)
            }
            Self::Ours => {
                let source = Source {
                    name: "bootstrap",
                    text: &text,
                };
                let loaded = load(&[source], &Overrides::default()).unwrap();
                let started = start(loaded, Context::empty(), Options::default());
                let (handle, client) = started.unwrap();
                Running::Ours(tokio::spawn(async move {
                    client.run().await;
                    drop(handle);
                }))
            }
        }
    }
}

fn run(program: &Path, folder: &Path, bootstrap: &str) -> Child {
    let file = folder.join("envoy.json");
    std::fs::write(&file, bootstrap).unwrap();
    let log = std::fs::File::create(folder.join("envoy.log")).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    command.args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]);
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

impl Drop for Running {
    fn drop(&mut self) {
        match self {
            Self::Envoy(child, _) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Ours(task) => task.abort(),
        }
    }
}

fn bootstrap(server: SocketAddr, form: Form) -> Value {
    let api_type = match form {
        Form::Sotw => "GRPC",
        Form::Delta => "DELTA_GRPC",
    };
    let by_ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let address =
        json!({ "socket_address": { "address": "127.0.0.1", "port_value": server.port() } });
    json!({
        "node": { "id": "a-node", "cluster": "a-cluster" },
        "dynamic_resources": {
            "ads_config": { "api_type": api_type, "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }] },
            "cds_config": by_ads, "lds_config": by_ads,
        },
        "static_resources": { "clusters": [{
            "name": "xds", "type": "STATIC",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} } } },
            "load_assignment": { "cluster_name": "xds", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": address } }] }] },
        }] },
    })
}
