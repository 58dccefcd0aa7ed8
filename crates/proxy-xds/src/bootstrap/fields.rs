//! Every field of a bootstrap outside its resources: read elsewhere, refused here, or known to
//! change nothing that anyone could see. Messages are taken apart whole, so that a field that a
//! new version of the API brings is decided upon before this builds.

use lateen_proxy_core::config::Fields;
use lateen_xds_proto::envoy::config::bootstrap::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::metrics::v3 as metrics;

use crate::error::{At, Result, refuse, refuse_set};
use crate::{decode, runtime};

/// The one prefix of Envoy's headers there is.
const HEADER_PREFIX: &str = "x-envoy";
/// Names under which the system's or c-ares's resolver is asked for.
const RESOLVERS: [&str; 2] = [
    "envoy.network.dns_resolver.getaddrinfo",
    "envoy.network.dns_resolver.cares",
];
/// What is written nowhere is as good as not written.
const NOWHERE: &str = "/dev/null";

/// Refuses what is asked for and not done.
///
/// # Errors
/// The first such field.
pub(super) fn refuse_undone(m: &pb::Bootstrap) -> Result<()> {
    let pb::Bootstrap {
        // Read elsewhere.
        node: _,
        static_resources: _,
        dynamic_resources,
        stats_config,
        stats_flush_interval: _,
        admin,
        layered_runtime,
        overload_manager: _,
        // There are no sinks to flush to, and statistics are made at first use.
        stats_flush: _,
        deferred_stat_options: _,
        enable_dispatcher_stats: _,
        // How Envoy stores headers, memory and its own gRPC clients.
        inline_headers: _,
        memory_allocator_manager: _,
        grpc_async_client_manager_config: _,
        // Told apart below.
        cluster_manager,
        bootstrap_extensions,
        header_prefix,
        default_regex_engine,
        typed_dns_resolver_config,
        default_socket_interface,
        // Not done.
        node_context_params,
        hds_config,
        flags_path,
        stats_sinks,
        watchdog,
        watchdogs,
        tracing,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        fatal_actions,
        config_sources,
        default_config_source,
        certificate_provider_instances,
        perf_tracing_file_path,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        enable_worker_cpu_affinity,
        stats_eviction,
    } = m;
    refuse_set(&[
        (!node_context_params.is_empty(), "node_context_params"),
        (hds_config.is_some(), "hds_config"),
        (!flags_path.is_empty(), "flags_path"),
        (!stats_sinks.is_empty(), "stats_sinks"),
        (watchdog.is_some(), "watchdog"),
        (watchdogs.is_some(), "watchdogs"),
        (tracing.is_some(), "tracing"),
        (
            stats_server_version_override.is_some(),
            "stats_server_version_override",
        ),
        (*use_tcp_for_dns_lookups, "use_tcp_for_dns_lookups"),
        (dns_resolution_config.is_some(), "dns_resolution_config"),
        (!fatal_actions.is_empty(), "fatal_actions"),
        (!config_sources.is_empty(), "config_sources"),
        (default_config_source.is_some(), "default_config_source"),
        (
            !certificate_provider_instances.is_empty(),
            "certificate_provider_instances",
        ),
        (!perf_tracing_file_path.is_empty(), "perf_tracing_file_path"),
        (xds_delegate_extension.is_some(), "xds_delegate_extension"),
        (
            xds_config_tracker_extension.is_some(),
            "xds_config_tracker_extension",
        ),
        (listener_manager.is_some(), "listener_manager"),
        (application_log_config.is_some(), "application_log_config"),
        (*enable_worker_cpu_affinity, "enable_worker_cpu_affinity"),
        (stats_eviction.is_some(), "stats_eviction"),
    ])?;
    if !header_prefix.is_empty() && header_prefix != HEADER_PREFIX {
        return refuse(format!("must be {HEADER_PREFIX}")).at("header_prefix");
    }
    extension(default_regex_engine, &["envoy.regex_engines.google_re2"])
        .at("default_regex_engine")?;
    resolver(typed_dns_resolver_config).at("typed_dns_resolver_config")?;
    let sockets = "envoy.extensions.network.socket_interface.default_socket_interface";
    if !default_socket_interface.is_empty() && default_socket_interface != sockets {
        return refuse(format!("{default_socket_interface} is not implemented"))
            .at("default_socket_interface");
    }
    dynamic(dynamic_resources).at("dynamic_resources")?;
    manager(cluster_manager).at("cluster_manager")?;
    self::admin(admin).at("admin")?;
    stats(stats_config).at("stats_config")?;
    for (i, layer) in layered_runtime.iter().flat_map(|r| &r.layers).enumerate() {
        let layer = runtime_layer(layer).item("layers", i);
        layer.at("layered_runtime")?;
    }
    extensions(bootstrap_extensions)
}

