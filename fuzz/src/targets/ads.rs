//! Both ends of ADS: whatever a proxy asks of the control plane, and whatever a management server
//! answers our proxy, in any order.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use lateen_compile::{Compiler, EndpointCompiler, EndpointOptions};
use lateen_control_plane::ads::{Ads, Caller, Connections};
use lateen_control_plane::store::{Configuration, Store};
use lateen_model::MeshConfig;
use lateen_proxy_xds::ads::{Deframer, Options, Request, Response, State, start};
use lateen_proxy_xds::bootstrap::{self, Overrides, Source};
use lateen_proxy_xds::decode::Context;
use lateen_proxy_xds::world::Now;
use lateen_proxy_xds::{Kind, World};
use lateen_resources::{ObjectSet, read_yaml};
use lateen_xds::{Features, ResourceType};
use lateen_xds_proto::envoy::service::discovery::v3 as pb;
use lateen_xds_proto::{Message, json};
use pb::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use tokio::sync::mpsc;
use tonic::codegen::Service as _;

use super::mesh;
use crate::Target;
use crate::bytes::{choice, seeds_after, text};
use crate::runtime::{pieces, run_paused, settle};

const WORDS: &[&str] = &[
    "{\"type_url\":\"type.googleapis.com/envoy.config.cluster.v3.Cluster\"",
    "{\"type_url\":\"type.googleapis.com/envoy.config.listener.v3.Listener\"",
    "{\"type_url\":\"type.googleapis.com/envoy.config.route.v3.RouteConfiguration\"",
    "{\"type_url\":\"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\"",
    "{\"type_url\":\"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\"",
    "\"@type\":\"type.googleapis.com/envoy.service.discovery.v3.Resource\"",
    "\"@type\":\"type.googleapis.com/google.protobuf.Empty\"",
    ",\"response_nonce\":\"1\"",
    ",\"nonce\":\"a\"",
    ",\"version_info\":\"2\"",
    ",\"resource_names\":[\"*\"]",
    ",\"resource_names_subscribe\":[\"*\"]",
    ",\"resource_names_unsubscribe\":[\"*\"]",
    ",\"removed_resources\":[\"c\"]",
    ",\"initial_resource_versions\":{\"a\":\"1\"}",
    ",\"error_detail\":{\"message\":\"m\"}",
    ",\"node\":{\"id\":\"router~10.1.0.1~a.default~x\"}",
    "\"metadata\":{\"NAMESPACE\":\"default\",\"INSTANCE_IPS\":\",,\"}",
    "\"resources\":[",
    "\nchange\n",
    "\nreconnect\n",
    "\nwait 6000\n",
    "\nwait 99999999999\n",
    "}\n",
];

/// The requests of a proxy, as lines of JSON or as the bytes of a gRPC stream.
pub const SERVER: Target = Target {
    name: "ads_server",
    run: server,
    seeds: server_seeds,
    words: WORDS,
    rounds: 60,
};

/// The responses that our proxy gets, as lines of JSON or as the bytes of a gRPC stream.
pub const CLIENT: Target = Target {
    name: "ads_client",
    run: client,
    seeds: client_seeds,
    words: WORDS,
    rounds: 500,
};

/// Options of both: the dialect.
const DELTA: u8 = 1;
/// Bytes instead of lines.
const RAW: u8 = 2;
/// A caller who proved to be a service account of the namespace `default`.
const ACCOUNT: u8 = 4;

