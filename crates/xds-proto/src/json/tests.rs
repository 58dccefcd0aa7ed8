//! Cases of the JSON mapping, one by one. The comparison with an independent implementation
//! is in `tests/reflect.rs`.

use serde_json::json;

use super::*;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::config::route::v3::RouteConfiguration;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

fn error(name: &str, value: &Value) -> String {
    to_wire(name, value).unwrap_err().to_string()
}

#[test]
fn a_cluster_in_both_name_forms() {
    let snake = json!({
        "name": "outbound|9080||reviews.default.svc.cluster.local",
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "service_name": "outbound|9080||reviews.default.svc.cluster.local"
        },
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [{"max_connections": 4_294_967_295u32, "track_remaining": true}]},
        "lb_policy": "LEAST_REQUEST",
        "metadata": {"filter_metadata": {"istio": {"services": [{"host": "h"}, 1.5, null]}}}
    });
    let wire = to_wire(CLUSTER, &snake).unwrap();
    let cluster: Cluster = to_message(&snake).unwrap();
    assert_eq!(
        cluster.encode_to_vec(),
        wire,
        "fields come by number, as prost writes them"
    );
    assert_eq!(cluster.connect_timeout.unwrap().seconds, 10);
    let printed = from_wire(CLUSTER, &wire).unwrap();
    assert_eq!(to_wire(CLUSTER, &printed).unwrap(), wire);
    assert_eq!(printed["circuit_breakers"], snake["circuit_breakers"]);
    let camel = from_wire_with(CLUSTER, &wire, &PrintOptions::camel()).unwrap();
    assert_eq!(
        camel["edsClusterConfig"]["edsConfig"]["initialFetchTimeout"],
        "0s"
    );
    assert_eq!(camel["lbPolicy"], "LEAST_REQUEST");
    assert_eq!(to_wire(CLUSTER, &camel).unwrap(), wire);
}

#[test]
fn any_is_expanded_both_ways() {
    let listener = json!({
        "name": "l",
        "filter_chains": [{"filters": [{
            "name": "hcm",
            "typed_config": {
                "@type": crate::type_url::HTTP_CONNECTION_MANAGER,
                "stat_prefix": "s",
                "http_filters": [
                    {"name": "istio.stats", "typed_config": {
                        "@type": crate::type_url::ISTIO_STATS, "disable_host_header_fallback": true}},
                    {"name": "istio.metadata_exchange", "typed_config": {
                        "@type": crate::type_url::UDPA_TYPED_STRUCT,
                        "type_url": crate::type_url::ISTIO_PEER_METADATA,
                        "value": {"upstream_discovery": [{"istio_headers": {}}]}}}
                ]
            }
        }]}]
    });
    let message: Listener = to_message(&listener).unwrap();
    assert_eq!(from_message(&message).unwrap(), listener);
    let any = message.filter_chains[0].filters[0]
        .config_type
        .clone()
        .unwrap();
    let crate::envoy::config::listener::v3::filter::ConfigType::TypedConfig(any) = any else {
        panic!("a typed_config is a typed_config");
    };
    assert_eq!(any.type_url, crate::type_url::HTTP_CONNECTION_MANAGER);
    let again = to_any(
        &from_any(&any, &PrintOptions::default()).unwrap(),
        &ParseOptions::default(),
    );
    assert_eq!(again.unwrap(), any);
}

#[test]
fn well_known_types_inside_any_have_a_value() {
    let any = json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"});
    let wire = to_wire("google.protobuf.Any", &any).unwrap();
    assert_eq!(from_wire("google.protobuf.Any", &wire).unwrap(), any);
    let missing = json!({"@type": "type.googleapis.com/google.protobuf.Duration"});
    assert!(error("google.protobuf.Any", &missing).contains("a value beside @type"));
    assert_eq!(
        to_wire("google.protobuf.Any", &json!({})).unwrap(),
        Vec::<u8>::new()
    );
    assert_eq!(
        error("google.protobuf.Any", &json!({"a": 1})),
        "missing @type"
    );
}

