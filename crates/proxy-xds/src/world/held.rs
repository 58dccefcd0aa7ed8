//! Resources as they are held, in service and on their way there. One that comes again as it is
//! known by its bytes, before anything of it is decoded.
use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_proxy_core::config::{Name, ResourceMap, Secret};

use super::{Incoming, Now, World, name_in};
use crate::decode::Needs;
use crate::kind::Kind;

/// A resource as it was taken in.
#[derive(Clone, Debug)]
pub struct Held<T> {
    /// Decoded value.
    pub value: Arc<T>,
    /// Wire bytes.
    pub raw: Arc<[u8]>,
    /// Version of the resource (delta) or of the response (state of the world).
    pub version: Name,
    /// When it came, Unix milliseconds.
    pub updated_ms: u64,
    /// Whether the whole response was accepted; only then delta tells the version on reconnect.
    pub accepted: bool,
    /// From the bootstrap: no management server replaces or removes it.
    pub fixed: bool,
    /// What it waits for.
    pub needs: Arc<[(Kind, Needs)]>,
}

/// Resources of one type that may warm.
#[derive(Clone, Debug)]
pub struct Set<T> {
    /// Serving.
    pub active: BTreeMap<Name, Held<T>>,
    /// Waiting for what they need.
    pub warming: BTreeMap<Name, Held<T>>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self {
            active: BTreeMap::new(),
            warming: BTreeMap::new(),
        }
    }
}

impl<T> Set<T> {
    /// Whether a resource of the bootstrap has this name.
    #[must_use]
    pub fn is_fixed(&self, name: &str) -> bool {
        let held = self.active.get(name).or_else(|| self.warming.get(name));
        held.is_some_and(|held| held.fixed)
    }

    /// The resources of the bootstrap, by name.
    #[must_use]
    pub fn fixed(&self) -> Vec<(&Name, &Held<T>)> {
        let all = self.active.iter().chain(&self.warming);
        let mut fixed: Vec<_> = all.filter(|(_, held)| held.fixed).collect();
        fixed.sort_by_key(|(name, _)| *name);
        fixed
    }

    /// Takes in a resource of the bootstrap; false where one has its name.
    pub(super) fn fix(&mut self, name: Name, held: Held<T>) -> bool {
        if self.is_fixed(&name) {
            return false;
        }
        let held = Held {
            fixed: true,
            ..held
        };
        self.warming.insert(name, held);
        true
    }

    /// The name of the resource that is held with these bytes.
    fn same(&self, name: &str, raw: &[u8]) -> Option<Name> {
        same(&self.active, name, raw).or_else(|| same(&self.warming, name, raw))
    }

    fn confirm(&mut self, name: &Name, incoming: &Incoming, accepted: bool) {
        match self.active.get_mut(name) {
            Some(held) if held.raw == incoming.raw => {
                held.confirm(incoming, accepted);
                // What was to replace it is taken back.
                self.warming.remove(name);
            }
            _ => confirm(&mut self.warming, name, incoming, accepted),
        }
    }
}

/// Secrets: those of the bootstrap stand beside those that came, which do not warm.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// From the bootstrap.
    pub fixed: BTreeMap<Name, Held<Secret>>,
    /// From elsewhere.
    pub active: BTreeMap<Name, Held<Secret>>,
}

impl<T> Held<T> {
    /// It came again as it is.
    fn confirm(&mut self, incoming: &Incoming, accepted: bool) {
        if !self.fixed {
            self.version = incoming.version.clone();
            self.accepted = accepted;
        }
    }
}

fn confirm<T>(map: &mut BTreeMap<Name, Held<T>>, name: &Name, incoming: &Incoming, accepted: bool) {
    if let Some(held) = map.get_mut(name) {
        held.confirm(incoming, accepted);
    }
}

fn same<T>(map: &BTreeMap<Name, Held<T>>, name: &str, raw: &[u8]) -> Option<Name> {
    let (name, held) = map.get_key_value(name)?;
    (*held.raw == *raw).then(|| name.clone())
}

impl World {
    /// The name of a resource that is held as it came; it need not be decoded. Of secrets none is:
    /// the files that they name may have changed.
    pub(super) fn unchanged(&self, kind: Kind, incoming: &Incoming) -> Option<Name> {
        let own;
        // Under delta a listener goes by the name it is sent with.
        let name: &str = match kind {
            Kind::Listener if !incoming.name.is_empty() => &incoming.name,
            _ => {
                own = name_in(&incoming.raw);
                &own
            }
        };
        match kind {
            Kind::Cluster => self.clusters.same(name, &incoming.raw),
            Kind::Listener => self.listeners.same(name, &incoming.raw),
            Kind::Endpoints => same(&self.endpoints, name, &incoming.raw),
            Kind::Routes => same(&self.routes, name, &incoming.raw),
            Kind::Secret => None,
        }
    }

    /// Notes that a resource came again as it is.
    pub(super) fn confirm(&mut self, kind: Kind, name: &Name, came: &Incoming, accepted: bool) {
        if !self.refused.is_empty() {
            self.refused.remove(&(kind, name.clone()));
        }
        match kind {
            Kind::Cluster => self.clusters.confirm(name, came, accepted),
            Kind::Listener => self.listeners.confirm(name, came, accepted),
            Kind::Endpoints => confirm(&mut self.endpoints, name, came, accepted),
            Kind::Routes => confirm(&mut self.routes, name, came, accepted),
            Kind::Secret => {}
        }
    }
}

/// A resource that was decoded just now.
pub(super) fn held<T>(
    value: T,
    incoming: &Incoming,
    now: Now,
    needs: Vec<(Kind, Needs)>,
) -> Held<T> {
    Held {
        value: Arc::new(value),
        raw: incoming.raw.clone(),
        version: incoming.version.clone(),
        updated_ms: now.unix_ms,
        accepted: true,
        fixed: false,
        needs: needs.into(),
    }
}

/// Puts a new resource beside the active one of its name. It differs from what is held.
pub(super) fn warm<T>(set: &mut Set<T>, name: Name, mut new: Held<T>, accepted: bool) {
    if set.is_fixed(&name) {
        return; // static resources are not replaced over the API
    }
    new.accepted = accepted;
    set.warming.insert(name, new);
}

/// The values of what serves.
pub(super) fn values<T>(map: &BTreeMap<Name, Held<T>>) -> ResourceMap<T> {
    let pairs = map
        .iter()
        .map(|(name, held)| (name.clone(), held.value.clone()));
    Arc::new(pairs.collect())
}
