//! The fields of a cluster's load balancing: of its own settings and of the policies that are
//! extensions.

use super::*;

#[test]
fn balancing_fields() {
    let samples = samples!(pb::cluster::SlowStartConfig {
        slow_start_window: "1s",
        aggression: { "default_value": 2.0, "runtime_key": "k" },
        min_weight_percent: { "value": 1.0 },
    });
    check(
        "SlowStartConfig",
        &statically(),
        samples,
        |f| json!({ "round_robin_lb_config": { "slow_start_config": f } }),
    );
    let samples = samples!(pb::cluster::LeastRequestLbConfig {
        choice_count: 3,
        active_request_bias: { "default_value": 2.0, "runtime_key": "k" },
        slow_start_config: { "slow_start_window": "1s" },
    });
    check(
        "LeastRequestLbConfig",
        &statically(),
        samples,
        |f| json!({ "lb_policy": "LEAST_REQUEST", "least_request_lb_config": f }),
    );
    let samples = samples!(pb::cluster::RingHashLbConfig {
        minimum_ring_size: 1,
        hash_function: "MURMUR_HASH_2",
        maximum_ring_size: 2048,
    });
    check(
        "RingHashLbConfig",
        &statically(),
        samples,
        |f| json!({ "lb_policy": "RING_HASH", "ring_hash_lb_config": f }),
    );
    let samples = samples!(pb::cluster::MaglevLbConfig { table_size: 7 });
    check(
        "MaglevLbConfig",
        &statically(),
        samples,
        |f| json!({ "lb_policy": "MAGLEV", "maglev_lb_config": f }),
    );
    let samples = samples!(pb::cluster::OriginalDstLbConfig {
        use_http_header: true,
        http_header_name: "h",
        upstream_port_override: 1,
        metadata_key: { "key": "k" },
    });
    let base = json!({ "name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED" });
    check(
        "OriginalDstLbConfig",
        &base,
        samples,
        |f| json!({ "original_dst_lb_config": f }),
    );
    let samples = samples!(pb::cluster::LbSubsetConfig {
        fallback_policy: "ANY_ENDPOINT",
        default_subset: { "a": "b" },
        subset_selectors: [{ "keys": ["k"] }],
        locality_weight_aware: true,
        scale_locality_weight: true,
        panic_mode_any: true,
        list_as_any: true,
        metadata_fallback_policy: "FALLBACK_LIST",
    });
    check(
        "LbSubsetConfig",
        &statically(),
        samples,
        |f| json!({ "lb_subset_config": f }),
    );
    let samples = samples!(pb::cluster::lb_subset_config::LbSubsetSelector {
        keys: ["a"],
        single_host_per_subset: true,
        fallback_policy: "NO_FALLBACK",
        fallback_keys_subset: ["k"],
    });
    check(
        "LbSubsetSelector",
        &statically(),
        samples,
        |f| json!({ "lb_subset_config": { "subset_selectors": [merged(json!({ "keys": ["k", "l"] }), f)] } }),
    );
    let samples = samples!(pb::cluster::common_lb_config::ConsistentHashingLbConfig {
        use_hostname_for_hashing: true,
        hash_balance_factor: 150,
    });
    check(
        "ConsistentHashingLbConfig",
        &dns(),
        samples,
        |f| json!({ "common_lb_config": { "consistent_hashing_lb_config": f } }),
    );
    let samples = samples!(pb::cluster::common_lb_config::ZoneAwareLbConfig {
        routing_enabled: { "value": 1.0 },
        min_cluster_size: 1,
        fail_traffic_on_panic: true,
    });
    check(
        "ZoneAwareLbConfig",
        &statically(),
        samples,
        |f| json!({ "common_lb_config": { "zone_aware_lb_config": f } }),
    );
}

#[test]
fn balancing_extensions() {
    const PACKAGE: &str = "envoy.extensions.load_balancing_policies";
    let place = |name: &'static str| {
        move |f: Value| {
            let of = extension(&format!("{PACKAGE}.{name}"), f);
            json!({ "load_balancing_policy": { "policies": [{ "typed_extension_config": of }] } })
        }
    };
    let samples = samples!(policy::round_robin::v3::RoundRobin {
        slow_start_config: { "slow_start_window": "1s" },
        locality_lb_config: { "locality_weighted_lb_config": {} },
    });
    check(
        "RoundRobin",
        &statically(),
        samples,
        place("round_robin.v3.RoundRobin"),
    );
    let samples = samples!(policy::least_request::v3::LeastRequest {
        choice_count: 3,
        active_request_bias: { "default_value": 2.0, "runtime_key": "k" },
        slow_start_config: { "slow_start_window": "1s" },
        locality_lb_config: { "locality_weighted_lb_config": {} },
        enable_full_scan: true,
        selection_method: "FULL_SCAN",
    });
    let samples: Samples = samples
        .into_iter()
        .filter(|(f, _)| *f != "enable_full_scan")
        .collect();
    check(
        "LeastRequest",
        &statically(),
        samples,
        place("least_request.v3.LeastRequest"),
    );
    let full = place("least_request.v3.LeastRequest")(json!({ "enable_full_scan": true }));
    assert!(decoded(&merged(statically(), full)).is_err());
    let samples = samples!(policy::random::v3::Random { locality_lb_config: { "locality_weighted_lb_config": {} } });
    check("Random", &statically(), samples, place("random.v3.Random"));
    let samples = samples!(policy::ring_hash::v3::RingHash {
        hash_function: "MURMUR_HASH_2",
        minimum_ring_size: 1,
        maximum_ring_size: 2048,
        use_hostname_for_hashing: true,
        hash_balance_factor: 150,
        consistent_hashing_lb_config: { "hash_balance_factor": 150 },
        locality_weighted_lb_config: {},
    });
    check(
        "RingHash",
        &statically(),
        samples,
        place("ring_hash.v3.RingHash"),
    );
    let samples = samples!(policy::maglev::v3::Maglev {
        table_size: 7,
        consistent_hashing_lb_config: { "use_hostname_for_hashing": true },
        locality_weighted_lb_config: {},
    });
    check("Maglev", &statically(), samples, place("maglev.v3.Maglev"));
    let samples = samples!(policy::common::v3::locality_lb_config::ZoneAwareLbConfig {
        routing_enabled: { "value": 1.0 },
        min_cluster_size: 1,
        fail_traffic_on_panic: true,
        force_locality_direct_routing: true,
        force_local_zone: {},
        locality_basis: "HEALTHY_HOSTS_WEIGHT",
    });
    check("typed.ZoneAwareLbConfig", &statically(), samples, |f| {
        place("random.v3.Random")(json!({ "locality_lb_config": { "zone_aware_lb_config": f } }))
    });
    let samples = samples!(policy::common::v3::ConsistentHashingLbConfig {
        use_hostname_for_hashing: true,
        hash_balance_factor: 150,
        hash_policy: [{ "header": { "header_name": "h" } }],
    });
    check(
        "typed.ConsistentHashingLbConfig",
        &statically(),
        samples,
        |f| place("maglev.v3.Maglev")(json!({ "consistent_hashing_lb_config": f })),
    );
}
