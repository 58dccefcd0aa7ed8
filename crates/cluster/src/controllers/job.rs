//! The job controller: runs pods until enough of them have succeeded, or too many failed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::{Change, Controller, Outcome};
use super::events::Recorder;
use super::object::{
    annotation, condition, condition_true, deleting, flag, format_time, int, list, name, namespace,
    pod_ready_since, pruned, set_annotation, set_label, text, time, uid,
};
use super::pods;
use super::queue::Key;
use super::replicaset::owners_of_pod;
use crate::api::resource::{JOBS, PODS};
use crate::api::{Api, ApiError, DeleteOptions, Propagation, Resource};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Back-off after the first failed pod, doubling.
const FIRST_BACK_OFF: i64 = 10;
/// The longest back-off.
const MAX_BACK_OFF: i64 = 360;

/// See the module.
pub struct Jobs {
    api: Api,
    recorder: Recorder,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

/// How a job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    BackoffLimitExceeded,
    DeadlineExceeded,
}

/// The state of a job's pods.
#[derive(Debug, Clone)]
struct Tally {
    active: Vec<Arc<Value>>,
    /// Successes and failures so far; what the status already counted is not forgotten when a
    /// finished pod is deleted.
    succeeded: i64,
    failed: i64,
    ready: i64,
    /// Indexes that have succeeded (Indexed mode).
    done: BTreeSet<i64>,
    last_failure: Option<Timestamp>,
}

fn index(pod: &Value) -> Option<i64> {
    annotation(pod, INDEX)?.parse().ok()
}

fn indexed(job: &Value) -> bool {
    text(job, "/spec/completionMode") == "Indexed"
}

fn tally(job: &Value, owned: &[Arc<Value>]) -> Tally {
    let phase = |pod: &Arc<Value>, phase: &str| text(pod, "/status/phase") == phase;
    let active = pods::active(owned);
    let failed: Vec<_> = owned.iter().filter(|pod| phase(pod, "Failed")).collect();
    let succeeded: Vec<_> = owned.iter().filter(|pod| phase(pod, "Succeeded")).collect();
    let mut done = parse_indexes(text(job, "/status/completedIndexes"));
    done.extend(succeeded.iter().filter_map(|pod| index(pod)));
    let counted = |field: &str| int(job, field).unwrap_or(0);
    let finished = |pod: &Arc<Value>| {
        let statuses = list(pod, "/status/containerStatuses").iter();
        statuses
            .filter_map(|s| time(s, "/state/terminated/finishedAt"))
            .max()
    };
    Tally {
        ready: active
            .iter()
            .filter(|pod| pod_ready_since(pod).is_some())
            .count() as i64,
        succeeded: if indexed(job) {
            done.len() as i64
        } else {
            counted("/status/succeeded").max(succeeded.len() as i64)
        },
        failed: counted("/status/failed").max(failed.len() as i64),
        last_failure: failed.iter().filter_map(|pod| finished(pod)).max(),
        done,
        active,
    }
}

/// Reads `0,2-4`.
fn parse_indexes(text: &str) -> BTreeSet<i64> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (i64, i64) = (from.parse().ok()?, to.parse().ok()?);
        (from >= 0 && to - from < 1_000_000).then_some(from..=to)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Writes `0,2-4`.
