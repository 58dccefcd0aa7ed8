//! What a proxy does when its configuration has come to rest: it gives back what reading it took on
//! the heap, and the pages of code that only reading configuration needs. One program holds every
//! role, so most of its text is not the request path's.

use std::time::Duration;

use lateen_process::footprint;
use tokio::sync::watch;

use crate::engine::EngineHandle;

/// How long no change must come. Longer than the waves in which a mesh starts and deploys.
const REST: Duration = Duration::from_secs(5);

/// Gives pages back after each wave of changes; ends with their sender.
pub async fn after_changes<T>(mut changes: watch::Receiver<T>, engine: EngineHandle) {
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        while let Ok(more) = tokio::time::timeout(REST, changes.changed()).await {
            if more.is_err() {
                return;
            }
        }
        footprint::release_heap();
        engine.give_back();
        let bytes = footprint::release_program_pages();
        tracing::debug!(target: crate::logger::MAIN, bytes, "the program's pages were given back");
    }
}
