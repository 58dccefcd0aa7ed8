//! Wire forms between programs: protobuf's JSON, bootstraps, gRPC frames, peer metadata,
//! certificates.

use lateen_identity::{certificate_info, certificate_info_der};
use lateen_proxy::fuzz::{peer_metadata, peer_metadata_wire, peer_names};
use lateen_proxy::mesh::Workload;
use lateen_proxy_xds::ads::Deframer;
use lateen_proxy_xds::bootstrap::{self, Overrides, Source};
use lateen_proxy_xds::sidecar::{self, Input, Role};
use lateen_xds_proto::json::{self, PrintOptions};

use crate::Target;
use crate::bytes::{arrivals, choice, nested, seeds, seeds_after, text};

const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "\"@type\":\"type.googleapis.com/",
    "\"value\":",
    "google.protobuf.Struct",
    "google.protobuf.Any",
    "google.protobuf.Duration",
    "\"1.5s\"",
    "\"1970-01-01T00:00:00.000000001Z\"",
    "\"NaN\"",
    "\"-Infinity\"",
    "1e400",
    "-0",
    "\"AA==\"",
    "\"_-8\"",
    "18446744073709551615",
    "\"9223372036854775808\"",
    "1.0",
    "\\u0000",
    "\\ud800",
    "\"EDS\"",
    "7",
];

/// Protobuf's JSON form, both ways, for some messages of the table.
pub const JSON: Target = Target {
    name: "xds_json",
    run: both_ways,
    seeds: json_seeds,
    words: JSON_WORDS,
    rounds: 2500,
};

/// Bootstraps in YAML and JSON.
pub const BOOTSTRAP: Target = Target {
    name: "bootstrap",
    run: boot,
    seeds: || {
        let mut list = seeds(&[
            BOOTSTRAP_SEED,
            r#"{"node":{"id":"n","cluster":"c"},"admin":{"address":{"socket_address":{"address":"::1","port_value":0}}}}"#,
            "a: &a [x, x]\nb: [*a, *a]\n",
        ]);
        list.push(nested("[", "]", 2000));
        list.push(nested("{a: ", "}", 2000));
        list
    },
    words: &[
        "node: ",
        "admin:\n",
        "static_resources:\n",
        "dynamic_resources:\n",
        "&a ",
        "*a",
        "<<: *a",
        "!!binary ",
        "\n  ",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "yes",
        "1e999",
        ".inf",
        "0x10",
        "2001-01-01",
        "'",
        "|\n",
        "---\n",
        "null",
        "~",
        "layered_runtime:\n",
        "stats_config:\n",
        "cluster_manager:\n",
        "ads_config:\n",
        "api_type: DELTA_GRPC",
    ],
    rounds: 500,
};

/// What injection tells a sidecar: labels, annotations and settings of a pod.
pub const SIDECAR: Target = Target {
    name: "sidecar",
    run: side,
    seeds: || {
        seeds(&[
            "app=\"reviews\"\nversion=\"v1\"\n\0proxy.istio.io/config=\"{}\"\nsidecar.istio.io/x=\"a\\nb\"\n\0{\"discoveryAddress\":\"istiod:15012\",\"concurrency\":2,\"proxyMetadata\":{\"A\":\"b\"}}",
            "x=\"\\u00e9\\\"\"\n\0\0concurrency: 2\ndiscoveryAddress: '[::1]:15010'\nserviceCluster: a\n",
        ])
    },
    words: &[
        "=\"",
        "\"\n",
        "\\n",
        "\\u",
        "\\x",
        "\0",
        "discoveryAddress: ",
        "[::1]:15012",
        "concurrency: -1",
        ":",
    ],
    rounds: 400,
};

/// gRPC messages in HTTP/2 data.
pub const GRPC: Target = Target {
    name: "grpc_frames",
    run: frames,
    seeds: || {
        vec![
            b"\0\0\0\0\x05hello\0\0\0\0\0\0\0\0\0\x01x".to_vec(),
            b"\x01\0\0\0\x01x".to_vec(),
            b"\0\xff\xff\xff\xff".to_vec(),
        ]
    },
    words: &["\0\0\0\0\x01", "\x01", "\0\0\0\0\0", "\0\x10\0\0\x01"],
    rounds: 4000,
};

