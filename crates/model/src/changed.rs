//! What differs between two snapshots: the push queue decides from it who gets what.

use crate::Str;
use std::collections::BTreeSet;

/// Kind, namespace and name of a configuration object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigKey {
    /// Kind (`VirtualService`, `Service`, ...).
    pub kind: Str,
    /// Namespace.
    pub namespace: Str,
    /// Name; for services the host name.
    pub name: Str,
}

/// A set of changes between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// Everything is to be regenerated (first snapshot, mesh config).
    pub all: bool,
    /// Objects that were added, removed or altered.
    pub keys: BTreeSet<ConfigKey>,
}

impl Changed {
    /// Everything changed.
    pub fn everything() -> Self {
        Self {
            all: true,
            keys: BTreeSet::new(),
        }
    }

    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        !self.all && self.keys.is_empty()
    }

    /// Adds another set.
    pub fn merge(&mut self, other: Changed) {
        self.all |= other.all;
        self.keys.extend(other.keys);
    }

    /// True when some changed object is of this kind (or everything changed).
    pub fn touches(&self, kind: &str) -> bool {
        self.all || self.keys.iter().any(|k| &*k.kind == kind)
    }
}
