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

/// Objects of one kind in one namespace.
type InNamespace = BTreeMap<Arc<str>, Arc<Object>>;
/// Objects of one kind.
type OfKind = BTreeMap<Arc<str>, Arc<InNamespace>>;

/// Objects by kind, namespace and name. A clone shares everything; a change
/// copies only the names of the namespace it happens in.
#[derive(Debug, Clone, Default)]
pub struct ObjectSet {
    kinds: HashMap<Kind, Arc<OfKind>>,
}

impl ObjectSet {
    /// Adds or replaces; true when something changed (status-only updates and
    /// resource versions of equal objects do not count).
    pub fn insert(&mut self, object: Arc<Object>) -> bool {
        let (ns, name) = (&*object.meta.namespace, &*object.meta.name);
        if self
            .get(object.kind, ns, name)
            .is_some_and(|old| same(old, &object))
        {
            return false;
        }
        let of = Arc::make_mut(self.kinds.entry(object.kind).or_default());
        let here = Arc::make_mut(of.entry(ns.into()).or_default());
        here.insert(name.into(), object);
        true
    }

    /// Removes; the old object, if there was one.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get(kind, namespace, name)?;
        let of = Arc::make_mut(self.kinds.get_mut(&kind)?);
        let here = Arc::make_mut(of.get_mut(namespace)?);
        let old = here.remove(name);
        if here.is_empty() {
            of.remove(namespace);
        }
        old
    }

    /// One object.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.kinds.get(&kind)?.get(namespace)?.get(name)
    }

    /// All objects of a kind, by namespace and name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let of = self.kinds.get(&kind).into_iter();
        of.flat_map(|of| of.values()).flat_map(|here| here.values())
    }

    /// All objects of a kind in a namespace, by name.
    pub fn in_namespace(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        let here = self.kinds.get(&kind).and_then(|of| of.get(namespace));
        here.into_iter().flat_map(|here| here.values())
    }

    /// All objects, kind by kind in the order of the kind table.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        crate::kind::KINDS.iter().flat_map(|k| self.of(k.kind))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.kinds
            .values()
            .flat_map(|of| of.values())
            .map(|here| here.len())
            .sum()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces all objects of a kind; the names of those that came, changed or went.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Arc<Object>>) -> Vec<Name> {
        let old = Self {
            kinds: self
                .kinds
                .remove(&kind)
                .map(|of| (kind, of))
                .into_iter()
                .collect(),
        };
        let mut changed = Vec::new();
        for object in objects {
            let name = (object.meta.namespace.clone(), object.meta.name.clone());
            match old.get(kind, &name.0, &name.1) {
                // Keep the shared value, so that readers see that it is the same.
                Some(o) if same(o, &object) => {
                    self.insert(o.clone());
                }
                _ => {
                    self.insert(object);
                    changed.push(name);
                }
            }
        }
        let gone = old
            .of(kind)
            .map(|o| (o.meta.namespace.clone(), o.meta.name.clone()));
        changed.extend(gone.filter(|(ns, name)| self.get(kind, ns, name).is_none()));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: u16) -> Arc<Object> {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: {port}}}]}}}}"
        );
        Arc::new(crate::read_yaml(&text, "t", "n").objects.remove(0))
    }

    #[test]
    fn equal_objects_are_no_change_and_keep_their_place() {
        let mut set = ObjectSet::default();
        assert!(set.insert(service("a", 80)));
        assert!(!set.insert(service("a", 80)));
        let before = set.clone();
        assert!(set.insert(service("a", 81)));
        assert!(set.insert(service("b", 80)));
        assert_eq!((before.len(), set.len()), (1, 2));

        let kept = set.get(Kind::Service, "n", "b").unwrap().clone();
        let mut changed = set.replace(Kind::Service, vec![service("b", 80), service("c", 80)]);
        changed.sort();
        assert_eq!(
            changed,
            [("n".into(), "a".into()), ("n".into(), "c".into())]
        );
        assert!(Arc::ptr_eq(
            &kept,
            set.get(Kind::Service, "n", "b").unwrap()
        ));
        assert_eq!(set.in_namespace(Kind::Service, "n").count(), 2);
        assert!(set.remove(Kind::Service, "n", "b").is_some());
        assert!(set.remove(Kind::Service, "n", "b").is_none());
        assert_eq!(set.of(Kind::Service).count(), 1);
    }
}
