//! Validation of pods and pod templates.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{names, need, one_of, port};
use crate::api::error::Cause;

/// A Pod.
pub(super) fn pod(object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    if !object["spec"].is_object() {
        out.push(Cause::required("spec.containers", ""));
        return;
    }
    if let Some(old) = old {
        unchanged(&object["spec"], &old["spec"], out);
        ephemeral(&object["spec"], &old["spec"], out);
    } else {
        if object["spec"]["ephemeralContainers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            out.push(Cause::forbidden(
                "spec.ephemeralContainers",
                "cannot be set on create",
            ));
        }
        pod_spec(&object["spec"], "spec", out);
    }
}

/// What may change in a pod's spec: images, activeDeadlineSeconds, added tolerations, removed
/// scheduling gates, a shorter termination grace; the node by binding.
fn unchanged(new: &Value, old: &Value, out: &mut Vec<Cause>) {
    let strip = |spec: &Value| {
        let mut s = spec.clone();
        for list in ["containers", "initContainers"] {
            let containers = s.get_mut(list).and_then(Value::as_array_mut);
            for c in containers.into_iter().flatten() {
                if let Some(c) = c.as_object_mut() {
                    c.shift_remove("image");
                    c.shift_remove("resources");
                }
            }
        }
        if let Some(m) = s.as_object_mut() {
            for f in [
                "activeDeadlineSeconds",
                "tolerations",
                "schedulingGates",
                "nodeName",
                "terminationGracePeriodSeconds",
                "ephemeralContainers",
            ] {
                m.shift_remove(f);
            }
        }
        s
    };
    if strip(new) != strip(old) {
        out.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    let tolerations = |s: &Value| s["tolerations"].as_array().cloned().unwrap_or_default();
    let kept = tolerations(new);
    if tolerations(old).iter().any(|t| !kept.contains(t)) {
        out.push(Cause::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    if !old["nodeName"].is_null() && old["nodeName"] != new["nodeName"] {
        out.push(Cause::forbidden(
            "spec.nodeName",
            "the pod is bound already",
        ));
    }
}

/// Containers for looking into a running pod: they are only added, and have no part in its work.
fn ephemeral(new: &Value, old: &Value, out: &mut Vec<Cause>) {
    const PATH: &str = "spec.ephemeralContainers";
    let empty = Vec::new();
    let (had, have) = (&old["ephemeralContainers"], &new["ephemeralContainers"]);
    let (had, have) = (
        had.as_array().unwrap_or(&empty),
        have.as_array().unwrap_or(&empty),
    );
    if had == have {
        return;
    }
    for before in had {
        let what = match have.iter().find(|c| c["name"] == before["name"]) {
            Some(now) if now == before => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let why = format!(
            "existing ephemeral containers {} may not be {what}\n",
            before["name"]
        );
        out.push(Cause::forbidden(PATH, &why));
    }
    let names_of = |list: &str| -> Vec<&str> {
        let all = new[list].as_array().into_iter().flatten();
        all.filter_map(|c| c["name"].as_str()).collect()
    };
    let volumes: HashSet<&str> = names_of("volumes").into_iter().collect();
    let targets: HashSet<&str> = names_of("containers").into_iter().collect();
    let mut seen: HashSet<&str> = names_of("initContainers").into_iter().collect();
    seen.extend(&targets);
    for (i, c) in have.iter().enumerate() {
        let at = format!("{PATH}[{i}]");
        container(c, &at, &volumes, out);
        if c["name"].as_str().is_some_and(|name| !seen.insert(name)) {
            out.push(Cause::duplicate(format!("{at}.name"), &c["name"]));
        }
        let target = c["targetContainerName"].as_str().unwrap_or_default();
        if !target.is_empty() && !targets.contains(target) {
            out.push(Cause {
                reason: "FieldValueNotFound",
                message: format!("Not found: {target:?}"),
                field: format!("{at}.targetContainerName"),
            });
        }
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resources",
            "restartPolicy",
        ] {
            let given = match &c[field] {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => true,
            };
            if given {
                out.push(Cause::forbidden(
                    format!("{at}.{field}"),
                    "cannot be set for an Ephemeral Container",
                ));
            }
        }
    }
}

/// The spec of a pod or template at `path`.
pub(super) fn pod_spec(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    let volumes = volumes(spec, path, out);
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        out.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut seen = HashSet::new();
    for list in ["initContainers", "containers"] {
        for (i, c) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{i}]");
            container(c, &at, &volumes, out);
            let name = c["name"].as_str().unwrap_or_default();
            if !name.is_empty() && !seen.insert(name) {
                out.push(Cause::duplicate(format!("{at}.name"), &c["name"]));
            }
        }
    }
    one_of(
        spec,
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
        path,
        out,
    );
    one_of(
        spec,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        path,
        out,
    );
    if spec["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|g| g < 0)
    {
        out.push(Cause::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            &spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        ));
    }
    super::label_map(&spec["nodeSelector"], &format!("{path}.nodeSelector"), out);
}

fn volumes<'a>(spec: &'a Value, path: &str, out: &mut Vec<Cause>) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    for (i, v) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.volumes[{i}]");
        if !need(v, "name", &at, out) {
            continue;
        }
        let name = v["name"].as_str().unwrap_or_default();
        if let Some(why) = names::label_problem(name) {
            out.push(Cause::invalid(format!("{at}.name"), &v["name"], &why));
        }
        if !seen.insert(name) {
            out.push(Cause::duplicate(format!("{at}.name"), &v["name"]));
        }
        if v.as_object().is_some_and(|m| m.len() > 2) {
            out.push(Cause::forbidden(
                at,
                "may not specify more than 1 volume type",
            ));
        }
    }
    seen
}

