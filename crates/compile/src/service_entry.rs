//! ServiceEntries to services of the mesh, one per host.

use crate::name;
use lateen_model::service::{ServiceAddress, TargetPort};
use lateen_model::{
    ExportTo, MeshConfig, Port, Protocol, Registry, Resolution, Selector, Service, Str,
};
use lateen_resources::{Object, istio};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Converts a ServiceEntry.
pub fn convert(
    object: &Object,
    entry: &istio::ServiceEntry,
    mesh: &MeshConfig,
) -> Vec<Arc<Service>> {
    let meta = &object.meta;
    let origin = name::origin(object);
    let export_to = ExportTo::parse(
        entry.export_to.iter().map(String::as_str),
        &meta.namespace,
        &mesh.default_service_export_to,
    );
    let ports: Vec<Port> = entry.ports.iter().filter_map(port).collect();
    let addresses: Vec<ServiceAddress> =
        entry.addresses.iter().filter_map(|a| address(a)).collect();
    let selector = entry
        .workload_selector
        .as_ref()
        .map_or_else(Selector::default, |s| name::selector(&s.labels));
    let service = |(i, host): (usize, &String)| {
        Arc::new(Service {
            hostname: host.as_str().into(),
            namespace: meta.namespace.as_str().into(),
            name: meta.name.as_str().into(),
            origin: origin.at(format!("spec.hosts[{i}]")),
            registry: Registry::External,
            created: meta.created(),
            ports: ports.clone(),
            addresses: addresses.clone(),
            auto_address: None,
            aliases: Vec::new(),
            resolution: resolution(entry.resolution),
            headless: false,
            mesh_external: entry.location == istio::Location::MeshExternal,
            external_name: None,
            selector: selector.clone(),
            labels: name::labels(&meta.labels),
            export_to: export_to.clone(),
            subject_alt_names: name::list(&entry.subject_alt_names),
            node_local: false,
            traffic_distribution: meta
                .annotations
                .get(lateen_resources::names::TRAFFIC_DISTRIBUTION_ANNOTATION)
                .and_then(|t| name::optional(t)),
            publish_not_ready: false,
        })
    };
    entry.hosts.iter().enumerate().map(service).collect()
}

fn resolution(written: istio::Resolution) -> Resolution {
    match written {
        istio::Resolution::None => Resolution::Passthrough,
        istio::Resolution::Static => Resolution::Static,
        istio::Resolution::Dns => Resolution::Dns,
        istio::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        istio::Resolution::DynamicDns => Resolution::DynamicDns,
    }
}

/// A ServiceEntry's port; its protocol is named, not guessed from the name.
fn port(p: &istio::Port) -> Option<Port> {
    let number = u16::try_from(p.number).ok().filter(|n| *n > 0)?;
    let protocol = match p.protocol.as_str() {
        "" => Protocol::choose(number, &p.name, "TCP", None),
        word => Protocol::parse(word).unwrap_or_default(),
    };
    if protocol == Protocol::Udp {
        return None;
    }
    let target = p
        .target_port
        .and_then(|t| u16::try_from(t).ok())
        .filter(|t| *t > 0);
    Some(Port {
        name: p.name.as_str().into(),
        number,
        target: TargetPort::Number(target.unwrap_or(number)),
        protocol,
    })
}

fn address(written: &str) -> Option<ServiceAddress> {
    if let Ok(ip) = written.parse() {
        return Some(ServiceAddress::Ip(ip));
    }
    let net: ipnet::IpNet = written.parse().ok()?;
    Some(if net.prefix_len() == net.max_prefix_len() {
        ServiceAddress::Ip(net.addr())
    } else {
        ServiceAddress::Cidr(net.network(), net.prefix_len())
    })
}

/// First addresses of the block from which entries without addresses get one
/// (class E: routed nowhere; istio.md 1.8).
const AUTO_BLOCK: [u8; 2] = [240, 240];

/// Gives entries without addresses a virtual IP of 240.240.0.0/16, chosen by a
/// hash of namespace and host, so that it stays the same across restarts and is
/// the same in every replica. Wildcards and NONE entries get none.
pub fn allocate_addresses(services: &mut [Arc<Service>]) {
    let mut wanting: Vec<&mut Arc<Service>> =
        services.iter_mut().filter(|s| wants_address(s)).collect();
    wanting.sort_by(|a, b| (&a.namespace, &a.hostname).cmp(&(&b.namespace, &b.hostname)));
    let mut taken: HashSet<u16> = HashSet::new();
    for service in wanting {
        let mut slot = slot(&service.namespace, &service.hostname);
        // More hosts than addresses: the rest goes without.
        if taken.len() >= usize::from(u16::MAX) - 1 {
            return;
        }
        while slot == 0 || slot == u16::MAX || !taken.insert(slot) {
            slot = slot.wrapping_add(1);
        }
        let [hi, lo] = slot.to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(AUTO_BLOCK[0], AUTO_BLOCK[1], hi, lo));
        if service.auto_address != Some(ip) {
            Arc::make_mut(service).auto_address = Some(ip);
        }
    }
}

fn wants_address(s: &Service) -> bool {
    s.registry == Registry::External
        && s.addresses.is_empty()
        && !s.is_wildcard()
        && s.resolution != Resolution::Passthrough
}

/// FNV-1a over both names, folded to 16 bits.
fn slot(namespace: &Str, hostname: &Str) -> u16 {
    let bytes = namespace.bytes().chain(*b"/").chain(hostname.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 16) ^ (hash >> 32) ^ (hash >> 48)) as u16
}
