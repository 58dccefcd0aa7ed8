//! Transcripts of the protocol: what is sent after what came.
use lateen_xds_proto::{Any, json};
use serde_json::{Value, json};

use super::*;
use crate::bootstrap::StaticResources;
use crate::decode::Context;

fn any(message: &str, value: &Value) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{message}"),
        value: json::to_wire(message, value).unwrap(),
    }
}

fn cluster(name: &str, timeout: &str) -> Any {
    any(
        "envoy.config.cluster.v3.Cluster",
        &json!({
            "name": name, "type": "EDS", "connect_timeout": timeout,
            "eds_cluster_config": { "eds_config": { "ads": {}, "initial_fetch_timeout": "5s" } },
        }),
    )
}

fn endpoints(name: &str, ip: &str) -> Any {
    any(
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        &json!({
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": { "address": ip, "port_value": 80 } } } }] }],
        }),
    )
}

fn listener(name: &str, port: u16, routes: &str) -> Any {
    any(
        "envoy.config.listener.v3.Listener",
        &json!({
            "name": name,
            "address": { "socket_address": { "address": "0.0.0.0", "port_value": port } },
            "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "x",
                "rds": { "route_config_name": routes, "config_source": { "ads": {} } },
                "http_filters": [{ "name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
            }}]}],
        }),
    )
}

fn routes(name: &str) -> Any {
    any(
        "envoy.config.route.v3.RouteConfiguration",
        &json!({
            "name": name,
            "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "c1" } }] }],
        }),
    )
}

fn sotw(kind: Kind, version: &str, nonce: &str, resources: Vec<Any>) -> Response {
    Response::Sotw(pb::DiscoveryResponse {
        version_info: version.into(),
        nonce: nonce.into(),
        type_url: kind.type_url().into(),
        resources,
        ..Default::default()
    })
}

/// `CDS v=1 n=a [x,y] NACK(reason)`
fn show(request: &Request) -> String {
    let short = |url: &str| match Kind::from_url(url) {
        Some(Kind::Cluster) => "CDS",
        Some(Kind::Endpoints) => "EDS",
        Some(Kind::Listener) => "LDS",
        Some(Kind::Routes) => "RDS",
        Some(Kind::Secret) => "SDS",
        None => "?",
    };
    match request {
        Request::Sotw(r) => {
            let nack = r
                .error_detail
                .as_ref()
                .map(|e| format!(" NACK {}", e.message))
                .unwrap_or_default();
            let node = if r.node.is_some() { " +node" } else { "" };
            format!(
                "{} v={} n={} {:?}{node}{nack}",
                short(&r.type_url),
                r.version_info,
                r.response_nonce,
                r.resource_names
            )
        }
        Request::Delta(r) => {
            let nack = r
                .error_detail
                .as_ref()
                .map(|e| format!(" NACK {}", e.message))
                .unwrap_or_default();
            let mut initial: Vec<_> = r
                .initial_resource_versions
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            initial.sort();
            format!(
                "{} n={} +{:?} -{:?} {initial:?}{nack}",
                short(&r.type_url),
                r.response_nonce,
                r.resource_names_subscribe,
                r.resource_names_unsubscribe
            )
        }
    }
}

fn shown(requests: &[Request]) -> Vec<String> {
    requests.iter().map(show).collect()
}

fn now(ms: u64) -> Now {
    Now {
        mono_ms: ms,
        unix_ms: 1_700_000_000_000 + ms,
    }
}

fn setup(mode: XdsMode) -> (State, World) {
    let node = core::Node {
        id: "n".into(),
        cluster: "c".into(),
        ..Default::default()
    };
    let state = State::new(
        mode,
        node,
        true,
        vec![(Kind::Cluster, 0), (Kind::Listener, 0)],
    );
    let world = World::new(Context::empty(), &StaticResources::default(), now(0)).unwrap();
    (state, world)
}

