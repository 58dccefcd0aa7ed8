//! The cron job controller: makes jobs at the times of a schedule and forgets old ones.

pub(crate) mod schedule;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use self::schedule::Schedule;
use super::engine::{Change, Controller, Outcome};
use super::events::Recorder;
use super::object::{
    condition_true, controller_uid, deleting, flag, format_time, int, name, namespace,
    owner_reference, pruned, set_annotation, text, time, uid,
};
use super::queue::Key;
use super::replicaset::owners_of_pod;
use crate::api::resource::{CRON_JOBS, JOBS};
use crate::api::{Api, ApiError, DeleteOptions, Propagation, Resource, Selectors};

/// See the module.
pub struct CronJobs {
    api: Api,
    recorder: Recorder,
}

impl std::fmt::Debug for CronJobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CronJobs").finish_non_exhaustive()
    }
}

/// What a cron job does now. Pure decision of [`decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// Nothing is due.
    Wait,
    /// Make the job of this time, after deleting the running ones if `replace`.
    Start { at: Timestamp, replace: bool },
    /// The time was missed by more than `startingDeadlineSeconds`.
    Missed(Timestamp),
    /// An earlier job still runs, and the policy forbids another.
    Busy,
}

fn decide(
    cron: &Value,
    schedule: &Schedule,
    zone: &TimeZone,
    running: usize,
    now: Timestamp,
) -> Decision {
    if flag(cron, "/spec/suspend") {
        return Decision::Wait;
    }
    let since = time(cron, "/status/lastScheduleTime")
        .or_else(|| time(cron, "/metadata/creationTimestamp"))
        .unwrap_or(now);
    let Some(at) = schedule.last(since, now, zone) else {
        return Decision::Wait;
    };
    let deadline = int(cron, "/spec/startingDeadlineSeconds");
    if deadline.is_some_and(|deadline| now.as_second() - at.as_second() > deadline) {
        return Decision::Missed(at);
    }
    match text(cron, "/spec/concurrencyPolicy") {
        "Forbid" if running > 0 => Decision::Busy,
        policy => Decision::Start {
            at,
            replace: policy == "Replace",
        },
    }
}

fn finished(job: &Value) -> bool {
    condition_true(job, "Complete") || condition_true(job, "Failed")
}

/// The job of a cron job for a time; its name tells the minute, so that a time has one job.
fn job_for(cron: &Value, at: Timestamp) -> Value {
    let template = &cron["spec"]["jobTemplate"];
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": format!("{}-{}", name(cron), at.as_second() / 60),
            "namespace": namespace(cron),
            "ownerReferences": [owner_reference(cron, "batch/v1", "CronJob")],
        },
        "spec": template["spec"],
    });
    for field in ["labels", "annotations"] {
        if template["metadata"][field].is_object() {
            job["metadata"][field] = template["metadata"][field].clone();
        }
    }
    let key = "batch.kubernetes.io/cronjob-scheduled-timestamp";
    set_annotation(&mut job, key, &format_time(at));
    job
}

/// Finished jobs beyond the history limits, oldest first.
fn surplus(cron: &Value, jobs: &[Arc<Value>]) -> Vec<Arc<Value>> {
    let mut surplus = Vec::new();
    for (condition, limit) in [
        (
            "Complete",
            int(cron, "/spec/successfulJobsHistoryLimit").unwrap_or(3),
        ),
        (
            "Failed",
            int(cron, "/spec/failedJobsHistoryLimit").unwrap_or(1),
        ),
    ] {
        let mut ended: Vec<_> = jobs
            .iter()
            .filter(|job| condition_true(job, condition))
            .collect();
        ended.sort_by_key(|job| time(job, "/metadata/creationTimestamp"));
        let keep = usize::try_from(limit).unwrap_or(0);
        let gone = ended.len().saturating_sub(keep);
        surplus.extend(ended.into_iter().take(gone).cloned());
    }
    surplus
}

