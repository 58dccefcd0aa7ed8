//! All resources of the proxy: static, active, warming, refused; and the snapshot made of them.
//! A cluster warms until its endpoints and secrets arrive, a listener until its routes and secrets
//! do, or until their fetch timeout; what it replaces serves meanwhile.
mod address;
mod draining;
mod files;
mod fixed;
mod held;
mod published;
mod secrets;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use lateen_proxy_core::config::{
    Cluster, ClusterLoadAssignment, Listener, Name, RouteConfiguration, Secret, Snapshot,
};

use crate::decode::{self, Context};
use crate::error::DecodeError;
use crate::kind::Kind;
use crate::references;
pub use fixed::StaticError;
pub use held::{Held, Secrets, Set};
use held::{held, warm};
pub use secrets::SecretUpdates;

/// The present moment, handed in by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds of a monotonic clock.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch, for dumps.
    pub unix_ms: u64,
}

/// A refused resource.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Wire bytes.
    pub raw: Arc<[u8]>,
    /// Version it came with.
    pub version: Name,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Why, with the field path.
    pub error: String,
}

/// The name that a resource says itself: every kind has it in field 1, read even when the rest is
/// broken; empty where it cannot be read.
pub(crate) fn name_in(raw: &[u8]) -> String {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    let mut named = Named::default();
    // What was read before the fault stays.
    let _ = prost::Message::merge(&mut named, raw);
    named.name
}

/// A resource of a response.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Resource name; empty in state-of-the-world responses, where the message tells it.
    pub name: Name,
    /// Version.
    pub version: Name,
    /// Wire bytes of the message.
    pub raw: Arc<[u8]>,
}

/// Tries whether a listener's addresses can be had; the reason where not.
pub type TryBind = dyn Fn(&Listener) -> Result<(), String> + Send + Sync;

/// Where addresses are tried before a listener is accepted.
#[derive(Default)]
struct Binder(Option<Box<TryBind>>);

impl std::fmt::Debug for Binder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Binder")
    }
}

/// All resources.
#[derive(Debug)]
pub struct World {
    context: Context,
    binder: Binder,
    /// Clusters.
    pub clusters: Set<Cluster>,
    /// Listeners.
    pub listeners: Set<Listener>,
    /// Endpoints by EDS service name.
    pub endpoints: BTreeMap<Name, Held<ClusterLoadAssignment>>,
    /// Route tables.
    pub routes: BTreeMap<Name, Held<RouteConfiguration>>,
    /// Secrets.
    pub secrets: Secrets,
    /// Refused resources, until a good one of the same name comes.
    pub refused: BTreeMap<(Kind, Name), Refused>,
    /// Fetches under way: deadline in monotonic milliseconds, none = for ever.
    fetches: BTreeMap<(Kind, Name), Option<u64>>,
    /// Fetches that ended without a resource.
    missing: BTreeSet<(Kind, Name)>,
    draining: draining::Draining,
    generation: u64,
    dirty: BTreeSet<Kind>,
    initialized: bool,
    last: Arc<Snapshot>,
    started_ms: u64,
    watched: secrets::Watched,
    files: files::Files,
    /// Versions of the last accepted state-of-the-world responses.
    versions: BTreeMap<Kind, Name>,
}

impl World {
    /// A world of static resources.
    ///
    /// # Errors
    /// When one of them is not acceptable; static resources are all or nothing.
    pub fn new(
        context: Context,
        fixed: &crate::bootstrap::StaticResources,
        now: Now,
    ) -> Result<Self, StaticError> {
        let mut world = Self {
            context,
            binder: Binder::default(),
            clusters: Set::default(),
            listeners: Set::default(),
            endpoints: BTreeMap::new(),
            routes: BTreeMap::new(),
            secrets: Secrets::default(),
            refused: BTreeMap::new(),
            fetches: BTreeMap::new(),
            missing: BTreeSet::new(),
            draining: draining::Draining::default(),
            generation: 0,
            dirty: Kind::ALL.into_iter().collect(),
            initialized: false,
            last: Arc::default(),
            started_ms: now.unix_ms,
            versions: BTreeMap::new(),
            watched: secrets::Watched::default(),
            files: files::Files::default(),
        };
        for (list, kind, items) in [
            ("secrets", Kind::Secret, &fixed.secrets),
            ("clusters", Kind::Cluster, &fixed.clusters),
            ("listeners", Kind::Listener, &fixed.listeners),
        ] {
            for (index, (name, raw)) in items.iter().enumerate() {
                let incoming = Incoming {
                    name: name.clone(),
                    version: Name::default(),
                    raw: raw.clone(),
                };
                world
                    .add_fixed(kind, &incoming, now)
                    .map_err(|error| StaticError {
                        file: String::new(),
                        list,
                        index,
                        name: name.to_string(),
                        error,
                    })?;
            }
        }
        Ok(world)
    }

