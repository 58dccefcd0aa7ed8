//! The deployment controller: rolls pods from old replica sets to the one of today's template.
//!
//! `rolling` holds the arithmetic, `sets` names, finds and stamps replica sets, `status` the
//! status and its conditions; this file carries their decisions out.

mod rolling;
mod sets;
mod status;

pub use rolling::resolve;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use self::rolling::{Limits, SetView};
use super::engine::{Change, Controller, Outcome};
use super::events::Recorder;
use super::object::{
    controller_of, controller_uid, deleting, flag, int, name, namespace, pod_ended, pruned, text,
    uid,
};
use super::pods;
use super::queue::Key;
use super::replicaset::owners_of_pod;
use crate::api::resource::{DEPLOYMENTS, PODS, REPLICA_SETS};
use crate::api::{Api, ApiError, DeleteOptions, Propagation, Resource, Selectors};

/// See the module.
pub struct Deployments {
    api: Api,
    recorder: Recorder,
}

impl std::fmt::Debug for Deployments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployments").finish_non_exhaustive()
    }
}

/// A deployment with its replica sets in the course of one reconcile.
struct Rollout {
    deployment: Arc<Value>,
    /// The set of today's template.
    new: Option<Arc<Value>>,
    /// All others, oldest first.
    old: Vec<Arc<Value>>,
    limits: Limits,
    now: Timestamp,
    /// A condition to set on `Progressing`: (status, reason, message).
    progress: Option<(&'static str, &'static str, String)>,
}

impl Rollout {
    fn all(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.old.iter().chain(&self.new)
    }

    fn old_views(&self) -> Vec<SetView> {
        self.old.iter().map(|set| sets::view(set)).collect()
    }
}

