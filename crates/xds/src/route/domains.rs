//! The names under which clients reach a service, as virtual-host domains.

use lateen_model::service::ServiceAddress;
use lateen_model::{Registry, Service};

use crate::context::Context;

/// Domains of a service for a client: the full name with and without its trailing dot, the
/// short names that the client's DNS search would complete, the addresses.
pub fn of_service(cx: &Context<'_>, service: &Service) -> Vec<String> {
    let mut out = Vec::new();
    let mut add = |name: String| {
        if service.headless {
            out.push(name.clone());
            // Single pods of a headless service have names below it.
            out.push(format!("*.{name}"));
        } else {
            out.push(name);
        }
    };
    for host in std::iter::once(&service.hostname).chain(&service.aliases) {
        add(host.to_string());
        if !host.starts_with('*') {
            add(format!("{host}."));
        }
        if service.registry == Registry::Kubernetes {
            short_names(cx, host).into_iter().for_each(&mut add);
        }
    }
    for address in &service.addresses {
        if let ServiceAddress::Ip(ip) = address {
            out.push(if ip.is_ipv6() {
                format!("[{ip}]")
            } else {
                ip.to_string()
            });
        }
    }
    if service.addresses.is_empty() && cx.key.dns_capture {
        out.extend(service.auto_address.map(|ip| ip.to_string()));
    }
    out
}

/// Short forms of a Kubernetes name. Only the own namespace's services have a bare name.
pub fn short_names(cx: &Context<'_>, host: &str) -> Vec<String> {
    let suffix = format!(".svc.{}", cx.snapshot.mesh.cluster_domain);
    let Some(stem) = host.strip_suffix(&suffix) else {
        return Vec::new();
    };
    let Some((name, namespace)) = stem.split_once('.') else {
        return Vec::new();
    };
    if namespace == &*cx.key.namespace {
        vec![name.to_owned(), format!("{stem}.svc"), stem.to_owned()]
    } else {
        vec![stem.to_owned(), format!("{stem}.svc")]
    }
}