fn format_indexes(indexes: &BTreeSet<i64>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &index in indexes {
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == index => *to = index,
            _ => ranges.push((index, index)),
        }
    }
    let text = |(from, to): &(i64, i64)| {
        if from == to {
            from.to_string()
        } else {
            format!("{from}-{to}")
        }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Whether and how the job ends now.
fn end(job: &Value, tally: &Tally, now: Timestamp) -> Option<End> {
    let complete = match int(job, "/spec/completions") {
        Some(completions) => tally.succeeded >= completions,
        None => tally.succeeded > 0 && tally.active.is_empty(),
    };
    if complete {
        return Some(End::Complete);
    }
    let restarts: i64 = tally
        .active
        .iter()
        .flat_map(|pod| list(pod, "/status/containerStatuses"))
        .filter_map(|status| int(status, "/restartCount"))
        .sum();
    let limit = int(job, "/spec/backoffLimit").unwrap_or(6);
    let in_place = text(job, "/spec/template/spec/restartPolicy") == "OnFailure";
    let restarted_enough = in_place && restarts > 0 && restarts >= limit.max(1);
    if tally.failed > limit || restarted_enough {
        return Some(End::BackoffLimitExceeded);
    }
    deadline_in(job, now)
        .filter(|left| *left <= 0)
        .map(|_| End::DeadlineExceeded)
}

/// Seconds until `activeDeadlineSeconds` has passed.
fn deadline_in(job: &Value, now: Timestamp) -> Option<i64> {
    let deadline = int(job, "/spec/activeDeadlineSeconds")?;
    let started = time(job, "/status/startTime")?;
    Some(started.as_second() + deadline - now.as_second())
}

/// Seconds until failed pods may be replaced.
fn back_off_in(tally: &Tally, now: Timestamp) -> i64 {
    let Some(last) = tally.last_failure.filter(|_| tally.failed > 0) else {
        return 0;
    };
    let doublings = u32::try_from(tally.failed - 1).unwrap_or(0).min(10);
    let delay = (FIRST_BACK_OFF << doublings).min(MAX_BACK_OFF);
    (last.as_second() + delay - now.as_second()).max(0)
}

/// How many pods should be active.
fn wanted(job: &Value, tally: &Tally) -> usize {
    let parallelism = int(job, "/spec/parallelism").unwrap_or(1).max(0);
    let wanted = match int(job, "/spec/completions") {
        Some(completions) => parallelism.min((completions - tally.succeeded).max(0)),
        // Without a number one success ends the work: no new pods after it.
        None if tally.succeeded > 0 => parallelism.min(tally.active.len() as i64),
        None => parallelism,
    };
    usize::try_from(wanted).unwrap_or(0)
}

fn new_pods(job: &Value, tally: &Tally, count: usize) -> Vec<Value> {
    let pod = pods::from_template(&job["spec"]["template"], job, "batch/v1", "Job");
    if !indexed(job) {
        return vec![pod; count];
    }
    let completions = int(job, "/spec/completions").unwrap_or(0);
    let busy: BTreeSet<i64> = tally.active.iter().filter_map(|pod| index(pod)).collect();
    (0..completions)
        .filter(|index| !busy.contains(index) && !tally.done.contains(index))
        .take(count)
        .map(|index| indexed_pod(job, pod.clone(), index))
        .collect()
}

fn indexed_pod(job: &Value, mut pod: Value, index: i64) -> Value {
    let number = index.to_string();
    pod["metadata"]["generateName"] = json!(format!("{}-{number}-", name(job)));
    set_annotation(&mut pod, INDEX, &number);
    set_label(&mut pod, INDEX, &number);
    pod["spec"]["hostname"] = json!(format!("{}-{number}", name(job)));
    let variable = json!({"name": "JOB_COMPLETION_INDEX", "value": number});
    for field in ["initContainers", "containers"] {
        for container in pod["spec"][field].as_array_mut().into_iter().flatten() {
            match container["env"].as_array_mut() {
                Some(env) => env.push(variable.clone()),
                None => container["env"] = json!([variable]),
            }
        }
    }
    pod
}

fn status(job: &Value, tally: &Tally, ended: Option<End>, now: Timestamp) -> Value {
    let mut conditions: Vec<Value> = list(job, "/status/conditions").to_vec();
    let mut set = |kind: &str, status: &str, reason: &str, message: &str| {
        if condition(job, kind).is_some_and(|c| text(c, "/status") == status) {
            return;
        }
        conditions.retain(|c| text(c, "/type") != kind);
        let now = format_time(now);
        conditions.push(json!({"type": kind, "status": status, "reason": reason,
            "message": message, "lastProbeTime": now, "lastTransitionTime": now}));
    };
    let mut status = json!({
        "active": tally.active.len(), "ready": tally.ready, "succeeded": tally.succeeded,
        "failed": tally.failed, "startTime": job.pointer("/status/startTime"),
        "uncountedTerminatedPods": {}, "terminating": 0,
    });
    let suspended = flag(job, "/spec/suspend");
    if suspended {
        set("Suspended", "True", "JobSuspended", "Job suspended");
    } else if condition_true(job, "Suspended") {
        set("Suspended", "False", "JobResumed", "Job resumed");
        status["startTime"] = json!(format_time(now));
    }
    if status["startTime"].is_null() && !suspended {
        status["startTime"] = json!(format_time(now));
    }
    match ended {
        Some(End::Complete) => {
            let message = "Reached expected number of succeeded pods";
            set("SuccessCriteriaMet", "True", "CompletionsReached", message);
            set("Complete", "True", "CompletionsReached", message);
            status["completionTime"] = json!(format_time(now));
        }
        Some(End::BackoffLimitExceeded) => {
            let message = "Job has reached the specified backoff limit";
            set("FailureTarget", "True", "BackoffLimitExceeded", message);
            set("Failed", "True", "BackoffLimitExceeded", message);
        }
        Some(End::DeadlineExceeded) => {
            let message = "Job was active longer than specified deadline";
            set("FailureTarget", "True", "DeadlineExceeded", message);
            set("Failed", "True", "DeadlineExceeded", message);
        }
        None => {}
    }
    if indexed(job) {
        status["completedIndexes"] = json!(format_indexes(&tally.done));
    }
    if !conditions.is_empty() {
        status["conditions"] = json!(conditions);
    }
    status
}

impl Jobs {
    /// A controller over this API.
    pub fn new(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:job-controller"),
            recorder: recorder.component("job-controller", ""),
        }
    }

    async fn sync(&self, job: &Value) -> Outcome {
        let now = Timestamp::now();
        if condition_true(job, "Complete") || condition_true(job, "Failed") {
            return self.expire(job, now).await;
        }
        let owned = pods::claim(&self.api, &PODS, job, "batch/v1", "Job").await?;
        let counted = tally(job, &owned);
        let ended = end(job, &counted, now);
        let mut again = deadline_in(job, now).filter(|left| *left > 0);
        if ended.is_some() || flag(job, "/spec/suspend") {
            pods::delete(&self.api, &self.recorder, job, &counted.active).await?;
        } else {
            let wait = self.adjust(job, &counted, now).await?;
            again = again.into_iter().chain(wait).min();
        }
        let owned = pods::claim(&self.api, &PODS, job, "batch/v1", "Job").await?;
        let next = status(job, &tally(job, &owned), ended, now);
        if pruned(&job["status"]) != pruned(&next) {
            let patch = json!({"status": next});
            let ns = Some(namespace(job));
            self.api
                .merge_patch(&JOBS, ns, name(job), &patch, Some("status"))
                .await?;
            match ended {
                Some(End::Complete) => self.recorder.normal(job, "Completed", "Job completed"),
                Some(End::BackoffLimitExceeded) => {
                    let message = "Job has reached the specified backoff limit";
                    self.recorder.warning(job, "BackoffLimitExceeded", message);
                }
                Some(End::DeadlineExceeded) => {
                    let message = "Job was active longer than specified deadline";
                    self.recorder.warning(job, "DeadlineExceeded", message);
                }
                None => {}
            }
        }
        Ok(again.map(|seconds| Duration::from_secs(seconds.max(1).unsigned_abs())))
    }

    /// Creates or deletes pods; returns the seconds to wait where a back-off holds it up.
    async fn adjust(
        &self,
        job: &Value,
        tally: &Tally,
        now: Timestamp,
    ) -> Result<Option<i64>, ApiError> {
        let (wanted, active) = (wanted(job, tally), tally.active.len());
        if wanted > active {
            let wait = back_off_in(tally, now);
            if wait > 0 {
                return Ok(Some(wait));
            }
            let new = new_pods(job, tally, wanted - active);
            pods::create(&self.api, &self.recorder, job, new).await?;
        } else if wanted < active {
            let mut surplus = tally.active.clone();
            pods::sort_for_deletion(&mut surplus);
            pods::delete(&self.api, &self.recorder, job, &surplus[..active - wanted]).await?;
        }
        Ok(None)
    }

    /// Deletes a finished job when its time to live is over.
    async fn expire(&self, job: &Value, now: Timestamp) -> Outcome {
        let Some(life) = int(job, "/spec/ttlSecondsAfterFinished") else {
            return Ok(None);
        };
        let ended = ["Complete", "Failed"]
            .iter()
            .filter_map(|kind| condition(job, kind))
            .find_map(|c| time(c, "/lastTransitionTime"));
        let left = ended.map_or(0, |ended| ended.as_second() + life - now.as_second());
        if left > 0 {
            return Ok(Some(Duration::from_secs(left.unsigned_abs())));
        }
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default().with_uid(uid(job))
        };
        match self
            .api
            .delete(&JOBS, Some(namespace(job)), name(job), options)
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&JOBS, &PODS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == JOBS {
            return vec![change.key()];
        }
        owners_of_pod(&self.api, change, &JOBS, "Job").await
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        match self.api.get(&JOBS, Some(&key.namespace), &key.name).await {
            Ok(job) if deleting(&job) => Ok(None),
            Ok(job) => self.sync(&job).await,
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": "p"}, "status": {"phase": phase,
            "containerStatuses": [{"state": {"terminated": {"finishedAt": "1970-01-01T00:00:00Z"}}}]}}))
    }

    fn job(spec: Value) -> Value {
        json!({"metadata": {"name": "j", "namespace": "n"}, "spec": spec, "status": {}})
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn pods_run_until_enough_succeeded() {
        let job = job(json!({"completions": 3, "parallelism": 2, "backoffLimit": 1}));
        let one = tally(&job, &[pod("Succeeded"), pod("Running")]);
        assert_eq!((wanted(&job, &one), end(&job, &one, at(0))), (2, None));
        let two = tally(&job, &[pod("Succeeded"), pod("Succeeded")]);
        assert_eq!(wanted(&job, &two), 1);
        let three = tally(
            &job,
            &[pod("Succeeded"), pod("Succeeded"), pod("Succeeded")],
        );
        assert_eq!(end(&job, &three, at(0)), Some(End::Complete));
        let status = status(&job, &three, Some(End::Complete), at(5));
        let wrapped = json!({"status": status});
        assert!(
            condition_true(&wrapped, "Complete") && condition_true(&wrapped, "SuccessCriteriaMet")
        );
    }

    #[test]
    fn failures_back_off_and_then_end_the_job() {
        let job = job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 1}));
        let once = tally(&job, &[pod("Failed")]);
        assert_eq!(back_off_in(&once, at(4)), 6);
        assert_eq!(back_off_in(&once, at(20)), 0);
        let twice = tally(&job, &[pod("Failed"), pod("Failed")]);
        assert_eq!(back_off_in(&twice, at(0)), 20);
        assert_eq!(end(&job, &twice, at(0)), Some(End::BackoffLimitExceeded));
        let mut late = job.clone();
        late["spec"]["activeDeadlineSeconds"] = json!(5);
        late["status"]["startTime"] = json!("1970-01-01T00:00:00Z");
        assert_eq!(end(&late, &once, at(5)), Some(End::DeadlineExceeded));
    }

    #[test]
    fn counts_survive_deleted_pods() {
        let mut job = job(json!({"completions": 2}));
        job["status"] = json!({"succeeded": 1, "failed": 2});
        let counted = tally(&job, &[]);
        assert_eq!((counted.succeeded, counted.failed), (1, 2));
    }

    #[test]
    fn indexes_fill_from_below() {
        assert_eq!(format_indexes(&parse_indexes("0,2-4,7")), "0,2-4,7");
        assert!(parse_indexes("x,-1,5-").is_empty());
        let mut job = job(
            json!({"completions": 4, "completionMode": "Indexed", "template": {
            "spec": {"containers": [{"name": "c"}]}}}),
        );
        job["status"]["completedIndexes"] = json!("0,2");
        let pods = new_pods(&job, &tally(&job, &[]), 5);
        let names: Vec<&str> = pods
            .iter()
            .map(|p| text(p, "/metadata/generateName"))
            .collect();
        assert_eq!(names, ["j-1-", "j-3-"]);
        assert_eq!(text(&pods[1], "/spec/containers/0/env/0/value"), "3");
    }
}
