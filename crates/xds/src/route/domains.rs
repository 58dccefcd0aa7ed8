//! The names under which clients reach a service, as virtual-host domains.

use lateen_model::service::ServiceAddress;
use lateen_model::{Registry, Service};

use crate::context::Context;

/// Domains of a service for a client: the full name with and without its trailing dot, the
/// short names that the client's DNS search would complete, the addresses.
pub fn of_service(cx: &Context<'_>, service: &Service, port: u16) -> Vec<String> {
    if cx.features.compat_1_0 && service.registry == Registry::Kubernetes {
        return of_1_0(cx, service, port);
    }
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

/// Domains as Istio 1.0 wrote them: every name with and without the port, one short form more
/// (`svc.ns.svc.cluster`), no trailing dot.
fn of_1_0(cx: &Context<'_>, service: &Service, port: u16) -> Vec<String> {
    let host = &*service.hostname;
    let mut names = vec![host.to_owned()];
    let domain = &*cx.snapshot.mesh.cluster_domain;
    let cluster = domain.rsplit_once('.').map_or(domain, |(first, _)| first);
    if let Some(stem) = host.strip_suffix(&format!(".svc.{domain}")) {
        if service.namespace == cx.key.namespace {
            names.extend(stem.split('.').next().map(str::to_owned));
        }
        names.push(format!("{stem}.svc.{cluster}"));
        names.push(format!("{stem}.svc"));
        names.push(stem.to_owned());
    }
    names.extend(service.primary_ip().map(|ip| ip.to_string()));
    names
        .into_iter()
        .flat_map(|n| [n.clone(), format!("{n}:{port}")])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Features;
    use lateen_model::{EndpointTable, Origin, ProxyKey, Resolution, Selector, Snapshot};

    fn reviews() -> Service {
        Service {
            hostname: "reviews.default.svc.cluster.local".into(),
            namespace: "default".into(),
            name: "reviews".into(),
            origin: Origin::default(),
            registry: Registry::Kubernetes,
            created: 0,
            ports: Vec::new(),
            addresses: vec![ServiceAddress::Ip([10, 96, 0, 13].into())],
            auto_address: None,
            aliases: Vec::new(),
            resolution: Resolution::Static,
            headless: false,
            mesh_external: false,
            external_name: None,
            selector: Selector::default(),
            labels: Default::default(),
            export_to: Default::default(),
            subject_alt_names: Vec::new(),
            node_local: false,
            traffic_distribution: None,
            publish_not_ready: false,
        }
    }

    fn domains(namespace: &str, compat_1_0: bool) -> Vec<String> {
        let (snapshot, table) = (Snapshot::default(), EndpointTable::default());
        let key = ProxyKey {
            namespace: namespace.into(),
            ..ProxyKey::default()
        };
        let features = Features {
            compat_1_0,
            ..Features::default()
        };
        of_service(
            &Context::new(&snapshot, &table, &key, features),
            &reviews(),
            9080,
        )
    }

    #[test]
    fn short_names_are_those_that_dns_would_complete() {
        assert_eq!(
            domains("default", false),
            [
                "reviews.default.svc.cluster.local",
                "reviews.default.svc.cluster.local.",
                "reviews",
                "reviews.default.svc",
                "reviews.default",
                "10.96.0.13",
            ]
        );
        assert!(!domains("other", false).contains(&"reviews".to_owned()));
    }

    /// Row E09: twelve domains in this order; no bare name from another namespace.
    #[test]
    fn the_1_0_form() {
        assert_eq!(
            domains("default", true),
            [
                "reviews.default.svc.cluster.local",
                "reviews.default.svc.cluster.local:9080",
                "reviews",
                "reviews:9080",
                "reviews.default.svc.cluster",
                "reviews.default.svc.cluster:9080",
                "reviews.default.svc",
                "reviews.default.svc:9080",
                "reviews.default",
                "reviews.default:9080",
                "10.96.0.13",
                "10.96.0.13:9080",
            ]
        );
        assert!(!domains("other", true).contains(&"reviews".to_owned()));
    }
}
