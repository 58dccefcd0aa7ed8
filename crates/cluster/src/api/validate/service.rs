//! Validation of Services.

use std::collections::HashSet;

use serde_json::Value;

use super::{names, one_of, port};
use crate::api::error::Cause;

/// A Service.
pub(super) fn service(object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &object["spec"];
    one_of(
        spec,
        "type",
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        "spec",
        out,
    );
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], "spec", out);
    one_of(
        spec,
        "externalTrafficPolicy",
        &["Cluster", "Local"],
        "spec",
        out,
    );
    one_of(
        spec,
        "internalTrafficPolicy",
        &["Cluster", "Local"],
        "spec",
        out,
    );
    super::label_map(&spec["selector"], "spec.selector", out);
    let external = spec["type"] == "ExternalName";
    if external && spec["externalName"].as_str().unwrap_or_default().is_empty() {
        out.push(Cause::required("spec.externalName", ""));
    }
    ports(spec, external, out);
    let ip = spec["clusterIP"].as_str().unwrap_or_default();
    if !ip.is_empty() && ip != "None" && ip.parse::<std::net::IpAddr>().is_err() {
        out.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIP"],
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
    if let Some(old) = old
        && !external
        && old["spec"]["type"] != "ExternalName"
    {
        let before = old["spec"]["clusterIP"].as_str().unwrap_or_default();
        if !before.is_empty() && before != ip {
            out.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &spec["clusterIP"],
                "may not change once set",
            ));
        }
    }
}

fn ports(spec: &Value, external: bool, out: &mut Vec<Cause>) {
    let list = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let headless = spec["clusterIP"] == "None";
    if list.is_empty() && !external && !headless {
        out.push(Cause::required("spec.ports", ""));
    }
    let (mut seen_names, mut seen_ports) = (HashSet::new(), HashSet::new());
    for (i, p) in list.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        let name = p["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            if list.len() > 1 {
                out.push(Cause::required(format!("{at}.name"), ""));
            }
        } else if let Some(why) = names::label_problem(name) {
            out.push(Cause::invalid(format!("{at}.name"), &p["name"], &why));
        } else if !seen_names.insert(name) {
            out.push(Cause::duplicate(format!("{at}.name"), &p["name"]));
        }
        port(&p["port"], &format!("{at}.port"), out);
        one_of(p, "protocol", &["SCTP", "TCP", "UDP"], &at, out);
        let target = &p["targetPort"];
        if let Some(s) = target.as_str() {
            if let Some(why) = names::port_name_problem(s) {
                out.push(Cause::invalid(format!("{at}.targetPort"), target, why));
            }
        } else if !target.is_null() {
            port(target, &format!("{at}.targetPort"), out);
        }
        let key = (p["port"].as_i64(), p["protocol"].as_str());
        if !seen_ports.insert(key) {
            out.push(Cause::duplicate(
                at,
                &serde_json::json!({"port": p["port"], "protocol": p["protocol"]}),
            ));
        }
    }
}
