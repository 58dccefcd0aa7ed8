//! What proxies have in common with each other and with their own past. A caller that keeps
//! resources learns here for whom and for how long each stays what it would be if it were
//! made anew: [`class`] says which proxies are sent the same outbound configuration,
//! [`Ingredients`] what the clusters and endpoints of one service were made from.

use std::sync::Arc;

use lateen_model::{
    DestinationRule, EndpointTable, Locality, ProxyKey, ProxyType, Resolution, Service,
    ServiceEndpoints, Snapshot, Str,
};

use crate::context::Context;
use crate::names;

/// The key under which a sidecar's outbound configuration (all but what leads to its own
/// workload) is that of others: the proxy's own key without what no generator of it reads.
/// Labels stay as far as the configuration names their keys, addresses as far as they are
/// endpoints of headless services (a proxy has no listener for itself). A gateway's whole
/// configuration depends on its workload: its key stays as it is.
pub fn class(snapshot: &Snapshot, endpoints: &EndpointTable, key: &ProxyKey) -> ProxyKey {
    if key.kind == ProxyType::Router {
        return key.clone();
    }
    let asks = snapshot.asks();
    let mut class = ProxyKey {
        name: Str::default(),
        dns_domain: Str::default(),
        service_account: Str::default(),
        workload: Str::default(),
        ..key.clone()
    };
    class.labels.retain(|k, _| asks.labels.contains(k));
    if !asks.node {
        class.node = Str::default();
    }
    if !asks.locality {
        class.locality = Locality::default();
    }
    class.ips.retain(|ip| {
        endpoints
            .instances_at(*ip)
            .iter()
            .filter_map(|i| snapshot.service(&i.service))
            .any(|s| s.headless)
    });
    class
}

/// What the clusters or a load assignment of one service are made from, besides the class,
/// the mesh settings and the generator's switches. Two are equal when they hold the very
/// same values: what was made from one is then what the other would give.
#[derive(Debug, Clone, Default)]
pub struct Ingredients {
    /// The service as the proxy sees it.
    pub service: Option<Arc<Service>>,
    rule: Option<Arc<DestinationRule>>,
    endpoints: Option<Arc<ServiceEndpoints>>,
}

impl Ingredients {
    /// Of the clusters of a service.
    pub fn of_clusters(cx: &Context<'_>, service: &Arc<Service>) -> Self {
        let inline = stands_in_clusters(service);
        Self {
            service: Some(service.clone()),
            rule: cx.rule(service).cloned(),
            endpoints: inline.then(|| endpoints(cx, service)).flatten(),
        }
    }

    /// Of the load assignment of a cluster; `None` for a name that no service, port or subset
    /// stands behind.
    pub fn of_assignment(cx: &Context<'_>, cluster: &str) -> Option<Self> {
        let name = names::parse_outbound(cluster)?;
        let service = cx.service(&name.host)?;
        service.port(name.port)?;
        let rule = cx.rule(service);
        if let Some(subset) = &name.subset {
            rule?.subset(subset)?;
        }
        Some(Self {
            service: Some(service.clone()),
            rule: rule.cloned(),
            endpoints: endpoints(cx, service),
        })
    }
}

impl PartialEq for Ingredients {
    fn eq(&self, other: &Self) -> bool {
        same(&self.service, &other.service)
            && same(&self.rule, &other.rule)
            && same(&self.endpoints, &other.endpoints)
    }
}

/// True when the endpoints of a service are part of its clusters or of listeners, and not
/// sent as endpoints alone: a change of them changes more than EDS.
pub fn stands_in_clusters(service: &Service) -> bool {
    service.resolution != Resolution::Static || service.headless
}

fn endpoints(cx: &Context<'_>, service: &Service) -> Option<Arc<ServiceEndpoints>> {
    cx.endpoints.services.get(&service.key()).cloned()
}

fn same<T>(a: &Option<Arc<T>>, b: &Option<Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use lateen_model::snapshot::Parts;
    use lateen_model::{Origin, Selector, Sidecar};

    use super::*;

    fn key(name: &str, labels: &[(&str, &str)]) -> ProxyKey {
        ProxyKey {
            namespace: "default".into(),
            name: name.into(),
            labels: Selector::from_iter(labels.iter().copied()).0,
            ips: vec!["10.0.0.1".parse().expect("an address")],
            workload: name.into(),
            node: "n1".into(),
            ..ProxyKey::default()
        }
    }

    fn snapshot(selector: &[(&str, &str)]) -> Snapshot {
        let sidecar = Sidecar {
            namespace: "default".into(),
            name: "s".into(),
            origin: Origin::default(),
            created: 0,
            selector: Some(Selector::from_iter(selector.iter().copied())),
            egress: Vec::new(),
            ingress: Vec::new(),
            outbound_policy: None,
        };
        let parts = Parts {
            sidecars: vec![sidecar.into()],
            ..Parts::default()
        };
        Snapshot::new(1, parts)
    }

    #[test]
    fn sidecars_differ_in_what_the_configuration_asks_and_in_nothing_else() {
        let of = |selector: &[(&str, &str)], key: &ProxyKey| {
            class(&snapshot(selector), &EndpointTable::default(), key)
        };
        let a = key("a", &[("app", "a"), ("version", "v1")]);
        let b = key("b", &[("app", "b"), ("version", "v1")]);
        assert_eq!(of(&[("version", "v1")], &a), of(&[("version", "v1")], &b));
        assert_ne!(of(&[("app", "a")], &a), of(&[("app", "a")], &b));
        let elsewhere = ProxyKey {
            namespace: "other".into(),
            ..b.clone()
        };
        assert_ne!(of(&[], &b), of(&[], &elsewhere));
        let gateway = ProxyKey {
            kind: ProxyType::Router,
            ..a
        };
        assert_eq!(of(&[], &gateway), gateway);
    }
}
