//! xDS resources to the proxy's values. An input is a message in wire form, or in JSON (it begins
//! with `{`), which mutation keeps meaningful far more often. What is accepted is put to work: a
//! resource that decodes must not make the proxy panic later.

use std::net::SocketAddr;
use std::sync::Arc;

use lateen_proxy_core::config::{
    Cluster, ClusterLoadAssignment, HttpConnectionManager, Listener, NetworkFilter,
    RouteConfiguration, RouteSource,
};
use lateen_proxy_core::filter_chain::Connection;
use lateen_proxy_core::headers::HeaderList;
use lateen_proxy_core::lb::{Balancer, Health, HostSpec, Pick};
use lateen_proxy_core::router::Request;
use lateen_proxy_core::{hash_policy, path, rewrite};
use lateen_proxy_xds::decode::{self, Context};
use lateen_xds_proto::json;

use crate::Target;
use crate::bytes::{hash, nested, seeds, text};

const WORDS: &[&str] = &[
    "\"name\":",
    "\"typed_config\":",
    "\"@type\":\"type.googleapis.com/",
    "{}",
    "[]",
    "null",
    "true",
    "\"0s\"",
    "\"315576000000s\"",
    "\"-1s\"",
    "4294967295",
    "-1",
    "\"\"",
    "\"*\"",
    "\"regex\":\"(a*)*\"",
    "\"safe_regex\":{\"regex\":\"",
    "\"prefix\":\"/\"",
    "\"weight\":0",
    "\"port_value\":65536",
    "\"address\":\"::1\"",
    "\"ring_hash_lb_config\":{",
    "\"maximum_ring_size\":8388609",
    "\"maglev_lb_config\":{\"table_size\":5000011}",
    "\"lb_policy\":\"RING_HASH\"",
    "\"lb_policy\":\"MAGLEV\"",
    "\"priority\":128",
    "\"weighted_clusters\":{\"clusters\":[",
    "\"numerator\":",
    "\"denominator\":\"HUNDRED\"",
    "\"filter_chain_match\":{",
    "\"prefix_len\":33",
    "\"inline_string\":\"%REQ(",
    "\"inline_bytes\":\"",
];

