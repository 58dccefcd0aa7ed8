//! Secrets over a stream of their own and from watched files: what waits for
//! them, acknowledgement, refusal of what could not serve, rotation.
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use lateen_proxy_core::config::tls::Secret;
use lateen_proxy_xds::ads::{Handle, Options, start};
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use lateen_xds_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use lateen_xds_proto::{Any, Message, json};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

/// Certificate and key, PEM.
fn issue(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn secret(chain: &str, key: &str) -> Value {
    json!({ "name": "default", "tls_certificate": {
        "certificate_chain": { "inline_string": chain }, "private_key": { "inline_string": key } } })
}

fn listener(source: Value) -> Value {
    json!({
        "name": "l", "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{
            "filters": [{ "name": "echo", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo" } }],
            "transport_socket": { "name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": { "tls_certificate_sds_secret_configs": [
                    { "name": "default", "sds_config": source }] } } },
        }],
    })
}

fn run(listener: &Value, port: u16) -> Handle {
    let bootstrap = json!({
        "node": { "id": "n", "cluster": "c" },
        "static_resources": { "listeners": [listener], "clusters": [{
            "name": "sds", "type": "STATIC", "connect_timeout": "2s",
            "typed_extension_protocol_options": {},
            "load_assignment": { "cluster_name": "sds", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } }] }] },
        }] },
    });
    let text = bootstrap.to_string();
    let source = Source {
        name: "test.json",
        text: &text,
    };
    let loaded = load(&[source], &Overrides::default()).unwrap();
    let (handle, client) = start(loaded, Context::files(), Options::default()).unwrap();
    tokio::spawn(client.run());
    handle
}

/// Waits until the snapshot's one secret shows this chain.
async fn until_shown(handle: &Handle, chain: &str) {
    let mut snapshots = handle.snapshots.clone();
    let shown = snapshots.wait_for(|snapshot| {
        snapshot.secrets.values().any(|secret| match &**secret {
            Secret::Certificate(c) => &*c.certificate_chain.bytes == chain.as_bytes(),
            _ => false,
        })
    });
    let shown = tokio::time::timeout(Duration::from_secs(20), shown).await;
    shown.expect("the secret never came").unwrap();
}

struct Stream {
    body: h2::RecvStream,
    send: h2::SendStream<Bytes>,
    buffer: BytesMut,
}

impl Stream {
    async fn accept(socket: &TcpListener) -> Self {
        let (stream, _) = socket.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        assert_eq!(
            request.uri().path(),
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        );
        let head = http::Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let send = respond.send_response(head, false).unwrap();
        Self {
            body: request.into_body(),
            send,
            buffer: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> DiscoveryRequest {
        loop {
            if self.buffer.len() >= 5 {
                let len = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + len {
                    self.buffer.advance(5);
                    return DiscoveryRequest::decode(self.buffer.split_to(len)).unwrap();
                }
            }
            let data = self.body.data().await.expect("the stream ended").unwrap();
            self.body
                .flow_control()
                .release_capacity(data.len())
                .unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    fn answer(&mut self, version: &str, secret: &Value) {
        let response = DiscoveryResponse {
            version_info: version.into(),
            nonce: format!("nonce {version}"),
            type_url: format!("type.googleapis.com/{SECRET}"),
            resources: vec![Any {
                type_url: format!("type.googleapis.com/{SECRET}"),
                value: json::to_wire(SECRET, secret).unwrap(),
            }],
            ..Default::default()
        };
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(response.encoded_len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&response.encode_to_vec());
        self.send.send_data(frame.into(), false).unwrap();
    }
}

#[tokio::test]
async fn a_secret_over_a_stream_of_its_own() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = json!({ "resource_api_version": "V3", "initial_fetch_timeout": "0s",
        "api_config_source": { "api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds" } }] } });
    let handle = run(&listener(source), socket.local_addr().unwrap().port());
    assert!(
        !handle.snapshots.borrow().initialized,
        "the start waits for the secret"
    );
    let mut stream = Stream::accept(&socket).await;
    let first = stream.next().await;
    assert_eq!(first.resource_names, ["default"]);
    assert_eq!(first.node.unwrap().id, "n");
    let (chain, key) = issue("a");
    stream.answer("1", &secret(&chain, &key));
    let ack = stream.next().await;
    assert_eq!((&*ack.version_info, &*ack.response_nonce), ("1", "nonce 1"));
    assert!(ack.error_detail.is_none());
    until_shown(&handle, &chain).await;
    assert!(handle.snapshots.borrow().initialized);

    // A key of another certificate would serve nobody: refused, the first one stays.
    stream.answer("2", &secret(&chain, &issue("b").1));
    let nack = stream.next().await;
    assert_eq!(
        (&*nack.version_info, &*nack.response_nonce),
        ("1", "nonce 2")
    );
    assert!(nack.error_detail.unwrap().message.contains("private_key"));
    until_shown(&handle, &chain).await;

    let (chain, key) = issue("c");
    stream.answer("3", &secret(&chain, &key));
    assert_eq!(stream.next().await.version_info, "3");
    until_shown(&handle, &chain).await;
    drop(stream);

    let mut again = Stream::accept(&socket).await;
    let first = again.next().await;
    assert_eq!(first.version_info, "3", "the version is told again");
    let (chain, key) = issue("d");
    again.answer("4", &secret(&chain, &key));
    until_shown(&handle, &chain).await;
}

fn write(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn in_file(secret: &Value) -> String {
    let mut resource = secret.clone();
    resource["@type"] = json!(format!("type.googleapis.com/{SECRET}"));
    json!({ "resources": [resource] }).to_string()
}

#[tokio::test]
async fn a_secret_in_a_watched_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sds.json");
    let (chain, key) = issue("a");
    write(&file, &in_file(&secret(&chain, &key)));
    let source = json!({ "path_config_source": {
        "path": file, "watched_directory": { "path": folder.path() } } });
    let handle = run(&listener(source), 1);
    assert!(
        handle.snapshots.borrow().initialized,
        "the file was there from the start"
    );
    until_shown(&handle, &chain).await;
    write(&file, "{ \"resources\": [");
    let (chain, key) = issue("b");
    write(&file, &in_file(&secret(&chain, &key)));
    until_shown(&handle, &chain).await;
}

/// As a mounted secret turns: the certificate first, its key later.
#[tokio::test]
async fn files_that_a_secret_names() {
    let folder = tempfile::tempdir().unwrap();
    let [file, chain_file, key_file] =
        ["sds.yaml", "tls.crt", "tls.key"].map(|name| folder.path().join(name));
    let (chain, key) = issue("a");
    write(&chain_file, &chain);
    write(&key_file, &key);
    write(
        &file,
        &in_file(&json!({ "name": "default", "tls_certificate": {
                "certificate_chain": { "filename": chain_file },
                "private_key": { "filename": key_file } } })),
    );
    let source = json!({ "path_config_source": { "path": file } });
    let handle = run(&listener(source), 1);
    until_shown(&handle, &chain).await;
    let (new_chain, new_key) = issue("b");
    write(&chain_file, &new_chain);
    // Two looks at the files: the pair that does not fit is not taken.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    until_shown(&handle, &chain).await;
    write(&key_file, &new_key);
    until_shown(&handle, &new_chain).await;
}
