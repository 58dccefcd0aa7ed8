//! The object store: an in-memory multi-version index with a change log per resource, made
//! durable by redb.
//!
//! One writer thread checks conditions, numbers the changes, commits a batch with one fsync and
//! only then publishes it to readers and watchers: what anyone has seen survives `kill -9`.

mod disk;
mod index;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::resource::Resource;
use index::State;
pub use index::{Change, ChangeKind, Page};

/// Why the store cannot be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, read or written.
    #[error("cluster store: {0}")]
    Disk(String),
    /// The condition of a write did not hold.
    #[error("the object has changed")]
    Conflict,
    /// The object of a create is there already.
    #[error("the object exists")]
    Exists,
    /// The object is not there.
    #[error("the object does not exist")]
    Missing,
    /// The asked version is older than the change log.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired {
        /// Version asked for.
        asked: u64,
        /// Oldest version that can be served.
        oldest: u64,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// What to do about a failure with a file, as the end of its message; empty when that is clear.
#[must_use]
pub(crate) fn remedy(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::StorageFull {
        FREE_SPACE
    } else {
        ""
    }
}

const FREE_SPACE: &str = "; free some space on that disk";

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Resource.
    pub res: Resource,
    /// Namespace; empty for cluster-scoped objects.
    pub ns: String,
    /// Name.
    pub name: String,
}

/// A change to one object, with the state it expects to meet.
#[derive(Clone, Debug)]
pub enum Write {
    /// Fails with [`StoreError::Exists`].
    Create(Value),
    /// Fails unless the stored object has version `rv`.
    Replace {
        /// Expected version.
        rv: u64,
        /// The new object.
        object: Value,
    },
    /// Fails unless the stored object has version `rv`. `last` is its final state.
    Remove {
        /// Expected version.
        rv: u64,
        /// What watchers see in the deletion event.
        last: Value,
    },
}

struct Request {
    key: Key,
    write: Write,
    reply: oneshot::Sender<Result<Arc<Value>, StoreError>>,
}

struct Shared {
    state: RwLock<State>,
    revision: watch::Sender<u64>,
}

/// The store; shared by reference.
pub struct Store {
    shared: Arc<Shared>,
    /// `None` once closed.
    requests: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Store {
    /// Opens (or makes) the file and loads every object. `log_len` bounds the change log of
    /// each resource; older versions answer [`StoreError::Expired`].
    ///
    /// # Errors
    /// The file cannot be opened or holds something else; another process has it open.
    pub fn open(path: &Path, log_len: usize) -> Result<Self, StoreError> {
        let (disk, loaded) = disk::Disk::open(path)?;
        let state = State::new(loaded, log_len);
        let (revision, _) = watch::channel(state.rv);
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            revision,
        });
        let (requests, inbox) = mpsc::unbounded_channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(&for_thread, disk, inbox))
            .map_err(|e| StoreError::Disk(e.to_string()))?;
        Ok(Self {
            shared,
            requests: Mutex::new(Some(requests)),
            thread: Mutex::new(Some(thread)),
        })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // The writer never panics while it holds the lock with a half-made change: publishing
        // is a sequence of inserts of finished values.
        self.shared
            .state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the last durable change.
    pub fn revision(&self) -> u64 {
        self.state().rv
    }

    /// Follows [`Store::revision`].
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    /// One object.
    pub fn get(&self, res: &Resource, ns: &str, name: &str) -> Option<Arc<Value>> {
        self.state().get(res, ns, name)
    }

    /// All objects of a resource (of one namespace) in key order, and the snapshot's version.
    pub fn list(&self, res: &Resource, ns: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let state = self.state();
        (state.list(res, ns), state.rv)
    }

    /// All objects as they were at version `at`, after key `start`.
    ///
    /// # Errors
    /// [`StoreError::Expired`].
    pub fn list_at(&self, res: &Resource, ns: Option<&str>, at: u64) -> Result<Page, StoreError> {
        self.state().list_at(res, ns, at)
    }

    /// Number of objects of a resource.
    pub fn count(&self, res: &Resource) -> usize {
        self.state().count(res)
    }

    /// Follows the changes of a resource after version `since`.
    ///
    /// # Errors
    /// [`StoreError::Expired`].
    pub fn watch(&self, res: &Resource, since: u64) -> Result<Subscription, StoreError> {
        let wake = {
            let mut state = self
                .shared
                .state
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            state.check_since(res, since)?;
            state.subscribe(res)
        };
        Ok(Subscription {
            shared: Arc::clone(&self.shared),
            res: res.clone(),
            cursor: since,
            wake,
        })
    }

    /// Writes one object; returns when the change is on disk. The store sets
    /// `metadata.resourceVersion`.
    ///
    /// # Errors
    /// The condition did not hold, or the disk failed; after a failure of the disk nothing has
    /// changed, and a later write is tried with the file opened anew.
    pub async fn write(&self, key: Key, write: Write) -> Result<Arc<Value>, StoreError> {
        let (reply, answer) = oneshot::channel();
        {
            let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests
                .as_ref()
                .ok_or(StoreError::Closed)?
                .send(Request { key, write, reply })
                .map_err(|_| StoreError::Closed)?;
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits until the store is closed.
    pub async fn closed(&self, revisions: &mut watch::Receiver<u64>) {
        loop {
            let open = self
                .requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some();
            if !open || revisions.changed().await.is_err() {
                return;
            }
        }
    }

    /// Finishes the queued writes, closes the file and ends all subscriptions. Blocks shortly.
    pub fn close(&self) {
        drop(
            self.requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        self.shared
            .state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(t) = thread
            && t.join().is_err()
        {
            tracing::error!("the store's writer thread ended by panic");
        }
        // Wakes those who wait for the end.
        self.shared.revision.send_modify(|_| {});
    }
}

/// A cursor in the change log of one resource.
pub struct Subscription {
    shared: Arc<Shared>,
    res: Resource,
    cursor: u64,
    wake: watch::Receiver<u64>,
}

impl Subscription {
    /// The next changes, at least one; waits for them. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError::Expired`] when the reader fell behind the log, [`StoreError::Closed`].
    pub async fn next(&mut self) -> Result<Vec<Change>, StoreError> {
        loop {
            self.wake.borrow_and_update();
            let found = {
                let state = self
                    .shared
                    .state
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                state.changes_since(&self.res, self.cursor)?
            };
            if let Some(last) = found.last() {
                self.cursor = last.rv;
                return Ok(found);
            }
            self.wake.changed().await.map_err(|_| StoreError::Closed)?;
        }
    }

    /// A version up to which this subscription has reported everything.
    pub fn progress(&self) -> u64 {
        let state = self
            .shared
            .state
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match state.changes_since(&self.res, self.cursor) {
            Ok(found) if found.is_empty() => state.rv.max(self.cursor),
            _ => self.cursor,
        }
    }
}

#[cfg(test)]
mod tests;
