//! The readers' side of the store: objects by resource and key, and a change log per resource
//! from which earlier versions can be rebuilt.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::disk::Loaded;
use super::{Key, StoreError};
use crate::api::resource::Resource;

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The object was created.
    Added,
    /// The object was replaced.
    Modified,
    /// The object was removed.
    Deleted,
}

/// One numbered change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Version given to this change.
    pub rv: u64,
    /// What it did.
    pub kind: ChangeKind,
    /// The object after it (for `Deleted`: its last state, with the new version).
    pub object: Arc<Value>,
    /// The object before it.
    pub previous: Option<Arc<Value>>,
    key: Arc<str>,
}

/// A snapshot of a resource: `(key, object)` in key order.
pub type Page = Vec<(Arc<str>, Arc<Value>)>;

struct Table {
    /// `namespace NUL name` to object.
    objects: BTreeMap<Arc<str>, Arc<Value>>,
    log: VecDeque<Change>,
    /// Changes up to this version are no longer in the log.
    compacted: u64,
    wake: watch::Sender<u64>,
}

pub(super) struct State {
    /// Version of the last published change.
    pub(super) rv: u64,
    tables: HashMap<Resource, Table>,
    /// Version at which this process opened the file: there is no log before it.
    opened: u64,
    log_len: usize,
    closed: bool,
}

pub(super) fn row_key(ns: &str, name: &str) -> Arc<str> {
    Arc::from(format!("{ns}\0{name}"))
}

impl State {
    pub(super) fn new(loaded: Loaded, log_len: usize) -> Self {
        let mut state = Self {
            rv: loaded.rv,
            tables: HashMap::new(),
            opened: loaded.rv,
            log_len: log_len.max(1),
            closed: false,
        };
        for (key, value) in loaded.objects {
            state
                .table(&key.res)
                .objects
                .insert(row_key(&key.ns, &key.name), Arc::new(value));
        }
        state
    }

    fn table(&mut self, res: &Resource) -> &mut Table {
        let opened = self.opened;
        self.tables.entry(res.clone()).or_insert_with(|| Table {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            compacted: opened,
            wake: watch::Sender::new(0),
        })
    }

    pub(super) fn get(&self, res: &Resource, ns: &str, name: &str) -> Option<Arc<Value>> {
        self.tables
            .get(res)?
            .objects
            .get(&*format!("{ns}\0{name}"))
            .cloned()
    }

    pub(super) fn count(&self, res: &Resource) -> usize {
        self.tables.get(res).map_or(0, |t| t.objects.len())
    }

    pub(super) fn list(&self, res: &Resource, ns: Option<&str>) -> Vec<Arc<Value>> {
        let Some(table) = self.tables.get(res) else {
            return Vec::new();
        };
        match ns {
            None => table.objects.values().cloned().collect(),
            Some(ns) => {
                let prefix = format!("{ns}\0");
                table
                    .objects
                    .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
                    .take_while(|(k, _)| k.starts_with(&prefix))
                    .map(|(_, v)| Arc::clone(v))
                    .collect()
            }
        }
    }

    /// The resource as it was at version `at`: the present with later changes undone.
    pub(super) fn list_at(
        &self,
        res: &Resource,
        ns: Option<&str>,
        at: u64,
    ) -> Result<Page, StoreError> {
        let Some(table) = self.tables.get(res) else {
            return Ok(Vec::new());
        };
        if at < self.rv {
            self.check_since(res, at)?;
        }
        let undone = table.log.iter().rev().take_while(|c| c.rv > at);
        let mut earlier: HashMap<&str, Option<&Arc<Value>>> = HashMap::new();
        for change in undone {
            earlier.insert(&change.key, change.previous.as_ref());
        }
        let mut page: Page = table
            .objects
            .iter()
            .filter(|(k, _)| !earlier.contains_key(&***k))
            .map(|(k, v)| (Arc::clone(k), Arc::clone(v)))
            .collect();
        let restored = earlier
            .into_iter()
            .filter_map(|(k, v)| Some((Arc::from(k), Arc::clone(v?))));
        page.extend(restored);
        if let Some(ns) = ns {
            let prefix = format!("{ns}\0");
            page.retain(|(k, _)| k.starts_with(&prefix));
        }
        page.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(page)
    }

    /// Whether the log still has every change after `since`.
    pub(super) fn check_since(&self, res: &Resource, since: u64) -> Result<(), StoreError> {
        let oldest = self.tables.get(res).map_or(self.opened, |t| t.compacted);
        if since < oldest {
            return Err(StoreError::Expired {
                asked: since,
                oldest,
            });
        }
        Ok(())
    }

    pub(super) fn changes_since(
        &self,
        res: &Resource,
        since: u64,
    ) -> Result<Vec<Change>, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        self.check_since(res, since)?;
        let Some(table) = self.tables.get(res) else {
            return Ok(Vec::new());
        };
        let first = table.log.partition_point(|c| c.rv <= since);
        Ok(table.log.range(first..).cloned().collect())
    }

    pub(super) fn subscribe(&mut self, res: &Resource) -> watch::Receiver<u64> {
        self.table(res).wake.subscribe()
    }

    /// Makes one committed change visible.
    pub(super) fn publish(&mut self, key: &Key, rv: u64, kind: ChangeKind, object: Arc<Value>) {
        self.rv = rv;
        let log_len = self.log_len;
        let table = self.table(&key.res);
        let row = row_key(&key.ns, &key.name);
        let previous = if kind == ChangeKind::Deleted {
            table.objects.remove(&row)
        } else {
            table.objects.insert(Arc::clone(&row), Arc::clone(&object))
        };
        table.log.push_back(Change {
            rv,
            kind,
            object,
            previous,
            key: row,
        });
        while table.log.len() > log_len {
            if let Some(old) = table.log.pop_front() {
                table.compacted = old.rv;
            }
        }
    }

    /// Ends all subscriptions.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for t in self.tables.values() {
            t.wake.send_replace(self.rv);
        }
    }

    /// Wakes the watchers of a resource.
    pub(super) fn wake(&self, res: &Resource) {
        if let Some(t) = self.tables.get(res) {
            t.wake.send_replace(self.rv);
        }
    }
}