fn server_seeds() -> Vec<Vec<u8>> {
    const NODE: &str = r#""node":{"id":"sidecar~10.1.0.1~reviews-v1.default~default.svc.cluster.local","metadata":{"NAMESPACE":"default","LABELS":{"app":"reviews"},"INSTANCE_IPS":"10.1.0.1,fd00::1","INTERCEPTION_MODE":"TPROXY","DNS_CAPTURE":"true"},"locality":{"region":"r"},"extensions":[{"name":"envoy.filters.http.router"}]}"#;
    let cds = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    let rds = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    let lds = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let reviews = "outbound|9080||reviews.default.svc.cluster.local";
    let sotw = format!(
        "{{\"type_url\":\"{cds}\",{NODE}}}\n{{\"type_url\":\"{eds}\",\"resource_names\":[\"{reviews}\"]}}\n\
         {{\"type_url\":\"{cds}\",\"response_nonce\":\"1\",\"version_info\":\"v1\"}}\n{{\"type_url\":\"{lds}\"}}\nchange\n\
         {{\"type_url\":\"{rds}\",\"resource_names\":[\"9080\",\"x\"]}}\n\
         {{\"type_url\":\"{lds}\",\"response_nonce\":\"3\",\"error_detail\":{{\"message\":\"no\"}}}}\nchange\n"
    );
    let delta = format!(
        "{{\"type_url\":\"{cds}\",{NODE},\"initial_resource_versions\":{{\"{reviews}\":\"5\",\"gone\":\"x\"}}}}\n\
         {{\"type_url\":\"{eds}\",\"resource_names_subscribe\":[\"{reviews}\",\"*\"]}}\nchange\n\
         {{\"type_url\":\"{cds}\",\"response_nonce\":\"1\",\"resource_names_unsubscribe\":[\"*\"]}}\n\
         {{\"type_url\":\"{eds}\",\"resource_names_unsubscribe\":[\"{reviews}\"]}}\n{{\"type_url\":\"{lds}\"}}\nchange\n"
    );
    let router = format!(
        "{{\"type_url\":\"{lds}\",\"node\":{{\"id\":\"router~10.1.0.1~g.istio-system~istio-system.svc.cluster.local\"}}}}\n"
    );
    let mut list = seeds_after(0, &[&sotw, &router]);
    list.extend(seeds_after(DELTA, &[&delta]));
    list.extend(seeds_after(ACCOUNT, &[&sotw, &router]));
    let request = pb::DiscoveryRequest {
        type_url: cds.to_owned(),
        ..Default::default()
    };
    list.push([&[RAW][..], &framed(&request)].concat());
    list
}

fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &bytes].concat()
}

/// Two configurations of one mesh, to change between.
fn configurations() -> [Configuration; 2] {
    let texts = mesh::texts();
    [&texts[..2], &texts[..]].map(|texts| {
        let mut objects = ObjectSet::default();
        for object in read_yaml(&texts.join("---\n"), "any.yaml", "default").objects {
            objects.insert(Arc::new(object));
        }
        let snapshot = Compiler::new(MeshConfig::default())
            .compile(&objects)
            .snapshot;
        let mut endpoints = EndpointCompiler::new(EndpointOptions { from_pods: true });
        endpoints.rebuild(&objects, &snapshot);
        Configuration {
            number: 1,
            version: "v1".to_owned(),
            endpoints: endpoints.table(),
            snapshot,
            objects: Arc::new(objects),
            diagnostics: Arc::default(),
            noticed: Instant::now(),
        }
    })
}

/// The body of a request as it arrives.
struct Arriving(mpsc::Receiver<Bytes>);

impl Body for Arriving {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|d| Ok(Frame::data(d))))
    }
}

/// What happens on a stream to the control plane.
enum Step {
    Data(Vec<u8>),
    Change,
}

fn steps(input: &[u8], option: u8) -> Option<Vec<Step>> {
    if option & RAW != 0 {
        let data = pieces(input, true).into_iter().map(<[u8]>::to_vec);
        return Some(data.map(Step::Data).collect());
    }
    let message = match option & DELTA {
        0 => "envoy.service.discovery.v3.DiscoveryRequest",
        _ => "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    };
    let mut list = Vec::new();
    for line in text(input)?.lines().take(40) {
        if line == "change" {
            list.push(Step::Change);
        } else if let Ok(value) = serde_json::from_str(line)
            && let Ok(wire) = json::to_wire(message, &value)
        {
            let length = u32::try_from(wire.len()).unwrap_or(u32::MAX);
            list.push(Step::Data(
                [&[0][..], &length.to_be_bytes(), &wire].concat(),
            ));
        }
    }
    Some(list)
}

fn server(data: &[u8]) {
    let (option, input) = choice(data);
    if let Some(steps) = steps(input, option) {
        answers(steps, option, input.len());
    }
}

/// The nonces of the answers.
fn answers(steps: Vec<Step>, option: u8, length: usize) -> Vec<String> {
    let asked = steps.len();
    let body = run_paused(serve(steps, option));
    let mut deframer = Deframer::default();
    deframer.push(&body);
    let mut nonces = Vec::new();
    while let Some(message) = deframer.next().expect("frames of ours") {
        nonces.push(match option & DELTA {
            0 => sotw_answer(&message),
            _ => delta_answer(&message),
        });
    }
    // An answer to each request, endpoints behind clusters, and all types after a change.
    let most = asked.max(length / 5) * ResourceType::PUSH_ORDER.len() * 2 + 8;
    assert!(nonces.len() <= most, "{} answers", nonces.len());
    let count = nonces.len();
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), count, "a nonce twice");
    nonces
}