fn container(c: &Value, at: &str, volumes: &HashSet<&str>, out: &mut Vec<Cause>) {
    if need(c, "name", at, out)
        && let Some(why) = names::label_problem(c["name"].as_str().unwrap_or_default())
    {
        out.push(Cause::invalid(format!("{at}.name"), &c["name"], &why));
    }
    need(c, "image", at, out);
    one_of(
        c,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        at,
        out,
    );
    let mut port_names = HashSet::new();
    for (i, p) in c["ports"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}.ports[{i}]");
        if p["containerPort"].is_null() {
            out.push(Cause::required(format!("{at}.containerPort"), ""));
        } else {
            port(&p["containerPort"], &format!("{at}.containerPort"), out);
        }
        one_of(p, "protocol", &["SCTP", "TCP", "UDP"], &at, out);
        if let Some(name) = p["name"].as_str().filter(|n| !n.is_empty()) {
            if let Some(why) = names::port_name_problem(name) {
                out.push(Cause::invalid(format!("{at}.name"), &p["name"], why));
            }
            if !port_names.insert(name) {
                out.push(Cause::duplicate(format!("{at}.name"), &p["name"]));
            }
        }
    }
    for (i, e) in c["env"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}.env[{i}]");
        if need(e, "name", &at, out)
            && let Some(why) = names::variable_problem(e["name"].as_str().unwrap_or_default())
        {
            out.push(Cause::invalid(format!("{at}.name"), &e["name"], why));
        }
        let value = e["value"].as_str().unwrap_or_default();
        if !value.is_empty() && e["valueFrom"].is_object() {
            out.push(Cause::invalid(
                format!("{at}.valueFrom"),
                &json!(""),
                "may not be specified when `value` is not empty",
            ));
        }
    }
    for (i, from) in c["envFrom"].as_array().into_iter().flatten().enumerate() {
        if let Some(why) = from["prefix"].as_str().and_then(names::variable_problem) {
            let at = format!("{at}.envFrom[{i}].prefix");
            out.push(Cause::invalid(at, &from["prefix"], why));
        }
    }
    mounts(c, at, volumes, out);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        handler(&c[probe], &format!("{at}.{probe}"), out);
    }
}

fn mounts(c: &Value, at: &str, volumes: &HashSet<&str>, out: &mut Vec<Cause>) {
    let mut paths = HashSet::new();
    for (i, m) in c["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("{at}.volumeMounts[{i}]");
        need(m, "mountPath", &at, out);
        if need(m, "name", &at, out) && !volumes.contains(m["name"].as_str().unwrap_or_default()) {
            out.push(Cause {
                reason: "FieldValueNotFound",
                message: format!("Not found: {}", m["name"]),
                field: format!("{at}.name"),
            });
        }
        let path = m["mountPath"].as_str().unwrap_or_default();
        if !path.is_empty() && !paths.insert(path) {
            out.push(Cause::invalid(
                format!("{at}.mountPath"),
                &m["mountPath"],
                "must be unique",
            ));
        }
    }
}

fn handler(probe: &Value, at: &str, out: &mut Vec<Cause>) {
    if !probe.is_object() {
        return;
    }
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc"];
    let given = kinds.iter().filter(|k| probe[**k].is_object()).count();
    if given == 0 {
        out.push(Cause::required(at, "must specify a handler type"));
    } else if given > 1 {
        out.push(Cause::forbidden(
            at,
            "may not specify more than 1 handler type",
        ));
    }
    if probe["httpGet"].is_object() && probe["httpGet"]["port"].is_null() {
        out.push(Cause::required(format!("{at}.httpGet.port"), ""));
    }
}