#[test]
fn an_any_of_an_unknown_type_survives_as_base64() {
    let any = crate::Any {
        type_url: "type.googleapis.com/acme.Thing".into(),
        value: vec![1, 2, 3],
    };
    let printed = from_any(&any, &PrintOptions::default()).unwrap();
    assert_eq!(
        printed,
        json!({"@type": "type.googleapis.com/acme.Thing", "value": "AQID"})
    );
    let options = ParseOptions {
        allow_unknown: true,
        ..ParseOptions::default()
    };
    assert_eq!(to_any(&printed, &options).unwrap(), any);
    assert!(to_any(&printed, &ParseOptions::default()).is_err());
    let strict = PrintOptions {
        strict_any: true,
        ..PrintOptions::default()
    };
    assert!(from_any(&any, &strict).is_err());
}

#[test]
fn errors_name_the_place() {
    let bad = json!({"virtual_hosts": [{"name": "a"}, {"routes": [{"route": {"cluster": 5}}]}]});
    assert_eq!(
        error("envoy.config.route.v3.RouteConfiguration", &bad),
        "virtual_hosts[1].routes[0].route.cluster: expected a string, found 5"
    );
    assert_eq!(
        error(CLUSTER, &json!({"edsClusterConfig": {"nope": 1}})),
        "edsClusterConfig.nope: unknown field of envoy.config.cluster.v3.Cluster.EdsClusterConfig"
    );
    assert_eq!(
        error(CLUSTER, &json!({"lb_policy": "NO"})),
        "lb_policy: unknown value \"NO\" of enum envoy.config.cluster.v3.Cluster.LbPolicy"
    );
    assert_eq!(
        error(
            CLUSTER,
            &json!({"typed_extension_protocol_options": {"k": {"@type": "x/y.Z"}}})
        ),
        "typed_extension_protocol_options[\"k\"].@type: unknown message type \"x/y.Z\""
    );
    assert_eq!(
        error("no.Such", &json!({})),
        "unknown message type \"no.Such\""
    );
    assert_eq!(error(CLUSTER, &json!([])), "expected an object, found []");
}

#[test]
fn a_field_twice_and_two_of_a_oneof_are_refused() {
    assert_eq!(
        error(
            CLUSTER,
            &json!({"connect_timeout": "1s", "connectTimeout": "2s"})
        ),
        "connectTimeout: given twice"
    );
    let two = json!({"prefix": "/", "path": "/x"});
    assert_eq!(
        error("envoy.config.route.v3.RouteMatch", &two),
        "only one of prefix and path may be set"
    );
}

#[test]
fn unknown_fields_can_be_passed_over_and_are_listed() {
    let value = json!({"name": "c", "x": 1, "lb_policy": "NEW", "load_assignment": {"endpoints": [{"y": {}}]}});
    let options = ParseOptions {
        allow_unknown: true,
        ..ParseOptions::default()
    };
    let parsed = to_wire_with(CLUSTER, &value, &options).unwrap();
    assert_eq!(
        parsed.unknown,
        ["x", "lb_policy", "load_assignment.endpoints[0].y"]
    );
    let cluster = Cluster::decode(parsed.wire.as_slice()).unwrap();
    assert_eq!(cluster.name, "c");
}