/// An extension that may be named but is the one there is.
fn extension(m: &Option<core::TypedExtensionConfig>, known: &[&str]) -> Result<()> {
    match m {
        Some(m) if !known.contains(&m.name.as_str()) => {
            refuse(format!("{} is not implemented", m.name))
        }
        _ => Ok(()),
    }
}

/// The system's resolver is what names are asked of, unless servers are named.
fn resolver(m: &Option<core::TypedExtensionConfig>) -> Result<()> {
    extension(m, &RESOLVERS)?;
    let config = m.as_ref().and_then(|m| m.typed_config.as_ref());
    match config {
        Some(any) if !any.value.is_empty() => refuse("settings of a resolver are not implemented"),
        _ => Ok(()),
    }
}

fn dynamic(m: &Option<pb::bootstrap::DynamicResources>) -> Result<()> {
    let Some(pb::bootstrap::DynamicResources {
        lds_config: _,
        cds_config: _,
        ads_config: _,
        lds_resources_locator,
        cds_resources_locator,
    }) = m
    else {
        return Ok(());
    };
    refuse_set(&[
        (!lds_resources_locator.is_empty(), "lds_resources_locator"),
        (!cds_resources_locator.is_empty(), "cds_resources_locator"),
    ])
}

fn manager(m: &Option<pb::ClusterManager>) -> Result<()> {
    let Some(pb::ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        // Clusters are always made at first use.
        enable_deferred_cluster_creation: _,
    }) = m
    else {
        return Ok(());
    };
    refuse_set(&[
        (!local_cluster_name.is_empty(), "local_cluster_name"),
        (upstream_bind_config.is_some(), "upstream_bind_config"),
        (load_stats_config.is_some(), "load_stats_config"),
    ])?;
    let Some(pb::cluster_manager::OutlierDetection {
        event_log_path,
        event_service,
    }) = outlier_detection
    else {
        return Ok(());
    };
    refuse_set(&[
        (!written_nowhere(event_log_path), "event_log_path"),
        (event_service.is_some(), "event_service"),
    ])
    .at("outlier_detection")
}

fn written_nowhere(path: &str) -> bool {
    path.is_empty() || path == NOWHERE
}

fn admin(m: &Option<pb::Admin>) -> Result<()> {
    let Some(pb::Admin {
        address: _,
        ignore_global_conn_limit: _,
        // Where Envoy's own profiler writes.
        profile_path: _,
        // Taken; docs/differences.md says that the pages have no log.
        access_log: _,
        access_log_path: _,
        socket_options,
        // Read elsewhere.
        allow_paths: _,
    }) = m
    else {
        return Ok(());
    };
    refuse_set(&[(!socket_options.is_empty(), "socket_options")])
}

fn stats(m: &Option<metrics::StatsConfig>) -> Result<()> {
    let Some(metrics::StatsConfig {
        stats_matcher: _,
        // Labels come from the structure of a name, whatever patterns are given for them; Istio
        // writes patterns for those labels.
        use_all_default_tags: _,
        stats_tags,
        histogram_bucket_settings,
        // Says how patterns of two tags go together.
        allow_default_tag_overrides: _,
    }) = m
    else {
        return Ok(());
    };
    for (i, tag) in stats_tags.iter().enumerate() {
        if let Some(metrics::tag_specifier::TagValue::FixedValue(_)) = tag.tag_value {
            return refuse("is not implemented")
                .at("fixed_value")
                .item("stats_tags", i);
        }
    }
    refuse_set(&[(
        !histogram_bucket_settings.is_empty(),
        "histogram_bucket_settings",
    )])
}

fn runtime_layer(m: &pb::RuntimeLayer) -> Result<()> {
    use pb::runtime_layer::LayerSpecifier as L;
    match &m.layer_specifier {
        Some(L::StaticLayer(layer)) => {
            let mut keys = Fields::new();
            super::flatten("", &decode::struct_to_value(layer), &mut keys);
            let checked = keys.keys().try_for_each(|key| runtime::check_key(key));
            checked.at("static_layer")
        }
        // Nothing is changed over the admin pages: the layer stays empty.
        Some(L::AdminLayer(_)) => Ok(()),
        Some(L::DiskLayer(_)) => refuse("is not implemented").at("disk_layer"),
        Some(L::RtdsLayer(_)) => refuse("is not implemented").at("rtds_layer"),
        None => refuse("static_layer or admin_layer is required"),
    }
}