impl Deployments {
    /// A controller over this API.
    pub fn new(api: &Api, recorder: &Recorder) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:deployment-controller"),
            recorder: recorder.component("deployment-controller", ""),
        }
    }

    async fn load(&self, deployment: Arc<Value>) -> Result<Rollout, ApiError> {
        let mut all = pods::claim(
            &self.api,
            &REPLICA_SETS,
            &deployment,
            "apps/v1",
            "Deployment",
        )
        .await?;
        all.sort_by_cached_key(|set| {
            let created = super::object::time(set, "/metadata/creationTimestamp");
            (created, sets::revision(set), name(set).to_owned())
        });
        let template = sets::comparable_template(&deployment["spec"]["template"]);
        let new = all
            .iter()
            .position(|set| sets::comparable_template(&set["spec"]["template"]) == template)
            .map(|at| all.remove(at));
        let limits = Limits::of(&deployment);
        let now = Timestamp::now();
        Ok(Rollout {
            deployment,
            new,
            old: all,
            limits,
            now,
            progress: None,
        })
    }

    /// Gives a set a new size and stamps what it was sized for; reports a change of size.
    async fn resize(
        &self,
        rollout: &Rollout,
        set: &Arc<Value>,
        to: i64,
    ) -> Result<Arc<Value>, ApiError> {
        let from = int(set, "/spec/replicas").unwrap_or(1);
        let stamps = sets::size_annotations(rollout.limits);
        let stamped = stamps
            .iter()
            .all(|(k, v)| super::object::annotation(set, k) == Some(v));
        if from == to && stamped {
            return Ok(Arc::clone(set));
        }
        let annotations: serde_json::Map<_, _> = stamps
            .into_iter()
            .map(|(k, v)| (k.to_owned(), json!(v)))
            .collect();
        let mut patch = json!({"metadata": {"uid": uid(set), "annotations": annotations}});
        if from != to {
            patch["spec"] = json!({"replicas": to});
        }
        let ns = Some(namespace(set));
        let updated = self
            .api
            .merge_patch(&REPLICA_SETS, ns, name(set), &patch, None)
            .await?;
        if from != to {
            let verb = if to > from { "up" } else { "down" };
            let message = format!(
                "Scaled {verb} replica set {} from {from} to {to}",
                name(set)
            );
            self.recorder
                .normal(&rollout.deployment, "ScalingReplicaSet", message);
        }
        Ok(updated)
    }

    async fn resize_old(&self, rollout: &mut Rollout, sizes: &[i64]) -> Result<bool, ApiError> {
        let mut changed = false;
        for (at, &to) in sizes.iter().enumerate() {
            let set = Arc::clone(&rollout.old[at]);
            if int(&set, "/spec/replicas").unwrap_or(1) != to {
                rollout.old[at] = self.resize(rollout, &set, to).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    async fn resize_new(&self, rollout: &mut Rollout, to: i64) -> Result<bool, ApiError> {
        let Some(set) = rollout.new.clone() else {
            return Ok(false);
        };
        let changed = int(&set, "/spec/replicas").unwrap_or(1) != to;
        rollout.new = Some(self.resize(rollout, &set, to).await?);
        Ok(changed)
    }

    /// Makes the set of today's template exist, with the right revision and annotations.
    async fn ensure_new(&self, rollout: &mut Rollout) -> Result<(), ApiError> {
        let revision = 1 + rollout
            .old
            .iter()
            .map(|set| sets::revision(set))
            .max()
            .unwrap_or(0);
        let ns = Some(namespace(&rollout.deployment).to_owned());
        if let Some(set) = rollout.new.clone() {
            if let Some(patch) = sets::restamp(&rollout.deployment, &set, revision) {
                let patched =
                    self.api
                        .merge_patch(&REPLICA_SETS, ns.as_deref(), name(&set), &patch, None);
                rollout.new = Some(patched.await?);
            }
            if super::object::condition(&rollout.deployment, "Progressing").is_none() {
                let message = format!("Found new replica set \"{}\"", name(&set));
                rollout.progress = Some(("True", "FoundNewReplicaSet", message));
            }
            return self.stamp_revision(rollout).await;
        }
        let empty = SetView::default();
        let size = if text(&rollout.deployment, "/spec/strategy/type") == "Recreate" {
            rollout.limits.replicas
        } else {
            rolling::next_new(rollout.limits, &empty, &rollout.old_views())
        };
        let set = sets::make(&rollout.deployment, rollout.limits, size, revision);
        let set_name = name(&set).to_owned();
        match self.api.create(&REPLICA_SETS, ns.as_deref(), set).await {
            Ok(created) => {
                let message = format!("Created new replica set \"{set_name}\"");
                rollout.progress = Some(("True", "NewReplicaSetCreated", message));
                if size > 0 {
                    let message = format!("Scaled up replica set {set_name} from 0 to {size}");
                    self.recorder
                        .normal(&rollout.deployment, "ScalingReplicaSet", message);
                }
                rollout.new = Some(created);
                self.stamp_revision(rollout).await
            }
            Err(error) if error.is_already_exists() => {
                self.collision(rollout, &set_name).await?;
                Err(error)
            }
            Err(error) => {
                let message = format!("Failed to create new replica set \"{set_name}\": {error}");
                self.recorder
                    .warning(&rollout.deployment, "ReplicaSetCreateError", &*message);
                rollout.progress = Some(("False", "ReplicaSetCreateError", message));
                Err(error)
            }
        }
    }

    /// The name is taken by a set with another template: count, so that the next hash differs.
    async fn collision(&self, rollout: &Rollout, taken: &str) -> Result<(), ApiError> {
        let ns = Some(namespace(&rollout.deployment));
        let existing = self.api.get(&REPLICA_SETS, ns, taken).await?;
        if controller_uid(&existing) == uid(&rollout.deployment)
            && sets::comparable_template(&existing["spec"]["template"])
                == sets::comparable_template(&rollout.deployment["spec"]["template"])
        {
            return Ok(()); // Made meanwhile by ourselves; the retry finds it.
        }
        let count = int(&rollout.deployment, "/status/collisionCount").unwrap_or(0) + 1;
        let patch = json!({"status": {"collisionCount": count}});
        let deployment = name(&rollout.deployment);
        self.api
            .merge_patch(&DEPLOYMENTS, ns, deployment, &patch, Some("status"))
            .await?;
        Ok(())
    }

    /// The deployment shows the revision of its new set.
    async fn stamp_revision(&self, rollout: &mut Rollout) -> Result<(), ApiError> {
        let Some(set) = &rollout.new else {
            return Ok(());
        };
        let Some(revision) = super::object::annotation(set, sets::REVISION) else {
            return Ok(());
        };
        let deployment = &rollout.deployment;
        if super::object::annotation(deployment, sets::REVISION) == Some(revision) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": uid(deployment), "annotations": {sets::REVISION: revision}}});
        let ns = Some(namespace(deployment));
        rollout.deployment = self
            .api
            .merge_patch(&DEPLOYMENTS, ns, name(deployment), &patch, None)
            .await?;
        Ok(())
    }

    async fn rolling_update(&self, rollout: &mut Rollout) -> Result<(), ApiError> {
        self.ensure_new(rollout).await?;
        let Some(new) = rollout.new.as_deref().map(sets::view) else {
            return Ok(());
        };
        let grown = rolling::next_new(rollout.limits, &new, &rollout.old_views());
        if self.resize_new(rollout, grown).await? {
            return Ok(()); // Its status change brings the next step.
        }
        let sizes = rolling::next_old(rollout.limits, &new, &rollout.old_views());
        self.resize_old(rollout, &sizes).await?;
        Ok(())
    }

    async fn recreate(&self, rollout: &mut Rollout) -> Result<(), ApiError> {
        let zeroes = vec![0; rollout.old.len()];
        if self.resize_old(rollout, &zeroes).await? || self.old_pods_live(rollout).await? {
            return Ok(());
        }
        self.ensure_new(rollout).await?;
        self.resize_new(rollout, rollout.limits.replicas).await?;
        Ok(())
    }

    async fn old_pods_live(&self, rollout: &Rollout) -> Result<bool, ApiError> {
        let old: Vec<&str> = rollout.old.iter().map(|set| uid(set)).collect();
        let ns = Some(namespace(&rollout.deployment));
        let (all, _) = self.api.list(&PODS, ns, &Selectors::all()).await?;
        Ok(all
            .iter()
            .any(|pod| old.contains(&controller_uid(pod)) && !pod_ended(pod)))
    }

    /// Follows a change of `spec.replicas` without going on with a rollout (paused, or scaled in
    /// the middle of one).
    async fn scale_only(&self, rollout: &mut Rollout) -> Result<(), ApiError> {
        let limits = rollout.limits;
        let live: Vec<usize> = (0..rollout.old.len())
            .filter(|&at| int(&rollout.old[at], "/spec/replicas").unwrap_or(0) > 0)
            .collect();
        let new_size = rollout
            .new
            .as_deref()
            .map_or(0, |set| sets::view(set).replicas);
        match (new_size > 0, live.as_slice()) {
            (_, []) => {
                if rollout.new.is_some() {
                    self.resize_new(rollout, limits.replicas).await?;
                } else if let Some(last) = rollout.old.len().checked_sub(1) {
                    let set = Arc::clone(&rollout.old[last]);
                    rollout.old[last] = self.resize(rollout, &set, limits.replicas).await?;
                }
            }
            (false, [only]) => {
                let set = Arc::clone(&rollout.old[*only]);
                rollout.old[*only] = self.resize(rollout, &set, limits.replicas).await?;
            }
            _ if sets::saturated(rollout.new.as_deref(), limits) => {
                let zeroes = vec![0; rollout.old.len()];
                self.resize_old(rollout, &zeroes).await?;
            }
            _ => {
                self.scale_proportionally(rollout, new_size > 0, &live)
                    .await?
            }
        }
        Ok(())
    }

    async fn scale_proportionally(
        &self,
        rollout: &mut Rollout,
        with_new: bool,
        live: &[usize],
    ) -> Result<(), ApiError> {
        let newest_first: Vec<usize> = live.iter().rev().copied().collect();
        let mut views: Vec<SetView> = newest_first
            .iter()
            .map(|&at| sets::view(&rollout.old[at]))
            .collect();
        if let Some(new) = rollout.new.as_deref().filter(|_| with_new) {
            views.insert(0, sets::view(new));
        }
        let mut sizes = rolling::proportional(rollout.limits, &views);
        if with_new {
            let first = sizes.remove(0);
            self.resize_new(rollout, first).await?;
        }
        for (&at, &size) in newest_first.iter().zip(&sizes) {
            let set = Arc::clone(&rollout.old[at]);
            rollout.old[at] = self.resize(rollout, &set, size).await?;
        }
        Ok(())
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    async fn prune_history(&self, rollout: &Rollout) -> Result<(), ApiError> {
        let keep = int(&rollout.deployment, "/spec/revisionHistoryLimit")
            .unwrap_or(10)
            .max(0);
        let mut idle: Vec<&Arc<Value>> = rollout.old.iter().filter(|set| sets::idle(set)).collect();
        idle.sort_by_key(|set| sets::revision(set));
        let surplus = rollout.old.len().saturating_sub(keep as usize);
        for set in idle.into_iter().take(surplus) {
            let options = DeleteOptions {
                propagation: Some(Propagation::Background),
                ..DeleteOptions::default().with_uid(uid(set))
            };
            match self
                .api
                .delete(&REPLICA_SETS, Some(namespace(set)), name(set), options)
                .await
            {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn write_status(&self, rollout: &Rollout) -> Result<Option<Duration>, ApiError> {
        let all: Vec<&Value> = rollout.all().map(|set| &**set).collect();
        let next = status::next(
            &rollout.deployment,
            rollout.new.as_deref(),
            &all,
            rollout.limits,
            rollout.progress.as_ref(),
            rollout.now,
        );
        if pruned(&next.status) != pruned(&rollout.deployment["status"]) {
            let (ns, patch) = (
                Some(namespace(&rollout.deployment)),
                json!({"status": next.status}),
            );
            let deployment = name(&rollout.deployment);
            self.api
                .merge_patch(&DEPLOYMENTS, ns, deployment, &patch, Some("status"))
                .await?;
        }
        if next.complete {
            self.prune_history(rollout).await?;
        }
        Ok(next.look_again)
    }
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&DEPLOYMENTS, &REPLICA_SETS, &PODS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        if change.resource == DEPLOYMENTS {
            return vec![change.key()];
        }
        if change.resource == REPLICA_SETS {
            return owners_of_pod(&self.api, change, &DEPLOYMENTS, "Deployment").await;
        }
        // Recreate waits for the old pods to be gone, which no replica set's status tells.
        if !change.deleted {
            return Vec::new();
        }
        let pod = &*change.object;
        let Some(owner) = controller_of(pod).filter(|o| text(o, "/kind") == "ReplicaSet") else {
            return Vec::new();
        };
        let ns = namespace(pod);
        let set = self
            .api
            .get(&REPLICA_SETS, Some(ns), text(owner, "/name"))
            .await;
        let deployment = set.as_ref().ok().and_then(|set| controller_of(set));
        deployment
            .map(|owner| Key::new(ns, text(owner, "/name")))
            .into_iter()
            .collect()
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let found = self
            .api
            .get(&DEPLOYMENTS, Some(&key.namespace), &key.name)
            .await;
        let deployment = match found {
            Ok(deployment) => deployment,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut rollout = self.load(deployment).await?;
        let result = if deleting(&rollout.deployment) {
            Ok(())
        } else if flag(&rollout.deployment, "/spec/paused")
            || sets::was_scaled(rollout.all().map(|set| &**set), rollout.limits.replicas)
        {
            self.scale_only(&mut rollout).await
        } else if text(&rollout.deployment, "/spec/strategy/type") == "Recreate" {
            self.recreate(&mut rollout).await
        } else {
            self.rolling_update(&mut rollout).await
        };
        let again = match &result {
            Err(error) if error.is_already_exists() => None,
            _ => self.write_status(&rollout).await?,
        };
        result?;
        Ok(again)
    }
}
