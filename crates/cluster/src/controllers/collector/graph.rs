//! Who owns whom: the graph of owner references that the collector works on. Pure.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::api::Resource;
use crate::controllers::object::{deleting, flag, list, name, namespace, text, uid};

/// Finalizer of an owner whose dependents go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// Where an object is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace, empty for cluster objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

#[derive(Debug, Clone)]
struct Node {
    place: Place,
    owners: Vec<String>,
    /// Owners that wait for this object in a foreground deletion.
    blocks: BTreeSet<String>,
    leaves: Option<Leaving>,
}

/// How an object being deleted treats its dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Waits for its blocking dependents.
    Foreground,
    /// Leaves them without owner.
    Orphan,
}

/// The graph, kept by uid.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, BTreeSet<String>>,
}

/// How an object's finalizers say it leaves; `None` when it stays or needs no help.
pub fn leaving(object: &Value) -> Option<Leaving> {
    if !deleting(object) {
        return None;
    }
    let has = |wanted: &str| {
        list(object, "/metadata/finalizers")
            .iter()
            .any(|f| f == wanted)
    };
    if has(ORPHAN) {
        Some(Leaving::Orphan)
    } else if has(FOREGROUND) {
        Some(Leaving::Foreground)
    } else {
        None
    }
}

impl Graph {
    /// Takes in the state of an object; returns the uids that need a look.
    pub fn put(&mut self, resource: &Resource, object: &Value) -> Vec<String> {
        let id = uid(object).to_owned();
        let references = list(object, "/metadata/ownerReferences");
        let owners: Vec<String> = references
            .iter()
            .map(|r| text(r, "/uid").to_owned())
            .collect();
        let blocks = references
            .iter()
            .filter(|r| flag(r, "/blockOwnerDeletion"))
            .map(|r| text(r, "/uid").to_owned())
            .collect();
        let place = Place {
            resource: resource.clone(),
            namespace: namespace(object).to_owned(),
            name: name(object).to_owned(),
        };
        let leaves = leaving(object);
        let node = Node {
            place,
            owners: owners.clone(),
            blocks,
            leaves,
        };
        let old = self.nodes.insert(id.clone(), node);
        let mut look = Vec::new();
        let unchanged = old.as_ref().is_some_and(|old| old.owners == owners);
        if !unchanged {
            for lost in old.iter().flat_map(|old| &old.owners) {
                if let Some(set) = self.dependents.get_mut(lost) {
                    set.remove(&id);
                }
                look.push(lost.clone());
            }
            for owner in &owners {
                self.dependents
                    .entry(owner.clone())
                    .or_default()
                    .insert(id.clone());
            }
            if !owners.is_empty() {
                look.push(id.clone());
            }
        }
        if leaves.is_some() {
            look.push(id);
        }
        look
    }

    /// Takes an object out; returns the uids that need a look: its dependents, and owners that
    /// may have waited for it.
    pub fn remove(&mut self, gone: &str) -> Vec<String> {
        let mut look = Vec::new();
        if let Some(node) = self.nodes.remove(gone) {
            for owner in node.owners {
                if let Some(set) = self.dependents.get_mut(&owner) {
                    set.remove(gone);
                    if set.is_empty() {
                        self.dependents.remove(&owner);
                    }
                }
                if self
                    .nodes
                    .get(&owner)
                    .is_some_and(|node| node.leaves.is_some())
                {
                    look.push(owner);
                }
            }
        }
        look.extend(self.dependents.get(gone).into_iter().flatten().cloned());
        look
    }

    /// Where an object is, if it is known.
    pub fn place(&self, id: &str) -> Option<&Place> {
        self.nodes.get(id).map(|node| &node.place)
    }

    /// The objects that name this one as an owner.
    pub fn dependents(&self, id: &str) -> Vec<String> {
        self.dependents
            .get(id)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// The dependents that hold up this owner's foreground deletion.
    pub fn blocking(&self, id: &str) -> Vec<String> {
        let blocks = |d: &&String| {
            self.nodes
                .get(*d)
                .is_some_and(|node| node.blocks.contains(id))
        };
        self.dependents
            .get(id)
            .into_iter()
            .flatten()
            .filter(blocks)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::{PODS, REPLICA_SETS};
    use serde_json::json;

    fn pod(id: &str, owner: &str) -> Value {
        json!({"metadata": {"name": id, "namespace": "n", "uid": id, "ownerReferences": [
            {"uid": owner, "kind": "ReplicaSet", "apiVersion": "apps/v1", "name": "rs",
             "blockOwnerDeletion": true}]}})
    }

    fn set(id: &str, leaving: bool) -> Value {
        let mut set = json!({"metadata": {"name": "rs", "namespace": "n", "uid": id}});
        if leaving {
            set["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            set["metadata"]["finalizers"] = json!([FOREGROUND]);
        }
        set
    }

    #[test]
    fn a_gone_owner_makes_its_dependents_looked_at() {
        let mut graph = Graph::default();
        assert!(graph.put(&REPLICA_SETS, &set("rs", false)).is_empty());
        assert_eq!(graph.put(&PODS, &pod("a", "rs")), ["a"]);
        assert!(graph.put(&PODS, &pod("a", "rs")).is_empty(), "nothing new");
        assert_eq!(graph.remove("rs"), ["a"]);
    }

    #[test]
    fn a_waiting_owner_is_looked_at_when_a_dependent_goes() {
        let mut graph = Graph::default();
        graph.put(&PODS, &pod("a", "rs"));
        assert_eq!(graph.put(&REPLICA_SETS, &set("rs", true)), ["rs"]);
        assert_eq!(graph.blocking("rs"), ["a"]);
        assert_eq!(graph.remove("a"), ["rs"]);
        assert!(graph.blocking("rs").is_empty());
    }

    #[test]
    fn a_changed_owner_is_followed() {
        let mut graph = Graph::default();
        graph.put(&PODS, &pod("a", "one"));
        let mut look = graph.put(&PODS, &pod("a", "two"));
        look.sort();
        assert_eq!(look, ["a", "one"]);
        assert_eq!(graph.dependents("two"), ["a"]);
        assert!(graph.dependents("one").is_empty());
        assert_eq!(graph.place("a").map(|p| p.name.as_str()), Some("a"));
    }
}
