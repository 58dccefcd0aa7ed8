//! Sidecar objects to what sidecars import and expose.

use crate::name;
use lateen_model::sidecar::{EgressHost, EgressListener, IngressListener, Sidecar};
use lateen_model::{MeshConfig, OutboundPolicy, Protocol};
use lateen_resources::{Object, istio};

/// Converts a Sidecar.
pub fn convert(object: &Object, sidecar: &istio::Sidecar, mesh: &MeshConfig) -> Sidecar {
    let meta = &object.meta;
    Sidecar {
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
        origin: name::origin(object),
        created: meta.created(),
        selector: sidecar
            .workload_selector
            .as_ref()
            .filter(|s| !s.labels.is_empty())
            .map(|s| name::selector(&s.labels)),
        egress: sidecar
            .egress
            .iter()
            .map(|e| egress(e, &meta.namespace, mesh))
            .collect(),
        ingress: sidecar.ingress.iter().filter_map(ingress).collect(),
        outbound_policy: sidecar
            .outbound_traffic_policy
            .as_ref()
            .map(|p| match p.mode {
                istio::OutboundTrafficPolicyMode::RegistryOnly => OutboundPolicy::RegistryOnly,
                istio::OutboundTrafficPolicyMode::AllowAny => OutboundPolicy::AllowAny,
            }),
    }
}

fn egress(e: &istio::IstioEgressListener, namespace: &str, mesh: &MeshConfig) -> EgressListener {
    let port = e.port.as_ref().filter(|p| p.number > 0).and_then(|p| {
        let number = u16::try_from(p.number).ok()?;
        Some((number, Protocol::parse(&p.protocol).unwrap_or_default()))
    });
    let host = |written: &String| {
        let (ns, host) = written.split_once('/')?;
        let host = |ns: &str| name::full_host(host, ns, &mesh.cluster_domain);
        match ns {
            "~" => None,
            "*" => Some(EgressHost {
                namespace: None,
                host: host(namespace),
            }),
            "." => Some(EgressHost {
                namespace: Some(namespace.into()),
                host: host(namespace),
            }),
            ns => Some(EgressHost {
                namespace: Some(ns.into()),
                host: host(ns),
            }),
        }
    };
    EgressListener {
        port,
        bind: name::optional(&e.bind),
        hosts: e.hosts.iter().filter_map(host).collect(),
    }
}

fn ingress(i: &istio::IstioIngressListener) -> Option<IngressListener> {
    let port = i.port.as_ref()?;
    Some(IngressListener {
        port: u16::try_from(port.number).ok()?,
        port_name: port.name.as_str().into(),
        protocol: Protocol::parse(&port.protocol).unwrap_or_default(),
        bind: i.bind.as_str().into(),
        default_endpoint: i.default_endpoint.as_str().into(),
    })
}
