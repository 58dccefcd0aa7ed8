//! The fields about how names are looked up.

use lateen_xds_proto::envoy::config::cluster::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::clusters::dns::v3 as dns_cluster;
use lateen_xds_proto::envoy::extensions::network::dns_resolver::cares::v3 as cares;
use serde_json::{Value, json};

use super::{Samples, assignment, check, dns, extension, merged};

#[test]
fn dns_fields() {
    let samples = samples!(pb::cluster::RefreshRate {
        base_interval: "2s",
        max_interval: "99s",
    });
    check(
        "RefreshRate",
        &dns(),
        samples,
        |f| json!({ "dns_failure_refresh_rate": merged(json!({ "base_interval": "1s" }), f) }),
    );
    let name = "envoy.extensions.clusters.dns.v3.DnsCluster";
    let by_name = |f: Value| {
        let kind = json!({ "type": null, "cluster_type": extension(name, f) });
        merged(assignment(json!({})), kind)
    };
    let samples = samples!(dns_cluster::DnsCluster {
        dns_refresh_rate: "2s",
        dns_failure_refresh_rate: { "base_interval": "2s" },
        respect_dns_ttl: true,
        dns_jitter: "1s",
        typed_dns_resolver_config: {
            "name": "envoy.network.dns_resolver.getaddrinfo",
            "typed_config": { "@type": "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" }
        },
        dns_lookup_family: "V4_ONLY",
        all_addresses_in_single_endpoint: true,
        dns_min_refresh_rate: "2s",
    });
    check("DnsCluster", &dns(), samples, by_name);
    let samples = samples!(dns_cluster::dns_cluster::RefreshRate {
        base_interval: "2s",
        max_interval: "99s",
    });
    check("DnsCluster.RefreshRate", &dns(), samples, |f| {
        by_name(json!({ "dns_failure_refresh_rate": merged(json!({ "base_interval": "1s" }), f) }))
    });
    let samples = samples!(cares::CaresDnsResolverConfig {
        resolvers: [{ "socket_address": { "address": "10.0.0.1", "port_value": 80 } }],
        use_resolvers_as_fallback: true,
        filter_unroutable_families: true,
        dns_resolver_options: { "no_default_search_domain": true },
        udp_max_queries: 1,
        query_timeout_seconds: 1,
        query_tries: 1,
        rotate_nameservers: true,
        edns0_max_payload_size: 1,
        max_udp_channel_duration: "1s",
        reinit_channel_on_timeout: true,
        qcache_max_ttl: 1,
    });
    check("CaresDnsResolverConfig", &dns(), samples, |f| {
        let name = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
        json!({ "typed_dns_resolver_config": extension(name, f) })
    });
    let samples = samples!(core::DnsResolutionConfig {
        resolvers: [{ "socket_address": { "address": "10.0.0.1", "port_value": 80 } }],
        dns_resolver_options: { "use_tcp_for_dns_lookups": true },
    });
    check(
        "DnsResolutionConfig",
        &dns(),
        samples,
        |f| json!({ "dns_resolution_config": f }),
    );
    let samples = samples!(core::DnsResolverOptions {
        use_tcp_for_dns_lookups: true,
        no_default_search_domain: true,
    });
    check(
        "DnsResolverOptions",
        &dns(),
        samples,
        |f| json!({ "dns_resolution_config": { "dns_resolver_options": f } }),
    );
}
