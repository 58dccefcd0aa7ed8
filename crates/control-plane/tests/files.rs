//! A control plane over a folder of YAML: it serves, shows its pages, follows changes of the
//! folder and of the mesh settings, and keeps the last good state of a broken file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use lateen_control_plane::{ControlPlaneOptions, Running, start};
use lateen_process::stop;
use lateen_xds_proto::envoy::config::core::v3::Node;
use lateen_xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_xds_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use lateen_xds_proto::type_url;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

const BOOKINFO: &str = include_str!("scenarios/bookinfo/input.yaml");
const ROUTE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
    metadata: {name: reviews, namespace: default}\n\
    spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}\n";

async fn control_plane(folder: &Path, mesh: Option<&Path>) -> (stop::Stopper, Running) {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (stopper, stop) = stop::pair();
    let options = ControlPlaneOptions {
        mesh_config: mesh.map(Into::into),
        http_address: Some(free),
        ..ControlPlaneOptions::files(folder, free)
    };
    (stopper, start(options, stop).await.expect("starts"))
}

async fn page(running: &Running, path: &str) -> String {
    let address = running.bound.http.expect("bound");
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("listens");
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("reads");
    text.split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or(text)
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !done().await {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_what_the_folder_holds_and_follow_it() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("bookinfo.yaml"), BOOKINFO).expect("written");
    let mesh = folder.path().join("mesh.txt");
    std::fs::write(&mesh, "accessLogFile: /dev/stdout\n").expect("written");
    let (stopper, running) = control_plane(folder.path(), Some(&mesh)).await;
    until("readiness", async || {
        page(&running, "/ready").await.is_empty()
    })
    .await;

    // Row E03: the page is grepped for a cluster and the lines after it.
    let edsz = page(&running, "/debug/edsz").await;
    let want = "\"clusterName\": \"outbound|9080||productpage.default.svc.cluster.local\"";
    let lines: Vec<&str> = edsz.lines().collect();
    let at = lines
        .iter()
        .position(|l| l.trim() == format!("{want},"))
        .expect("the cluster is there");
    let after = lines[at..at + 28].join("\n");
    for part in [
        "\"endpoints\"",
        "\"lbEndpoints\"",
        "\"socketAddress\"",
        "\"address\": \"192.168.249.2\"",
        "\"portValue\": 9080",
        "\"filterMetadata\"",
        "\"uid\": \"kubernetes://productpage-v1-1.default\"",
    ] {
        assert!(
            after.contains(part),
            "{part} within 27 lines of the name:\n{after}"
        );
    }
    assert!(lines[at].starts_with("    \""), "two spaces a level");
    // Row E14: a subset lists its own pods only.
    let all: Value = serde_json::from_str(&edsz).expect("JSON");
    let of = |name: &str| {
        let mut all = all.as_array().into_iter().flatten();
        all.find(|a| a["clusterName"] == name)
            .cloned()
            .unwrap_or_default()
            .to_string()
    };
    let v1 = of("outbound|9080|v1|reviews.default.svc.cluster.local");
    assert!(
        v1.contains("192.168.249.21") && !v1.contains("192.168.249.22"),
        "{v1}"
    );

    let mesh_page = async || page(&running, "/debug/mesh").await;
    assert!(
        mesh_page()
            .await
            .contains("\"accessLogFile\": \"/dev/stdout\"")
    );
    std::fs::write(&mesh, "accessLogFile: ''\naccessLogEncoding: JSON\n").expect("written");
    until("new mesh settings", async || {
        mesh_page().await.contains("\"JSON\"")
    })
    .await;

    let configz = async || page(&running, "/debug/configz").await;
    let rule = folder.path().join("reviews.yaml");
    std::fs::write(&rule, ROUTE).expect("written");
    until("the new rule", async || {
        configz().await.contains("\"name\": \"reviews\"")
    })
    .await;
    std::fs::write(&rule, "apiVersion: [broken\n").expect("written");
    let push = async || page(&running, "/debug/push_status").await;
    until("the complaint", async || {
        push().await.contains("reviews.yaml")
    })
    .await;
    assert!(
        configz().await.contains("subset"),
        "the last good rule stays"
    );
    for name in [
        "registryz",
        "endpointShardz",
        "syncz",
        "adsz",
        "connections",
        "list",
        "inject",
        "clusterz",
        "networkz",
        "resourcesz",
        "instancesz",
    ] {
        let text = page(&running, &format!("/debug/{name}")).await;
        serde_json::from_str::<Value>(&text).unwrap_or_else(|e| panic!("{name}: {e}: {text}"));
    }
    let metrics = page(&running, "/metrics").await;
    assert!(metrics.contains("pilot_services 6"), "{metrics}");
    stopper.stop();
    running.finished().await.expect("a clean end");
}