    /// Has listeners of the management server refused whose addresses cannot be
    /// bound, so that it does not believe them to serve.
    pub fn set_binder(&mut self, binder: Box<TryBind>) {
        self.binder = Binder(Some(binder));
    }

    /// How long connections of a listener that goes may live; their route tables stay as long.
    pub fn set_drain_time(&mut self, time: std::time::Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.draining.set_time(ms);
    }

    /// Whether a cluster serves or warms.
    fn has_cluster(&self, name: &Name) -> bool {
        self.clusters.active.contains_key(name) || self.clusters.warming.contains_key(name)
    }

    fn add_fixed(&mut self, kind: Kind, incoming: &Incoming, now: Now) -> Result<(), DecodeError> {
        let twice = || DecodeError::new("this name is there twice");
        match self.decode(kind, incoming, now, false)? {
            Decoded::Cluster(name, held) => {
                if !self.clusters.fix(name, held) {
                    return Err(twice());
                }
            }
            Decoded::Listener(name, held) => {
                self.admit_fixed(&name, &held)?;
                if !self.listeners.fix(name, held) {
                    return Err(twice());
                }
            }
            Decoded::Secret(name, held) => {
                self.secrets.fixed.insert(name, held);
            }
            Decoded::Endpoints(..) | Decoded::Routes(..) => {}
        }
        Ok(())
    }

    /// Takes in a response. Good resources are applied even when others are refused; the refused
    /// ones are returned with their reason. `complete` = state of the world: clusters and listeners
    /// that are not named go.
    pub fn update(
        &mut self,
        kind: Kind,
        resources: &[Incoming],
        removed: &[Name],
        complete: bool,
        now: Now,
    ) -> Vec<(Name, String)> {
        let mut refused = Vec::new();
        let mut seen = HashSet::with_capacity(resources.len());
        let mut decoded = Vec::new();
        let mut unchanged = Vec::new();
        let twice = |name: Name| {
            let error = format!("duplicate {} {name} found", kind.word());
            vec![(name, error)]
        };
        // Which resource one without a readable name stands for is not known: none may go then.
        let mut complete = complete;
        for incoming in resources {
            if let Some(name) = self.unchanged(kind, incoming) {
                if !seen.insert(name.clone()) {
                    return twice(name);
                }
                unchanged.push((name, incoming));
                continue;
            }
            match self.decode(kind, incoming, now, true) {
                Ok(d) => {
                    let name = d.name().clone();
                    if !seen.insert(name.clone()) {
                        return twice(name);
                    }
                    decoded.push(d);
                }
                Err(error) => {
                    let name = self.name_of(kind, incoming);
                    let own = name_in(&incoming.raw);
                    complete &= !(own.is_empty() && incoming.name.is_empty());
                    seen.insert(name.clone());
                    seen.insert(own.into());
                    self.refused.insert(
                        (kind, name.clone()),
                        Refused {
                            raw: incoming.raw.clone(),
                            version: incoming.version.clone(),
                            at_ms: now.unix_ms,
                            error: error.to_string(),
                        },
                    );
                    refused.push((name, error.to_string()));
                }
            }
        }
        let going = self.going(kind, &seen, removed, complete);
        if kind == Kind::Listener {
            refused.extend(self.refuse_shared_addresses(&going, &mut decoded, now));
        }
        let accepted = refused.is_empty();
        for (name, incoming) in unchanged {
            self.confirm(kind, &name, incoming, accepted);
        }
        for d in decoded {
            self.refused.remove(&(kind, d.name().clone()));
            self.apply(d, accepted);
        }
        for name in &going {
            self.remove(kind, name, now);
        }
        if complete && kind.is_wildcard() {
            self.refused
                .retain(|(k, name), _| *k != kind || seen.contains(name));
        }
        refused
    }

