//! The ADS client against a small management server on a loopback socket: order of requests,
//! snapshots, refusal, reconnect with versions.
#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/stream.rs"]
mod stream;

use std::time::Duration;

use lateen_proxy_xds::ads::{Handle, Options, start};
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use lateen_proxy_xds::kind::Kind;
use lateen_xds_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use serde_json::{Value, json};
use stream::{Stream, any};
use tokio::net::TcpListener;

const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// One ADS stream as the server holds it.
struct Ads(Stream);

impl Ads {
    async fn accept(listener: &TcpListener) -> Self {
        Self(Stream::accept(listener, PATH).await)
    }

    async fn next(&mut self) -> DiscoveryRequest {
        self.0.next().await
    }

    /// The next request as `(type, version, nonce, names, refused)`.
    async fn seen(&mut self) -> (Kind, String, String, Vec<String>, bool) {
        let r = self.next().await;
        (
            Kind::from_url(&r.type_url).unwrap(),
            r.version_info,
            r.response_nonce,
            r.resource_names,
            r.error_detail.is_some(),
        )
    }

    fn answer(&mut self, kind: Kind, version: &str, nonce: &str, resources: &[(&str, Value)]) {
        let resources = resources.iter().map(|(name, value)| any(name, value));
        self.0.send(&DiscoveryResponse {
            version_info: version.into(),
            nonce: nonce.into(),
            type_url: kind.type_url().into(),
            resources: resources.collect(),
            ..Default::default()
        });
    }
}

fn bootstrap(port: u16) -> String {
    format!(
        r#"
node: {{ id: test, cluster: test }}
dynamic_resources:
  ads_config: {{ api_type: GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [ {{ envoy_grpc: {{ cluster_name: xds }} }} ] }}
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    http2_protocol_options: {{}}
    load_assignment: {{ cluster_name: xds, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }} ] }} ] }}
"#
    )
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "envoy.config.listener.v3.Listener";

fn cluster(name: &str) -> (&'static str, Value) {
    (
        CLUSTER,
        json!({ "name": name, "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } } }),
    )
}

fn endpoints(name: &str) -> (&'static str, Value) {
    let address = json!({ "socket_address": { "address": "10.0.0.1", "port_value": 80 } });
    (
        ENDPOINTS,
        json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] }),
    )
}

fn listener(name: &str, cluster: &str) -> (&'static str, Value) {
    let tcp = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t", "cluster": cluster,
    });
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 1 } });
    (
        LISTENER,
        json!({ "name": name, "address": address, "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": tcp }] }] }),
    )
}

async fn until(
    handle: &mut Handle,
    what: &str,
    ok: impl Fn(&lateen_proxy_core::config::Snapshot) -> bool,
) {
    let wait = handle.snapshots.wait_for(|s| ok(s));
    if tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .is_err()
    {
        panic!("{what} did not happen: {:?}", handle.status());
    }
}

#[tokio::test]
async fn a_life_with_a_management_server() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = bootstrap(server.local_addr().unwrap().port());
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret-token\n").unwrap();
    let loaded = load(
        &[Source {
            name: "b",
            text: &text,
        }],
        &Overrides::default(),
    )
    .unwrap();
    let options = Options {
        token_file: Some(token.path().to_owned()),
    };
    let (mut handle, client) = start(loaded, Context::empty(), options).unwrap();
    assert!(!handle.snapshots.borrow().initialized);
    let task = tokio::spawn(client.run());

    let mut s = Ads::accept(&server).await;
    assert_eq!(s.0.authorization, "Bearer secret-token");
    let first = s.next().await;
    assert_eq!(
        (first.type_url.as_str(), first.node.unwrap().id.as_str()),
        (Kind::Cluster.type_url(), "test")
    );
    s.answer(Kind::Cluster, "1", "a", &[cluster("c")]);
    assert_eq!(
        s.seen().await,
        (
            Kind::Endpoints,
            String::new(),
            String::new(),
            vec!["c".to_owned()],
            false
        )
    );
    assert_eq!(
        s.seen().await,
        (Kind::Cluster, "1".into(), "a".into(), vec![], false)
    );
    s.answer(Kind::Endpoints, "1", "b", &[endpoints("c")]);
    assert_eq!(s.seen().await.0, Kind::Listener);
    assert_eq!(s.seen().await.0, Kind::Endpoints);
    s.answer(Kind::Listener, "1", "c", &[listener("l", "c")]);
    assert_eq!(
        s.seen().await,
        (Kind::Listener, "1".into(), "c".into(), vec![], false)
    );
    until(&mut handle, "initialized", |s| {
        s.initialized && s.listeners.len() == 1 && s.endpoints.len() == 1
    })
    .await;

    // A bad listener is refused, the old one serves on.
    let mut bad = listener("l", "c");
    bad.1["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = json!("");
    let mut other = listener("m", "c");
    other.1["address"]["socket_address"]["port_value"] = json!(2);
    s.answer(Kind::Listener, "2", "d", &[bad, other]);
    let (kind, version, nonce, _, refused) = s.seen().await;
    assert_eq!(
        (kind, version.as_str(), nonce.as_str(), refused),
        (Kind::Listener, "1", "d", true)
    );
    until(&mut handle, "second listener", |s| s.listeners.len() == 2).await;
    assert_eq!(handle.status().outcomes(Kind::Listener).rejected, 1);
    let dump = handle.config_dump(false).to_string();
    assert!(dump.contains("error_state") && dump.contains("\"dynamic_listeners\""));

    // The server goes and comes back: everything is asked for again, with versions.
    drop(s);
    let mut s = Ads::accept(&server).await;
    assert_eq!(
        s.seen().await,
        (Kind::Cluster, "1".into(), String::new(), vec![], false)
    );
    assert_eq!(
        s.seen().await,
        (
            Kind::Endpoints,
            "1".into(),
            String::new(),
            vec!["c".to_owned()],
            false
        )
    );
    assert_eq!(
        s.seen().await,
        (Kind::Listener, "1".into(), String::new(), vec![], false)
    );
    assert_eq!(
        handle.snapshots.borrow().listeners.len(),
        2,
        "the configuration stays meanwhile"
    );
    s.answer(Kind::Listener, "3", "e", &[listener("m", "c")]);
    until(&mut handle, "removal", |s| s.listeners.len() == 1).await;
    task.abort();
}

#[tokio::test]
async fn no_server_means_no_configuration_and_no_panic() {
    // A port that nobody listens on any more.
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let loaded = load(
        &[Source {
            name: "b",
            text: &bootstrap(port),
        }],
        &Overrides::default(),
    )
    .unwrap();
    let (handle, client) = start(loaded, Context::empty(), Options::default()).unwrap();
    let task = tokio::spawn(client.run());
    for _ in 0..100 {
        if !handle.status().last_error.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        handle.status().last_error.contains("refused"),
        "{:?}",
        handle.status()
    );
    assert!(!handle.snapshots.borrow().initialized);
    task.abort();
}