/// `x-envoy-peer-metadata`: the bytes in base64.
pub const PEER: Target = Target {
    name: "peer_metadata",
    run: peer,
    seeds: || {
        vec![
            b"\x0a\x0b\x0a\x04NAME\x12\x03\x1a\x01n".to_vec(),
            b"\x0a\x1c\x0a\x06LABELS\x12\x12\x2a\x10\x0a\x0e\x0a\x03app\x12\x07\x1a\x05hello"
                .to_vec(),
            b"\x0a\x05\x12\x03\x2a\x01\x0a".to_vec(),
        ]
    },
    words: &[
        "\x0a",
        "\x12",
        "\x1a",
        "\x2a",
        "NAME",
        "LABELS",
        "WORKLOAD_NAME",
        "NAMESPACE",
        "app",
        "\u{7f}",
    ],
    rounds: 4000,
};

/// Certificates of peers: the names in them.
pub const CERTIFICATE: Target = Target {
    name: "certificate",
    run: certificate,
    seeds: || {
        vec![
            // Self-signed, made once: mutation needs the same bytes in every run.
            include_bytes!("seeds/workload.der").to_vec(),
            include_bytes!("seeds/server.der").to_vec(),
            b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec(),
        ]
    },
    words: &[
        "\x30\u{1}",
        "\x02\x01",
        "spiffe://",
        "\x06\x03\x55\x1d\x11",
        "\x18\x0f",
        "\0",
    ],
    rounds: 2000,
};

/// Messages with every kind of field between them.
const MESSAGES: [&str; 8] = [
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.core.v3.Node",
    "envoy.config.bootstrap.v3.Bootstrap",
    "google.protobuf.Any",
    "google.protobuf.Value",
    "envoy.service.discovery.v3.DeltaDiscoveryRequest",
];

const BOOTSTRAP_SEED: &str = "node: {id: sidecar~10.0.0.1~a.b~c, cluster: r, metadata: {A: [1, true, null]}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
stats_config: {use_all_default_tags: false}
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
static_resources:
  clusters:
  - {name: xds, type: STRICT_DNS, connect_timeout: 1s, load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: istiod, port_value: 15010}}}}]}]}}
";

