//! Kubernetes Services to services of the mesh.

use crate::name;
use lateen_model::service::{ServiceAddress, TargetPort};
use lateen_model::{ExportTo, MeshConfig, Port, Protocol, Registry, Resolution, Service, Str};
use lateen_resources::kubernetes::{self, ServicePort};
use lateen_resources::{Object, names};

/// Converts a Service.
pub fn convert(object: &Object, service: &kubernetes::Service, mesh: &MeshConfig) -> Service {
    let meta = &object.meta;
    let spec = &service.spec;
    let headless = spec.cluster_ip == "None";
    let external_name = (spec.type_ == "ExternalName").then(|| name::optional(&spec.external_name));
    let external_name = external_name.flatten();
    let resolution = match (&external_name, headless) {
        (Some(_), _) => Resolution::Dns,
        (None, true) => Resolution::Passthrough,
        (None, false) => Resolution::Static,
    };
    Service {
        hostname: hostname(&meta.name, &meta.namespace, mesh),
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
        origin: name::origin(object),
        registry: Registry::Kubernetes,
        created: meta.created(),
        ports: spec.ports.iter().filter_map(port).collect(),
        addresses: addresses(spec),
        auto_address: None,
        aliases: Vec::new(),
        resolution,
        headless,
        mesh_external: external_name.is_some(),
        external_name,
        selector: name::selector(&spec.selector),
        labels: name::labels(&meta.labels),
        export_to: export_to(object, mesh),
        subject_alt_names: Vec::new(),
        node_local: spec.internal_traffic_policy == "Local",
        traffic_distribution: meta
            .annotations
            .get(names::TRAFFIC_DISTRIBUTION_ANNOTATION)
            .map(String::as_str)
            .or(Some(spec.traffic_distribution.as_str()))
            .and_then(name::optional),
        publish_not_ready: spec.publish_not_ready_addresses,
    }
}

/// `name.namespace.svc.domain`.
pub fn hostname(name: &str, namespace: &str, mesh: &MeshConfig) -> Str {
    format!("{name}.{namespace}.svc.{}", mesh.cluster_domain).into()
}

fn addresses(spec: &kubernetes::ServiceSpec) -> Vec<ServiceAddress> {
    let primary = std::iter::once(&spec.cluster_ip);
    let mut out = Vec::new();
    for ip in primary
        .chain(&spec.cluster_ips)
        .filter_map(|a| a.parse().ok())
    {
        let address = ServiceAddress::Ip(ip);
        if !out.contains(&address) {
            out.push(address);
        }
    }
    out
}

fn export_to(object: &Object, mesh: &MeshConfig) -> ExportTo {
    let written = object.meta.annotations.get(names::EXPORT_TO_ANNOTATION);
    let list = written
        .iter()
        .flat_map(|w| w.split(','))
        .map(str::trim)
        .filter(|w| !w.is_empty());
    ExportTo::parse(
        list,
        &object.meta.namespace,
        &mesh.default_service_export_to,
    )
}

/// A port; `None` for datagrams and numbers out of range.
fn port(p: &ServicePort) -> Option<Port> {
    let number = u16::try_from(p.port).ok().filter(|n| *n > 0)?;
    let transport = if p.protocol.is_empty() {
        "TCP"
    } else {
        &p.protocol
    };
    if transport != "TCP" {
        return None;
    }
    let target = match &p.target_port {
        None => TargetPort::Number(number),
        Some(t) => match t.number() {
            Some(0) => TargetPort::Number(number),
            Some(n) => TargetPort::Number(u16::try_from(n).ok()?),
            None => match t {
                kubernetes::IntOrString::String(s) if !s.is_empty() => {
                    TargetPort::Name(s.as_str().into())
                }
                _ => TargetPort::Number(number),
            },
        },
    };
    Some(Port {
        name: p.name.as_str().into(),
        number,
        target,
        protocol: Protocol::choose(number, &p.name, transport, p.app_protocol.as_deref()),
    })
}
