//! What the real Envoy chose for keys, kept as data: a cluster, a hash policy,
//! the requests, and the place of each one's host among the cluster's.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use lateen_proxy::upstream::balance::{Balancer, Choice};
use lateen_proxy::upstream::host::Host;
use lateen_proxy_core::config::route::Forward;
use lateen_proxy_core::config::{NetworkFilter, RouteAction, RouteSource, Snapshot};
use lateen_proxy_core::hash_policy;
use lateen_proxy_core::headers::HeaderList;
use lateen_proxy_xds::ads;
use lateen_proxy_xds::bootstrap::{Overrides, Source, load};
use lateen_proxy_xds::decode::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::scenario::Scenario;
use crate::support::whole::http;

/// One scenario as Envoy played it.
#[derive(Serialize, Deserialize)]
pub struct Vector {
    name: String,
    client: IpAddr,
    cluster: Value,
    route: Map<String, Value>,
    head: String,
    query: String,
    /// Places of hosts in the cluster's order, one for each request.
    hosts: String,
}

/// Keeps what Envoy chose.
pub fn vector(scenario: &Scenario, cluster: &Value, from: SocketAddr, chosen: &[String]) -> Vector {
    let places = scenario.places();
    let place = |host: &String| {
        let found = places.iter().position(|p| p.to_string() == *host);
        found.map_or("-".to_owned(), |p| p.to_string())
    };
    Vector {
        name: scenario.name.clone(),
        client: from.ip(),
        cluster: cluster.clone(),
        route: scenario.route.clone(),
        head: scenario.head.clone(),
        query: scenario.query.clone(),
        hosts: chosen.iter().map(place).collect::<Vec<_>>().join(" "),
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/balance/vectors.json")
}

/// Writes all vectors.
pub fn write(all: &[Vector]) {
    let lines: Vec<String> = all
        .iter()
        .map(|v| serde_json::to_string(v).unwrap())
        .collect();
    std::fs::write(path(), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
}

/// Chooses for every key of every vector; the number of vectors and of keys.
pub fn check() -> (usize, usize) {
    let all: Vec<Vector> = serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap();
    let snapshot = snapshot(&all);
    let mut keys = 0;
    for (place, vector) in all.iter().enumerate() {
        let forward = forward(&snapshot, place);
        let cluster = &snapshot.clusters[vector.name.as_str()];
        let assignment = snapshot.assignment(cluster).unwrap();
        let hosts: Vec<Rc<Host>> = assignment
            .endpoints()
            .map(|(group, endpoint)| {
                let host = Host::new(endpoint.clone(), group.locality.clone(), group.priority);
                Rc::new(host)
            })
            .collect();
        let balancer = Balancer::default();
        balancer.update(cluster, &hosts, Some(assignment));
        for (number, want) in vector.hosts.split(' ').enumerate() {
            let request = vector.request(number);
            let client = Some(vector.client);
            let hashed = hash_policy::compute(&forward.hash_policy, &request, client, &mut || 0);
            let chosen = balancer.choose(
                &hosts,
                &Choice {
                    hash: hashed.hash,
                    criteria: Some(&forward.metadata_match),
                    ..Choice::default()
                },
            );
            let place = chosen.and_then(|c| hosts.iter().position(|h| Rc::ptr_eq(h, &c)));
            let got = place.map_or("-".to_owned(), |p| p.to_string());
            assert_eq!(got, want, "{} request {number}", vector.name);
            keys += 1;
        }
    }
    (all.len(), keys)
}

impl Vector {
    fn request(&self, number: usize) -> HeaderList {
        let fill = |text: &str| text.replace("<i>", &number.to_string());
        let path = format!("/{}/?{}", self.name, fill(&self.query));
        let head = fill(&self.head);
        let mut pairs = vec![(":path", path.as_str())];
        for line in head.lines() {
            let (name, value) = line.split_once(':').unwrap();
            pairs.push((name, value.trim()));
        }
        HeaderList::of(&pairs)
    }
}

/// The vectors' clusters and routes as a proxy reads them.
fn snapshot(all: &[Vector]) -> std::sync::Arc<Snapshot> {
    let routes: Value = all
        .iter()
        .map(|vector| {
            let mut action = Value::Object(vector.route.clone());
            action["cluster"] = json!(vector.name);
            json!({ "match": { "prefix": format!("/{}/", vector.name) }, "route": action })
        })
        .collect();
    let clusters: Value = all.iter().map(|v| v.cluster.clone()).collect();
    let listener = http(([127, 0, 0, 1], 1).into(), vec![], routes, Value::Null);
    let bootstrap = json!({ "node": { "id": "n", "cluster": "c" },
        "static_resources": { "listeners": [listener], "clusters": clusters } });
    let text = bootstrap.to_string();
    let source = Source {
        name: "vectors.json",
        text: &text,
    };
    let loaded = load(&[source], &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    let started = ads::start(loaded, Context::empty(), ads::Options::default());
    let (handle, _client) = started.unwrap_or_else(|e| panic!("{e}"));
    handle.snapshots.borrow().clone()
}

/// The action of the route at that place.
fn forward(snapshot: &Snapshot, place: usize) -> std::sync::Arc<Forward> {
    let listener = snapshot.listeners.values().next().unwrap();
    let filter = &listener.filter_chains[0].filters[0];
    let NetworkFilter::HttpConnectionManager(manager) = filter else {
        panic!("{filter:?}");
    };
    let RouteSource::Inline(table) = &manager.routes else {
        panic!("routes elsewhere");
    };
    match &table.virtual_hosts[0].routes[place].action {
        RouteAction::Forward(forward) => forward.clone(),
        other => panic!("{other:?}"),
    }
}
