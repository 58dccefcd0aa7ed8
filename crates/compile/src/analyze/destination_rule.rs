//! IST0173 and IST0174: hosts and subsets of destination rules that nothing is behind.

use super::{Facts, finding};
use lateen_model::{Registry, Service, host};
use lateen_resources::{Body, Code, Diagnostic, Kind, Object, istio};
use std::sync::Arc;

/// Rules of unknown hosts and subsets without endpoints.
pub fn subsets(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    for object in facts.objects.of(Kind::DestinationRule) {
        let Body::DestinationRule(rule) = &object.body else {
            continue;
        };
        let namespace = &object.meta.namespace;
        let full = facts.full_host(&rule.host, namespace);
        if host::is_wildcard(&full) {
            let covered =
                facts.snapshot.services().iter().any(|s| {
                    s.export_to.visible_in(namespace) && host::overlaps(&full, &s.hostname)
                });
            if !covered {
                out.push(unknown_host(object, &rule.host));
            }
            continue;
        }
        match facts.service(&full, namespace) {
            None => out.push(unknown_host(object, &rule.host)),
            Some(service) => empty_subsets(facts, object, rule, service, out),
        }
    }
}

fn unknown_host(object: &Object, written: &str) -> Diagnostic {
    let message = format!(
        "The host {written} defined in the DestinationRule does not match any services in the mesh."
    );
    finding(Code::UNKNOWN_RULE_HOST, object, "spec.host", message)
}

fn empty_subsets(
    facts: &Facts<'_>,
    object: &Object,
    rule: &istio::DestinationRule,
    service: &Arc<Service>,
    out: &mut Vec<Diagnostic>,
) {
    for (i, subset) in rule
        .subsets
        .iter()
        .enumerate()
        .filter(|(_, s)| !s.labels.is_empty())
    {
        let wanted = crate::name::selector(&subset.labels);
        let selected = facts.by_service.get(&service.key());
        let by_workload =
            selected.is_some_and(|list| list.iter().any(|w| wanted.matches(&facts.labels[*w])));
        let by_endpoint = service.ports.iter().any(|p| {
            facts
                .endpoints
                .subset(&service.key(), p.number, &wanted)
                .next()
                .is_some()
        });
        if by_workload || by_endpoint {
            continue;
        }
        // Without any workload to compare with (files of routes only, names
        // resolved by the proxies) emptiness says nothing.
        let nothing_known = match service.registry {
            Registry::Kubernetes => facts.workloads.is_empty(),
            Registry::External => !facts.endpoints.services.contains_key(&service.key()),
        };
        if nothing_known || service.external_name.is_some() {
            continue;
        }
        let message = format!(
            "The Subset {} defined in the DestinationRule does not select any pods.",
            subset.name
        );
        let field = format!("spec.subsets[{i}]");
        let pairs: Vec<String> = subset
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let remedy = format!(
            "no pod behind {} carries {}",
            service.hostname,
            pairs.join(",")
        );
        out.push(finding(Code::EMPTY_SUBSET, object, &field, message).remedy(remedy));
    }
}
