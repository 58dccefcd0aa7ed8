//! The tables of the other built-in kinds.

use serde_json::{Value, json};

use super::{age, first_three, joined, list, name, or_none, since};
use crate::api::meta;
use crate::api::selector::label_selector_text;

pub(super) const SERVICE: &[&str] = &[
    "Name",
    "Type",
    "Cluster-IP",
    "External-IP",
    "Port(s)",
    "Age",
    "+Selector",
];
pub(super) const NODE: &[&str] = &[
    "Name",
    "Status",
    "Roles",
    "Age",
    "Version",
    "+Internal-IP",
    "+External-IP",
    "+OS-Image",
    "+Kernel-Version",
    "+Container-Runtime",
];
pub(super) const NAMESPACE: &[&str] = &["Name", "Status", "Age"];
pub(super) const SERVICE_ACCOUNT: &[&str] = &["Name", "Secrets", "Age"];
pub(super) const CONFIG_MAP: &[&str] = &["Name", "Data", "Age"];
pub(super) const SECRET: &[&str] = &["Name", "Type", "Data", "Age"];
pub(super) const EVENT: &[&str] = &[
    "Last Seen",
    "Type",
    "Reason",
    "Object",
    "+Subobject",
    "+Source",
    "Message",
    "+First Seen",
    "+Count",
    "+Name",
];
pub(super) const ENDPOINTS: &[&str] = &["Name", "Endpoints", "Age"];
pub(super) const SLICE: &[&str] = &["Name", "AddressType", "Ports", "Endpoints", "Age"];
pub(super) const INGRESS: &[&str] = &["Name", "Class", "Hosts", "Address", "Ports", "Age"];
pub(super) const INGRESS_CLASS: &[&str] = &["Name", "Controller", "Parameters", "Age"];
pub(super) const POLICY: &[&str] = &["Name", "Pod-Selector", "Age"];
pub(super) const LEASE: &[&str] = &["Name", "Holder", "Age"];
pub(super) const BINDING: &[&str] = &[
    "Name",
    "Role",
    "Age",
    "+Users",
    "+Groups",
    "+ServiceAccounts",
];
pub(super) const WEBHOOKS: &[&str] = &["Name", "Webhooks", "Age"];
pub(super) const STORAGE_CLASS: &[&str] = &[
    "Name",
    "Provisioner",
    "ReclaimPolicy",
    "VolumeBindingMode",
    "AllowVolumeExpansion",
    "Age",
];
pub(super) const PRIORITY_CLASS: &[&str] =
    &["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"];
pub(super) const VOLUME: &[&str] = &[
    "Name",
    "Capacity",
    "Access Modes",
    "Reclaim Policy",
    "Status",
    "Claim",
    "StorageClass",
    "VolumeAttributesClass",
    "Reason",
    "Age",
    "+VolumeMode",
];
pub(super) const CLAIM: &[&str] = &[
    "Name",
    "Status",
    "Volume",
    "Capacity",
    "Access Modes",
    "StorageClass",
    "VolumeAttributesClass",
    "Age",
    "+VolumeMode",
];
pub(super) const PLAIN: &[&str] = &["Name", "Created At"];