fn extensions(all: &[core::TypedExtensionConfig]) -> Result<()> {
    // Istio writes these two; the first is about listeners inside the process, which are refused one
    // by one where they are asked for, the second about ambient workloads.
    let known = [
        "envoy.bootstrap.internal_listener",
        "metadata_discovery",
        "envoy.bootstrap.metadata_discovery",
    ];
    for (i, extension) in all.iter().enumerate() {
        if !known.contains(&extension.name.as_str()) {
            return refuse(format!(
                "bootstrap extension {} is not implemented",
                extension.name
            ))
            .item("bootstrap_extensions", i);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::bootstrap::{Overrides, Source, load};

    fn verdict(m: &Value) -> Result<(), String> {
        let text = m.to_string();
        let source = Source {
            name: "b.json",
            text: &text,
        };
        let loaded = load(&[source], &Overrides::default());
        loaded.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_done_is_refused_by_its_path() {
        let any =
            json!({ "@type": "type.googleapis.com/google.protobuf.Struct", "value": { "a": 1 } });
        let resolver = json!({ "name": "envoy.network.dns_resolver.cares", "typed_config": any });
        for (m, path) in [
            (json!({ "flags_path": "/f" }), "flags_path"),
            (json!({ "stats_sinks": [{ "name": "x" }] }), "stats_sinks"),
            (json!({ "watchdog": {} }), "watchdog"),
            (json!({ "header_prefix": "x-mine" }), "header_prefix"),
            (
                json!({ "use_tcp_for_dns_lookups": true }),
                "use_tcp_for_dns_lookups",
            ),
            (
                json!({ "typed_dns_resolver_config": resolver }),
                "typed_dns_resolver_config",
            ),
            (
                json!({ "default_regex_engine": { "name": "mine" } }),
                "default_regex_engine",
            ),
            (
                json!({ "bootstrap_extensions": [{ "name": "mine" }] }),
                "bootstrap_extensions[0]",
            ),
            (
                json!({ "admin": { "allow_paths": [{ "exact": "/" }, {}] } }),
                "admin.allow_paths[1]",
            ),
            (
                json!({ "admin": { "address": { "pipe": { "path": "/x", "mode": 512 } } } }),
                "admin.address.pipe.mode",
            ),
            (
                json!({ "admin": { "address": { "pipe": { "path": "@x", "mode": 384 } } } }),
                "admin.address.pipe.mode",
            ),
            (
                json!({ "cluster_manager": { "local_cluster_name": "a" } }),
                "cluster_manager.local_cluster_name",
            ),
            (
                json!({ "cluster_manager": { "outlier_detection": { "event_log_path": "/x" } } }),
                "cluster_manager.outlier_detection.event_log_path",
            ),
            (
                json!({ "stats_config": { "stats_tags": [{ "tag_name": "a", "fixed_value": "b" }] } }),
                "stats_config.stats_tags[0].fixed_value",
            ),
            (
                json!({ "layered_runtime": { "layers": [{ "name": "a", "static_layer": {} },
                    { "name": "b", "disk_layer": { "symlink_root": "/x" } }] } }),
                "layered_runtime.layers[1].disk_layer",
            ),
            (
                json!({ "application_log_config": {} }),
                "application_log_config",
            ),
        ] {
            let why = verdict(&m).expect_err(path);
            assert!(why.starts_with(&format!("b.json:1: {path}: ")), "{why}");
        }
    }

    /// What Istio's own bootstrap has beside resources, and what changes nothing.
    #[test]
    fn what_istio_writes_is_taken() {
        let m = json!({
            "layered_runtime": { "layers": [
                { "name": "global config", "static_layer": { "envoy.reloadable_features.a": "true" } },
                { "name": "admin", "admin_layer": {} }] },
            "bootstrap_extensions": [{ "name": "envoy.bootstrap.internal_listener",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener" } }],
            "stats_config": { "use_all_default_tags": false,
                "stats_tags": [{ "tag_name": "cluster_name", "regex": "^cluster\\.((.+?)\\.)" }] },
            "admin": { "access_log_path": "/dev/null", "profile_path": "/var/lib/istio/data/envoy.prof",
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": 15000 } } },
            "cluster_manager": { "outlier_detection": { "event_log_path": "/dev/null" },
                "enable_deferred_cluster_creation": true },
            "deferred_stat_options": { "enable_deferred_creation_stats": true },
            "default_regex_engine": { "name": "envoy.regex_engines.google_re2" },
            "header_prefix": "x-envoy",
        });
        assert_eq!(verdict(&m), Ok(()));
    }
}
