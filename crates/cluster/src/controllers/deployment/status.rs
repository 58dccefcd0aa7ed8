//! The status of a deployment and its conditions Available, Progressing and ReplicaFailure. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::rolling::Limits;
use crate::controllers::object::{condition, flag, format_time, int, list, name, text, time};

/// The status to write and what follows from it.
pub struct Next {
    /// For a merge patch of `status`.
    pub status: Value,
    /// The rollout is done.
    pub complete: bool,
    /// When the progress deadline may have passed.
    pub look_again: Option<Duration>,
}

/// `progressDeadlineSeconds` of this value means "no deadline".
const NO_DEADLINE: i64 = i32::MAX as i64;

/// The next status from the sets as they are now; `event` is what this reconcile did to the new
/// set: (status, reason, message) of the Progressing condition.
pub fn next(
    deployment: &Value,
    new: Option<&Value>,
    all: &[&Value],
    limits: Limits,
    event: Option<&(&'static str, &'static str, String)>,
    now: Timestamp,
) -> Next {
    let sum = |field: &str| -> i64 { all.iter().filter_map(|set| int(set, field)).sum() };
    let available = sum("/status/availableReplicas");
    let wanted = sum("/spec/replicas");
    let counts = Counts {
        replicas: sum("/status/replicas"),
        updated: new
            .and_then(|set| int(set, "/status/replicas"))
            .unwrap_or(0),
        ready: sum("/status/readyReplicas"),
        available,
    };
    let mut conditions = list(deployment, "/status/conditions").to_vec();
    let setter = &mut Setter {
        conditions: &mut conditions,
        now,
    };
    availability(setter, available, limits);
    let complete = counts.complete(limits) && event.is_none_or(|e| e.0 != "False");
    let look_again = progress(setter, deployment, new, counts, complete, event);
    failure(setter, new, all);
    let status = json!({
        "observedGeneration": int(deployment, "/metadata/generation").unwrap_or(0),
        "replicas": counts.replicas,
        "updatedReplicas": counts.updated,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "unavailableReplicas": (wanted - available).max(0),
        "collisionCount": deployment.pointer("/status/collisionCount"),
        "conditions": conditions,
    });
    Next {
        status: without_zero_counts(status),
        complete,
        look_again,
    }
}

/// Zero counts are left out of the status, as clients are used to; null removes an earlier one.
fn without_zero_counts(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        for (field, value) in fields.iter_mut() {
            if field != "observedGeneration" && value.as_i64() == Some(0) {
                *value = Value::Null;
            }
        }
    }
    status
}

#[derive(Clone, Copy)]
struct Counts {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
}

impl Counts {
    fn complete(self, limits: Limits) -> bool {
        self.updated == limits.replicas
            && self.replicas == limits.replicas
            && self.available == limits.replicas
    }

    /// Whether anything moved forward since the status that the deployment shows.
    fn progressed(self, deployment: &Value) -> bool {
        let had = |field: &str| int(deployment, field).unwrap_or(0);
        let old_before = had("/status/replicas") - had("/status/updatedReplicas");
        self.updated > had("/status/updatedReplicas")
            || self.replicas - self.updated < old_before
            || self.ready > had("/status/readyReplicas")
            || self.available > had("/status/availableReplicas")
    }
}

struct Setter<'a> {
    conditions: &'a mut Vec<Value>,
    now: Timestamp,
}

impl Setter<'_> {
    /// Sets a condition; an equal status and reason leave it alone unless `refresh`.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String, refresh: bool) {
        let now = format_time(self.now);
        let old = self
            .conditions
            .iter()
            .position(|c| text(c, "/type") == kind);
        let mut since = now.clone();
        if let Some(at) = old {
            let had = &self.conditions[at];
            if text(had, "/status") == status {
                if text(had, "/reason") == reason && !refresh {
                    return;
                }
                text(had, "/lastTransitionTime").clone_into(&mut since);
            }
        }
        let condition = json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": since,
        });
        match old {
            Some(at) => self.conditions[at] = condition,
            None => self.conditions.push(condition),
        }
    }
}

fn availability(setter: &mut Setter<'_>, available: i64, limits: Limits) {
    if available >= limits.replicas - limits.unavailable {
        let message = "Deployment has minimum availability.".to_owned();
        setter.set(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            message,
            false,
        );
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        setter.set(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            message,
            false,
        );
    }
}

fn progress(
    setter: &mut Setter<'_>,
    deployment: &Value,
    new: Option<&Value>,
    counts: Counts,
    complete: bool,
    event: Option<&(&'static str, &'static str, String)>,
) -> Option<Duration> {
    let deadline = int(deployment, "/spec/progressDeadlineSeconds").filter(|s| *s < NO_DEADLINE)?;
    let current = condition(deployment, "Progressing");
    let reason = current.map_or("", |c| text(c, "/reason"));
    if flag(deployment, "/spec/paused") {
        let message = "Deployment is paused".to_owned();
        setter.set("Progressing", "Unknown", "DeploymentPaused", message, false);
        return None;
    }
    if reason == "DeploymentPaused" {
        let message = "Deployment is resumed".to_owned();
        setter.set(
            "Progressing",
            "Unknown",
            "DeploymentResumed",
            message,
            false,
        );
        return Some(Duration::from_millis(1));
    }
    if let Some((status, reason, message)) = event {
        setter.set("Progressing", status, reason, message.clone(), true);
        return Some(Duration::from_secs(deadline.max(1).unsigned_abs()));
    }
    // A finished rollout stays finished while pods come and go, until the template changes.
    if reason == "NewReplicaSetAvailable" && counts.replicas == counts.updated {
        return None;
    }
    let subject = new.map_or_else(
        || format!("Deployment \"{}\"", name(deployment)),
        |set| format!("ReplicaSet \"{}\"", name(set)),
    );
    if complete {
        let message = format!("{subject} has successfully progressed.");
        setter.set(
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            message,
            false,
        );
        return None;
    }
    if counts.progressed(deployment) {
        let message = format!("{subject} is progressing.");
        setter.set("Progressing", "True", "ReplicaSetUpdated", message, true);
        return Some(Duration::from_secs(deadline.max(1).unsigned_abs()));
    }
    let since = current.and_then(|c| time(c, "/lastUpdateTime"))?;
    if reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let left = since.as_second() + deadline - setter.now.as_second();
    if left >= 0 {
        return Some(Duration::from_secs(left.unsigned_abs() + 1));
    }
    let message = format!("{subject} has timed out progressing.");
    setter.set(
        "Progressing",
        "False",
        "ProgressDeadlineExceeded",
        message,
        false,
    );
    None
}

