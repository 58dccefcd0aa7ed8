//! MeshConfig text to mesh settings.

use crate::{name, route};
use lateen_model::mesh::AccessLogEncoding;
use lateen_model::{ExportTo, MeshConfig, OutboundPolicy, ProxyDefaults};
use lateen_resources::istio::mesh_config as written;
use lateen_resources::{Code, Diagnostic, SourceRef, istio, schema, yaml};
use serde_json::Value;
use std::time::Duration;

/// Istio's defaults overlaid by a MeshConfig in YAML. `file` names it in diagnostics.
pub fn mesh_config_from_yaml(text: &str, file: &str) -> (MeshConfig, Vec<Diagnostic>) {
    overlay_mesh_config(&MeshConfig::default(), text, file)
}

/// Overlays the set fields of a MeshConfig in YAML. On an error the base is
/// kept whole and the error reported.
pub fn overlay_mesh_config(
    base: &MeshConfig,
    text: &str,
    file: &str,
) -> (MeshConfig, Vec<Diagnostic>) {
    let (documents, errors) = yaml::documents(text);
    let report = |message: String, line: u32| {
        let source = SourceRef {
            file: file.into(),
            line,
        };
        Diagnostic::new(
            Code::SCHEMA,
            None,
            format!("Schema validation error: {message}"),
        )
        .source(Some(source))
    };
    if let Some(e) = errors.first() {
        return (base.clone(), vec![report(e.to_string(), e.position.line)]);
    }
    let Some(mut document) = documents.into_iter().next() else {
        return (base.clone(), Vec::new());
    };
    // An IstioOperator-like wrapper is a common way to keep mesh settings.
    if let Some(inner @ Value::Object(_)) = document.value.get("meshConfig") {
        document.value = inner.clone();
    }
    let mut problems = Vec::new();
    let shape = schema::Shape::of::<written::MeshConfig>();
    // MeshConfig has many fields that nothing here needs: only wrong types are told.
    schema::walk(&shape, &mut document.value, "", false, &mut problems);
    let line = |path: &str| document.positions.find(path).map_or(1, |p| p.line);
    let diagnostics: Vec<_> = problems
        .iter()
        .map(|p| report(format!("{}: {}", p.path, p.message), line(&p.path)))
        .collect();
    if !diagnostics.is_empty() {
        return (base.clone(), diagnostics);
    }
    match serde_json::from_value::<written::MeshConfig>(document.value.clone()) {
        Ok(config) => (overlay(base, &config), diagnostics),
        Err(e) => (base.clone(), vec![report(e.to_string(), 1)]),
    }
}

fn put<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

