//! The owner collector: deletes objects whose owners are gone, and carries out foreground and
//! orphaning deletions. Follows every served resource, custom ones as they come and go.

mod graph;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::graph::{FOREGROUND, Graph, Leaving, ORPHAN, Place, leaving};
use super::engine::{self, Change, Controller, Outcome};
use super::object::{deleting, list, text, uid};
use super::queue::{Key, Queue};
use crate::api::resource::{CUSTOM_RESOURCE_DEFINITIONS, EVENTS};
use crate::api::{Api, ApiError, DeleteOptions, Propagation, Resource, Selectors};

const WORKERS: usize = 4;

/// See the module.
pub struct Collector {
    api: Api,
    graph: Mutex<Graph>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

/// What has become of one owner of an object.
enum Owner {
    Solid,
    /// Waits in a foreground deletion.
    Leaving,
    Gone,
}

/// Runs the collector until `shutdown`.
pub async fn run(api: Api, shutdown: CancellationToken) {
    let collector = Arc::new(Collector::new(&api));
    let queue = Queue::default();
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let controller: Arc<dyn Controller> = Arc::<Collector>::clone(&collector);
        tasks.spawn(engine::work(controller, queue.clone()));
    }
    let mut followed: HashMap<Resource, AbortHandle> = HashMap::new();
    loop {
        let served = api.served_resources().await;
        followed.retain(|resource, task| {
            let stays = served.iter().any(|(served, _)| served == resource);
            if !stays {
                task.abort();
            }
            stays
        });
        for (resource, _) in served {
            // Events own nothing and are owned by nothing; they are many.
            if resource != EVENTS && !followed.contains_key(&resource) {
                let controller: Arc<dyn Controller> = Arc::<Collector>::clone(&collector);
                let task = engine::follow(controller, api.clone(), resource.clone(), queue.clone());
                followed.insert(resource, tasks.spawn(task));
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = definitions_change(&api) => {}
        }
    }
    tasks.shutdown().await;
}

/// Waits for a custom resource definition to appear, change or go.
async fn definitions_change(api: &Api) {
    let resource = &CUSTOM_RESOURCE_DEFINITIONS;
    let rv = match api.list(resource, None, &Selectors::all()).await {
        Ok((_, rv)) => rv,
        Err(error) => {
            tracing::warn!("listing custom resource definitions: {error}");
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            return;
        }
    };
    if let Ok(mut stream) = api.watch(resource, None, &Selectors::all(), rv).await {
        while let Some(Ok(event)) = stream.next_event().await {
            if event.kind != crate::api::WatchKind::Bookmark {
                return;
            }
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

impl Collector {
    fn new(api: &Api) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:generic-garbage-collector"),
            graph: Mutex::default(),
        }
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        // A panic while the lock is held leaves plain collections that are still usable.
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn object(&self, place: &Place) -> Result<Option<Arc<Value>>, ApiError> {
        let ns = (!place.namespace.is_empty()).then_some(place.namespace.as_str());
        match self.api.get(&place.resource, ns, &place.name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn owner(&self, reference: &Value, namespace: &str) -> Result<Owner, ApiError> {
        let (api_version, kind) = (text(reference, "/apiVersion"), text(reference, "/kind"));
        let Some((resource, namespaced)) = self.api.resource_for(api_version, kind).await else {
            // Its kind is not served (now): nothing is known, so nothing is deleted.
            return Ok(Owner::Solid);
        };
        let ns = namespaced.then_some(namespace);
        if namespaced && namespace.is_empty() {
            return Ok(Owner::Solid); // A cluster object cannot have a namespaced owner.
        }
        match self.api.get(&resource, ns, text(reference, "/name")).await {
            Ok(owner) if uid(&owner) != text(reference, "/uid") => Ok(Owner::Gone),
            Ok(owner) if leaving(&owner) == Some(Leaving::Foreground) => Ok(Owner::Leaving),
            Ok(_) => Ok(Owner::Solid),
            Err(error) if error.is_not_found() => Ok(Owner::Gone),
            Err(error) => Err(error),
        }
    }

    /// Deletes the object if no owner is left, else takes off the references to gone ones.
    async fn check_owners(&self, place: &Place, object: &Value) -> Result<(), ApiError> {
        let (mut kept, mut gone, mut waiting) = (Vec::new(), 0, 0);
        let mut solid = 0;
        for reference in list(object, "/metadata/ownerReferences") {
            match self.owner(reference, &place.namespace).await? {
                Owner::Solid => {
                    solid += 1;
                    kept.push(reference.clone());
                }
                Owner::Leaving => waiting += 1,
                Owner::Gone => gone += 1,
            }
        }
        if solid > 0 {
            if gone + waiting > 0 {
                let patch = json!({"metadata": {"uid": uid(object),
                    "resourceVersion": text(object, "/metadata/resourceVersion"),
                    "ownerReferences": kept}});
                self.patch(place, &patch).await?;
            }
            return Ok(());
        }
        if gone + waiting == 0 || deleting(object) {
            return Ok(());
        }
        let has_dependents = !self.graph().dependents(uid(object)).is_empty();
        let finalized = |name: &str| {
            list(object, "/metadata/finalizers")
                .iter()
                .any(|f| f == name)
        };
        let propagation = if finalized(ORPHAN) {
            Propagation::Orphan
        } else if finalized(FOREGROUND) || (waiting > 0 && has_dependents) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        let options = DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default().with_uid(uid(object))
        };
        let ns = (!place.namespace.is_empty()).then_some(place.namespace.as_str());
        match self
            .api
            .delete(&place.resource, ns, &place.name, options)
            .await
        {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    async fn patch(&self, place: &Place, patch: &Value) -> Result<(), ApiError> {
        let ns = (!place.namespace.is_empty()).then_some(place.namespace.as_str());
        match self
            .api
            .merge_patch(&place.resource, ns, &place.name, patch, None)
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn drop_finalizer(
        &self,
        place: &Place,
        object: &Value,
        gone: &str,
    ) -> Result<(), ApiError> {
        let finalizers = list(object, "/metadata/finalizers");
        let left: Vec<&Value> = finalizers.iter().filter(|f| *f != gone).collect();
        let patch = json!({"metadata": {"uid": uid(object),
            "resourceVersion": text(object, "/metadata/resourceVersion"), "finalizers": left}});
        self.patch(place, &patch).await
    }

    async fn foreground(&self, place: &Place, object: &Value) -> Result<(), ApiError> {
        let id = uid(object);
        if self.graph().blocking(id).is_empty() {
            return self.drop_finalizer(place, object, FOREGROUND).await;
        }
        let dependents = self.graph().dependents(id);
        for dependent in dependents {
            let found = self.graph().place(&dependent).cloned();
            let Some(found) = found else { continue };
            if let Some(state) = self.object(&found).await?.filter(|o| uid(o) == dependent) {
                self.check_owners(&found, &state).await?;
            }
        }
        Ok(())
    }

    async fn orphan(&self, place: &Place, object: &Value) -> Result<(), ApiError> {
        let id = uid(object);
        let dependents = self.graph().dependents(id);
        for dependent in dependents {
            let found = self.graph().place(&dependent).cloned();
            let Some(found) = found else { continue };
            let Some(state) = self.object(&found).await? else {
                continue;
            };
            let owners = list(&state, "/metadata/ownerReferences");
            let kept: Vec<&Value> = owners.iter().filter(|r| text(r, "/uid") != id).collect();
            if kept.len() != owners.len() {
                let patch = json!({"metadata": {"uid": uid(&state),
                    "resourceVersion": text(&state, "/metadata/resourceVersion"),
                    "ownerReferences": kept}});
                self.patch(&found, &patch).await?;
            }
        }
        self.drop_finalizer(place, object, ORPHAN).await
    }
}

#[async_trait]
impl Controller for Collector {
    fn name(&self) -> &'static str {
        "collector"
    }

    /// None of its own: [`run`] follows what is served.
    fn watches(&self) -> Vec<&'static Resource> {
        Vec::new()
    }

    /// Keys are uids.
    async fn keys(&self, change: &Change) -> Vec<Key> {
        let mut graph = self.graph();
        let look = if change.deleted {
            graph.remove(uid(&change.object))
        } else {
            graph.put(&change.resource, &change.object)
        };
        look.iter().map(|id| Key::new("", id)).collect()
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let place = self.graph().place(&key.name).cloned();
        let Some(place) = place else { return Ok(None) };
        let Some(object) = self.object(&place).await?.filter(|o| uid(o) == key.name) else {
            return Ok(None);
        };
        match leaving(&object) {
            Some(Leaving::Orphan) => self.orphan(&place, &object).await?,
            Some(Leaving::Foreground) => self.foreground(&place, &object).await?,
            None => self.check_owners(&place, &object).await?,
        }
        Ok(None)
    }
}
