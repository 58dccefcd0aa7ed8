//! Bootstraps that must not start: each refusal names the file and the field.

use lateen_proxy_xds::ads;
use lateen_proxy_xds::bootstrap::{Overrides, Source, StaticResources, load};
use lateen_proxy_xds::decode::Context;
use lateen_proxy_xds::world::{Incoming, Now};
use lateen_proxy_xds::{Kind, World};
use lateen_xds_proto::json as wire;
use serde_json::{Value, json};

const BE: &str = "127.0.0.1";

fn typed(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

fn cluster(name: &str, address: &str) -> Value {
    json!({ "name": name, "type": "STATIC", "load_assignment": { "cluster_name": name, "endpoints": [
        { "lb_endpoints": [{ "endpoint": { "address":
            { "socket_address": { "address": address, "port_value": 80 } } } }] }] } })
}

/// A listener whose connection manager has this route specifier on top.
fn listener(routes: Value) -> Value {
    let router = "envoy.extensions.filters.http.router.v3.Router";
    let manager =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let mut manager = json!({ "@type": typed(manager), "stat_prefix": "t", "http_filters": [
        { "name": "router", "typed_config": { "@type": typed(router) } }] });
    for (key, value) in routes.as_object().into_iter().flatten() {
        manager[key] = value.clone();
    }
    json!({ "name": "a", "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

fn inline(action: Value, extra: Value) -> Value {
    let mut table = json!({ "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
        { "match": { "prefix": "/" }, "route": action }] }] });
    for (key, value) in extra.as_object().into_iter().flatten() {
        table[key] = value.clone();
    }
    listener(json!({ "route_config": table }))
}

/// What a start with this bootstrap says.
fn start(bootstrap: &Value) -> Result<(), String> {
    let text = bootstrap.to_string();
    let source = Source {
        name: "b.json",
        text: &text,
    };
    let loaded = load(&[source], &Overrides::default()).map_err(|e| e.to_string())?;
    let started = ads::start(loaded, Context::empty(), ads::Options::default());
    started.map(|_| ()).map_err(|e| e.to_string())
}

fn with_static(listeners: Value, clusters: Value) -> Value {
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

#[test]
fn static_routes_name_clusters_that_are_there() {
    let route = "b.json: static_resources.listeners[0] (a): \
         filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route";
    let weighted = json!({ "weighted_clusters": { "clusters": [
        { "name": "be", "weight": 1 }, { "name": "nope", "weight": 1 }] } });
    let mirrored = json!({ "cluster": "be", "request_mirror_policies": [{ "cluster": "nope" }] });
    for (action, field) in [
        (json!({ "cluster": "nope" }), "cluster"),
        (weighted, "weighted_clusters.clusters[1].name"),
        (mirrored, "request_mirror_policies[0].cluster"),
    ] {
        let table = |extra| {
            with_static(
                json!([inline(action.clone(), extra)]),
                json!([cluster("be", BE)]),
            )
        };
        let error = start(&table(json!({}))).unwrap_err();
        assert_eq!(error, format!("{route}.{field}: unknown cluster 'nope'"));
        start(&table(json!({ "validate_clusters": false }))).unwrap();
    }
    let fine = inline(json!({ "cluster": "be" }), json!({}));
    start(&with_static(json!([fine]), json!([cluster("be", BE)]))).unwrap();
    let by_header = inline(json!({ "cluster_header": "x-to" }), json!({}));
    start(&with_static(json!([by_header]), json!([]))).unwrap();
}

#[test]
fn names_need_a_dns_cluster() {
    let error = start(&with_static(json!([]), json!([cluster("c", "foo.bar")]))).unwrap_err();
    assert!(
        error.starts_with("b.json: static_resources.clusters[0] (c): load_assignment.endpoints[0].lb_endpoints[0].endpoint.address: malformed IP address: foo.bar;"),
        "{error}"
    );
    let mut resolved = cluster("c", "foo.bar");
    resolved["type"] = json!("STRICT_DNS");
    start(&with_static(json!([]), json!([resolved]))).unwrap();
}

#[test]
fn the_admin_address_is_one() {
    let admin = |address: &str| json!({ "admin": { "address": { "socket_address": { "address": address, "port_value": 1 } } } });
    assert_eq!(
        start(&admin("notanip")).unwrap_err(),
        "b.json:1: admin.address.socket_address.address: malformed IP address: notanip"
    );
    start(&admin("127.0.0.1")).unwrap();
    let pipe = json!({ "admin": { "address": { "pipe": { "path": "/x" } } } });
    start(&pipe).unwrap();
    let within = json!({ "envoy_internal_address": { "server_listener_name": "x" } });
    assert!(start(&json!({ "admin": { "address": within } })).is_err());
}

fn over_ads(clusters: Value) -> Value {
    json!({ "node": { "id": "a", "cluster": "b" },
        "dynamic_resources": { "ads_config": { "api_type": "GRPC", "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }] } },
        "static_resources": { "clusters": clusters } })
}

#[test]
fn the_xds_cluster_is_static() {
    assert_eq!(
        start(&over_ads(json!([cluster("other", BE)]))).unwrap_err(),
        "b.json:1: dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: unknown gRPC client cluster 'xds'"
    );
    start(&over_ads(json!([cluster("xds", BE)]))).unwrap();
}

#[test]
fn what_comes_over_ads_needs_ads() {
    let rds = || {
        let source = json!({ "ads": {}, "resource_api_version": "V3" });
        listener(json!({ "rds": { "route_config_name": "r", "config_source": source } }))
    };
    assert_eq!(
        start(&with_static(json!([rds()]), json!([]))).unwrap_err(),
        "b.json: static_resources.listeners[0] (a): route 'r' over ads needs dynamic_resources.ads_config"
    );
    let mut with_ads = over_ads(json!([cluster("xds", BE)]));
    with_ads["static_resources"]["listeners"] = json!([rds()]);
    start(&with_ads).unwrap();
}

#[test]
fn an_unnamed_resource_is_told_by_its_place() {
    let mut unnamed = cluster("c", BE);
    unnamed["name"] = json!("");
    assert_eq!(
        start(&with_static(json!([]), json!([unnamed]))).unwrap_err(),
        "b.json: static_resources.clusters[0]: name: is required"
    );
}

const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

fn incoming(message: &str, name: &str, value: &Value) -> Incoming {
    Incoming {
        name: name.into(),
        version: "1".into(),
        raw: wire::to_wire(message, value).unwrap().into(),
    }
}

fn world() -> World {
    let mut world = World::new(
        Context::empty(),
        &StaticResources::default(),
        Now::default(),
    )
    .unwrap();
    world.set_initialized();
    world
}

#[test]
fn a_listener_without_its_port_is_refused() {
    let mut world = world();
    world.set_binder(Box::new(|listener| match &*listener.name {
        "taken" => Err("cannot bind '127.0.0.1:1': Address already in use".into()),
        _ => Ok(()),
    }));
    let routes = json!({ "route_config": { "virtual_hosts": [] } });
    let value = listener(routes);
    let both = [
        incoming(LISTENER, "taken", &value),
        incoming(LISTENER, "free", &value),
    ];
    let refused = world.update(Kind::Listener, &both, &[], true, Now::default());
    let why = "address: cannot bind '127.0.0.1:1': Address already in use";
    assert_eq!(refused, [("taken".into(), why.to_owned())]);
    world.settle(Now::default());
    let snapshot = world.publish().unwrap();
    let names: Vec<_> = snapshot.listeners.keys().map(|n| &**n).collect();
    assert_eq!(names, ["free"]);
}

#[test]
fn a_resource_that_cannot_be_read_takes_no_other_away() {
    const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
    let good = |name: &str| incoming(CLUSTER, "", &cluster(name, "10.0.0.1"));
    let raw = |bytes: &[u8]| Incoming {
        name: "".into(),
        version: "2".into(),
        raw: bytes.into(),
    };
    // After the name `a`: a field that never ends. Before any name: a name that is no text.
    let broken = raw(b"\x0a\x01a\x12\xff");
    for (what, push, left) in [
        ("the known one's name", vec![broken.clone()], vec!["a"]),
        ("no name", vec![raw(b"\xff\xff")], vec!["a", "b"]),
        (
            "a name that is no text",
            vec![raw(b"\x0a\x02\xc3\x28")],
            vec!["a", "b"],
        ),
        ("nothing", vec![raw(b"")], vec!["a", "b"]),
        (
            "no name beside good ones",
            vec![good("n"), raw(b"\xff")],
            vec!["a", "b", "n"],
        ),
        (
            "a name beside good ones",
            vec![good("n"), broken],
            vec!["a", "n"],
        ),
    ] {
        let mut world = world();
        let both = [good("a"), good("b")];
        assert!(
            world
                .update(Kind::Cluster, &both, &[], true, Now::default())
                .is_empty()
        );
        world.settle(Now::default());
        let refused = world.update(Kind::Cluster, &push, &[], true, Now::default());
        assert_eq!(refused.len(), 1, "{what}");
        world.settle(Now::default());
        let snapshot = world.publish().unwrap();
        let mut names: Vec<_> = snapshot.clusters.keys().map(|n| &**n).collect();
        names.sort_unstable();
        assert_eq!(names, left, "{what}");
    }
}

#[test]
fn a_bad_endpoint_leaves_the_good_ones() {
    let mut world = world();
    let eds = json!({ "name": "c", "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } } });
    let cluster = incoming("envoy.config.cluster.v3.Cluster", "c", &eds);
    assert!(
        world
            .update(Kind::Cluster, &[cluster], &[], true, Now::default())
            .is_empty()
    );
    world.settle(Now::default());
    let at = |address: &str| {
        let address = json!({ "socket_address": { "address": address, "port_value": 80 } });
        let value = json!({ "cluster_name": "c", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] });
        incoming(ENDPOINTS, "c", &value)
    };
    assert!(
        world
            .update(
                Kind::Endpoints,
                &[at("10.0.0.1")],
                &[],
                false,
                Now::default()
            )
            .is_empty()
    );
    let refused = world.update(
        Kind::Endpoints,
        &[at("bad.host")],
        &[],
        false,
        Now::default(),
    );
    assert_eq!(&*refused[0].0, "c");
    assert!(
        refused[0].1.starts_with(
            "endpoints[0].lb_endpoints[0].endpoint.address: malformed IP address: bad.host"
        ),
        "{refused:?}"
    );
    world.settle(Now::default());
    let snapshot = world.publish().unwrap();
    let (_, endpoint) = snapshot.endpoints["c"].endpoints().next().unwrap();
    assert_eq!(endpoint.address.to_string(), "10.0.0.1:80");
}

/// What a start says to a listener with this TLS context.
fn tls(context: Value) -> String {
    let mut context = context;
    let name = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    context["@type"] = json!(typed(name));
    let common = &mut context["common_tls_context"];
    let own = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    common["tls_certificates"] = json!([{
        "certificate_chain": { "inline_string": own.cert.pem() },
        "private_key": { "inline_string": own.signing_key.serialize_pem() } }]);
    let mut listener = inline(json!({ "cluster": "c" }), json!({}));
    listener["filter_chains"][0]["transport_socket"] =
        json!({ "name": "tls", "typed_config": context });
    let clusters = json!([cluster("c", BE)]);
    start(&with_static(json!([listener]), clusters))
        .err()
        .unwrap_or_default()
}

#[test]
fn tls_that_would_not_be_what_it_says() {
    let params = |params: Value| json!({ "common_tls_context": { "tls_params": params } });
    let rules = |rules: Value| json!({ "common_tls_context": { "validation_context": rules } });
    for (context, want) in [
        (
            params(json!({ "cipher_suites": ["NO-SUCH"] })),
            "tls_params.cipher_suites[0]: `NO-SUCH`",
        ),
        (
            params(json!({ "cipher_suites": ["AES128-SHA"] })),
            "cipher_suites: none of them is offered",
        ),
        (
            params(json!({ "ecdh_curves": ["P-1"] })),
            "tls_params.ecdh_curves[0]: `P-1`",
        ),
        (
            params(json!({ "ecdh_curves": ["P-521"] })),
            "ecdh_curves: none of them is offered",
        ),
        (
            params(json!({ "signature_algorithms": ["x"] })),
            "tls_params.signature_algorithms",
        ),
        (
            params(json!({ "compliance_policies": ["FIPS_202205"] })),
            "tls_params.compliance_policies",
        ),
        (
            params(json!({ "tls_maximum_protocol_version": "TLSv1_1" })),
            "tls_params.tls_maximum_protocol_version",
        ),
        (
            params(
                json!({ "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_2" }),
            ),
            "tls_params.tls_minimum_protocol_version",
        ),
        (
            rules(json!({ "verify_certificate_hash": ["z".repeat(64)] })),
            "verify_certificate_hash[0]",
        ),
        (
            rules(json!({ "max_verify_depth": 3 })),
            "validation_context.max_verify_depth",
        ),
        (
            rules(
                json!({ "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": "x" } }] }),
            ),
            "match_typed_subject_alt_names: names without a trusted_ca",
        ),
        (
            json!({ "require_client_certificate": true }),
            "require_client_certificate",
        ),
        (
            json!({ "common_tls_context": {}, "session_ticket_keys": { "keys": [{ "inline_string": "short" }] } }),
            "session_ticket_keys.keys[0]: a key has 80 bytes",
        ),
    ] {
        let said = tls(context.clone());
        assert!(said.contains(want), "{context}: {said}");
    }
    let istio = params(
        json!({ "tls_minimum_protocol_version": "TLSv1_2", "cipher_suites": [
        "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "AES256-GCM-SHA384" ] }),
    );
    assert_eq!(tls(istio), "");
}

#[test]
fn listeners_that_could_not_be_opened() {
    let one = |address: Value, more: Value| {
        let mut listener = inline(json!({ "cluster": "be" }), json!({}));
        listener["address"] = address;
        listener["additional_addresses"] = more;
        let why = start(&with_static(json!([listener]), json!([cluster("be", BE)])));
        why.unwrap_err()
    };
    let plain = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    let pipe = json!({ "pipe": { "path": "/run/x.sock" } });
    let within = json!({ "envoy_internal_address": { "server_listener_name": "x" } });
    for (address, field) in [(&pipe, "pipe"), (&within, "envoy_internal_address")] {
        let why = one(address.clone(), json!([]));
        assert!(why.contains(&format!("address.{field}: ")), "{why}");
        let why = one(plain.clone(), json!([{ "address": address }]));
        let at = format!("additional_addresses[0].address.{field}: ");
        assert!(why.contains(&at), "{why}");
    }
}
