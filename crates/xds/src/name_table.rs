//! NDS: the names a proxy's DNS answers by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_model::service::ServiceAddress;
use lateen_model::{EndpointAddress, Registry, Service};
use lateen_xds_proto::istio::nds::{NameInfo, NameTable};

use crate::context::Context;
use crate::fingerprint::resource;
use crate::resource::Resource;

/// The one name table of a proxy.
pub fn name_table(cx: &Context<'_>) -> Arc<Resource> {
    let mut table = BTreeMap::new();
    for service in cx.services().iter().filter(|s| !s.is_wildcard()) {
        let ips = addresses(cx, service);
        if !ips.is_empty() {
            table.insert(service.hostname.to_string(), info(service, ips));
        }
        if service.headless {
            pods(cx, service, &mut table);
        }
    }
    resource(NameTable {
        table,
        name_info: None,
    })
}

fn addresses(cx: &Context<'_>, service: &Service) -> Vec<String> {
    let mut out: Vec<String> = service
        .addresses
        .iter()
        .filter_map(|a| match a {
            ServiceAddress::Ip(ip) => Some(ip.to_string()),
            ServiceAddress::Cidr(..) => None,
        })
        .collect();
    if out.is_empty() {
        out.extend(service.auto_address.map(|ip| ip.to_string()));
    }
    if service.headless {
        for e in service
            .ports
            .iter()
            .flat_map(|p| cx.endpoints.endpoints(&service.key(), p.number))
        {
            if let EndpointAddress::Ip(ip) = e.address {
                let ip = ip.to_string();
                if !out.contains(&ip) {
                    out.push(ip);
                }
            }
        }
    }
    out
}

fn info(service: &Service, ips: Vec<String>) -> NameInfo {
    let kubernetes = service.registry == Registry::Kubernetes;
    NameInfo {
        ips,
        registry: if kubernetes { "Kubernetes" } else { "External" }.to_owned(),
        shortname: if kubernetes {
            service.name.to_string()
        } else {
            String::new()
        },
        namespace: if kubernetes {
            service.namespace.to_string()
        } else {
            String::new()
        },
        alt_hosts: Vec::new(),
    }
}

/// Pods of a headless service have names of their own below it.
fn pods(cx: &Context<'_>, service: &Service, table: &mut BTreeMap<String, NameInfo>) {
    for e in service
        .ports
        .iter()
        .flat_map(|p| cx.endpoints.endpoints(&service.key(), p.number))
    {
        let EndpointAddress::Ip(ip) = e.address else {
            continue;
        };
        if e.hostname.is_empty() {
            continue;
        }
        let name = format!("{}.{}", e.hostname, service.hostname);
        table
            .entry(name)
            .or_insert_with(|| info(service, vec![ip.to_string()]));
    }
}