fn status(cron: &Value, jobs: &[Arc<Value>], started: Option<Timestamp>) -> Value {
    let active: Vec<Value> = jobs
        .iter()
        .filter(|job| !finished(job))
        .map(|job| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": namespace(job),
                "name": name(job), "uid": uid(job),
                "resourceVersion": text(job, "/metadata/resourceVersion")})
        })
        .collect();
    let succeeded = jobs.iter().filter(|job| condition_true(job, "Complete"));
    let last = succeeded
        .filter_map(|job| time(job, "/status/completionTime"))
        .max();
    let last = last.max(time(cron, "/status/lastSuccessfulTime"));
    let scheduled = started.or_else(|| time(cron, "/status/lastScheduleTime"));
    json!({
        "active": if active.is_empty() { Value::Null } else { json!(active) },
        "lastScheduleTime": scheduled.map(format_time),
        "lastSuccessfulTime": last.map(format_time),
    })
}

impl CronJobs {
    /// A controller over this API.
    pub fn new(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:cronjob-controller"),
            recorder: recorder.component("cronjob-controller", ""),
        }
    }

    async fn jobs(&self, cron: &Value) -> Result<Vec<Arc<Value>>, ApiError> {
        let (mut all, _) = self
            .api
            .list(&JOBS, Some(namespace(cron)), &Selectors::all())
            .await?;
        all.retain(|job| controller_uid(job) == uid(cron) && !deleting(job));
        Ok(all)
    }

    async fn delete(&self, cron: &Value, job: &Value) -> Result<(), ApiError> {
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            ..DeleteOptions::default().with_uid(uid(job))
        };
        match self
            .api
            .delete(&JOBS, Some(namespace(job)), name(job), options)
            .await
        {
            Ok(_) => {
                let message = format!("Deleted job {}", name(job));
                self.recorder.normal(cron, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn start(&self, cron: &Value, at: Timestamp) -> Result<(), ApiError> {
        match self
            .api
            .create(&JOBS, Some(namespace(cron)), job_for(cron, at))
            .await
        {
            Ok(job) => {
                let message = format!("Created job {}", name(&job));
                self.recorder.normal(cron, "SuccessfulCreate", message);
                Ok(())
            }
            // Made before, with the status not yet written.
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let message = format!("Error creating job: {error}");
                self.recorder.warning(cron, "FailedCreate", message);
                Err(error)
            }
        }
    }

    /// The parsed schedule and zone; a bad one is reported on the object.
    fn schedule(&self, cron: &Value) -> Option<(Schedule, TimeZone)> {
        let zone = match text(cron, "/spec/timeZone") {
            "" => TimeZone::UTC,
            named => match TimeZone::get(named) {
                Ok(zone) => zone,
                Err(error) => {
                    let message = format!("invalid timeZone: {named:?}: {error}");
                    self.recorder.warning(cron, "UnknownTimeZone", message);
                    return None;
                }
            },
        };
        match Schedule::parse(text(cron, "/spec/schedule")) {
            Ok(schedule) => Some((schedule, zone)),
            Err(error) => {
                let message = format!(
                    "unparseable schedule: {:?}: {error}",
                    text(cron, "/spec/schedule")
                );
                self.recorder.warning(cron, "UnparseableSchedule", message);
                None
            }
        }
    }

    async fn sync(&self, cron: &Value) -> Outcome {
        let now = Timestamp::now();
        let jobs = self.jobs(cron).await?;
        for job in surplus(cron, &jobs) {
            self.delete(cron, &job).await?;
        }
        let Some((schedule, zone)) = self.schedule(cron) else {
            return Ok(None);
        };
        let running: Vec<_> = jobs.iter().filter(|job| !finished(job)).collect();
        let mut started = None;
        match decide(cron, &schedule, &zone, running.len(), now) {
            Decision::Wait => {}
            Decision::Start { at, replace } => {
                if replace {
                    for job in running {
                        self.delete(cron, job).await?;
                    }
                }
                self.start(cron, at).await?;
                started = Some(at);
            }
            Decision::Missed(at) => {
                let message = format!("Missed scheduled time to start a job: {}", format_time(at));
                self.recorder.warning(cron, "MissSchedule", message);
            }
            Decision::Busy => {
                let message = "Not starting job because prior execution is running and \
                               concurrency policy is Forbid";
                self.recorder.normal(cron, "JobAlreadyActive", message);
            }
        }
        let next = status(cron, &self.jobs(cron).await?, started);
        if pruned(&cron["status"]) != pruned(&next) {
            let (ns, patch) = (Some(namespace(cron)), json!({"status": next}));
            self.api
                .merge_patch(&CRON_JOBS, ns, name(cron), &patch, Some("status"))
                .await?;
        }
        let due = schedule.next(now, &zone);
        // Timestamps count in nanoseconds; a little after the minute is never too early.
        Ok(due.map(|due| {
            let wait = due.duration_since(now);
            Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(5)
        }))
    }
}

#[async_trait]
impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&CRON_JOBS, &JOBS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == CRON_JOBS {
            return vec![change.key()];
        }
        owners_of_pod(&self.api, change, &CRON_JOBS, "CronJob").await
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        match self
            .api
            .get(&CRON_JOBS, Some(&key.namespace), &key.name)
            .await
        {
            Ok(cron) if deleting(&cron) => Ok(None),
            Ok(cron) => self.sync(&cron).await,
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(spec: Value) -> Value {
        json!({"metadata": {"name": "c", "namespace": "n",
            "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
    }

    fn decided(spec: Value, running: usize, now: &str) -> Decision {
        let schedule = Schedule::parse("*/5 * * * *").expect("a schedule");
        let now = now.parse().expect("a time");
        decide(&cron(spec), &schedule, &TimeZone::UTC, running, now)
    }

    #[test]
    fn the_policies_decide() {
        let at = "2026-01-01T00:10:00Z".parse().expect("a time");
        let now = "2026-01-01T00:12:00Z";
        let start = |replace| Decision::Start { at, replace };
        assert_eq!(decided(json!({}), 1, now), start(false));
        assert_eq!(
            decided(json!({"concurrencyPolicy": "Forbid"}), 1, now),
            Decision::Busy
        );
        assert_eq!(
            decided(json!({"concurrencyPolicy": "Replace"}), 1, now),
            start(true)
        );
        assert_eq!(decided(json!({"suspend": true}), 0, now), Decision::Wait);
        assert_eq!(
            decided(json!({"startingDeadlineSeconds": 60}), 0, now),
            Decision::Missed(at)
        );
        assert_eq!(
            decided(json!({}), 0, "2026-01-01T00:04:00Z"),
            Decision::Wait
        );
    }

    #[test]
    fn jobs_are_named_by_their_minute_and_the_history_is_kept_short() {
        let cron = cron(json!({"successfulJobsHistoryLimit": 1, "jobTemplate": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"completions": 1}}}));
        let at = "2026-01-01T00:10:00Z".parse().expect("a time");
        let job = job_for(&cron, at);
        assert_eq!(name(&job), format!("c-{}", 1_767_226_200 / 60));
        assert_eq!(text(&job, "/metadata/labels/a"), "b");
        let done = |n: u32| {
            Arc::new(json!({"metadata": {"name": format!("j{n}"),
                "creationTimestamp": format!("2026-01-01T00:0{n}:00Z")},
                "status": {"conditions": [{"type": "Complete", "status": "True"}]}}))
        };
        let gone = surplus(&cron, &[done(2), done(1), done(3)]);
        assert_eq!(
            gone.iter().map(|j| name(j)).collect::<Vec<_>>(),
            ["j1", "j2"]
        );
    }
}
