//! Validation of ConfigMaps, Secrets, Ingresses, slices, webhook configurations, bindings.

use serde_json::Value;

use super::{immutable, names, need, one_of, port};
use crate::api::error::Cause;

/// Size limit of a ConfigMap's or Secret's data.
const MAX_DATA: usize = 1024 * 1024;

/// Checks keys and the size of all values; `encoded` fields hold base64. `whole` is the field that
/// a size over the limit is told of.
fn data(object: &Value, fields: &[(&str, bool)], whole: &str, out: &mut Vec<Cause>) {
    let mut size = 0;
    for (field, encoded) in fields {
        for (k, v) in object[*field].as_object().into_iter().flatten() {
            let text = v.as_str().unwrap_or_default();
            size += if *encoded {
                text.trim_end_matches('=').len() * 3 / 4
            } else {
                text.len()
            };
            if let Some(why) = names::config_key_problem(k) {
                out.push(Cause::invalid(
                    format!("{field}[{k}]"),
                    &k.as_str().into(),
                    &why,
                ));
            }
        }
    }
    if size > MAX_DATA {
        out.push(Cause::too_long(whole, MAX_DATA));
    }
}

fn frozen(object: &Value, old: Option<&Value>, fields: &[&str], out: &mut Vec<Cause>) {
    let Some(old) = old.filter(|o| o["immutable"] == true) else {
        return;
    };
    if object["immutable"] != true {
        out.push(Cause::forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for field in fields {
        if object[*field] != old[*field] {
            out.push(Cause::forbidden(
                *field,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}

pub(super) fn config_map(object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    // The limit is on the object as a whole, whose path is written so.
    data(object, &[("data", false), ("binaryData", true)], "[]", out);
    frozen(object, old, &["data", "binaryData"], out);
}

pub(super) fn secret(object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    data(object, &[("data", true)], "data", out);
    if object["type"] == "kubernetes.io/tls" {
        for key in ["tls.crt", "tls.key"] {
            if object["data"][key].is_null() {
                out.push(Cause::required(format!("data[{key}]"), ""));
            }
        }
    }
    frozen(object, old, &["data"], out);
    if let Some(old) = old {
        immutable(&object["type"], &old["type"], "type", out);
    }
}

fn backend(b: &Value, path: &str, out: &mut Vec<Cause>) {
    if b["resource"].is_object() {
        return;
    }
    let service = &b["service"];
    if !service.is_object() {
        out.push(Cause::required(
            path,
            "resource or service backend is required",
        ));
        return;
    }
    need(service, "name", &format!("{path}.service"), out);
    let p = &service["port"];
    if p["name"].as_str().unwrap_or_default().is_empty() {
        if p["number"].is_null() {
            out.push(Cause::required(
                format!("{path}.service.port"),
                "port name or number is required",
            ));
        } else {
            port(&p["number"], &format!("{path}.service.port.number"), out);
        }
    }
}

pub(super) fn ingress(object: &Value, out: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let rules = spec["rules"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        out.push(Cause::invalid(
            "spec",
            spec,
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if spec["defaultBackend"].is_object() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", out);
    }
    for (i, rule) in rules.iter().enumerate() {
        let host = rule["host"].as_str().unwrap_or_default();
        let plain = host.strip_prefix("*.").unwrap_or(host);
        if !host.is_empty()
            && let Some(why) = names::subdomain_problem(plain)
        {
            out.push(Cause::invalid(
                format!("spec.rules[{i}].host"),
                &rule["host"],
                &why,
            ));
        }
        let paths = rule["http"]["paths"].as_array().into_iter().flatten();
        for (j, p) in paths.enumerate() {
            let at = format!("spec.rules[{i}].http.paths[{j}]");
            if p["pathType"].is_null() {
                out.push(Cause::required(
                    format!("{at}.pathType"),
                    "pathType must be specified",
                ));
            }
            one_of(
                p,
                "pathType",
                &["Exact", "ImplementationSpecific", "Prefix"],
                &at,
                out,
            );
            let path = p["path"].as_str().unwrap_or_default();
            let strict = matches!(p["pathType"].as_str(), Some("Exact" | "Prefix"));
            if (strict || !path.is_empty()) && !path.starts_with('/') {
                out.push(Cause::invalid(
                    format!("{at}.path"),
                    &path.into(),
                    "must be an absolute path",
                ));
            }
            backend(&p["backend"], &format!("{at}.backend"), out);
        }
    }
}

pub(super) fn endpoint_slice(object: &Value, out: &mut Vec<Cause>) {
    if object["addressType"].is_null() {
        out.push(Cause::required("addressType", ""));
    }
    one_of_root(object, "addressType", &["FQDN", "IPv4", "IPv6"], out);
    for (i, e) in object["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if e["addresses"].as_array().is_none_or(Vec::is_empty) {
            out.push(Cause::required(
                format!("endpoints[{i}].addresses"),
                "must contain at least 1 address",
            ));
        }
    }
}

fn one_of_root(object: &Value, field: &str, allowed: &[&str], out: &mut Vec<Cause>) {
    if let Some(s) = object[field].as_str()
        && !allowed.contains(&s)
    {
        out.push(Cause::not_supported(field, &object[field], allowed));
    }
}

pub(super) fn webhooks(object: &Value, out: &mut Vec<Cause>) {
    let mut seen = std::collections::HashSet::new();
    for (i, hook) in object["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("webhooks[{i}]");
        if need(hook, "name", &at, out) {
            let name = hook["name"].as_str().unwrap_or_default();
            if name.split('.').count() < 3 {
                out.push(Cause::invalid(
                    format!("{at}.name"),
                    &hook["name"],
                    "should be a domain with at least three segments separated by dots",
                ));
            }
            if !seen.insert(name) {
                out.push(Cause::duplicate(format!("{at}.name"), &hook["name"]));
            }
        }
        need(hook, "sideEffects", &at, out);
        one_of(hook, "sideEffects", &["None", "NoneOnDryRun"], &at, out);
        one_of(hook, "failurePolicy", &["Fail", "Ignore"], &at, out);
        one_of(hook, "matchPolicy", &["Equivalent", "Exact"], &at, out);
        if hook["admissionReviewVersions"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            out.push(Cause::required(
                format!("{at}.admissionReviewVersions"),
                "must specify one of v1, v1beta1",
            ));
        }
        let t = hook["timeoutSeconds"].as_i64().unwrap_or(10);
        if !(1..=30).contains(&t) {
            out.push(Cause::invalid(
                format!("{at}.timeoutSeconds"),
                &hook["timeoutSeconds"],
                "the timeout value must be between 1 and 30 seconds",
            ));
        }
        let config = &hook["clientConfig"];
        if config["url"].is_string() == config["service"].is_object() {
            out.push(Cause::required(
                format!("{at}.clientConfig"),
                "exactly one of url or service is required",
            ));
        }
        if let Some(url) = config["url"].as_str()
            && !url.starts_with("https://")
        {
            out.push(Cause::invalid(
                format!("{at}.clientConfig.url"),
                &config["url"],
                "'https' is the only allowed URL scheme",
            ));
        }
    }
}

pub(super) fn binding(object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let role = &object["roleRef"];
    need(role, "name", "roleRef", out);
    one_of(role, "kind", &["Role", "ClusterRole"], "roleRef", out);
    if let Some(old) = old
        && *role != old["roleRef"]
    {
        out.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
    }
    for (i, s) in object["subjects"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("subjects[{i}]");
        need(s, "name", &at, out);
        one_of(s, "kind", &["ServiceAccount", "User", "Group"], &at, out);
        if s["kind"] == "ServiceAccount" && s["namespace"].is_null() {
            out.push(Cause::required(format!("{at}.namespace"), ""));
        }
    }
}
