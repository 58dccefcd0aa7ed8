//! A set of objects by kind, namespace and name. Cheap to clone: objects are shared.

use crate::{Kind, Object};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Namespace and name.
pub type Name = (String, String);

/// Identity of an object: what came, changed or went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// True when the object matters to endpoints and secrets only, not to configuration.
    pub fn is_endpoint_only(&self) -> bool {
        matches!(
            self.kind,
            Kind::Pod
                | Kind::Node
                | Kind::EndpointSlice
                | Kind::Endpoints
                | Kind::WorkloadEntry
                | Kind::Secret
        )
    }
}

impl From<&Object> for ObjectKey {
    fn from(o: &Object) -> Self {
        Self {
            kind: o.kind,
            namespace: o.meta.namespace.clone(),
            name: o.meta.name.clone(),
        }
    }
}

/// Objects by kind, namespace and name.
#[derive(Debug, Clone, Default)]
pub struct ObjectSet {
    kinds: HashMap<Kind, BTreeMap<Name, Arc<Object>>>,
}

impl ObjectSet {
    /// Adds or replaces; true when something changed (status-only updates and
    /// resource versions of equal objects do not count).
    pub fn insert(&mut self, object: Arc<Object>) -> bool {
        let key = (object.meta.namespace.clone(), object.meta.name.clone());
        let of = self.kinds.entry(object.kind).or_default();
        if let Some(old) = of.get(&key)
            && same(old, &object)
        {
            return false;
        }
        of.insert(key, object);
        true
    }

    /// Removes; the old object, if there was one.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.kinds
            .get_mut(&kind)?
            .remove(&(namespace.to_owned(), name.to_owned()))
    }

    /// One object.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.kinds
            .get(&kind)?
            .get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All objects of a kind, by namespace and name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.kinds.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// All objects of a kind in a namespace, by name.
    pub fn in_namespace<'s>(
        &'s self,
        kind: Kind,
        namespace: &str,
    ) -> impl Iterator<Item = &'s Arc<Object>> + use<'s> {
        let from = (namespace.to_owned(), String::new());
        let of = self.kinds.get(&kind);
        of.into_iter()
            .flat_map(move |of| of.range(from.clone()..))
            .scan(namespace.to_owned(), |ns, ((n, _), o)| {
                (n == ns).then_some(o)
            })
    }

    /// All objects, kind by kind in the order of the kind table.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        crate::kind::KINDS.iter().flat_map(|k| self.of(k.kind))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.kinds.values().map(BTreeMap::len).sum()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces all objects of a kind; the names of those that came, changed or went.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Arc<Object>>) -> Vec<Name> {
        let old = self.kinds.remove(&kind).unwrap_or_default();
        let mut new = BTreeMap::new();
        for o in objects {
            new.insert((o.meta.namespace.clone(), o.meta.name.clone()), o);
        }
        let mut changed: Vec<Name> = old
            .keys()
            .filter(|k| !new.contains_key(*k))
            .cloned()
            .collect();
        for (key, value) in &mut new {
            match old.get(key) {
                // Keep the shared value, so that readers see that it is the same.
                Some(o) if same(o, value) => *value = o.clone(),
                _ => changed.push(key.clone()),
            }
        }
        self.kinds.insert(kind, new);
        changed
    }
}

impl FromIterator<Object> for ObjectSet {
    fn from_iter<T: IntoIterator<Item = Object>>(iter: T) -> Self {
        let mut set = Self::default();
        for o in iter {
            set.insert(Arc::new(o));
        }
        set
    }
}

/// Equal but for the resource version, the generation and the place in a file.
fn same(a: &Object, b: &Object) -> bool {
    a.body == b.body
        && a.meta.labels == b.meta.labels
        && a.meta.annotations == b.meta.annotations
        && a.meta.creation_timestamp == b.meta.creation_timestamp
        && a.meta.deletion_timestamp == b.meta.deletion_timestamp
        && a.meta.uid == b.meta.uid
        && a.meta.owner_references == b.meta.owner_references
}