    /// Names of what a response takes away.
    fn going(
        &self,
        kind: Kind,
        seen: &HashSet<Name>,
        removed: &[Name],
        complete: bool,
    ) -> BTreeSet<Name> {
        let mut going: BTreeSet<Name> = removed.iter().cloned().collect();
        if complete && kind.is_wildcard() {
            let known = self.names(kind).into_iter();
            going.extend(known.filter(|name| !seen.contains(name)));
        }
        going
    }

    /// Names of dynamic resources of a wildcard type.
    fn names(&self, kind: Kind) -> Vec<Name> {
        fn of<T>(set: &Set<T>) -> Vec<Name> {
            let all = set.active.keys().chain(set.warming.keys());
            all.filter(|n| !set.is_fixed(n)).cloned().collect()
        }
        match kind {
            Kind::Cluster => of(&self.clusters),
            Kind::Listener => of(&self.listeners),
            _ => vec![],
        }
    }

    fn name_of(&self, kind: Kind, incoming: &Incoming) -> Name {
        if !incoming.name.is_empty() {
            return incoming.name.clone();
        }
        let name = name_in(&incoming.raw);
        if name.is_empty() {
            format!("<unnamed {}>", kind.word()).into()
        } else {
            name.into()
        }
    }

    fn decode(
        &self,
        kind: Kind,
        incoming: &Incoming,
        now: Now,
        api: bool,
    ) -> Result<Decoded, DecodeError> {
        let c = &self.context;
        Ok(match kind {
            Kind::Cluster => {
                let d = decode::cluster(&incoming.raw, c, api)?;
                let mut needs: Vec<_> = d.secrets.into_iter().map(|n| (Kind::Secret, n)).collect();
                needs.extend(d.endpoints.map(|n| (Kind::Endpoints, n)));
                Decoded::Cluster(
                    d.cluster.name.clone(),
                    held(d.cluster, incoming, now, needs),
                )
            }
            Kind::Listener => {
                let mut d = decode::listener(&incoming.raw, c)?;
                references::of_listener(&d.listener, &|name| self.has_cluster(name))?;
                if api && !incoming.name.is_empty() {
                    d.listener.name = incoming.name.clone();
                }
                if let Some(binder) = self.binder.0.as_deref().filter(|_| api) {
                    binder(&d.listener).map_err(|e| DecodeError::new(e).within("address"))?;
                }
                let mut needs: Vec<_> = d.secrets.into_iter().map(|n| (Kind::Secret, n)).collect();
                needs.extend(d.routes.into_iter().map(|n| (Kind::Routes, n)));
                Decoded::Listener(
                    d.listener.name.clone(),
                    held(d.listener, incoming, now, needs),
                )
            }
            Kind::Endpoints => {
                let e = decode::endpoints(&incoming.raw)?;
                Decoded::Endpoints(e.cluster_name.clone(), held(e, incoming, now, vec![]))
            }
            Kind::Routes => {
                let r = decode::routes(&incoming.raw, c)?;
                references::of_table(&r, &|name| self.has_cluster(name))?;
                Decoded::Routes(r.name.clone(), held(r, incoming, now, vec![]))
            }
            Kind::Secret => {
                let (name, s) = decode::secret(&incoming.raw, c)?;
                Decoded::Secret(name, held(s, incoming, now, vec![]))
            }
        })
    }

    fn apply(&mut self, d: Decoded, accepted: bool) {
        match d {
            Decoded::Cluster(name, h) => {
                warm(&mut self.clusters, name, h, accepted);
                self.dirty.insert(Kind::Cluster);
            }
            Decoded::Listener(name, h) => {
                warm(&mut self.listeners, name, h, accepted);
                self.dirty.insert(Kind::Listener);
            }
            Decoded::Endpoints(name, h) => {
                self.arrived(Kind::Endpoints, name, h, accepted, |w| &mut w.endpoints)
            }
            Decoded::Routes(name, h) => {
                self.arrived(Kind::Routes, name, h, accepted, |w| &mut w.routes)
            }
            Decoded::Secret(name, h) => {
                self.watched.stamp(&name, &h.raw, &self.context);
                self.arrived(Kind::Secret, name, h, accepted, |w| &mut w.secrets.active)
            }
        }
    }

