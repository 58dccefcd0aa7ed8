//! The redb file behind the store: one table of objects, one of counters.

use std::fs::File;
use std::path::Path;

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

/// The open file.
pub(super) struct Disk {
    db: Database,
}

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

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir).map_err(fail)?;
        }
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|e| StoreError::Disk(format!("{}: {e}", path.display())))?;
        if let Some(dir) = dir {
            // A new file must survive a power loss together with its content.
            File::open(dir).and_then(|d| d.sync_all()).map_err(fail)?;
        }
        let disk = Self { db };
        // Make the tables, so that the read below finds them in a new file.
        disk.commit(&[], None)?;
        let loaded = disk.load()?;
        Ok((disk, loaded))
    }

    fn load(&self) -> Result<Loaded, StoreError> {
        let txn = self.db.begin_read().map_err(fail)?;
        let counters = txn.open_table(COUNTERS).map_err(fail)?;
        let rv = counters
            .get(REVISION)
            .map_err(fail)?
            .map_or(1, |v| v.value());
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

    /// Writes a batch with one fsync. `None` as value removes the key.
    pub(super) fn commit(
        &self,
        batch: &[(&Key, Option<Vec<u8>>)],
        rv: Option<u64>,
    ) -> Result<(), StoreError> {
        let mut txn = self.db.begin_write().map_err(fail)?;
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
}