fn overlay(base: &MeshConfig, config: &written::MeshConfig) -> MeshConfig {
    let mut out = base.clone();
    let text = |t: &Option<String>| t.as_deref().map(Into::into);
    let span = |d: Option<lateen_resources::proto::Duration>| d.map(|d| d.to_std());
    put(&mut out.access_log_file, text(&config.access_log_file));
    put(&mut out.access_log_format, text(&config.access_log_format));
    let encoding = config.access_log_encoding.map(|e| match e {
        written::AccessLogEncoding::Text => AccessLogEncoding::Text,
        written::AccessLogEncoding::Json => AccessLogEncoding::Json,
    });
    put(&mut out.access_log_encoding, encoding);
    put(&mut out.enable_tracing, config.enable_tracing);
    put(
        &mut out.protocol_detection_timeout,
        span(config.protocol_detection_timeout),
    );
    let outbound = config
        .outbound_traffic_policy
        .as_ref()
        .map(|p| match p.mode {
            istio::OutboundTrafficPolicyMode::RegistryOnly => OutboundPolicy::RegistryOnly,
            istio::OutboundTrafficPolicyMode::AllowAny => OutboundPolicy::AllowAny,
        });
    put(&mut out.outbound_policy, outbound);
    let localhost = config
        .inbound_traffic_policy
        .as_ref()
        .map(|p| p.mode == written::InboundTrafficPolicyMode::Localhost);
    put(&mut out.inbound_localhost, localhost);
    put(&mut out.enable_auto_mtls, config.enable_auto_mtls);
    put(
        &mut out.root_namespace,
        text(&config.root_namespace).filter(|t: &lateen_model::Str| !t.is_empty()),
    );
    put(
        &mut out.trust_domain,
        text(&config.trust_domain).filter(|t: &lateen_model::Str| !t.is_empty()),
    );
    if !config.trust_domain_aliases.is_empty() {
        out.trust_domain_aliases = name::list(&config.trust_domain_aliases);
    }
    put(
        &mut out.connect_timeout,
        span(config.connect_timeout).filter(|d| *d > Duration::ZERO),
    );
    put(
        &mut out.dns_refresh_rate,
        span(config.dns_refresh_rate).filter(|d| *d > Duration::ZERO),
    );
    put(
        &mut out.enable_prometheus_merge,
        config.enable_prometheus_merge,
    );
    put(
        &mut out.default_service_export_to,
        export(&config.default_service_export_to),
    );
    put(
        &mut out.default_virtual_service_export_to,
        export(&config.default_virtual_service_export_to),
    );
    put(
        &mut out.default_destination_rule_export_to,
        export(&config.default_destination_rule_export_to),
    );
    put(&mut out.ingress_class, text(&config.ingress_class));
    put(&mut out.ingress_selector, text(&config.ingress_selector));
    put(&mut out.ingress_service, text(&config.ingress_service));
    put(
        &mut out.locality_lb_enabled,
        config.locality_lb_setting.as_ref().and_then(|l| l.enabled),
    );
    put(
        &mut out.h2_upgrade,
        config
            .h2_upgrade_policy
            .map(|p| p == istio::H2UpgradePolicy::Upgrade),
    );
    if let Some(retry) = &config.default_http_retry_policy {
        out.default_http_retry = Some(route::retry(retry));
    }
    if let Some(proxy) = &config.default_config {
        out.default_config = proxy_defaults(&out.default_config, proxy);
    }
    out
}

/// Default visibilities name `*` or `.`; `.` depends on the object, which only
/// [`ExportTo::parse`] can resolve, so a lone `.` is kept as that word.
fn export(list: &[String]) -> Option<ExportTo> {
    if list.is_empty() {
        return None;
    }
    Some(ExportTo::parse(
        list.iter().map(String::as_str),
        ".",
        &ExportTo::All,
    ))
}

fn proxy_defaults(base: &ProxyDefaults, p: &written::ProxyConfig) -> ProxyDefaults {
    let mut out = base.clone();
    put(
        &mut out.discovery_address,
        p.discovery_address.as_deref().map(Into::into),
    );
    if let Some(n) = p.concurrency {
        out.concurrency = u32::try_from(n).ok();
    }
    put(
        &mut out.drain_duration,
        p.drain_duration.map(|d| d.to_std()),
    );
    put(
        &mut out.termination_drain_duration,
        p.termination_drain_duration.map(|d| d.to_std()),
    );
    put(
        &mut out.status_port,
        p.status_port.and_then(|n| u16::try_from(n).ok()),
    );
    put(
        &mut out.hold_application_until_proxy_starts,
        p.hold_application_until_proxy_starts,
    );
    if !p.proxy_metadata.is_empty() {
        out.proxy_metadata = p
            .proxy_metadata
            .iter()
            .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
            .collect();
    }
    if let Some(s) = p.tracing.as_ref().and_then(|t| t.sampling) {
        out.sampling = Some(s);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_and_errors() {
        let (m, d) = mesh_config_from_yaml(
            "accessLogFile: /dev/stdout\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n\
             defaultConfig: {proxyMetadata: {A: b}, concurrency: 2}\nsomethingElse: 1\n",
            "mesh.yaml",
        );
        assert!(d.is_empty(), "{d:?}");
        assert_eq!(&*m.access_log_file, "/dev/stdout");
        assert_eq!(m.outbound_policy, OutboundPolicy::RegistryOnly);
        assert_eq!(m.default_config.concurrency, Some(2));
        assert_eq!(m.trust_domain, MeshConfig::default().trust_domain);
        let (m, d) = mesh_config_from_yaml("a: 1\naccessLogFile: 3\n", "mesh.yaml");
        assert_eq!(m, MeshConfig::default());
        assert_eq!(d[0].source.as_ref().unwrap().line, 2);
    }
}
