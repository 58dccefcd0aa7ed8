//! A life of a client with a management server: what the server has at each step, and how many
//! requests a client makes of it. The server sends what changed (delta) or all of a type.

use std::collections::BTreeMap;

use lateen_proxy_xds::kind::Kind;
use lateen_xds_proto::{Any, json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::peer::Peer;
use super::server::{Response, Server, Stream};

/// Form of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All resources of a type in every response.
    Sotw,
    /// What changed.
    Delta,
}

/// One life.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// What it is about.
    pub name: String,
    pub steps: Vec<Step>,
}

/// What happens, and what is asked then.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Said in the transcript.
    pub what: String,
    /// Ends the stream and waits for the next.
    #[serde(default)]
    again: bool,
    /// Resources by name, as this file's templates make them.
    clusters: Option<BTreeMap<String, Value>>,
    endpoints: Option<BTreeMap<String, Value>>,
    listeners: Option<BTreeMap<String, Value>>,
    routes: Option<BTreeMap<String, Value>>,
    secrets: Option<BTreeMap<String, Value>>,
    /// A response with a resource of another type, or twice the same, or of no known type.
    odd: Option<Odd>,
    /// Requests that Envoy makes of it, in both forms or in each.
    requests: Count,
    /// The row of docs/differences.md that says why ours differ, and what ours are.
    pub differs: Option<String>,
    /// Ours, where they differ.
    #[serde(default)]
    pub ours: Ours,
}

/// What our client asks where it differs from Envoy; a form that is not named agrees.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    sotw: Option<Vec<String>>,
    delta: Option<Vec<String>>,
}