/// A client that speaks state-of-the-world ADS by hand.
struct Client {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: tonic::Streaming<DiscoveryResponse>,
}

impl Client {
    async fn connect(running: &Running) -> Self {
        let address = running.bound.xds.expect("bound");
        let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}"))
            .await
            .expect("connects")
            .max_decoding_message_size(64 << 20);
        let (requests, outgoing) = mpsc::channel(8);
        let stream = client.stream_aggregated_resources(ReceiverStream::new(outgoing));
        let responses = stream.await.expect("a stream").into_inner();
        Self {
            requests,
            responses,
        }
    }

    async fn ask(&self, url: &str, names: &[&str], answer: Option<&DiscoveryResponse>) {
        let id = "sidecar~192.168.249.2~productpage-v1-1.default~default.svc.cluster.local";
        let request = DiscoveryRequest {
            node: Some(Node {
                id: id.into(),
                cluster: "t".into(),
                ..Node::default()
            }),
            type_url: url.to_owned(),
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            response_nonce: answer.map(|a| a.nonce.clone()).unwrap_or_default(),
            version_info: answer.map(|a| a.version_info.clone()).unwrap_or_default(),
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.expect("open");
    }

    async fn next(&mut self) -> Option<DiscoveryResponse> {
        let wait = tokio::time::timeout(Duration::from_secs(5), self.responses.next()).await;
        wait.ok().flatten().and_then(Result::ok)
    }
}

/// Row D19: all four types are answered and acknowledged, and a change of a route is sent as
/// routes and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_pushes_only_its_type() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("bookinfo.yaml"), BOOKINFO).expect("written");
    let (_stopper, running) = control_plane(folder.path(), None).await;
    let mut client = Client::connect(&running).await;
    let cluster = "outbound|9080||reviews.default.svc.cluster.local";
    for (url, names) in [
        (type_url::CLUSTER, &[][..]),
        (type_url::ENDPOINT, &[cluster][..]),
        (type_url::LISTENER, &[][..]),
        (type_url::ROUTE, &["9080"][..]),
    ] {
        client.ask(url, names, None).await;
        let answer = client.next().await.expect("an answer");
        assert_eq!(answer.type_url, url);
        assert!(!answer.resources.is_empty(), "{url}");
        client.ask(url, names, Some(&answer)).await;
    }
    std::fs::write(folder.path().join("reviews.yaml"), ROUTE).expect("written");
    let pushed = client.next().await.expect("a push");
    assert_eq!(pushed.type_url, type_url::ROUTE);
    client.ask(type_url::ROUTE, &["9080"], Some(&pushed)).await;
    let more = tokio::time::timeout(Duration::from_millis(300), client.next()).await;
    assert!(
        more.is_err(),
        "nothing else changed: {:?}",
        more.map(|m| m.map(|m| m.type_url))
    );
    // A pod more is endpoints and nothing else.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: reviews-v1-2, namespace: default, \
        labels: {app: reviews, version: v1}}\nspec: {containers: [{name: r, image: r}]}\n\
        status: {podIP: 192.168.249.99, phase: Running, conditions: [{type: Ready, status: 'True'}]}\n";
    std::fs::write(folder.path().join("pod.yaml"), pod).expect("written");
    let pushed = client.next().await.expect("a push");
    assert_eq!(pushed.type_url, type_url::ENDPOINT);
    let more = tokio::time::timeout(Duration::from_millis(300), client.next()).await;
    assert!(more.is_err(), "nothing else changed");
}