    fn arrived<T>(
        &mut self,
        kind: Kind,
        name: Name,
        mut new: Held<T>,
        accepted: bool,
        map: impl FnOnce(&mut Self) -> &mut BTreeMap<Name, Held<T>>,
    ) {
        self.fetches.remove(&(kind, name.clone()));
        self.missing.remove(&(kind, name.clone()));
        new.accepted = accepted;
        let map = map(self);
        match map.get_mut(&name) {
            // An unchanged resend keeps its value, so that nobody downstream sees a change.
            Some(old) if old.raw == new.raw => {
                old.version = new.version;
                old.accepted = accepted;
            }
            _ => {
                map.insert(name, new);
                self.dirty.insert(kind);
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: &Name, now: Now) {
        match kind {
            Kind::Cluster if !self.clusters.is_fixed(name) => {
                self.clusters.active.remove(name);
                self.clusters.warming.remove(name);
                self.dirty.extend([Kind::Cluster, Kind::Endpoints]);
            }
            Kind::Listener if !self.listeners.is_fixed(name) => {
                if let Some(old) = self.listeners.active.remove(name) {
                    self.draining.begin(&old, now);
                }
                self.listeners.warming.remove(name);
                self.dirty.insert(Kind::Listener);
            }
            // A removed name ends the wait for it; what is held of it goes.
            Kind::Endpoints | Kind::Routes | Kind::Secret => {
                self.missing.insert((kind, name.clone()));
                self.fetches.remove(&(kind, name.clone()));
                let gone = match kind {
                    Kind::Endpoints => self.endpoints.remove(name).is_some(),
                    Kind::Routes => self.routes.remove(name).is_some(),
                    _ => self.secrets.active.remove(name).is_some(),
                };
                if gone {
                    self.dirty.insert(kind);
                }
            }
            _ => {}
        }
        self.refused.remove(&(kind, name.clone()));
    }

    /// When the world was made, Unix milliseconds.
    #[must_use]
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// Version of the last accepted response of a type.
    #[must_use]
    pub fn version(&self, kind: Kind) -> Option<&str> {
        self.versions.get(&kind).map(|v| &**v)
    }

    /// Notes the version of an accepted response.
    pub fn set_version(&mut self, kind: Kind, version: &str) {
        self.versions.insert(kind, version.into());
    }

    /// Versions of held resources for delta's `initial_resource_versions`.
    #[must_use]
    pub fn versions(&self, kind: Kind) -> BTreeMap<Name, Name> {
        fn of<'a, T: 'a>(
            list: impl Iterator<Item = (&'a Name, &'a Held<T>)>,
        ) -> BTreeMap<Name, Name> {
            list.filter(|(_, h)| h.accepted && !h.version.is_empty())
                .map(|(n, h)| (n.clone(), h.version.clone()))
                .collect()
        }
        match kind {
            Kind::Cluster => of(self.clusters.active.iter().chain(&self.clusters.warming)),
            Kind::Listener => of(self.listeners.active.iter().chain(&self.listeners.warming)),
            Kind::Endpoints => of(self.endpoints.iter()),
            Kind::Routes => of(self.routes.iter()),
            Kind::Secret => of(self.secrets.active.iter()),
        }
    }
}

enum Decoded {
    Cluster(Name, Held<Cluster>),
    Listener(Name, Held<Listener>),
    Endpoints(Name, Held<ClusterLoadAssignment>),
    Routes(Name, Held<RouteConfiguration>),
    Secret(Name, Held<Secret>),
}

impl Decoded {
    fn name(&self) -> &Name {
        match self {
            Self::Cluster(n, _)
            | Self::Listener(n, _)
            | Self::Endpoints(n, _)
            | Self::Routes(n, _)
            | Self::Secret(n, _) => n,
        }
    }
}