impl Ours {
    /// Of this form.
    pub fn of(&self, form: Form) -> Option<&[String]> {
        match form {
            Form::Sotw => self.sotw.as_deref(),
            Form::Delta => self.delta.as_deref(),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Odd {
    RouteAmongClusters,
    ClusterTwice,
    UnknownType,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Count {
    Both(usize),
    Each { sotw: usize, delta: usize },
}

impl Count {
    fn of(self, form: Form) -> usize {
        match (self, form) {
            (Self::Both(count), _)
            | (Self::Each { sotw: count, .. }, Form::Sotw)
            | (Self::Each { delta: count, .. }, Form::Delta) => count,
        }
    }
}

/// All lives of the file.
pub fn read() -> Vec<Life> {
    let text = include_str!("lives.yaml");
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("lives.yaml: {e}"))
}

/// Lets a client live it; the requests of each step.
pub async fn play(life: &Life, form: Form, peer: Peer) -> Vec<Vec<String>> {
    let ours = matches!(peer, Peer::Ours);
    let server = Server::start(form).await;
    let _running = peer.start(server.address(), form);
    let mut stream = server.accept().await;
    let mut has = Has::default();
    let mut transcript = Vec::new();
    for (number, step) in life.steps.iter().enumerate() {
        if step.again {
            stream.close();
            stream = server.accept().await;
        }
        has.send(step, number, form, &mut stream);
        let own = step.ours.of(form).filter(|_| ours).map(<[String]>::len);
        let count = own.unwrap_or_else(|| step.requests.of(form));
        transcript.push(stream.requests(count).await);
    }
    transcript
}

/// What the server has, by type and name.
#[derive(Default)]
struct Has {
    resources: BTreeMap<Kind, BTreeMap<String, Value>>,
}

impl Has {
    fn send(&mut self, step: &Step, number: usize, form: Form, stream: &mut Stream) {
        let kinds = [
            (Kind::Cluster, &step.clusters),
            (Kind::Endpoints, &step.endpoints),
            (Kind::Listener, &step.listeners),
            (Kind::Routes, &step.routes),
            (Kind::Secret, &step.secrets),
        ];
        for (kind, given) in kinds {
            let Some(given) = given else { continue };
            let now: BTreeMap<String, Value> = given
                .iter()
                .map(|(name, more)| (name.clone(), resource(kind, name, more)))
                .collect();
            let before = self.resources.insert(kind, now.clone()).unwrap_or_default();
            let kept = |(name, value): &(&String, &Value)| {
                form == Form::Sotw || before.get(*name) != Some(*value)
            };
            let removed = before.keys().filter(|name| !now.contains_key(*name));
            stream.answer(Response {
                type_url: kind.type_url().to_owned(),
                version: format!("v{number}"),
                nonce: format!("{kind:?}-{number}"),
                resources: now
                    .iter()
                    .filter(kept)
                    .map(|(name, value)| (name.clone(), any(kind, value)))
                    .collect(),
                removed: removed.cloned().collect(),
            });
        }
        if let Some(odd) = step.odd {
            stream.answer(odd_response(odd, number));
        }
    }
}

fn odd_response(odd: Odd, number: usize) -> Response {
    let clusters = Kind::Cluster.type_url();
    let twice = || {
        let value = cluster("twice", &Value::Null);
        ("twice".to_owned(), any(Kind::Cluster, &value))
    };
    let route = || {
        let value = routes("bad-1", &Value::Null);
        ("bad-1".to_owned(), any(Kind::Routes, &value))
    };
    let (type_url, resources) = match odd {
        Odd::RouteAmongClusters => (clusters, vec![route()]),
        Odd::ClusterTwice => (clusters, vec![twice(), twice()]),
        Odd::UnknownType => ("type.googleapis.com/no.such.Type", vec![]),
    };
    Response {
        type_url: type_url.to_owned(),
        version: format!("v{number}"),
        nonce: format!("odd-{number}"),
        resources,
        removed: vec![],
    }
}

fn message(kind: Kind) -> &'static str {
    let url = kind.type_url();
    url.strip_prefix("type.googleapis.com/").unwrap()
}

fn any(kind: Kind, value: &Value) -> Any {
    Any {
        type_url: kind.type_url().to_owned(),
        value: json::to_wire(message(kind), value).unwrap(),
    }
}

fn resource(kind: Kind, name: &str, more: &Value) -> Value {
    match kind {
        Kind::Cluster => cluster(name, more),
        Kind::Endpoints => endpoints(name),
        Kind::Listener => listener(name, more),
        Kind::Routes => routes(name, more),
        Kind::Secret => json!({ "name": name, "validation_context": {
            "trusted_ca": { "inline_string": include_str!("ca.pem") } } }),
    }
}

fn merged(mut base: Value, more: &Value) -> Value {
    let none = Map::new();
    for (key, value) in more.as_object().unwrap_or(&none) {
        base[key] = value.clone();
    }
    base
}

/// An EDS cluster; `secret` names what its TLS validation waits for, other fields are its own.
fn cluster(name: &str, more: &Value) -> Value {
    let source = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let base =
        json!({ "name": name, "type": "EDS", "eds_cluster_config": { "eds_config": source } });
    let mut cluster = merged(base, more);
    if let Some(Value::String(secret)) = cluster.as_object_mut().unwrap().remove("secret") {
        let sds = json!({ "name": secret, "sds_config": source });
        cluster["transport_socket"] = json!({ "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": { "validation_context_sds_secret_config": sds } } });
    }
    cluster
}

fn endpoints(name: &str) -> Value {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 9 } });
    json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] })
}

fn routes(name: &str, more: &Value) -> Value {
    let cluster = more["cluster"].as_str().unwrap_or("c1");
    json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
        { "match": { "prefix": "/" }, "route": { "cluster": cluster } }] }] })
}

/// A listener with the route table `routes`; one that is `bad` has a filter of no kind.
fn listener(name: &str, more: &Value) -> Value {
    let source = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let router =
        json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" });
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "rds": { "route_config_name": more["routes"].as_str().unwrap_or("r1"), "config_source": source },
        "http_filters": [{ "name": "router", "typed_config": router }],
    });
    if more["bad"] == true {
        let nothing =
            json!({ "@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s" });
        manager["http_filters"][0]["typed_config"] = nothing;
    }
    // Nothing is bound, so the port is only a part of the name.
    let port = 1000 + name.bytes().map(u32::from).sum::<u32>();
    json!({ "name": name, "bind_to_port": false,
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } })
}
