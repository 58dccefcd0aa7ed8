//! The redb file behind the store: one table of objects, one of counters. After a failed write (a
//! full disk) redb refuses every further one, so the file is closed and opened again for the next.

use std::fs::File;
use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::{Key, StoreError};
use crate::api::resource::Resource;

/// `group/plural NUL namespace NUL name` to JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";

/// redb's page cache: objects live in our own index, so a small one does.
const CACHE_BYTES: usize = 4 << 20;

/// Everything a file held.
pub(super) struct Loaded {
    pub(super) rv: u64,
    pub(super) objects: Vec<(Key, Value)>,
}

/// The file.
pub(super) struct Disk {
    path: PathBuf,
    /// `None` after a failed write, until the next one opens it again.
    db: Option<Database>,
    /// Version of the last batch that was acknowledged.
    rv: u64,
    /// What failed batches would have changed: whether they did is not known.
    doubtful: Vec<Key>,
}

/// A change of a batch; `None` removes the key.
pub(super) type Row<'a> = (&'a Key, Option<Vec<u8>>);

fn fail(e: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(e.to_string())
}

fn encode(key: &Key) -> String {
    format!(
        "{}/{}\0{}\0{}",
        key.res.group, key.res.plural, key.ns, key.name
    )
}

fn decode(text: &str) -> Option<Key> {
    let mut parts = text.split('\0');
    let (group, plural) = parts.next()?.split_once('/')?;
    let (ns, name) = (parts.next()?, parts.next()?);
    Some(Key {
        res: Resource::named(group, plural),
        ns: ns.to_owned(),
        name: name.to_owned(),
    })
}