/// Listeners.
pub const LISTENER: Target = Target {
    name: "xds_listener",
    run: listener,
    seeds: || {
        let mut list = seeds(&[
            LISTENER_SEED,
            r#"{"name":"l","address":{"pipe":{"path":"/x"}}}"#,
        ]);
        list.push(nested(r#"{"filter_chains":[{"filters":["#, "]}]}", 40));
        list
    },
    words: WORDS,
    rounds: 1200,
};

/// Clusters.
pub const CLUSTER: Target = Target {
    name: "xds_cluster",
    run: cluster,
    seeds: || seeds(&[CLUSTER_SEED, RING_SEED]),
    words: WORDS,
    rounds: 1200,
};

/// Route tables, then routed by.
pub const ROUTES: Target = Target {
    name: "xds_routes",
    run: routes,
    seeds: || seeds(&[ROUTES_SEED, REDIRECT_SEED]),
    words: WORDS,
    rounds: 1200,
};

/// Endpoints, then balanced over.
pub const ENDPOINTS: Target = Target {
    name: "xds_endpoints",
    run: endpoints,
    seeds: || seeds(&[ENDPOINTS_SEED]),
    words: WORDS,
    rounds: 1500,
};

/// Secrets.
pub const SECRET: Target = Target {
    name: "xds_secret",
    run: secret,
    seeds: || {
        seeds(&[
            r#"{"name":"default","tls_certificate":{"certificate_chain":{"inline_string":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"},"private_key":{"inline_bytes":"AAAA"}}}"#,
            r#"{"name":"ROOTCA","validation_context":{"trusted_ca":{"filename":"/x"},"match_typed_subject_alt_names":[{"san_type":"URI","matcher":{"exact":"spiffe://a/ns/b/sa/c"}}]}}"#,
        ])
    },
    words: WORDS,
    rounds: 1500,
};

const LISTENER_SEED: &str = r#"{"name":"0.0.0.0_9080","address":{"socket_address":{"address":"0.0.0.0","port_value":9080}},"bind_to_port":false,"traffic_direction":"OUTBOUND","listener_filters_timeout":"0s","listener_filters":[{"name":"tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},"filter_disabled":{"destination_port_range":{"start":3306,"end":3307}}}],"filter_chains":[{"filter_chain_match":{"transport_protocol":"raw_buffer","application_protocols":["http/1.1"],"prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}],"destination_port":80,"server_names":["*.a.b"]},"filters":[{"name":"hcm","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager","stat_prefix":"o","route_config":{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/"},"route":{"cluster":"c"}}]}]},"normalize_path":true,"http_filters":[{"name":"fault","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault","delay":{"fixed_delay":"1s","percentage":{"numerator":10}}}},{"name":"router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}],"default_filter_chain":{"filters":[{"name":"tcp","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy","stat_prefix":"p","weighted_clusters":{"clusters":[{"name":"a","weight":1}]}}}]}}"#;
const CLUSTER_SEED: &str = r#"{"name":"outbound|9080||reviews","type":"EDS","eds_cluster_config":{"eds_config":{"ads":{},"resource_api_version":"V3"},"service_name":"s"},"connect_timeout":"10s","lb_policy":"LEAST_REQUEST","circuit_breakers":{"thresholds":[{"max_connections":1,"max_pending_requests":2,"max_requests":3,"max_retries":4}]},"outlier_detection":{"consecutive_5xx":7,"interval":"1s","base_ejection_time":"180s","max_ejection_percent":100},"typed_extension_protocol_options":{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions","explicit_http_config":{"http2_protocol_options":{"max_concurrent_streams":7}}}},"transport_socket":{"name":"tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext","sni":"a.b","common_tls_context":{"alpn_protocols":["h2"]}}}}"#;
const RING_SEED: &str = r#"{"name":"r","type":"STATIC","connect_timeout":"1s","lb_policy":"RING_HASH","ring_hash_lb_config":{"minimum_ring_size":"8","maximum_ring_size":"64"},"common_lb_config":{"healthy_panic_threshold":{"value":50},"locality_weighted_lb_config":{}},"load_assignment":{"cluster_name":"r","endpoints":[{"priority":0,"load_balancing_weight":3,"locality":{"region":"a"},"lb_endpoints":[{"load_balancing_weight":2,"endpoint":{"address":{"socket_address":{"address":"1.2.3.4","port_value":1}}}},{"health_status":"DRAINING","endpoint":{"address":{"socket_address":{"address":"1.2.3.5","port_value":1}}}}]}]}}"#;
const ROUTES_SEED: &str = r#"{"name":"9080","validate_clusters":false,"virtual_hosts":[{"name":"reviews","domains":["reviews","reviews.*","*.svc:9080","*"],"request_headers_to_add":[{"header":{"key":"x-a","value":"%DOWNSTREAM_REMOTE_ADDRESS%"},"append_action":"ADD_IF_ABSENT"}],"routes":[{"match":{"prefix":"/a","headers":[{"name":"end-user","string_match":{"safe_regex":{"regex":"j(as|on)+"}}}],"query_parameters":[{"name":"q","present_match":true}]},"route":{"weighted_clusters":{"clusters":[{"name":"v1","weight":90},{"name":"v2","weight":10}]},"timeout":"0s","retry_policy":{"retry_on":"5xx,connect-failure","num_retries":2},"hash_policy":[{"cookie":{"name":"u","ttl":"0s","path":"/"}},{"header":{"header_name":"x"}}]}},{"match":{"safe_regex":{"regex":"/b/(\\d+)/.*"}},"route":{"cluster":"c","regex_rewrite":{"pattern":{"regex":"/b/(\\d+)"},"substitution":"/\\1"},"host_rewrite_literal":"h"}},{"match":{"path_separated_prefix":"/p"},"route":{"cluster":"c","prefix_rewrite":"/q"}},{"match":{"prefix":"/"},"direct_response":{"status":503,"body":{"inline_string":"x"}}}]}]}"#;
const REDIRECT_SEED: &str = r#"{"name":"r","ignore_port_in_host_matching":true,"virtual_hosts":[{"name":"v","domains":["*"],"require_tls":"ALL","routes":[{"match":{"path":"/x","case_sensitive":false,"runtime_fraction":{"default_value":{"numerator":50,"denominator":"MILLION"}}},"redirect":{"https_redirect":true,"host_redirect":"o","port_redirect":444,"prefix_rewrite":"/y","response_code":"PERMANENT_REDIRECT","strip_query":true}},{"match":{"path_match_policy":{"name":"t","typed_config":{"@type":"type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig","path_template":"/a/{*}/b"}}},"route":{"cluster_header":"x-cluster","request_mirror_policies":[{"cluster":"m"}]}},{"match":{"connect_matcher":{}},"route":{"cluster":"c","upgrade_configs":[{"upgrade_type":"CONNECT","connect_config":{}}]}}]}]}"#;
const ENDPOINTS_SEED: &str = r#"{"cluster_name":"outbound|9080||reviews","endpoints":[{"locality":{"region":"r","zone":"z"},"load_balancing_weight":2,"lb_endpoints":[{"load_balancing_weight":1,"metadata":{"filter_metadata":{"istio":{"workload":"w;n;s;v;"}}},"endpoint":{"address":{"socket_address":{"address":"10.0.0.1","port_value":9080}},"additional_addresses":[{"address":{"socket_address":{"address":"::1","port_value":1}}}]}},{"health_status":"UNHEALTHY","endpoint":{"hostname":"h","address":{"pipe":{"path":"/s"}}}}]},{"priority":1,"lb_endpoints":[]}],"policy":{"overprovisioning_factor":140,"drop_overloads":[{"category":"c","drop_percentage":{"numerator":1}}]}}"#;

/// The message's wire form.
fn wire(message: &str, data: &[u8]) -> Option<Vec<u8>> {
    if !data.starts_with(b"{") {
        return Some(data.to_vec());
    }
    let value = serde_json::from_str(text(data)?).ok()?;
    json::to_wire(message, &value).ok()
}

/// What the proxy accepted it must be able to show.
fn assert_can_be_dumped(message: &str, wire: &[u8]) {
    if let Err(error) = json::from_wire(message, wire) {
        panic!("accepted, but cannot be dumped: {error}");
    }
}

fn address(at: u64) -> SocketAddr {
    match at % 3 {
        0 => SocketAddr::from(([10, 0, 0, 1], 80)),
        1 => SocketAddr::from(([127, 0, 0, 6], 3306)),
        _ => "[2001:db8::1]:443".parse().expect("an address"),
    }
}

fn listener(data: &[u8]) {
    const MESSAGE: &str = "envoy.config.listener.v3.Listener";
    let Some(wire) = wire(MESSAGE, data) else {
        return;
    };
    let Ok(decoded) = decode::listener(&wire, &Context::empty()) else {
        return;
    };
    assert_can_be_dumped(MESSAGE, &wire);
    use_listener(&decoded.listener, hash(data));
}

/// Chooses chains for a few connections, and a route in each.
pub fn use_listener(listener: &Listener, salt: u64) {
    for (at, name) in ["", "a.b", "x.a.b", "UPPER"].into_iter().enumerate() {
        let connection = Connection {
            destination: (at != 3).then(|| address(salt + at as u64)),
            server_name: name,
            transport_protocol: if at % 2 == 0 { "raw_buffer" } else { "tls" },
            application_protocols: &["http/1.1", "h2c"],
            direct_source: Some(address(at as u64)),
            source: Some(address(at as u64 + 1)),
        };
        let chosen = listener
            .matcher
            .select(&listener.filter_chains, &connection);
        let chain = match chosen {
            Some(index) => Some(&listener.filter_chains[index]),
            None => listener.default_filter_chain.as_ref(),
        };
        for filter in chain.iter().flat_map(|chain| &chain.filters) {
            if let NetworkFilter::HttpConnectionManager(manager) = filter {
                use_manager(manager, salt);
            }
        }
        let port = address(at as u64).port();
        assert!(listener.active_filters(port).count() <= listener.listener_filters.len());
    }
}

fn use_manager(manager: &HttpConnectionManager, salt: u64) {
    if let RouteSource::Inline(routes) = &manager.routes {
        use_routes(routes, salt);
    }
    for host in [&b"ex.com.:80"[..], b"[::1]:80", b""] {
        let stripped = rewrite::strip_host(manager, host, Some(80));
        assert!(stripped.len() <= host.len());
    }
}

fn cluster(data: &[u8]) {
    const MESSAGE: &str = "envoy.config.cluster.v3.Cluster";
    let Some(wire) = wire(MESSAGE, data) else {
        return;
    };
    let Ok(decoded) = decode::cluster(&wire, &Context::empty(), data.len().is_multiple_of(2))
    else {
        return;
    };
    assert_can_be_dumped(MESSAGE, &wire);
    let assignment = ClusterLoadAssignment {
        localities: vec![Default::default()],
        ..Default::default()
    };
    balance(&decoded.cluster, &assignment, hash(data));
}

/// Chooses hosts in all states of health.
pub fn balance(cluster: &Cluster, assignment: &ClusterLoadAssignment, salt: u64) {
    let mut hosts: Vec<HostSpec> = Vec::new();
    for (index, locality) in (0_u32..).zip(&assignment.localities) {
        for endpoint in &locality.endpoints {
            assert!(endpoint.weight >= 1, "a host without weight");
            hosts.push(HostSpec {
                priority: locality.priority,
                locality: index,
                locality_weight: locality.weight,
                weight: endpoint.weight,
                hash_key: endpoint.address.to_string(),
                metadata: Default::default(),
            });
        }
    }
    if hosts.is_empty() {
        hosts.extend((1..4).map(|weight| HostSpec {
            priority: 0,
            locality: 0,
            locality_weight: Some(1),
            weight,
            hash_key: format!("10.0.0.{weight}:80"),
            metadata: Default::default(),
        }));
    }
    let count = hosts.len();
    let factor = assignment.overprovisioning_factor;
    let mut balancer = Balancer::new(cluster, hosts, factor, salt);
    for round in 0..4_u64 {
        let health = |index: usize| match (index as u64 + salt + round) % (round + 1) {
            0 => Health::Healthy,
            1 => Health::Unhealthy,
            _ => Health::Degraded,
        };
        balancer.refresh(&health, salt ^ round);
        let mut random = salt;
        for hash in [None, Some(salt), Some(u64::MAX)] {
            let pick = Pick {
                hash,
                active: &|index| index as u32,
                avoid: &|index| index == 0,
                attempts: 3,
            };
            let chosen = balancer.pick(&pick, &mut || {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                random
            });
            assert!(chosen.is_none_or(|index| index < count), "no such host");
        }
    }
}

fn routes(data: &[u8]) {
    const MESSAGE: &str = "envoy.config.route.v3.RouteConfiguration";
    let Some(wire) = wire(MESSAGE, data) else {
        return;
    };
    let Ok(table) = decode::routes(&wire, &Context::empty()) else {
        return;
    };
    assert_can_be_dumped(MESSAGE, &wire);
    use_routes(&table, hash(data));
}

/// Routes a few requests.
pub fn use_routes(table: &RouteConfiguration, salt: u64) {
    let paths = [
        "/",
        "/a?q=1",
        "/b/12/x;y=1",
        "/p/q",
        "/X",
        "/a/x/b",
        "*",
        "",
    ];
    for (at, target) in paths.into_iter().enumerate() {
        let authority: &[u8] = [&b"reviews"[..], b"a.svc:9080", b"", b"REVIEWS.x"][at % 4];
        let headers = HeaderList::of(&[
            (":path", target),
            (":method", "GET"),
            ("end-user", "jason"),
            ("x", "1"),
            ("cookie", "a=b; u=\"1\""),
        ]);
        let request = Request {
            path: target.as_bytes(),
            authority,
            headers: &headers,
            connect: at == 7,
            random: salt.rotate_left(at as u32 * 8),
            client_certificate: (at % 2 == 0, false),
            metadata: &|_| None,
        };
        let Some(selected) = table.select(&request) else {
            continue;
        };
        let held = table
            .virtual_hosts
            .iter()
            .any(|host| Arc::ptr_eq(host, selected.virtual_host));
        assert!(held, "a host of another table");
        if let lateen_proxy_core::config::RouteAction::Forward(forward) = &selected.route.action {
            let hashed = hash_policy::compute(&forward.hash_policy, &headers, None, &mut || salt);
            assert!(
                hashed
                    .cookies
                    .iter()
                    .all(|cookie| !cookie.contains(['\r', '\n', '\0']))
            );
            let _ = lateen_proxy_core::retry::timeouts(
                forward,
                forward.retry_policy.as_deref(),
                &headers,
                true,
                true,
            );
        }
        assert!(path::without_query(target.as_bytes()).len() <= target.len());
    }
}

fn endpoints(data: &[u8]) {
    const MESSAGE: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    let Some(wire) = wire(MESSAGE, data) else {
        return;
    };
    let Ok(assignment) = decode::endpoints(&wire) else {
        return;
    };
    assert_can_be_dumped(MESSAGE, &wire);
    assert!(assignment.localities.iter().all(|l| l.priority <= 128));
    thread_local! {
        static CLUSTERS: Vec<Cluster> = ["LEAST_REQUEST", "RING_HASH", "MAGLEV", "ROUND_ROBIN"]
            .iter()
            .map(|policy| {
                let options = match *policy {
                    "RING_HASH" => r#""ring_hash_lb_config":{"minimum_ring_size":"64","maximum_ring_size":"1024"},"#,
                    "MAGLEV" => r#""maglev_lb_config":{"table_size":"251"},"#,
                    _ => "",
                };
                let json = format!(r#"{{"name":"c","type":"STATIC","lb_policy":"{policy}",{options}
                    "common_lb_config":{{"locality_weighted_lb_config":{{}}}},
                    "load_assignment":{{"cluster_name":"c"}}}}"#);
                let value = serde_json::from_str(&json).expect("JSON");
                let wire = json::to_wire("envoy.config.cluster.v3.Cluster", &value).expect("a cluster");
                decode::cluster(&wire, &Context::empty(), false).expect("accepted").cluster
            })
            .collect();
    }
    CLUSTERS.with(|clusters| {
        let salt = hash(data);
        balance(&clusters[(salt % 4) as usize], &assignment, salt);
    });
}

fn secret(data: &[u8]) {
    const MESSAGE: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
    let Some(wire) = wire(MESSAGE, data) else {
        return;
    };
    if decode::secret(&wire, &Context::empty()).is_ok() {
        assert_can_be_dumped(MESSAGE, &wire);
    }
}
