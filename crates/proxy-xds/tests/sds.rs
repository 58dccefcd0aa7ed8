//! Secrets over a stream of their own and from watched files: what waits for
//! them, acknowledgement, refusal of what could not serve, rotation.
#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/stream.rs"]
mod stream;

use std::path::Path;
use std::time::Duration;

use lateen_proxy_core::config::tls::Secret;
use lateen_proxy_xds::ads::{Handle, Options, start};
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use lateen_xds_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use serde_json::{Value, json};
use stream::{Stream, any};
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

const STREAM: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
const DELTA: &str = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";

fn answer(stream: &mut Stream, version: &str, secret: &Value) {
    stream.send(&DiscoveryResponse {
        version_info: version.into(),
        nonce: format!("nonce {version}"),
        type_url: format!("type.googleapis.com/{SECRET}"),
        resources: vec![any(SECRET, secret)],
        ..Default::default()
    });
}

fn answer_delta(stream: &mut Stream, version: &str, secret: &Value) {
    stream.send(&DeltaDiscoveryResponse {
        system_version_info: version.into(),
        nonce: format!("nonce {version}"),
        type_url: format!("type.googleapis.com/{SECRET}"),
        resources: vec![Resource {
            name: "default".into(),
            version: version.into(),
            resource: Some(any(SECRET, secret)),
            ..Default::default()
        }],
        ..Default::default()
    });
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
    let mut stream = Stream::accept(&socket, STREAM).await;
    let first: DiscoveryRequest = stream.next().await;
    assert_eq!(first.resource_names, ["default"]);
    assert_eq!(first.node.unwrap().id, "n");
    assert_eq!(stream.authorization, "");
    let (chain, key) = issue("a");
    answer(&mut stream, "1", &secret(&chain, &key));
    let ack: DiscoveryRequest = stream.next().await;
    assert_eq!((&*ack.version_info, &*ack.response_nonce), ("1", "nonce 1"));
    assert!(ack.error_detail.is_none());
    until_shown(&handle, &chain).await;
    assert!(handle.snapshots.borrow().initialized);

    // A key of another certificate would serve nobody: refused, the first one stays.
    answer(&mut stream, "2", &secret(&chain, &issue("b").1));
    let nack: DiscoveryRequest = stream.next().await;
    assert_eq!(
        (&*nack.version_info, &*nack.response_nonce),
        ("1", "nonce 2")
    );
    assert!(nack.error_detail.unwrap().message.contains("private_key"));
    until_shown(&handle, &chain).await;
    let updates = || handle.world().secret_updates(handle.tally())["default"];
    let counts = updates();
    assert_eq!((counts.attempts, counts.accepted), (3, 1));
    assert_eq!((counts.rejected, counts.failed), (1, 0));

    let (chain, key) = issue("c");
    answer(&mut stream, "3", &secret(&chain, &key));
    let ack: DiscoveryRequest = stream.next().await;
    assert_eq!(ack.version_info, "3");
    until_shown(&handle, &chain).await;
    drop(stream);

    let mut again = Stream::accept(&socket, STREAM).await;
    let first: DiscoveryRequest = again.next().await;
    assert_eq!(first.version_info, "3", "the version is told again");
    let (chain, key) = issue("d");
    answer(&mut again, "4", &secret(&chain, &key));
    until_shown(&handle, &chain).await;
}

/// Waits until the snapshot's one secret is these roots.
async fn until_trusted(handle: &Handle, roots: &str) {
    let mut snapshots = handle.snapshots.clone();
    let trusted = snapshots.wait_for(|snapshot| {
        snapshot.secrets.values().any(|secret| match &**secret {
            Secret::Validation(rules) => {
                let own = rules.trusted_ca.as_ref();
                own.is_some_and(|own| &*own.bytes == roots.as_bytes())
            }
            _ => false,
        })
    });
    let trusted = tokio::time::timeout(Duration::from_secs(20), trusted).await;
    trusted.expect("the roots never came").unwrap();
}