fn sotw_answer(message: &[u8]) -> String {
    let answer = pb::DiscoveryResponse::decode(message).expect("an answer of ours");
    assert!(ResourceType::from_type_url(&answer.type_url).is_some());
    let of_type = |any: &lateen_xds_proto::Any| any.type_url == answer.type_url;
    assert!(answer.resources.iter().all(of_type));
    answer.nonce
}

fn delta_answer(message: &[u8]) -> String {
    let answer = pb::DeltaDiscoveryResponse::decode(message).expect("an answer of ours");
    assert!(ResourceType::from_type_url(&answer.type_url).is_some());
    let mut names: Vec<&str> = answer.resources.iter().map(|r| r.name.as_str()).collect();
    names.extend(answer.removed_resources.iter().map(String::as_str));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name twice, or sent and removed");
    answer.nonce
}

async fn serve(steps: Vec<Step>, option: u8) -> Vec<u8> {
    thread_local! {
        static CONFIGURATIONS: [Configuration; 2] = configurations();
    }
    let publish = |store: &Store, number: u64| {
        let even = usize::from(number.is_multiple_of(2));
        let next = CONFIGURATIONS.with(|both| both[even].clone());
        store.publish(Configuration { number, ..next });
    };
    let store = Arc::new(Store::new(Features::default()));
    publish(&store, 1);
    let connections = Arc::new(Connections::default());
    let (_stopper, stop) = lateen_process::stop::pair();
    let ads = Ads::new(store.clone(), connections.clone(), Arc::default(), stop);
    let (sender, receiver) = mpsc::channel(64);
    let path = match option & DELTA {
        0 => "StreamAggregatedResources",
        _ => "DeltaAggregatedResources",
    };
    let mut request = http::Request::post(format!(
        "http://istiod/envoy.service.discovery.v3.AggregatedDiscoveryService/{path}"
    ))
    .header("content-type", "application/grpc")
    .body(Arriving(receiver))
    .expect("a request");
    if option & ACCOUNT != 0 {
        request.extensions_mut().insert(Caller::ServiceAccount {
            namespace: "default".to_owned(),
            name: "reviews".to_owned(),
        });
    }
    let mut service = AggregatedDiscoveryServiceServer::new(ads);
    let answer = service
        .call(request)
        .await
        .unwrap_or_else(|never| match never {});
    let reading = tokio::spawn(answer.into_body().collect());
    let mut number = 1;
    for step in steps {
        match step {
            // A stream that was refused takes no more.
            Step::Data(data) => drop(sender.send(data.into()).await),
            Step::Change => {
                number += 1;
                publish(&store, number);
            }
        }
        settle().await;
    }
    drop(sender);
    let ended = tokio::time::timeout(Duration::from_secs(3600), reading).await;
    let body = ended.expect("the stream does not end").expect("no panic");
    settle().await;
    assert!(
        connections.all().is_empty(),
        "a stream that is gone is listed"
    );
    body.expect("an answer").to_bytes().to_vec()
}

