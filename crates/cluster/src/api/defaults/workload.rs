//! Defaults of workloads: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob.

use serde_json::{Value, json};

use super::{pod, set};

fn templated(object: &mut Value) -> Option<&mut Value> {
    let spec = object.get_mut("spec").filter(|s| s.is_object())?;
    if let Some(t) = spec.get_mut("template") {
        pod::template(t);
    }
    Some(spec)
}

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = templated(object) else {
        return;
    };
    set(spec, "replicas", 1);
    set(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        set(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
        set(&mut strategy["rollingUpdate"], "maxSurge", "25%");
    }
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
}

pub(super) fn replica_set(object: &mut Value) {
    if let Some(spec) = templated(object) {
        set(spec, "replicas", 1);
    }
    set(object, "status", json!({"replicas": 0}));
    set(&mut object["status"], "replicas", 0);
}

pub(super) fn replication_controller(object: &mut Value) {
    let Some(spec) = templated(object) else {
        return;
    };
    set(spec, "replicas", 1);
    let labels = spec["template"]["metadata"]["labels"].clone();
    if labels.is_object() {
        set(spec, "selector", labels);
    }
}

pub(super) fn stateful_set(object: &mut Value) {
    let Some(spec) = templated(object) else {
        return;
    };
    set(spec, "replicas", 1);
    set(spec, "podManagementPolicy", "OrderedReady");
    set(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        set(&mut strategy["rollingUpdate"], "partition", 0);
    }
    set(spec, "revisionHistoryLimit", 10);
}

pub(super) fn daemon_set(object: &mut Value) {
    let Some(spec) = templated(object) else {
        return;
    };
    set(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        set(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
        set(&mut strategy["rollingUpdate"], "maxSurge", 0);
    }
    set(spec, "revisionHistoryLimit", 10);
}

pub(super) fn job(object: &mut Value) {
    let uid = object["metadata"]["uid"].clone();
    let name = object["metadata"]["name"].clone();
    let Some(spec) = templated(object) else {
        return;
    };
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    set(spec, "parallelism", 1);
    set(spec, "backoffLimit", 6);
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    if spec["manualSelector"] != true && uid.is_string() && spec["selector"].is_null() {
        spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
        let template = &mut spec["template"];
        if template["metadata"].is_null() {
            template["metadata"] = json!({});
        }
        let labels = &mut template["metadata"]["labels"];
        if labels.is_null() {
            *labels = json!({});
        }
        for prefix in ["batch.kubernetes.io/", ""] {
            labels[format!("{prefix}controller-uid")] = uid.clone();
            labels[format!("{prefix}job-name")] = name.clone();
        }
    }
}

pub(super) fn cron_job(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else {
        return;
    };
    set(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    if let Some(t) = spec
        .get_mut("jobTemplate")
        .and_then(|t| t.get_mut("spec"))
        .and_then(|s| s.get_mut("template"))
    {
        pod::template(t);
    }
}

/// Without metrics: 80 % of the requested cpu.
pub(super) fn autoscaler(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else {
        return;
    };
    set(spec, "minReplicas", 1);
    let resource =
        json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
    set(
        spec,
        "metrics",
        json!([{"type": "Resource", "resource": resource}]),
    );
}
