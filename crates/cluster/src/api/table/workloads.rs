//! The tables of workloads.

use serde_json::{Value, json};

use super::age::short;
use super::{age, joined, list, name, or_none, since};
use crate::api::meta;
use crate::api::selector::label_selector_text;

pub(super) const DEPLOYMENT: &[&str] = &[
    "Name",
    "Ready",
    "Up-to-date",
    "Available",
    "Age",
    "+Containers",
    "+Images",
    "+Selector",
];
pub(super) const REPLICA_SET: &[&str] = &[
    "Name",
    "Desired",
    "Current",
    "Ready",
    "Age",
    "+Containers",
    "+Images",
    "+Selector",
];
pub(super) const STATEFUL_SET: &[&str] = &["Name", "Ready", "Age", "+Containers", "+Images"];
pub(super) const DAEMON_SET: &[&str] = &[
    "Name",
    "Desired",
    "Current",
    "Ready",
    "Up-to-date",
    "Available",
    "Node Selector",
    "Age",
    "+Containers",
    "+Images",
    "+Selector",
];
pub(super) const REVISION: &[&str] = &["Name", "Controller", "Revision", "Age"];
pub(super) const JOB: &[&str] = &[
    "Name",
    "Status",
    "Completions",
    "Duration",
    "Age",
    "+Containers",
    "+Images",
    "+Selector",
];
pub(super) const CRON_JOB: &[&str] = &[
    "Name",
    "Schedule",
    "Timezone",
    "Suspend",
    "Active",
    "Last Schedule",
    "Age",
    "+Containers",
    "+Images",
    "+Selector",
];
pub(super) const AUTOSCALER: &[&str] = &[
    "Name",
    "Reference",
    "Targets",
    "MinPods",
    "MaxPods",
    "Replicas",
    "Age",
];
pub(super) const BUDGET: &[&str] = &[
    "Name",
    "Min Available",
    "Max Unavailable",
    "Allowed Disruptions",
    "Age",
];

fn number(v: &Value) -> Value {
    v.as_i64().unwrap_or(0).into()
}

fn containers(template: &Value, field: &str) -> Value {
    joined(
        list(&template["spec"]["containers"])
            .iter()
            .map(|c| c[field].as_str().unwrap_or_default().to_owned()),
    )
}

fn selector(o: &Value) -> Value {
    let s = &o["spec"]["selector"];
    let plain =
        s.is_object() && s.get("matchLabels").is_none() && s.get("matchExpressions").is_none();
    let text = if plain {
        label_selector_text(&json!({"matchLabels": s}))
    } else {
        label_selector_text(s)
    };
    or_none(&text.into())
}

pub(super) fn deployment(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let ready = format!(
        "{}/{}",
        number(&status["readyReplicas"]),
        number(&spec["replicas"])
    );
    vec![
        name(o),
        ready.into(),
        number(&status["updatedReplicas"]),
        number(&status["availableReplicas"]),
        age(o),
        containers(&spec["template"], "name"),
        containers(&spec["template"], "image"),
        selector(o),
    ]
}

pub(super) fn replica_set(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    vec![
        name(o),
        number(&spec["replicas"]),
        number(&status["replicas"]),
        number(&status["readyReplicas"]),
        age(o),
        containers(&spec["template"], "name"),
        containers(&spec["template"], "image"),
        selector(o),
    ]
}

pub(super) fn stateful_set(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let ready = format!(
        "{}/{}",
        number(&status["readyReplicas"]),
        number(&spec["replicas"])
    );
    vec![
        name(o),
        ready.into(),
        age(o),
        containers(&spec["template"], "name"),
        containers(&spec["template"], "image"),
    ]
}

