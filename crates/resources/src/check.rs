//! Checks of single objects: what no shape can say (istio.md section 3). Used
//! by the admission webhook, `validate`, `analyze` and the compiler alike.

mod destination_rule;
mod gateway;
mod http_route;
mod service_entry;
mod sidecar;
mod text;
mod virtual_service;

use crate::proto::Duration;
use crate::{Body, Code, Diagnostic, Object};

/// Checks one object; empty when it is admitted without remark. Findings of
/// [`crate::Severity::Error`] refuse it, the others are warnings.
pub fn check(object: &Object) -> Vec<Diagnostic> {
    let mut findings = Findings {
        object,
        out: Vec::new(),
    };
    match &object.body {
        Body::VirtualService(v) => virtual_service::check(v, &mut findings),
        Body::DestinationRule(d) => destination_rule::check(d, &mut findings),
        Body::Gateway(g) => gateway::check(g, &mut findings),
        Body::ServiceEntry(s) => service_entry::check(s, &mut findings),
        Body::WorkloadEntry(w) => service_entry::check_workload(w, "spec", &mut findings),
        Body::Sidecar(s) => sidecar::check(s, &mut findings),
        _ => {}
    }
    findings.out
}

/// Collects findings about one object.
struct Findings<'o> {
    object: &'o Object,
    out: Vec<Diagnostic>,
}

impl Findings<'_> {
    /// Refuses the object.
    fn error(&mut self, field: &str, message: &str, remedy: &str) {
        self.add(
            Code::SCHEMA,
            "Schema validation error",
            field,
            message,
            remedy,
        );
    }

    /// Admits it with a remark.
    fn warn(&mut self, field: &str, message: &str, remedy: &str) {
        self.add(
            Code::SCHEMA_WARNING,
            "Schema validation warning",
            field,
            message,
            remedy,
        );
    }

    fn add(&mut self, code: Code, head: &str, field: &str, message: &str, remedy: &str) {
        let tail = if remedy.is_empty() {
            String::new()
        } else {
            format!("; {remedy}")
        };
        let text = format!("{head}: {field}: {message}{tail}");
        let d = Diagnostic::new(code, Some(self.object.reference()), text)
            .at(field)
            .remedy(remedy)
            .source(self.object.source(field));
        self.out.push(d);
    }

    /// Durations below a millisecond are refused.
    fn duration(&mut self, field: &str, value: Option<Duration>) {
        if let Some(d) = value
            && d < Duration::MILLISECOND
        {
            self.error(
                field,
                &format!("duration {d} is too short"),
                "use at least 1ms",
            );
        }
    }

    /// A share in percent.
    fn percent(&mut self, field: &str, value: f64) {
        if !(0.0..=100.0).contains(&value) {
            self.error(
                field,
                &format!("{value} is not a percentage"),
                "use 0 to 100",
            );
        }
    }

    /// A port that must be there.
    fn port(&mut self, field: &str, number: u32) {
        if number == 0 || number > 65535 {
            self.error(
                field,
                &format!("port number {number} is not valid"),
                "use 1 to 65535",
            );
        }
    }

    /// `exportTo`: `.`, `*`, `~` or namespaces.
    fn export_to(&mut self, list: &[String]) {
        for (i, entry) in list.iter().enumerate() {
            let field = format!("spec.exportTo[{i}]");
            if !matches!(entry.as_str(), "." | "*" | "~") && !text::is_dns_label(entry) {
                self.error(
                    &field,
                    &format!("{entry:?} is no namespace"),
                    "use \".\", \"*\" or a namespace",
                );
            }
            if list[..i].contains(entry) {
                self.error(
                    &field,
                    &format!("{entry:?} is there twice"),
                    "remove one of the two",
                );
            }
        }
    }

    /// Labels of a selector: names and values as Kubernetes admits them.
    fn labels(&mut self, field: &str, labels: &std::collections::BTreeMap<String, String>) {
        for (k, v) in labels {
            let field = crate::yaml::child(field, k);
            if k.contains('*') || v.contains('*') {
                self.error(
                    &field,
                    "wildcards are not supported in selectors",
                    "name the labels in full",
                );
            } else if !text::is_label_key(k) {
                self.error(
                    &field,
                    &format!("{k:?} is no label name"),
                    "use a name such as app or example.com/app",
                );
            } else if !text::is_label_value(v) {
                self.error(
                    &field,
                    &format!("{v:?} is no label value"),
                    "use at most 63 letters, digits, dashes, dots and underscores",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