pub(super) fn plain(o: &Value) -> Vec<Value> {
    vec![name(o), meta::text(o, "creationTimestamp").into()]
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn count(v: &Value) -> usize {
    v.as_array()
        .map(Vec::len)
        .or_else(|| v.as_object().map(serde_json::Map::len))
        .unwrap_or(0)
}

fn labels_text(map: &Value) -> Value {
    or_none(&label_selector_text(&json!({"matchLabels": map})).into())
}

pub(super) fn service(o: &Value) -> Vec<Value> {
    let spec = &o["spec"];
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    let mut external: Vec<String> = list(&spec["externalIPs"]).iter().map(text).collect();
    if kind == "LoadBalancer" {
        let ingress = list(&o["status"]["loadBalancer"]["ingress"]);
        external.extend(ingress.iter().map(|i| {
            let ip = text(&i["ip"]);
            if ip.is_empty() {
                text(&i["hostname"])
            } else {
                ip
            }
        }));
    }
    let external = match kind {
        "ExternalName" => spec["externalName"].clone(),
        "LoadBalancer" if external.is_empty() => "<pending>".into(),
        _ => joined(external),
    };
    let ports = joined(list(&spec["ports"]).iter().map(|p| {
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        match p["nodePort"].as_i64().filter(|n| *n != 0) {
            Some(n) => format!("{}:{n}/{protocol}", p["port"]),
            None => format!("{}/{protocol}", p["port"]),
        }
    }));
    vec![
        name(o),
        kind.into(),
        or_none(&spec["clusterIP"]),
        external,
        ports,
        age(o),
        labels_text(&spec["selector"]),
    ]
}

pub(super) fn node(o: &Value) -> Vec<Value> {
    let status = &o["status"];
    let ready = list(&status["conditions"])
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut word = match ready.and_then(|c| c["status"].as_str()) {
        Some("True") => "Ready",
        Some("False" | "Unknown") => "NotReady",
        _ => "Unknown",
    }
    .to_owned();
    if o["spec"]["unschedulable"] == true {
        word.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<String> = o["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, _)| {
            k.strip_prefix("node-role.kubernetes.io/")
                .map(str::to_owned)
        })
        .filter(|r| !r.is_empty())
        .collect();
    roles.sort();
    let address = |kind: &str| {
        let found = list(&status["addresses"])
            .iter()
            .find(|a| a["type"] == kind);
        found.map_or("<none>".into(), |a| a["address"].clone())
    };
    let info = &status["nodeInfo"];
    let known = |v: &Value| {
        v.as_str()
            .filter(|s| !s.is_empty())
            .unwrap_or("<unknown>")
            .into()
    };
    vec![
        name(o),
        word.into(),
        joined(roles),
        age(o),
        info["kubeletVersion"].as_str().unwrap_or_default().into(),
        address("InternalIP"),
        address("ExternalIP"),
        known(&info["osImage"]),
        known(&info["kernelVersion"]),
        known(&info["containerRuntimeVersion"]),
    ]
}

pub(super) fn namespace(o: &Value) -> Vec<Value> {
    vec![
        name(o),
        o["status"]["phase"].as_str().unwrap_or_default().into(),
        age(o),
    ]
}

pub(super) fn service_account(o: &Value) -> Vec<Value> {
    vec![name(o), count(&o["secrets"]).into(), age(o)]
}

pub(super) fn config_map(o: &Value) -> Vec<Value> {
    vec![
        name(o),
        (count(&o["data"]) + count(&o["binaryData"])).into(),
        age(o),
    ]
}

pub(super) fn secret(o: &Value) -> Vec<Value> {
    vec![
        name(o),
        text(&o["type"]).into(),
        count(&o["data"]).into(),
        age(o),
    ]
}

pub(super) fn event(o: &Value) -> Vec<Value> {
    let first = text(&o["firstTimestamp"]);
    let time = text(&o["eventTime"]);
    let first = if first.is_empty() {
        time.clone()
    } else {
        first
    };
    let last = [&o["series"]["lastObservedTime"], &o["lastTimestamp"]]
        .iter()
        .map(|v| text(v))
        .find(|t| !t.is_empty())
        .unwrap_or_else(|| first.clone());
    let object = &o["involvedObject"];
    let target = format!(
        "{}/{}",
        text(&object["kind"]).to_lowercase(),
        text(&object["name"])
    );
    let component = text(&o["source"]["component"]);
    let component = if component.is_empty() {
        text(&o["reportingComponent"])
    } else {
        component
    };
    let host = text(&o["source"]["host"]);
    let source = if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    };
    let n = o["series"]["count"]
        .as_i64()
        .or_else(|| o["count"].as_i64())
        .unwrap_or(1)
        .max(1);
    vec![
        since(&last).into(),
        text(&o["type"]).into(),
        text(&o["reason"]).into(),
        target.into(),
        text(&object["fieldPath"]).into(),
        source.into(),
        text(&o["message"]).trim().into(),
        since(&first).into(),
        n.into(),
        name(o),
    ]
}

pub(super) fn endpoints(o: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for s in list(&o["subsets"]) {
        for a in list(&s["addresses"]) {
            let ip = text(&a["ip"]);
            let ports = list(&s["ports"]);
            if ports.is_empty() {
                all.push(ip.clone());
            }
            all.extend(ports.iter().map(|p| format!("{ip}:{}", p["port"])));
        }
    }
    vec![name(o), first_three(&all), age(o)]
}

pub(super) fn slice(o: &Value) -> Vec<Value> {
    let ports: Vec<String> = list(&o["ports"])
        .iter()
        .map(|p| p["port"].as_i64().map_or("*".to_owned(), |n| n.to_string()))
        .collect();
    let addresses: Vec<String> = list(&o["endpoints"])
        .iter()
        .flat_map(|e| list(&e["addresses"]).iter().map(text))
        .collect();
    let unset = |items: &[String]| {
        if items.is_empty() {
            "<unset>".into()
        } else {
            first_three(items)
        }
    };
    vec![
        name(o),
        text(&o["addressType"]).into(),
        unset(&ports),
        unset(&addresses),
        age(o),
    ]
}

