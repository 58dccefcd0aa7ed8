//! The one reconcile loop of all controllers: watch, keyed queue, reconcile, back-off.
//!
//! A controller says what it watches, which keys a change concerns, and what to do for one key.
//! Reads go straight to the API's memory, so a reconcile always sees its own earlier writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::queue::{Key, Queue};
use crate::api::{Api, ApiError, Resource, Selectors, WatchEvent, WatchKind};

/// A change of one watched object.
#[derive(Debug, Clone)]
pub struct Change {
    /// The resource of the watch.
    pub resource: Resource,
    /// The state before, if this loop had seen one.
    pub old: Option<Arc<Value>>,
    /// The state now; for a deletion the last one.
    pub object: Arc<Value>,
    /// Whether the object is gone.
    pub deleted: bool,
}

impl Change {
    /// The key of the changed object itself.
    pub fn key(&self) -> Key {
        Key::of(&self.object)
    }

    /// The new and the old state (for mappings that must also reach those who lost the object).
    pub fn states(&self) -> impl Iterator<Item = &Value> {
        std::iter::once(&*self.object).chain(self.old.as_deref())
    }
}

/// What a reconcile leaves to do: nothing, or another look after a time.
pub type Outcome = Result<Option<Duration>, ApiError>;

/// One controller.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Name for logs and events.
    fn name(&self) -> &'static str;

    /// The resources it watches, in all namespaces.
    fn watches(&self) -> Vec<&'static Resource>;

    /// The keys that a change concerns.
    async fn keys(&self, change: &Change) -> Vec<Key>;

    /// Brings the world of one key nearer to what it should be. Must be safe to repeat.
    async fn reconcile(&self, key: &Key) -> Outcome;
}

/// Keys worked on at the same time by one controller. More than one, because creating a pod may
/// wait for an admission webhook.
const WORKERS: usize = 8;

/// Runs a controller until `shutdown`.
pub async fn run(controller: Arc<dyn Controller>, api: Api, shutdown: CancellationToken) {
    let queue = Queue::default();
    let mut tasks = JoinSet::new();
    for resource in controller.watches() {
        let resource = resource.clone();
        tasks.spawn(follow(
            Arc::clone(&controller),
            api.clone(),
            resource,
            queue.clone(),
        ));
    }
    for _ in 0..WORKERS {
        tasks.spawn(work(Arc::clone(&controller), queue.clone()));
    }
    tokio::select! {
        () = shutdown.cancelled() => {}
        Some(ended) = tasks.join_next() => {
            // The tasks loop for ever: one that ends has panicked. Say so, stop the rest.
            tracing::error!(controller = controller.name(), "a controller task ended: {ended:?}");
        }
    }
    tasks.shutdown().await;
}

/// Works on keys for ever.
pub(super) async fn work(controller: Arc<dyn Controller>, queue: Queue) {
    loop {
        let key = queue.next().await;
        match controller.reconcile(&key).await {
            Ok(again) => {
                queue.forget(&key);
                if let Some(delay) = again {
                    queue.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                let delay = queue.add_failed(key.clone());
                let name = controller.name();
                let leaving = error.message.contains("is being terminated");
                if leaving || error.is_conflict() || error.is_not_found() {
                    tracing::debug!(controller = name, %key, ?delay, "retrying: {error}");
                } else {
                    tracing::warn!(controller = name, %key, ?delay, "retrying: {error}");
                }
            }
        }
        queue.done(&key);
    }
}

/// Follows one resource for ever, with the last state of each object at hand.
pub(super) async fn follow(
    controller: Arc<dyn Controller>,
    api: Api,
    resource: Resource,
    queue: Queue,
) {
    let mut known = Known::default();
    loop {
        match api.watch(&resource, None, &Selectors::all(), 0).await {
            Ok(mut stream) => {
                known.begin();
                while let Some(Ok(event)) = stream.next_event().await {
                    for change in known.take_in(&resource, event) {
                        for key in controller.keys(&change).await {
                            queue.add(key);
                        }
                    }
                }
                tracing::debug!(controller = controller.name(), %resource, "watch ended, again");
            }
            Err(error) => {
                tracing::warn!(controller = controller.name(), %resource, "watch: {error}");
            }
        }
        // Only reached when the server stops or the watch fell too far behind.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The last seen state per object of one watch.
#[derive(Debug, Default)]
pub struct Known {
    objects: HashMap<Key, Arc<Value>>,
    /// Objects known from an earlier stream and not yet seen in this one.
    unseen: HashMap<Key, Arc<Value>>,
}

impl Known {
    /// A new stream starts, with an `Added` for every object followed by a bookmark.
    pub fn begin(&mut self) {
        self.unseen = self.objects.clone();
    }

    /// Takes in one event and tells what changed; the bookmark reports what vanished unseen.
    pub fn take_in(&mut self, resource: &Resource, event: WatchEvent) -> Vec<Change> {
        let change = |old, object, deleted| {
            let resource = resource.clone();
            Change {
                resource,
                old,
                object,
                deleted,
            }
        };
        match event.kind {
            WatchKind::Bookmark => {
                let gone: Vec<_> = self.unseen.drain().collect();
                gone.into_iter()
                    .map(|(key, object)| {
                        self.objects.remove(&key);
                        change(Some(Arc::clone(&object)), object, true)
                    })
                    .collect()
            }
            WatchKind::Added | WatchKind::Modified => {
                let key = Key::of(&event.object);
                self.unseen.remove(&key);
                let old = self.objects.insert(key, Arc::clone(&event.object));
                vec![change(old, event.object, false)]
            }
            WatchKind::Deleted => {
                let old = self.objects.remove(&Key::of(&event.object));
                vec![change(old, event.object, true)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::PODS;
    use serde_json::json;

    fn event(kind: WatchKind, name: &str, n: u64) -> WatchEvent {
        let object = Arc::new(json!({"metadata": {"name": name, "namespace": "n", "x": n}}));
        WatchEvent {
            kind,
            object,
            rv: n,
        }
    }

    #[test]
    fn old_states_are_at_hand_and_a_new_stream_finds_the_missing() {
        let mut known = Known::default();
        known.begin();
        assert!(
            known.take_in(&PODS, event(WatchKind::Added, "a", 1))[0]
                .old
                .is_none()
        );
        known.take_in(&PODS, event(WatchKind::Added, "b", 2));
        assert!(
            known
                .take_in(&PODS, event(WatchKind::Bookmark, "", 2))
                .is_empty()
        );
        let changes = known.take_in(&PODS, event(WatchKind::Modified, "a", 3));
        let old = changes[0].old.as_ref().expect("the first state");
        assert_eq!(old.pointer("/metadata/x"), Some(&json!(1)));
        known.begin();
        known.take_in(&PODS, event(WatchKind::Added, "b", 2));
        let gone = known.take_in(&PODS, event(WatchKind::Bookmark, "", 9));
        assert!(gone.len() == 1 && gone[0].deleted && gone[0].key() == Key::new("n", "a"));
    }
}