pub(super) fn daemon_set(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let nodes = &spec["template"]["spec"]["nodeSelector"];
    vec![
        name(o),
        number(&status["desiredNumberScheduled"]),
        number(&status["currentNumberScheduled"]),
        number(&status["numberReady"]),
        number(&status["updatedNumberScheduled"]),
        number(&status["numberAvailable"]),
        or_none(&label_selector_text(&json!({"matchLabels": nodes})).into()),
        age(o),
        containers(&spec["template"], "name"),
        containers(&spec["template"], "image"),
        selector(o),
    ]
}

pub(super) fn revision(o: &Value) -> Vec<Value> {
    let owner = list(&o["metadata"]["ownerReferences"])
        .iter()
        .find(|r| r["controller"] == true)
        .map_or("<none>".to_owned(), |r| {
            let (group, _) = meta::split_api_version(r["apiVersion"].as_str().unwrap_or_default());
            let kind = r["kind"].as_str().unwrap_or_default().to_lowercase();
            let name = r["name"].as_str().unwrap_or_default();
            if group.is_empty() {
                format!("{kind}/{name}")
            } else {
                format!("{kind}.{group}/{name}")
            }
        });
    vec![name(o), owner.into(), number(&o["revision"]), age(o)]
}

pub(super) fn job(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let has = |kind: &str| {
        list(&status["conditions"])
            .iter()
            .any(|c| c["type"] == kind && c["status"] == "True")
    };
    let word = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if meta::deleting(o) {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    };
    let done = number(&status["succeeded"]);
    let parallel = spec["parallelism"].as_i64().unwrap_or(1);
    let completions = match spec["completions"].as_i64() {
        Some(c) => format!("{done}/{c}"),
        None if parallel > 1 => format!("{done}/1 of {parallel}"),
        None => format!("{done}/1"),
    };
    let started = status["startTime"].as_str().unwrap_or_default();
    let duration = match (
        meta::parse_time(started),
        status["completionTime"].as_str().and_then(meta::parse_time),
    ) {
        (Some(a), Some(b)) => short(b - a),
        (Some(_), None) => since(started),
        (None, _) => String::new(),
    };
    vec![
        name(o),
        word.into(),
        completions.into(),
        duration.into(),
        age(o),
        containers(&spec["template"], "name"),
        containers(&spec["template"], "image"),
        selector(o),
    ]
}

pub(super) fn cron_job(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let last = status["lastScheduleTime"]
        .as_str()
        .map_or("<none>".to_owned(), since);
    let template = &spec["jobTemplate"]["spec"]["template"];
    vec![
        name(o),
        spec["schedule"].clone(),
        or_none(&spec["timeZone"]),
        if spec["suspend"] == true {
            "True"
        } else {
            "False"
        }
        .into(),
        list(&status["active"]).len().into(),
        last.into(),
        age(o),
        containers(template, "name"),
        containers(template, "image"),
        "<none>".into(),
    ]
}

pub(super) fn autoscaler(o: &Value) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let r = &spec["scaleTargetRef"];
    let target = format!(
        "{}/{}",
        r["kind"].as_str().unwrap_or_default(),
        r["name"].as_str().unwrap_or_default()
    );
    let metrics = joined(list(&spec["metrics"]).iter().map(|m| {
        let resource = &m["resource"];
        let what = resource["name"].as_str().unwrap_or_default();
        let goal = &resource["target"]["averageUtilization"];
        format!("{what}: <unknown>/{goal}%")
    }));
    vec![
        name(o),
        target.into(),
        metrics,
        spec["minReplicas"]
            .as_i64()
            .map_or("<unset>".to_owned(), |n| n.to_string())
            .into(),
        number(&spec["maxReplicas"]),
        number(&status["currentReplicas"]),
        age(o),
    ]
}

pub(super) fn budget(o: &Value) -> Vec<Value> {
    let text = |v: &Value| match v {
        Value::Null => "N/A".to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    vec![
        name(o),
        text(&o["spec"]["minAvailable"]).into(),
        text(&o["spec"]["maxUnavailable"]).into(),
        number(&o["status"]["disruptionsAllowed"]),
        age(o),
    ]
}