#[test]
fn numbers_take_the_forms_of_the_mapping() {
    let take = |value: Value| {
        to_message::<Cluster>(&json!({"per_connection_buffer_limit_bytes": value})).map(|cluster| {
            cluster
                .per_connection_buffer_limit_bytes
                .map(|limit| limit.value)
        })
    };
    for value in [json!(7), json!("7"), json!(7.0), json!("7.0"), json!(0.7e1)] {
        assert_eq!(take(value).unwrap(), Some(7));
    }
    for value in [
        json!(-1),
        json!(7.5),
        json!("x"),
        json!(" 7"),
        json!("+7"),
        json!(4_294_967_296u64),
        json!(true),
    ] {
        assert!(take(value.clone()).is_err(), "{value}");
    }
    let stat =
        json!({"type": 3, "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 9}}});
    assert_eq!(
        to_message::<Cluster>(&stat).unwrap().cluster_discovery_type,
        Some(crate::envoy::config::cluster::v3::cluster::ClusterDiscoveryType::Type(3))
    );
}

#[test]
fn zero_in_a_wrapper_or_a_oneof_is_kept_and_a_plain_zero_is_not() {
    let value = json!({
        "virtual_hosts": [{"name": "", "routes": [{"route": {"cluster": "", "timeout": "0s"}}]}],
        "validate_clusters": false, "max_direct_response_body_size_bytes": 0
    });
    let message: RouteConfiguration = to_message(&value).unwrap();
    let printed = from_message(&message).unwrap();
    assert_eq!(
        printed,
        json!({
            "virtual_hosts": [{"routes": [{"route": {"cluster": "", "timeout": "0s"}}]}],
            "validate_clusters": false, "max_direct_response_body_size_bytes": 0
        })
    );
}

#[test]
fn wide_integers_are_text_and_floats_are_short() {
    let wire = to_wire("google.protobuf.Int64Value", &json!(-5)).unwrap();
    assert_eq!(
        from_wire("google.protobuf.Int64Value", &wire).unwrap(),
        json!("-5")
    );
    let wire = to_wire("google.protobuf.FloatValue", &json!(0.1)).unwrap();
    assert_eq!(
        from_wire("google.protobuf.FloatValue", &wire)
            .unwrap()
            .to_string(),
        "0.1"
    );
    let wire = to_wire("google.protobuf.DoubleValue", &json!("-Infinity")).unwrap();
    assert_eq!(
        from_wire("google.protobuf.DoubleValue", &wire).unwrap(),
        json!("-Infinity")
    );
    assert!(to_wire("google.protobuf.FloatValue", &json!(1e300)).is_err());
}

#[test]
fn bytes_are_base64_of_either_alphabet() {
    for text in ["-_8", "+/8=", "+/8"] {
        let wire = to_wire("google.protobuf.BytesValue", &json!(text)).unwrap();
        assert_eq!(
            from_wire("google.protobuf.BytesValue", &wire).unwrap(),
            json!("+/8=")
        );
    }
    assert!(to_wire("google.protobuf.BytesValue", &json!("*")).is_err());
}

#[test]
fn depth_and_size_have_limits() {
    let mut deep = json!({});
    for _ in 0..300 {
        deep = json!({"a": deep});
    }
    let error = to_wire("google.protobuf.Struct", &deep).unwrap_err();
    assert_eq!(error.problem, Problem::TooDeep(100));
    let roomy = ParseOptions {
        max_depth: 1000,
        ..ParseOptions::default()
    };
    let wire = to_wire_with("google.protobuf.Struct", &deep, &roomy)
        .unwrap()
        .wire;
    let error = from_wire("google.protobuf.Struct", &wire).unwrap_err();
    assert_eq!(error.problem, Problem::TooDeep(100));
    let tight = ParseOptions {
        max_bytes: 10,
        ..ParseOptions::default()
    };
    let long = json!({"name": "n".repeat(50)});
    assert_eq!(
        to_wire_with(CLUSTER, &long, &tight).unwrap_err().problem,
        Problem::TooLarge(10)
    );
}

#[test]
fn broken_wire_is_an_error_not_a_panic() {
    for wire in [
        &[0x0a, 0x05, 1][..],
        &[0x08],
        &[0x00],
        &[0x0b],
        &[0x0a, 0x01, 0xff],
        &[0xff; 11],
    ] {
        assert!(from_wire(CLUSTER, wire).is_err(), "{wire:?}");
    }
    assert_eq!(
        from_wire(CLUSTER, &[0xf8, 0xff, 0x01, 1]).unwrap(),
        json!({}),
        "unknown fields are passed over"
    );
}

#[test]
fn the_last_of_a_oneof_on_the_wire_wins_and_messages_merge() {
    let name = "envoy.config.route.v3.RouteMatch";
    let mut wire = to_wire(name, &json!({"prefix": "/"})).unwrap();
    wire.extend(to_wire(name, &json!({"path": "/x"})).unwrap());
    assert_eq!(from_wire(name, &wire).unwrap(), json!({"path": "/x"}));
    let mut wire = to_wire(
        CLUSTER,
        &json!({"eds_cluster_config": {"service_name": "s"}}),
    )
    .unwrap();
    wire.extend(
        to_wire(
            CLUSTER,
            &json!({"eds_cluster_config": {"eds_config": {"ads": {}}}}),
        )
        .unwrap(),
    );
    assert_eq!(
        from_wire(CLUSTER, &wire).unwrap(),
        json!({"eds_cluster_config": {"eds_config": {"ads": {}}, "service_name": "s"}})
    );
}

#[test]
fn groups_of_unknown_fields_are_passed_over_as_by_decoders() {
    // Field 500 as a group that holds a varint and another group; then the name.
    let group = [0xa3, 0x1f, 0x08, 0x01, 0x13, 0x14, 0xa4, 0x1f];
    let wire = [&group[..], b"\x0a\x01c"].concat();
    assert!(Cluster::decode(&wire[..]).is_ok());
    assert_eq!(from_wire(CLUSTER, &wire).unwrap(), json!({"name": "c"}));
    for broken in [&group[..6], &group[6..], &[0xa3, 0x1f, 0x14][..]] {
        assert!(from_wire(CLUSTER, broken).is_err(), "{broken:?}");
    }
}

#[test]
fn words_are_taken_where_they_are_wanted() {
    let given = json!({ "type": "strict_dns", "lb_policy": "Least_Request", "respect_dns_ttl": "yes",
        "dns_lookup_family": "2", "use_tcp_for_dns_lookups": "False" });
    let plain = json!({ "type": "STRICT_DNS", "lb_policy": "LEAST_REQUEST", "respect_dns_ttl": true,
        "dns_lookup_family": "V6_ONLY" });
    let words = ParseOptions {
        loose: true,
        ..ParseOptions::default()
    };
    let parsed = to_wire_with(CLUSTER, &given, &words).expect("words");
    assert_eq!(parsed.wire, to_wire(CLUSTER, &plain).expect("plain"));
    assert!(
        to_wire(CLUSTER, &given).is_err(),
        "Kubernetes knows no such words"
    );
    for wrong in [
        json!({ "type": "strict-dns" }),
        json!({ "respect_dns_ttl": "maybe" }),
    ] {
        assert!(to_wire_with(CLUSTER, &wrong, &words).is_err(), "{wrong}");
    }
}

#[test]
fn short_and_long_forms_of_files_are_taken_where_they_are_wanted() {
    let given = json!({ "connect_timeout": { "seconds": 5, "nanos": "1000" },
        "per_connection_buffer_limit_bytes": { "value": 7 },
        "health_checks": { "timeout": "1s", "interval": { "seconds": 1 }, "expected_statuses": {} } });
    let plain = json!({ "connect_timeout": "5.000001s", "per_connection_buffer_limit_bytes": 7,
        "health_checks": [{ "timeout": "1s", "interval": "1s" }] });
    let loose = ParseOptions {
        loose: true,
        ..ParseOptions::default()
    };
    let refused =
        to_wire_with(CLUSTER, &given, &loose).expect_err("a health check has no such field");
    assert_eq!(refused.path, "health_checks[0].expected_statuses");
    let mut given = given;
    given["health_checks"]
        .as_object_mut()
        .expect("an object")
        .remove("expected_statuses");
    let parsed = to_wire_with(CLUSTER, &given, &loose).expect("taken");
    assert_eq!(parsed.wire, to_wire(CLUSTER, &plain).expect("plain"));
    for field in [
        "connect_timeout",
        "per_connection_buffer_limit_bytes",
        "health_checks",
    ] {
        let one = json!({ field: given[field] });
        assert!(
            to_wire(CLUSTER, &one).is_err(),
            "Kubernetes knows no such {field}"
        );
    }
    let wrong = json!({ "connect_timeout": { "second": 5 } });
    assert!(to_wire_with(CLUSTER, &wrong, &loose).is_err());
}