/// Roots over the delta form: they turn, what cannot be read is refused, and a new stream tells
/// what is known.
#[tokio::test]
async fn roots_over_a_delta_stream_of_their_own() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = json!({ "resource_api_version": "V3", "initial_fetch_timeout": "0s",
        "api_config_source": { "api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds" } }] } });
    let mut listener = listener(Value::Null);
    let (chain, key) = issue("own");
    listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"] = json!({
        "tls_certificates": [secret(&chain, &key)["tls_certificate"]],
        "validation_context_sds_secret_config": { "name": "default", "sds_config": source } });
    let roots = |pem: &str| json!({ "name": "default", "validation_context": { "trusted_ca": { "inline_string": pem } } });
    let handle = run(&listener, socket.local_addr().unwrap().port());
    let mut stream = Stream::accept(&socket, DELTA).await;
    let first: DeltaDiscoveryRequest = stream.next().await;
    assert_eq!(first.resource_names_subscribe, ["default"]);
    assert!(first.initial_resource_versions.is_empty());
    let first = issue("a").0;
    answer_delta(&mut stream, "1", &roots(&first));
    let ack: DeltaDiscoveryRequest = stream.next().await;
    assert_eq!((&*ack.response_nonce, ack.error_detail), ("nonce 1", None));
    until_trusted(&handle, &first).await;

    answer_delta(&mut stream, "2", &roots("no certificate"));
    let nack: DeltaDiscoveryRequest = stream.next().await;
    assert_eq!(nack.response_nonce, "nonce 2");
    assert!(nack.error_detail.unwrap().message.contains("trusted_ca"));
    until_trusted(&handle, &first).await;

    let both = first + &issue("b").0;
    answer_delta(&mut stream, "3", &roots(&both));
    let ack: DeltaDiscoveryRequest = stream.next().await;
    assert_eq!((&*ack.response_nonce, ack.error_detail), ("nonce 3", None));
    until_trusted(&handle, &both).await;
    drop(stream);

    let mut again = Stream::accept(&socket, DELTA).await;
    let known: DeltaDiscoveryRequest = again.next().await;
    assert_eq!(known.initial_resource_versions["default"], "3");
    let last = issue("c").0;
    answer_delta(&mut again, "4", &roots(&last));
    until_trusted(&handle, &last).await;
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

/// Waits until so many updates were (taken, refused, not read).
async fn until_counted(handle: &Handle, want: (u64, u64, u64)) {
    let counted = async {
        loop {
            let all = handle.world().secret_updates(handle.tally());
            let one = all.get("default").copied().unwrap_or_default();
            if (one.accepted, one.rejected, one.failed) == want {
                return one;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(20), counted).await;
    let one = counted.unwrap_or_else(|_| panic!("never {want:?}"));
    assert_eq!((one.attempts, one.timed_out), (want.0 + want.1 + want.2, 0));
    assert_eq!(one.updated_ms > 0, want.0 > 0);
}

/// Counted as Envoy does; what was there stays, and nothing waits for a file that is wrong.
#[tokio::test]
async fn a_watched_file_that_cannot_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sds.yaml");
    write(&file, "resources: [{bad");
    let source = json!({ "path_config_source": { "path": file } });
    let handle = run(&listener(source), 1);
    assert!(
        handle.snapshots.borrow().initialized,
        "nothing is to be waited for"
    );
    until_counted(&handle, (0, 0, 1)).await;
    let (chain, key) = issue("a");
    let good = secret(&chain, &key);
    write(&file, &in_file(&good));
    until_shown(&handle, &chain).await;
    until_counted(&handle, (1, 0, 1)).await;
    let (mut unknown, mut other) = (good.clone(), good);
    unknown["tls_certificat"] = json!({});
    write(&file, &in_file(&unknown));
    until_counted(&handle, (1, 1, 1)).await;
    other["name"] = json!("other");
    write(&file, &in_file(&other));
    until_counted(&handle, (1, 2, 1)).await;
    write(&file, &in_file(&secret(&chain, &issue("b").1)));
    until_counted(&handle, (1, 3, 1)).await;
    std::fs::remove_file(&file).unwrap();
    until_counted(&handle, (1, 3, 2)).await;
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