fn client_seeds() -> Vec<Vec<u8>> {
    let cds = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    let lds = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let rds = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    let cluster = format!(
        r#"{{"@type":"{cds}","name":"c","type":"EDS","eds_cluster_config":{{"eds_config":{{"ads":{{}},"initial_fetch_timeout":"5s"}}}}}}"#
    );
    let endpoints = format!(
        r#"{{"@type":"{eds}","cluster_name":"c","endpoints":[{{"lb_endpoints":[{{"endpoint":{{"address":{{"socket_address":{{"address":"10.0.0.1","port_value":80}}}}}}}}]}}]}}"#
    );
    let listener = format!(
        r#"{{"@type":"{lds}","name":"l","address":{{"socket_address":{{"address":"0.0.0.0","port_value":80}}}},"filter_chains":[{{"filters":[{{"name":"h","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","stat_prefix":"x","rds":{{"route_config_name":"r","config_source":{{"ads":{{}}}}}},"http_filters":[{{"name":"router","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]}}}}]}}]}}"#
    );
    let routes = format!(
        r#"{{"@type":"{rds}","name":"r","virtual_hosts":[{{"name":"v","domains":["*"],"routes":[{{"match":{{"prefix":"/"}},"route":{{"cluster":"c"}}}}]}}]}}"#
    );
    let sotw = format!(
        "{{\"type_url\":\"{cds}\",\"nonce\":\"a\",\"version_info\":\"1\",\"resources\":[{cluster}]}}\n\
         {{\"type_url\":\"{eds}\",\"nonce\":\"b\",\"version_info\":\"1\",\"resources\":[{endpoints}]}}\n\
         {{\"type_url\":\"{lds}\",\"nonce\":\"c\",\"version_info\":\"1\",\"resources\":[{listener}]}}\nwait 100\n\
         {{\"type_url\":\"{rds}\",\"nonce\":\"d\",\"version_info\":\"1\",\"resources\":[{routes}]}}\nreconnect\n\
         {{\"type_url\":\"{cds}\",\"nonce\":\"e\",\"version_info\":\"2\",\"resources\":[{cluster},{cluster}]}}\n\
         {{\"type_url\":\"{cds}\",\"nonce\":\"f\",\"version_info\":\"3\",\"resources\":[{endpoints}]}}\n"
    );
    let named =
        |name: &str, body: &str| format!(r#"{{"name":"{name}","version":"1","resource":{body}}}"#);
    let delta = format!(
        "{{\"type_url\":\"{cds}\",\"nonce\":\"a\",\"resources\":[{}]}}\nwait 6000\n\
         {{\"type_url\":\"{lds}\",\"nonce\":\"b\",\"resources\":[{}]}}\n\
         {{\"type_url\":\"{rds}\",\"nonce\":\"c\",\"resources\":[{}],\"removed_resources\":[\"r\",\"x\"]}}\nreconnect\n\
         {{\"type_url\":\"{eds}\",\"nonce\":\"d\",\"resources\":[{},{{\"name\":\"heartbeat\"}}]}}\n\
         {{\"type_url\":\"{cds}\",\"nonce\":\"e\",\"removed_resources\":[\"c\"]}}\n",
        named("c", &cluster),
        named("l", &listener),
        named("r", &routes),
        named("c", &endpoints),
    );
    let mut list = seeds_after(0, &[&sotw]);
    list.extend(seeds_after(DELTA, &[&delta]));
    let response = pb::DiscoveryResponse {
        type_url: cds.to_owned(),
        nonce: "a".to_owned(),
        ..Default::default()
    };
    list.push([&[RAW][..], &framed(&response)].concat());
    list
}

const BOOTSTRAP: &str = r#"{"node":{"id":"n","cluster":"c"},"dynamic_resources":{
 "ads_config":{"api_type":"GRPC","grpc_services":[{"envoy_grpc":{"cluster_name":"xds"}}]},
 "cds_config":{"ads":{},"initial_fetch_timeout":"20s"},"lds_config":{"ads":{}}},
 "static_resources":{"clusters":[{"name":"xds","type":"STATIC","typed_extension_protocol_options":{
  "envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{
   "@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
   "explicit_http_config":{"http2_protocol_options":{}}}},"load_assignment":{"cluster_name":"xds"}}]}}"#;

fn response(message: &[u8], delta: bool) -> Option<Response> {
    Some(match delta {
        true => Response::Delta(pb::DeltaDiscoveryResponse::decode(message).ok()?),
        false => Response::Sotw(pb::DiscoveryResponse::decode(message).ok()?),
    })
}

fn client(data: &[u8]) {
    use lateen_proxy_core::config::bootstrap::XdsMode;
    let (option, input) = choice(data);
    let delta = option & DELTA != 0;
    let source = Source {
        name: "b",
        text: BOOTSTRAP,
    };
    let loaded = bootstrap::load(&[source], &Overrides::default()).expect("a bootstrap");
    let mode = if delta {
        XdsMode::Delta
    } else {
        XdsMode::StateOfTheWorld
    };
    let wildcard = vec![(Kind::Cluster, 20_000), (Kind::Listener, 15_000)];
    let state = State::new(mode, loaded.node.clone(), true, wildcard);
    let (handle, _client) = start(loaded, Context::empty(), Options::default()).expect("started");
    let mut end = End {
        state,
        now: Now::default(),
        versions: Default::default(),
    };
    let mut world = handle.world();
    end.connect(&mut world);
    if option & RAW != 0 {
        let mut deframer = Deframer::default();
        deframer.push(input);
        while let Ok(Some(message)) = deframer.next()
            && let Some(response) = response(&message, delta)
        {
            end.receive(response, &mut world);
        }
    } else if let Some(text) = text(input) {
        for line in text.lines().take(60) {
            end.line(line, delta, &mut world);
        }
    }
    // When all waits are over nothing is left to wait for.
    end.now.mono_ms = u64::MAX / 2;
    let requests = end.state.poll(&mut world, end.now);
    end.sent(&requests, None);
    let next = end.state.next_deadline(&world);
    assert!(
        next.is_none_or(|at| at > end.now.mono_ms),
        "a wait without end"
    );
    drop(world);
    let dump = handle.config_dump(true);
    assert!(dump.as_array().is_some_and(|all| all.len() == 7), "no dump");
}

