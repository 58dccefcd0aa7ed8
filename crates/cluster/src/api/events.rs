//! Events are kept for an hour.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, RequestInfo};
use super::handle::DeleteOptions;
use super::meta;
use super::resource::EVENTS;

/// Seconds an event is kept after its last occurrence.
const KEPT: i64 = 3600;
const EVERY: Duration = Duration::from_secs(60);

/// Removes old events until the store closes.
pub(crate) async fn expire(core: Arc<Core>) {
    let info = RequestInfo::internal();
    let mut revisions = core.store.revisions();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = core.store.closed(&mut revisions) => return,
        }
        let limit = meta::now_unix() - KEPT;
        let (events, _) = core.store.list(&EVENTS, None);
        for e in &events {
            let last = ["lastTimestamp", "eventTime"]
                .iter()
                .filter_map(|f| e[*f].as_str())
                .chain(e["series"]["lastObservedTime"].as_str())
                .chain(Some(meta::text(e, "creationTimestamp")))
                .filter_map(meta::parse_time)
                .max();
            if last.is_some_and(|t| t < limit) {
                let ns = Some(meta::namespace(e));
                let gone = core
                    .delete(&info, &EVENTS, ns, meta::name(e), &DeleteOptions::default())
                    .await;
                if let Err(e) = gone
                    && !e.is_not_found()
                {
                    tracing::warn!(error = %e, "cannot remove an old event");
                }
            }
        }
    }
}
