//! Endpoints of ServiceEntries: listed ones, selected workloads, or the host itself.

use super::slice::target_port;
use super::{EndpointCompiler, endpoint};
use crate::{name, workload};
use lateen_model::service::TargetPort;
use lateen_model::{
    EndpointAddress, Health, Locality, Port, Resolution, Service, ServiceEndpoints,
};
use lateen_resources::{Body, Kind, ObjectSet, istio, names};

impl EndpointCompiler {
    /// Endpoints of a ServiceEntry's host.
    pub(super) fn of_entry(&self, objects: &ObjectSet, service: &Service) -> ServiceEndpoints {
        let mut out = ServiceEndpoints::default();
        if matches!(
            service.resolution,
            Resolution::Passthrough | Resolution::DynamicDns
        ) {
            return out;
        }
        let object = objects.get(Kind::ServiceEntry, &service.namespace, &service.name);
        let Some(Body::ServiceEntry(entry)) = object.map(|o| &o.body) else {
            return out;
        };
        if !service.selector.is_empty() {
            self.add_selected(objects, service, &mut out);
            return out;
        }
        for listed in &entry.endpoints {
            self.add_listed(service, listed, &mut out);
        }
        let by_name = matches!(
            service.resolution,
            Resolution::Dns | Resolution::DnsRoundRobin
        );
        if entry.endpoints.is_empty() && by_name && !service.is_wildcard() {
            for port in &service.ports {
                let address = EndpointAddress::Host(service.hostname.clone());
                let e = endpoint(address, number(port), None);
                out.ports.entry(port.number).or_default().push(e);
            }
        }
        out
    }

    fn add_listed(
        &self,
        service: &Service,
        listed: &istio::WorkloadEntry,
        out: &mut ServiceEndpoints,
    ) {
        let labels = name::labels(&listed.labels);
        for port in &service.ports {
            let mapped = listed
                .ports
                .get(&*port.name)
                .and_then(|n| u16::try_from(*n).ok());
            let number = mapped.unwrap_or_else(|| number(port));
            let (address, number) = match listed.address.strip_prefix("unix://") {
                Some(path) => (EndpointAddress::Unix(path.into()), 0),
                None => match listed.address.parse() {
                    Ok(ip) => (EndpointAddress::Ip(ip), number),
                    Err(_) => (
                        EndpointAddress::Host(listed.address.as_str().into()),
                        number,
                    ),
                },
            };
            // An entry may list a pod's address: its facts are then known better.
            let known = match address {
                EndpointAddress::Ip(ip) => self.table.workloads.at(ip).cloned(),
                _ => None,
            };
            let mut e = endpoint(address, number, known.as_deref());
            if known.is_none() || !labels.is_empty() {
                e.canonical_name = workload::canonical_name(&labels, &service.name);
                e.canonical_revision = workload::canonical_revision(&labels);
                e.tls = workload::tls_mode(&labels);
                e.labels.clone_from(&labels);
            }
            e.namespace = service.namespace.clone();
            if !listed.locality.is_empty() {
                e.locality = Locality::parse(&listed.locality);
            }
            if !listed.service_account.is_empty() {
                e.service_account = listed.service_account.as_str().into();
            }
            if !listed.network.is_empty() {
                e.network = listed.network.as_str().into();
            }
            e.weight = listed.weight;
            if e.labels.contains_key(names::DRAINING_LABEL) {
                e.health = Health::Draining;
            }
            out.ports.entry(port.number).or_default().push(e);
        }
    }

    fn add_selected(&self, objects: &ObjectSet, service: &Service, out: &mut ServiceEndpoints) {
        let ns = &*service.namespace;
        let pods = objects.in_namespace(Kind::Pod, ns);
        for object in pods.chain(objects.in_namespace(Kind::WorkloadEntry, ns)) {
            let Some(w) = self.workload(object) else {
                continue;
            };
            if !service.selector.matches(&w.labels) {
                continue;
            }
            let (address, weight) = match &object.body {
                Body::WorkloadEntry(e) => match e.address.parse() {
                    Ok(ip) => (EndpointAddress::Ip(ip), e.weight),
                    Err(_) => (EndpointAddress::Host(e.address.as_str().into()), e.weight),
                },
                _ => match w.ips.first() {
                    Some(ip) => (EndpointAddress::Ip(*ip), 0),
                    None => continue,
                },
            };
            for port in &service.ports {
                let mapped = w
                    .named_ports
                    .iter()
                    .find(|(n, _)| *n == port.name)
                    .map(|(_, n)| *n);
                let number = mapped
                    .or_else(|| target_port(port, &w))
                    .unwrap_or(port.number);
                let mut e = endpoint(address.clone(), number, Some(&w));
                e.weight = weight;
                if !w.ready {
                    e.health = Health::Unhealthy;
                }
                out.ports.entry(port.number).or_default().push(e);
            }
        }
    }
}

fn number(port: &Port) -> u16 {
    match port.target {
        TargetPort::Number(n) => n,
        TargetPort::Name(_) => port.number,
    }
}