/// The proxy's end of a stream.
struct End {
    state: State,
    now: Now,
    /// Version of the last accepted response, by type.
    versions: std::collections::BTreeMap<Kind, String>,
}

impl End {
    fn connect(&mut self, world: &mut World) {
        self.state.disconnect();
        assert!(self.state.poll(world, self.now).is_empty(), "asks nobody");
        let requests = self.state.connect(world, self.now);
        self.sent(&requests, None);
    }

    fn line(&mut self, line: &str, delta: bool, world: &mut World) {
        if line == "reconnect" {
            return self.connect(world);
        }
        if let Some(time) = line.strip_prefix("wait ") {
            let time: u64 = time.parse().unwrap_or(1000);
            self.now.mono_ms = self.now.mono_ms.saturating_add(time).min(u64::MAX / 4);
            self.now.unix_ms = self.now.mono_ms;
            let requests = self.state.poll(world, self.now);
            return self.sent(&requests, None);
        }
        let message = match delta {
            false => "envoy.service.discovery.v3.DiscoveryResponse",
            true => "envoy.service.discovery.v3.DeltaDiscoveryResponse",
        };
        if let Ok(value) = serde_json::from_str(line)
            && let Ok(wire) = json::to_wire(message, &value)
            && let Some(response) = response(&wire, delta)
        {
            self.receive(response, world);
        }
    }

    fn receive(&mut self, response: Response, world: &mut World) {
        let (url, version, nonce) = match &response {
            Response::Sotw(r) => (&r.type_url, &r.version_info, r.nonce.clone()),
            Response::Delta(r) => (&r.type_url, &r.system_version_info, r.nonce.clone()),
        };
        let (kind, version) = (Kind::from_url(url), version.clone());
        let before = (self.state.accepted, self.state.rejected);
        let requests = self.state.receive(response, world, self.now);
        let accepted = self.state.accepted > before.0;
        let rejected = self.state.rejected > before.1;
        assert!(!(accepted && rejected));
        if !accepted && !rejected {
            assert!(requests.is_empty(), "an answer to what was passed over");
            return;
        }
        let kind = kind.expect("a type that is known");
        if accepted {
            self.versions.insert(kind, version);
        }
        self.sent(&requests, Some((kind, rejected, nonce)));
        if let Some(snapshot) = world.publish() {
            for cluster in snapshot.endpoints.keys() {
                assert!(
                    snapshot.clusters.contains_key(cluster),
                    "endpoints of nobody"
                );
            }
        }
    }

    /// What is asked follows what was accepted; a refusal is said once, with its reason.
    fn sent(&self, requests: &[Request], answer: Option<(Kind, bool, String)>) {
        let mut refusals = 0;
        for request in requests {
            let (url, nonce, error) = match request {
                Request::Sotw(r) => (&r.type_url, &r.response_nonce, &r.error_detail),
                Request::Delta(r) => (&r.type_url, &r.response_nonce, &r.error_detail),
            };
            let kind = Kind::from_url(url).expect("a type of ours");
            if let Request::Sotw(r) = request {
                let version = self.versions.get(&kind).map_or("", String::as_str);
                assert_eq!(
                    r.version_info, version,
                    "{kind:?}: not the last accepted version"
                );
            }
            if let Some(error) = error {
                refusals += 1;
                assert!(!error.message.is_empty(), "refused without a reason");
                let (of, _, wanted) = answer.as_ref().expect("a refusal of nothing");
                assert_eq!((*of, wanted), (kind, nonce));
            }
        }
        let refused = answer.is_some_and(|(_, refused, _)| refused);
        assert_eq!(refusals, usize::from(refused));
        assert!(requests.len() <= 16, "{} requests at once", requests.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_answered() {
        let counts: Vec<usize> = server_seeds()
            .iter()
            .map(|seed| {
                let (option, input) = choice(seed);
                let steps = steps(input, option).expect("steps");
                answers(steps, option, input.len()).len()
            })
            .collect();
        // A router of another namespace is not the caller's to speak for, and a request without a
        // node is nobody's.
        let expected = [(8, 14), (1, 1), (5, 9), (8, 14), (0, 0), (0, 0)];
        assert_eq!(counts.len(), expected.len());
        for (count, (least, most)) in counts.iter().zip(expected) {
            assert!((least..=most).contains(count), "{counts:?}");
        }
    }
}
