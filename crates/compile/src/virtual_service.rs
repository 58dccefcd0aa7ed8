//! VirtualService objects, before delegates are merged.

use crate::name;
use crate::route::Scope;
use lateen_model::route::{MESH_GATEWAY, VirtualService};
use lateen_model::{ExportTo, MeshConfig, Str};
use lateen_resources::{Object, istio};

/// A virtual service whose delegating rules still point elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The virtual service; delegating HTTP rules have no destination.
    pub service: VirtualService,
    /// Index of each delegating HTTP rule, with namespace and name of its delegate.
    pub delegates: Vec<(usize, Str, Str)>,
}

impl Converted {
    /// A virtual service without hosts is only ever a delegate.
    pub fn is_delegate(&self) -> bool {
        self.service.hosts.is_empty()
    }
}

/// Converts a VirtualService.
pub fn convert(object: &Object, vs: &istio::VirtualService, mesh: &MeshConfig) -> Converted {
    let meta = &object.meta;
    let origin = name::origin(object);
    let scope = Scope {
        namespace: &meta.namespace,
        domain: &mesh.cluster_domain,
        origin: &origin,
    };
    let mut gateways: Vec<Str> = vs
        .gateways
        .iter()
        .map(|g| name::full_gateway(g, &meta.namespace))
        .collect();
    if gateways.is_empty() {
        gateways.push(MESH_GATEWAY.into());
    }
    gateways.sort();
    gateways.dedup();
    let mut hosts: Vec<Str> = Vec::new();
    for host in &vs.hosts {
        let host = name::full_host(host, &meta.namespace, &mesh.cluster_domain);
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let delegates = vs.http.iter().enumerate().filter_map(|(i, r)| {
        let d = r.delegate.as_ref()?;
        let ns = if d.namespace.is_empty() {
            &meta.namespace
        } else {
            &d.namespace
        };
        Some((i, Str::from(ns.as_str()), Str::from(d.name.as_str())))
    });
    let delegates = delegates.collect();
    let rules = vs.http.iter().enumerate();
    let http = rules
        .map(|(i, r)| scope.http(r, &format!("spec.http[{i}]")))
        .collect();
    let rules = vs.tls.iter().enumerate();
    let tls = rules
        .map(|(i, r)| scope.tls(r, &format!("spec.tls[{i}]")))
        .collect();
    let rules = vs.tcp.iter().enumerate();
    let tcp = rules
        .map(|(i, r)| scope.tcp(r, &format!("spec.tcp[{i}]")))
        .collect();
    let service = VirtualService {
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
        created: meta.created(),
        hosts,
        gateways,
        export_to: ExportTo::parse(
            vs.export_to.iter().map(String::as_str),
            &meta.namespace,
            &mesh.default_virtual_service_export_to,
        ),
        http,
        tls,
        tcp,
        origin: origin.clone(),
    };
    Converted { service, delegates }
}