/// Shows the failure of the new set, else of any old one.
fn failure(setter: &mut Setter<'_>, new: Option<&Value>, all: &[&Value]) {
    let failing = |set: &&Value| condition(set, "ReplicaFailure").cloned();
    let found = new
        .as_ref()
        .and_then(failing)
        .or_else(|| all.iter().find_map(failing));
    match found {
        Some(c) => {
            let message = text(&c, "/message").to_owned();
            setter.set(
                "ReplicaFailure",
                text(&c, "/status"),
                text(&c, "/reason"),
                message,
                false,
            );
        }
        None => setter
            .conditions
            .retain(|c| text(c, "/type") != "ReplicaFailure"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        replicas: 2,
        surge: 1,
        unavailable: 0,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn set(name: &str, replicas: i64, available: i64) -> Value {
        json!({"metadata": {"name": name}, "spec": {"replicas": replicas}, "status": {
            "replicas": replicas, "readyReplicas": available, "availableReplicas": available}})
    }

    fn reason(status: &Value) -> String {
        let wrapped = json!({"status": status});
        text(
            condition(&wrapped, "Progressing").expect("a condition"),
            "/reason",
        )
        .to_owned()
    }

    #[test]
    fn a_rollout_goes_from_created_over_updated_to_available() {
        let mut d = json!({"metadata": {"name": "d", "generation": 1},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 600}});
        let empty = set("rs", 2, 0);
        let event = ("True", "NewReplicaSetCreated", "m".to_owned());
        let first = next(&d, Some(&empty), &[&empty], LIMITS, Some(&event), at(0));
        assert_eq!(reason(&first.status), "NewReplicaSetCreated");
        assert!(!first.complete && first.look_again.is_some());
        d["status"] = first.status;
        let one = set("rs", 2, 1);
        let second = next(&d, Some(&one), &[&one], LIMITS, None, at(5));
        assert_eq!(reason(&second.status), "ReplicaSetUpdated");
        assert_eq!(second.status["unavailableReplicas"], 1);
        d["status"] = second.status;
        let both = set("rs", 2, 2);
        let third = next(&d, Some(&both), &[&both], LIMITS, None, at(9));
        assert!(third.complete);
        assert_eq!(reason(&third.status), "NewReplicaSetAvailable");
        assert_eq!(third.status["unavailableReplicas"], Value::Null);
        d["status"] = third.status;
        // A pod lost later is not a new rollout.
        let lost = next(&d, Some(&one), &[&one], LIMITS, None, at(5000));
        assert_eq!(reason(&lost.status), "NewReplicaSetAvailable");
        let wrapped = json!({"status": lost.status});
        assert_eq!(
            text(condition(&wrapped, "Available").expect("it"), "/status"),
            "False"
        );
    }

    #[test]
    fn no_progress_within_the_deadline_is_a_failure() {
        let d = json!({"metadata": {"name": "d"}, "spec": {"progressDeadlineSeconds": 10},
            "status": {"replicas": 2, "updatedReplicas": 2, "conditions": [{
                "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
                "lastUpdateTime": "1970-01-01T00:00:00Z"}]}});
        let stuck = set("rs", 2, 0);
        let early = next(&d, Some(&stuck), &[&stuck], LIMITS, None, at(4));
        assert_eq!(early.look_again, Some(Duration::from_secs(7)));
        let late = next(&d, Some(&stuck), &[&stuck], LIMITS, None, at(11));
        assert_eq!(reason(&late.status), "ProgressDeadlineExceeded");
    }

    #[test]
    fn pausing_and_resuming_show() {
        let mut d = json!({"metadata": {"name": "d"},
            "spec": {"paused": true, "progressDeadlineSeconds": 600}});
        let rs = set("rs", 2, 2);
        let paused = next(&d, Some(&rs), &[&rs], LIMITS, None, at(0));
        assert_eq!(reason(&paused.status), "DeploymentPaused");
        d["status"] = paused.status;
        d["spec"]["paused"] = json!(false);
        let resumed = next(&d, Some(&rs), &[&rs], LIMITS, None, at(1));
        assert_eq!(reason(&resumed.status), "DeploymentResumed");
    }

    #[test]
    fn a_failing_set_shows_and_clears() {
        let mut d = json!({"metadata": {"name": "d"}, "spec": {}});
        let mut rs = set("rs", 1, 0);
        rs["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True",
            "reason": "FailedCreate", "message": "no"}]);
        let failed = next(&d, Some(&rs), &[&rs], LIMITS, None, at(0)).status;
        d["status"] = failed;
        assert!(condition(&d, "ReplicaFailure").is_some());
        let rs = set("rs", 1, 1);
        d["status"] = next(&d, Some(&rs), &[&rs], LIMITS, None, at(0)).status;
        assert!(condition(&d, "ReplicaFailure").is_none());
    }
}