#[test]
fn start_in_envoys_order() {
    let (mut s, mut w) = setup(XdsMode::StateOfTheWorld);
    assert_eq!(shown(&s.connect(&mut w, now(0))), ["CDS v= n= [] +node"]);
    let out = s.receive(
        sotw(
            Kind::Cluster,
            "1",
            "a",
            vec![cluster("c1", "1s"), cluster("c2", "1s")],
        ),
        &mut w,
        now(1),
    );
    assert_eq!(
        shown(&out),
        [r#"EDS v= n= ["c1", "c2"]"#, "CDS v=1 n=a []"],
        "the first clusters' ACK does not wait for them"
    );
    let out = s.receive(
        sotw(
            Kind::Endpoints,
            "1",
            "b",
            vec![endpoints("c1", "10.0.0.1"), endpoints("c2", "10.0.0.2")],
        ),
        &mut w,
        now(2),
    );
    assert_eq!(
        shown(&out),
        ["LDS v= n= []", r#"EDS v=1 n=b ["c1", "c2"]"#,]
    );
    assert!(!w.is_initialized());
    let out = s.receive(
        sotw(Kind::Listener, "1", "c", vec![listener("l", 80, "r1")]),
        &mut w,
        now(3),
    );
    assert_eq!(shown(&out), [r#"RDS v= n= ["r1"]"#, "LDS v=1 n=c []"]);
    assert!(
        w.publish().unwrap().listeners.is_empty(),
        "the listener warms until its routes are there"
    );
    let out = s.receive(
        sotw(Kind::Routes, "1", "d", vec![routes("r1")]),
        &mut w,
        now(4),
    );
    assert_eq!(shown(&out), [r#"RDS v=1 n=d ["r1"]"#]);
    let snapshot = w.publish().unwrap();
    assert!(snapshot.initialized);
    assert_eq!(
        (
            snapshot.listeners.len(),
            snapshot.clusters.len(),
            snapshot.endpoints.len()
        ),
        (1, 2, 2)
    );
    assert!(w.publish().is_none(), "nothing changed");
}

#[test]
fn a_bad_listener_is_named_and_the_rest_applied() {
    let (mut s, mut w) = setup(XdsMode::StateOfTheWorld);
    s.connect(&mut w, now(0));
    s.receive(sotw(Kind::Cluster, "1", "a", vec![]), &mut w, now(1));
    s.receive(
        sotw(
            Kind::Listener,
            "1",
            "b",
            vec![listener("good", 80, "r"), listener("same", 81, "r")],
        ),
        &mut w,
        now(2),
    );
    s.receive(
        sotw(Kind::Routes, "1", "c", vec![routes("r")]),
        &mut w,
        now(3),
    );
    let before = w.publish().unwrap();
    let bad = any(
        "envoy.config.listener.v3.Listener",
        &json!({
            "name": "good", "address": { "socket_address": { "address": "0.0.0.0", "port_value": 80 } },
            "filter_chains": [{ "filters": [{ "name": "x", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy", "stat_prefix": "m" } }] }],
        }),
    );
    let out = s.receive(
        sotw(
            Kind::Listener,
            "2",
            "d",
            vec![bad, listener("same", 81, "r"), listener("new", 82, "r")],
        ),
        &mut w,
        now(4),
    );
    let text = shown(&out);
    assert_eq!(text.len(), 1);
    assert!(text[0].starts_with("LDS v=1 n=d [] NACK Error adding/updating listener(s) good: filter_chains[0].filters[0].typed_config: network filter envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy"), "{text:?}");
    let after = w.publish().unwrap();
    assert_eq!(after.listeners.len(), 3);
    assert!(
        std::sync::Arc::ptr_eq(&before.listeners["good"], &after.listeners["good"]),
        "the old one serves on"
    );
    assert!(
        std::sync::Arc::ptr_eq(&before.listeners["same"], &after.listeners["same"]),
        "unchanged keeps its value"
    );
    assert_eq!(w.refused.len(), 1);
}

#[test]
fn removal_unsubscription_and_reconnect() {
    let (mut s, mut w) = setup(XdsMode::StateOfTheWorld);
    s.connect(&mut w, now(0));
    s.receive(
        sotw(Kind::Cluster, "1", "a", vec![cluster("c1", "1s")]),
        &mut w,
        now(1),
    );
    s.receive(
        sotw(Kind::Endpoints, "1", "b", vec![endpoints("c1", "10.0.0.1")]),
        &mut w,
        now(2),
    );
    w.publish();
    // Endpoints that a response does not name stay.
    s.receive(sotw(Kind::Endpoints, "2", "c", vec![]), &mut w, now(3));
    assert!(w.publish().is_none());
    s.disconnect();
    assert_eq!(
        shown(&s.connect(&mut w, now(4))),
        [
            "CDS v=1 n= [] +node",
            r#"EDS v=2 n= ["c1"]"#,
            "LDS v= n= []"
        ],
        "every type again with its last version, no nonce"
    );
    let out = s.receive(sotw(Kind::Cluster, "2", "d", vec![]), &mut w, now(5));
    assert_eq!(
        shown(&out),
        ["EDS v=2 n= []", "CDS v=2 n=d []"],
        "the last name gone is an empty list"
    );
    let snapshot = w.publish().unwrap();
    assert!(snapshot.clusters.is_empty() && snapshot.endpoints.is_empty());
}

#[test]
fn a_changed_cluster_warms_beside_the_old_one() {
    let (mut s, mut w) = setup(XdsMode::StateOfTheWorld);
    s.connect(&mut w, now(0));
    s.receive(
        sotw(Kind::Cluster, "1", "a", vec![cluster("c1", "1s")]),
        &mut w,
        now(1),
    );
    assert!(w.publish().unwrap().clusters.is_empty());
    // Endpoints do not come: after the fetch timeout the cluster serves without.
    assert_eq!(s.next_deadline(&w), Some(5001));
    assert!(s.poll(&mut w, now(5000)).is_empty());
    let out = s.poll(&mut w, now(5001));
    assert_eq!(shown(&out), ["LDS v= n= []"]);
    let snapshot = w.publish().unwrap();
    assert_eq!((snapshot.clusters.len(), snapshot.endpoints.len()), (1, 0));
    s.receive(
        sotw(Kind::Endpoints, "1", "b", vec![endpoints("c1", "10.0.0.1")]),
        &mut w,
        now(6000),
    );
    let out = s.receive(
        sotw(Kind::Cluster, "2", "c", vec![cluster("c1", "2s")]),
        &mut w,
        now(6001),
    );
    assert_eq!(
        shown(&out),
        ["CDS v=2 n=c []"],
        "its endpoints are here already"
    );
    assert_eq!(
        w.publish().unwrap().clusters["c1"]
            .connect_timeout
            .as_secs(),
        2
    );
}

#[test]
fn a_later_ack_waits_for_warm_clusters() {
    let (mut s, mut w) = setup(XdsMode::StateOfTheWorld);
    s.connect(&mut w, now(0));
    s.receive(sotw(Kind::Cluster, "1", "a", vec![]), &mut w, now(1));
    let more = vec![cluster("c1", "1s")];
    let out = s.receive(sotw(Kind::Cluster, "2", "b", more), &mut w, now(2));
    assert_eq!(shown(&out), [r#"EDS v= n= ["c1"]"#]);
    let here = vec![endpoints("c1", "10.0.0.1")];
    let out = s.receive(sotw(Kind::Endpoints, "1", "c", here), &mut w, now(3));
    assert_eq!(shown(&out), ["CDS v=2 n=b []", r#"EDS v=1 n=c ["c1"]"#]);
}

#[test]
fn an_address_belongs_to_one_listener() {
    let (mut s, mut w) = setup(XdsMode::StateOfTheWorld);
    s.connect(&mut w, now(0));
    s.receive(sotw(Kind::Cluster, "1", "a", vec![]), &mut w, now(1));
    let mut lds = |version: &str, listeners: Vec<Any>| {
        let all = sotw(Kind::Listener, version, version, listeners);
        let out = s.receive(all, &mut w, now(1));
        out.iter().map(show).collect::<String>()
    };
    let both = vec![listener("a", 15001, "r"), listener("b", 15001, "r")];
    let said = lds("1", both);
    assert!(
        said.contains("NACK") && said.contains("'b' has duplicate address '0.0.0.0:15001'"),
        "{said}"
    );
    // A name that goes leaves its address to another.
    let said = lds("2", vec![listener("b", 15001, "r")]);
    assert!(!said.contains("NACK"), "{said}");
    let said = lds(
        "3",
        vec![listener("b", 15002, "r"), listener("c", 15001, "r")],
    );
    assert!(!said.contains("NACK"), "{said}");
    // One that stays keeps it, and the dump shows who was refused.
    let said = lds(
        "4",
        vec![listener("c", 15001, "r"), listener("d", 15001, "r")],
    );
    assert!(said.contains("'d' has duplicate address"), "{said}");
    assert!(w.refused.contains_key(&(Kind::Listener, "d".into())));
}

#[test]
fn duplicates_and_wrong_types_refuse_all() {
    let (mut s, mut w) = setup(XdsMode::StateOfTheWorld);
    s.connect(&mut w, now(0));
    let out = s.receive(
        sotw(
            Kind::Cluster,
            "1",
            "a",
            vec![cluster("c", "1s"), cluster("c", "1s")],
        ),
        &mut w,
        now(1),
    );
    let said = shown(&out);
    assert_eq!(
        said[0], "LDS v= n= []",
        "a first answer is one, if a bad one"
    );
    assert!(
        said[1].contains("NACK") && said[1].contains("duplicate cluster c"),
        "{said:?}"
    );
    let out = s.receive(
        sotw(Kind::Cluster, "1", "b", vec![routes("r")]),
        &mut w,
        now(2),
    );
    assert!(
        show(&out[0]).starts_with("CDS v= n=b [] NACK"),
        "{}",
        show(&out[0])
    );
    assert!(w.clusters.warming.is_empty());
    let unknown = Response::Sotw(pb::DiscoveryResponse {
        type_url: "x/y".into(),
        ..Default::default()
    });
    assert!(
        s.receive(unknown, &mut w, now(3)).is_empty(),
        "an unknown type is not answered"
    );
}

#[test]
fn delta_subscribes_by_difference() {
    let (mut s, mut w) = setup(XdsMode::Delta);
    assert_eq!(shown(&s.connect(&mut w, now(0))), ["CDS n= +[] -[] []"]);
    let res = |name: &str, version: &str, a: Any| pb::Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(a),
        ..Default::default()
    };
    let delta = |kind: Kind, nonce: &str, resources: Vec<pb::Resource>, removed: &[&str]| {
        Response::Delta(pb::DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: nonce.into(),
            resources,
            removed_resources: removed.iter().map(|s| (*s).to_owned()).collect(),
            ..Default::default()
        })
    };
    let out = s.receive(
        delta(
            Kind::Cluster,
            "a",
            vec![
                res("c1", "v1", cluster("c1", "1s")),
                res("c2", "v1", cluster("c2", "1s")),
            ],
            &[],
        ),
        &mut w,
        now(1),
    );
    assert_eq!(
        shown(&out),
        [r#"EDS n= +["c1", "c2"] -[] []"#, "CDS n=a +[] -[] []"]
    );
    let out = s.receive(
        delta(
            Kind::Endpoints,
            "b",
            vec![res("c1", "e1", endpoints("c1", "10.0.0.1"))],
            &["c2"],
        ),
        &mut w,
        now(2),
    );
    assert_eq!(
        shown(&out),
        ["LDS n= +[] -[] []", "EDS n=b +[] -[] []",],
        "a removed name ends the wait"
    );
    let out = s.receive(delta(Kind::Cluster, "c", vec![], &["c2"]), &mut w, now(3));
    assert_eq!(
        shown(&out),
        [r#"EDS n= +[] -["c2"] []"#, "CDS n=c +[] -[] []"]
    );
    s.disconnect();
    assert_eq!(
        shown(&s.connect(&mut w, now(4))),
        [
            r#"CDS n= +[] -[] ["c1=v1"]"#,
            r#"EDS n= +["c1"] -[] ["c1=e1"]"#,
            "LDS n= +[] -[] []"
        ]
    );
}
