//! The table of pods: readiness, the one-word status, restarts.

use serde_json::Value;

use super::{age, list, name, or_none, since};
use crate::api::meta;

pub(super) const COLUMNS: &[&str] = &[
    "Name",
    "Ready",
    "Status",
    "Restarts",
    "Age",
    "+IP",
    "+Node",
    "+Nominated Node",
    "+Readiness Gates",
];

struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    last_restart: String,
}

pub(super) fn cells(o: &Value) -> Vec<Value> {
    let s = summary(o);
    let restarts = if s.restarts > 0 && !s.last_restart.is_empty() {
        format!("{} ({} ago)", s.restarts, since(&s.last_restart))
    } else {
        s.restarts.to_string()
    };
    let gates = list(&o["spec"]["readinessGates"]);
    let conditions = list(&o["status"]["conditions"]);
    let passed = gates
        .iter()
        .filter(|g| {
            conditions
                .iter()
                .any(|c| c["type"] == g["conditionType"] && c["status"] == "True")
        })
        .count();
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        format!("{passed}/{}", gates.len())
    };
    vec![
        name(o),
        format!("{}/{}", s.ready, s.total).into(),
        s.status.into(),
        restarts.into(),
        age(o),
        or_none(&o["status"]["podIP"]),
        or_none(&o["spec"]["nodeName"]),
        or_none(&o["status"]["nominatedNodeName"]),
        gates.into(),
    ]
}

fn restartable(spec: &Value, name: &Value) -> bool {
    list(&spec["initContainers"])
        .iter()
        .any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
}

fn condition_true(o: &Value, kind: &str) -> bool {
    list(&o["status"]["conditions"])
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

fn note_restart(status: &Value, last: &mut String) {
    let at = status["lastState"]["terminated"]["finishedAt"]
        .as_str()
        .unwrap_or_default();
    // RFC 3339 texts in UTC sort by time.
    if at > last.as_str() {
        at.clone_into(last);
    }
}

fn ended_word(terminated: &Value) -> String {
    match terminated["reason"].as_str().filter(|r| !r.is_empty()) {
        Some(reason) => reason.to_owned(),
        None => match terminated["signal"].as_i64().filter(|s| *s != 0) {
            Some(signal) => format!("Signal:{signal}"),
            None => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        },
    }
}

fn summary(o: &Value) -> Summary {
    let (spec, status) = (&o["spec"], &o["status"]);
    let sidecars = list(&spec["initContainers"])
        .iter()
        .filter(|c| c["restartPolicy"] == "Always")
        .count();
    let mut s = Summary {
        ready: 0,
        total: list(&spec["containers"]).len() + sidecars,
        status: status["phase"].as_str().unwrap_or("Unknown").to_owned(),
        restarts: 0,
        last_restart: String::new(),
    };
    if let Some(reason) = status["reason"].as_str().filter(|r| !r.is_empty()) {
        reason.clone_into(&mut s.status);
    }
    if list(&status["conditions"])
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated")
    {
        "SchedulingGated".clone_into(&mut s.status);
    }
    let initialising = init_containers(spec, status, &mut s);
    if !initialising || condition_true(o, "Initialized") {
        main_containers(o, initialising, &mut s);
    }
    let ended = matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
    if meta::deleting(o) && status["reason"] == "NodeLost" {
        "Unknown".clone_into(&mut s.status);
    } else if meta::deleting(o) && !ended {
        "Terminating".clone_into(&mut s.status);
    }
    s
}

/// Looks at the init containers; whether one of them is not done.
fn init_containers(spec: &Value, status: &Value, s: &mut Summary) -> bool {
    let total = list(&spec["initContainers"]).len();
    for (i, c) in list(&status["initContainerStatuses"]).iter().enumerate() {
        s.restarts += c["restartCount"].as_i64().unwrap_or(0);
        note_restart(c, &mut s.last_restart);
        let state = &c["state"];
        let sidecar = restartable(spec, &c["name"]);
        if state["terminated"].is_object() && state["terminated"]["exitCode"] == 0 {
            continue;
        }
        if sidecar && c["started"] == true {
            if c["ready"] == true {
                s.ready += 1;
            }
            continue;
        }
        let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
        s.status = if state["terminated"].is_object() {
            format!("Init:{}", ended_word(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{total}")
        };
        return true;
    }
    false
}

fn main_containers(o: &Value, initialising: bool, s: &mut Summary) {
    let mut running = false;
    if !initialising {
        let sidecar_restarts: i64 = list(&o["status"]["initContainerStatuses"])
            .iter()
            .filter(|c| restartable(&o["spec"], &c["name"]))
            .map(|c| c["restartCount"].as_i64().unwrap_or(0))
            .sum();
        s.restarts = sidecar_restarts;
    }
    for c in list(&o["status"]["containerStatuses"]).iter().rev() {
        s.restarts += c["restartCount"].as_i64().unwrap_or(0);
        note_restart(c, &mut s.last_restart);
        let state = &c["state"];
        let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
        if !waiting.is_empty() {
            waiting.clone_into(&mut s.status);
        } else if state["terminated"].is_object() {
            s.status = ended_word(&state["terminated"]);
        } else if c["ready"] == true && state["running"].is_object() {
            running = true;
            s.ready += 1;
        }
    }
    if s.status == "Completed" && running {
        let word = if condition_true(o, "Ready") {
            "Running"
        } else {
            "NotReady"
        };
        word.clone_into(&mut s.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cell(o: &Value, i: usize) -> String {
        cells(o)[i].as_str().expect("text").to_owned()
    }

    #[test]
    fn status_words_follow_the_containers() {
        let base = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}},
                {"name": "b", "ready": true, "restartCount": 2, "state": {"running": {}}}]}});
        assert_eq!(cell(&base, 1), "2/2");
        assert_eq!(cell(&base, 2), "Running");
        assert_eq!(cell(&base, 3), "2");
        let mut crash = base.clone();
        crash["status"]["containerStatuses"][1] = json!({"name": "b", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        assert_eq!(cell(&crash, 1), "1/2");
        assert_eq!(cell(&crash, 2), "CrashLoopBackOff");
        let mut gone = base.clone();
        gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(cell(&gone, 2), "Terminating");
        let mut done = base;
        done["status"]["containerStatuses"][0] = json!({"name": "a", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        assert_eq!(cell(&done, 2), "Running");
    }

    #[test]
    fn init_containers_show_progress_and_sidecars_count() {
        let o = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 0, "state": {"running": {}}},
                {"name": "s", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}],
            "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}]}});
        assert_eq!(cell(&o, 1), "0/2");
        assert_eq!(cell(&o, 2), "Init:0/2");
        let mut bad = o;
        bad["status"]["initContainerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 3}});
        assert_eq!(cell(&bad, 2), "Init:ExitCode:3");
    }
}