pub(super) fn ingress(o: &Value) -> Vec<Value> {
    let spec = &o["spec"];
    let hosts: Vec<String> = list(&spec["rules"])
        .iter()
        .map(|r| text(&r["host"]))
        .filter(|h| !h.is_empty())
        .collect();
    let hosts = if hosts.is_empty() {
        "*".into()
    } else {
        first_three(&hosts)
    };
    let addresses: Vec<String> = list(&o["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|i| {
            if i["ip"].is_string() {
                text(&i["ip"])
            } else {
                text(&i["hostname"])
            }
        })
        .collect();
    let ports = if list(&spec["tls"]).is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(o),
        or_none(&spec["ingressClassName"]),
        hosts,
        addresses.join(",").into(),
        ports.into(),
        age(o),
    ]
}

pub(super) fn ingress_class(o: &Value) -> Vec<Value> {
    let p = &o["spec"]["parameters"];
    let parameters = if p.is_object() {
        format!(
            "{}.{}/{}",
            text(&p["kind"]),
            text(&p["apiGroup"]),
            text(&p["name"])
        )
    } else {
        "<none>".to_owned()
    };
    vec![
        name(o),
        text(&o["spec"]["controller"]).into(),
        parameters.into(),
        age(o),
    ]
}

pub(super) fn policy(o: &Value) -> Vec<Value> {
    let sel = label_selector_text(&o["spec"]["podSelector"]);
    vec![name(o), or_none(&sel.into()), age(o)]
}

pub(super) fn lease(o: &Value) -> Vec<Value> {
    vec![name(o), text(&o["spec"]["holderIdentity"]).into(), age(o)]
}

pub(super) fn binding(o: &Value) -> Vec<Value> {
    let role = &o["roleRef"];
    let of = |kind: &str| -> Value {
        let found: Vec<String> = list(&o["subjects"])
            .iter()
            .filter(|s| s["kind"] == kind)
            .map(|s| {
                if kind == "ServiceAccount" {
                    format!("{}/{}", text(&s["namespace"]), text(&s["name"]))
                } else {
                    text(&s["name"])
                }
            })
            .collect();
        found.join(", ").into()
    };
    vec![
        name(o),
        format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
        age(o),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

pub(super) fn webhooks(o: &Value) -> Vec<Value> {
    vec![name(o), count(&o["webhooks"]).into(), age(o)]
}

pub(super) fn storage_class(o: &Value) -> Vec<Value> {
    let default =
        meta::annotation(o, "storageclass.kubernetes.io/is-default-class") == Some("true");
    let shown = if default {
        format!("{} (default)", meta::name(o))
    } else {
        meta::name(o).to_owned()
    };
    let or = |v: &Value, d: &str| v.as_str().unwrap_or(d).to_owned();
    vec![
        shown.into(),
        text(&o["provisioner"]).into(),
        or(&o["reclaimPolicy"], "Delete").into(),
        or(&o["volumeBindingMode"], "Immediate").into(),
        (o["allowVolumeExpansion"] == true).into(),
        age(o),
    ]
}

pub(super) fn priority_class(o: &Value) -> Vec<Value> {
    vec![
        name(o),
        o["value"].as_i64().unwrap_or(0).into(),
        (o["globalDefault"] == true).into(),
        age(o),
        o["preemptionPolicy"]
            .as_str()
            .unwrap_or("PreemptLowerPriority")
            .into(),
    ]
}

/// Access modes by their short names.
fn access(v: &Value) -> Value {
    let short = |m: &Value| match m.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    list(v)
        .iter()
        .map(short)
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

pub(super) fn volume(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let claim = &spec["claimRef"];
    let claim = if claim.is_object() {
        format!("{}/{}", text(&claim["namespace"]), text(&claim["name"]))
    } else {
        String::new()
    };
    vec![
        name(o),
        text(&spec["capacity"]["storage"]).into(),
        access(&spec["accessModes"]),
        text(&spec["persistentVolumeReclaimPolicy"]).into(),
        text(&status["phase"]).into(),
        claim.into(),
        text(&spec["storageClassName"]).into(),
        spec["volumeAttributesClassName"]
            .as_str()
            .unwrap_or("<unset>")
            .into(),
        text(&status["reason"]).into(),
        age(o),
        spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
    ]
}

pub(super) fn claim(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let phase = if meta::deleting(o) {
        "Terminating".to_owned()
    } else {
        text(&status["phase"])
    };
    vec![
        name(o),
        phase.into(),
        text(&spec["volumeName"]).into(),
        text(&status["capacity"]["storage"]).into(),
        access(&status["accessModes"]),
        text(&spec["storageClassName"]).into(),
        spec["volumeAttributesClassName"]
            .as_str()
            .unwrap_or("<unset>")
            .into(),
        age(o),
        spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
    ]
}
