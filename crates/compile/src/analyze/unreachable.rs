//! IST0130 and IST0131: rules and conditions that no traffic can reach.

use super::{Facts, finding};
use lateen_model::HttpRoute;
use lateen_model::route::HttpMatch;
use lateen_resources::istio;
use lateen_resources::{Body, Code, Diagnostic, Kind, Object};
use std::collections::HashMap;

/// Rules of all virtual services, as written (delegates are not merged in).
pub fn rules(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    for object in facts.objects.of(Kind::VirtualService) {
        let Body::VirtualService(vs) = &object.body else {
            continue;
        };
        http(facts, object, vs, out);
        l4(
            object,
            "tcp",
            &vs.tcp,
            |r| r.matches.iter().map(json).collect(),
            out,
        );
        l4(
            object,
            "tls",
            &vs.tls,
            |r| r.matches.iter().map(json).collect(),
            out,
        );
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn http(facts: &Facts<'_>, object: &Object, vs: &istio::VirtualService, out: &mut Vec<Diagnostic>) {
    let origin = crate::name::origin(object);
    let scope = crate::route::Scope {
        namespace: &object.meta.namespace,
        domain: &facts.snapshot.mesh.cluster_domain,
        origin: &origin,
    };
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut catch_all: Option<usize> = None;
    for (i, rule) in vs.http.iter().enumerate() {
        let route = scope.http(rule, &format!("spec.http[{i}]"));
        let label = rule_name(&rule.name, i);
        if catch_all.is_some() {
            out.push(unused(
                object,
                &format!("spec.http[{i}]"),
                &label,
                LAST_ONLY,
            ));
            continue;
        }
        if takes_everything(&route) {
            catch_all = Some(i);
        }
        let mut repeated = 0;
        for (j, m) in route.matches.iter().enumerate() {
            let key = condition_key(m);
            let Some(first) = seen.get(&key).copied() else {
                seen.insert(key, i);
                continue;
            };
            repeated += 1;
            let message = format!(
                "VirtualService rule {label} match {} is not used (duplicate/overlapping match in rule {}).",
                rule_name(&rule.matches[j].name, j),
                rule_name(&vs.http[first].name, first),
            );
            let field = format!("spec.http[{i}].match[{j}]");
            out.push(finding(Code::INEFFECTIVE_MATCH, object, &field, message));
        }
        if repeated > 0 && repeated == route.matches.len() {
            out.push(unused(object, &format!("spec.http[{i}]"), &label, ALL_USED));
        }
    }
}

const LAST_ONLY: &str = "only the last rule can have no matches";
const ALL_USED: &str = "all matches used by prior rules";

/// A condition without its name and place.
fn condition_key(m: &HttpMatch) -> String {
    let bare = HttpMatch {
        name: "".into(),
        stat_prefix: "".into(),
        origin: lateen_model::Origin::default(),
        ..m.clone()
    };
    format!("{bare:?}")
}

/// A rule that leaves nothing to later ones.
fn takes_everything(route: &HttpRoute) -> bool {
    let unconditional = |m: &HttpMatch| {
        m.is_catch_all()
            && m.port.is_none()
            && m.source_labels.is_empty()
            && m.source_namespace.is_none()
            && m.gateways.is_empty()
    };
    route.matches.is_empty() || route.matches.iter().any(unconditional)
}

fn rule_name(name: &str, index: usize) -> String {
    if name.is_empty() {
        format!("#{index}")
    } else {
        format!("\"{name}\"")
    }
}

fn unused(object: &Object, field: &str, label: &str, reason: &str) -> Diagnostic {
    let message = format!("VirtualService rule {label} not used ({reason}).");
    finding(Code::UNREACHABLE_RULE, object, field, message)
        .remedy("put the rule before the one that takes its traffic, or remove it")
}

fn l4<R>(
    object: &Object,
    kind: &str,
    rules: &[R],
    matches: impl Fn(&R) -> Vec<String>,
    out: &mut Vec<Diagnostic>,
) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut catch_all = false;
    for (i, rule) in rules.iter().enumerate() {
        let field = format!("spec.{kind}[{i}]");
        let label = rule_name("", i);
        if catch_all {
            out.push(unused(object, &field, &label, LAST_ONLY));
            continue;
        }
        let conditions = matches(rule);
        catch_all = conditions.is_empty();
        let repeated = conditions.iter().filter(|c| seen.contains_key(*c)).count();
        if repeated > 0 && repeated == conditions.len() {
            out.push(unused(object, &field, &label, ALL_USED));
        }
        for c in conditions {
            seen.entry(c).or_insert(i);
        }
    }
}
