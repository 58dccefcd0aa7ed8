//! Endpoints of Kubernetes services: slices, else Endpoints objects, else
//! (where asked for) the selected pods themselves.

use super::{EndpointCompiler, endpoint};
use crate::workload;
use lateen_model::service::TargetPort;
use lateen_model::{Endpoint, EndpointAddress, Health, Port, Service, ServiceEndpoints, Workload};
use lateen_resources::kubernetes::{EndpointPort, EndpointSlice, SliceEndpoint, TargetRef};
use lateen_resources::{Body, Kind, ObjectSet, names};
use std::sync::Arc;

impl EndpointCompiler {
    /// Endpoints of a Kubernetes service.
    pub(super) fn of_service(&self, objects: &ObjectSet, service: &Service) -> ServiceEndpoints {
        let mut out = ServiceEndpoints::default();
        if let Some(target) = &service.external_name {
            for port in &service.ports {
                let e = endpoint(EndpointAddress::Host(target.clone()), port.number, None);
                out.ports.entry(port.number).or_default().push(e);
            }
            return out;
        }
        let id = (service.namespace.to_string(), service.name.to_string());
        if let Some(slices) = self.slices.get(&id) {
            for name in slices {
                if let Some(object) = objects.get(Kind::EndpointSlice, &id.0, name)
                    && let Body::EndpointSlice(slice) = &object.body
                {
                    self.add_slice(service, slice, &mut out);
                }
            }
            return out;
        }
        if let Some(object) = objects.get(Kind::Endpoints, &id.0, &id.1)
            && let Body::Endpoints(e) = &object.body
        {
            self.add_endpoints_object(service, e, &mut out);
        } else if self.options.from_pods && !service.selector.is_empty() {
            self.add_pods(objects, service, &mut out);
        }
        out
    }

    fn add_slice(&self, service: &Service, slice: &EndpointSlice, out: &mut ServiceEndpoints) {
        // A dual-stack service has a slice per family with the same pods:
        // those of its primary address count, lest each pod count twice.
        let other_family =
            service
                .primary_ip()
                .is_some_and(|ip| match slice.address_type.as_str() {
                    "IPv4" => ip.is_ipv6(),
                    "IPv6" => ip.is_ipv4(),
                    _ => false,
                });
        if other_family {
            return;
        }
        for (port, number) in matching_ports(service, &slice.ports) {
            let list = out.ports.entry(port.number).or_default();
            for e in &slice.endpoints {
                let Some(written) = e.addresses.first() else {
                    continue;
                };
                let address = match (slice.address_type.as_str(), written.parse()) {
                    ("FQDN", _) => EndpointAddress::Host(written.as_str().into()),
                    (_, Ok(ip)) => EndpointAddress::Ip(ip),
                    _ => continue,
                };
                list.push(self.slice_endpoint(service, e, address, number));
            }
        }
    }

    fn slice_endpoint(
        &self,
        service: &Service,
        e: &SliceEndpoint,
        address: EndpointAddress,
        port: u16,
    ) -> Endpoint {
        let workload = self.target(&service.namespace, e.target_ref.as_ref(), &address);
        let mut out = endpoint(address, port, workload.as_deref());
        if out.node.is_empty() {
            out.node = e.node_name.as_str().into();
            out.locality = self.locality(&e.node_name);
        }
        if out.locality.is_empty() {
            out.locality.zone = e.zone.as_str().into();
        }
        if !e.hostname.is_empty() {
            out.hostname = e.hostname.as_str().into();
        }
        let ready = e.conditions.ready.unwrap_or(true);
        let serving = e.conditions.serving.unwrap_or(ready);
        let terminating = e.conditions.terminating.unwrap_or(false);
        out.health = match (ready || service.publish_not_ready, terminating && serving) {
            (true, _) => Health::Healthy,
            (false, true) => Health::Draining,
            (false, false) => Health::Unhealthy,
        };
        if out.labels.contains_key(names::DRAINING_LABEL) {
            out.health = Health::Draining;
        }
        out
    }

    /// The workload behind an address: by name where the endpoint tells it, else by IP.
    fn target(
        &self,
        namespace: &str,
        target: Option<&TargetRef>,
        address: &EndpointAddress,
    ) -> Option<Arc<Workload>> {
        let index = &self.table.workloads;
        if let Some(t) = target.filter(|t| t.kind == "Pod") {
            let ns = if t.namespace.is_empty() {
                namespace
            } else {
                &t.namespace
            };
            return index.named(ns, &t.name).cloned();
        }
        match address {
            EndpointAddress::Ip(ip) => index.at(*ip).cloned(),
            _ => None,
        }
    }

    fn add_endpoints_object(
        &self,
        service: &Service,
        endpoints: &lateen_resources::kubernetes::Endpoints,
        out: &mut ServiceEndpoints,
    ) {
        for subset in &endpoints.subsets {
            for (port, number) in matching_ports(service, &subset.ports) {
                let list = out.ports.entry(port.number).or_default();
                let ready = subset.addresses.iter().map(|a| (a, true));
                for (a, ready) in ready.chain(subset.not_ready_addresses.iter().map(|a| (a, false)))
                {
                    let Ok(ip) = a.ip.parse() else { continue };
                    let address = EndpointAddress::Ip(ip);
                    let workload = self.target(&service.namespace, a.target_ref.as_ref(), &address);
                    let mut e = endpoint(address, number, workload.as_deref());
                    if !ready && !service.publish_not_ready {
                        e.health = Health::Unhealthy;
                    }
                    if e.node.is_empty() {
                        e.node = a.node_name.as_str().into();
                        e.locality = self.locality(&a.node_name);
                    }
                    list.push(e);
                }
            }
        }
    }

    fn add_pods(&self, objects: &ObjectSet, service: &Service, out: &mut ServiceEndpoints) {
        for object in objects.in_namespace(Kind::Pod, &service.namespace) {
            let Body::Pod(pod) = &object.body else {
                continue;
            };
            let w = workload::from_pod(object, pod, |n| self.locality(n));
            if !service.selector.matches(&w.labels) {
                continue;
            }
            let Some(ip) = w.ips.first() else { continue };
            for port in &service.ports {
                let Some(number) = target_port(port, &w) else {
                    continue;
                };
                let mut e = endpoint(EndpointAddress::Ip(*ip), number, Some(&w));
                if !w.ready && !service.publish_not_ready {
                    e.health = Health::Unhealthy;
                }
                out.ports.entry(port.number).or_default().push(e);
            }
        }
    }
}

/// The port a workload serves a service port at; named targets differ by workload.
pub fn target_port(port: &Port, workload: &Workload) -> Option<u16> {
    match &port.target {
        TargetPort::Number(n) => Some(*n),
        TargetPort::Name(name) => workload
            .named_ports
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, number)| *number),
    }
}

/// Service ports with the endpoint port of the same name.
fn matching_ports<'s>(
    service: &'s Service,
    ports: &'s [EndpointPort],
) -> impl Iterator<Item = (&'s Port, u16)> {
    ports.iter().filter_map(|p| {
        let number = u16::try_from(p.port?).ok()?;
        let port = service.ports.iter().find(|s| *s.name == *p.name)?;
        Some((port, number))
    })
}
