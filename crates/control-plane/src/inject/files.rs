//! `kube-inject`: YAML (or JSON) with any number of documents in, the same out with the pods of
//! workloads injected. Documents that do not change keep every byte.

use serde_json::Value;

use super::{InjectConfig, InjectError, Outcome, Workload, inject_pod, yaml};

/// The text with its workloads injected; `namespace` is that of objects which name none.
///
/// # Errors
/// A document that is no YAML (with its line), or a pod that cannot be injected (with the
/// object's kind and name).
pub fn inject(config: &InjectConfig, text: &str, namespace: &str) -> Result<Injected, InjectError> {
    let mut result = Injected::default();
    for part in split(text) {
        match part {
            Part::Separator(line) => result.text.push_str(line),
            Part::Document { body, line } => {
                let changed = document(config, body, line, namespace, &mut result)?;
                result.text.push_str(changed.as_deref().unwrap_or(body));
            }
        }
    }
    Ok(result)
}

/// What [`inject`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Injected {
    /// The new text.
    pub text: String,
    /// Objects that were injected, as `Kind/name`.
    pub objects: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

enum Part<'a> {
    Separator(&'a str),
    Document { body: &'a str, line: usize },
}

/// Cuts a stream at its `---` lines.
fn split(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut first) = (0, 0, 1);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        let separator = marker == "---" || marker == "..." || marker.starts_with("--- ");
        if separator {
            parts.push(Part::Document {
                body: &text[start..at],
                line: first,
            });
            // What follows the dashes on their line belongs to the document.
            let cut = at + 3;
            parts.push(Part::Separator(&text[at..cut]));
            start = cut;
            first = number + 1;
        }
        at += line.len();
    }
    parts.push(Part::Document {
        body: &text[start..],
        line: first,
    });
    parts
}

/// The new text of a document, or None where it stays as it is.
fn document(
    config: &InjectConfig,
    body: &str,
    line: usize,
    namespace: &str,
    result: &mut Injected,
) -> Result<Option<String>, InjectError> {
    let (documents, errors) = lateen_resources::yaml::documents(body);
    if let Some(error) = errors.first() {
        let place = error.position.line as usize + line - 1;
        return Err(InjectError::Yaml(format!(
            "line {place}, column {}: {}",
            error.position.column, error.message
        )));
    }
    let Some(document) = documents.into_iter().next() else {
        return Ok(None);
    };
    let mut value = document.value;
    if !object(config, &mut value, namespace, result)? {
        return Ok(None);
    }
    let json = body.trim_start().starts_with('{');
    let start = &body[..body.len() - body.trim_start_matches(['\r', '\n']).len()];
    let printed = if json {
        format!("{value:#}\n")
    } else {
        yaml::print(&value)
    };
    Ok(Some(format!("{start}{printed}")))
}

/// Injects an object (or the objects of a list) in place; tells whether it changed.
fn object(
    config: &InjectConfig,
    value: &mut Value,
    namespace: &str,
    result: &mut Injected,
) -> Result<bool, InjectError> {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let listed = kind == "List" || (kind.ends_with("List") && value["items"].is_array());
    if listed {
        let mut changed = false;
        for item in value["items"].as_array_mut().into_iter().flatten() {
            changed |= object(config, item, namespace, result)?;
        }
        return Ok(changed);
    }
    let Some(path) = template_path(&kind) else {
        return Ok(false);
    };
    let workload = match kind.as_str() {
        "Pod" => Workload::of_pod(value, namespace),
        _ => Workload::of_object(value, namespace),
    };
    let name = format!("{kind}/{}", workload.name);
    let Some(template) = value
        .pointer_mut(path)
        .filter(|template| template.is_object())
    else {
        return Ok(false);
    };
    match inject_pod(config, template, &workload) {
        Ok(Outcome::Skipped(_)) => Ok(false),
        Ok(Outcome::Injected { pod, warnings }) => {
            *template = *pod;
            let told = warnings.iter().map(|warning| format!("{name}: {warning}"));
            result.warnings.extend(told);
            result.objects.push(name);
            Ok(true)
        }
        Err(error) => Err(InjectError::Shape(format!("{name}: {error}"))),
    }
}

/// Where the pod of a kind is.
fn template_path(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "Deployment"
        | "ReplicaSet"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "ReplicationController"
        | "DeploymentConfig" => "/spec/template",
        _ => return None,
    })
}
