//! The writer thread: takes what is queued, checks it, commits it with one fsync, publishes it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::index::ChangeKind;
use super::{Key, Request, Shared, StoreError, Write};

/// Most changes in one commit: bounds the latency of the first of them.
const BATCH: usize = 256;

struct Accepted {
    key: Key,
    rv: u64,
    kind: ChangeKind,
    object: Arc<Value>,
    reply: oneshot::Sender<Result<Arc<Value>, StoreError>>,
}

pub(super) fn run(shared: &Shared, mut disk: Disk, mut inbox: mpsc::UnboundedReceiver<Request>) {
    let mut queue = Vec::with_capacity(BATCH);
    loop {
        queue.clear();
        if inbox.blocking_recv_many(&mut queue, BATCH) == 0 {
            return;
        }
        let accepted = check(shared, &mut queue);
        if accepted.is_empty() {
            continue;
        }
        match commit(shared, &mut disk, &accepted) {
            Ok(()) => publish(shared, accepted),
            Err(e) => {
                tracing::error!(error = %e, "the cluster store cannot be written");
                for a in accepted {
                    // The caller may have gone away; nobody else needs the answer.
                    drop(a.reply.send(Err(e.clone())));
                }
            }
        }
    }
}

/// Checks each request against the published state and the batch before it, and numbers it.
fn check(shared: &Shared, queue: &mut Vec<Request>) -> Vec<Accepted> {
    let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
    let mut next = state.rv;
    // Versions of objects changed earlier in this batch; `None`: removed.
    let mut overlay: HashMap<Key, Option<u64>> = HashMap::new();
    let mut accepted = Vec::with_capacity(queue.len());
    for request in queue.drain(..) {
        let current = overlay.get(&request.key).copied().unwrap_or_else(|| {
            state
                .get(&request.key.res, &request.key.ns, &request.key.name)
                .map(|o| version_of(&o))
        });
        let (kind, mut object) = match admit(request.write, current) {
            Ok(ok) => ok,
            Err(e) => {
                drop(request.reply.send(Err(e)));
                continue;
            }
        };
        next += 1;
        set_version(&mut object, next);
        let left = (kind != ChangeKind::Deleted).then_some(next);
        overlay.insert(request.key.clone(), left);
        accepted.push(Accepted {
            key: request.key,
            rv: next,
            kind,
            object: Arc::new(object),
            reply: request.reply,
        });
    }
    accepted
}

fn admit(write: Write, current: Option<u64>) -> Result<(ChangeKind, Value), StoreError> {
    match (write, current) {
        (Write::Create(_), Some(_)) => Err(StoreError::Exists),
        (Write::Create(object), None) => Ok((ChangeKind::Added, object)),
        (_, None) => Err(StoreError::Missing),
        (Write::Replace { rv, .. } | Write::Remove { rv, .. }, Some(now)) if rv != now => {
            Err(StoreError::Conflict)
        }
        (Write::Replace { object, .. }, Some(_)) => Ok((ChangeKind::Modified, object)),
        (Write::Remove { last, .. }, Some(_)) => Ok((ChangeKind::Deleted, last)),
    }
}

fn commit(shared: &Shared, disk: &mut Disk, accepted: &[Accepted]) -> Result<(), StoreError> {
    let bytes = |object: &Value| serde_json::to_vec(object);
    let mut batch = Vec::with_capacity(accepted.len());
    let mut last = 0;
    for a in accepted {
        let row = if a.kind == ChangeKind::Deleted {
            None
        } else {
            Some(bytes(&a.object).map_err(|e| StoreError::Disk(e.to_string()))?)
        };
        batch.push((&a.key, row));
        last = a.rv;
    }
    disk.commit(&batch, last, |key| {
        let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
        let object = state.get(&key.res, &key.ns, &key.name)?;
        // It was written before, so that it can be written again.
        bytes(&object).ok()
    })
}

fn publish(shared: &Shared, accepted: Vec<Accepted>) {
    let mut touched = HashSet::new();
    let mut replies = Vec::with_capacity(accepted.len());
    let rv = {
        let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for a in accepted {
            state.publish(&a.key, a.rv, a.kind, Arc::clone(&a.object));
            touched.insert(a.key.res);
            replies.push((a.reply, a.object));
        }
        for res in &touched {
            state.wake(res);
        }
        state.rv
    };
    shared.revision.send_replace(rv);
    for (reply, object) in replies {
        drop(reply.send(Ok(object)));
    }
}

fn version_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}

fn set_version(object: &mut Value, rv: u64) {
    object["metadata"]["resourceVersion"] = Value::String(rv.to_string());
}
