//! Removes the objects of a deleted CustomResourceDefinition, then lets the definition go.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::core::{Core, RequestInfo};
use crate::api::handle::DeleteOptions;
use crate::api::meta;
use crate::api::resource::{CUSTOM_RESOURCE_DEFINITIONS, Resource};
use crate::store::ChangeKind;

use super::definition::has_cleanup;

/// Pause before looking again at objects that their finalizers keep.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until the store closes.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let (all, rv) = core.store.list(&CUSTOM_RESOURCE_DEFINITIONS, None);
        for crd in &all {
            consider(&core, crd);
        }
        let Ok(mut sub) = core.store.watch(&CUSTOM_RESOURCE_DEFINITIONS, rv) else {
            continue;
        };
        loop {
            match sub.next().await {
                Ok(changes) => {
                    for c in changes.iter().filter(|c| c.kind != ChangeKind::Deleted) {
                        consider(&core, &c.object);
                    }
                }
                Err(crate::store::StoreError::Closed) => return,
                Err(_) => break,
            }
        }
    }
}

fn consider(core: &Arc<Core>, crd: &Arc<Value>) {
    if meta::deleting(crd) && has_cleanup(crd) && core.begin_cleanup(meta::name(crd)) {
        tokio::spawn(clean(Arc::clone(core), Arc::clone(crd)));
    }
}

async fn clean(core: Arc<Core>, crd: Arc<Value>) {
    let spec = &crd["spec"];
    let res = Resource::named(
        spec["group"].as_str().unwrap_or_default(),
        spec["names"]["plural"].as_str().unwrap_or_default(),
    );
    let info = RequestInfo::internal();
    loop {
        let (objects, _) = core.store.list(&res, None);
        if objects.is_empty() {
            break;
        }
        for o in &objects {
            let ns = Some(meta::namespace(o)).filter(|n| !n.is_empty());
            let gone = core
                .delete(&info, &res, ns, meta::name(o), &DeleteOptions::default())
                .await;
            if let Err(e) = gone
                && !e.is_not_found()
            {
                tracing::warn!(resource = %res, name = meta::name(o), error = %e, "cannot delete a custom object");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    let kept: Vec<&str> = meta::finalizers(&crd)
        .filter(|f| !f.starts_with("customresourcecleanup."))
        .collect();
    let patch = json!({"metadata": {"finalizers": kept}});
    let name = meta::name(&crd);
    let done = core
        .merge_patch(
            &info,
            &CUSTOM_RESOURCE_DEFINITIONS,
            None,
            name,
            &patch,
            None,
        )
        .await;
    if let Err(e) = done
        && !e.is_not_found()
    {
        tracing::warn!(name, error = %e, "cannot finish the deletion of a definition");
    }
    core.end_cleanup(name);
}