fn json_seeds() -> Vec<Vec<u8>> {
    let mut list = seeds_after(
        0,
        &[
            r#"{"name":"c","type":"EDS","connect_timeout":"0.25s","circuit_breakers":{"thresholds":[{"max_connections":4294967295}]},"metadata":{"filter_metadata":{"a":{"b":[1.5,null,true,"x",{}]}}}}"#,
        ],
    );
    list.extend(seeds_after(1, &[r#"{"name":"l","filterChains":[{"filters":[{"name":"f","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy","statPrefix":"s","idleTimeout":"1s"}}]}],"useOriginalDst":true}"#]));
    list.extend(seeds_after(3, &[r#"{"id":"n","metadata":{"A":"b"},"user_agent_build_version":{"version":{"major_number":1}},"client_features":["a"]}"#]));
    list.extend(seeds_after(
        5,
        &[
            r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.5s"}"#,
            r#"{"@type":"x/unknown.Type","value":"AA=="}"#,
        ],
    ));
    list.extend(seeds_after(6, &["[1,{\"a\":[]},null]", "\"x\""]));
    list.extend(seeds_after(7, &[r#"{"resource_names_subscribe":["a"],"initial_resource_versions":{"a":"1"},"error_detail":{"code":3,"message":"m"}}"#]));
    list.push([&[6][..], &nested("[", "]", 90)].concat());
    list.push([&[0x88][..], b"\x0a\x01c\x10\x03\x22\x02\x08\x01"].concat());
    list
}

fn both_ways(data: &[u8]) {
    let (option, input) = choice(data);
    let name = MESSAGES[usize::from(option & 7)];
    let wire = if option & 0x80 != 0 {
        input.to_vec()
    } else {
        let Some(value) = text(input).and_then(|text| serde_json::from_str(text).ok()) else {
            return;
        };
        let Ok(wire) = json::to_wire(name, &value) else {
            return;
        };
        wire
    };
    // An `Any` of an unknown type is printed as bytes, which are refused where all must be known.
    let options = PrintOptions {
        strict_any: true,
        ..PrintOptions::default()
    };
    let print = |wire: &[u8]| json::from_wire_with(name, wire, &options);
    let Ok(printed) = print(&wire) else {
        // What was made here must be printable.
        assert!(option & 0x80 != 0, "written and not readable");
        return;
    };
    // The reader of JSON text may miss the last bit of a number: what it read is what counts.
    let read: serde_json::Value =
        serde_json::from_str(&printed.to_string()).expect("JSON prints JSON");
    let again = json::to_wire(name, &read).expect("what is printed is read");
    let back = print(&again).expect("and printed again");
    assert_eq!(back, read, "not the same twice");
    let camel = json::from_wire_with(name, &again, &PrintOptions::camel()).expect("in camel case");
    let from_camel = json::to_wire(name, &camel).expect("what is printed is read");
    let same = print(&from_camel).expect("and printed again");
    assert_eq!(same, read, "the two forms of names differ");
}

fn boot(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let source = Source {
        name: "b.yaml",
        text,
    };
    for allow_unknown in [false, true] {
        let overrides = Overrides {
            allow_unknown,
            ..Overrides::default()
        };
        match bootstrap::load(&[source], &overrides) {
            Err(error) => assert!(error.to_string().contains("b.yaml"), "no file in {error}"),
            Ok(loaded) => assert!(allow_unknown || loaded.unknown.is_empty()),
        }
    }
}

fn side(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (labels, annotations, config) = (part(), part(), part());
    let environment = [
        ("INSTANCE_IP", "10.0.0.1"),
        ("POD_NAME", "a"),
        ("POD_NAMESPACE", "b"),
        ("PROXY_CONFIG", config),
    ];
    let environment = environment
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let input = Input {
        role: Role::Sidecar,
        environment: &environment,
        labels,
        annotations,
        domain: "",
        version: "0",
        state_of_the_world: false,
    };
    if let Ok(built) = sidecar::build(&input) {
        let loaded = built.load();
        assert!(loaded.is_ok(), "our own bootstrap: {:?}", loaded.err());
    }
}

/// Messages taken out as the data arrives, and whether the stream broke.
fn taken(data: &[u8], ends: &[usize]) -> (Vec<Vec<u8>>, bool) {
    let (mut deframer, mut all, mut at) = (Deframer::default(), Vec::new(), 0);
    for end in ends {
        deframer.push(&data[at..*end]);
        at = *end;
        loop {
            match deframer.next() {
                Ok(Some(message)) => all.push(message.to_vec()),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

fn frames(data: &[u8]) {
    let mut ends = arrivals(data);
    ends.iter_mut()
        .for_each(|end| *end = (*end).min(data.len()));
    let whole = taken(data, &[data.len()]);
    assert_eq!(taken(data, &ends), whole, "the cut changes the messages");
    let bytes: usize = whole.0.iter().map(|message| message.len() + 5).sum();
    assert!(bytes <= data.len());
}

fn peer(data: &[u8]) {
    use base64::Engine as _;
    let header = base64::engine::general_purpose::STANDARD.encode(data);
    let _ = Workload::of_header(data);
    let Some(metadata) = peer_metadata(header.as_bytes()) else {
        return;
    };
    assert!(header.len() <= 16 * 1024);
    let again = base64::engine::general_purpose::STANDARD.encode(peer_metadata_wire(&metadata));
    if !metadata.is_empty() && again.len() <= 16 * 1024 {
        assert_eq!(peer_metadata(again.as_bytes()), Some(metadata));
    }
}

fn certificate(data: &[u8]) {
    let (uris, dns, _) = peer_names(data);
    if let Ok(info) = certificate_info_der(data) {
        // The page shows what stands there; who a peer is goes by names that can be names.
        assert!(uris.iter().all(|name| info.uris.contains(name)));
        assert!(dns.iter().all(|name| info.dns_names.contains(name)));
        assert_eq!(info.serial.len() % 2, 0);
    }
    if let Some(text) = text(data) {
        let _ = certificate_info(text);
        let _ = lateen_identity::private_key_from_pem(text);
    }
}
