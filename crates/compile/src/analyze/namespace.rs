//! IST0102 and IST0123: injection labels of namespaces.

use super::{Facts, finding, is_system};
use lateen_resources::{Code, Diagnostic, Kind, Severity, names};

/// Namespaces without injection, with two kinds of labels, or with a word that
/// means nothing.
pub fn namespaces(facts: &Facts<'_>, out: &mut Vec<Diagnostic>) {
    for object in facts.objects.of(Kind::Namespace) {
        let name = &object.meta.name;
        if is_system(name) || **name == *facts.snapshot.mesh.root_namespace {
            continue;
        }
        let injection = object.meta.labels.get(names::INJECTION_LABEL);
        let revision = object.meta.labels.get(names::REVISION_LABEL);
        let field = format!("metadata.labels[{}]", names::INJECTION_LABEL);
        match (injection.map(String::as_str), revision) {
            (Some("enabled" | "disabled"), Some(_)) => {
                let message = format!(
                    "The namespace has both new and legacy injection labels. Run 'kubectl label \
                     namespace {name} {}-' or 'kubectl label namespace {name} {}-'",
                    names::REVISION_LABEL,
                    names::INJECTION_LABEL,
                );
                out.push(finding(Code::TWO_INJECTION_LABELS, object, &field, message));
            }
            (Some("enabled" | "disabled"), None) | (None, Some(_)) => {}
            (Some(word), _) => {
                let message = format!(
                    "The namespace is not enabled for Istio injection: label {}={word} means \
                     nothing. Run 'kubectl label --overwrite namespace {name} {}=enabled' to \
                     enable it.",
                    names::INJECTION_LABEL,
                    names::INJECTION_LABEL,
                );
                let mut d = finding(Code::NAMESPACE_NOT_INJECTED, object, &field, message)
                    .remedy("use enabled or disabled");
                d.severity = Severity::Warning;
                out.push(d);
            }
            (None, None) => {
                let message = format!(
                    "The namespace is not enabled for Istio injection. Run 'kubectl label \
                     namespace {name} istio-injection=enabled' to enable it, or 'kubectl label \
                     namespace {name} istio-injection=disabled' to explicitly mark it as not \
                     needing injection."
                );
                out.push(finding(Code::NAMESPACE_NOT_INJECTED, object, "", message));
            }
        }
    }
}