/// Names the file in a failure, and for a full disk what to do.
fn about(path: &Path) -> impl Fn(StoreError) -> StoreError {
    move |error| {
        let StoreError::Disk(why) = error else {
            return error;
        };
        let path = path.display().to_string();
        // redb hands the system's error on as text.
        let full = why.contains("No space left on device");
        let remedy = if full { super::FREE_SPACE } else { "" };
        if why.contains(&path) {
            StoreError::Disk(format!("{why}{remedy}"))
        } else {
            StoreError::Disk(format!("{path}: {why}{remedy}"))
        }
    }
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|e| StoreError::Disk(format!("{}: {e}", path.display())))
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        Self::open_at(path).map_err(about(path))
    }

    fn open_at(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir).map_err(fail)?;
        }
        let db = open_file(path)?;
        if let Some(dir) = dir {
            // A new file must survive a power loss together with its content.
            File::open(dir).and_then(|d| d.sync_all()).map_err(fail)?;
        }
        let loaded = match load(&db) {
            Ok(loaded) => loaded,
            // A new file has no tables yet; whatever else is wrong shows again. One that has them
            // is not written to: it can be opened though the disk is full.
            Err(_) => {
                write(&db, &[], None)?;
                load(&db)?
            }
        };
        let disk = Self {
            path: path.to_owned(),
            db: Some(db),
            rv: loaded.rv,
            doubtful: Vec::new(),
        };
        Ok((disk, loaded))
    }

    /// Writes a batch with one fsync, numbered `rv`. `current` gives an object's acknowledged
    /// state, should the file have to be brought back to it.
    ///
    /// # Errors
    /// When it is not known to be on disk; the next call begins with a freshly opened file.
    pub(super) fn commit(
        &mut self,
        batch: &[Row<'_>],
        rv: u64,
        current: impl Fn(&Key) -> Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let outcome = self
            .try_commit(batch, rv, current)
            .map_err(about(&self.path));
        if outcome.is_ok() {
            self.rv = rv;
        } else {
            self.db = None;
            self.doubtful
                .extend(batch.iter().map(|(key, _)| (*key).clone()));
        }
        outcome
    }

    fn try_commit(
        &mut self,
        batch: &[Row<'_>],
        rv: u64,
        current: impl Fn(&Key) -> Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if self.db.is_none() {
            self.db = Some(self.reopen(current)?);
            self.doubtful.clear();
        }
        match &self.db {
            Some(db) => write(db, batch, Some(rv)),
            None => Err(StoreError::Closed),
        }
    }

    /// Opens the file again. A batch that failed may be on disk all the same; then what it changed
    /// is put back, for nobody was told of it.
    fn reopen(&self, current: impl Fn(&Key) -> Option<Vec<u8>>) -> Result<Database, StoreError> {
        let db = open_file(&self.path)?;
        if revision(&db)? != self.rv {
            let keys = self.doubtful.iter();
            let rows: Vec<Row<'_>> = keys.map(|key| (key, current(key))).collect();
            write(&db, &rows, Some(self.rv))?;
        }
        tracing::info!("the cluster store is open again");
        Ok(db)
    }

    /// As after a failed batch with this key; for tests.
    #[cfg(test)]
    pub(super) fn break_off(&mut self, key: &Key) {
        self.db = None;
        self.doubtful.push(key.clone());
    }
}

fn revision(db: &Database) -> Result<u64, StoreError> {
    let txn = db.begin_read().map_err(fail)?;
    let counters = txn.open_table(COUNTERS).map_err(fail)?;
    let found = counters.get(REVISION).map_err(fail)?;
    Ok(found.map_or(1, |v| v.value()))
}

fn load(db: &Database) -> Result<Loaded, StoreError> {
    let rv = revision(db)?;
    let txn = db.begin_read().map_err(fail)?;
    let table = txn.open_table(OBJECTS).map_err(fail)?;
    let mut objects = Vec::new();
    for row in table.iter().map_err(fail)? {
        let (k, v) = row.map_err(fail)?;
        let key = decode(k.value())
            .ok_or_else(|| StoreError::Disk(format!("bad key {:?} in the store", k.value())))?;
        let value = serde_json::from_slice(v.value()).map_err(fail)?;
        objects.push((key, value));
    }
    Ok(Loaded { rv, objects })
}

fn write(db: &Database, batch: &[Row<'_>], rv: Option<u64>) -> Result<(), StoreError> {
    let mut txn = db.begin_write().map_err(fail)?;
    txn.set_durability(Durability::Immediate).map_err(fail)?;
    {
        let mut objects = txn.open_table(OBJECTS).map_err(fail)?;
        for (key, value) in batch {
            let key = encode(key);
            match value {
                Some(bytes) => objects.insert(key.as_str(), bytes.as_slice()),
                None => objects.remove(key.as_str()),
            }
            .map_err(fail)?;
        }
        let mut counters = txn.open_table(COUNTERS).map_err(fail)?;
        if let Some(rv) = rv {
            counters.insert(REVISION, rv).map_err(fail)?;
        }
    }
    txn.commit().map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            res: crate::api::resource::CONFIG_MAPS.clone(),
            ns: "n".to_owned(),
            name: name.to_owned(),
        }
    }

    fn row<'a>(key: &'a Key, text: &str) -> Row<'a> {
        (key, Some(format!("{text:?}").into_bytes()))
    }

    /// The batch was written, but nobody was told so: after the reopening the file is as those who
    /// read the index know it, also where the batch removed something.
    #[test]
    fn what_was_not_acknowledged_is_taken_back() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("s.redb");
        let (mut disk, _) = Disk::open(&path).expect("open");
        let (old, new, other) = (key("old"), key("new"), key("other"));
        let none = |_: &Key| None;
        disk.commit(&[row(&old, "kept")], 2, none).expect("commit");
        disk.commit(&[(&old, None), row(&new, "lost")], 3, none)
            .expect("commit");
        disk.rv = 2;
        disk.break_off(&old);
        disk.break_off(&new);
        let current = |k: &Key| (*k == old).then(|| b"\"kept\"".to_vec());
        disk.commit(&[row(&other, "next")], 3, current)
            .expect("the file opens again");
        drop(disk);
        let (_, loaded) = Disk::open(&path).expect("open");
        let names: Vec<_> = loaded
            .objects
            .iter()
            .map(|(k, v)| (k.name.as_str(), v))
            .collect();
        assert_eq!(
            names,
            [
                ("old", &Value::from("kept")),
                ("other", &Value::from("next"))
            ]
        );
        assert_eq!(loaded.rv, 3);
    }
}
